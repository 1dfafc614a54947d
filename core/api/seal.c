/*
 * seal.c - the fork seal: the public functions.
 *
 * tiny.h and pool.h explain seals; thread.c seals heaps in forked children
 * without being asked.
 */
#include "front/lane.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "range/slabs.h"

/*
 * Gives back free memory: children need not share it, and it won't be reused.
 */
static void seal_give_back(void)
{
    haki_ace_trim();
    haki_range_purge();
    haki_range_start_small();
}

void hak_seal(void)
{
    haki_thread_seal();
    if (HAK_LOAD(haki_range.size) != 0) {
        seal_give_back();
    }
}

void hak_heap_seal(hak_heap *heap)
{
    haki_heap_seal_slabs(heap);
    haki_heap_seal_count(heap);
    if (HAK_LOAD(haki_range.size) != 0) {
        seal_give_back();
    }
}

void hak_heap_seal_at_fork(hak_heap *heap, bool on)
{
    heap->seal_at_fork = on;
}
