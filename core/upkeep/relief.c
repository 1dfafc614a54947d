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
static void relief_trim_lanes(void)
{
    haki_ace_trim();
    haki_range_purge();
    haki_limit_purged();
}

__attribute__((constructor)) static void relief_register_lanes(void)
{
    haki_pressure_on_round(relief_trim_lanes);
}

/* The last round that heaps of nobody's have taken part in. */
static _Atomic(uint32_t) relief_idle_round;

/* Parked heaps take part by who comes first in a round; and its own heap. */
static void relief_idle_part(uint32_t round)
{
    uint32_t before = atomic_load(&relief_idle_round);

    if (before != round &&
        atomic_compare_exchange_strong(&relief_idle_round, &before, round)) {
        haki_thread_trim_used();
        relief_trim_lanes();
    }
}

void haki_relief_round(struct hak_heap *heap, uint32_t now, size_t want)
{
    uint32_t round;

    haki_pressure_tick(now, want);
    if (!haki_pressure_near()) {
        return;
    }
    round = haki_pressure_round();
    if (heap != NULL && heap->relief_round != round) {
        heap->relief_round = round;
        haki_heap_trim(heap);
    }
    relief_idle_part(round);
}

bool haki_relief(struct hak_heap *heap, size_t size)
{
    if (HAK_LOAD(haki_range.size) == 0 ||
        size > haki_max(TRY_TIMES * haki_limit_used(), TRY_ALWAYS)) {
        return false;
    }
    if (heap != NULL && heap->tiny.id != 0) {
        haki_heap_trim(heap);
    }
    haki_thread_trim_used();
    relief_trim_lanes();
    return true;
}
