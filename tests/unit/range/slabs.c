/*
 * slabs.c - tests of the shared pool of slabs and spans: which comes next, refusals,
 * random use, several threads. What of them is resident is in slabs_resident.c.
 */
#include "range/supers.h"

#include "os/os.h"
#include "range/purge.h"
#include "range/slabs.h"
#include "range_check.h"
#include "unit.h"

TestSuite(slabs, .timeout = 300);

/* ---- the shared pool ----------------------------------------------------- */

Test(slabs, the_lowest_address_comes_first_after_the_tags)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 3 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
    }
    give(70);
    give(5);
    give(40);
    range_check();
    cr_assert_eq(take(), 5);
    cr_assert_eq(take(), 40);
    cr_assert_eq(take(), 70);
    cr_assert_eq(take(), 3 * HAK_SUPER_SLABS + 1);
    range_check();
}

/* A superslab that is in use anyhow comes before one that is free. */
Test(slabs, superslabs_in_use_are_filled_before_another_is_cut)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 4 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
    }
    for (uint32_t i = 1; i <= HAK_SUPER_SLABS; i++) {
        give(i);
    }
    give(70);
    give(100);
    range_check();
    cr_assert_eq(take(), 70);
    cr_assert_eq(take(), 100);
    cr_assert_eq(take(), 1);
    cr_assert_eq(take(), 2);
    cr_assert_eq(figures_now().committed, 4 * HAK_SUPER_SIZE);
    range_check();
}

Test(slabs, superslabs_are_committed_one_by_one)
{
    struct hak_range_counts counts;
    uint32_t taken = 0;

    cr_assert(haki_range_init());
    cr_assert_eq(figures_now().committed, 0);
    for (uint32_t supers = 1; supers <= 70; supers++) {
        while (taken < supers * HAK_SUPER_SLABS) {
            char *at;

            cr_assert_eq(take(), ++taken);
            counts = figures_now();
            cr_assert_eq(counts.committed, supers * HAK_SUPER_SIZE);
            cr_assert_eq(counts.slabs_used, taken);
            at = start(taken);
            at[0] = at[HAK_SLAB_SIZE - 1] = 1;
        }
    }
    range_check();
}

Test(slabs, a_given_slab_has_tag_0)
{
    uint32_t first, second;

    cr_assert(haki_range_init());
    first = take();
    second = take();
    set_tag(first, 0x123);
    set_tag(second, 0x456);
    cr_assert_eq(tag_at(first, 0), 0x123);
    cr_assert_eq(tag_at(first, 65535), 0x123);
    cr_assert_eq(tag_at(first, 65536), 0x456);
    give(first);
    cr_assert_eq(tag_at(first, 0), 0);
    cr_assert_eq(tag_at(second, 0), 0x456);
}

/* Spans of 1 to 8 slabs, in one list. */
Test(slabs, a_list_of_spans_is_given_at_once)
{
    uint32_t list = HAK_NO_SLAB, total = 0;

    cr_assert(haki_range_init());
    haki_range_list_give(HAK_NO_SLAB, HAK_LANE_POOL);
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t count = 1 + i % HAK_SPAN_MOST;
        uint32_t number = haki_range_slabs_take(count, HAK_LANE_POOL,
                                                HAK_CLASS_ANY, HAK_SLABS_ALL);

        for (uint32_t n = 0; n < count; n++) {
            haki_range_set_tag(number + n, 0x100);
        }
        haki_range_slab(number)->slabs = (uint8_t)count;
        haki_range_slab(number)->all_next = list;
        list = number;
        total += count;
    }
    cr_assert_eq(figures_now().slabs_used, total);
    cr_assert_eq(figures_now().held[HAK_LANE_POOL], total * HAK_SLAB_SIZE);
    haki_range_list_give(list, HAK_LANE_POOL);
    cr_assert_eq(figures_now().slabs_used, 0);
    cr_assert_eq(figures_now().held[HAK_LANE_POOL], 0);
    cr_assert_eq(figures_now().held_peak[HAK_LANE_POOL], total * HAK_SLAB_SIZE);
    range_check();
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert_eq(tag_at(i, 0), 0);
    }
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert_eq(take(), i);
    }
}

/* ---- spans --------------------------------------------------------------- */

Test(slabs, a_span_lies_in_one_superslab)
{
    uint32_t last = 0, total = 0;

    cr_assert(haki_range_init());
    for (uint32_t n = 0; n < 200; n++) {
        uint32_t count = 3 + n % 6;
        uint32_t i = take_span(count, HAK_LANE_POOL);

        cr_assert_neq(i, 0);
        cr_assert_eq((i - 1) / HAK_SUPER_SLABS,
                     (i + count - 2) / HAK_SUPER_SLABS);
        for (uint32_t k = 0; k < count; k++) {
            cr_assert_eq(tag_at(i + k, 0), 0, "nobody has it");
            set_tag(i + k, 0x100 + n);
        }
        last = i + count - 1 > last ? i + count - 1 : last;
        total += count;
    }
    cr_assert_leq(last, total + 2 * HAK_SUPER_SLABS, "gaps are filled");
    cr_assert_eq(figures_now().slabs_used, total);
    range_check();
}

