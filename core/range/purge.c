/*
 * purge.c - free memory goes back to the system after a while.
 *
 * Each superslab with resident free slabs carries the time when the last of them
 * came back (its stamp). HAKMEM_PURGE_DELAY later it is unmapped if it is
 * wholly free; otherwise its resident slabs are purged, neighbours together. Runs
 * shorter than RUN_LEAST wait half as long again, since a call to the system
 * costs as much for 16 KB as for 256, and in that time they may grow. (No
 * longer: what is due then must not delay newly freed memory.) A superslab
 * whose slabs come and go all the time keeps them. Nothing is purged on a free:
 * haki_range_tick does it, from slow paths, PORTION superslabs at a time, or
 * more if little of them is resident.
 */
#include "base/msg.h"
#include "os/os.h"
#include "range/pressure.h"
#include "range/purge.h"
#include "range/range_walk.h"
#include "range/supers.h"

#define RUN_LEAST 4         /* slabs: 256 KB */
#define PORTION 16          /* superslabs a tick */
#define PURGE_SLICE 1000000 /* or what fits into so many nanoseconds */
#define PURGE_PAUSE 10      /* ms to the next portion */

HAK_OWN_LINE _Atomic(uint32_t) haki_range_due;
HAK_OWN_LINE struct hak_range_freed haki_range_freed;
void (*haki_range_on_much)(void);

static atomic_bool purge_portions; /* a tick ended before it was finished */

/* See purge.h. */
static _Atomic(uint32_t) purge_left, purge_left_at;

static uint32_t purge_delay(void)
{
    return haki_purge_delay();
}

/* The first superslab at or above *i with resident free slabs; false: none is left. */
static bool purge_next(uint32_t *i)
{
    *i = haki_map_next(HAK_MAP_RESIDENT, *i, haki_supers.limit);
    return *i < haki_supers.limit;
}

/* ---- what ended threads have left ------------------------------------------ */

void haki_purge_thread_began(void)
{
    if (atomic_load_explicit(&purge_left, memory_order_relaxed) != 0) {
        atomic_store_explicit(&purge_left, 0, memory_order_relaxed);
    }
}

static uint32_t purge_left_until(void)
{
    return atomic_load(&purge_left_at) + purge_delay() / 4;
}

/* The next tick comes at `at` at the latest. */
static void purge_by(uint32_t at)
{
    uint32_t due = atomic_load(&haki_range_due);

    if (due != 0 && !haki_tick_reached(at, due)) {
        atomic_store(&haki_range_due, haki_some_time(at));
    }
}

void haki_purge_thread_ended(uint32_t slabs)
{
    if (slabs == 0) {
        return;
    }
    atomic_store(&purge_left_at, haki_os_tick());
    if (atomic_fetch_add(&purge_left, slabs) + slabs >= HAK_LEFT_LEAST) {
        purge_by(purge_left_until());
    }
}

/* Free slabs that may have resident pages. Caller holds the lock. */
static uint32_t purge_resident_slabs(void)
{
    uint32_t n = 0;

    HAK_HELD(&haki_supers.lock);
    for (uint32_t i = 0; purge_next(&i); i++) {
        n += (uint32_t)__builtin_popcount(haki_supers.at[i].resident);
    }
    return n;
}

/* Whether ended threads have left much that new threads may still take over. */
static bool purge_left_waits(uint32_t now)
{
    return atomic_load(&purge_left) >= HAK_LEFT_LEAST &&
           !haki_tick_reached(now, purge_left_until());
}

/*
 * Whether no thread has taken it over, and it is a large part of what is free.
 */
static bool purge_left_for_good(uint32_t now)
{
    uint32_t slabs = atomic_load(&purge_left);

    if (slabs < HAK_LEFT_LEAST || purge_left_waits(now)) {
        return false;
    }
    if (slabs < purge_resident_slabs() / 2) {
        atomic_store(&purge_left, 0);
        return false;
    }
    return true;
}

/* ---- superslabs ------------------------------------------------------------- */

void haki_purge_wanted(uint32_t i)
{
    uint32_t now = haki_os_tick();

    HAK_HELD(&haki_supers.lock);
    haki_range_ask_limit(now);
    haki_supers.at[i].stamp = now;
    haki_purge_at(now);
}

void haki_purge_at(uint32_t now)
{
    if (!haki_range_waiting()) {
        atomic_store_explicit(&haki_range_due,
                              haki_some_time(now + purge_delay()),
                              memory_order_relaxed);
    }
}

/* Purges slabs first..first+count-1 of superslab i, all of them resident. */
static size_t purge_run(uint32_t i, uint32_t first, uint32_t count)
{
    uint32_t number = i * (uint32_t)HAK_SUPER_SLABS + first;
    struct hak_super *super = &haki_supers.at[i];
    size_t bytes = 0;

    HAK_CHECK((super->used &
               (uint32_t)((((uint64_t)1 << count) - 1) << first)) == 0);
    if (!haki_os_purge(haki_range_slab_start(number), count * HAK_SLAB_SIZE)) {
        return 0;
    }
    for (uint32_t n = number; n < number + count; n++) {
        HAK_ASSERT((super->resident >> (n % HAK_SUPER_SLABS) & 1) != 0);
        bytes += super->described ? haki_range_slab(n)->resident
                                  : (uint32_t)HAK_SLAB_SIZE;
        if (super->described) {
            haki_range_slab(n)->resident = 0;
        }
        super->resident &= ~((uint32_t)1 << (n % HAK_SUPER_SLABS));
    }
    haki_supers.counts.purges++;
    return bytes;
}

