/*
 * claims.h - what is mapped, and by whom.
 */
#ifndef HAK_CLAIMS_H
#define HAK_CLAIMS_H

#include "base/base.h"

/*
 * Whether p, below the extent, lies in somebody else's mapping. An address that
 * no lane has and nobody has mapped counts as ours: a block that was freed may
 * have been there.
 */
bool haki_range_is_foreign(const void *p);

/*
 * Whether this process has a limit on address space (RLIMIT_AS, RLIMIT_DATA):
 * free memory is then unmapped at once, and runs are mapped in whole pages
 * instead of superslabs. The system is asked before anything is mapped, and, at
 * most once per tick of the clock, when memory is reused or comes back.
 */
extern HAK_HIDDEN atomic_bool haki_range_is_limited;
void haki_range_ask_limit(uint32_t now);

HAK_INLINE bool haki_range_limited(void)
{
    return HAK_UNLIKELY(atomic_load_explicit(&haki_range_is_limited,
                                             memory_order_relaxed));
}

#endif /* HAK_CLAIMS_H */
