/*
 * seal.c - the fork seal: the public functions.
 *
 * What a seal is says tiny.h, and pool.h of its lane; that a child of
 * a fork is sealed by itself is thread.c's.
 */
#include "front/lane.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "range/slabs.h"

/* Free memory goes back: no child is to share it, nor is it to be reused. */
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
