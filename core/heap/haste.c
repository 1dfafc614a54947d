/*
 * haste.c - heaps that will soon be deleted: see haste.h.
 */
#include "heap/haste.h"

#include "os/os.h"

#define HASTE_TIME 100 /* milliseconds */
#define HASTE_ROW 4
#define HASTE_ROW_MOST 16
#define HASTE_MOST 8
#define HASTE_KEEPS ((uint32_t)(64 * HAK_KIB))

static _Atomic(uint32_t) haste_row;
static _Atomic(uint32_t) haste_ended; /* haki_os_tick() at the last early end */
static _Atomic(uint32_t) haste_heaps; /* that are hasty */

static bool haste_is_likely(uint32_t now)
{
    uint32_t ended = atomic_load_explicit(&haste_ended, memory_order_relaxed);

    return atomic_load_explicit(&haste_row, memory_order_relaxed) >=
               HASTE_ROW &&
           now - ended <= HASTE_TIME;
}

/* Takes one of the places, if there is one. */
static bool haste_take(void)
{
    uint32_t heaps = atomic_load_explicit(&haste_heaps, memory_order_relaxed);

    while (heaps < HASTE_MOST) {
        if (atomic_compare_exchange_weak_explicit(&haste_heaps, &heaps,
                                                  heaps + 1,
                                                  memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

void haki_haste_begin(struct hak_heap *heap)
{
    uint32_t now = haki_os_tick();

    HAK_ASSERT(heap->born == 0 && heap->tiny.all == HAK_NO_SLAB);
    heap->born = haki_some_time(now);
    if (haste_is_likely(now) && haste_take()) {
        heap->tiny.hasty = true;
        heap->tiny.allow.extra = HASTE_KEEPS;
        haki_heap_fall_dear(heap, now);
    } else {
        heap->tiny.packed = true;
    }
}

void haki_haste_look(struct hak_heap *heap)
{
    struct hak_tiny *tiny = &heap->tiny;

    if (!tiny->packed && tiny->nsealed == 0 &&
        haki_os_tick() - heap->born > HASTE_TIME) {
        tiny->packed = true;
        haki_keep_idle(&tiny->allow);
        haki_tiny_busy(tiny, true);
        haki_tiny_grant_all(tiny);
        haki_tiny_busy(tiny, false);
    }
}

void haki_haste_end(struct hak_heap *heap)
{
    uint32_t row = atomic_load_explicit(&haste_row, memory_order_relaxed);
    uint32_t now;

    if (heap->born == 0) {
        return;
    }
    now = haki_os_tick();
    if (heap->tiny.hasty) {
        atomic_fetch_sub_explicit(&haste_heaps, 1, memory_order_relaxed);
        heap->tiny.hasty = false;
    }
    if (now - heap->born <= HASTE_TIME) {
        row += row < HASTE_ROW_MOST;
        atomic_store_explicit(&haste_ended, now, memory_order_relaxed);
    } else {
        row /= 2;
    }
    atomic_store_explicit(&haste_row, row, memory_order_relaxed);
}
