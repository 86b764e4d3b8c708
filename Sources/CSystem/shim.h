#pragma once
// What Swift cannot say by itself: a hint to the memory system, and nothing else.
static inline __attribute__((always_inline)) void cache_prefetch(const void *address) {
  __builtin_prefetch(address, 0, 3);
}
