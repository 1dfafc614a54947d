/*
 * hard_lane.h - the hardened build's marks behind blocks in use, where only the
 * pointer is known. In other builds nothing: see hard.h.
 */
#ifndef HAK_HARD_LANE_H
#define HAK_HARD_LANE_H

#include "guard/hard.h"

size_t haki_lane_guard_check_slow(const void *p, const char *caller);
void haki_lane_guard_set_slow(void *p, size_t size);

/*
 * What the user of p, a block of `block` bytes, has of it: the hardened build
 * looks at its guard and ends the program, naming `caller`, if it is broken.
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
