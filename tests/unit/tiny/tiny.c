/*
 * tiny.c - tests of the Tiny lane's slow half: carve, refill, which block comes next;
 * the invariants of core/tiny/tiny.h after every kind of use. What goes back is in
 * tiny_back.c, slabs are in tiny_slab.c.
 */
#include "tiny_state.h"

TestSuite(tiny, .timeout = 300);

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
        cr_assert_eq(head_count(tiny, c), 0);
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
