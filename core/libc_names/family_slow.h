/*
 * family_slow.h - the slow ways of family.h, and the names that are seldom hot.
 * One file of an instance includes it.
 */
#ifndef HAK_FAMILY_SLOW_H
#define HAK_FAMILY_SLOW_H

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "front/behind.h"
#include "libc_names/family.h"
#include "range/pressure.h"

static void *family_no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

/* ---- malloc ---------------------------------------------------------------- */

/* A size that is not the lanes'. */
HAK_INLINE void *family_unserved(size_t alignment, size_t size, bool zero)
{
    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    return hak_policy_fallback(alignment, size, zero, HAK_REASON_LARGE);
}

/* That, or the lanes have refused: the fallback, unless at a limit. */
static HAK_NOINLINE void *family_fall_back(size_t alignment, size_t size,
                                           bool zero, enum hak_reason reason)
{
    if (!hak_policy_serves(alignment, size)) {
        return family_unserved(alignment, size, zero);
    }
    if (hak_reason_is_short(reason) && hak_limit_refuses(size)) {
        return family_no_memory();
    }
    return hak_policy_fallback(alignment, size, zero, reason);
}

void *hak_family_alloc(size_t alignment, size_t size, bool zero)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    void *p = NULL;

    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    if (hak_policy_serves(alignment, size) && hak_policy_enter(size, &reason)) {
        p = hak_lane_alloc(alignment, size, zero, &reason);
        hak_policy_leave();
    }
    if (HAK_UNLIKELY(p == NULL)) {
        return family_fall_back(alignment, size, zero, reason);
    }
    hak_policy_served(size);
    return p;
}

void *hak_family_malloc_slow(size_t size)
{
    void *p;

    if (!hak_policy_serves(HAK_LANE_ALIGN, size)) {
        return family_unserved(HAK_LANE_ALIGN, size, false);
    }
    p = hak_hot_run(size);
    if (HAK_UNLIKELY(p == NULL)) {
        return hak_family_alloc(HAK_LANE_ALIGN, size, false);
    }
    hak_policy_served(size);
    return p;
}

/* ---- free ------------------------------------------------------------------ */

void hak_family_free_foreign(void *p)
{
    if (p != NULL) {
        hak_policy_free_foreign(p);
    }
}

static HAK_NOINLINE void family_free_rest(void *p)
{
    if (HAK_UNLIKELY(!hak_range_owns(p))) {
        hak_family_free_foreign(p); /* a mapping of somebody else's amid ours */
    } else if (hak_policy_enter_free(p)) {
        hak_lane_free(p, "free");
        hak_policy_leave();
    }
}

void hak_family_free_slow(void *p)
{
    if (HAK_UNLIKELY(!hak_hot_run_free(p))) {
        family_free_rest(p);
    }
}

/* Where it is not hot. */
static HAK_NOINLINE void family_free(void *p)
{
    hak_family_free(p);
}

/* ---- realloc --------------------------------------------------------------- */

/* Moves what p has to a block of `size` bytes from elsewhere, or NULL. */
static void *family_move(void *p, void *to, size_t size)
{
    if (to != NULL) {
        memcpy(to, p, hak_min(hak_lane_usable(p, "realloc"), size));
        family_free(p);
    }
    return to;
}

/* Resizes a block of the range. */
static void *family_resize(void *p, size_t size)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    void *moved = NULL;

    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    if (hak_policy_serves(HAK_LANE_ALIGN, size) &&
        hak_policy_enter(size, &reason)) {
        moved = hak_lane_realloc(p, size, &reason, "realloc");
        hak_policy_leave();
    }
    if (HAK_UNLIKELY(moved == NULL)) {
        return family_move(
            p, family_fall_back(HAK_LANE_ALIGN, size, false, reason), size);
    }
    hak_policy_served(size);
    return moved;
}

HAK_INLINE void *hak_family_realloc(void *p, size_t size)
{
    if (p == NULL) {
        return hak_family_malloc(size);
    }
    if (size == 0) {
        family_free(p);
        return NULL;
    }
    return HAK_LIKELY(hak_range_owns(p)) ? family_resize(p, size)
                                         : hak_policy_realloc_foreign(p, size);
}

/* ---- aligned blocks -------------------------------------------------------- */

/* `alignment` is more than what every block has. */
HAK_INLINE void *family_aligned(size_t alignment, size_t size)
{
    int error = hak_lane_align_as_glibc(&alignment, size);

    if (error != 0) {
        errno = error;
        return NULL;
    }
    return hak_family_alloc(alignment, size, false);
}

/* aligned_alloc and memalign. */
HAK_INLINE void *hak_family_aligned(size_t alignment, size_t size)
{
    return alignment <= HAK_LANE_ALIGN ? hak_family_malloc(size)
                                       : family_aligned(alignment, size);
}

static HAK_NOINLINE int family_posix_memalign_slow(void **out, size_t alignment,
                                                   size_t size)
{
    int saved = errno;
    void *p;

    if (alignment < sizeof(void *) || !hak_is_pow2(alignment)) {
        return EINVAL;
    }
    p = alignment <= HAK_LANE_ALIGN ? hak_family_malloc_slow(size)
                                    : family_aligned(alignment, size);
    errno = saved;
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

HAK_INLINE int hak_family_posix_memalign(void **out, size_t alignment,
                                         size_t size)
{
    void *p =
        HAK_LIKELY(alignment == HAK_LANE_ALIGN) || alignment == sizeof(void *)
            ? hak_policy_take(size)
            : NULL;

    if (HAK_UNLIKELY(p == NULL)) {
        return family_posix_memalign_slow(out, alignment, size);
    }
    *out = p;
    return 0;
}

HAK_INLINE void *hak_family_valloc(size_t size)
{
    return family_aligned((size_t)getpagesize(), size);
}

HAK_INLINE void *hak_family_pvalloc(size_t size)
{
    size_t page = (size_t)getpagesize();

    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    return family_aligned(page, hak_round_up(size, page));
}

/* ---- malloc_usable_size ---------------------------------------------------- */

HAK_INLINE size_t hak_family_usable_size(void *p)
{
    if (p == NULL) {
        return 0;
    }
    return hak_range_owns(p) ? hak_lane_usable(p, "malloc_usable_size")
                             : hak_libc_usable_size(p);
}

#endif /* HAK_FAMILY_SLOW_H */
