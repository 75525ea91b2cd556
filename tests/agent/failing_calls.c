/* Makes one system call of a program fail: the FAIL_AT-th of the kind FAIL_CALL ("change": of any that changes
 * something) that concerns a path below FAIL_BELOW, with the error FAIL_ERRNO; 0: the program is killed right before
 * it. Every such call leaves a byte in FAIL_COUNT. For tests alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int below(const char *path) {
    const char *root = getenv("FAIL_BELOW");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static int concerns(int folder, const char *path) {
    char link[64], target[PATH_MAX];
    if (path && path[0] == '/') return below(path);
    if (folder == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    return below(target);
}

static int fails(const char *call, int folder, const char *path) {
    static int seen, counting;
    const char *wanted = getenv("FAIL_CALL");
    if (counting || !wanted || !concerns(folder, path)) return 0;
    if (strcmp(wanted, "change") ? strcmp(wanted, call) : !strcmp(call, "open")) return 0;
    const char *count = getenv("FAIL_COUNT");
    counting = 1;
    int (*real_openat)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
    ssize_t (*real_write)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int file = count ? real_openat(AT_FDCWD, count, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file >= 0) {
        if (real_write(file, "x", 1) != 1) abort();
        close(file);
    }
    counting = 0;
    if (++seen != atoi(getenv("FAIL_AT"))) return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    if (!errno) kill(getpid(), SIGKILL);
    return 1;
}

#define OPENER(name)                                                              \
    int name(const char *path, int flags, ...) {                                  \
        va_list more;                                                             \
        va_start(more, flags);                                                    \
        mode_t mode = va_arg(more, mode_t);                                       \
        va_end(more);                                                             \
        if (fails("open", AT_FDCWD, path)) return -1;                             \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);            \
        return real(path, flags, mode);                                           \
    }
#define OPENER_AT(name)                                                           \
    int name(int folder, const char *path, int flags, ...) {                      \
        va_list more;                                                             \
        va_start(more, flags);                                                    \
        mode_t mode = va_arg(more, mode_t);                                       \
        va_end(more);                                                             \
        if (fails("open", folder, path)) return -1;                               \
        int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, #name);       \
        return real(folder, path, flags, mode);                                   \
    }
OPENER(open)
OPENER(open64)
OPENER_AT(openat)
OPENER_AT(openat64)

ssize_t write(int file, const void *data, size_t size) {
    if (fails("write", file, NULL)) return -1;
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    return real(file, data, size);
}

int fsync(int file) {
    if (fails("fsync", file, NULL)) return -1;
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    return real(file);
}

int rename(const char *from, const char *to) {
    if (fails("rename", AT_FDCWD, to)) return -1;
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    return real(from, to);
}

int renameat(int folder, const char *from, int other, const char *to) {
    if (fails("rename", other, to)) return -1;
    int (*real)(int, const char *, int, const char *) = dlsym(RTLD_NEXT, "renameat");
    return real(folder, from, other, to);
}

int unlink(const char *path) {
    if (fails("unlink", AT_FDCWD, path)) return -1;
    int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
    return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
    if (fails("unlink", folder, path)) return -1;
    int (*real)(int, const char *, int) = dlsym(RTLD_NEXT, "unlinkat");
    return real(folder, path, flags);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    if (fails("mkdir", folder, path)) return -1;
    int (*real)(int, const char *, mode_t) = dlsym(RTLD_NEXT, "mkdirat");
    return real(folder, path, mode);
}

int rmdir(const char *path) {
    if (fails("rmdir", AT_FDCWD, path)) return -1;
    int (*real)(const char *) = dlsym(RTLD_NEXT, "rmdir");
    return real(path);
}
