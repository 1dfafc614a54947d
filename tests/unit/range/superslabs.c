/*
 * superslabs.c - tests of superslabs taken whole: where they lie, what of them is
 * warm, growing, giving back, refusals.
 */
#include "os/os.h"
#include "range/purge.h"
#include "range/superslabs.h"
#include "range_check.h"
#include "unit.h"

TestSuite(superslabs, .timeout = 300);

/* Superslabs as the tests count them: from 1, after the tags. */
static uint32_t super(uint32_t i)
{
    return first_super() + i - 1;
}

static uint32_t take_whole(void)
{
    uint32_t warm = 1;
    uint32_t i = haki_range_super_take(HAK_LANE_ACE, &warm);

    cr_assert_neq(i, HAK_NO_SUPER);
    cr_assert_eq(warm, 0);
    return i - first_super() + 1;
}

/* Takes `count` at the high end that are all zero. */
static uint32_t take_run(uint32_t count, uint32_t align)
{
    bool zero = false;
    uint32_t i = haki_range_supers_take(count, align, HAK_LANE_HUGE, &zero);

    cr_assert_neq(i, HAK_NO_SUPER);
    cr_assert(zero);
    return i;
}

static void give_run(uint32_t first, uint32_t count, uint32_t warm)
{
    haki_range_supers_give(first, count, HAK_LANE_HUGE, warm);
}

/* ---- where they lie ------------------------------------------------------- */

Test(superslabs, without_a_range_there_are_none)
{
    uint32_t warm;
    bool zero;

    cr_assert_eq(haki_range_super_take(HAK_LANE_ACE, &warm), HAK_NO_SUPER);
    cr_assert_eq(haki_range_supers_take(1, 1, HAK_LANE_HUGE, &zero),
                 HAK_NO_SUPER);
}

Test(superslabs, single_ones_come_from_the_low_end_between_those_with_slabs)
{
    cr_assert(haki_range_init());
    cr_assert_eq(take_whole(), 1);
    cr_assert_eq(take(), HAK_SUPER_SLABS + 1);
    cr_assert_eq(take_whole(), 3);
    cr_assert_eq(take(), HAK_SUPER_SLABS + 2);
    range_check();
    haki_range_supers_give(super(1), 1, HAK_LANE_ACE, 0);
    cr_assert_eq(take(), HAK_SUPER_SLABS + 3, "cut ones are used up first");
    cr_assert_eq(take_whole(), 1);
    cr_assert_eq(take_whole(), 4);
    cr_assert_eq(figures_now().held[HAK_LANE_ACE], 3 * HAK_SUPER_SIZE);
    memset(haki_range_super_start(super(3)), 1, HAK_SUPER_SIZE);
    memset(haki_range_super_meta(super(3)), 1, HAK_SUPER_META);
    range_check();
}

Test(superslabs, runs_come_from_the_high_end)
{
    uint32_t end, one, two;

    cr_assert(haki_range_init());
    end = haki_supers.limit;
    one = take_run(3, 1);
    two = take_run(5, 1);
    cr_assert_eq(one, end - 3);
    cr_assert_eq(two, end - 8);
    cr_assert_eq(haki_range_super_start(one) + 3 * HAK_SUPER_SIZE,
                 (char *)haki_range.base + haki_range.size);
    cr_assert_eq(figures_now().held[HAK_LANE_HUGE], 8 * HAK_SUPER_SIZE);
    cr_assert_eq(figures_now().committed, 8 * HAK_SUPER_SIZE);
    range_check();
    give_run(one, 3, 0);
    cr_assert_eq(take_run(4, 1), end - 12, "the gap of 3 is too small");
    cr_assert_eq(take_run(2, 1), end - 2);
    cr_assert_eq(take_run(1, 1), end - 3);
    cr_assert_eq(figures_now().committed, 12 * HAK_SUPER_SIZE);
    range_check();
}

Test(superslabs, runs_are_aligned_by_their_address)
{
    cr_assert(haki_range_init());
    for (uint32_t align = 1; align <= 64; align *= 2) {
        for (uint32_t count = 1; count <= 9; count += 4) {
            uint32_t first = take_run(count, align);

            cr_assert_eq((uintptr_t)haki_range_super_start(first) %
                             (align * HAK_SUPER_SIZE),
                         0);
        }
    }
    range_check();
}

