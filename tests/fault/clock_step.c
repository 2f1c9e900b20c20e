/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A preloaded library that puts the date of a running program, and of its children, forward or
 * back: CLOCK_REALTIME is off by as many nanoseconds as the file $WEIR_CLOCK_STEP holds (a 64-bit
 * number in the machine's order), which a test writes at any time. The file is mapped, so a read of
 * the clock costs one load more. Other clocks are left alone, and so are dates of files.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS INT64_C(1000000000)

static const volatile int64_t *step; /* NULL: the true date */

__attribute__((constructor)) static void open_step(void)
{
    const char *path = getenv("WEIR_CLOCK_STEP");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*step), PROT_READ, MAP_SHARED, fd, 0);

    if (fd >= 0)
        close(fd);
    step = at == MAP_FAILED ? NULL : at;
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, ret);

    if (!rc && step && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = (int64_t)ret->tv_sec * NS + ret->tv_nsec + *step;

        ret->tv_sec = ns / NS;
        ret->tv_nsec = ns % NS;
    }
    return rc;
}

int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    ret->tv_sec = now.tv_sec;
    ret->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}
