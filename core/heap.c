/*
 * heap.c - heaps begin and end, and what they have counted.
 */
#include "heap.h"

#include <string.h>

#include "os.h"

struct hak_heap_past hak_heap_past;

struct hak_heap *hak_heap_create(enum hak_heap_state state)
{
    struct hak_heap *heap;
    uint32_t id = 0;

    heap =
        hak_range_init() ? hak_range_heap_take(&id) : hak_os_map(HAK_HEAP_SLOT);
    if (heap == NULL) {
        return NULL;
    }
    hak_tiny_init(&heap->tiny, id, state == HAK_HEAP_MADE);
    memset((char *)heap + sizeof(heap->tiny), 0,
           HAK_HEAP_SLOT - sizeof(heap->tiny));
    heap->limit = heap->gate = SIZE_MAX;
    atomic_store(&heap->state, state);
    return heap;
}

HAK_RACY_READER void hak_heap_count(const struct hak_heap *heap,
                                    struct hak_heap_counts *counts)
{
    counts->allocs = counts->frees = heap->tiny.remote_frees;
    counts->live_bytes = 0;
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        uint64_t live = hak_tiny_live(&heap->tiny, c);

        counts->frees += heap->tiny.bins[c].frees;
        counts->allocs += heap->tiny.bins[c].frees + live;
        counts->live_bytes += live * hak_tiny_size[c];
    }
}

void hak_heap_destroy(struct hak_heap *heap)
{
    uint32_t id = heap->tiny.id;
    struct hak_heap_counts counts;

    hak_heap_count(heap, &counts);
    atomic_fetch_add(&hak_heap_past.allocs, counts.allocs);
    atomic_fetch_add(&hak_heap_past.frees, counts.allocs);
    atomic_fetch_add(&hak_heap_past.refills, heap->tiny.refills);
    atomic_fetch_add(&hak_heap_past.flushes, heap->tiny.flushes);
    atomic_fetch_add(&hak_heap_past.remote_frees, heap->tiny.remote_frees);
    atomic_fetch_add(&hak_heap_past.refused, heap->limit_refused);
    atomic_store(&heap->state, HAK_HEAP_FREE);
    hak_tiny_release(&heap->tiny);
    if (id != 0) {
        hak_range_heap_give(id);
    } else {
        hak_os_unmap(heap, HAK_HEAP_SLOT);
    }
}
