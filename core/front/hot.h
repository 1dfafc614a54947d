/*
 * hot.h - the hot paths of malloc and free, to be compiled into their callers.
 *
 * They serve what a bin of the thread's own heap can serve and leave
 * everything else to the caller's slow path.
 */
#ifndef HAK_HOT_H
#define HAK_HOT_H

#include <string.h>

#include "front/hard_lane.h"
#include "front/large.h"
#include "front/lane.h"
#include "heap/outspan.h"
#include "heap/thread.h"
#include "upkeep/look.h"

/*
 * A Tiny block from the bin for `need` bytes, which are `size` plus room for
 * the guard. NULL: the bin is empty, or there is no heap yet.
 */
HAK_INLINE void *haki_hot_tiny(size_t need, size_t size)
{
    struct hak_bin *bin =
        haki_thread_bin(haki_tiny_class_16[haki_tiny_index(need)]);

    return haki_guard_set(
        haki_bin_pop(bin),
        haki_tiny_size[haki_tiny_class_16[haki_tiny_index(need)]], size);
}

/* The same from Pool's bin. */
HAK_INLINE void *haki_hot_pool(size_t need, size_t size)
{
    struct hak_pool *pool = haki_thread_self()->pool;
    unsigned class = haki_pool_class_for(need);

    if (HAK_UNLIKELY(pool == NULL)) {
        return NULL;
    }
    return haki_guard_set(haki_pool_pop(pool, class),
                          haki_pool_classes[class].block, size);
}

/*
 * A Tiny or Pool block, `need` as above. NULL: a larger size, an empty bin, or no
 * heap yet.
 */
HAK_INLINE void *haki_hot_take(size_t need, size_t size)
{
    if (HAK_LIKELY(need <= HAK_LANE_TINY_MAX)) {
        return haki_hot_tiny(need, size);
    }
    return HAK_LIKELY(need <= HAK_LANE_POOL_MAX) ? haki_hot_pool(need, size)
                                                 : NULL;
}

HAK_INLINE void *haki_hot_malloc(size_t size)
{
    return haki_hot_take(haki_hard_grow(size), size);
}

/*
 * What to ask a bin for so that its blocks are aligned to `alignment`, more than
 * HAK_LANE_ALIGN: the next multiple, as a block is as aligned as its size.
 * SIZE_MAX, which no bin serves, if neither Tiny nor Pool has such a block, if
 * its class has blocks of another multiple (rare), or if `alignment` is no power
 * of two.
 */
HAK_INLINE size_t haki_hot_need(size_t alignment, size_t size)
{
    size_t need = haki_round_up(haki_hard_grow(size), alignment), block;

    if (HAK_UNLIKELY(alignment > HAK_PAGE || !haki_is_pow2(alignment) ||
                     size > HAK_LANE_POOL_MAX || need > HAK_LANE_POOL_MAX)) {
        return SIZE_MAX;
    }
    block = need <= HAK_LANE_TINY_MAX
                ? haki_tiny_size[haki_tiny_class_16[haki_tiny_index(need)]]
                : haki_pool_classes[haki_pool_class_for(need)].block;
    return HAK_LIKELY((block & (alignment - 1)) == 0) ? need : SIZE_MAX;
}

/*
 * Whether p, which the range covers, is in a slab of Tiny blocks of one size or
 * a span of Pool's: then haki_hot_join may serve where haki_hot_free could not.
 */
HAK_INLINE bool haki_hot_may_join(const void *p)
{
    uint32_t tag = haki_range_tag_of(p);

    return !HAK_HARD && tag != 0 &&
           HAK_TAG_CLASS(tag) < HAK_TAG_POOL + HAK_POOL_CLASSES;
}

/*
 * Frees such a block of another heap if this thread has others on their way
 * there, and room for it with them. False: nothing was done. Not to be
 * interrupted by another one in the same thread.
 */
HAK_INLINE bool haki_hot_join(void *p)
{
    struct hak_heap *heap = haki_thread_self();
    uint32_t tag = haki_range_tag_of(p), byte = HAK_TAG_CLASS(tag);

    if (HAK_UNLIKELY(heap->tiny.id == 0)) {
        return false;
    }
    if (byte >= HAK_TAG_POOL) {
        return haki_outspan_join(heap, p, byte - HAK_TAG_POOL);
    }
    return HAK_LIKELY(haki_tiny_is_start(
               (uintptr_t)p, haki_tiny_bin(&heap->tiny, byte)->magic)) &&
           haki_remote_join(&heap->tiny, p, tag);
}

/* haki_hot_free for a Pool block of the thread's own heap. */
HAK_INLINE bool haki_hot_pool_free(struct hak_heap *heap, void *p,
                                   unsigned class)
{
    if (HAK_UNLIKELY(!haki_pool_is_start(p, class) ||
                     (HAK_HARD && !haki_pool_may_free(p, class)))) {
        return false;
    }
    if (HAK_UNLIKELY(!haki_pool_push(heap->pool, class, p))) {
        haki_heap_look_pool(heap, class);
    }
    return true;
}

