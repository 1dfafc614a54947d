/*
 * bench.h - what the benchmark programs share: random numbers, reading a
 * number, the clock, the process's own measurements.
 */
#ifndef HAK_BENCH_H
#define HAK_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

/* xorshift64; the state is never 0. */
static inline uint64_t bench_next(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* One step of splitmix64, so that neighbouring seeds have nothing in common. */
static inline uint64_t bench_first_state(uint64_t seed)
{
    uint64_t x = seed + UINT64_C(0x9E3779B97F4A7C15);

    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    x ^= x >> 31;
    return x != 0 ? x : 1;
}

/* A number below `below`, made of the upper half of r. */
static inline uint64_t bench_upper(uint64_t r, uint64_t below)
{
    return ((r >> 32) * below) >> 32;
}

/* Reads a whole number from least to most; false if it is not one. */
static inline bool bench_number(const char *text, uint64_t least, uint64_t most,
                                uint64_t *number)
{
    char *end;
    size_t digits = strspn(text, "0123456789");

    *number = strtoull(text, &end, 10);
    return digits > 0 && digits <= 18 && *end == '\0' && *number >= least &&
           *number <= most;
}

/*
 * Zeroed memory that comes from no allocator and is touched before the clock
 * starts; NULL if there is none.
 */
static inline void *bench_array(size_t bytes)
{
    void *array = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    return array == MAP_FAILED ? NULL : array;
}

/*
 * The largest resident size so far, in KB. Not ru_maxrss: that begins with
 * the size of the program that started this one.
 */
static inline long bench_peak_kb(void)
{
    char line[128];
    long peak = -1;
    FILE *file = fopen("/proc/self/status", "r");

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "VmHWM: %ld", &peak) == 1)
            break;
    }
    if (file != NULL)
        fclose(file);
    return peak;
}

/* Minor page faults so far; who is RUSAGE_SELF or RUSAGE_CHILDREN. */
static inline long bench_faults(int who)
{
    struct rusage usage;

    getrusage(who, &usage);
    return usage.ru_minflt;
}

/* Processor time so far, including the kernel's on our behalf. */
static inline double bench_processor_seconds(int who)
{
    struct rusage usage;

    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static inline double bench_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