Test(slabs, a_span_goes_into_the_lowest_gap_that_has_room)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
    }
    give(4);
    for (uint32_t i = 10; i < 13; i++) {
        give(i);
    }
    for (uint32_t i = 29; i <= 35; i++) {
        give(i); /* 29 to 32 and 33 to 35: a superslab's bound between */
    }
    cr_assert_eq(take_span(4, HAK_LANE_POOL), 29);
    cr_assert_eq(take_span(4, HAK_LANE_POOL), 65);
    cr_assert_eq(take_span(3, HAK_LANE_POOL), 10);
    cr_assert_eq(take_span(3, HAK_LANE_POOL), 33);
    cr_assert_eq(take_span(2, HAK_LANE_POOL), 69);
    cr_assert_eq(take(), 4);
    range_check();
}

Test(slabs, what_each_lane_holds_is_counted_apart)
{
    uint32_t i[HAK_LANES];

    cr_assert(haki_range_init());
    for (int lane = 0; lane < HAK_LANES; lane++) {
        i[lane] = take_span((uint32_t)lane + 1, (enum hak_lane)lane);
        cr_assert_eq(figures_now().held[lane],
                     ((size_t)lane + 1) * HAK_SLAB_SIZE);
    }
    for (int lane = 0; lane < HAK_LANES; lane++) {
        haki_range_slabs_give(number_of(i[lane]), (uint32_t)lane + 1,
                              (enum hak_lane)lane);
        cr_assert_eq(figures_now().held[lane], 0);
        cr_assert_eq(figures_now().held_peak[lane],
                     ((size_t)lane + 1) * HAK_SLAB_SIZE);
    }
    range_check();
}

/* ---- warm slabs ---------------------------------------------------------- */

Test(slabs, warm_slabs_come_first_lowest_address_first)
{
    static const uint32_t warm[] = {7, 31, 33, 64, 90};
    uint32_t cold = 1;

    cr_assert(haki_range_init());
    for (int i = 0; i < 96; i++) {
        cr_assert_neq(take(), 0);
    }
    for (int i = 0; i < 5; i++) {
        cr_assert(ready(warm[i], 100, 0));
    }
    for (uint32_t number = 96; number >= 1; number--) {
        give(number);
        range_check();
    }
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(take(), warm[i]);
        cr_assert_eq(slab(warm[i])->resident, HAK_PAGE);
    }
    for (int i = 0; i < 91; i++, cold++) {
        while (cold == 7 || cold == 31 || cold == 33 || cold == 64 ||
               cold == 90) {
            cold++;
        }
        cr_assert_eq(take(), cold);
        cr_assert_eq(slab(cold)->resident, 0);
    }
    range_check();
}

/* A span begins on a warm slab if one has room behind it. */
Test(slabs, a_span_begins_on_a_warm_slab)
{
    cr_assert(haki_range_init());
    for (uint32_t i = 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
    }
    for (uint32_t i = 1; i <= 64; i++) {
        if (i == 6 || i == 32 || i == 50) {
            cr_assert(ready(i, 5000, 0));
        }
        if ((i >= 3 && i <= 8) || i >= 20) {
            give(i);
        }
    }
    range_check();
    cr_assert_eq(take_span(4, HAK_LANE_POOL), 50); /* 6 has 3, 32 has 1 */
    cr_assert_eq(slab(50)->resident, 2 * HAK_PAGE);
    cr_assert_eq(take_span(4, HAK_LANE_POOL), 3);
    cr_assert_eq(slab(6)->resident, 2 * HAK_PAGE);
    cr_assert_eq(take_span(2, HAK_LANE_POOL), 7);
    cr_assert_eq(take(), 32);
    cr_assert_eq(slab(32)->resident, 2 * HAK_PAGE);
    range_check();
}

/* ---- refusals ------------------------------------------------------------ */

Test(slabs, a_refused_commit_is_no_slab_and_the_next_try_works)
{
    cr_assert(haki_range_init());
    for (int n = 1; n <= 2; n++) {
        haki_os_test_refuse(1, false);
        cr_assert_eq(take(), 0);
        cr_assert_eq(haki_os_test_calls(), 1);
        cr_assert_eq(figures_now().committed, 0);
        cr_assert_eq(figures_now().slabs_used, 0);
        cr_assert_eq(figures_now().held[HAK_LANE_TINY], 0);
        range_check();
    }
    cr_assert_eq(take(), 1);
    range_check();
}

