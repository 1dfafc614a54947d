/*
 * recorder.h - libhakmem_record.so, which writes a program's allocations down.
 *
 *     record.c         the malloc family, around the next allocator's
 *     record_stream.c  who may write: one lock; operations into a buffer
 *     record_table.c   which block is at an address
 *     record_file.c    full buffers packed into the file; its names; what fails
 *
 * One stream for all threads, under one lock. A stream of each thread's own
 * would need no lock, but then a file that ends early (a crash) would have the
 * free of one thread and not another's allocation, threads that rarely allocate
 * would hold theirs back, and a replay would have to guess what was at once. The
 * price is that threads which allocate at the same time wait for each other
 * (some 50 ns an operation); packing and writing are outside this lock.
 *
 * Nothing here calls malloc: memory comes from mmap, zstd works in a room of its
 * own. What the recorder's own calls of the C library allocate all the same is
 * passed on unrecorded, as are calls from a signal handler that has interrupted
 * the recorder: `busy` of the thread says so. They are counted (TRACE_MISSED).
 */
#ifndef TRACE_RECORDER_H
#define TRACE_RECORDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"

#define HIDDEN __attribute__((visibility("hidden")))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* ---- record_stream.c ------------------------------------------------------ */

/*
 * False until record_start and for good after record_stop: calls are passed on.
 * Any thread reads it.
 */
extern HIDDEN atomic_bool record_on;

/* Begins: names the file, opens it, registers for fork and exit. Once. */
HIDDEN void record_start(void);

/* The program ends: writes what there is, and the end if `whole`. Stops. */
HIDDEN void record_stop(bool whole);

/* `block`, not NULL, was allocated by `op`; `log` is of TRACE_ALIGNED alone. */
HIDDEN void record_allocated(enum trace_op op, void *block, size_t size,
                             unsigned log);
/* An allocation has failed. */
HIDDEN void record_failed(void);

/* `block`, not NULL, will be freed now. */
HIDDEN void record_freed(void *block);

/*
 * A resize in two halves, around the call of the next allocator: the first takes
 * the old block out, since its address may be another thread's before the call
 * returns. What it returned goes into the second; `block` NULL: it has failed, the
 * old one stays, but for size 0, which has freed it.
 */
struct resize {
    uint64_t id; /* of the old block */
    bool known;
    bool skipped; /* the call isn't recorded */
};
HIDDEN struct resize record_resize_begins(void *old);
HIDDEN void record_resized(struct resize resize, void *old, void *block,
                           size_t size);

/* ---- record_table.c ------------------------------------------------------- */

/*
 * Addresses to numbers of blocks: open addressing, at most half full, entries
 * moved back on removal. Addresses of one page lie near each other, as the
 * program's own accesses do. All under the stream's lock.
 */
struct table {
    struct table_entry *entries;
    size_t mask;  /* entries - 1, a power of two less one */
    size_t count; /* used entries */
};

struct table_entry {
    uintptr_t address; /* 0: free */
    uint64_t id;
};

/* False: no memory. A table of zeros is empty, and has to grow first. */
HIDDEN bool table_reserve(struct table *table);

/* Room was reserved. True if there was one already: its number is in *old. */
HIDDEN bool table_put(struct table *table, uintptr_t address, uint64_t id,
                      uint64_t *old);
/* Removes it; false: it isn't there. */
HIDDEN bool table_take(struct table *table, uintptr_t address, uint64_t *id);

/* Forgets all; for the child of a fork. */
HIDDEN void table_clear(struct table *table);

/* ---- record_file.c -------------------------------------------------------- */

/* Reads HAKMEM_RECORD; false: there is no file to write to, or it can't be. */
HIDDEN bool file_start(void);

/* In the child of a fork: another file, which is made when something is there. */
HIDDEN void file_forked(void);

/* False in a child that shares memory or was made past the fork handlers. */
HIDDEN bool file_is_mine(void);

/*
 * Writes `bytes` of operations as the next block, 0: the end. False: it can't,
 * which was said on standard error. One caller at a time, in order.
 */
HIDDEN bool file_write(const uint8_t *raw, size_t bytes);

/* One line on standard error: "hakmem record: " and the words, NULL the last. */
HIDDEN void record_say(const char *word, ...) __attribute__((sentinel));

#endif
