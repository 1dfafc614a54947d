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

unsigned haki_lane_aligned_class(size_t alignment, size_t size)
{
    unsigned class = haki_tiny_class_16[haki_tiny_index(size)];

    while (class < HAK_TINY_CLASSES && haki_tiny_size[class] % alignment != 0) {
        class += 1;
    }
    return class;
}

void *haki_lane_make_zero(void *p, size_t size)
{
    if (size >= HAK_LANE_HUGE_MIN && haki_range_owns(p) &&
        haki_os_purge(p, haki_whole_pages(size))) {
        return p;
    }
    return memset(p, 0, size);
}

/* haki_lane_alloc without the guard, for which `size` has room. */
HAK_INLINE void *lane_place(size_t alignment, size_t size, bool zero,
                            enum hak_reason *reason)
{
    struct hak_heap *heap;
    bool is_zero = false;
    void *p;

    if (size <= HAK_LANE_TINY_MAX && alignment <= HAK_LANE_TINY_MAX) {
        unsigned class = alignment <= HAK_LANE_ALIGN
                             ? haki_tiny_class_16[haki_tiny_index(size)]
                             : haki_lane_aligned_class(alignment, size);

        haki_heap_tick(haki_thread_own());
        haki_background_check();
        *reason = HAK_REASON_MEMORY;
        p = haki_thread_alloc(class, reason);
    } else {
        heap = haki_thread_heap(reason);
        p = heap != NULL
                ? haki_large_alloc(heap, alignment, size, &is_zero, reason)
                : NULL;
    }
    return p != NULL && zero && !is_zero ? haki_lane_make_zero(p, size) : p;
}

/*
 * Whether p, in a slab with this tag, is certainly the start of a Tiny block.
 */
static bool lane_is_tiny_start(const void *p, uint32_t tag)
{
    unsigned class = HAK_TAG_CLASS(tag) / HAK_TAG_TINY;

    return tag != 0 && class < HAK_TINY_CLASSES &&
           haki_tiny_is_start(haki_range_offset(p), haki_tiny_magic[class]);
}

/*
 * The heap of a thread that frees. A thread without a heap gets one, so that
 * what it frees goes back in batches; NULL: it can't have one.
 */
static struct hak_heap *lane_heap_to_free(void)
{
    struct hak_heap *heap = haki_thread_own();
    enum hak_reason reason;

    return HAK_LIKELY(heap != NULL) ? heap : haki_thread_heap(&reason);
}

/* A new block, for `size` bytes: what is to be seen by its guards is set. */
HAK_INLINE void *lane_finish(void *p, size_t alignment, size_t size)
{
    return HAK_HARD
               ? haki_lane_guard_set(p, size)
               : haki_guarded_fit(p, haki_max(alignment, HAK_LANE_ALIGN), size);
}

/* There was no memory: tries again after all free memory has gone back. */
static HAK_COLD void *lane_at_last(size_t alignment, size_t size, bool zero,
                                   enum hak_reason *reason)
{
    void *p = NULL;

    if (*reason == HAK_REASON_MEMORY && haki_relief(NULL, size)) {
        p = lane_place(alignment, haki_hard_grow(size), zero, reason);
    }
    return lane_finish(p, alignment, size);
}

void *haki_lane_alloc(size_t alignment, size_t size, bool zero,
                      enum hak_reason *reason)
{
    void *p = lane_place(alignment, haki_hard_grow(size), zero, reason);

    return HAK_LIKELY(p != NULL) ? lane_finish(p, alignment, size)
                                 : lane_at_last(alignment, size, zero, reason);
}

/* haki_lane_free for a block whose guard was checked, or that has none. */
static void lane_free(void *p, const char *caller)
{
    struct hak_heap *heap = lane_heap_to_free();
    uint32_t tag = haki_range_tag_of(p), sent;

    if (haki_tag_is_large(tag)) {
        if (HAK_UNLIKELY(!haki_large_free(heap, p))) {
            haki_lane_misuse(p, caller);
        }
        return;
    }
    if (HAK_UNLIKELY(!lane_is_tiny_start(p, tag))) {
        haki_lane_check(p, caller);
    }
    if (HAK_UNLIKELY((tag & HAK_TAG_SEALED) != 0)) {
        haki_heap_sent(haki_tiny_seal_free(heap != NULL ? &heap->tiny : NULL, p,
                                           tag));
        return;
    }
    sent = haki_remote_free(heap != NULL ? &heap->tiny : NULL, p, tag);
    if (HAK_UNLIKELY(sent != 0)) {
        haki_heap_sent_slow(sent);
        haki_background_check();
    }
}

