/*
 * purge.c - free memory goes back to the system after a while.
 *
 * Each superslab with warm free slabs carries the time when the last of them
 * came back (its stamp). HAKMEM_PURGE_DELAY later it is unmapped if it is free
 * as a whole, and if not its warm slabs are purged, neighbours together; runs shorter than RUN_LEAST wait half as long again,
 * since a call to the system costs as much for 16 KB as for 256, and in that
 * time they may become longer. (Not more: what is due then must not make newly
 * freed memory wait for it.) A superslab whose slabs come and go all the time
 * keeps them. Nothing is purged on a free: hak_range_tick does it, from slow
 * paths, PORTION at a time or more that are sparsely resident.
 */
#include "base/msg.h"
#include "os/os.h"
#include "range/pressure.h"
#include "range/purge.h"
#include "range/range_walk.h"
#include "range/supers.h"

#define RUN_LEAST 4   /* slabs: 256 KB */
#define PORTION 16    /* superslabs a tick */
#define SLICE 1000000 /* or as many as go in so many nanoseconds */
#define PAUSE 10      /* ms to the next portion */

HAK_OWN_LINE _Atomic(uint32_t) hak_range_due;
HAK_OWN_LINE struct hak_range_freed hak_range_freed;
void (*hak_range_on_much)(void);

static uint32_t delay(void)
{
    return hak_purge_delay();
}

void hak_purge_wanted(uint32_t i)
{
    uint32_t now = hak_os_tick();

    HAK_HELD(&hak_supers.lock);
    hak_range_ask_limit(now);
    hak_supers.at[i].stamp = now;
    hak_purge_at(now);
}

void hak_purge_at(uint32_t now)
{
    if (!hak_range_waiting()) {
        atomic_store_explicit(&hak_range_due, hak_some_time(now + delay()),
                              memory_order_relaxed);
    }
}

/* Purges slabs first..first+count-1 of superslab i, all of them warm. */
static size_t purge_run(uint32_t i, uint32_t first, uint32_t count)
{
    uint32_t number = i * (uint32_t)HAK_SUPER_SLABS + first;
    struct hak_super *super = &hak_supers.at[i];
    size_t bytes = 0;

    HAK_CHECK((super->used &
               (uint32_t)((((uint64_t)1 << count) - 1) << first)) == 0);
    if (!hak_os_purge(hak_range_slab_start(number), count * HAK_SLAB_SIZE)) {
        return 0;
    }
    for (uint32_t n = number; n < number + count; n++) {
        HAK_ASSERT((super->warm >> (n % HAK_SUPER_SLABS) & 1) != 0);
        bytes += super->described ? hak_range_slab(n)->populated
                                  : (uint32_t)HAK_SLAB_SIZE;
        if (super->described) {
            hak_range_slab(n)->populated = 0;
        }
        super->warm &= ~((uint32_t)1 << (n % HAK_SUPER_SLABS));
    }
    hak_supers.figures.purges++;
    return bytes;
}

/*
 * Unmaps superslab i if it is free as a whole: its pages and its addresses go
 * back with one call. The bytes that were resident, or 0.
 */
static size_t unmap_super(uint32_t i)
{
    size_t bytes;

    if (hak_supers.at[i].used != 0) { /* what is resident its owners change */
        return 0;
    }
    bytes = hak_super_resident(i);
    if (bytes == 0 || !hak_super_unmap(i, 1)) {
        return 0;
    }
    hak_supers.figures.purges++;
    hak_supers.figures.purged += bytes;
    return bytes;
}

/*
 * Purges the warm slabs of superslab i in runs as long as possible, of
 * `least` slabs or more. Caller holds the lock.
 */
