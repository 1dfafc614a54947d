/*
 * look.c - the upkeep that slow paths do besides their own work.
 *
 * Tested by tests/unit/range/container.c.
 */
#include "upkeep/look.h"

#include "ace/ace.h"
#include "os/os.h"
#include "range/purge.h"
#include "upkeep/background.h"
#include "upkeep/relief.h"

void (*haki_look_share)(uint32_t now, bool leaving);
_Atomic(uint32_t) haki_look_watched;

static const _Atomic(uint32_t) look_nobody;
struct hak_look_asked haki_look_asked = {.at = &look_nobody};

void haki_look_ask_at(const _Atomic(uint32_t) *at)
{
    at = at != NULL ? at : &look_nobody;
    haki_look_answer(atomic_load(at));
    atomic_store(&haki_look_asked.at, at);
}

void haki_look_answer_all(void)
{
    haki_look_answer(atomic_load(atomic_load(&haki_look_asked.at)));
}

void haki_look_answer(uint32_t asked)
{
    atomic_store(&haki_look_asked.answered, asked);
}

/* Much was taken, or a while has passed: the next tick shows what is so now. */
static void look_wanted(void)
{
    haki_look_answer(atomic_load(atomic_load(&haki_look_asked.at)) - 1);
}

__attribute__((constructor)) static void look_at_pressure(void)
{
    haki_pressure_on_look = look_wanted;
}

/*
 * What is due depends on the time only: each heap sees to it once per tick of
 * the clock, unless something is due at once.
 */
static bool look_has_ticked(struct hak_heap *heap, uint32_t now)
{
    bool has = heap->ticked == now && haki_purge_delay() != 0 &&
               !haki_relief_wanted(0);

    heap->ticked = now;
    return has;
}

static HAK_NOINLINE void look_tick_slow(struct hak_heap *heap)
{
    uint32_t now = haki_os_tick();

    if (heap != NULL && look_has_ticked(heap, now)) {
        return;
    }
    if (heap != NULL) {
        haki_tiny_tick(&heap->tiny);
    }
    if (heap != NULL && heap->pool != NULL) {
        haki_pool_tick(heap->pool);
        haki_ace_cache_tick(heap->runs, now);
    }
    haki_relief_round(heap, now, 0);
    haki_ace_tick(now);
    haki_range_tick(now);
    haki_look_show(now, false);
}

/* Whether memory waits to go back in any lane, or somebody for an answer. */
static bool look_is_waiting(void)
{
    return haki_range_waiting() ||
           atomic_load_explicit(&haki_ace_due, memory_order_relaxed) != 0 ||
           haki_relief_wanted(0) || haki_look_is_asked();
}

void haki_heap_tick(struct hak_heap *heap)
{
    if (HAK_UNLIKELY(look_is_waiting())) {
        look_tick_slow(heap);
    }
}

void haki_heap_tick_all(struct hak_heap *heap)
{
    if (heap->runs != NULL) {
        haki_ace_cache_ask(heap->runs);
    }
    if (look_is_waiting() || heap->tiny.nslabs > HAK_TINY_LARGE) {
        look_tick_slow(heap);
    }
}

void haki_heap_look(struct hak_heap *heap, struct hak_bin *bin)
{
    haki_heap_look_bin(heap, bin);
    if (heap->tiny.skips == 0) { /* otherwise it is busy and has just looked */
        haki_heap_tick_all(heap);
    }
    haki_background_check();
}

/* Whether nothing is due except what the bin itself may need. */
static bool look_may_be_steady(const struct hak_heap *heap)
{
    return heap->tiny.nslabs <= HAK_TINY_LARGE &&
           (heap->pool->skips > 0 || !look_is_waiting());
}

void haki_heap_look_pool(struct hak_heap *heap, unsigned class)
{
    if (look_may_be_steady(heap) && haki_pool_look_steady(heap->pool, class)) {
        return;
    }
    haki_pool_look(heap->pool, class);
    if (HAK_UNLIKELY(heap->tiny.allow.over)) {
        haki_heap_shed(heap);
    }
    if (haki_is_frugal(&heap->tiny.allow)) {
        haki_heap_sweep_sparse(heap);
    }
    if (heap->pool == NULL || heap->pool->skips == 0) { /* it may be swept */
        haki_heap_tick_all(heap);
    }
    haki_background_check();
}
