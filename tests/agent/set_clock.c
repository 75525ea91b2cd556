/* Has a program see another time of day: later by as many seconds as the first number in the file LD_SET_CLOCK says, and
 * a host that slept for as many seconds as the second: these are in the time since its boot, too. Both may change
 * meanwhile. Its other clocks go on as they do. For tests alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none[2], *shift = none;

static int64_t later(clockid_t clock) {
    return clock == CLOCK_REALTIME ? shift[0] + shift[1] : clock == CLOCK_BOOTTIME ? shift[1] : 0;
}

/* Read once: a program may lock itself in before it asks for the time. */
__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LD_SET_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *place = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    if (place != MAP_FAILED) shift = place;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int ended = real(clock, now);
    if (!ended) now->tv_sec += later(clock);
    return ended;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int ended = real(now, zone);
    if (!ended) now->tv_sec += later(CLOCK_REALTIME);
    return ended;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