/* The descriptors of every 32nd superslab are mapped before it, but for those
 * of the first one, which are there from the start. */
Test(slabs, refused_descriptors_are_no_slab_and_the_next_try_works)
{
    uint32_t taken = 0;
    size_t committed;

    cr_assert(haki_range_init());
    while (taken == 0 ||
           number_of(taken + 1) % (HAK_META_STEP / sizeof(struct hak_slab))) {
        cr_assert_eq(take(), ++taken);
    }
    committed = figures_now().committed;
    for (unsigned n = 1; n <= 2; n++) {
        haki_os_test_refuse(n, false);
        cr_assert_eq(take(), 0);
        cr_assert_eq(haki_os_test_calls(), n);
        cr_assert_eq(figures_now().committed, committed);
        cr_assert_eq(figures_now().slabs_used, taken);
        haki_os_test_refuse(0, false);
    }
    cr_assert_eq(take(), taken + 1);
    cr_assert_eq(haki_os_test_calls(), 1, "the descriptors were there already");
    slab(taken + 1)->block = 1;
    range_check();
}

/* ---- a small range, full -------------------------------------------------- */

Test(slabs, a_small_range_gives_every_slab_and_then_none)
{
    uint32_t total;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    cr_assert_eq(haki_range.size, HAK_GIB);
    total = (uint32_t)(HAK_GIB / HAK_SLAB_SIZE) - unit_first_slab();
    cr_assert_geq(total, 15000);
    for (uint32_t i = 1; i <= total; i++) {
        cr_assert_eq(take(), i);
    }
    range_check();
    cr_assert_eq(take(), 0);
    cr_assert_eq(take(), 0);
    start(total)[HAK_SLAB_SIZE - 1] = 1;
    give(total);
    give(12345);
    cr_assert_eq(take_span(2, HAK_LANE_TINY), 0);
    cr_assert_eq(take(), 12345);
    cr_assert_eq(take(), total);
    cr_assert_eq(take(), 0);
    range_check();
}

/* ---- random use against a shadow ------------------------------------------ */

enum { SUPERS = 12, SHADOW = SUPERS * 32 };

/* What must be so; slabs are counted from 0 here. */
struct shadow {
    uint8_t span[SHADOW]; /* slabs of the span that begins here, 0: none */
    bool used[SHADOW];
    uint32_t resident[SHADOW];
    size_t count;
};

/* Whether n free slabs lie side by side from i on. */
static bool has_room(const struct shadow *shadow, uint32_t i, uint32_t n)
{
    for (uint32_t k = i; k < i + n; k++) {
        if (k / 32 != i / 32 || shadow->used[k]) {
            return false;
        }
    }
    return true;
}

static uint32_t used_of(const struct shadow *shadow, uint32_t super)
{
    uint32_t used = 0;

    for (uint32_t k = super * 32; k < super * 32 + 32; k++) {
        used += shadow->used[k];
    }
    return used;
}

/* Of the places of i's superslab from i on, the one with most resident. */
static uint32_t warmest_from(const struct shadow *shadow, uint32_t i,
                             uint32_t n)
{
    uint32_t best = i;

    for (uint32_t k = i; k < (i / 32 + 1) * 32; k++) {
        if (has_room(shadow, k, n) &&
            shadow->resident[k] > shadow->resident[best]) {
            best = k;
        }
    }
    return best;
}

/*
 * Where a span of n must come: on the warmest slab of the lowest superslab
 * that has one, in a superslab in use, in the lowest free one. SHADOW: only
 * beyond what the shadow knows.
 */
static uint32_t next_span(const struct shadow *shadow, uint32_t n)
{
    for (uint32_t i = 0; i < SHADOW; i++) {
        if (shadow->resident[i] > 0 && has_room(shadow, i, n)) {
            return warmest_from(shadow, i, n);
        }
    }
    for (uint32_t i = 0; i < SHADOW; i++) {
        if (used_of(shadow, i / 32) > 0 && has_room(shadow, i, n)) {
            return i;
        }
    }
    for (uint32_t i = 0; i < SHADOW; i += 32) {
        if (used_of(shadow, i / 32) == 0) {
            return i;
        }
    }
    return SHADOW;
}

static void shadow_take(struct shadow *shadow, uint32_t n)
{
    uint32_t expected = next_span(shadow, n);

    if (expected == SHADOW) {
        return;
    }
    cr_assert_eq(take_span(n, HAK_LANE_POOL), expected + 1);
    shadow->span[expected] = (uint8_t)n;
    shadow->count += n;
    for (uint32_t i = expected; i < expected + n; i++) {
        cr_assert_eq(slab(i + 1)->resident, shadow->resident[i]);
        set_tag(i + 1, 0x10000 + i);
        shadow->used[i] = true;
    }
}

