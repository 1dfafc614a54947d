/*
 * relief.c - memory is short: rounds under pressure, the last resort.
 */
#include "upkeep/relief.h"

#include "ace/ace.h"
#include "heap/thread.h"
#include "range/purge.h"

/* A request that is this much larger than all that is held is not helped by
 * giving it back; but up to TRY_ALWAYS it may be. */
#define TRY_TIMES 2
#define TRY_ALWAYS (64 * HAK_MIB)

/* What lanes have free goes back. */
static void trim_lanes(void)
{
    hak_ace_trim();
    hak_range_purge();
    hak_limit_purged();
}

__attribute__((constructor)) static void register_lanes(void)
{
    hak_pressure_on_round(trim_lanes);
}

/* The last round that heaps of nobody's have taken part in. */
static _Atomic(uint32_t) idle_round;

/* Parked heaps take part by who comes first in a round; and its own heap. */
static void idle_part(uint32_t round)
{
    uint32_t before = atomic_load(&idle_round);

    if (before != round &&
        atomic_compare_exchange_strong(&idle_round, &before, round)) {
        hak_thread_relieve();
        trim_lanes();
    }
}

void hak_relief_round(struct hak_heap *heap, uint32_t now, size_t want)
{
    uint32_t round;

    hak_pressure_heed(now, want);
    if (!hak_pressure_near()) {
        return;
    }
    round = hak_pressure_round();
    if (heap != NULL && heap->relief_round != round) {
        heap->relief_round = round;
        hak_heap_collect(heap);
    }
    idle_part(round);
}

bool hak_relief(struct hak_heap *heap, size_t size)
{
    if (HAK_LOAD(hak_range.size) == 0 ||
        size > hak_max(TRY_TIMES * hak_limit_used(), TRY_ALWAYS)) {
        return false;
    }
    if (heap != NULL && heap->tiny.id != 0) {
        hak_heap_collect(heap);
    }
    hak_thread_relieve();
    trim_lanes();
    return true;
}