/*
 * Unmaps superslab i if it is wholly free: its pages and its addresses go back
 * with one call. Returns the bytes that were resident, or 0.
 */
static size_t purge_unmap_super(uint32_t i)
{
    size_t bytes;

    if (haki_supers.at[i].used != 0) { /* its owners change what is resident */
        return 0;
    }
    bytes = haki_super_resident(i);
    if (bytes == 0 || !haki_super_unmap(i, 1)) {
        return 0;
    }
    haki_supers.counts.purges++;
    haki_supers.counts.purged += bytes;
    return bytes;
}

/*
 * Purges the resident slabs of superslab i in runs as long as possible, of
 * `least` slabs or more. Caller holds the lock.
 */
static size_t purge_super(uint32_t i, uint32_t least)
{
    uint32_t resident = haki_supers.at[i].resident;
    size_t bytes = purge_unmap_super(i);

    HAK_HELD(&haki_supers.lock);
    if (bytes > 0) {
        return bytes;
    }
    while (resident != 0) {
        uint32_t first = (uint32_t)__builtin_ctz(resident);
        uint32_t rest = ~(resident >> first);
        uint32_t count =
            rest == 0 ? HAK_SUPER_SLABS : (uint32_t)__builtin_ctz(rest);

        count = (uint32_t)haki_min(count, HAK_SUPER_SLABS - first);
        if (count >= least) {
            bytes += purge_run(i, first, count);
        }
        resident &= ~(uint32_t)((((uint64_t)1 << count) - 1) << first);
    }
    haki_super_changed(i);
    haki_supers.counts.purged += bytes;
    atomic_fetch_sub(&haki_supers_resident, bytes);
    return bytes;
}

/* Purges the old slabs of superslab i, or all. Returns when to look again. */
static uint32_t purge_old(uint32_t i, uint32_t now, bool all)
{
    struct hak_super *super = &haki_supers.at[i];
    uint32_t soon = all ? now : super->stamp + purge_delay();
    uint32_t late =
        all ? now : super->stamp + purge_delay() + purge_delay() / 2;

    if (!haki_tick_reached(now, soon)) {
        return soon;
    }
    if (!haki_tick_reached(now, late)) {
        purge_super(i, RUN_LEAST);
        return late;
    }
    purge_super(i, 1);
    if (super->resident != 0) { /* refused: perhaps pages are locked */
        super->stamp = now;
    }
    return super->stamp + purge_delay() + 1;
}

/* The earlier of two times; 0 means none. */
static uint32_t purge_sooner(uint32_t a, uint32_t b)
{
    return a == 0 || (b != 0 && haki_tick_reached(a, b)) ? b : a;
}

/*
 * Purges what is due in all superslabs, or everything, at most a portion.
 * Returns when the next tick is due; 0: nothing waits.
 */
static uint32_t purge_due(uint32_t now, bool all)
{
    uint64_t began = haki_os_clock();
    uint32_t next = 0, done = 0;

    HAK_HELD(&haki_supers.lock);
    for (uint32_t i = 0; purge_next(&i); i++) {
        uint64_t before = haki_supers.counts.purges;
        uint32_t again;

        if (done >= PORTION && haki_os_clock() - began > PURGE_SLICE) {
            atomic_store(&purge_portions, true);
            return haki_some_time(now + PURGE_PAUSE);
        }
        again = purge_old(i, now, all);
        done += haki_supers.counts.purges != before;
        if (haki_supers.at[i].resident != 0) {
            next = purge_sooner(next, haki_some_time(again));
        }
    }
    atomic_store(&purge_portions, false);
    if (all) {
        atomic_store(&purge_left, 0);
    }
    return next;
}

static void purge_tick(uint32_t now)
{
    uint32_t next;

    haki_lock_take(&haki_supers.lock);
    HAK_HELD(&haki_supers.lock);
    next = purge_due(now, purge_left_for_good(now));
    next = purge_sooner(next, haki_slots_tick(now, purge_delay()));
    atomic_store_explicit(&haki_range_due, next, memory_order_relaxed);
    if (purge_left_waits(now)) {
        purge_by(purge_left_until());
    }
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
}

void haki_range_tick(uint32_t now)
{
    uint32_t due = atomic_load_explicit(&haki_range_due, memory_order_relaxed);

    if (due != 0 && haki_tick_reached(now, due)) {
        purge_tick(now);
    }
}

bool haki_purge_portion(uint32_t now)
{
    if (atomic_load(&purge_portions) && haki_range_waiting()) {
        purge_tick(now);
    } else {
        haki_range_tick(now);
    }
    return atomic_load(&purge_portions) && haki_range_waiting();
}

size_t haki_range_due_bytes(void)
{
    size_t bytes = 0;

    haki_lock_take(&haki_supers.lock);
    for (uint32_t i = 0; purge_next(&i); i++) {
        bytes += haki_super_resident(i);
    }
    haki_lock_drop(&haki_supers.lock);
    return bytes;
}

void haki_range_purged(size_t bytes)
{
    if (bytes > 0) {
        haki_lock_take(&haki_supers.lock);
        HAK_HELD(&haki_supers.lock);
        haki_supers.counts.purges++;
        haki_supers.counts.purged += bytes;
        haki_lock_drop(&haki_supers.lock);
    }
}

size_t haki_range_purge(void)
{
    size_t bytes = 0;

    haki_lock_take(&haki_supers.lock);
    for (uint32_t i = 0; purge_next(&i); i++) {
        bytes += purge_super(i, 1);
    }
    haki_super_unmap_unused();
    bytes += haki_slots_purge();
    atomic_store_explicit(&haki_range_due, 0, memory_order_relaxed);
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
    return bytes;
}