Test(superslabs, the_head_of_every_one_is_known)
{
    uint32_t run;

    cr_assert(haki_range_init());
    cr_assert_eq(take_whole(), 1);
    take();
    run = take_run(5, 1);
    cr_assert_eq(haki_range_super_head(super(1)), super(1));
    cr_assert_eq(haki_range_super_head(super(2)), HAK_NO_SUPER, "has slabs");
    cr_assert_eq(haki_range_super_head(super(3)), HAK_NO_SUPER, "is free");
    cr_assert_eq(haki_range_super_head(0), HAK_NO_SUPER, "has the tags");
    for (uint32_t i = run; i < run + 5; i++) {
        cr_assert_eq(haki_range_super_head(i), run);
    }
    give_run(run, 5, 0);
    cr_assert_eq(haki_range_super_head(run), HAK_NO_SUPER);
    cr_assert_eq(haki_range_super_head(run + 4), HAK_NO_SUPER);
}

/* ---- what is warm --------------------------------------------------------- */

Test(superslabs, what_slabs_left_behind_is_told)
{
    uint32_t warm = 0, i;

    cr_assert(haki_range_init());
    for (uint32_t n = 1; n <= HAK_SUPER_SLABS; n++) {
        cr_assert_eq(take(), n);
    }
    cr_assert(ready(3, 5000, 0));
    cr_assert(ready(32, 65536, 0));
    start(3)[0] = start(32)[9] = 1;
    for (uint32_t n = 1; n <= HAK_SUPER_SLABS; n++) {
        give(n);
    }
    cr_assert_eq(haki_range_unused(), HAK_SUPER_SIZE);
    i = haki_range_super_take(HAK_LANE_ACE, &warm);
    cr_assert_eq(i, super(1));
    cr_assert_eq(warm, 1u << 2 | 1u << 31);
    cr_assert_eq(haki_range_unused(), 0);
    cr_assert_eq(figures_now().resident, 0, "it is its lane's to count");
    range_check();
}

Test(superslabs, what_a_lane_left_behind_is_told)
{
    uint32_t warm = 0, first;
    bool zero;

    cr_assert(haki_range_init());
    cr_assert_eq(take_whole(), 1);
    haki_range_supers_give(super(1), 1, HAK_LANE_ACE, 0xf0);
    cr_assert_eq(figures_now().resident, 4 * HAK_SLAB_SIZE);
    cr_assert_eq(haki_range_unused(), HAK_SUPER_SIZE);
    range_check();
    cr_assert_eq(haki_range_super_take(HAK_LANE_ACE, &warm), super(1));
    cr_assert_eq(warm, 0xf0);
    cr_assert_eq(figures_now().resident, 0);
    haki_range_supers_give(super(1), 1, HAK_LANE_ACE, warm);

    first = take_run(3, 1);
    give_run(first, 3, HAK_ALL_SLABS);
    cr_assert_eq(haki_range_unused(), 4 * HAK_SUPER_SIZE);
    range_check();
    cr_assert_eq(haki_range_supers_take(1, 1, HAK_LANE_HUGE, &zero), first + 2);
    cr_assert_not(zero);
    cr_assert_eq(haki_range_supers_take(4, 1, HAK_LANE_HUGE, &zero), first - 2);
    cr_assert_not(zero, "two of the four are warm");
    cr_assert_eq(figures_now().resident, 4 * HAK_SLAB_SIZE);
    range_check();
}

/* Slabs are taken of one that a lane had whole: warm ones first. */
Test(superslabs, slabs_come_from_one_that_was_given_back)
{
    cr_assert(haki_range_init());
    cr_assert_eq(take_whole(), 1);
    memset(haki_range_super_meta(super(1)), 0xff, HAK_SUPER_META);
    haki_range_supers_give(super(1), 1, HAK_LANE_ACE, 1u << 7 | 1u << 8);
    cr_assert_eq(take(), 8);
    cr_assert_eq(slab(8)->resident, HAK_SLAB_SIZE);
    cr_assert_eq(take(), 9);
    cr_assert_eq(take(), 1);
    cr_assert_eq(slab(1)->resident, 0);
    cr_assert_eq(figures_now().resident, 2 * HAK_SLAB_SIZE);
    range_check();
}

