/*
 * family_names.h - the names of an instance, HAK_FAMILY(malloc) and so on, and
 * the slow paths of family.h. One file of the instance includes this, after the
 * declarations.
 */
#ifndef HAK_FAMILY_NAMES_H
#define HAK_FAMILY_NAMES_H

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

/* A size that the lanes don't serve. */
HAK_INLINE void *family_unserved(size_t alignment, size_t size, bool zero)
{
    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    return haki_policy_fallback(alignment, size, zero, HAK_REASON_LARGE);
}

/*
 * The lanes don't serve the size, or have refused: the fallback, unless there
 * is a limit.
 */
static HAK_NOINLINE void *family_fall_back(size_t alignment, size_t size,
                                           bool zero, enum hak_reason reason)
{
    if (!haki_policy_serves(alignment, size)) {
        return family_unserved(alignment, size, zero);
    }
    if (haki_reason_is_short(reason) && haki_limit_refuses(size)) {
        return family_no_memory();
    }
    return haki_policy_fallback(alignment, size, zero, reason);
}

void *haki_family_alloc(size_t alignment, size_t size, bool zero)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    void *p = NULL;

    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    if (haki_policy_serves(alignment, size) &&
        haki_policy_enter(size, &reason)) {
        p = haki_lane_alloc(alignment, size, zero, &reason);
        haki_policy_leave();
    }
    if (HAK_UNLIKELY(p == NULL)) {
        return family_fall_back(alignment, size, zero, reason);
    }
    haki_policy_served(size);
    return p;
}

void *haki_family_malloc_slow(size_t size)
{
    void *p;

    if (!haki_policy_serves(HAK_LANE_ALIGN, size)) {
        return family_unserved(HAK_LANE_ALIGN, size, false);
    }
    p = haki_hot_run(size);
    if (HAK_UNLIKELY(p == NULL)) {
        return haki_family_alloc(HAK_LANE_ALIGN, size, false);
    }
    haki_policy_served(size);
    return p;
}

void *HAK_FAMILY(malloc)(size_t size)
{
    return haki_family_malloc(size);
}

/* The bytes of an array; false: too many, errno is ENOMEM. */
HAK_INLINE bool family_bytes(size_t count, size_t size, size_t *bytes)
{
    if (HAK_LIKELY(!__builtin_mul_overflow(count, size, bytes))) {
        return true;
    }
    errno = ENOMEM;
    return false;
}

void *HAK_FAMILY(calloc)(size_t count, size_t size)
{
    size_t bytes;
    void *p;

    if (HAK_UNLIKELY(!family_bytes(count, size, &bytes))) {
        return NULL;
    }
    p = haki_policy_take(bytes);
    return HAK_LIKELY(p != NULL)
               ? memset(p, 0, bytes)
               : haki_family_alloc(HAK_LANE_ALIGN, bytes, true);
}

/* ---- free ------------------------------------------------------------------ */

void haki_family_free_foreign(void *p)
{
    if (p != NULL) {
        haki_policy_free_foreign(p);
    }
}

static HAK_NOINLINE void family_free_rest(void *p)
{
    if (HAK_UNLIKELY(!haki_range_owns(p))) {
        haki_family_free_foreign(p); /* somebody else's mapping among ours */
    } else if (haki_policy_enter_free(p)) {
        haki_lane_free(p, "free");
        haki_policy_leave();
    }
}

/* A Tiny block, unless it can't go the short way to another thread's heap. */
HAK_INLINE bool family_free_join(void *p)
{
    bool joined = false;

    if (haki_hot_may_join(p)) {
        if (HAK_UNLIKELY(!haki_policy_enter_free(p))) {
            return true;
        }
        joined = haki_hot_join(p);
        haki_policy_leave();
    }
    return joined;
}

static HAK_NOINLINE void family_free_other(void *p)
{
    if (HAK_UNLIKELY(!family_free_join(p))) {
        family_free_rest(p);
    }
}

void haki_family_free_slow(void *p)
{
    if (HAK_UNLIKELY(!haki_hot_run_free(p))) {
        family_free_other(p);
    }
}

void HAK_FAMILY(free)(void *p)
{
    haki_family_free(p);
}

/* ---- realloc --------------------------------------------------------------- */

/*
 * Moves the contents of p to a block of `size` bytes from elsewhere, or returns
 * NULL.
 */
static void *family_move(void *p, void *to, size_t size)
{
    if (to != NULL) {
        memcpy(to, p, haki_min(haki_lane_usable(p, "realloc"), size));
        HAK_FAMILY(free)(p);
    }
    return to;
}

