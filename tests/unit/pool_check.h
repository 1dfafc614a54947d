/*
 * pool_check.h - core/pool/pool_walk.c's walk of a Pool state, and of the tags.
 *
 * Call it from the thread that uses the pool while nobody frees its blocks.
 * The first broken promise ends the process with a line naming it.
 */
#ifndef POOL_CHECK_H
#define POOL_CHECK_H

#include "heap/heap.h"
#include "pool/pool.h"
#include "pool/pool_walk.h"
#include "range/slabs.h"
#include "range/slots.h"
#include "unit.h"

/* No slab outside the pool's list may carry its tag. */
UNIT void pool_check_tags(const struct hak_pool *pool)
{
    uint32_t id = HAK_TAG_HEAP(pool->tag);
    size_t count = 0;

    for (size_t n = 0; n < haki_range.size / HAK_SLAB_SIZE; n++) {
        uint32_t tag = haki_range_tag(n << HAK_SLAB_SHIFT);

        count += HAK_TAG_HEAP(tag) == id &&
                 HAK_TAG_CLASS(tag) >= HAK_TAG_POOL &&
                 HAK_TAG_CLASS(tag) < HAK_TAG_POOL + HAK_POOL_CLASSES;
    }
    NEED(count == pool->nslabs + pool->nsealed);
}

/* All but the tags, which is slow; the sums. */
UNIT struct hak_pool_sums pool_check_quick(const struct hak_pool *pool)
{
    NEED(!atomic_load(&pool->busy));
    return haki_pool_walk(pool, true);
}

UNIT struct hak_pool_sums pool_check(const struct hak_pool *pool)
{
    pool_check_tags(pool);
    return pool_check_quick(pool);
}

/* ---- Pool states without a thread around them ----------------------------- */

/* The Pool state of a heap slot of its own; haki_range_heap(id) leads there. */
UNIT struct hak_pool *pool_new(uint32_t *id)
{
    struct hak_heap *heap;

    NEED(haki_range_init());
    heap = haki_range_heap_take(id);
    NEED(heap != NULL);
    haki_tiny_init(&heap->tiny, *id, false);
    atomic_store(&heap->state, HAK_HEAP_OWNED);
    heap->pool = NULL;
    haki_heap_use_large(heap);
    return heap->pool;
}

#endif /* POOL_CHECK_H */
