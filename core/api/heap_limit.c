/*
 * heap_limit.c - an explicit heap's limit and its statistics.
 */
#include <errno.h>
#include <string.h>

#include "heap/account.h"

size_t hak_heap_live(const hak_heap *heap)
{
    return haki_account_live(heap);
}

size_t hak_heap_set_limit(hak_heap *heap, size_t limit)
{
    size_t before = hak_heap_limit(heap);

    haki_account_set_limit(heap, limit != 0 ? limit : SIZE_MAX);
    return before;
}

size_t hak_heap_limit(const hak_heap *heap)
{
    size_t limit = __atomic_load_n(&heap->limit, __ATOMIC_RELAXED);

    return limit != SIZE_MAX ? limit : 0;
}

/* What a heap holds: whole slabs, and its blocks outside them. */
static HAK_RACY_READER size_t heap_limit_held(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_RELAXED);
    size_t slabs = heap->tiny.nslabs + heap->tiny.nsealed;

    if (pool != NULL) {
        slabs += pool->nslabs + pool->nsealed;
    }
    return slabs * HAK_SLAB_SIZE + haki_account_other(heap);
}

HAK_RACY_READER int hak_heap_stats(const hak_heap *heap,
                                   hak_heap_stats_t *stats)
{
    struct hak_heap_counts counts;

    if (heap == NULL || stats == NULL || stats->size != sizeof(*stats)) {
        errno = EINVAL;
        return -1;
    }
    haki_heap_count(heap, &counts);
    memset(stats, 0, sizeof(*stats));
    stats->size = sizeof(*stats);
    stats->limit = hak_heap_limit(heap);
    stats->live_bytes = haki_account_live(heap);
    stats->peak_bytes = haki_max(heap->peak, stats->live_bytes);
    stats->held_bytes = heap_limit_held(heap);
    stats->kept_bytes = counts.kept_bytes;
    stats->sealed_bytes = counts.sealed_bytes;
    stats->tiny_allocs = counts.tiny.allocs;
    stats->larger_allocs = counts.pool.allocs + heap->other_allocs;
    stats->fallback = heap->fallback;
    stats->limit_refusals = heap->limit_refusals;
    stats->remote_frees = counts.remote_frees;
    memcpy(stats->name, heap->name, sizeof(stats->name));
    return 0;
}
