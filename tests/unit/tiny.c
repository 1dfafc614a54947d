/*
 * tiny.c - tests of the Tiny lane's slow half: carve, refill, overflow and
 * flush, trim, open lists, slab states; the invariants of core/tiny/tiny.h after
 * every kind of use.
 */
#include "tiny/tiny.h"

#include "settings/options.h"
#include "os/os.h"
#include "range/purge.h"
#include "range/slabs.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(tiny, .timeout = 120);

/*
 * As in core/tiny/tiny.c: pushes between two looks while memory waits to go, and in
 * a large heap.
 */
enum { ALERT_PUSHES = 32, LARGE_PUSHES = 512, QUIET_PUSHES = 8 };
enum { QUIET_TIME = 50, BUSY_TIME = 10 }; /* milliseconds */

static unsigned class_of(size_t size)
{
    return haki_tiny_class_16[haki_tiny_index(size)];
}

static size_t slabs_used(void)
{
    struct hak_range_counts counts;

    haki_range_counts(&counts);
    return counts.slabs_used;
}

static struct hak_slab *slab_of(const void *p)
{
    return haki_range_slab(tiny_number(p));
}

/* The head list's count, by its counters. */
static size_t head_count(const struct hak_tiny *tiny, unsigned class)
{
    const struct hak_shelf *shelf = &tiny->shelves[class];
    const struct hak_bin *bin = &tiny->bins[class];

    return (size_t)(shelf->base + (shelf->grant - bin->left) -
                    (int64_t)haki_bin_pops(tiny, class));
}

/* ---- init ------------------------------------------------------------------ */

Test(tiny, a_new_state_is_empty_and_its_bins_take_pushes)
{
    struct hak_tiny *tiny = tiny_new(false);

    tiny_check(tiny);
    cr_assert_eq(tiny->tag, tiny->id << 8);
    cr_assert_eq(tiny->nslabs, 0);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        cr_assert_null(tiny->bins[c].head);
        cr_assert_geq(tiny->bins[c].left, 8);
        cr_assert_leq(tiny->bins[c].left * haki_tiny_size[c], 65536);
        cr_assert_eq(tiny->shelves[c].grant, tiny->bins[c].left);
        cr_assert_eq(tiny->shelves[c].base, 0);
        cr_assert_eq(haki_bin_pops(tiny, c), 0);
        cr_assert_eq(haki_tiny_live(tiny, c), 0);
    }
    tiny_delete(tiny);
}

/* ---- carving ---------------------------------------------------------------- */

Test(tiny, every_class_carves_aligned_distinct_blocks)
{
    struct hak_tiny *tiny = tiny_new(false);
    static char *blocks[HAK_TINY_CLASSES][300];

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        size_t size = haki_tiny_size[c];

        for (size_t i = 0; i < 300; i++) {
            blocks[c][i] = haki_tiny_alloc(tiny, c);
            cr_assert_not_null(blocks[c][i]);
            cr_assert_eq(((uintptr_t)blocks[c][i] & 0xffff) % size, 0);
            cr_assert_leq(((uintptr_t)blocks[c][i] & 0xffff) + size, 65536);
            unit_fill(blocks[c][i], size, c + (unsigned)i);
        }
        cr_assert_eq(haki_tiny_live(tiny, c), 300);
    }
    tiny_check(tiny);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        for (size_t i = 0; i < 300; i++) {
            cr_assert(unit_filled(blocks[c][i], haki_tiny_size[c],
                                  c + (unsigned)i));
            haki_tiny_free(tiny, c, blocks[c][i]);
        }
        cr_assert_eq(haki_tiny_live(tiny, c), 0);
    }
    tiny_check(tiny);
    tiny_delete(tiny);
}

/* 512 bytes, then twice as many each time, up to 8 KB. */
Test(tiny, carving_doubles_up_to_8_kb_in_order_of_address)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(64);
    size_t expected = 8, carved = 0;
    char *before = NULL;

    while (carved + expected <= 1024) {
        char *first = haki_tiny_alloc(tiny, c);

        carved += expected;
        cr_assert_eq(slab_of(first)->carved, carved);
        cr_assert_eq(head_count(tiny, c), expected - 1);
        tiny_check(tiny);
        for (size_t i = 1; i < expected; i++) {
            before = haki_tiny_alloc(tiny, c);
            cr_assert(HAK_HARD || before == first + i * 64);
        }
        cr_assert_null(tiny->bins[c].head);
        expected = haki_min(expected * 2, 128);
    }
    cr_assert_eq(tiny->refills, 5 + (1024 - 8 - 16 - 32 - 64 - 128) / 128);
    tiny_delete(tiny);
}

