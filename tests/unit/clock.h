/*
 * clock.h - the core's clocks as the test's own: they stand from clock_stop on, and
 * go on by what clock_pass says.
 *
 * For tests of what depends on how much time passes between two calls. A process
 * that is kept from the processor for a while, where the machine is busy, would
 * else do what the test does not expect. `.init = clock_stop` stops them for a
 * suite. Criterion's times are 0 then; its time limit is not this process's.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic(int64_t) clock_at; /* nanoseconds; 0: the system's */

/* In the place of the C library's, for the whole program. */
__attribute__((visibility("default"))) int clock_gettime(clockid_t clock,
                                                         struct timespec *now)
{
    int64_t at = atomic_load(&clock_at);

    if (at == 0 ||
        (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE)) {
        return (int)syscall(SYS_clock_gettime, clock, now);
    }
    now->tv_sec = (time_t)(at / 1000000000);
    now->tv_nsec = (long)(at % 1000000000);
    return 0;
}

static inline void clock_stop(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    atomic_store(&clock_at, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
}

static inline void clock_pass(int64_t milliseconds)
{
    atomic_fetch_add(&clock_at, milliseconds * 1000000);
}

#endif
