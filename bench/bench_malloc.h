/*
 * bench_malloc.h - what the files of bench_malloc share: a row, the meter,
 * blocks and slots. The table of rows is in bench_malloc.c.
 */
#ifndef HAK_BENCH_MALLOC_H
#define HAK_BENCH_MALLOC_H

#include "bench.h"

#define KB UINT64_C(1024)
#define MB (1024 * KB)

/* How a batch is freed. */
enum order { LIFO, FIFO, RANDOM };

struct row {
    const char *name;
    void (*run)(const struct row *row);
    unsigned threads;
    enum order order;
    uint64_t ops;   /* what is done between meter_begin and meter_end */
    uint64_t slots; /* blocks alive at a time, for each thread */
    size_t least;   /* block sizes, both ends included */
    size_t most;
};

void run_hot(const struct row *row);
void run_batch(const struct row *row);
void run_mixed(const struct row *row);
void run_calloc(const struct row *row);
void run_realloc(const struct row *row);
void run_queue(const struct row *row);
void run_mixed_threads(const struct row *row);
void run_server(const struct row *row);
void run_cold(const struct row *row);
void run_exchange(const struct row *row);
void run_short_threads(const struct row *row);
void run_strings(const struct row *row);
void run_phases(const struct row *row);
void run_trees(const struct row *row);
void run_aligned(const struct row *row);
void run_skewed(const struct row *row);
void run_written(const struct row *row);
void run_calloc_small(const struct row *row);
void run_latency(const struct row *row);

/*
 * What the processes of run_cold do: allocate row->slots blocks without freeing
 * them.
 */
void run_start(const struct row *row);

/*
 * The work is between these two calls, which take the process's measurements.
 */
void meter_begin(void);
void meter_end(void);

/* What one operation in 100, and in 1,000, takes longer than: nanoseconds. */
void meter_percentiles(double p99, double p999);

/* Ends the program with a message: what failed in which row. */
_Noreturn void fail(const char *what);

/* An array of the row's slots, all NULL. */
void **new_slots(const struct row *row);
void free_slots(const struct row *row, void **slots);

/* In every step frees a random slot's block and puts a new one there. */
void replace(const struct row *row, void **slots, uint64_t ops,
             uint64_t *state);

/* A size of the row, made of the lower half of r. */
static inline size_t size_of(const struct row *row, uint64_t r)
{
    return row->least +
           (((r & UINT32_MAX) * (row->most - row->least + 1)) >> 32);
}

static inline uint64_t load_word(const void *block, size_t offset)
{
    uint64_t word;

    memcpy(&word, (const char *)block + offset, sizeof(word));
    return word;
}

static inline void store_word(void *block, size_t offset, uint64_t word)
{
    memcpy((char *)block + offset, &word, sizeof(word));
}

/* A block of at least 8 bytes, its first and last 8 written. */
static inline void *new_block(size_t size, uint64_t word)
{
    void *block = malloc(size);

    if (block == NULL)
        fail("malloc returned NULL");
    store_word(block, size - sizeof(word), word);
    store_word(block, 0, word);
    return block;
}

#endif