Test(tiny, a_slab_is_carved_to_its_capacity_and_not_beyond)
{
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        struct hak_tiny *tiny = tiny_new(false);
        size_t capacity = 65536 / haki_tiny_size[c];
        char *first = haki_tiny_alloc(tiny, c);
        char *p = NULL;

        for (size_t i = 1; i < capacity; i++) {
            p = haki_tiny_alloc(tiny, c);
            cr_assert_eq(slab_of(p), slab_of(first));
        }
        cr_assert_leq((size_t)(p - first) + haki_tiny_size[c], 65536);
        cr_assert_eq(slab_of(first)->carved, capacity);
        cr_assert_eq(tiny->shelves[c].fresh, HAK_NO_SLAB);
        cr_assert_eq(tiny->shelves[c].filled, 1);
        cr_assert_eq(tiny->nslabs, 1);
        cr_assert_neq(slab_of(haki_tiny_alloc(tiny, c)), slab_of(first));
        cr_assert_eq(tiny->nslabs, 2);
        tiny_check(tiny);
        tiny_delete(tiny);
    }
    cr_assert_eq(slabs_used(), 0);
}

Test(tiny, tags_name_the_heap_and_the_class)
{
    struct hak_tiny *one = tiny_new(false);
    struct hak_tiny *two = tiny_new(false);

    cr_assert_neq(one->id, two->id);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        uint32_t tag_1 =
            haki_range_tag(haki_range_offset(haki_tiny_alloc(one, c)));
        uint32_t tag_2 =
            haki_range_tag(haki_range_offset(haki_tiny_alloc(two, c)));

        cr_assert_eq(HAK_TAG_CLASS(tag_1), c * HAK_TAG_TINY);
        cr_assert_eq(HAK_TAG_HEAP(tag_1), one->id);
        cr_assert_eq(HAK_TAG_CLASS(tag_2), c * HAK_TAG_TINY);
        cr_assert_eq(HAK_TAG_HEAP(tag_2), two->id);
    }
    tiny_check(one);
    tiny_check(two);
    tiny_delete(one);
    tiny_check(two);
    tiny_delete(two);
}

/* ---- the ladder ------------------------------------------------------------- */

/*
 * Allocates what fits in one slab of the class; what is made resident on the
 * way must be what `steps` says, in KB, up to 64.
 */
static void expect_steps(struct hak_tiny *tiny, unsigned c, const size_t *steps)
{
    struct hak_slab *slab = slab_of(haki_tiny_alloc(tiny, c));
    size_t i = 0;

    for (size_t n = 1; n < 65536u / haki_tiny_size[c]; n++) {
        if (slab->resident != steps[i] * HAK_KIB) {
            i++;
        }
        cr_assert_eq(slab->resident, steps[i] * HAK_KIB, "class %u: %u", c,
                     slab->resident);
        cr_assert_eq(slab_of(haki_tiny_alloc(tiny, c)), slab);
    }
    cr_assert_eq(slab->resident, 65536);
}

/*
 * A class's first slab doubles what is resident, two pages being left to their
 * faults; the next ones go by 16 KB, then they come whole.
 */
Test(tiny, the_ladder_of_resident_pages)
{
    static const size_t first[] = {4, 8, 16, 32, 64};
    static const size_t next[] = {16, 32, 48, 64};
    static const size_t whole[] = {64};
    struct hak_tiny *tiny = tiny_new(false);
    unsigned classes[] = {class_of(64), class_of(256), class_of(512)};

    for (int k = 0; k < 3; k++) {
        unsigned c = classes[k];

        haki_os_test_refuse(0, false);
        expect_steps(tiny, c, first);
        cr_assert_eq(haki_os_test_calls(), k == 0 ? 4 : 3);
        for (int i = 1; i < 8; i++) {
            haki_os_test_refuse(0, false);
            expect_steps(tiny, c, next);
            cr_assert_eq(haki_os_test_calls(), 4);
        }
        for (int i = 8; i < 10; i++) {
            haki_os_test_refuse(0, false);
            expect_steps(tiny, c, whole);
            cr_assert_eq(haki_os_test_calls(), 1);
        }
        tiny_check(tiny);
    }
    tiny_delete(tiny);
}

/* ---- bins ------------------------------------------------------------------- */