/* haki_hot_free for a pointer that the range covers. */
HAK_INLINE bool haki_hot_free_covered(void *p, size_t asked)
{
    struct hak_heap *heap = haki_thread_self();
    struct hak_tiny *tiny = &heap->tiny;
    uint32_t byte = haki_range_tag_of(p) ^ tiny->tag;
    struct hak_bin *bin;

    if (HAK_UNLIKELY(byte >= HAK_TAG_TINY_END)) {
        return asked == 0 && byte - HAK_TAG_POOL < HAK_POOL_CLASSES &&
               haki_hot_pool_free(heap, p, byte - HAK_TAG_POOL);
    }
    bin = haki_tiny_bin(tiny, byte);
    haki_tiny_refuse(p);
    if (HAK_UNLIKELY(!haki_tiny_is_start((uintptr_t)p, bin->magic) ||
                     asked >
                         haki_guard_check(p,
                                          haki_tiny_size[byte / HAK_TAG_TINY],
                                          "free"))) {
        return false;
    }
    if (HAK_UNLIKELY(!haki_bin_push(bin, p))) {
        haki_heap_look(heap, bin);
    }
    return true;
}

/*
 * Frees a Tiny block of the thread's own heap, of at least `asked` bytes; if
 * that is 0, also a Pool block. False: p is not such a block, and nothing was
 * done.
 */
HAK_INLINE bool haki_hot_free(void *p, size_t asked)
{
    return HAK_LIKELY(haki_range_covers(p)) && haki_hot_free_covered(p, asked);
}

/*
 * realloc of p, which the range covers, to `size` bytes, at least 1: for a Tiny
 * or Pool block of the thread's own heap that stays where it is, or moves to
 * where a bin has a block. Then p is still to be freed, as any block: the heap may
 * have been lent meanwhile (lend.h). NULL: none of this, and nothing was done. Not
 * in the hardened build, where guards must be looked at.
 */
HAK_INLINE void *haki_hot_realloc(void *p, size_t size)
{
    struct hak_heap *heap = haki_thread_self();
    uint32_t byte = haki_range_tag_of(p) ^ heap->tiny.tag;
    unsigned class = byte / HAK_TAG_TINY;
    size_t old;
    void *to;

    if (byte < HAK_TAG_TINY_END) {
        old = haki_tiny_size[class];
        if (HAK_HARD ||
            HAK_UNLIKELY(!haki_tiny_is_start((uintptr_t)p,
                                             haki_tiny_magic[class]))) {
            return NULL;
        }
    } else {
        class = byte - HAK_TAG_POOL;
        if (HAK_HARD || class >= HAK_POOL_CLASSES ||
            HAK_UNLIKELY(!haki_pool_is_used(p, class))) {
            return NULL;
        }
        old = haki_pool_classes[class].block;
    }
    if (haki_fits_as_is(old, size)) {
        return p;
    }
    to = haki_hot_malloc(size);
    if (HAK_UNLIKELY(to == NULL)) {
        return NULL;
    }
    old = haki_min(old, size);
    __asm__("" : "+r"(old)); /* keeps gcc from inlining a slow copy loop */
    memcpy(to, p, old);
    return to;
}

/*
 * A block from the cache of ACE runs. NULL: another size, or none there. Not
 * quite as hot: for the beginning of the caller's slow path.
 */
HAK_INLINE void *haki_hot_run(size_t size)
{
    struct hak_heap *heap = haki_thread_self();
    size_t need = haki_hard_grow(size);

    if (need - HAK_LANE_ACE_MIN > HAK_LANE_ACE_MAX - HAK_LANE_ACE_MIN ||
        HAK_UNLIKELY(heap->runs == NULL) || haki_large_is_watched(heap)) {
        return NULL;
    }
    if (HAK_UNLIKELY(heap->runs->takes % HAK_LOOK_EVERY == 0)) {
        haki_heap_tick_all(heap);
    }
    return haki_guard_set(
        haki_ace_cache_take(heap->runs,
                            (uint32_t)(haki_whole_pages(need) / HAK_PAGE)),
        haki_whole_pages(need), size);
}

/* Frees a run into that cache; false: as haki_hot_free. */
HAK_INLINE bool haki_hot_run_free(void *p)
{
    struct hak_heap *heap = haki_thread_self();

    if (HAK_UNLIKELY(!haki_range_covers(p) || heap->runs == NULL) ||
        haki_range_tag_of(p) != HAK_TAG_SHARED(HAK_TAG_ACE)) {
        return false;
    }
    haki_lane_guard_check(p, 0, "free");
    return haki_ace_cache_put(heap->runs, p, HAK_ID_SHARED) != 0;
}

#endif /* HAK_HOT_H */
