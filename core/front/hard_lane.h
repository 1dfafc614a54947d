/*
 * hard_lane.h - the hardened build's guards behind blocks in use, when only the
 * pointer is known. Nothing in other builds: see hard.h.
 */
#ifndef HAK_HARD_LANE_H
#define HAK_HARD_LANE_H

#include "guard/hard.h"

size_t haki_lane_guard_check_slow(const void *p, const char *caller);
void haki_lane_guard_set_slow(void *p, size_t size);

/*
 * How many bytes of p, a block of `block` bytes, its user may use. The hardened
 * build checks its guard and ends the program, naming `caller`, if it is broken.
 */
HAK_INLINE size_t haki_lane_guard_check(const void *p, size_t block,
                                        const char *caller)
{
    return HAK_HARD ? haki_lane_guard_check_slow(p, caller) : block;
}

/* Hardened build: guards p (NULL: does nothing) for `size` bytes; returns p. */
HAK_INLINE void *haki_lane_guard_set(void *p, size_t size)
{
    if (HAK_HARD && p != NULL) {
        haki_lane_guard_set_slow(p, size);
    }
    return p;
}

#endif /* HAK_HARD_LANE_H */
