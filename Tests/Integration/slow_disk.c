// slow_disk - a disk that takes its time, for LD_PRELOAD in front of a server.
//
// Build:  cc -O2 -shared -fPIC -o slow_disk.so slow_disk.c -ldl
// The file that SLOW_DISK names holds three 32-bit numbers: the microseconds that each read, write and sync takes longer.
// They may change at any time. While reads take longer, the page cache has nothing at hand (preadv2 with RWF_NOWAIT).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ, WRITE, SYNC };
static volatile uint32_t *delays;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SLOW_DISK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, 3 * sizeof(uint32_t), PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) delays = mapped;
    close(fd);
}

static void pass(int what) {
    uint32_t delay = delays ? delays[what] : 0;
    if (delay) usleep(delay);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    pass(READ);
    return REAL(pread64)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    pass(WRITE);
    return REAL(pwrite64)(fd, bytes, count, at);
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    if ((flags & RWF_NOWAIT) && delays && delays[READ]) {
        errno = EAGAIN;
        return -1;
    }
    return REAL(preadv2)(fd, parts, count, at, flags);
}

int fsync(int fd) {
    pass(SYNC);
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    pass(SYNC);
    return REAL(fdatasync)(fd);
}
