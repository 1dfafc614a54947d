/*
 * random_mixed.c - blocks of random sizes in random slots, one allocator.
 *
 *     bench_random_mixed_NAME OPS SLOTS SEED [mixed|replace]
 *
 * mixed (default): each operation picks a slot; a full one is freed, an empty
 * one gets a block of 16 + (r & 0x3FF) bytes, first and last byte written.
 * replace: each operation frees what the slot holds and allocates anew.
 *
 * The Makefile builds it once per allocator: BENCH_HEADER, BENCH_MALLOC and
 * BENCH_FREE name it, BENCH_NAME is for messages. Without them it is "none":
 * the same loop with calls of empty functions, whose cost is subtracted.
 * bench.py and insn.py run it and read its last two lines:
 *
 *     Peak = N KB, minor faults = N
 *     Throughput = N ops/s
 *
 * per second of processor time: what else the machine does is left out.
 */
#include "bench.h"

#ifdef BENCH_MALLOC
#include BENCH_HEADER
#else
static char none_block[16 + 0x400];

/* Real calls, as an allocator's are; the assembler text hides the result. */
static __attribute__((noinline)) void *none_malloc(size_t size)
{
    void *block = none_block;

    __asm__ volatile("" : "+r"(block) : "r"(size));
    return block;
}

static __attribute__((noinline)) void none_free(void *block)
{
    __asm__ volatile("" : : "r"(block));
}

#define BENCH_MALLOC none_malloc
#define BENCH_FREE none_free
#endif

struct run {
    uint64_t ops;
    uint64_t slots;
    uint64_t seed;
    bool replace;
};

static _Noreturn void usage(const char *what)
{
    fprintf(stderr,
            "bench_random_mixed_%s: %s; usage: OPS SLOTS SEED [mixed|replace], "
            "OPS from 1, SLOTS from 1 to %u\n",
            BENCH_NAME, what, UINT32_MAX);
    exit(2);
}

/* A whole number from least to most, or the end with a message. */
static uint64_t number(const char *text, uint64_t least, uint64_t most,
                       const char *what)
{
    uint64_t value;

    if (!bench_number(text, least, most, &value))
        usage(what);
    return value;
}

static struct run arguments(int argc, char **argv)
{
    struct run run;

    if (argc < 4 || argc > 5)
        usage("three or four arguments, please");
    run.ops = number(argv[1], 1, UINT64_MAX, "OPS is wrong");
    run.slots = number(argv[2], 1, UINT32_MAX, "SLOTS is wrong");
    run.seed = number(argv[3], 0, UINT64_MAX, "SEED is wrong");
    run.replace = argc == 5 && strcmp(argv[4], "replace") == 0;
    if (argc == 5 && !run.replace && strcmp(argv[4], "mixed") != 0)
        usage("the mode is mixed or replace");
    return run;
}

static inline void *new_block(uint64_t r)
{
    size_t size = 16 + (r & 0x3FF);
    volatile char *block = BENCH_MALLOC(size);

    if (block == NULL) {
        fprintf(stderr, "bench_random_mixed_%s: out of memory\n", BENCH_NAME);
        exit(1);
    }
    block[0] = (char)r;
    block[size - 1] = (char)r;
    return (void *)block;
}

static void run_mixed(const struct run *run, void **slots)
{
    uint64_t state = bench_first_state(run->seed);

    for (uint64_t i = 0; i < run->ops; i++) {
        uint64_t r = bench_next(&state);
        void **slot = &slots[bench_upper(r, run->slots)];

        if (*slot != NULL) {
            BENCH_FREE(*slot);
            *slot = NULL;
        } else {
            *slot = new_block(r);
        }
    }
}

static void run_replace(const struct run *run, void **slots)
{
    uint64_t state = bench_first_state(run->seed);

    for (uint64_t i = 0; i < run->ops; i++) {
        uint64_t r = bench_next(&state);
        void **slot = &slots[bench_upper(r, run->slots)];

        BENCH_FREE(*slot);
        *slot = new_block(r);
    }
}

int main(int argc, char **argv)
{
    struct run run = arguments(argc, argv);
    void **slots = bench_array(run.slots * sizeof(*slots));
    long faults;
    double start, spent;

    if (slots == NULL) {
        fprintf(stderr, "bench_random_mixed_%s: no memory for the slots\n",
                BENCH_NAME);
        return 1;
    }
    faults = bench_faults(RUSAGE_SELF);
    start = bench_processor_seconds(RUSAGE_SELF);
    if (run.replace)
        run_replace(&run, slots);
    else
        run_mixed(&run, slots);
    spent = bench_processor_seconds(RUSAGE_SELF) - start;
    faults = bench_faults(RUSAGE_SELF) - faults;

    for (uint64_t i = 0; i < run.slots; i++)
        BENCH_FREE(slots[i]);
    printf("Peak = %ld KB, minor faults = %ld\n", bench_peak_kb(), faults);
    printf("Throughput = %.0f ops/s\n", (double)run.ops / spent);
    return 0;
}
