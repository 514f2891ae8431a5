/* Faults of disk and clock in one process: LD_PRELOAD, steered by a page that the laboratory maps too.

   GLEANER_FAULTS names the file of that page, GLEANER_FAULTS_FOLDER the folder whose files fail, except what the
   laboratory records there (*.accepted). Also counts the syncs of write-ahead logs, so that a message accepted
   without one is seen from outside the product. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct page {
    int32_t write_errno, sync_errno, open_errno, unused;
    int64_t clock_s;
};

static struct page *page;
static const char *folder;
static _Atomic long wal_syncs;

#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void map_page(void) {
    const char *path = getenv("GLEANER_FAULTS");
    folder = getenv("GLEANER_FAULTS_FOLDER");
    int descriptor = path ? open(path, O_RDONLY) : -1;
    if (descriptor < 0 || !folder) return;
    void *mapped = mmap(NULL, sizeof *page, PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped != MAP_FAILED) page = mapped;
}

static int path_of(int descriptor, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int ends_with(const char *path, const char *suffix) {
    size_t length = strlen(path), ending = strlen(suffix);
    return length > ending && !strcmp(path + length - ending, suffix);
}

static int below(const char *path) {
    return !strncmp(path, folder, strlen(folder)) && !ends_with(path, ".accepted");
}

static int concerned(int descriptor) {
    char path[4096];
    return path_of(descriptor, path, sizeof path) && below(path);
}

static int fails(int32_t number, int descriptor) {
    if (!number || !concerned(descriptor)) return 0;
    errno = number;
    return 1;
}

ssize_t write(int fd, const void *from, size_t count) {
    NEXT(write);
    return page && fails(page->write_errno, fd) ? -1 : next(fd, from, count);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
    NEXT(pwrite);
    return page && fails(page->write_errno, fd) ? -1 : next(fd, from, count, at);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    NEXT(pwrite64);
    return page && fails(page->write_errno, fd) ? -1 : next(fd, from, count, at);
}

ssize_t writev(int fd, const struct iovec *from, int count) {
    NEXT(writev);
    return page && fails(page->write_errno, fd) ? -1 : next(fd, from, count);
}

static int synced(int fd, int outcome) {
    char path[4096];
    if (!outcome && path_of(fd, path, sizeof path) && ends_with(path, "-wal")) wal_syncs++;
    return outcome;
}

int fsync(int fd) {
    NEXT(fsync);
    return page && fails(page->sync_errno, fd) ? -1 : synced(fd, next(fd));
}

int fdatasync(int fd) {
    NEXT(fdatasync);
    return page && fails(page->sync_errno, fd) ? -1 : synced(fd, next(fd));
}

static int read_only(const char *path, int flags) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    if (!page || !page->open_errno || !writes || !below(path)) return 0;
    errno = page->open_errno;
    return 1;
}

#define OPEN(name)                                                  \
    int name(const char *path, int flags, ...) {                    \
        NEXT(name);                                                 \
        va_list more;                                               \
        va_start(more, flags);                                      \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                               \
        return read_only(path, flags) ? -1 : next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                \
    int name(int at, const char *path, int flags, ...) {            \
        NEXT(name);                                                 \
        va_list more;                                               \
        va_start(more, flags);                                      \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                               \
        return read_only(path, flags) ? -1 : next(at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime);
    int outcome = next(clock, now);
    if (!outcome && page && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += page->clock_s;
    return outcome;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    NEXT(gettimeofday);
    int outcome = next(now, zone);
    if (!outcome && page) now->tv_sec += page->clock_s;
    return outcome;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

long gleaner_wal_syncs(void) { return wal_syncs; }