Test(superslabs, a_purge_makes_them_zero)
{
    uint32_t first, warm;
    bool zero;

    cr_assert(haki_range_init());
    first = take_run(2, 1);
    memset(haki_range_super_start(first), 7, 2 * HAK_SUPER_SIZE);
    give_run(first, 2, HAK_ALL_SLABS);
    cr_assert_eq(take_whole(), 1);
    memset(haki_range_super_start(super(1)), 7, HAK_SLAB_SIZE);
    haki_range_supers_give(super(1), 1, HAK_LANE_ACE, 1);
    cr_assert_eq(figures_now().resident, 65 * HAK_SLAB_SIZE);
    cr_assert_eq(haki_range_purge(), 65 * HAK_SLAB_SIZE);
    cr_assert_eq(figures_now().resident, 0);
    cr_assert_eq(haki_range_unused(), 0);
    range_check();
    cr_assert_eq(haki_range_supers_take(2, 1, HAK_LANE_HUGE, &zero), first);
    cr_assert(zero);
    cr_assert_eq(haki_range_super_take(HAK_LANE_ACE, &warm), super(1));
    cr_assert_eq(warm, 0);
    cr_assert_eq(unit_resident(haki_range_super_start(first), HAK_SUPER_SIZE),
                 0);
    cr_assert_eq(haki_range_super_start(first)[HAK_SUPER_SIZE], 0);
    cr_assert_eq(haki_range_super_start(super(1))[0], 0);
}

/* The same with `more` superslabs and no room. */
static bool grow(uint32_t first, uint32_t count, uint32_t more, bool *zero)
{
    uint32_t room = 0;

    return haki_range_run_grow(first, count, &room,
                               ((size_t)count + more) * HAK_SUPER_SIZE,
                               HAK_LANE_HUGE, zero);
}

/* ---- growing --------------------------------------------------------------- */

Test(superslabs, a_run_grows_into_what_is_free_behind_it)
{
    uint32_t end, run, behind;
    bool zero = false;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    end = haki_supers.limit;
    behind = take_run(2, 1);
    run = take_run(10, 1);
    cr_assert_eq(run, end - 12);
    cr_assert_not(grow(run, 10, 1, &zero));
    give_run(behind, 2, 0);
    cr_assert_not(grow(run, 10, 3, &zero), "the end");
    cr_assert_not(grow(run, 10, 100000000, &zero));
    cr_assert_eq(figures_now().held[HAK_LANE_HUGE], 10 * HAK_SUPER_SIZE);
    cr_assert(grow(run, 10, 1, &zero));
    cr_assert(zero);
    cr_assert_eq(haki_range_super_head(end - 2), run);
    cr_assert_eq(haki_range_super_head(end - 1), HAK_NO_SUPER);
    range_check();
    /* The tail may be given alone, and is what growing finds warm. */
    give_run(run + 6, 5, 1);
    cr_assert_eq(haki_range_super_head(run + 5), run);
    cr_assert_eq(haki_range_super_head(run + 6), HAK_NO_SUPER);
    range_check();
    cr_assert(grow(run, 6, 2, &zero));
    cr_assert_not(zero);
    cr_assert_eq(figures_now().held[HAK_LANE_HUGE], 8 * HAK_SUPER_SIZE);
    range_check();
}

/* ---- refusals --------------------------------------------------------------- */

Test(superslabs, a_refused_commit_is_none_and_the_next_try_works)
{
    uint32_t warm, run, calls;
    bool zero;

    cr_assert(haki_range_init());
    haki_os_test_refuse(1, false);
    cr_assert_eq(haki_range_super_take(HAK_LANE_ACE, &warm), HAK_NO_SUPER);
    range_check();
    cr_assert_eq(take_whole(), 1);
    for (unsigned n = 1;; n++) {
        haki_os_test_refuse(n, false);
        run = haki_range_supers_take(3, 1, HAK_LANE_HUGE, &zero);
        calls = haki_os_test_calls();
        haki_os_test_refuse(0, false);
        range_check();
        if (run != HAK_NO_SUPER) {
            break;
        }
        cr_assert_eq(calls, n);
        cr_assert_eq(figures_now().held[HAK_LANE_HUGE], 0);
    }
    cr_assert_eq(run, haki_supers.limit - 3);
    /* What is behind the first one has never been used. */
    haki_os_test_refuse(1, false);
    cr_assert_not(grow(super(1), 1, 2, &zero));
    range_check();
    cr_assert(grow(super(1), 1, 2, &zero));
    cr_assert(zero);
    cr_assert_eq(haki_range_super_head(super(3)), super(1));
    range_check();
}

