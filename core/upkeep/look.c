/*
 * look.c - what slow paths see to besides their own business.
 */
#include "upkeep/look.h"

#include "ace/ace.h"
#include "os/os.h"
#include "range/purge.h"
#include "upkeep/background.h"
#include "upkeep/relief.h"

/*
 * What is due, it is by the time: so it is seen to once while that stays the same,
 * by each heap, unless it is due at once.
 */
static bool has_ticked(struct hak_heap *heap, uint32_t now)
{
    bool has =
        heap->ticked == now && hak_purge_delay() != 0 && !hak_relief_wanted(0);

    heap->ticked = now;
    return has;
}

static HAK_NOINLINE void tick_slow(struct hak_heap *heap)
{
    uint32_t now = hak_os_tick();

    if (heap != NULL && has_ticked(heap, now)) {
        return;
    }
    if (heap != NULL) {
        hak_tiny_heed(&heap->tiny);
    }
    if (heap != NULL && heap->pool != NULL) {
        hak_pool_heed(heap->pool);
        hak_ace_cache_tick(heap->runs, now);
    }
    hak_relief_round(heap, now, 0);
    hak_ace_tick(now);
    hak_range_tick(now);
}

/* Whether memory waits to go back in any lane. */
static bool is_waiting(void)
{
    return hak_range_waiting() ||
           atomic_load_explicit(&hak_ace_due, memory_order_relaxed) != 0 ||
           hak_relief_wanted(0);
}

void hak_heap_tick(struct hak_heap *heap)
{
    if (HAK_UNLIKELY(is_waiting())) {
        tick_slow(heap);
    }
}

void hak_heap_look_around(struct hak_heap *heap)
{
    if (heap->runs != NULL) {
        hak_ace_cache_ask(heap->runs);
    }
    if (is_waiting() || heap->tiny.nslabs > HAK_TINY_LARGE) {
        tick_slow(heap);
    }
}

void hak_heap_look(struct hak_heap *heap, struct hak_bin *bin)
{
    hak_heap_look_bin(heap, bin);
    if (heap->tiny.looks == 0) { /* if not, it is busy and has just looked */
        hak_heap_look_around(heap);
    }
    hak_background_mind();
}

/* Whether nothing is due but what the bin itself may ask for. */
static bool may_be_steady(const struct hak_heap *heap)
{
    return heap->tiny.nslabs <= HAK_TINY_LARGE &&
           (heap->pool->looks > 0 || !is_waiting());
}

void hak_heap_look_pool(struct hak_heap *heap, unsigned class)
{
    if (may_be_steady(heap) && hak_pool_look_steady(heap->pool, class)) {
        return;
    }
    hak_pool_look(heap->pool, class);
    if (HAK_UNLIKELY(heap->tiny.allow.over)) {
        hak_heap_shed(heap);
    }
    if (heap->tiny.direct) {
        hak_heap_heed_sparse(heap);
    }
    if (heap->pool == NULL || heap->pool->looks == 0) { /* it may be swept */
        hak_heap_look_around(heap);
    }
    hak_background_mind();
}
