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
    if (HAK_UNLIKELY(size > HAK_LANE_TINY_MAX)) {
        return NULL;
    }
    return hak_bin_pop(
        &hak_self->tiny.bins[hak_tiny_class_16[hak_tiny_index(size)]]);
}

/*
 * Frees a Tiny block of the thread's own heap, of at least `asked` bytes.
 * False: it is none, nothing has been done.
 */
HAK_INLINE bool hak_hot_free(void *p, size_t asked)
{
    struct hak_tiny *tiny = &hak_self->tiny;
    size_t offset = hak_range_offset(p);
    uint32_t class;

    if (HAK_UNLIKELY(offset >= hak_range.size)) {
        return false;
    }
    class = hak_range_tag(offset) ^ tiny->tag;
    if (HAK_UNLIKELY(class >= HAK_TINY_CLASSES ||
                     !hak_tiny_is_start(offset, tiny->bins[class].magic) ||
                     asked > hak_tiny_size[class])) {
        return false;
    }
    hak_tiny_free(tiny, class, p);
    return true;
}

/*
 * A Pool block, or NULL: another size, no heap or no use of Pool yet, out of
 * memory. For the caller's slow path.
 */
HAK_INLINE void *hak_hot_pool_malloc(size_t size)
{
    struct hak_pool *pool = hak_self->pool;

    if (size - HAK_LANE_POOL_MIN > HAK_LANE_POOL_MAX - HAK_LANE_POOL_MIN ||
        HAK_UNLIKELY(pool == NULL)) {
        return NULL;
    }
    return hak_pool_alloc(pool, hak_pool_class_of(size));
}

/* Frees a Pool block of the thread's own heap; false: as hak_hot_free. */
HAK_INLINE bool hak_hot_pool_free(void *p)
{
    struct hak_heap *heap = hak_self;
    size_t offset = hak_range_offset(p);
    uint32_t class;

    if (HAK_UNLIKELY(offset >= hak_range.size)) {
        return false;
    }
    class = (hak_range_tag(offset) ^ heap->tiny.tag) - HAK_TAG_POOL;
    if (class >= HAK_POOL_CLASSES || !hak_pool_is_start(p, class)) {
        return false;
    }
    hak_pool_free(heap->pool, class, p);
    return true;
}

#endif /* HAK_HOT_H */
