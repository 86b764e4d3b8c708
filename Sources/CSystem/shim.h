#pragma once
// What Swift cannot say by itself: a hint to the memory system, and nothing else.
static inline __attribute__((always_inline)) void cache_prefetch(const void *address) {
  __builtin_prefetch(address, 0, 3);
}

// Declared by glibc only under _GNU_SOURCE, which Swift's importer does not define.
extern int pthread_setname_np(unsigned long thread, const char *name);
