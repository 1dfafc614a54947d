/*
 * ace_back.c - tests of how ACE's memory goes back: superslabs to the range,
 * pages of holes to the system, after the delay and no sooner, and that no
 * page is called zero that is not.
 */
#include "clock.h"
#include "range/slabs.h"
#include "ace_check.h"

TestSuite(ace_back, .init = clock_stop, .timeout = 300);

enum { DELAY = 1000 }; /* the default of HAKMEM_PURGE_DELAY */

static char *get_run(size_t pages, bool *zero)
{
    char *p = haki_ace_alloc(pages, HAK_PAGE, HAK_ID_SHARED, zero);

    NEED(p != NULL);
    return p;
}

/* A run whose pages have all been written to. */
static char *get_full(size_t pages)
{
    bool zero;
    char *p = get_run(pages, &zero);

    memset(p, 0x5a, pages * HAK_PAGE);
    return p;
}

static void put_run(void *p)
{
    struct hak_ace_run run;

    NEED(haki_ace_free(p, &run));
}

static bool is_zero(const char *p, size_t bytes)
{
    return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

static size_t purged(void)
{
    struct hak_range_counts range;

    haki_range_counts(&range);
    return range.purged;
}

/* ---- superslabs --------------------------------------------------------------- */

Test(ace_back, at_most_four_whole_superslabs_are_kept)
{
    enum { MANY = 12 };
    char *p[MANY];

    cr_assert(haki_range_init());
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            p[i] = get_full(HAK_ACE_PAGES);
        }
        cr_assert_eq(ace_check().supers, MANY);
        for (int i = 0; i < MANY; i++) {
            put_run(p[(i * 5) % MANY]);
            cr_assert_leq(ace_check().full_holes, 4);
        }
        cr_assert_eq(ace_check().supers, 4);
        cr_assert_eq(haki_range_unused(), (MANY - 4) * HAK_SUPER_SIZE);
    }
    haki_ace_trim();
    cr_assert_eq(ace_check().supers, 0);
    /* Those that ACE kept were purged, the others are the range's. */
    cr_assert_eq(haki_range_unused(), (MANY - 4) * HAK_SUPER_SIZE);
    cr_assert_eq(haki_range_purge(), (MANY - 4) * HAK_SUPER_SIZE);
}

/* What comes back to the range is warm where it was dirty, and only there. */
Test(ace_back, a_superslab_goes_back_with_what_is_warm)
{
    uint32_t warm = 0, super;
    char *p[6];
    bool zero;

    cr_assert(haki_range_init());
    for (int i = 0; i < 5; i++) {
        p[i] = get_run(HAK_ACE_PAGES, &zero);
        cr_assert(zero);
    }
    for (int i = 0; i < 4; i++) {
        put_run(p[i]);
    }
    super = haki_range_number(p[4]) / (uint32_t)HAK_SUPER_SLABS;
    put_run(p[4]); /* the fifth goes back; it has been a run, hence warm */
    cr_assert_eq(ace_check().supers, 4);
    cr_assert_eq(haki_range_super_take(HAK_LANE_ACE, &warm), super);
    cr_assert_eq(warm, HAK_ALL_SLABS);
    haki_range_supers_give(super, 1, HAK_LANE_ACE, 0x00ff00ff);
    /* Four spares, then this one: of it 14 pages are cold, 2 are not. */
    for (int i = 0; i < 4; i++) {
        p[i] = get_run(HAK_ACE_PAGES, &zero);
        cr_assert(!zero);
    }
    p[4] = get_run(16 * 8, &zero);
    cr_assert(!zero);
    p[5] = get_run(16 * 8, &zero);
    cr_assert(zero);
    cr_assert_eq(haki_range_number(p[5]), super * HAK_SUPER_SLABS + 8);
}

/* ---- after the delay ---------------------------------------------------------------- */

/* Holes of 256 KB and more go after the delay, smaller ones after 8 of it. */
Test(ace_back, holes_are_purged_when_they_are_old)
{
    char *keep, *large, *small;
    uint32_t now;

    cr_assert(haki_range_init());
    large = get_full(64);
    keep = get_full(14);
    small = get_full(63);
    get_full(14);
    cr_assert_eq(atomic_load(&haki_ace_due), 0);
    now = haki_os_tick();
    put_run(large);
    put_run(small);
    cr_assert_neq(atomic_load(&haki_ace_due), 0);
    haki_ace_tick(now + DELAY - 100);
    cr_assert_eq(unit_resident(large, 64 * HAK_PAGE), 64);
    haki_ace_tick(now + DELAY + 100);
    cr_assert_eq(unit_resident(large, 64 * HAK_PAGE), 0);
    cr_assert_eq(unit_resident(small, 63 * HAK_PAGE), 63);
    cr_assert_eq(purged(), 64 * HAK_PAGE);
    haki_ace_tick(now + 8 * DELAY - 100);
    cr_assert_eq(unit_resident(small, 63 * HAK_PAGE), 63);
    cr_assert_neq(atomic_load(&haki_ace_due), 0);
    haki_ace_tick(now + 8 * DELAY + 100);
    cr_assert_eq(unit_resident(small, 63 * HAK_PAGE), 0);
    cr_assert_eq(unit_resident(keep, 14 * HAK_PAGE), 14);
    cr_assert_eq(atomic_load(&haki_ace_due), 0);
    cr_assert_eq(keep[100], 0x5a);
    ace_check();
}

