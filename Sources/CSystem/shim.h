#pragma once
// What Swift cannot reach by itself: system headers that are not in its Glibc module, and one hint to
// the memory system. No logic of ours.
#include <fcntl.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

static inline __attribute__((always_inline)) void cache_prefetch(const void *address) {
  __builtin_prefetch(address, 0, 3);
}

// Declared by glibc only under _GNU_SOURCE, which Swift's importer does not define.
extern int pthread_setname_np(unsigned long thread, const char *name);
extern int pthread_clockjoin_np(unsigned long thread, void **result, int clock, const struct timespec *deadline);
// By the clock of the day; the thread sanitizer knows this one alone.
extern int pthread_timedjoin_np(unsigned long thread, void **result, const struct timespec *deadline);
extern int sched_setaffinity(int process, size_t size, const void *cores);
extern int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags);
extern ssize_t preadv2(int file, const struct iovec *parts, int count, off_t offset, int flags);

// As pread, but fails with EAGAIN where it would have to wait for the disk, and with EOPNOTSUPP on a file system
// that can't tell.
static inline ssize_t read_if_in_memory(int file, void *target, size_t count, off_t offset) {
  struct iovec part = {target, count};
  return preadv2(file, &part, 1, offset, /* RWF_NOWAIT */ 8);
}

// A file for reading, of which the system does not note when it was read (O_NOATIME, for whoever owns it).
static inline int open_to_read(const char *path) {
  int file = open(path, O_RDONLY | O_CLOEXEC | 01000000);
  return file >= 0 ? file : open(path, O_RDONLY | O_CLOEXEC);
}

extern void *mremap(void *from, size_t length, size_t new_length, int flags, ...);

// Moves pages to where others are now, which go; where they were nothing is resident any more. 0, or -1 if the system
// does not do that.
static inline int move_resident_pages(void *from, size_t length, void *to) {
  return mremap(from, length, length, /* MAYMOVE | FIXED | DONTUNMAP */ 1 | 2 | 4, to) == to ? 0 : -1;
}

// Where the program's data begin. The linker puts constants before them, which nobody writes to.
extern char __data_start[];
static inline const void *program_data_start(void) { return __data_start; }
