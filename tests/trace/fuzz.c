/*
 * fuzz.c - the reader on damaged traces; built with the address sanitizer.
 *
 *     fuzz TRACE PLAN ROUNDS
 *
 * A round changes some bits, or cuts, at one of three depths: of the file as it is
 * (checksums find nearly all of that), of a block whose checksum is mended then (which
 * zstd has to find), of the operations themselves. Each must be read as good or
 * bad, and bad says why in one line; where it is good, a plan of it is made.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "../../tools/trace/plan.h"

static uint64_t seed = 88172645463325252u;

static size_t chance(size_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return below ? (size_t)(seed % below) : 0;
}

static void damage(uint8_t *from, size_t bytes)
{
    for (size_t i = 0; i <= chance(4) && bytes > 0; i++) {
        from[chance(bytes)] ^= (uint8_t)(1u << chance(8));
    }
}

/* Mends the checksums of the head and of each block that can be found. */
static void mend(uint8_t *file, size_t bytes)
{
    const size_t text = bytes < TRACE_HEAD_BYTES ? 0 : trace_get_u32(file + 12);
    size_t at = TRACE_HEAD_BYTES + text;

    if (at > bytes) {
        return;
    }
    trace_put_u32(file + 36, trace_crc(trace_crc(0, file, 36),
                                       file + TRACE_HEAD_BYTES, text));
    while (at + TRACE_BLOCK_BYTES <= bytes) {
        const size_t packed = trace_get_u32(file + at + 12);

        if (packed > bytes - at - TRACE_BLOCK_BYTES) {
            return;
        }
        trace_put_u32(file + at + 16,
                      trace_crc(trace_crc(0, file + at, 16),
                                file + at + TRACE_BLOCK_BYTES, packed));
        at += TRACE_BLOCK_BYTES + packed;
    }
}

/* What must be so of every trace. */
static void check(const struct trace *trace, bool good)
{
    if (!good && (trace->error[0] == '\0' || strchr(trace->error, '\n'))) {
        fprintf(stderr, "fuzz: bad without a line: '%s'\n", trace->error);
        abort();
    }
}

static bool read_it(const uint8_t *from, size_t bytes, const char *plan)
{
    struct trace trace = {.name = "fuzzed"};
    struct trace_totals totals;
    bool system;
    bool good = trace_open_memory(&trace, from, bytes);

    check(&trace, good);
    if (good) {
        good = trace_each(&trace, false, NULL, NULL, &totals);
        check(&trace, good);
        check(&trace, trace_each(&trace, true, NULL, NULL, &totals));
    }
    if (good) {
        check(&trace, plan_make(&trace, false, plan, &system));
    }
    return good;
}

/* A copy of exactly that length, so that a byte too far is seen. */
static bool read_copy(const uint8_t *from, size_t bytes, const char *plan)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);

    memcpy(copy, from, bytes);
    const bool good = read_it(copy, bytes, plan);

    free(copy);
    return good;
}

/* The operations of the first block, damaged. */
static void read_operations(const uint8_t *file)
{
    static uint8_t raw[TRACE_RAW_MAX];
    struct trace trace = {.name = "fuzzed"};
    struct trace_totals totals;
    const uint8_t *block = file + TRACE_HEAD_BYTES + trace_get_u32(file + 12);
    const size_t bytes =
        ZSTD_decompress(raw, sizeof raw, block + TRACE_BLOCK_BYTES,
                        trace_get_u32(block + 12));

    if (ZSTD_isError(bytes)) {
        abort();
    }
    const size_t from = chance(bytes), to = from + chance(bytes - from);
    uint8_t *copy = malloc(to - from + 2);

    memcpy(copy, raw, 2); /* whose they are */
    memcpy(copy + 2, raw + from, to - from);
    damage(copy, to - from + 2);
    check(&trace, trace_each_raw(&trace, copy, to - from + 2, &totals));
    free(copy);
}

int main(int argc, char **argv)
{
    static uint8_t file[1 << 22], work[1 << 22];
    FILE *in = argc == 4 ? fopen(argv[1], "rb") : NULL;
    unsigned good = 0;

    if (in == NULL) {
        return 2;
    }
    const size_t bytes = fread(file, 1, sizeof file, in);
    const int rounds = atoi(argv[3]);

    fclose(in);
    if (!read_copy(file, bytes, argv[2])) {
        fputs("fuzz: the trace is bad before it is damaged\n", stderr);
        return 1;
    }
    for (int i = 0; i < rounds; i++) {
        size_t length = i % 5 == 0 ? chance(bytes) : bytes;

        memcpy(work, file, length);
        if (i % 5 != 0) {
            damage(work, length);
        }
        if (i % 2 == 0) {
            mend(work, length);
        }
        good += read_copy(work, length, argv[2]);
        for (int j = 0; j < 10; j++) {
            read_operations(file);
        }
    }
    printf("%u of %d still good\n", good, rounds);
    return 0;
}
