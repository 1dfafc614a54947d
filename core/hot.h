/*
 * hot.h - the hot paths of malloc and free, to be compiled into their callers.
 *
 * Layer 6. They serve what a bin of the thread's own heap can serve and leave
 * everything else to the caller's slow path.
 */
#ifndef HAK_HOT_H
#define HAK_HOT_H

#include "lane.h"
#include "thread.h"

/* A Tiny block, or NULL: a larger size, an empty bin, no heap yet. */
HAK_INLINE void *hak_hot_malloc(size_t size)
{
    size_t need = hak_hard_grow(size);
    struct hak_bin *bin;
    void *p;

    if (HAK_UNLIKELY(need > HAK_LANE_TINY_MAX)) {
        return NULL;
    }
    bin = &hak_self->tiny.bins[hak_tiny_class_16[hak_tiny_index(need)]];
    __asm__("" : "+r"(bin)); /* gcc would work it out twice */
    p = hak_bin_pop(bin);
    return hak_hard_close(
        p, hak_tiny_size[hak_tiny_class_16[hak_tiny_index(need)]], size);
}

/*
 * Frees a Tiny block of the thread's own heap, of at least `asked` bytes.
 * False: it is none, nothing has been done.
 */
HAK_INLINE bool hak_hot_free(void *p, size_t asked)
{
    struct hak_tiny *tiny = &hak_self->tiny;
    struct hak_bin *bin;
    uint32_t byte;

    if (HAK_UNLIKELY(!hak_range_owns(p))) {
        return false;
    }
    byte = hak_range_tag_of(p) ^ tiny->tag;
    bin = hak_tiny_bin(tiny, byte);
    if (HAK_UNLIKELY(byte >= HAK_TAG_TINY_END ||
                     !hak_tiny_is_start((uintptr_t)p, bin->magic) ||
                     asked > hak_hard_open(p,
                                           hak_tiny_size[byte / HAK_TAG_TINY],
                                           "free"))) {
        return false;
    }
    if (HAK_UNLIKELY(!hak_bin_push(bin, p))) {
        hak_heap_look(hak_self, bin);
    }
    return true;
}

/*
 * A block of Pool's bin or of the cache of ACE's runs, or NULL: another size,
 * none there. Not as hot: for the beginning of the caller's slow path.
 */
HAK_INLINE void *hak_hot_large_malloc(size_t size)
{
    struct hak_heap *heap = hak_self;
    size_t need = hak_hard_grow(size);

    if (HAK_UNLIKELY(heap->pool == NULL)) {
        return NULL;
    }
    if (need - HAK_LANE_POOL_MIN <= HAK_LANE_POOL_MAX - HAK_LANE_POOL_MIN) {
        return hak_hard_close(hak_pool_pop(heap->pool, hak_pool_class_of(need)),
                              hak_pool_classes[hak_pool_class_of(need)].block,
                              size);
    }
    if (need - HAK_LANE_ACE_MIN <= HAK_LANE_ACE_MAX - HAK_LANE_ACE_MIN) {
        if (HAK_UNLIKELY(heap->runs->takes % HAK_LOOK_EVERY == 0)) {
            hak_heap_look_around(heap);
        }
        return hak_hard_close(
            hak_ace_cache_take(heap->runs,
                               (uint32_t)(hak_round_up(need, HAK_PAGE) /
                                          HAK_PAGE)),
            hak_round_up(need, HAK_PAGE), size);
    }
    return NULL;
}

/* Frees a block into that bin or that cache; false: as hak_hot_free. */
HAK_INLINE bool hak_hot_large_free(void *p)
{
    struct hak_heap *heap = hak_self;
    size_t offset = hak_range_offset(p);
    uint32_t tag, class;

    if (HAK_UNLIKELY(offset >= hak_range.size || heap->pool == NULL)) {
        return false;
    }
    tag = hak_range_tag(offset);
    class = (tag ^ heap->tiny.tag) - HAK_TAG_POOL;
    if (HAK_LIKELY(class < HAK_POOL_CLASSES)) {
        if (HAK_UNLIKELY(!hak_pool_is_start(p, class))) {
            return false;
        }
        if (HAK_HARD && !hak_pool_may_free(p, class)) {
            return false;
        }
        if (HAK_UNLIKELY(!hak_pool_push(heap->pool, class, p))) {
            hak_heap_look_pool(heap, class);
        }
        return true;
    }
    if (tag != HAK_TAG_SHARED(HAK_TAG_ACE)) {
        return false;
    }
    hak_lane_open(p, 0, "free");
    return hak_ace_cache_put(heap->runs, p, HAK_ID_SHARED) != 0;
}

#endif /* HAK_HOT_H */
