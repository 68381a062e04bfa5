/* Lets one system call on a file below a folder fail: loaded before the C library by LD_PRELOAD, told what to do by ctypes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITE, FSYNC, TRUNCATE, RENAME, UNLINK, OPEN, MMAP, STAT, MKDIR };

static int armed = 0, kind, number, error, seen, failed;
static char folder[512];

/* From now on let the n-th call of a kind (n from 0) fail, once. */
void fail_call(int kind_, int n, int error_, const char *folder_) {
    kind = kind_, number = n, error = error_, seen = 0, failed = 0;
    strncpy(folder, folder_, sizeof folder - 1);
    armed = 1;
}

/* Stop that; whether a call has failed. */
int stop_failing(void) {
    armed = 0;
    return failed;
}

static int fails(int kind_, const char *path) {
    if (!armed || kind_ != kind || !path || !strstr(path, folder) || seen++ != number) return 0;
    failed = 1;
    errno = error;
    return 1;
}

static int fails_at(int kind_, int directory, const char *path) {
    char link[64], name[1024];
    ssize_t length;
    if (!armed || kind_ != kind) return 0;
    if (path && (path[0] == '/' || directory == AT_FDCWD)) return fails(kind_, path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    return fails(kind_, name);
}

#define FAILS(kind, fd) fails_at(kind, fd, NULL)
#define REAL(type, name, ...)                              \
    static type (*real)(__VA_ARGS__);                      \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);

#define BY_DESCRIPTOR(kind, type, name, parameters, failing, ...)  \
    type name parameters {                                         \
        REAL(type, name, __VA_ARGS__)                              \
        if (FAILS(kind, fd)) return failing;

BY_DESCRIPTOR(WRITE, ssize_t, write, (int fd, const void *data, size_t n), -1, int, const void *, size_t) return real(fd, data, n); }
BY_DESCRIPTOR(WRITE, ssize_t, pwrite, (int fd, const void *data, size_t n, off_t at), -1, int, const void *, size_t, off_t) return real(fd, data, n, at); }
BY_DESCRIPTOR(WRITE, ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t at), -1, int, const void *, size_t, off64_t) return real(fd, data, n, at); }
BY_DESCRIPTOR(FSYNC, int, fsync, (int fd), -1, int) return real(fd); }
BY_DESCRIPTOR(FSYNC, int, fdatasync, (int fd), -1, int) return real(fd); }
BY_DESCRIPTOR(TRUNCATE, int, ftruncate, (int fd, off_t n), -1, int, off_t) return real(fd, n); }
BY_DESCRIPTOR(TRUNCATE, int, ftruncate64, (int fd, off64_t n), -1, int, off64_t) return real(fd, n); }
BY_DESCRIPTOR(STAT, int, fstat, (int fd, struct stat *found), -1, int, struct stat *) return real(fd, found); }
BY_DESCRIPTOR(STAT, int, fstat64, (int fd, struct stat64 *found), -1, int, struct stat64 *) return real(fd, found); }

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    REAL(void *, mmap, void *, size_t, int, int, int, off_t)
    return fd >= 0 && FAILS(MMAP, fd) ? MAP_FAILED : real(at, n, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t n, int protection, int flags, int fd, off64_t offset) {
    REAL(void *, mmap64, void *, size_t, int, int, int, off64_t)
    return fd >= 0 && FAILS(MMAP, fd) ? MAP_FAILED : real(at, n, protection, flags, fd, offset);
}

#define BY_PATH(kind, name, parameters, path, call, ...)  \
    int name parameters {                                 \
        REAL(int, name, __VA_ARGS__)                      \
        return fails(kind, path) ? -1 : real call;        \
    }

BY_PATH(RENAME, rename, (const char *from, const char *to), to, (from, to), const char *, const char *)
BY_PATH(UNLINK, unlink, (const char *path), path, (path), const char *)
BY_PATH(UNLINK, rmdir, (const char *path), path, (path), const char *)
BY_PATH(MKDIR, mkdir, (const char *path, mode_t mode), path, (path, mode), const char *, mode_t)
BY_PATH(STAT, stat, (const char *path, struct stat *found), path, (path, found), const char *, struct stat *)
BY_PATH(STAT, stat64, (const char *path, struct stat64 *found), path, (path, found), const char *, struct stat64 *)
BY_PATH(STAT, lstat, (const char *path, struct stat *found), path, (path, found), const char *, struct stat *)
BY_PATH(STAT, lstat64, (const char *path, struct stat64 *found), path, (path, found), const char *, struct stat64 *)

#define BY_FOLDER(kind, name, parameters, call, ...)           \
    int name parameters {                                      \
        REAL(int, name, __VA_ARGS__)                           \
        return fails_at(kind, at, path) ? -1 : real call;      \
    }

BY_FOLDER(UNLINK, unlinkat, (int at, const char *path, int flags), (at, path, flags), int, const char *, int)
BY_FOLDER(MKDIR, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), int, const char *, mode_t)
BY_FOLDER(STAT, fstatat, (int at, const char *path, struct stat *found, int flags), (at, path, found, flags), int, const char *, struct stat *, int)
BY_FOLDER(STAT, fstatat64, (int at, const char *path, struct stat64 *found, int flags), (at, path, found, flags), int, const char *, struct stat64 *, int)

#define OPENING(name)                                                             \
    int name(const char *path, int flags, ...) {                                  \
        va_list more;                                                             \
        mode_t mode;                                                              \
        REAL(int, name, const char *, int, mode_t)                                \
        va_start(more, flags);                                                    \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;          \
        va_end(more);                                                             \
        return fails(OPEN, path) ? -1 : real(path, flags, mode);                  \
    }
#define OPENING_AT(name)                                                          \
    int name(int at, const char *path, int flags, ...) {                          \
        va_list more;                                                             \
        mode_t mode;                                                              \
        REAL(int, name, int, const char *, int, mode_t)                           \
        va_start(more, flags);                                                    \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;          \
        va_end(more);                                                             \
        return fails_at(OPEN, at, path) ? -1 : real(at, path, flags, mode);       \
    }

OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)
