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
static void give_back(void)
{
    hak_ace_trim();
    hak_range_purge();
    hak_range_start_small();
}

void hak_seal(void)
{
    hak_thread_seal();
    if (HAK_LOAD(hak_range.size) != 0) {
        give_back();
    }
}

void hak_heap_seal(hak_heap *heap)
{
    hak_heap_seal_slabs(heap);
    hak_heap_seal_count(heap);
    if (HAK_LOAD(hak_range.size) != 0) {
        give_back();
    }
}

void hak_heap_seal_at_fork(hak_heap *heap, bool on)
{
    heap->seal_at_fork = on;
}
