/*
 * bench_malloc.c - the benchmark of malloc, free, calloc and realloc, a row a
 * run, on the allocator the process has: LD_PRELOAD chooses it.
 *
 *     bench_malloc ROW [DIVISOR]   runs a row, its work divided by DIVISOR
 *     bench_malloc list            prints "NAME THREADS" for every row
 *     bench_malloc who             prints the library that malloc comes from
 *     bench_malloc start           what the row cold measures, once
 *     bench_malloc warm            touches much memory, so that the machine has it
 *
 * The work of a row is fixed: its operations, sizes and seeds are the table
 * below. An operation is one block allocated and freed, except in the realloc
 * rows (one growth) and in cold (one process). A run ends with the line
 *
 *     ops=N ns_per_op=X peak_kb=N minor_faults=N
 *
 * to which the latency rows add p99_ns=X p999_ns=X. bench.py runs it for every allocator. Here: the table, the meter, arguments.
 */
#include "bench_malloc.h"
#include <dlfcn.h>
#include <unistd.h>

#define TINY 16, 1024
#define POOL 1025, 52 * KB
#define ACE 52 * KB + 1, 2 * MB - 1
#define HUGE 2 * MB, 16 * MB

static const struct row rows[] = {
    {"hot-16", run_hot, 1, LIFO, 40000000, 1, 16, 16},
    {"hot-64", run_hot, 1, LIFO, 40000000, 1, 64, 64},
    {"hot-256", run_hot, 1, LIFO, 40000000, 1, 256, 256},
    {"hot-1024", run_hot, 1, LIFO, 40000000, 1, 1024, 1024},
    {"hot-4096", run_hot, 1, LIFO, 20000000, 1, 4096, 4096},
    {"hot-32768", run_hot, 1, LIFO, 20000000, 1, 32768, 32768},
    {"hot-262144", run_hot, 1, LIFO, 2000000, 1, 262144, 262144},
    {"batch-lifo", run_batch, 1, LIFO, 20000000, 1000, 16, 1040},
    {"batch-fifo", run_batch, 1, FIFO, 20000000, 1000, 16, 1040},
    {"batch-random", run_batch, 1, RANDOM, 20000000, 1000, 16, 1040},
    {"batch-lifo-8k", run_batch, 1, LIFO, 6000000, 1000, KB, 8 * KB},
    {"batch-fifo-8k", run_batch, 1, FIFO, 6000000, 1000, KB, 8 * KB},
    {"batch-random-8k", run_batch, 1, RANDOM, 6000000, 1000, KB, 8 * KB},
    {"tiny-256", run_mixed, 1, LIFO, 20000000, 256, TINY},
    {"tiny-4096", run_mixed, 1, LIFO, 20000000, 4096, TINY},
    {"tiny-200000", run_mixed, 1, LIFO, 5000000, 200000, TINY},
    {"pool-1024", run_mixed, 1, LIFO, 8000000, 1024, POOL},
    {"ace-64", run_mixed, 1, LIFO, 1000000, 64, ACE},
    {"huge-8", run_mixed, 1, LIFO, 200000, 8, HUGE},
    {"wave", run_batch, 1, FIFO, 15000000, 5000000, 16, 128},
    {"calloc", run_calloc, 1, LIFO, 500000, 512, 16, 4 * MB},
    {"realloc-64k", run_realloc, 1, LIFO, 2000000, 256, 16, 64 * KB},
    {"realloc-64m", run_realloc, 1, LIFO, 200, 3, 16, 64 * MB},
    {"queue", run_queue, 2, FIFO, 5000000, 4096, 16, 512},
    {"queue-8k", run_queue, 2, FIFO, 5000000, 1024, KB, 8 * KB},
    {"mixed-2-threads", run_mixed_threads, 2, LIFO, 40000000, 4096, TINY},
    {"server", run_server, 2, LIFO, 20000000, 4096, 16, 1000},
    {"cold", run_cold, 1, LIFO, 300, 1000, 16, 256},
    {"wave-cold", run_batch, 1, FIFO, 1000000, 1000000, 16, 400},
    {"strings", run_strings, 1, LIFO, 3000000, 2000, 16, 4 * KB},
    {"phases", run_phases, 1, LIFO, 1500000, 20000, 16, 4 * KB},
    {"trees", run_trees, 1, LIFO, 20000000, 16, 24, 24},
    {"aligned-64", run_aligned, 1, LIFO, 10000000, 4096, TINY},
    {"skewed", run_skewed, 1, LIFO, 10000000, 4096, 16, 16 * KB},
    {"calloc-small", run_calloc_small, 1, LIFO, 10000000, 4096, TINY},
    {"batch-random-16k", run_batch, 1, RANDOM, 3000000, 1000, KB, 16 * KB},
    {"pool-4096-written", run_written, 1, LIFO, 500000, 4096, KB, 16 * KB},
    {"ace-64-written", run_written, 1, LIFO, 4000, 64, ACE},
    {"huge-8-written", run_written, 1, LIFO, 400, 8, HUGE},
    {"exchange", run_exchange, 2, FIFO, 10000000, 1024, 16, 1024},
    {"exchange-8k", run_exchange, 2, FIFO, 4000000, 512, KB, 8 * KB},
    {"short-threads", run_short_threads, 2, LIFO, 10000, 100, 16, 512},
    {"mixed-8-threads", run_mixed_threads, 8, LIFO, 20000000, 4096, TINY},
    {"mixed-64-threads", run_mixed_threads, 64, LIFO, 20000000, 1024, TINY},
    {"latency-tiny", run_latency, 1, LIFO, 5000000, 4096, TINY},
    {"latency-pool", run_latency, 1, LIFO, 2000000, 1024, POOL},
    {"latency-ace", run_latency, 1, LIFO, 200000, 64, ACE},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* A row of no more operations than this ignores the divisor. */
#define FEW 1000

static struct {
    const struct row *row;
    double seconds;
    long faults;
    double p99, p999; /* of the latency rows */
} meter;

/* run_cold's work is that of its children, hence both in the next two. */
static long all_faults(void)
{
    return bench_faults(RUSAGE_SELF) + bench_faults(RUSAGE_CHILDREN);
}

/*
 * A single thread is timed by its processor time, in the kernel too, so that
 * other load on the machine does not count. Several threads also wait for each
 * other, so they are timed by wall-clock time.
 */
static double time_taken(void)
{
    if (meter.row->threads > 1)
        return bench_seconds();
    return bench_processor_seconds(RUSAGE_SELF) +
           bench_processor_seconds(RUSAGE_CHILDREN);
}

void meter_begin(void)
{
    meter.faults = all_faults();
    meter.seconds = time_taken();
}

void meter_end(void)
{
    meter.seconds = time_taken() - meter.seconds;
    meter.faults = all_faults() - meter.faults;
}

void meter_percentiles(double p99, double p999)
{
    meter.p99 = p99;
    meter.p999 = p999;
}

_Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench_malloc: %s: %s\n",
            meter.row != NULL ? meter.row->name : "start", what);
    exit(1);
}

