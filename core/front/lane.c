/*
 * lane.c - a request of the calling thread: from its size to a lane, and from its
 * block back to the lane.
 */
#include "front/lane.h"

#include <string.h>

#include "front/check.h"
#include "front/hot.h"
#include "front/large.h"
#include "front/hard_lane.h"
#include "os/os.h"
#include "tiny/remote.h"
#include "tiny/tiny_seal.h"
#include "upkeep/background.h"
#include "upkeep/look.h"
#include "upkeep/relief.h"

unsigned hak_lane_aligned_class(size_t alignment, size_t size)
{
    unsigned class = hak_tiny_class_16[hak_tiny_index(size)];

    while (class < HAK_TINY_CLASSES && hak_tiny_size[class] % alignment != 0) {
        class += 1;
    }
    return class;
}

void *hak_lane_make_zero(void *p, size_t size)
{
    if (size >= HAK_LANE_HUGE_MIN && hak_range_owns(p) &&
        hak_os_purge(p, hak_round_up(size, HAK_PAGE))) {
        return p;
    }
    return memset(p, 0, size);
}

/* hak_lane_alloc but for the seal: `size` has room for it. */
HAK_INLINE void *place(size_t alignment, size_t size, bool zero,
                       enum hak_reason *reason)
{
    struct hak_heap *heap;
    bool is_zero = false;
    void *p;

    if (size <= HAK_LANE_TINY_MAX && alignment <= HAK_LANE_TINY_MAX) {
        unsigned class = alignment <= HAK_LANE_ALIGN
                             ? hak_tiny_class_16[hak_tiny_index(size)]
                             : hak_lane_aligned_class(alignment, size);

        hak_heap_tick(hak_thread_own());
        hak_background_mind();
        *reason = HAK_REASON_MEMORY;
        p = hak_thread_alloc(class, reason);
    } else {
        heap = hak_thread_heap(reason);
        p = heap != NULL
                ? hak_large_alloc(heap, alignment, size, &is_zero, reason)
                : NULL;
    }
    return p != NULL && zero && !is_zero ? hak_lane_make_zero(p, size) : p;
}

/* Whether p, in a slab with this tag, is surely the start of a Tiny block. */
static bool is_tiny_start(const void *p, uint32_t tag)
{
    unsigned class = HAK_TAG_CLASS(tag) / HAK_TAG_TINY;

    return tag != 0 && class < HAK_TINY_CLASSES &&
           hak_tiny_is_start(hak_range_offset(p), hak_tiny_magic[class]);
}

/*
 * The heap of a thread that frees. One that has none gets one, so that what it
 * frees goes back in batches; NULL: it can't have one.
 */
static struct hak_heap *heap_to_free(void)
{
    enum hak_reason reason;

    return hak_thread_heap(&reason);
}

/* There was no memory: once more, when all that is free has gone back. */
static HAK_COLD void *at_last(size_t alignment, size_t size, bool zero,
                              enum hak_reason *reason)
{
    void *p = NULL;

    if (*reason == HAK_REASON_MEMORY && hak_relief(NULL, size)) {
        p = place(alignment, hak_hard_grow(size), zero, reason);
    }
    return hak_lane_guard_set(p, size);
}

void *hak_lane_alloc(size_t alignment, size_t size, bool zero,
                     enum hak_reason *reason)
{
    void *p = place(alignment, hak_hard_grow(size), zero, reason);

    return HAK_LIKELY(p != NULL) ? hak_lane_guard_set(p, size)
                                 : at_last(alignment, size, zero, reason);
}

/* hak_lane_free of a block whose seal was looked at, or has none. */
static void lane_free(void *p, const char *caller)
{
    struct hak_heap *heap = heap_to_free();
    uint32_t tag = hak_range_tag_of(p);

    if (hak_tag_is_large(tag)) {
        if (HAK_UNLIKELY(!hak_large_free(heap, p))) {
            hak_lane_misuse(p, caller);
        }
        return;
    }
    if (HAK_UNLIKELY(!is_tiny_start(p, tag))) {
        hak_lane_check(p, caller);
    }
    if (HAK_UNLIKELY((tag & HAK_TAG_SEALED) != 0)) {
        hak_heap_sent(hak_tiny_seal_free(heap != NULL ? &heap->tiny : NULL, p,
                                         tag));
        return;
    }
    hak_heap_sent(hak_remote_free(heap != NULL ? &heap->tiny : NULL, p, tag));
    hak_background_mind();
}

