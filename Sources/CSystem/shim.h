#pragma once
// What Swift cannot reach by itself: system headers that are not in its Glibc module, and one hint to
// the memory system. No logic of ours.
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

static inline __attribute__((always_inline)) void cache_prefetch(const void *address) {
  __builtin_prefetch(address, 0, 3);
}

// Declared by glibc only under _GNU_SOURCE, which Swift's importer does not define.
extern int pthread_setname_np(unsigned long thread, const char *name);
extern int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags);