/* The time wraps around after 49 days. */
Test(ace_back, old_holes_are_purged_when_the_clock_wraps_around)
{
    char *p;

    cr_assert(haki_range_init());
    p = get_full(100);
    put_run(p);
    haki_ace_hole((uint32_t)(haki_range_offset(p) / HAK_PAGE))->stamp =
        UINT32_MAX - 200;
    atomic_store(&haki_ace_due, UINT32_MAX - 200 + DELAY);
    haki_ace_tick(UINT32_MAX - 100);
    cr_assert_eq(unit_resident(p, 100 * HAK_PAGE), 100);
    haki_ace_tick(500);
    cr_assert_eq(unit_resident(p, 100 * HAK_PAGE), 100);
    haki_ace_tick(1000);
    cr_assert_eq(unit_resident(p, 100 * HAK_PAGE), 0);
}

/* Holes' pages that may have contents are due, and no others. */
Test(ace_back, holes_are_due)
{
    char *p, *q;
    bool zero;

    cr_assert(haki_range_init());
    p = get_full(100);
    q = get_run(50, &zero);
    cr_assert_eq(haki_ace_due_bytes(), 0);
    put_run(p);
    cr_assert_eq(haki_ace_due_bytes(), 100 * HAK_PAGE);
    p = get_run(30, &zero);
    cr_assert_eq(haki_ace_due_bytes(), 70 * HAK_PAGE);
    haki_ace_trim();
    cr_assert_eq(haki_ace_due_bytes(), 0);
    put_run(p);
    put_run(q);
}

/* What comes warm from the range and is not used goes back, too. */
Test(ace_back, the_rest_of_a_warm_superslab_is_purged)
{
    uint32_t slab[HAK_SUPER_SLABS];
    char *start, *p;
    bool zero;

    cr_assert(haki_range_init());
    for (size_t i = 0; i < HAK_SUPER_SLABS; i++) {
        slab[i] = haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY,
                                        HAK_SLABS_SOME);
        cr_assert(haki_range_ready(slab[i], 1, HAK_SLAB_SIZE, 0));
        memset(haki_range_slab_start(slab[i]), 1, HAK_SLAB_SIZE);
    }
    start = haki_range_slab_start(slab[0]);
    for (size_t i = 0; i < HAK_SUPER_SLABS; i++) {
        haki_range_slabs_give(slab[i], 1, HAK_LANE_TINY);
    }
    p = get_run(14, &zero);
    cr_assert_eq(p, start);
    cr_assert(!zero);
    cr_assert_eq(unit_resident(start, HAK_SUPER_SIZE), HAK_ACE_PAGES);
    haki_ace_tick(haki_os_tick() + DELAY + 100);
    cr_assert_eq(unit_resident(start, HAK_SUPER_SIZE), 14);
}

/* ---- zero ------------------------------------------------------------------------------ */

Test(ace_back, only_purged_and_fresh_pages_are_called_zero)
{
    char *p, *q;
    bool zero;

    cr_assert(haki_range_init());
    p = get_full(30);
    put_run(p);
    cr_assert_eq(get_run(20, &zero), p);
    cr_assert(!zero);
    put_run(p);
    haki_ace_trim();
    cr_assert_eq(get_run(30, &zero), p);
    cr_assert(zero);
    cr_assert(is_zero(p, 30 * HAK_PAGE));
    /* One dirty page among clean ones is enough. */
    memset(p + 29 * HAK_PAGE, 1, HAK_PAGE);
    q = get_full(14);
    put_run(p);
    cr_assert_eq(get_run(29, &zero), p);
    cr_assert(!zero);
    put_run(q);
    q = get_run(400, &zero);
    cr_assert(!zero);
    cr_assert_eq(q, p + 29 * HAK_PAGE);
}

/* What is grown into counts as written to. */
Test(ace_back, grown_pages_are_not_called_zero_later)
{
    char *p;
    bool zero;

    cr_assert(haki_range_init());
    p = get_run(14, &zero);
    cr_assert(haki_ace_resize(p, 80));
    memset(p, 0x77, 80 * HAK_PAGE);
    cr_assert(haki_ace_resize(p, 20));
    cr_assert_eq(get_run(60, &zero), p + 20 * HAK_PAGE);
    cr_assert(!zero);
    ace_check();
}

/* Pages that are locked in memory can't be purged: they stay what they are. */
Test(ace_back, pages_that_the_system_keeps_are_not_called_zero)
{
    char *p;
    bool zero;

    UNIT_SKIP_IF_WATCHED("sanitizers and valgrind do not lock memory");
    cr_assert(haki_range_init());
    p = get_full(100);
    cr_assert_eq(mlock(p + 50 * HAK_PAGE, HAK_PAGE), 0);
    put_run(p);
    haki_ace_trim();
    cr_assert_eq(purged(), 0);
    cr_assert_eq(munlock(p + 50 * HAK_PAGE, HAK_PAGE), 0);
    cr_assert_eq(get_run(100, &zero), p);
    cr_assert(!zero);
    cr_assert_eq(p[50 * HAK_PAGE], 0x5a);
}

/* ---- out of memory ------------------------------------------------------------------------ */

Test(ace_back, out_of_memory_is_null_and_changes_nothing)
{
    bool zero;
    char *p;

    cr_assert(haki_range_init());
    p = get_run(300, &zero);
    haki_os_test_refuse(1, true);
    cr_assert_null(haki_ace_alloc(300, HAK_PAGE, HAK_ID_SHARED, &zero));
    cr_assert_not_null(haki_ace_alloc(200, HAK_PAGE, HAK_ID_SHARED, &zero));
    cr_assert_null(haki_ace_alloc(200, HAK_PAGE, HAK_ID_SHARED, &zero));
    haki_os_test_refuse(0, false);
    ace_check();
    put_run(p);
    put_run(get_run(400, &zero));
    ace_check();
}