static size_t purge_super(uint32_t i, uint32_t least)
{
    uint32_t warm = hak_supers.at[i].warm;
    size_t bytes = unmap_super(i);

    HAK_HELD(&hak_supers.lock);
    if (bytes > 0) {
        return bytes;
    }
    while (warm != 0) {
        uint32_t first = (uint32_t)__builtin_ctz(warm);
        uint32_t rest = ~(warm >> first);
        uint32_t count =
            rest == 0 ? HAK_SUPER_SLABS : (uint32_t)__builtin_ctz(rest);

        count = (uint32_t)hak_min(count, HAK_SUPER_SLABS - first);
        if (count >= least) {
            bytes += purge_run(i, first, count);
        }
        warm &= ~(uint32_t)((((uint64_t)1 << count) - 1) << first);
    }
    hak_super_changed(i);
    hak_supers.figures.purged += bytes;
    atomic_fetch_sub(&hak_supers_populated, bytes);
    return bytes;
}

/* Purges what is old of superslab i; when to look at it again. */
static uint32_t purge_old(uint32_t i, uint32_t now)
{
    struct hak_super *super = &hak_supers.at[i];
    uint32_t soon = super->stamp + delay();
    uint32_t late = super->stamp + delay() + delay() / 2;

    if (!hak_tick_reached(now, soon)) {
        return soon;
    }
    if (!hak_tick_reached(now, late)) {
        purge_super(i, RUN_LEAST);
        return late;
    }
    purge_super(i, 1);
    if (super->warm != 0) { /* refused: pages are locked, say */
        super->stamp = now;
    }
    return super->stamp + delay() + 1;
}

void hak_range_tick(uint32_t now)
{
    uint32_t due = atomic_load_explicit(&hak_range_due, memory_order_relaxed);
    uint64_t began;
    uint32_t next = 0, slots;
    uint32_t done = 0;
    size_t before;

    if (due == 0 || !hak_tick_reached(now, due)) {
        return;
    }
    began = hak_os_clock();
    hak_lock_take(&hak_supers.lock);
    for (uint32_t i = hak_map_next(HAK_MAP_WARM, 0, hak_supers.limit);
         i < hak_supers.limit;
         i = hak_map_next(HAK_MAP_WARM, i + 1, hak_supers.limit)) {
        uint32_t again;

        if (done >= PORTION && hak_os_clock() - began > SLICE) {
            next = hak_some_time(now + PAUSE);
            break;
        }
        before = hak_supers.figures.purges;
        again = purge_old(i, now);
        done += hak_supers.figures.purges != before;
        if (hak_supers.at[i].warm != 0 &&
            (next == 0 || hak_tick_reached(next, again))) {
            next = hak_some_time(again);
        }
    }
    slots = hak_slots_tick(now, delay());
    if (slots != 0 && (next == 0 || hak_tick_reached(next, slots))) {
        next = slots;
    }
    atomic_store_explicit(&hak_range_due, next, memory_order_relaxed);
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
}

size_t hak_range_due_bytes(void)
{
    size_t bytes = 0;

    hak_lock_take(&hak_supers.lock);
    for (uint32_t i = hak_map_next(HAK_MAP_WARM, 0, hak_supers.limit);
         i < hak_supers.limit;
         i = hak_map_next(HAK_MAP_WARM, i + 1, hak_supers.limit)) {
        bytes += hak_super_idle(i);
    }
    hak_lock_drop(&hak_supers.lock);
    return bytes;
}

void hak_range_purged(size_t bytes)
{
    if (bytes > 0) {
        hak_lock_take(&hak_supers.lock);
        HAK_HELD(&hak_supers.lock);
        hak_supers.figures.purges++;
        hak_supers.figures.purged += bytes;
        hak_lock_drop(&hak_supers.lock);
    }
}

size_t hak_range_purge(void)
{
    size_t bytes = 0;

    hak_lock_take(&hak_supers.lock);
    for (uint32_t i = hak_map_next(HAK_MAP_WARM, 0, hak_supers.limit);
         i < hak_supers.limit;
         i = hak_map_next(HAK_MAP_WARM, i + 1, hak_supers.limit)) {
        bytes += purge_super(i, 1);
    }
    hak_super_unmap_spare();
    bytes += hak_slots_purge();
    atomic_store_explicit(&hak_range_due, 0, memory_order_relaxed);
    HAK_WALK(hak_range_walk(false));
    hak_lock_drop(&hak_supers.lock);
    return bytes;
}