static _Noreturn void usage(const char *what)
{
    fprintf(stderr,
            "bench_malloc: %s; usage: bench_malloc ROW [DIVISOR], DIVISOR "
            "from 1 to 1000; 'bench_malloc list' prints the rows\n",
            what);
    exit(2);
}

static void list(void)
{
    for (size_t i = 0; i < ROWS; i++)
        printf("%s %u\n", rows[i].name, rows[i].threads);
}

static void who(void)
{
    Dl_info info;
    void *found = dlsym(RTLD_DEFAULT, "malloc");

    if (found == NULL || dladdr(found, &info) == 0)
        fail("nobody knows where malloc comes from");
    puts(info.dli_fname);
}

static const struct row *row_named(const char *name)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    usage("there is no such row");
}

static void run(struct row row, uint64_t divisor)
{
    /* Whole turns over the slots; a few large operations are not divided. */
    if (row.ops > FEW) {
        row.ops = row.ops / divisor / row.slots * row.slots;
        if (row.ops == 0)
            row.ops = row.slots;
    }
    meter.row = &row;
    row.run(&row);
    printf("ops=%llu ns_per_op=%.4f peak_kb=%ld minor_faults=%ld",
           (unsigned long long)row.ops, meter.seconds * 1e9 / (double)row.ops,
           bench_peak_kb(), meter.faults);
    if (meter.p99 > 0)
        printf(" p99_ns=%.0f p999_ns=%.0f", meter.p99, meter.p999);
    putchar('\n');
}

/* The part of the free memory that `warm` touches, and the most of it. */
#define WARM_PART 2
#define WARM_MOST (1024 * MB)

/*
 * Touches memory, in huge pages where there are any: what the hypervisor has not
 * backed yet would cost whoever runs first.
 */
static void warm(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) *
                     (uint64_t)sysconf(_SC_PAGESIZE) / WARM_PART;
    char *memory;

    bytes = bytes > WARM_MOST ? WARM_MOST : bytes;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("no memory to warm");
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (uint64_t at = 0; at < bytes; at += 4 * KB)
        memory[at] = 1;
    munmap(memory, bytes);
}

int main(int argc, char **argv)
{
    uint64_t divisor = 1;

    if (argc < 2 || argc > 3)
        usage("one or two arguments, please");
    if (argc == 3 && !bench_number(argv[2], 1, 1000, &divisor))
        usage("DIVISOR is wrong");
    if (strcmp(argv[1], "list") == 0)
        list();
    else if (strcmp(argv[1], "who") == 0)
        who();
    else if (strcmp(argv[1], "warm") == 0)
        warm();
    else if (strcmp(argv[1], "start") == 0)
        run_start(row_named("cold"));
    else
        run(*row_named(argv[1]), divisor);
    return 0;
}
