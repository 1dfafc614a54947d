/*
 * hard.c - the hardened build's secrets, random numbers and last words.
 *
 * Compiled only with HARDENED=1.
 */
#include "guard/hard.h"

#include "base/msg.h"
#include "os/os.h"

struct hak_hard hak_hard;

/* Any thread. */
static _Atomic(uint64_t) state;

/* SplitMix64 (Steele, Lea, Flood, 2014). */
static uint64_t next(void)
{
    uint64_t x =
        atomic_fetch_add_explicit(&state, HAK_HARD_ODD, memory_order_relaxed);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void hak_hard_start(void)
{
    uint64_t drawn[4];

    hak_os_random(drawn, sizeof(drawn));
    hak_hard.link = drawn[0];
    hak_hard.mark = drawn[1];
    hak_hard.seal = drawn[2];
    atomic_store(&state, drawn[3]);
}

uint32_t hak_hard_below(uint32_t n)
{
    return (uint32_t)((next() >> 32) * n >> 32);
}

void hak_hard_freed(const void *p, const char *caller)
{
    hak_fatal("%s(%p): a block that is free already", caller, p);
}

void hak_hard_written(const void *p)
{
    hak_fatal("malloc or free: %p, a block that is free, was written to", p);
}

void hak_hard_broken(const void *p, size_t block, const char *caller)
{
    size_t size = (*hak_hard_place(p, block) ^ hak_hard_key(p)) >> 16;

    if (hak_hard_marked(p)) {
        hak_hard_freed(p, caller);
    }
    if (size > block - HAK_GUARD_BYTES) {
        hak_fatal("%s(%p): written far past its end, in a block of %zu bytes",
                  caller, p, block);
    }
    hak_fatal("%s(%p): written past its %zu bytes", caller, p, size);
}