static void shadow_give(struct shadow *shadow, uint32_t i)
{
    uint32_t n = shadow->span[i];

    haki_range_slabs_give(number_of(i + 1), n, HAK_LANE_POOL);
    memset(&shadow->used[i], 0, n * sizeof(bool));
    shadow->span[i] = 0;
    shadow->count -= n;
}

static void shadow_touch(struct shadow *shadow, uint32_t i,
                         struct unit_random *random)
{
    uint32_t n = shadow->span[i];
    size_t need = 1 + unit_below(random, n * HAK_SLAB_SIZE);
    size_t step = unit_below(random, 20) * HAK_PAGE;

    cr_assert(haki_range_ready(number_of(i + 1), n, need, step));
    cr_assert_geq(haki_range_resident(number_of(i + 1), n), need);
    for (uint32_t k = i; k < i + n; k++) {
        cr_assert_geq(slab(k + 1)->resident, shadow->resident[k]);
        shadow->resident[k] = slab(k + 1)->resident;
    }
    start(i + 1)[need - 1] = 1;
}

static void shadow_purge(struct shadow *shadow)
{
    size_t bytes = 0;

    for (uint32_t n = 0; n < SHADOW; n++) {
        if (!shadow->used[n]) {
            bytes += shadow->resident[n];
            shadow->resident[n] = 0;
        }
    }
    cr_assert_eq(haki_range_purge(), bytes);
}

static void shadow_check(const struct shadow *shadow)
{
    size_t populated = 0;

    range_check();
    for (uint32_t n = 0; n < SHADOW; n++) {
        cr_assert_eq(tag_at(n + 1, 0), shadow->used[n] ? 0x10000 + n : 0);
        populated += shadow->resident[n];
    }
    cr_assert_eq(figures_now().slabs_used, shadow->count);
    cr_assert_eq(figures_now().resident, populated);
}

Test(slabs, random_use_agrees_with_a_shadow)
{
    static struct shadow shadow;
    struct unit_random random = {2};
    size_t steps = unit_scale(40000, 4000);

    setenv("HAKMEM_HUGE_PAGES", "never", 1);
    cr_assert(haki_range_init());
    for (size_t i = 0; i < steps; i++) {
        uint32_t n = (uint32_t)unit_below(&random, SHADOW);
        size_t what = unit_below(&random, 1000);

        if (what < 50 + 300 * (i / 1000 % 2)) {
            shadow_take(&shadow, 1 + (uint32_t)unit_below(&random, 8));
        } else if (what > 997) {
            shadow_purge(&shadow);
        } else if (shadow.span[n] > 0 && what < 800) {
            shadow_give(&shadow, n);
        } else if (shadow.span[n] > 0) {
            shadow_touch(&shadow, n, &random);
        }
        if (i % 100 == 0) {
            shadow_check(&shadow);
        }
    }
    shadow_check(&shadow);
}

/* ---- several threads ------------------------------------------------------- */

static _Atomic(uint32_t) holders[16384];

struct span {
    uint32_t number, count;
};

static void hold(struct span *span, uint32_t from, uint32_t to)
{
    for (uint32_t n = span->number; n < span->number + span->count; n++) {
        NEED(atomic_exchange(&holders[n], to) == from);
    }
}

static void *take_and_give(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    uint32_t me = (uint32_t)(uintptr_t)arg;
    struct span mine[64] = {{0, 0}};

    for (size_t i = 0; i < unit_scale(100000, 2000); i++) {
        struct span *at = &mine[unit_below(&random, 64)];

        if (at->number != HAK_NO_SLAB) {
            hold(at, me, 0);
            haki_range_slabs_give(at->number, at->count, HAK_LANE_POOL);
            at->number = HAK_NO_SLAB;
        } else {
            at->count = 1 + (uint32_t)unit_below(&random, HAK_SPAN_MOST);
            at->number = haki_range_slabs_take(at->count, HAK_LANE_POOL,
                                               HAK_CLASS_ANY, HAK_SLABS_ALL);
            NEED(at->number != HAK_NO_SLAB && at->number < 16000);
            hold(at, 0, me);
            NEED(haki_range_ready(at->number, at->count,
                                  1 + unit_below(&random, HAK_SLAB_SIZE), 0));
        }
        if (i % 1000 == 0) {
            haki_range_purge();
        }
    }
    return NULL;
}

Test(slabs, threads_never_hold_the_same_slab)
{
    pthread_t threads[4];

    cr_assert(haki_range_init());
    for (uintptr_t i = 0; i < 4; i++) {
        threads[i] = unit_start(take_and_give, (void *)(i + 1));
    }
    for (int i = 0; i < 4; i++) {
        unit_join(threads[i]);
    }
    range_check();
}