Test(tiny, the_last_block_freed_is_the_next_given_out)
{
    struct hak_tiny *tiny = tiny_new(false);
    void *blocks[20];

    for (int i = 0; i < 20; i++) {
        blocks[i] = haki_tiny_alloc(tiny, 5);
    }
    for (int i = 0; i < 20; i++) {
        haki_tiny_free(tiny, 5, blocks[i]);
    }
    for (int i = 20; i-- > 0;) {
        cr_assert_eq(haki_tiny_alloc(tiny, 5), blocks[i]);
    }
    cr_assert_eq(haki_bin_pops(tiny, 5), 40);
    cr_assert_eq(haki_tiny_live(tiny, 5), 20);
    tiny_check(tiny);
    tiny_delete(tiny);
}

/*
 * The push beyond the budget makes all but the last block the spare list; the
 * next overflow gives the spare list to the slabs.
 */
Test(tiny, overflow_moves_the_bin_to_spare_and_spare_to_the_slabs)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[200];
    size_t freed = 0, returned = 0;
    size_t cap;

    for (size_t i = 0; i < 200; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    haki_tiny_trim(tiny); /* an empty bin with its full budget */
    cap = (size_t)tiny->bins[c].left;
    cr_assert_lt(3 * cap, 200);
    for (; freed < cap; freed++) {
        haki_tiny_free(tiny, c, blocks[freed]);
        cr_assert_null(tiny->bins[c].spare);
    }
    cr_assert_eq(tiny->flushes, 0);
    haki_tiny_free(tiny, c, blocks[freed++]);
    cr_assert_eq(tiny->flushes, 1);
    cr_assert_eq(tiny->shelves[c].spare_count, cap);
    cr_assert_eq(tiny->bins[c].spare, blocks[cap - 1]);
    cr_assert_eq(tiny->bins[c].head, blocks[cap]);
    cr_assert_null(haki_link_get(tiny->bins[c].head));
    tiny_check(tiny);
    for (; tiny->flushes < 2; freed++) {
        haki_tiny_free(tiny, c, blocks[freed]);
    }
    for (size_t i = 0; i < 200; i += 64) {
        returned += slab_of(blocks[i])->nfree;
    }
    cr_assert_eq(returned, cap);
    cr_assert_eq(haki_tiny_live(tiny, c), 200 - freed);
    tiny_check(tiny);
    tiny_delete(tiny);
}

Test(tiny, refill_takes_spare_first_then_an_open_slab_then_carves)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[200];
    struct hak_slab *first;
    uint64_t refills;
    size_t spare;

    for (size_t i = 0; i < 200; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    first = slab_of(blocks[0]);
    for (size_t i = 0; i < 50; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
    }
    cr_assert_gt(first->nfree, 0);
    while (tiny->bins[c].head != NULL) {
        haki_tiny_alloc(tiny, c);
    }
    tiny_check(tiny);
    spare = tiny->shelves[c].spare_count;
    refills = tiny->refills;
    cr_assert_gt(spare, 0);
    cr_assert_neq(haki_tiny_alloc(tiny, c), NULL);
    cr_assert_eq(head_count(tiny, c), spare - 1);
    cr_assert_gt(first->nfree, 0);
    while (tiny->bins[c].head != NULL) {
        haki_tiny_alloc(tiny, c);
    }
    spare = first->nfree;
    cr_assert_eq(slab_of(haki_tiny_alloc(tiny, c)), first);
    cr_assert_eq(first->nfree, 0, "the whole free list is taken");
    cr_assert_eq(head_count(tiny, c), spare - 1);
    cr_assert_eq(tiny->shelves[c].open, HAK_NO_SLAB);
    cr_assert_eq(tiny->refills, refills + 2);
    tiny_check(tiny);
    tiny_delete(tiny);
}

/* However blocks were freed, a slab's come out in order of address. */
Test(tiny, a_slab_is_taken_in_order_of_address)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(48);
    enum { N = 8192 };
    static char *blocks[N];
    size_t taken = 0;

    if (HAK_HARD) {
        cr_skip_test("the hardened build shuffles what it carves");
    }
    for (size_t i = 0; i < N; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    for (size_t i = 0; i < N; i++) { /* 4001 and N have no common divisor */
        size_t j = i * 4001 % N;

        if (j % 16 != 0) { /* no slab is given back whole */
            haki_tiny_free(tiny, c, blocks[j]);
        }
    }
    while (tiny->shelves[c].open != HAK_NO_SLAB) {
        uint32_t number = tiny->shelves[c].open;
        char *last = haki_tiny_alloc(tiny, c);

        while (tiny->bins[c].head != NULL) {
            char *next = haki_tiny_alloc(tiny, c);

            if (tiny_number(next) == number && tiny_number(last) == number &&
                haki_range_slab(number)->nfree == 0) {
                cr_assert_gt(next, last);
                taken++;
            }
            last = next;
        }
    }
    cr_assert_gt(taken, N / 2);
    tiny_check(tiny);
    tiny_delete(tiny);
}

