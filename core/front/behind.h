/*
 * behind.h - the system allocator behind the lanes.
 */
#ifndef HAK_BEHIND_H
#define HAK_BEHIND_H

#include <errno.h>

#include "base/base.h"

struct hak_heap;

/* The usable size of p, outside the range, and the explicit heap that it is of or
 * NULL; fatal, naming `caller`, if it is no block of the system's. */
size_t haki_lane_system_usable(const void *p, const char *caller,
                               struct hak_heap **owner);

/* The usable size of p, of the lanes or behind them; fatal as above. */
size_t haki_lane_any_usable(const void *p, const char *caller);

/* Frees p, outside the range; fatal if it is not a block of the system's. */
void haki_lane_free_system(void *p, const char *caller);

/*
 * What glibc's aligned_alloc and memalign do with an alignment above 16 B: one
 * that is not a power of two becomes the next. Returns 0, or the errno they
 * fail with.
 */
HAK_INLINE int haki_lane_align_as_glibc(size_t *alignment, size_t size)
{
    if (*alignment > SIZE_MAX / 2 + 1) {
        return EINVAL;
    }
    if (!haki_is_pow2(*alignment)) {
        *alignment = (size_t)1 << (64 - __builtin_clzl(*alignment));
    }
    return size > PTRDIFF_MAX || *alignment > PTRDIFF_MAX - size ? ENOMEM : 0;
}

#endif /* HAK_BEHIND_H */
