/*
 * wrap.h - the policy (family.h) of libhakmem.so and libhakmem.a: the lanes
 * serve all sizes, and guards stand before the slow paths.
 *
 * The guards need not be on the hot path: a thread that they have never let
 * through has no heap, so its bins are empty and it takes the slow path.
 *
 *   init barrier     until the environment can be read, and while it is being
 *                    read, requests go to the C library (reason init)
 *   recursion guard  so do requests that our own slow path, or the C library in
 *                    it, makes in the same thread (recursion), or a signal
 *                    handler that comes in between; blocks of ours that it
 *                    frees are freed later
 *   force            HAKMEM_FORCE_LIBC_ALLOC=1: all requests do (forced)
 *
 * HAKMEM_BENCH_FAST_MODE=1 lets small requests pass by the recursion guard.
 */
#ifndef HAK_WRAP_H
#define HAK_WRAP_H

#include <malloc.h>

#include "front/hot.h"
#include "front/lane.h"
#include "system/libc.h"
#include "system/system.h"

/* In this order: from HAK_WRAP_OPEN on the lanes may be used. */
enum hak_wrap_state {
    HAK_WRAP_COLD,     /* there was no request yet */
    HAK_WRAP_STARTING, /* options are being read */
    HAK_WRAP_FORCED,   /* HAKMEM_FORCE_LIBC_ALLOC=1 */
    HAK_WRAP_NO_RANGE, /* no address range: the lanes can't serve */
    HAK_WRAP_OPEN,
    HAK_WRAP_FAST /* open, and HAKMEM_BENCH_FAST_MODE=1 */
};

extern HAK_HIDDEN _Atomic(int) haki_wrap_state;

/* Of each thread; 0: it is not in a slow path. */
#define HAK_WRAP_INSIDE 1u   /* in the lanes */
#define HAK_WRAP_DEFERRED 2u /* there are deferred frees to do */

extern HAK_HIDDEN __thread unsigned haki_wrap_flags
    __attribute__((tls_model("initial-exec")));

bool haki_wrap_enter_slow(enum hak_reason *reason);

/*
 * Defers the free of p, a block of ours, until the thread next enters the
 * lanes.
 */
void haki_wrap_defer(void *p);

/* ---- the policy ------------------------------------------------------------ */

#define HAK_FAMILY(name) name

HAK_INLINE void *haki_policy_take_for(size_t need, size_t size)
{
    return haki_hot_take(need, size);
}

HAK_INLINE bool haki_policy_serves(size_t alignment, size_t size)
{
    (void)alignment;
    (void)size;
    return true;
}

HAK_INLINE bool haki_policy_enter(size_t size, enum hak_reason *reason)
{
    int state = atomic_load_explicit(&haki_wrap_state, memory_order_acquire);

    if (HAK_LIKELY(state >= HAK_WRAP_OPEN && haki_wrap_flags == 0)) {
        haki_wrap_flags = HAK_WRAP_INSIDE;
        return true;
    }
    if (state == HAK_WRAP_FAST && size <= HAK_LANE_TINY_MAX) {
        return true;
    }
    return haki_wrap_enter_slow(reason);
}

/*
 * What a signal handler frees while its thread is in the lanes is freed later.
 */
HAK_INLINE bool haki_policy_enter_free(void *p)
{
    if (HAK_UNLIKELY((haki_wrap_flags & HAK_WRAP_INSIDE) != 0)) {
        haki_wrap_defer(p);
        return false;
    }
    haki_wrap_flags |= HAK_WRAP_INSIDE;
    return true;
}

HAK_INLINE void haki_policy_leave(void)
{
    haki_wrap_flags &= ~HAK_WRAP_INSIDE;
}

/* The lanes have counted it already. */
HAK_INLINE void haki_policy_served(size_t size)
{
    (void)size;
}

void *haki_policy_fallback(size_t alignment, size_t size, bool zero,
                           enum hak_reason reason);
void haki_policy_free_foreign(void *p);
void *haki_policy_realloc_foreign(void *p, size_t size);

/* ---- names ----------------------------------------------------------------- */

/* Names that the C library's headers may lack. */
#ifdef __GLIBC__
#if !HAK_GLIBC(2, 33)
struct mallinfo2 {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks,
        fordblks, keepcost;
};
#endif
HAK_API struct mallinfo2 mallinfo2(void);
HAK_API void __libc_free(void *p);
HAK_API void *__libc_realloc(void *p, size_t size);
#endif
HAK_API void cfree(void *p);
HAK_API void free_sized(void *p, size_t size);
HAK_API void free_aligned_sized(void *p, size_t alignment, size_t size);

#include "libc_names/family.h"

#endif /* HAK_WRAP_H */
