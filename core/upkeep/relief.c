/*
 * relief.c - memory is short: rounds under pressure, the last resort.
 *
 * Tested by tests/unit/range/pressure.c and tests/unit/range/container.c.
 */
#include "upkeep/relief.h"

#include "ace/ace.h"
#include "heap/thread.h"
#include "range/purge.h"

/*
 * Giving memory back can't help a request that is this many times larger than
 * all that is held; up to TRY_ALWAYS it is tried anyway.
 */
#define TRY_TIMES 2
#define TRY_ALWAYS (64 * HAK_MIB)

/* Gives back what the lanes have free. */
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

/* The last round in which parked heaps have taken part. */
static _Atomic(uint32_t) relief_idle_round;

/* Whoever comes first in a round does the parked heaps' part, and its own. */
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
        haki_heap_trim_used(heap);
    }
    haki_thread_trim_used();
    relief_trim_lanes();
    return true;
}
