/*
 * reader.h - reads a trace (format.h) and says what happened, operation by
 * operation; believes nothing that it has not checked.
 */
#ifndef TRACE_READER_H
#define TRACE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"

/* What a whole trace comes to. Bytes are those asked for. */
struct trace_totals {
    uint64_t operations; /* allocations, resizes and frees */
    uint64_t allocs, frees, resizes;
    uint64_t failed; /* allocations that the program did not get */
    uint64_t
        foreign;     /* frees and resizes of blocks from before, or elsewhere */
    uint64_t lost;   /* blocks that were freed in a way that is not seen */
    uint64_t missed; /* calls that could not be recorded */
    uint64_t bytes;  /* of all allocations and resizes together */
    uint64_t live_blocks, live_bytes;
    uint64_t peak_blocks, peak_bytes;
    uint64_t time; /* microseconds from the start to the last operation */
    uint32_t threads;
    bool whole; /* the program ended by itself; else the end is missing */
};

/* One operation. Blocks have numbers, in the order of their allocation. */
struct trace_event {
    enum trace_op op; /* none of THREAD, TIME */
    uint32_t thread;
    uint64_t block;    /* the new one; of FREE, LOST: that which goes */
    uint64_t old;      /* of REALLOC: which goes */
    uint64_t size;     /* of the new one */
    uint64_t old_size; /* of what goes */
    unsigned log;      /* of ALIGNED: log2 of the alignment */
};

struct trace {
    const uint8_t *map; /* the file, or memory of the caller's */
    size_t bytes;
    const char *name; /* for messages; the caller's */
    const char *text; /* the command line: words that end in NUL */
    size_t text_bytes;
    uint32_t pid;
    bool mapped;
    char error[512]; /* one line, without the newline */
};

/* Is told each operation in order; false: enough, trace_each returns false. */
typedef bool trace_visitor(void *context, const struct trace_event *event,
                           const struct trace_totals *totals);

/* Opens a file, checks its head. False: trace->error says what is wrong. */
bool trace_open(struct trace *trace, const char *name);

/* The same of a file in memory, which stays the caller's. */
bool trace_open_memory(struct trace *trace, const void *from, size_t bytes);

void trace_close(struct trace *trace);

/*
 * Visits all operations; `totals` are there in the end. False: damaged, or not
 * enough memory, and trace->error says so. `partial`: what is before the damage is
 * taken for all. Several times, on one trace, as often as wanted.
 */
bool trace_each(struct trace *trace, bool partial, trace_visitor *visit,
                void *context, struct trace_totals *totals);

/* For tests of the reader: operations that are in no file. */
bool trace_each_raw(struct trace *trace, const uint8_t *raw, size_t bytes,
                    struct trace_totals *totals);

#endif