/* A bin that was filled must take some pushes before it overflows. */
Test(tiny, a_filled_bin_takes_half_its_budget)
{
    struct hak_tiny *tiny = tiny_new(false);
    int32_t budget[HAK_TINY_CLASSES];

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        budget[c] = tiny->bins[c].left;
    }
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        for (size_t i = 0; i < 3 * 65536u / haki_tiny_size[c]; i++) {
            uint64_t refills = tiny->refills;

            cr_assert_not_null(haki_tiny_alloc(tiny, c));
            if (tiny->refills != refills) {
                cr_assert_geq(tiny->bins[c].left, budget[c] / 2);
            }
        }
    }
    tiny_check(tiny);
    tiny_delete(tiny);
}

/*
 * Every bin is looked at once in a while, also if it never holds much: what it
 * holds is then counted anew and nothing is flushed.
 */
Test(tiny, a_bin_is_looked_at_after_so_many_pushes)
{
    struct hak_tiny *tiny = tiny_new(false);

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c += 7) {
        void *p = haki_tiny_alloc(tiny, c);
        int32_t budget = tiny->shelves[c].grant;
        size_t held = head_count(tiny, c);

        haki_tiny_free(tiny, c, p);
        for (int look = 0; look < 3; look++) {
            int32_t left = tiny->bins[c].left;

            for (int32_t i = 0; i < left; i++) {
                haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
            }
            cr_assert_eq(tiny->bins[c].left, 0);
            tiny_check(tiny);
            haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
            cr_assert_geq(tiny->bins[c].left, budget / 2);
            cr_assert_eq(tiny->bins[c].left, tiny->shelves[c].grant);
            cr_assert_eq(head_count(tiny, c), held + 1);
            tiny_check(tiny);
        }
        cr_assert_eq(haki_tiny_live(tiny, c), 0);
    }
    cr_assert_eq(tiny->flushes, 0);
    tiny_delete(tiny);
}

/*
 * A share of the heap, once in the head and once in spare, and no more than a
 * large heap's bin takes between two looks.
 */
