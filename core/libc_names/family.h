/*
 * family.h - the malloc family over a policy; operators.h adds C++'s operators.
 *
 * Written once for everything that takes these names: libhakmem.so and
 * libhakmem.a (wrap.h), and the nginx module, to which other objects' calls are
 * redirected.
 *
 *     malloc --take--> a block of a bin                                   hot
 *        `--serves?--enter--> the lanes --leave--> served                 slow
 *              |no     |no       |NULL
 *              `-------+---------+--> fallback, or NULL at a limit
 *
 *     free --in the range--> a bin, the cache of runs, enter_free and the lanes
 *        `--not in it--> free_foreign
 *
 * An instance defines its policy in a header that ends with #include
 * "family.h", and includes family_names.h, which defines the names, in one of
 * its files. Two instances can't be linked together. The policy is these
 * functions, inline where speed matters, and a macro:
 *
 *   HAK_FAMILY(name)                      the name that malloc and the others have
 *   void *haki_policy_take_for(need, size)  a block for `size` bytes from the bin
 *                                         for `need` (hot.h), counted; NULL: none
 *                                         there, or not a bin's size
 *   bool haki_policy_serves(alignment, size)   whether the lanes serve such blocks
 *   bool haki_policy_enter(size, &reason)  before the lanes are used; false: they
 *                                         may not be, and the reason is set
 *   bool haki_policy_enter_free(p)        the same before they take p back; false:
 *                                         p was dealt with
 *   void haki_policy_leave()              after either of them returned true
 *   void haki_policy_served(size)         counts what the slow paths served
 *   void *haki_policy_fallback(alignment, size, zero, reason)
 *                                         counts it by the reason, and asks the
 *                                         C library; NULL: errno is ENOMEM
 *   void haki_policy_free_foreign(p)      p is not in the range, nor NULL; keeps
 *                                         errno
 *   void *haki_policy_realloc_foreign(p, size)   as realloc; size is not 0
 *
 * What the standards leave open follows glibc 2.36.
 */
#ifndef HAK_FAMILY_H
#define HAK_FAMILY_H

#include "front/hot.h"
#include "front/lane.h"
#include "system/libc.h"

/* ---- the slow paths, in family_names.h ----------------------------------- */

/*
 * `size` bytes, zeros if asked for, aligned to a power of two, at least
 * HAK_LANE_ALIGN. NULL: errno is ENOMEM.
 */
HAK_NOINLINE void *haki_family_alloc(size_t alignment, size_t size, bool zero);

/* The rest of malloc when haki_policy_take has found nothing. */
HAK_HOT HAK_NOINLINE void *haki_family_malloc_slow(size_t size);

/* The rest of free, for a block in the range and for any other. */
HAK_HOT HAK_NOINLINE void haki_family_free_slow(void *p);
HAK_NOINLINE void haki_family_free_foreign(void *p);

/* ---- the hot paths ------------------------------------------------------- */

HAK_INLINE void *haki_policy_take(size_t size)
{
    return haki_policy_take_for(haki_hard_grow(size), size);
}

/* The same, aligned to more than HAK_LANE_ALIGN. */
HAK_INLINE void *haki_policy_take_aligned(size_t alignment, size_t size)
{
    return haki_policy_take_for(haki_hot_need(alignment, size), size);
}

HAK_INLINE void *haki_family_malloc(size_t size)
{
    void *p = haki_policy_take(size);

    return HAK_LIKELY(p != NULL) ? p : haki_family_malloc_slow(size);
}

HAK_INLINE void haki_family_free(void *p)
{
    if (HAK_UNLIKELY(!haki_range_covers(p))) {
        haki_family_free_foreign(p);
    } else if (HAK_UNLIKELY(!haki_hot_free_covered(p, 0))) {
        haki_family_free_slow(p);
    }
}

#endif /* HAK_FAMILY_H */
