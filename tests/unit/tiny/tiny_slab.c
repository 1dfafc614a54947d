/*
 * tiny_slab.c - tests of the slabs of the Tiny lane: the ladder of resident pages,
 * open, idle and given back, none to be had, and their trace.
 */
#include "os/os.h"
#include "range/purge.h"
#include "tiny_state.h"

TestSuite(tiny_slab, .timeout = 300);

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
Test(tiny_slab, the_ladder_of_resident_pages)
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

/* ---- slabs: open, idle, given back ------------------------------------------- */

/* Frees block i of every slab-full of 64 blocks of 1 KB, past the bin. */
Test(tiny_slab, a_slab_is_open_exactly_while_it_has_free_blocks)
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

Test(tiny_slab, an_idle_slab_is_given_back_unless_it_is_the_only_open_one)
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
Test(tiny_slab, the_only_open_slab_stays_when_it_is_idle)
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

Test(tiny_slab, one_block_in_use_keeps_its_slab_and_only_that)
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

/* ---- out of memory -------------------------------------------------------------- */

Test(tiny_slab, no_slab_is_null_and_changes_nothing)
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
Test(tiny_slab, a_slab_that_cannot_be_populated_is_tried_again)
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
    other =
        haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY, HAK_SLABS_ALL);
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

Test(tiny_slab, trace_prints_a_line_for_every_slab)
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

Test(tiny_slab, no_trace_prints_nothing)
{
    unit_expect_said(no_trace, NULL, "");
}
