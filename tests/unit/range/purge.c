/*
 * purge.c - tests of haki_range_purge: what it drops at once, and what not.
 */
#include <sys/syscall.h>

#include "clock.h"
#include "settings/options.h"
#include "os/os.h"
#include "range/purge.h"
#include "range_check.h"
#include "unit.h"

TestSuite(purge, .init = clock_stop, .timeout = 300);

Test(purge, drops_warm_slabs_and_only_those)
{
    size_t warm = 0;

    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 90; i++) {
        size_t need = i % 3 == 0 ? 20000 : 60000;

        cr_assert_eq(take(), i);
        cr_assert(ready(i, need, need));
        memset(start(i), (int)i, 20000);
    }
    cr_assert_eq(haki_range_purge(), 0);
    cr_assert_eq(figures_now().purges, 0);
    for (uint32_t i = 1; i <= 90; i++) {
        /* Single slabs, pairs, runs over a superslab's bound, a whole one. */
        if (i % 7 < 2 || (i > 28 && i < 36) || i > 64) {
            warm += slab(i)->resident;
            give(i);
        }
    }
    range_check();
    cr_assert_eq(haki_range_purge(), warm);
    cr_assert_eq(haki_range_purge(), 0);
    cr_assert_eq(figures_now().purged, warm);
    range_check();
    for (uint32_t i = 1; i <= 90; i++) {
        bool free = i % 7 < 2 || (i > 28 && i < 36) || i > 64;

        if (i > 64) { /* its superslab has gone as a whole */
            cr_assert_eq(unit_resident(start(i), HAK_SLAB_SIZE), 0);
            continue;
        }
        cr_assert_eq(start(i)[19999], free ? 0 : (char)i);
        cr_assert_eq(slab(i)->resident == 0, free);
    }
    cr_assert_eq(take(), 1);
}

Test(purge, a_superslab_all_warm_is_one_run)
{
    UNIT_SKIP_IF_EMULATED("qemu has no MADV_POPULATE_WRITE");
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
        cr_assert(ready(i, HAK_SLAB_SIZE, HAK_SLAB_SIZE));
        start(i)[65535] = 1;
    }
    for (uint32_t i = HAK_SUPER_SLABS + 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        give(i);
    }
    cr_assert_eq(haki_range_purge(), HAK_SUPER_SIZE);
    cr_assert_eq(figures_now().purges, 1);
    for (uint32_t i = 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(unit_resident(start(i), HAK_SLAB_SIZE),
                     i <= HAK_SUPER_SLABS ? HAK_SLAB_SIZE / HAK_PAGE : 0);
    }
    range_check();
}

Test(purge, neighbours_go_together)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
        cr_assert(ready(i, 5000, 0));
    }
    for (uint32_t i = 1; i <= HAK_SUPER_SLABS; i++) {
        if (i == 1 || (i >= 5 && i < 9) || i >= 30) {
            give(i);
        }
    }
    cr_assert_eq(haki_range_purge(), 8 * 2 * HAK_PAGE);
    cr_assert_eq(figures_now().purges, 3);
    range_check();
}

Test(purge, makes_pages_not_resident)
{
    uint32_t i;

    cr_assert(haki_range_init());
    i = take_one();
    cr_assert(ready(i, HAK_SLAB_SIZE, HAK_SLAB_SIZE));
    memset(start(i), 1, HAK_SLAB_SIZE);
    cr_assert_eq(unit_resident(start(i), HAK_SLAB_SIZE), 16);
    give(i);
    cr_assert_eq(unit_resident(start(i), HAK_SLAB_SIZE), 16);
    cr_assert(haki_range_waiting());
    cr_assert_eq(haki_range_purge(), HAK_SLAB_SIZE);
    cr_assert_not(haki_range_waiting());
    cr_assert_eq(unit_resident(start(i), HAK_SLAB_SIZE), 0);
    cr_assert_eq(figures_now().resident, 0);
}

/* Pages that are locked stay, and stay warm. */
Test(purge, what_the_system_refuses_stays_warm)
{
    uint32_t i;

    cr_assert(haki_range_init());
    take_one(); /* a superslab that is free as a whole is unmapped */
    i = take_one();
    cr_assert(ready(i, HAK_SLAB_SIZE, HAK_SLAB_SIZE));
    memset(start(i), 5, HAK_SLAB_SIZE);
    /* Sanitizers make nothing of mlock. */
    if (syscall(SYS_mlock, start(i), HAK_PAGE) != 0) {
        cr_skip("no page may be locked here");
    }
    give(i);
    cr_assert_eq(haki_range_purge(), 0);
    cr_assert_eq(figures_now().purged, 0);
    cr_assert_eq(figures_now().resident, HAK_SLAB_SIZE);
    range_check();
    cr_assert_eq(take(), i);
    cr_assert_eq(start(i)[0], 5);
    syscall(SYS_munlock, start(i), HAK_PAGE);
    give(i);
    cr_assert_eq(haki_range_purge(), HAK_SLAB_SIZE);
    range_check();
}

/* ---- by itself: the time is the test's ------------------------------------ */

/* The superslab of slab i, and when its last slab came back. */
static struct hak_super *super_of(uint32_t i)
{
    return &haki_supers.at[number_of(i) / HAK_SUPER_SLABS];
}

/* Two superslabs, all resident and in use. */
static void fill_two(void)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
        cr_assert(ready(i, HAK_SLAB_SIZE, HAK_SLAB_SIZE));
    }
}

static void give_run(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        give(i);
    }
}

