/*
 * alloc.c - hak_malloc, hak_free and the like, on the thread's heap.
 *
 * The hot paths are in hot.h; what they can't serve goes to the *_slow
 * functions, from there to the lanes, and at last to the system allocator.
 */
#include <errno.h>
#include <string.h>

#include "api/inside.h"
#include "heap/account.h"
#include "api/stats.h"
#include "upkeep/background.h"
#include "front/hot.h"
#include "base/msg.h"
#include "front/behind.h"
#include "os/os.h"
#include "range/purge.h"
#include "upkeep/relief.h"

HAK_STATS_AT_END(alloc);

static HAK_NOINLINE void *alloc_malloc_slow(size_t size);
static HAK_NOINLINE void alloc_free_slow(void *p, size_t asked,
                                         const char *caller);

void *hak_malloc(size_t size)
{
    void *p = haki_hot_malloc(size);

    return HAK_LIKELY(p != NULL) ? p : alloc_malloc_slow(size);
}

void hak_free(void *p)
{
    if (HAK_UNLIKELY(!haki_hot_free(p, 0))) {
        alloc_free_slow(p, 0, "hak_free");
    }
}

HAK_INSIDE(haki_inside_free, hak_free);

void hak_free_sized(void *p, size_t size)
{
    if (HAK_UNLIKELY(!haki_hot_free(p, size))) {
        alloc_free_slow(p, size, "hak_free_sized");
    }
}

/* ---- the system allocator behind the lanes ------------------------------- */

/* Serves what the lanes have refused. */
static void *alloc_from_system(size_t alignment, size_t size,
                               enum hak_reason reason)
{
    if (size > PTRDIFF_MAX ||
        (haki_reason_is_short(reason) && haki_limit_refuses(size))) {
        errno = ENOMEM;
        return NULL;
    }
    return haki_system_alloc(haki_max(alignment, 16), size, NULL, reason);
}

static HAK_NOINLINE void *alloc_malloc_slow(size_t size)
{
    enum hak_reason reason;
    void *p = haki_hot_run(size);

    if (HAK_LIKELY(p != NULL)) {
        return p;
    }
    p = haki_lane_alloc(HAK_LANE_ALIGN, size, false, &reason);
    return HAK_LIKELY(p != NULL)
               ? p
               : alloc_from_system(HAK_LANE_ALIGN, size, reason);
}

/* p is NULL, a larger block, another heap's, the system's, or not a block. */
static HAK_NOINLINE void alloc_free_slow(void *p, size_t asked,
                                         const char *caller)
{
    if (p == NULL || (asked == 0 && haki_hot_run_free(p))) {
        return;
    }
    if (asked == 0 && haki_range_covers(p) && haki_hot_may_join(p) &&
        haki_hot_join(p)) {
        return;
    }
    if (asked != 0 && asked > haki_lane_any_usable(p, caller)) {
        haki_fatal("%s(%p, %zu): the block has only %zu bytes", caller, p,
                   asked, haki_lane_any_usable(p, caller));
    }
    if (haki_range_owns(p)) {
        haki_lane_free(p, caller);
    } else {
        haki_lane_free_system(p, caller);
    }
}

/* ---- the rest of the family --------------------------------------------------- */

void *hak_calloc(size_t count, size_t size)
{
    enum hak_reason reason;
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    p = haki_hot_malloc(bytes);
    if (HAK_LIKELY(p != NULL)) {
        return memset(p, 0, bytes);
    }
    p = haki_lane_alloc(HAK_LANE_ALIGN, bytes, true, &reason);
    if (HAK_UNLIKELY(p == NULL)) {
        p = alloc_from_system(HAK_LANE_ALIGN, bytes, reason);
        p = p != NULL ? memset(p, 0, bytes) : NULL;
    }
    return p;
}

/* Resizes a block of the system's and charges its heap, if it has one. */
static void *alloc_resize_system(void *p, size_t size)
{
    struct hak_heap *owner = NULL;
    size_t old = 0;
    void *moved;

    haki_system_find(p, &owner, &old);
    moved = haki_system_resize(p, size);
    if (moved != NULL && owner != NULL) {
        haki_account_resize_other(owner, old, size);
    }
    return moved;
}

/* The lanes have refused: moves the block to the system allocator. */
static void *alloc_move_to_system(void *p, size_t size, enum hak_reason reason)
{
    void *moved = alloc_from_system(HAK_LANE_ALIGN, size, reason);

    if (moved != NULL) {
        memcpy(moved, p, haki_min(size, haki_lane_usable(p, "hak_realloc")));
        haki_inside_free(p);
    }
    return moved;
}

void *hak_realloc(void *p, size_t size)
{
    enum hak_reason reason;
    void *moved;

    if (p == NULL) {
        return hak_malloc(size);
    }
    if (HAK_LIKELY(haki_range_owns(p))) {
        moved = haki_hot_realloc(p, size);
        if (HAK_LIKELY(moved != NULL)) {
            if (moved != p) {
                hak_free(p);
            }
            return moved;
        }
        moved = haki_lane_realloc(p, size, &reason, "hak_realloc");
        return moved != NULL ? moved : alloc_move_to_system(p, size, reason);
    }
    haki_lane_any_usable(p, "hak_realloc");
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    return alloc_resize_system(p, size);
}

void *hak_aligned_alloc(size_t alignment, size_t size)
{
    enum hak_reason reason;
    void *p;

    if (!haki_is_pow2(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    if (alignment > HAK_LANE_ALIGN) {
        p = haki_hot_take(haki_hot_need(alignment, size), size);
        if (HAK_LIKELY(p != NULL)) {
            return p;
        }
    }
    p = haki_lane_alloc(alignment, size, false, &reason);
    return p != NULL ? p : alloc_from_system(alignment, size, reason);
}

size_t hak_usable_size(const void *p)
{
    return p != NULL ? haki_lane_any_usable(p, "hak_usable_size") : 0;
}

bool hak_owns(const void *p)
{
    return haki_range_owns(p);
}

size_t hak_trim(void)
{
    size_t bytes = haki_thread_trim();

    if (HAK_LOAD(haki_range.size) != 0) {
        bytes += haki_ace_trim();
        bytes += haki_range_purge();
    }
    return bytes;
}

const char *hak_version(void)
{
    return HAK_VERSION_STRING;
}
