/*
 * stats.h - what the figures need from above and below.
 *
 * Layer 7. The figures are in include/hakmem_stats.def, the functions that
 * tell them in include/hakmem.h; hak_stats_report stands in options.h.
 */
#ifndef HAK_STATS_H
#define HAK_STATS_H

#include <hakmem.h>

#include "base.h"
#include "system.h"

/* What a lane has counted, in the order of its figures in the table. */
struct hak_lane_figures {
    uint64_t allocs, frees, live_bytes, peak_bytes, held_bytes;
};

enum { HAK_LANES = 4 }; /* Tiny, Pool, ACE, Huge */

/*
 * Counts of whoever hands requests on to another allocator by itself, past
 * system.c: the libc names. Any thread, at any time.
 */
struct hak_handed_on {
    _Atomic(uint64_t) fallback[HAK_REASONS], foreign_frees;
};
extern HAK_HIDDEN struct hak_handed_on hak_handed_on;

/* A request went to the system allocator, for this reason. */
HAK_INLINE void hak_count_fallback(enum hak_reason reason)
{
    atomic_fetch_add_explicit(&hak_handed_on.fallback[reason], 1,
                              memory_order_relaxed);
}

/* A block that is not ours was freed or resized by its own allocator. */
HAK_INLINE void hak_count_foreign(void)
{
    atomic_fetch_add_explicit(&hak_handed_on.foreign_frees, 1,
                              memory_order_relaxed);
}

#endif /* HAK_STATS_H */