Test(tiny, what_a_bin_keeps_grows_with_the_heap)
{
    unsigned c = class_of(64);
    size_t count = unit_scale(500000, 200000);
    void **blocks = calloc(count, sizeof(void *));
    struct hak_tiny *tiny;
    size_t first, budget, most = 0;

    setenv("HAKMEM_PURGE_DELAY", "3600000", 1); /* nothing by time */
    tiny = tiny_new(false);
    first = (size_t)tiny->bins[c].left;
    for (size_t i = 0; i < count; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    haki_tiny_trim(tiny);
    cr_assert_gt(tiny->nslabs, HAK_TINY_LARGE);
    cr_assert_eq(tiny->bins[c].left, LARGE_PUSHES);
    budget = tiny->nslabs * HAK_SLAB_SIZE / 16 / 64;
    for (size_t i = 0; i < count; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
        most = haki_max(most, head_count(tiny, c));
        cr_assert_lt(head_count(tiny, c), budget + LARGE_PUSHES);
        cr_assert_lt(tiny->shelves[c].spare_count, budget + LARGE_PUSHES);
    }
    cr_assert_gt(most, 2 * first, "the heap must be big enough to matter");
    cr_assert_geq(most, budget / 2);
    tiny_check(tiny);
    cr_assert_leq(tiny->nslabs, 2 * budget / 1024 + 3);
    /* Used again while it is small, the bin comes back to its first size. */
    for (int i = 0; i < 3; i++) {
        haki_tiny_trim(tiny);
    }
    cr_assert_eq(tiny->nslabs, 0);
    cr_assert(tiny->alert, "slabs wait to go back");
    for (int i = 0; i < 20; i++) { /* looks that are far from each other */
        usleep(1000 * BUSY_TIME + 10000);
        tiny->bins[c].left = 0;
        tiny->shelves[c].grant = 0;
        haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
    }
    cr_assert_leq((size_t)tiny->bins[c].left, ALERT_PUSHES);
    haki_range_purge();
    haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
    haki_tiny_heed(tiny);
    haki_tiny_trim(tiny);
    cr_assert_not(tiny->alert);
    cr_assert_eq((size_t)tiny->bins[c].left, first);
    free(blocks);
    tiny_delete(tiny);
}

/* Pushes blocks of a class until its bin has been looked at. */
static void push_to_look(struct hak_tiny *tiny, unsigned c)
{
    for (int32_t i = tiny->bins[c].left; i >= 0; i--) {
        haki_tiny_free(tiny, c, haki_tiny_alloc(tiny, c));
    }
}

/* What a busy time left in the bins is found when little happens after it. */
Test(tiny, a_large_heap_that_is_quiet_is_looked_at_sooner)
{
    unsigned c = class_of(64), other = class_of(1024);
    size_t count = 100000; /* more than HAK_TINY_LARGE slabs */
    void **blocks = calloc(count, sizeof(void *));
    struct hak_tiny *tiny;

    setenv("HAKMEM_PURGE_DELAY", "3600000", 1);
    tiny = tiny_new(false);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    push_to_look(tiny, c);
    cr_assert_not(tiny->quiet);
    cr_assert_gt(tiny->bins[c].left, QUIET_PUSHES);
    cr_assert_gt(tiny->bins[other].left, QUIET_PUSHES);
    usleep(1000 * (QUIET_TIME + 20));
    push_to_look(tiny, c);
    cr_assert(tiny->quiet);
    cr_assert_leq(tiny->bins[c].left, QUIET_PUSHES);
    cr_assert_leq(tiny->bins[other].left, QUIET_PUSHES, "every bin");
    tiny_check(tiny);
    push_to_look(tiny, other);
    cr_assert_not(tiny->quiet, "much happens again");
    push_to_look(tiny, c);
    cr_assert_gt(tiny->bins[c].left, QUIET_PUSHES);
    /* A small heap is not asked whether it is quiet. */
    usleep(1000 * (QUIET_TIME + 20));
    push_to_look(tiny, c);
    cr_assert(tiny->quiet);
    for (size_t i = 0; i < count; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
    }
    haki_tiny_trim(tiny);
    haki_range_purge();
    usleep(1000 * (QUIET_TIME + 20));
    push_to_look(tiny, other);
    cr_assert_not(tiny->quiet);
    free(blocks);
    tiny_delete(tiny);
}

/* ---- slabs: open, idle, given back ------------------------------------------- */

/* Frees block i of every slab-full of 64 blocks of 1 KB, past the bin. */
Test(tiny, a_slab_is_open_exactly_while_it_has_free_blocks)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[640];

    for (size_t i = 0; i < 640; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    haki_tiny_trim(tiny);
    cr_assert_eq(tiny->nslabs, 10);
    cr_assert_eq(tiny->shelves[c].open, HAK_NO_SLAB);
    for (size_t i = 5; i < 640; i += 64) {
        haki_tiny_free(tiny, c, blocks[i]);
        haki_tiny_trim(tiny);
        tiny_check(tiny);
        cr_assert_eq(slab_of(blocks[i])->nfree, 1);
    }
    cr_assert_eq(tiny->nslabs, 10);
    for (size_t i = 0; i < 10; i++) {
        haki_tiny_alloc(tiny, c);
        tiny_check(tiny);
    }
    cr_assert_eq(tiny->shelves[c].open, HAK_NO_SLAB);
    cr_assert_eq(tiny->nslabs, 10);
    tiny_delete(tiny);
}

Test(tiny, an_idle_slab_is_given_back_unless_it_is_the_only_open_one)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[640];
    size_t used;

    for (size_t i = 0; i < 640; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    used = slabs_used();
    cr_assert_eq(used, 10);
    for (size_t i = 0; i < 640; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
        if (i % 16 == 0) {
            tiny_check(tiny);
        }
    }
    tiny_check(tiny);
    cr_assert_eq(slabs_used(), tiny->nslabs);
    cr_assert_leq(tiny->nslabs, 3, "%u", tiny->nslabs);
    cr_assert_geq(tiny->nslabs, 1);
    haki_tiny_trim(tiny);
    cr_assert_eq(tiny->nslabs, 0);
    cr_assert_eq(slabs_used(), 0);
    tiny_delete(tiny);
}

/* Else a program that frees and allocates at a slab's end takes and gives. */
Test(tiny, the_only_open_slab_stays_when_it_is_idle)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[128];
    struct hak_slab *first;
    size_t freed = 0;

    for (size_t i = 0; i < 128; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    first = slab_of(blocks[0]);
    haki_tiny_trim(tiny);
    cr_assert_eq(64 % tiny->bins[c].left, 0, "flushes end with the slab");
    while (freed < 128 && first->nfree < 64) {
        haki_tiny_free(tiny, c, blocks[freed++]);
    }
    cr_assert_eq(first->nfree, 64);
    cr_assert_lt(freed, 128);
    cr_assert_eq(tiny->nslabs, 2);
    cr_assert_eq(tiny->shelves[c].open, tiny_number(blocks[0]));
    tiny_check(tiny);
    /* As soon as it is not the only one, the next idle slab goes. */
    while (freed < 128) {
        haki_tiny_free(tiny, c, blocks[freed++]);
    }
    for (size_t i = 0; i < 128; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    cr_assert_leq(tiny->nslabs, 2);
    tiny_check(tiny);
    tiny_delete(tiny);
}

Test(tiny, one_block_in_use_keeps_its_slab_and_only_that)
{
    struct hak_tiny *tiny = tiny_new(false);

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        size_t count = 5 * 65536u / haki_tiny_size[c];
        char **blocks = calloc(count, sizeof(char *));
        char *kept;

        for (size_t i = 0; i < count; i++) {
            blocks[i] = haki_tiny_alloc(tiny, c);
        }
        kept = blocks[count / 2];
        unit_fill(kept, haki_tiny_size[c], c);
        for (size_t i = 0; i < count; i++) {
            if (i != count / 2) {
                haki_tiny_free(tiny, c, blocks[i]);
            }
        }
        haki_tiny_trim(tiny);
        cr_assert_eq(tiny->nslabs, 1, "class %u: %u", c, tiny->nslabs);
        cr_assert_eq(haki_tiny_live(tiny, c), 1);
        cr_assert(unit_filled(kept, haki_tiny_size[c], c));
        haki_tiny_free(tiny, c, kept);
        haki_tiny_trim(tiny);
        cr_assert_eq(tiny->nslabs, 0);
        tiny_check(tiny);
        free(blocks);
    }
    tiny_delete(tiny);
}

Test(tiny, trim_keeps_blocks_in_use_and_can_be_repeated)
{
    struct hak_tiny *tiny = tiny_new(false);
    char *blocks[1000];

    for (unsigned i = 0; i < 1000; i++) {
        blocks[i] = haki_tiny_alloc(tiny, i % HAK_TINY_CLASSES);
        unit_fill(blocks[i], haki_tiny_size[i % HAK_TINY_CLASSES], i);
    }
    for (int round = 0; round < 3; round++) {
        haki_tiny_trim(tiny);
        tiny_check(tiny);
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            cr_assert_null(tiny->bins[c].head);
            cr_assert_null(tiny->bins[c].spare);
            cr_assert_eq(haki_tiny_live(tiny, c), 25);
        }
    }
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert(unit_filled(blocks[i], haki_tiny_size[i % HAK_TINY_CLASSES],
                              i));
        haki_tiny_free(tiny, i % HAK_TINY_CLASSES, blocks[i]);
    }
    haki_tiny_trim(tiny);
    tiny_check(tiny);
    cr_assert_eq(tiny->nslabs, 0);
    tiny_delete(tiny);
}

