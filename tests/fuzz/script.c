/*
 * script.c - the fuzzer's input: bytes that are read as numbers, sizes, alignments.
 */
#include "script.h"

#include <hakmem.h>

/*
 * What an input may cost, in blocks allocated or freed and pages touched: a
 * few tens of milliseconds. After that the rest of the input is left out.
 */
#define COST_MOST 30000
/* Bytes that one operation on many blocks asks for, at most. */
#define BATCH_BYTES ((size_t)16 << 20)

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * KIB)
/* The lanes' upper bounds. */
#define POOL_MAX (52 * KIB)
#define ACE_END (2 * MIB)

struct script script;

size_t script_next(void)
{
    return script.at < script.end ? *script.at++ : 0;
}

size_t script_next2(void)
{
    size_t low = script_next();

    return low | script_next() << 8;
}

bool script_has_more(void)
{
    return script.at < script.end && script.cost < COST_MOST;
}

void script_pay(size_t bytes)
{
    script.cost += 1 + (bytes < 64 * KIB ? bytes / 4096 : 16);
}

/* Where something changes: each is asked for as it is, and one more or less. */
static const size_t edges[] = {
    0,
    1,
    8,
    16,
    32,
    64,
    128,
    256,
    512,
    1024,
    2 * KIB,
    4 * KIB,
    8 * KIB,
    16 * KIB,
    32 * KIB,
    POOL_MAX,
    64 * KIB,
    128 * KIB,
    256 * KIB,
    1 * MIB,
    ACE_END,
    3 * MIB,
    4 * MIB,
    8 * MIB,
    ACE_END - 4096,
    ACE_END + 4096,
};

#define EDGES (sizeof(edges) / sizeof(edges[0]))

size_t script_size(void)
{
    size_t kind = script_next();
    size_t edge = edges[kind / 3 % EDGES];
    size_t bits, size;

    if (kind < 3 * EDGES) { /* 0..77 */
        return edge + kind % 3 - (edge + kind % 3 > 0);
    }
    if (kind < 128) {
        return script_next() * 4 + kind % 5;
    }
    if (kind < 176) {
        return HAK_TINY_MAX + 1 + script_next2() % (POOL_MAX - HAK_TINY_MAX);
    }
    if (kind < 208) { /* where size classes end: 8 steps for each doubling */
        bits = script_next();
        size = (8 + bits % 8) << (bits / 8 % 18);
        return size + kind % 3 - 1;
    }
    if (kind < 224) {
        return POOL_MAX + script_next2() % 2048 * 1024 % (ACE_END - POOL_MAX) +
               kind % 5;
    }
    if (kind < 240) { /* whole pages, or nearly */
        return (script_next2() % 512 + 1) * 4096 + kind % 3 - 1;
    }
    return ACE_END + script_next2() * 96;
}

size_t script_alignment(void)
{
    return (size_t)1 << script_next() % 23; /* up to 4 MB */
}

/* How many blocks of this size an operation on many takes. */
size_t script_count(size_t size)
{
    size_t count = 1 + script_next();

    if (size <= 64) {
        return count * 8;
    }
    while (count > 1 && count * size > BATCH_BYTES) {
        count /= 2;
    }
    return count;
}