/* Slabs 2, 4..6 and 10..13 are free: the last ones go first. */
Test(purge, short_runs_wait_half_as_long_again)
{
    uint32_t delay = (uint32_t)haki_option(HAK_OPT_purge_delay);
    uint32_t stamp;

    fill_two();
    give_run(2, 1);
    give_run(4, 3);
    give_run(10, 4);
    stamp = super_of(1)->stamp;
    haki_range_tick(stamp + delay - 1);
    cr_assert_eq(figures_now().purges, 0);
    haki_range_tick(stamp + delay);
    cr_assert_eq(figures_now().purges, 1);
    cr_assert_eq(figures_now().purged, 4 * HAK_SLAB_SIZE);
    cr_assert_eq(slab(10)->resident, 0);
    range_check();
    haki_range_tick(stamp + delay + delay / 2 - 1);
    cr_assert_eq(figures_now().purges, 1);
    haki_range_tick(stamp + delay + delay / 2);
    cr_assert_eq(figures_now().purges, 3);
    cr_assert_eq(figures_now().purged, 8 * HAK_SLAB_SIZE);
    cr_assert_not(haki_range_waiting());
    range_check();
}

/* A short run is due late; a long one, freed meanwhile, before that. */
Test(purge, short_runs_keep_nothing_else_waiting)
{
    uint32_t delay = (uint32_t)haki_option(HAK_OPT_purge_delay);
    uint32_t stamp, later;

    fill_two();
    give_run(2, 1);
    stamp = super_of(2)->stamp;
    give_run(HAK_SUPER_SLABS + 1, 4);
    later = stamp + delay / 4;
    super_of(HAK_SUPER_SLABS + 1)->stamp = later;
    haki_range_tick(stamp + delay);
    cr_assert_eq(figures_now().purges, 0);
    haki_range_tick(later + delay);
    cr_assert_eq(figures_now().purged, 4 * HAK_SLAB_SIZE);
    cr_assert_eq(slab(2)->resident, HAK_SLAB_SIZE);
    haki_range_tick(stamp + delay + delay / 2);
    cr_assert_eq(figures_now().purged, 5 * HAK_SLAB_SIZE);
    cr_assert_not(haki_range_waiting());
}

/* ---- what ended threads have left ----------------------------------------- */

static uint32_t quarter(void)
{
    return (uint32_t)haki_option(HAK_OPT_purge_delay) / 4;
}

/* 40 slabs are free; threads that had `slabs` have ended now, whenever that is. */
static uint32_t end_threads(uint32_t slabs)
{
    uint32_t before, now;

    fill_two();
    give_run(1, 40);
    do {
        before = haki_os_tick();
        haki_purge_thread_ended(slabs);
        now = haki_os_tick();
    } while (before != now);
    return now;
}

Test(purge, what_threads_leave_goes_when_no_thread_comes)
{
    uint32_t now = end_threads(HAK_LEFT_LEAST);

    cr_assert(haki_tick_reached(now + quarter(), atomic_load(&haki_range_due)));
    haki_range_tick(now + quarter() - 1);
    cr_assert_eq(figures_now().purged, 0);
    haki_range_tick(now + quarter());
    cr_assert_eq(figures_now().purged, 40 * HAK_SLAB_SIZE);
    cr_assert_not(haki_range_waiting());
    range_check();
    give_run(41, 2); /* what comes back later has the whole delay again */
    haki_range_tick(haki_os_tick() + 2 * quarter());
    cr_assert_eq(figures_now().purged, 40 * HAK_SLAB_SIZE);
}

Test(purge, a_thread_that_comes_finds_it)
{
    uint32_t now = end_threads(HAK_LEFT_LEAST);

    haki_purge_thread_began();
    haki_range_tick(now + 2 * quarter());
    cr_assert_eq(figures_now().purged, 0);
    cr_assert(haki_range_waiting());
}

Test(purge, few_slabs_of_a_thread_change_nothing)
{
    uint32_t now = end_threads(HAK_LEFT_LEAST - 1);

    haki_range_tick(now + 2 * quarter());
    cr_assert_eq(figures_now().purged, 0);
}

/* 240 slabs are free, and less than half of them a thread's. */
Test(purge, little_of_much_that_is_free_changes_nothing)
{
    uint32_t now;

    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 240; i++) {
        cr_assert_eq(take(), i);
        cr_assert(ready(i, HAK_PAGE, 0));
    }
    give_run(1, 240);
    haki_purge_thread_ended(100);
    now = haki_os_tick();
    haki_range_tick(now + 2 * quarter());
    cr_assert_eq(figures_now().purged, 0);
    haki_purge_thread_ended(100);
    now = haki_os_tick();
    haki_purge_thread_ended(100);
    haki_range_tick(now + 2 * quarter());
    cr_assert_geq(figures_now().purged, 240 * HAK_PAGE);
}

/* Who has nothing else to do goes on without the pause; others wait for it. */
Test(purge, portions_follow_each_other)
{
    uint32_t count = 200 * HAK_SUPER_SLABS, now, portions = 1;

    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= count; i++) {
        cr_assert_eq(take(), i);
        cr_assert(ready(i, HAK_PAGE, 0));
        start(i)[0] = 1;
    }
    give_run(1, count);
    now = haki_os_tick() + 8 * quarter();
    while (haki_purge_portion(now)) {
        size_t purged = figures_now().purged;

        haki_range_tick(now);
        cr_assert_eq(figures_now().purged, purged);
        portions++;
    }
    cr_assert_geq(figures_now().purged, count * HAK_PAGE);
    cr_assert_leq(portions, 200 / 16 + 1);
    cr_assert_not(haki_range_waiting());
    range_check();
}
