/*
 * slabs_resident.c - tests of what is resident of slabs that are taken: the populated
 * ladder and huge pages.
 */
#include "range/supers.h"

#include "os/os.h"
#include "range/purge.h"
#include "range/slabs.h"
#include "range_check.h"
#include "unit.h"

TestSuite(slabs_resident, .timeout = 300);

/* ---- the ladder ---------------------------------------------------------- */

/* Asks for `need` bytes of a slab and expects so many populated. */
static void expect_ready(uint32_t i, size_t need, size_t step, size_t populated)
{
    cr_assert(ready(i, need, step));
    cr_assert_eq(slab(i)->resident, populated, "need %zu: %u, not %zu", need,
                 slab(i)->resident, populated);
}

Test(slabs_resident, a_step_of_0_and_a_single_page_are_left_to_faults)
{
    uint32_t i;

    cr_assert(haki_range_init());
    i = take_one();
    cr_assert_eq(slab(i)->resident, 0);
    haki_os_test_refuse(0, false);
    expect_ready(i, 1, 0, 4096);
    expect_ready(i, 4096, 4096, 4096);
    expect_ready(i, 4097, 1, 8192);
    expect_ready(i, 8193, 4096, 12288);
    expect_ready(i, 50000, 0, 53248);
    expect_ready(i, 65536, 0, 65536);
    cr_assert_eq(haki_os_test_calls(), 0);
    cr_assert_eq(unit_resident(start(i), 65536), 0);
    cr_assert_eq(figures_now().resident, 65536);
    range_check();
}

Test(slabs_resident, a_step_brings_so_much_more_than_is_resident)
{
    uint32_t i;

    cr_assert(haki_range_init());
    i = take_one();
    haki_os_test_refuse(0, false);
    expect_ready(i, 1, 16384, 16384);
    expect_ready(i, 16384, 16384, 16384);
    expect_ready(i, 16385, 16384, 32768);
    expect_ready(i, 49153, 16384, 53248);
    expect_ready(i, 53249, 16384, 65536);
    expect_ready(i, 65536, 16384, 65536);
    cr_assert_eq(haki_os_test_calls(), 4);
    cr_assert_eq(figures_now().resident, 65536);
    if (unit_resident(start(i), 65536) != 0) { /* the kernel can */
        cr_assert_eq(unit_resident(start(i), 65536), 16);
    }
    i = take_one();
    expect_ready(i, 65536, 16384, 65536);
    expect_ready(take_one(), 1, 65536, 65536);
    range_check();
}

Test(slabs_resident, a_span_is_made_ready_across_its_slabs)
{
    uint32_t i, number;

    cr_assert(haki_range_init());
    i = take_span(3, HAK_LANE_POOL);
    number = number_of(i);
    cr_assert_eq(haki_range_resident(number, 3), 0);
    haki_os_test_refuse(0, false);
    cr_assert(haki_range_ready(number, 3, 1, 60000));
    cr_assert_eq(haki_range_resident(number, 3), 60000);
    cr_assert(haki_range_ready(number, 3, 60001, 65536));
    cr_assert_eq(haki_range_resident(number, 3), 125536);
    cr_assert_eq(slab(i)->resident, 65536);
    cr_assert_eq(slab(i + 1)->resident, 60000);
    cr_assert_eq(slab(i + 2)->resident, 0);
    cr_assert(haki_range_ready(number, 3, 190000, 4096));
    cr_assert_eq(haki_range_resident(number, 3), 192512);
    cr_assert(haki_range_ready(number, 3, 196608, 65536));
    cr_assert_eq(haki_range_resident(number, 3), 196608);
    cr_assert_eq(haki_os_test_calls(), 3, "the last page is left to its fault");
    cr_assert_eq(figures_now().resident, 196608);
    haki_range_slabs_give(number, 3, HAK_LANE_POOL);
    cr_assert_eq(figures_now().resident, 196608);
}

/* What lies behind the first gap is not lost, nor counted twice. */
Test(slabs_resident, what_is_resident_of_a_span_ends_at_its_first_gap)
{
    uint32_t i, number;

    cr_assert(haki_range_init());
    i = take();
    number = number_of(i);
    cr_assert_eq(take(), i + 1);
    cr_assert_eq(take(), i + 2); /* kept: a span of two fits at i alone */
    cr_assert(ready(i, 4096, 0));
    cr_assert(ready(i + 1, 65536, 0));
    give(i);
    give(i + 1);
    cr_assert_eq(take_span(2, HAK_LANE_POOL), i);
    cr_assert_eq(haki_range_resident(number, 2), 4096);
    cr_assert(haki_range_ready(number, 2, 65537, 0));
    cr_assert_eq(haki_range_resident(number, 2), 2 * HAK_SLAB_SIZE);
    cr_assert_eq(figures_now().resident, 2 * HAK_SLAB_SIZE);
    range_check();
    haki_range_slabs_give(number, 2, HAK_LANE_POOL);
    cr_assert_eq(haki_range_purge(), 2 * HAK_SLAB_SIZE);
    range_check();
}

