/*
 * claims.h - what is mapped, and by whom.
 */
#ifndef HAK_CLAIMS_H
#define HAK_CLAIMS_H

#include "base/base.h"

/*
 * Whether p, below the extent, lies in a mapping of somebody else's.
 * What no lane has and nobody has mapped is ours: a block that was freed may
 * have been there.
 */
bool haki_range_is_foreign(const void *p);

/*
 * Whether this process has a limit on address space (RLIMIT_AS, RLIMIT_DATA):
 * what is free is then unmapped at once, and runs get whole pages instead of
 * superslabs. The system is asked when something is to be mapped and when
 * memory is used again or comes back, that at most once in a tick of the clock.
 */
extern HAK_HIDDEN atomic_bool haki_range_is_limited;
void haki_range_ask_limit(uint32_t now);

HAK_INLINE bool haki_range_limited(void)
{
    return HAK_UNLIKELY(atomic_load_explicit(&haki_range_is_limited,
                                             memory_order_relaxed));
}

#endif /* HAK_CLAIMS_H */