Test(superslabs, a_small_range_is_given_to_its_last_superslab)
{
    uint32_t warm, run, count = 0;
    bool zero;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    cr_assert_eq(haki_range_supers_take(512, 1, HAK_LANE_HUGE, &zero),
                 HAK_NO_SUPER, "the tags are in the way");
    cr_assert_eq(haki_range_supers_take(100000, 1, HAK_LANE_HUGE, &zero),
                 HAK_NO_SUPER);
    run = take_run(450, 1);
    while (haki_range_super_take(HAK_LANE_ACE, &warm) != HAK_NO_SUPER) {
        count++;
    }
    cr_assert_eq(count, 512 - 450 - first_super());
    cr_assert_eq(haki_range_supers_take(1, 1, HAK_LANE_HUGE, &zero),
                 HAK_NO_SUPER);
    cr_assert_eq(take(), 0);
    range_check();
    give_run(run + 7, 1, 0);
    cr_assert_eq(haki_range_super_take(HAK_LANE_ACE, &warm), run + 7);
}

/* ---- random use -------------------------------------------------------------- */

struct held {
    uint32_t first, count;
    enum hak_lane lane;
};

static void held_take(struct held *held, struct unit_random *random)
{
    uint32_t warm = 0;
    bool zero;

    held->lane = unit_below(random, 2) ? HAK_LANE_ACE : HAK_LANE_HUGE;
    if (held->lane == HAK_LANE_ACE) {
        held->count = 1;
        held->first = haki_range_super_take(HAK_LANE_ACE, &warm);
        zero = warm == 0;
    } else {
        held->count = 1 + (uint32_t)unit_below(random, 20);
        held->first =
            haki_range_supers_take(held->count, 1u << unit_below(random, 4),
                                   HAK_LANE_HUGE, &zero);
    }
    NEED(held->first != HAK_NO_SUPER);
    for (uint32_t i = 0; i < held->count; i++) {
        char *at = haki_range_super_start(held->first + i);

        NEED(!zero || (at[0] == 0 && at[HAK_SUPER_SIZE - 1] == 0));
        NEED(haki_range_super_head(held->first + i) == held->first);
        at[0] = at[HAK_SUPER_SIZE - 1] = 1;
    }
}

static void held_give(struct held *held)
{
    for (uint32_t i = 0; i < held->count; i++) {
        NEED(haki_range_super_head(held->first + i) == held->first);
        NEED(haki_range_super_start(held->first + i)[0] == 1);
    }
    haki_range_supers_give(held->first, held->count, held->lane, 1u << 31 | 1u);
    held->count = 0;
}

Test(superslabs, random_use_keeps_every_promise)
{
    static struct held held[60];
    static uint32_t slabs[200];
    struct unit_random random = {5};

    setenv("HAKMEM_HUGE_PAGES", "never", 1);
    cr_assert(haki_range_init());
    for (size_t i = 0; i < unit_scale(10000, 2000); i++) {
        struct held *at = &held[unit_below(&random, 60)];
        uint32_t *one = &slabs[unit_below(&random, 200)];

        at->count == 0 ? held_take(at, &random) : held_give(at);
        if (*one == 0) {
            *one = take_one();
            cr_assert(ready(*one, 1 + unit_below(&random, HAK_SLAB_SIZE), 0));
        } else {
            give(*one);
            *one = 0;
        }
        if (i % 100 == 0) {
            range_check();
        }
        if (i % 700 == 0) {
            haki_range_purge();
            range_check();
        }
    }
    for (size_t i = 0; i < 60; i++) {
        if (held[i].count > 0) {
            held_give(&held[i]);
        }
    }
    range_check();
    cr_assert_eq(figures_now().held[HAK_LANE_ACE], 0);
    cr_assert_eq(figures_now().held[HAK_LANE_HUGE], 0);
}
