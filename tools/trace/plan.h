/*
 * plan.h - a trace made ready to be replayed: a file that a replay maps and reads
 * from front to back, without memory of its own or any calculation.
 *
 * The trace's order is cut into rounds of some 64 operations. In a round every
 * thread has a run of its own operations. A thread may be ahead of the slowest by
 * a window of rounds, no more: so memory rises and falls as it did, though the
 * program's own locks and queues, which kept its threads in step, are not there.
 * Within the window only blocks that cross from thread to thread make one wait.
 *
 * Pointers lie in slots. A slot is used again when its block is gone: by the same
 * thread at once, if neither block crosses; else by anyone, a window later, when
 * no thread can still look for the block before in it.
 *
 * Laid out as struct plan, then at the offsets it names: threads, rounds, parties,
 * runs, steps. In the byte order and for the program that made it.
 */
#ifndef TRACE_PLAN_H
#define TRACE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "reader.h"

#define PLAN_MAGIC 0x316e616c506b6148u /* "HakPlan1" */

enum {
    PLAN_ROUND_STEPS = 64,
    PLAN_ROUND_BYTES = 1 << 18, /* or so many allocated */
    PLAN_ROUND_TIME = 10000,    /* or so many microseconds later */
    PLAN_WINDOW = 64            /* rounds, at most */
};

struct plan {
    uint64_t magic;
    uint64_t bytes; /* of all */
    uint64_t threads, rounds, parties, runs, steps, slots;
    uint64_t at_threads, at_rounds, at_parties, at_runs, at_steps;
    struct trace_totals totals;
};

/* In the order of their first steps; the first is the main one. */
struct plan_thread {
    uint64_t run, runs;   /* which are its */
    uint64_t step, steps; /* likewise */
    uint32_t begins;      /* the round of its first */
    uint32_t ends;        /* it ended while the program ran */
};

/* A party of a round is a thread that has a run in it. */
struct plan_round {
    uint64_t party; /* the first of them; the next round's: the end */
    uint64_t time;  /* microseconds, when it began */
    uint64_t live;  /* bytes asked for and not freed, at its start or so */
};

/* How many steps of a thread are in a round. */
struct plan_run {
    uint32_t round, steps;
};

enum plan_op {
    PLAN_MALLOC,
    PLAN_CALLOC,
    PLAN_REALLOC,
    PLAN_ALIGNED,
    PLAN_FREE
};

/* A parameter of all: ALIGNED's log2; REALLOC with PLAN_NO_SLOT is of NULL. */
#define PLAN_NO_SLOT UINT32_MAX
struct plan_step {
    uint32_t slot; /* of the block that is made, or freed */
    uint32_t old;  /* of REALLOC */
    uint64_t what; /* size << 16 | log << 8 | op */
};

/*
 * Makes a plan of a trace in a file. False: `trace->error` says why; *system: it is
 * not the trace's fault.
 */
bool plan_make(struct trace *trace, bool partial, const char *file,
               bool *system);

#endif