Test(tiny, release_gives_every_slab_back_whatever_is_in_use)
{
    struct hak_tiny *one = tiny_new(false);
    struct hak_tiny *two = tiny_new(false);
    char *kept = haki_tiny_alloc(two, 9);

    unit_fill(kept, haki_tiny_size[9], 5);
    for (unsigned i = 0; i < 30000; i++) {
        haki_tiny_alloc(one, i % HAK_TINY_CLASSES);
    }
    cr_assert_eq(slabs_used(), one->nslabs + 1);
    haki_tiny_release(one);
    cr_assert_eq(slabs_used(), 1);
    cr_assert_eq(one->nslabs, 0);
    cr_assert(unit_filled(kept, haki_tiny_size[9], 5));
    haki_tiny_release(one);
    cr_assert_eq(slabs_used(), 1);
    tiny_check(two);
    tiny_delete(two);
}

Test(tiny, hold_keeps_every_freed_block_in_its_bin)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    void *blocks[500];
    uint64_t flushes;
    uint32_t slabs;

    for (size_t i = 0; i < 500; i++) {
        blocks[i] = haki_tiny_alloc(tiny, c);
    }
    flushes = tiny->flushes;
    slabs = tiny->nslabs;
    haki_tiny_hold(tiny);
    tiny_check(tiny);
    for (size_t i = 0; i < 500; i++) {
        haki_tiny_free(tiny, c, blocks[i]);
    }
    tiny_check(tiny);
    cr_assert_eq(tiny->flushes, flushes);
    cr_assert_eq(tiny->nslabs, slabs);
    cr_assert_eq(haki_tiny_live(tiny, c), 0);
    tiny_delete(tiny);
    cr_assert_eq(slabs_used(), 0);
}

