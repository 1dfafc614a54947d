/*
 * hard.c - the hardened build's secrets, random numbers and fatal messages.
 *
 * Compiled only with HARDENED=1.
 */
#include "guard/hard.h"

#include "base/msg.h"
#include "os/os.h"

struct hak_hard haki_hard;

/* Any thread. */
static _Atomic(uint64_t) hard_state;

/* SplitMix64 (Steele, Lea, Flood, 2014). */
static uint64_t hard_next(void)
{
    uint64_t x = atomic_fetch_add_explicit(&hard_state, HAK_HARD_ODD,
                                           memory_order_relaxed);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void haki_hard_start(void)
{
    uint64_t drawn[4];

    haki_os_random(drawn, sizeof(drawn));
    haki_hard.link = drawn[0];
    haki_hard.mark = drawn[1];
    haki_hard.guard = drawn[2];
    atomic_store(&hard_state, drawn[3]);
}

uint32_t haki_hard_below(uint32_t n)
{
    return (uint32_t)((hard_next() >> 32) * n >> 32);
}

void haki_hard_freed(const void *p, const char *caller)
{
    haki_fatal("%s(%p): a block that is free already", caller, p);
}

void haki_hard_written(const void *p)
{
    haki_fatal("malloc or free: %p, a block that is free, was written to", p);
}

void haki_hard_broken(const void *p, size_t block, const char *caller)
{
    size_t size = (*haki_hard_place(p, block) ^ haki_hard_key(p)) >> 16;

    if (haki_hard_marked(p)) {
        haki_hard_freed(p, caller);
    }
    if (size > block - HAK_GUARD_BYTES) {
        haki_fatal("%s(%p): written far past its end, in a block of %zu bytes",
                   caller, p, block);
    }
    haki_fatal("%s(%p): written past its %zu bytes", caller, p, size);
}
