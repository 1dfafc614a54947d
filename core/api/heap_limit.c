/*
 * heap_limit.c - an explicit heap's limit, its peak and its statistics.
 *
 * heap_made.h has the account's invariants.
 */
#include <errno.h>
#include <string.h>

#include "api/heap_made.h"

/* The peak is known to within so much: 4 KB, or 1/16 of it if that is more. */
#define STEP_LEAST ((size_t)4096)
#define STEP_SHARE 16

static HAK_RACY_READER size_t heap_limit_live(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_RELAXED);

    return heap->live - heap->tiny.remote_bytes -
           (pool != NULL ? pool->remote_bytes : 0) +
           atomic_load_explicit(&heap->other_bytes, memory_order_relaxed);
}

size_t hak_heap_live(const hak_heap *heap)
{
    return heap_limit_live(heap);
}

/* What `live` may rise to by the limit alone. */
static size_t heap_limit_ceiling(const struct hak_heap *heap)
{
    size_t other =
        atomic_load_explicit(&heap->other_bytes, memory_order_relaxed);

    return heap->limit == SIZE_MAX ? SIZE_MAX
                                   : heap->limit - hak_min(heap->limit, other);
}

/* Notes a peak, if it is one with `size` bytes more, and sets the gate. */
static void heap_limit_note(struct hak_heap *heap, size_t size)
{
    size_t other =
        atomic_load_explicit(&heap->other_bytes, memory_order_relaxed);
    size_t now = heap_limit_live(heap) + size;
    size_t most;

    heap->peak = hak_max(heap->peak, now);
    most = hak_max(heap->peak - hak_min(heap->peak, other), heap->live + size) +
           hak_max(heap->peak / STEP_SHARE, STEP_LEAST);
    heap->gate = hak_min(heap_limit_ceiling(heap), most);
}

/* Takes in what others freed. */
static void heap_limit_collect(struct hak_heap *heap)
{
    struct hak_pool *pool = heap->pool;

    hak_tiny_collect(&heap->tiny);
    hak_tiny_seal_collect(&heap->tiny);
    heap->live -= heap->tiny.remote_bytes;
    heap->tiny.remote_bytes = 0;
    if (pool != NULL) {
        hak_pool_collect(pool);
        heap->live -= pool->remote_bytes;
        pool->remote_bytes = 0;
    }
}

void hak_made_settle(struct hak_heap *heap)
{
    heap_limit_collect(heap);
    heap_limit_note(heap, 0);
}

/* Whether the limit leaves room for `size` bytes more. */
static bool heap_limit_fits(const struct hak_heap *heap, size_t size)
{
    size_t ceiling = heap_limit_ceiling(heap);

    return heap->live <= ceiling && size <= ceiling - heap->live;
}

HAK_NOINLINE bool hak_made_admit_slow(struct hak_heap *heap, size_t size)
{
    if (!heap_limit_fits(heap, size)) {
        heap_limit_collect(heap);
    }
    if (heap_limit_fits(heap, size)) {
        heap_limit_note(heap, size <= PTRDIFF_MAX ? size : 0);
        return true;
    }
    hak_heap_collect(heap); /* who is at the limit needs what it keeps least */
    heap->limit_refused++;
    return false;
}

size_t hak_heap_set_limit(hak_heap *heap, size_t limit)
{
    size_t before = hak_heap_limit(heap);

    __atomic_store_n(&heap->limit, limit != 0 ? limit : SIZE_MAX,
                     __ATOMIC_RELAXED);
    hak_made_settle(heap);
    return before;
}

size_t hak_heap_limit(const hak_heap *heap)
{
    size_t limit = __atomic_load_n(&heap->limit, __ATOMIC_RELAXED);

    return limit != SIZE_MAX ? limit : 0;
}

/* What a heap holds: whole slabs, and the blocks that lie in none of its own. */
static HAK_RACY_READER size_t heap_limit_held(const struct hak_heap *heap)
{
    const struct hak_pool *pool =
        __atomic_load_n(&heap->pool, __ATOMIC_RELAXED);
    size_t slabs = heap->tiny.nslabs + heap->tiny.nsealed;

    if (pool != NULL) {
        slabs += pool->nslabs + pool->nsealed;
    }
    return slabs * HAK_SLAB_SIZE +
           atomic_load_explicit(&heap->other_bytes, memory_order_relaxed);
}

HAK_RACY_READER int hak_heap_stats(const hak_heap *heap,
                                   hak_heap_stats_t *stats)
{
    struct hak_heap_counts counts;

    if (heap == NULL || stats == NULL || stats->size != sizeof(*stats)) {
        errno = EINVAL;
        return -1;
    }
    hak_heap_count(heap, &counts);
    memset(stats, 0, sizeof(*stats));
    stats->size = sizeof(*stats);
    stats->limit = hak_heap_limit(heap);
    stats->live_bytes = heap_limit_live(heap);
    stats->peak_bytes = hak_max(heap->peak, stats->live_bytes);
    stats->held_bytes = heap_limit_held(heap);
    stats->kept_bytes = counts.kept_bytes;
    stats->sealed_bytes = counts.sealed_bytes;
    stats->tiny_allocs = counts.tiny.allocs;
    stats->larger_allocs = counts.pool.allocs + heap->whole_allocs;
    stats->fallback = heap->fallback;
    stats->limit_refusals = heap->limit_refused;
    stats->remote_frees = counts.remote_frees;
    memcpy(stats->name, heap->name, sizeof(stats->name));
    return 0;
}