/* ---- out of memory -------------------------------------------------------------- */

Test(tiny, no_slab_is_null_and_changes_nothing)
{
    struct hak_tiny *tiny = tiny_new(false);

    for (int i = 0; i < 2; i++) {
        haki_os_test_refuse(1, false);
        cr_assert_null(haki_tiny_alloc(tiny, 7));
        cr_assert_eq(haki_os_test_calls(), 1);
        tiny_check(tiny);
        cr_assert_eq(tiny->nslabs, 0);
        cr_assert_eq(slabs_used(), 0);
    }
    haki_os_test_refuse(2, true); /* the superslab's commit is all it takes */
    cr_assert_not_null(haki_tiny_alloc(tiny, 7));
    haki_os_test_refuse(0, false);
    tiny_check(tiny);
    tiny_delete(tiny);
}

/* The slab is there but can't be populated: it waits for a better time. */
Test(tiny, a_slab_that_cannot_be_populated_is_tried_again)
{
    struct hak_tiny *tiny = tiny_new(false);
    unsigned c = class_of(1024);
    uint32_t other; /* keeps a superslab mapped */
    size_t got = 0;

    while (got < 200) {
        void *p;

        haki_os_test_refuse(1, true);
        p = haki_tiny_alloc(tiny, c);
        haki_os_test_refuse(0, false);
        tiny_check(tiny);
        if (p == NULL) {
            p = haki_tiny_alloc(tiny, c);
        }
        cr_assert_not_null(p);
        unit_fill(p, 1024, (unsigned)got++);
    }
    cr_assert_eq(tiny->nslabs, 4);
    other = haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY, true);
    tiny_delete(tiny);
    tiny = tiny_new(false);
    haki_range_purge();
    haki_os_test_refuse(1, true); /* a slab without pages: 1 of 1 KB is too */
    tiny->shelves[c].filled = 8;  /* much for one fault: populate is asked */
    cr_assert_null(haki_tiny_alloc(tiny, c));
    cr_assert_eq(tiny->nslabs, 1);
    haki_tiny_trim(tiny);
    cr_assert_eq(tiny->nslabs, 0, "a slab never carved goes back, too");
    haki_os_test_refuse(0, false);
    tiny_delete(tiny);
    haki_range_slabs_give(other, 1, HAK_LANE_TINY);
    cr_assert_eq(slabs_used(), 0);
}

/* ---- trace ------------------------------------------------------------------------ */

static void trace(void *arg)
{
    struct hak_tiny *tiny;

    (void)arg;
    setenv("HAKMEM_TRACE", "1", 1);
    tiny = tiny_new(false);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        haki_tiny_alloc(tiny, c);
    }
    for (size_t i = 0; i < 64; i++) {
        haki_tiny_alloc(tiny, HAK_TINY_CLASSES - 1);
    }
}

Test(tiny, trace_prints_a_line_for_every_slab)
{
    char text[4096] = "";
    size_t length = 0;

    for (unsigned c = 0; c <= HAK_TINY_CLASSES; c++) {
        unsigned class = c < HAK_TINY_CLASSES ? c : HAK_TINY_CLASSES - 1;

        length += (size_t)sprintf(text + length,
                                  "[SP_INTERNAL_ALLOC] class_idx=%u block=%u\n",
                                  haki_tiny_band(class),
                                  (unsigned)haki_tiny_size[class]);
    }
    unit_expect_said(trace, NULL, text);
}

static void no_trace(void *arg)
{
    (void)arg;
    setenv("HAKMEM_TRACE", "0", 1);
    haki_tiny_alloc(tiny_new(false), 3);
}

Test(tiny, no_trace_prints_nothing)
{
    unit_expect_said(no_trace, NULL, "");
}

/* ---- random use ---------------------------------------------------------------------- */

enum { HELD = 30000 };

struct held {
    void *p;
    unsigned class;
    unsigned seed;
};

