/*
 * replay.h - does what a plan says, on whichever malloc the process has.
 *
 * As little as possible but the allocations themselves: a plan is mapped, slots
 * are shared memory, and both are in memory before the clock starts and are left
 * out of what is resident. Memory is touched as programs do: the first bytes of a
 * block, and each further page of it once; what calloc gave is left alone.
 */
#ifndef TRACE_REPLAY_H
#define TRACE_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "plan.h"

struct replay_options {
    unsigned samples; /* how often to look at what is resident; 0: never */
    bool pace;        /* not before it happened in the recorded program */
};

struct replay_sample {
    uint64_t time; /* microseconds since the start */
    uint64_t step; /* how many rounds were done */
    uint64_t kb;   /* resident */
};

struct replay_result {
    uint64_t time, cpu; /* microseconds */
    uint64_t faults;    /* of pages, minor */
    uint64_t peak_kb, end_kb;
    uint64_t failed; /* allocations that got nothing */
    struct replay_sample *samples;
    unsigned sample_count;
};

/*
 * Replays it, in the calling thread as the trace's first and others that it
 * starts; what is live at the end stays. NULL: done; else why it can't be.
 */
const char *replay(const struct plan *plan,
                   const struct replay_options *options,
                   struct replay_result *result);

/* Maps a plan; NULL: *why says what is wrong. It stays mapped. */
const struct plan *replay_map(const char *file, const char **why);

#endif