/* Resizes a block in the range. */
static void *family_resize(void *p, size_t size)
{
    enum hak_reason reason = HAK_REASON_MEMORY;
    void *moved = NULL;

    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    if (haki_policy_serves(HAK_LANE_ALIGN, size) &&
        haki_policy_enter(size, &reason)) {
        moved = haki_lane_realloc(p, size, &reason, "realloc");
        haki_policy_leave();
    }
    if (HAK_UNLIKELY(moved == NULL)) {
        return family_move(
            p, family_fall_back(HAK_LANE_ALIGN, size, false, reason), size);
    }
    haki_policy_served(size);
    return moved;
}

/* Resizes it without the guards and the lanes' slow paths, if that can be. */
HAK_INLINE void *family_resize_hot(void *p, size_t size)
{
    void *moved = haki_policy_serves(HAK_LANE_ALIGN, size)
                      ? haki_hot_realloc(p, size)
                      : NULL;

    if (HAK_LIKELY(moved != NULL)) {
        haki_policy_served(size);
        if (moved != p) {
            haki_family_free(p);
        }
    }
    return moved;
}

static HAK_NOINLINE void *family_realloc_slow(void *p, size_t size)
{
    if (p == NULL) {
        return haki_family_malloc(size);
    }
    if (size == 0) {
        HAK_FAMILY(free)(p);
        return NULL;
    }
    return HAK_LIKELY(haki_range_owns(p))
               ? family_resize(p, size)
               : haki_policy_realloc_foreign(p, size);
}

void *HAK_FAMILY(realloc)(void *p, size_t size)
{
    void *moved = HAK_LIKELY(haki_range_covers(p)) && HAK_LIKELY(size != 0)
                      ? family_resize_hot(p, size)
                      : NULL;

    return HAK_LIKELY(moved != NULL) ? moved : family_realloc_slow(p, size);
}

void *HAK_FAMILY(reallocarray)(void *p, size_t count, size_t size)
{
    size_t bytes;

    return family_bytes(count, size, &bytes) ? HAK_FAMILY(realloc)(p, bytes)
                                             : NULL;
}

/* ---- aligned blocks -------------------------------------------------------- */

/* `alignment` is more than every block has anyway. */
HAK_INLINE void *family_aligned(size_t alignment, size_t size)
{
    int error = haki_lane_align_as_glibc(&alignment, size);

    if (error != 0) {
        errno = error;
        return NULL;
    }
    return haki_family_alloc(alignment, size, false);
}

/* Also memalign. */
void *HAK_FAMILY(aligned_alloc)(size_t alignment, size_t size)
{
    void *p;

    if (alignment <= HAK_LANE_ALIGN) {
        return haki_family_malloc(size);
    }
    p = haki_policy_take_aligned(alignment, size);
    return HAK_LIKELY(p != NULL) ? p : family_aligned(alignment, size);
}

static HAK_NOINLINE int family_posix_memalign_slow(void **out, size_t alignment,
                                                   size_t size)
{
    int saved = errno;
    void *p;

    if (alignment < sizeof(void *) || !haki_is_pow2(alignment)) {
        return EINVAL;
    }
    p = alignment <= HAK_LANE_ALIGN ? haki_family_malloc_slow(size)
                                    : family_aligned(alignment, size);
    errno = saved;
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

int HAK_FAMILY(posix_memalign)(void **out, size_t alignment, size_t size)
{
    void *p =
        HAK_LIKELY(alignment == HAK_LANE_ALIGN) || alignment == sizeof(void *)
            ? haki_policy_take(size)
        : alignment > HAK_LANE_ALIGN ? haki_policy_take_aligned(alignment, size)
                                     : NULL;

    if (HAK_UNLIKELY(p == NULL)) {
        return family_posix_memalign_slow(out, alignment, size);
    }
    *out = p;
    return 0;
}

void *HAK_FAMILY(valloc)(size_t size)
{
    return family_aligned((size_t)getpagesize(), size);
}

void *HAK_FAMILY(pvalloc)(size_t size)
{
    size_t page = (size_t)getpagesize();

    if (size > PTRDIFF_MAX) {
        return family_no_memory();
    }
    return family_aligned(page, haki_round_up(size, page));
}

/* ---- malloc_usable_size ---------------------------------------------------- */

size_t HAK_FAMILY(malloc_usable_size)(void *p)
{
    if (p == NULL) {
        return 0;
    }
    return haki_range_owns(p) ? haki_lane_usable(p, "malloc_usable_size")
                              : haki_libc_usable_size(p);
}

#endif /* HAK_FAMILY_NAMES_H */