void hak_lane_free(void *p, const char *caller)
{
    if (HAK_HARD) {
        hak_lane_check(p, caller);
        hak_lane_guard_check(p, 0, caller);
    }
    lane_free(p, caller);
}

/* All the bytes of the block p, in the range; fatal as hak_lane_usable. */
static size_t block_size(const void *p, const char *caller)
{
    uint32_t tag = hak_range_tag_of(p);
    uint32_t owner;
    size_t size;

    if (HAK_LIKELY(is_tiny_start(p, tag)) &&
        HAK_LIKELY(hak_tiny_is_carved(p, tag,
                                      HAK_TAG_CLASS(tag) / HAK_TAG_TINY))) {
        return hak_tiny_size[HAK_TAG_CLASS(tag) / HAK_TAG_TINY];
    }
    if (hak_tag_is_large(tag)) {
        size = hak_large_find(p, &owner);
        if (size == 0) {
            hak_lane_misuse(p, caller);
        }
        return size;
    }
    hak_lane_check(p, caller);
    return hak_tiny_bytes_of(p, tag);
}

size_t hak_lane_usable(const void *p, const char *caller)
{
    return hak_lane_guard_check(p, block_size(p, caller), caller);
}

/* A copy of p, which has `old` bytes, of `size` bytes. */
static void *lane_copy(void *p, size_t old, size_t size,
                       enum hak_reason *reason)
{
    size_t n = hak_min(old, size);
    struct hak_heap *heap;
    void *to = hak_hot_malloc(size - HAK_GUARD_BYTES);

    if (HAK_UNLIKELY(to == NULL)) {
        if (size > HAK_LANE_TINY_MAX) {
            heap = hak_thread_heap(reason);
            return heap != NULL ? hak_large_copy(heap, p, old, size, reason)
                                : NULL;
        }
        to = place(HAK_LANE_ALIGN, size, false, reason);
    }
    __asm__("" : "+r"(n)); /* gcc would write out a slow copy of a short n */
    return to != NULL ? memcpy(to, p, n) : NULL;
}

/*
 * What is smaller now but got no block of that size: it stays, and gives back
 * what it can of its own.
 */
static void *keep(void *p, size_t old, size_t size)
{
    size_t least =
        old > HAK_LANE_HUGE_MIN ? HAK_LANE_HUGE_MIN : HAK_LANE_ACE_MIN;

    if (old > least) {
        (void)hak_large_resize(p, hak_max(size, least));
    }
    return p;
}

/* hak_lane_realloc but for the seal: p has `old` bytes, `size` room for it. */
static void *resize(void *p, size_t old, size_t size, enum hak_reason *reason,
                    const char *caller)
{
    void *moved;

    if (hak_fits_as_is(old, size)) {
        return p;
    }
    if (old > HAK_LANE_TINY_MAX && size > HAK_LANE_TINY_MAX) {
        moved = hak_large_resize(p, size);
        if (moved != NULL) {
            return moved;
        }
    }
    moved = lane_copy(p, old, size, reason);
    if (moved == NULL) {
        return size <= old ? keep(p, old, size) : NULL;
    }
    /* The seal, which hak_large_copy may have thrown away, was looked at. */
    if (!hak_hot_free(p, 0) && (HAK_HARD || !hak_hot_run_free(p))) {
        lane_free(p, caller);
    }
    return moved;
}

void *hak_lane_realloc(void *p, size_t size, enum hak_reason *reason,
                       const char *caller)
{
    uint32_t tag = hak_range_tag_of(p);
    size_t old = is_tiny_start(p, tag)
                     ? hak_tiny_size[HAK_TAG_CLASS(tag) / HAK_TAG_TINY]
                     : block_size(p, caller);
    void *moved;

    hak_lane_guard_check(p, old, caller);
    moved = resize(p, old, hak_hard_grow(size), reason, caller);
    if (HAK_UNLIKELY(moved == NULL) && *reason == HAK_REASON_MEMORY &&
        hak_relief(NULL, size)) {
        moved = resize(p, old, hak_hard_grow(size), reason, caller);
    }
    return hak_lane_guard_set(moved, size);
}