void haki_lane_free(void *p, const char *caller)
{
    if (HAK_HARD) {
        haki_lane_check(p, caller);
        haki_lane_guard_check(p, 0, caller);
    }
    lane_free(p, caller);
}

/* The whole size of the block p, in the range; fatal as haki_lane_usable. */
static size_t lane_block_size(const void *p, const char *caller)
{
    uint32_t tag = haki_range_tag_of(p);
    uint32_t owner;
    size_t size;

    if (HAK_LIKELY(lane_is_tiny_start(p, tag)) &&
        HAK_LIKELY(haki_tiny_is_carved(p, tag,
                                       HAK_TAG_CLASS(tag) / HAK_TAG_TINY))) {
        return haki_tiny_size[HAK_TAG_CLASS(tag) / HAK_TAG_TINY];
    }
    if (haki_tag_is_large(tag)) {
        size = haki_large_find(p, &owner);
        if (size == 0) {
            haki_lane_misuse(p, caller);
        }
        return size;
    }
    haki_lane_check(p, caller);
    return haki_tiny_bytes_of(p, tag);
}

size_t haki_lane_usable(const void *p, const char *caller)
{
    return haki_lane_guard_check(p, lane_block_size(p, caller), caller);
}

/* Copies p, which has `old` bytes, to a new block of `size` bytes. */
static void *lane_copy(void *p, size_t old, size_t size,
                       enum hak_reason *reason)
{
    size_t n = haki_min(old, size);
    struct hak_heap *heap;
    void *to = haki_hot_malloc(size - HAK_GUARD_BYTES);

    if (HAK_UNLIKELY(to == NULL)) {
        if (size > HAK_LANE_TINY_MAX) {
            heap = haki_thread_heap(reason);
            return heap != NULL ? haki_large_copy(heap, p, old, size, reason)
                                : NULL;
        }
        to = haki_guarded_fit(lane_place(HAK_LANE_ALIGN, size, false, reason),
                              HAK_LANE_ALIGN, size);
    }
    __asm__("" : "+r"(n)); /* keeps gcc from inlining a slow copy loop */
    return to != NULL ? memcpy(to, p, n) : NULL;
}

/*
 * A block to be shrunk for which no smaller block is available: it stays where
 * it is and gives back what it can.
 */
static void *lane_keep(void *p, size_t old, size_t size)
{
    size_t least =
        old > HAK_LANE_HUGE_MIN ? HAK_LANE_HUGE_MIN : HAK_LANE_ACE_MIN;

    if (old > least) {
        (void)haki_large_resize(p, haki_max(size, least));
    }
    return p;
}

/*
 * haki_lane_realloc without the guard: p has `old` bytes, and `size` has room
 * for it.
 */
static void *lane_resize(void *p, size_t old, size_t size,
                         enum hak_reason *reason, const char *caller)
{
    void *moved;

    if (haki_fits_as_is(old, size)) {
        return p;
    }
    if (old > HAK_LANE_TINY_MAX && size > HAK_LANE_TINY_MAX) {
        moved = haki_large_resize(p, size);
        if (moved != NULL) {
            return moved;
        }
    }
    moved = lane_copy(p, old, size, reason);
    if (moved == NULL) {
        return size <= old ? lane_keep(p, old, size) : NULL;
    }
    /*
     * The guard was checked before; haki_large_copy may have dropped its page.
     */
    if (!haki_hot_free(p, 0) && (HAK_HARD || !haki_hot_run_free(p))) {
        lane_free(p, caller);
    }
    return moved;
}

void *haki_lane_realloc(void *p, size_t size, enum hak_reason *reason,
                        const char *caller)
{
    uint32_t tag = haki_range_tag_of(p);
    size_t old = lane_is_tiny_start(p, tag)
                     ? haki_tiny_size[HAK_TAG_CLASS(tag) / HAK_TAG_TINY]
                     : lane_block_size(p, caller);
    void *moved;

    haki_lane_guard_check(p, old, caller);
    moved = lane_resize(p, old, haki_hard_grow(size), reason, caller);
    if (HAK_UNLIKELY(moved == NULL) && *reason == HAK_REASON_MEMORY &&
        haki_relief(NULL, size)) {
        moved = lane_resize(p, old, haki_hard_grow(size), reason, caller);
    }
    return haki_lane_guard_set(moved, size);
}