Test(slabs_resident, a_refused_step_of_the_ladder_changes_nothing)
{
    uint32_t i;

    cr_assert(haki_range_init());
    i = take_one();
    haki_os_test_refuse(1, false);
    cr_assert_not(ready(i, 20000, 1));
    cr_assert_eq(slab(i)->resident, 0);
    cr_assert_eq(figures_now().resident, 0);
    expect_ready(i, 20000, 1, 20480);
    haki_os_test_refuse(1, false);
    cr_assert_not(ready(i, 50000, HAK_SLAB_SIZE));
    cr_assert_eq(slab(i)->resident, 20480);
    cr_assert_eq(figures_now().resident, 20480);
    range_check();
}

/* ---- huge pages ---------------------------------------------------------- */

/* Makes `bytes` resident in slabs; 8 MB of it fill 4 superslabs. */
static void make_resident(size_t bytes)
{
    cr_assert(haki_range_init());
    while (bytes > 0) {
        size_t part = haki_min(bytes, HAK_SLAB_SIZE);

        cr_assert(ready(take_one(), part, part));
        bytes -= part;
    }
}

static size_t populated(void)
{
    return figures_now().resident;
}

Test(slabs_resident, above_8_mb_superslabs_come_as_huge_pages)
{
    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    make_resident(8 * HAK_MIB);
    cr_assert_eq(populated(), 8 * HAK_MIB);
    for (size_t supers = 1; supers <= 3; supers++) {
        for (size_t n = 0; n < HAK_SUPER_SLABS; n++) {
            uint32_t i = take_one();

            cr_assert_eq(slab(i)->resident, HAK_SLAB_SIZE);
            cr_assert_eq(populated(), 8 * HAK_MIB + supers * HAK_SUPER_SIZE);
            cr_assert(UNIT_WATCHED ||
                      unit_resident(start(i), HAK_SLAB_SIZE) == 16);
        }
    }
    range_check();
}

/* What may be written to in parts comes empty, and leaves what is populated. */
Test(slabs_resident, above_8_mb_superslabs_for_parts_come_empty)
{
    uint32_t i, number;

    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    make_resident(8 * HAK_MIB);
    number = haki_range_slabs_take(3, HAK_LANE_POOL, HAK_CLASS_ANY,
                                   HAK_SLABS_SPARSE);
    cr_assert_eq(haki_range_resident(number, 3), 0);
    cr_assert_eq(populated(), 8 * HAK_MIB);
    i = take_one();
    cr_assert_eq(number_of(i), number + 3, "the same superslab");
    for (size_t n = 4; n < HAK_SUPER_SLABS; n++) {
        cr_assert_eq(slab(take_one())->resident, 0);
    }
    cr_assert_eq(slab(take_one())->resident, HAK_SLAB_SIZE);
    cr_assert_eq(populated(), 8 * HAK_MIB + HAK_SUPER_SIZE);
    range_check();
}

Test(slabs_resident, below_8_mb_superslabs_come_empty)
{
    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    make_resident(8 * HAK_MIB - HAK_PAGE);
    cr_assert_eq(populated(), 8 * HAK_MIB - HAK_PAGE);
    cr_assert_eq(slab(take_one())->resident, 0);
    cr_assert_eq(populated(), 8 * HAK_MIB - HAK_PAGE);
    range_check();
}

Test(slabs_resident, without_huge_pages_superslabs_come_empty)
{
    setenv("HAKMEM_HUGE_PAGES", "never", 1);
    make_resident(20 * HAK_MIB);
    cr_assert_eq(populated(), 20 * HAK_MIB);
    cr_assert_eq(slab(take_one())->resident, 0);
    range_check();
}

/* What they cost decides; whatever it is, the accounts are right. */
Test(slabs_resident, huge_pages_by_their_cost_keep_the_accounts)
{
    size_t expected = 8 * HAK_MIB;

    make_resident(8 * HAK_MIB);
    for (size_t n = 0; n < 20; n++) {
        uint32_t i = take_one();

        cr_assert(slab(i)->resident == 0 || slab(i)->resident == HAK_SLAB_SIZE);
        expected += slab(i)->resident != 0 ? HAK_SUPER_SIZE : 0;
        cr_assert_eq(populated(), expected);
        for (size_t k = 1; k < HAK_SUPER_SLABS; k++) {
            cr_assert_eq(slab(take_one())->resident, slab(i)->resident);
        }
        cr_assert_eq(populated(), expected);
    }
    range_check();
}

Test(slabs_resident, a_refused_huge_page_leaves_plain_pages)
{
    uint32_t i;

    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    make_resident(8 * HAK_MIB);
    haki_os_test_refuse(2, false); /* the superslab's commit, its populate */
    i = take_one();
    cr_assert_eq(haki_os_test_calls(), 2);
    cr_assert_eq(slab(i)->resident, 0);
    cr_assert_eq(populated(), 8 * HAK_MIB);
    start(i)[0] = 1;
    range_check();
}