/* Which classes a run uses, and how many blocks it holds at most. */
struct mix {
    const char *name;
    unsigned least, most;
    size_t held;
};

static void step(struct hak_tiny *tiny, const struct mix *mix,
                 struct held *held, struct unit_random *random, uint64_t *live)
{
    struct held *at = &held[unit_below(random, mix->held)];

    if (at->p != NULL) {
        NEED(unit_filled(at->p, haki_tiny_size[at->class], at->seed));
        haki_tiny_free(tiny, at->class, at->p);
        live[at->class]--;
        at->p = NULL;
        return;
    }
    at->class =
        mix->least + (unsigned)unit_below(random, mix->most - mix->least + 1);
    at->seed = (unsigned)unit_next(random);
    at->p = haki_tiny_alloc(tiny, at->class);
    NEED(at->p != NULL);
    unit_fill(at->p, haki_tiny_size[at->class], at->seed);
    live[at->class]++;
}

static void check_live(const struct hak_tiny *tiny, const uint64_t *live)
{
    tiny_check(tiny);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        NEED(haki_tiny_live(tiny, c) == live[c]);
    }
}

/* Fills, churns and drains, checking all invariants on the way. */
static void run_mix(const struct mix *mix, uint64_t seed)
{
    struct hak_tiny *tiny = tiny_new(false);
    struct held *held = calloc(HELD, sizeof(*held));
    uint64_t live[HAK_TINY_CLASSES] = {0};
    struct unit_random random = {seed};
    size_t steps = unit_scale(120000, 12000);

    for (size_t i = 0; i < steps; i++) {
        step(tiny, mix, held, &random, live);
        if (i % (steps / 20) == 0) {
            check_live(tiny, live);
        }
        if (i % (steps / 7) == 5) {
            haki_tiny_trim(tiny);
            check_live(tiny, live);
        }
    }
    for (size_t i = 0; i < mix->held; i++) {
        if (held[i].p != NULL) {
            NEED(unit_filled(held[i].p, haki_tiny_size[held[i].class],
                             held[i].seed));
            haki_tiny_free(tiny, held[i].class, held[i].p);
            live[held[i].class]--;
        }
        if (i % 5000 == 0) {
            check_live(tiny, live);
        }
    }
    check_live(tiny, live);
    haki_tiny_trim(tiny);
    check_live(tiny, live);
    cr_assert_eq(tiny->nslabs, 0, "%s", mix->name);
    free(held);
    tiny_delete(tiny);
}

Test(tiny, random_use_keeps_every_invariant)
{
    static const struct mix mixes[] = {
        {"all classes", 0, HAK_TINY_CLASSES - 1, HELD},
        {"few of each", 0, HAK_TINY_CLASSES - 1, 100},
        {"the smallest", 0, 0, HELD},
        {"the largest", HAK_TINY_CLASSES - 1, HAK_TINY_CLASSES - 1, 5000},
        {"two", 4, 5, 3000},
    };

    for (size_t i = 0; i < sizeof(mixes) / sizeof(mixes[0]); i++) {
        run_mix(&mixes[i], 10 + i);
    }
    cr_assert_eq(slabs_used(), 0);
}

/* Waves: all allocated, all freed, in order, in reverse, in random order. */
Test(tiny, waves_give_their_memory_back)
{
    enum { COUNT = 20000 };
    struct hak_tiny *tiny = tiny_new(false);
    static void *blocks[COUNT];
    struct unit_random random = {8};

    for (int wave = 0; wave < 6; wave++) {
        unsigned c = (unsigned)(wave * 7 % HAK_TINY_CLASSES);

        for (size_t i = 0; i < COUNT; i++) {
            blocks[i] = haki_tiny_alloc(tiny, c);
        }
        cr_assert_eq(haki_tiny_live(tiny, c), COUNT);
        for (size_t i = COUNT - 1; wave % 3 == 2 && i > 0; i--) {
            size_t k = unit_below(&random, i + 1);
            void *p = blocks[i];

            blocks[i] = blocks[k];
            blocks[k] = p;
        }
        for (size_t i = 0; i < COUNT; i++) {
            haki_tiny_free(tiny, c, blocks[wave % 3 == 1 ? COUNT - 1 - i : i]);
        }
        tiny_check(tiny);
        cr_assert_eq(haki_tiny_live(tiny, c), 0);
        haki_tiny_trim(tiny);
        tiny_check(tiny);
        cr_assert_eq(tiny->nslabs, 0);
    }
    tiny_delete(tiny);
}
