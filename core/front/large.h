/*
 * large.h - sizes above Tiny, on a given heap.
 */
#ifndef HAK_LARGE_H
#define HAK_LARGE_H

#include "front/lane.h"

/*
 * Allocates from the lanes above Tiny; `size` or `alignment` is above
 * HAK_LANE_TINY_MAX. *zero: the contents are zero. NULL: *reason says why.
 */
void *haki_large_alloc(struct hak_heap *heap, size_t alignment, size_t size,
                       bool *zero, enum hak_reason *reason);

/* How many bytes a block for `size` bytes, above HAK_LANE_TINY_MAX, takes. */
HAK_INLINE size_t haki_large_bytes(size_t size)
{
    return size <= HAK_LANE_POOL_MAX
               ? haki_pool_classes[haki_pool_class_for(size)].block
               : haki_whole_pages(size);
}

/* Whether a block with `usable` bytes may stay where it is for `size`. */
HAK_INLINE bool haki_fits_as_is(size_t usable, size_t size)
{
    if (usable <= HAK_LANE_TINY_MAX) {
        return size <= usable &&
               usable ==
                   haki_tiny_size[haki_tiny_class_16[haki_tiny_index(size)]];
    }
    /* Saving less than a quarter is not worth a copy. */
    return size <= usable && size >= usable - usable / 4;
}

/* Whether a block with this tag is of one of those lanes, or a sample of any size:
 * what follows does for these as well. */
HAK_INLINE bool haki_tag_is_large(uint32_t tag)
{
    return HAK_TAG_CLASS(tag) - HAK_TAG_POOL <= HAK_TAG_SAMPLE - HAK_TAG_POOL;
}

/*
 * Frees p, an address in a slab of those lanes, from a thread that works on
 * `heap` (NULL: it has none). False: no block in use begins there.
 */
bool haki_large_free(struct hak_heap *heap, void *p);

/*
 * A request of so many bytes is about to be served from the cache of runs: whether
 * it is to go by haki_large_alloc instead, since there is a profile.
 */
HAK_INLINE bool haki_large_is_watched(const struct hak_heap *heap)
{
    return HAK_UNLIKELY((heap->tiny.sampled &&
                         atomic_load_explicit(&haki_profile.rate,
                                              memory_order_relaxed) != 0) ||
                        haki_tiny_must_draw(&heap->tiny, 0));
}

/*
 * The usable size of p and its owner's id, HAK_ID_SHARED for threads' ACE and
 * Huge blocks. 0: no block begins there.
 */
size_t haki_large_find(const void *p, uint32_t *owner);

/* What an explicit heap's account has of p, whose usable size that is: more if it is
 * guarded. */
size_t haki_large_charged(const void *p, size_t usable);

/*
 * Resizes p, a block of those lanes, to `size` bytes, above HAK_LANE_TINY_MAX,
 * without copying: in place, or by moving pages. NULL: it can't.
 */
void *haki_large_resize(void *p, size_t size);

/*
 * A new block for `size` bytes, above HAK_LANE_TINY_MAX, with the first `n`
 * bytes of the block p, of any lane. The caller then frees p, whose contents
 * may be gone. NULL: *reason says why, p is untouched.
 */
void *haki_large_copy(struct hak_heap *heap, void *p, size_t n, size_t size,
                      enum hak_reason *reason);

/* Frees ACE and Huge blocks of an explicit heap. */
void haki_large_free_owner(struct hak_heap *heap);

#endif /* HAK_LARGE_H */
