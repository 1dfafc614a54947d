/*
 * embed_heap.c - heaps for adapters: made for a purpose; their statistics.
 */
#include "api/embed_heap.h"

#include "api/inside.h"
#include "front/large.h"
#include "heap/account.h"
#include "heap/haste.h"
#include "heap/thread.h"
#include "huge/huge.h"
#include "os/os.h"
#include "profile/profile.h"
#include "upkeep/look.h"

/* ---- kinds ----------------------------------------------------------------- */

/*
 * Never deleted, so its frees need not be told apart from those of threads'
 * heaps. Whole structures die at once, with many pushes. Its bins are small, so
 * that what they spill is still in the processor's caches: with bins of 1/32 of
 * a 60 MB heap each block's way back to its slab would be a cache miss.
 */
static struct hak_heap *embed_new_for_one_lock(void)
{
    struct hak_heap *heap = haki_heap_create(HAK_HEAP_EXPLICIT);

    if (heap == NULL || heap->tiny.id == 0) {
        return NULL;
    }
    haki_tiny_set_kind(&heap->tiny, false);
    heap->tiny.share = 12;
    heap->tiny.grant_waiting = heap->tiny.grant_large = 128;
    return heap;
}

struct hak_heap *haki_embed_new(enum hak_embed_kind kind, const char *name)
{
    hak_heap_config config = {.size = sizeof(config), .name = name};
    struct hak_heap *heap;

    if (kind == HAK_EMBED_ONE_LOCK) {
        return embed_new_for_one_lock();
    }
    heap = haki_inside_heap_new(&config);
    if (heap == NULL) {
        return NULL;
    }
    if (kind == HAK_EMBED_STATE) {
        haki_haste_begin(heap);
        heap->tiny.share = heap->tiny.allow.share = 2;
        heap->tiny.grant_waiting = 128;
    } else {
        heap->tiny.packed = true; /* they are many and mostly small */
    }
    return heap;
}

bool haki_embed_is_explicit(const struct hak_heap *heap)
{
    return atomic_load(&heap->state) == HAK_HEAP_EXPLICIT;
}

bool haki_embed_is_threads(const struct hak_heap *heap)
{
    uint32_t state = atomic_load(&heap->state);

    return state == HAK_HEAP_OWNED || state == HAK_HEAP_PARKED;
}

void haki_embed_stand_in(void *page)
{
    ((struct hak_heap *)page)->tiny.tag = haki_heap_none.tiny.tag;
}

bool haki_embed_has(const struct hak_heap *heap, const void *p)
{
    struct hak_heap *owner;
    uint32_t tag, id;
    size_t size;

    if (HAK_UNLIKELY(!haki_range_owns(p))) {
        return haki_system_may_know(p) && haki_system_find(p, &owner, &size) &&
               owner == heap;
    }
    tag = haki_range_tag_of(p);
    if (HAK_LIKELY(!haki_tag_is_large(tag))) {
        return HAK_TAG_HEAP(tag) == heap->tiny.id;
    }
    return haki_large_find(p, &id) != 0 && id == heap->tiny.id;
}

/* ---- sums ------------------------------------------------------------------ */

HAK_RACY_READER void haki_embed_held(const struct hak_heap *heap,
                                     struct hak_embed_held *held)
{
    const struct hak_pool *pool = heap->pool;

    held->slabs = heap->tiny.nslabs;
    held->sealed = heap->tiny.nsealed;
    if (pool != NULL) {
        held->slabs += pool->nslabs;
        held->sealed += pool->nsealed;
    }
    held->other = haki_account_other(heap);
}

size_t haki_embed_live(const struct hak_heap *heap)
{
    struct hak_lane_counts ace = {0}, huge = {0};
    size_t live = haki_profile_live_bytes();

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        live += haki_tiny_live(&heap->tiny, c) * haki_tiny_size[c];
    }
    if (heap->pool != NULL) {
        for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
            live += haki_pool_live(heap->pool, c) * haki_pool_classes[c].block;
        }
        haki_ace_counts(&ace);
        haki_huge_counts(&huge);
        live += ace.live_bytes - heap->runs->held * HAK_PAGE + huge.live_bytes;
    }
    return live;
}

uint64_t haki_embed_activity(const struct hak_heap *heap)
{
    const struct hak_pool *pool = heap->pool;
    uint64_t sum = heap->tiny.refills + heap->tiny.flushes;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        sum += (uint64_t)heap->tiny.bins[c].until +
               (uint64_t)heap->tiny.bins[c].left +
               (uint64_t)heap->tiny.shelves[c].base;
    }
    for (unsigned c = 0; pool != NULL && c < HAK_POOL_CLASSES; c++) {
        sum += (uint64_t)pool->until[c] + (uint64_t)pool->left[c];
    }
    return sum + (pool != NULL ? heap->runs->takes + heap->runs->held : 0);
}

HAK_RACY_READER bool haki_embed_keeps_runs(const struct hak_heap *heap)
{
    const struct hak_ace_cache *runs =
        __atomic_load_n(&heap->runs, __ATOMIC_RELAXED);

    return runs != NULL && runs->held != 0;
}

void haki_embed_tiny_counts(const struct hak_heap *heap, uint64_t *allocs,
                            uint64_t *frees)
{
    struct hak_heap_counts counts;

    haki_heap_count(heap, &counts);
    *allocs = counts.tiny.allocs;
    *frees = counts.tiny.frees;
}

HAK_RACY_READER uint64_t haki_embed_class_allocs(const struct hak_heap *heap,
                                                 unsigned class)
{
    return haki_bin_pops(&heap->tiny, class);
}

uint64_t haki_embed_class_live(const struct hak_heap *heap, unsigned class)
{
    return haki_tiny_live(&heap->tiny, class);
}

uint64_t haki_embed_past(unsigned i)
{
    return atomic_load(&haki_heap_past.extra[i]);
}

HAK_COLD void haki_embed_show(void)
{
    haki_look_show(haki_os_tick(), false);
}
