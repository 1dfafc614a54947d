/*
 * hard_guards.c - what the hardened build says of writes past the end of a block, in
 * every lane, and that the guard behind it moves with the end.
 *
 * Compiled only with HARDENED=1. The message is the test: exactly one line.
 */
#include "block.h"
#include "hard_frees.h"
#include "unit.h"

TestSuite(hard_guards, .timeout = 300);

/* ---- written past the end ---------------------------------------------------------- */

/* In each lane: nothing behind the guard's canary, a little, much. */
static const size_t sizes[] = {0,
                               1,
                               7,
                               8,
                               9,
                               23,
                               24,
                               25,
                               100,
                               1015,
                               1016,
                               1017,
                               1024,
                               2040,
                               2000,
                               4096,
                               8184,
                               53239,
                               53240,
                               53241,
                               60000,
                               65528,
                               65536,
                               1000000,
                               HAK_SUPER_SIZE - 9,
                               HAK_SUPER_SIZE - 8,
                               HAK_SUPER_SIZE,
                               3 * HAK_MIB,
                               5000000};

enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

/* What is written behind the end, over what stood there. */
static size_t past;
static int how;

static void write_past(unsigned char *p, size_t size)
{
    static const unsigned char mask[] = {0, 0x00, 0x01, 0x80, 0xff};

    p[size] = how == 0 ? 0 : p[size] ^ mask[how];
}

static void past_then_free(void *p)
{
    write_past(p, past);
    hak_free(p);
}

static void past_then_free_elsewhere(void *p)
{
    write_past(p, past);
    free_elsewhere(p);
}

static void past_then_free_sized(void *p)
{
    write_past(p, past);
    hak_free_sized(p, 0);
}

static void past_then_realloc(void *p)
{
    write_past(p, past);
    NEED(hak_realloc(p, past + 1) == NULL);
}

static void past_then_ask(void *p)
{
    write_past(p, past);
    NEED(hak_usable_size(p) == 77);
}

static void expect_past(void (*run)(void *), void *p, const char *caller)
{
    unit_expect_fatal(run, p,
                      "hakmem: fatal: %s(%p): written past its %zu bytes\n",
                      caller, p, past);
}

Test(hard_guards, one_byte_past_the_end)
{
    for (int i = 0; i < SIZES; i++) {
        unsigned char *p = hak_malloc(sizes[i]);
        bool huge = haki_hard_grow(sizes[i]) >= HAK_LANE_HUGE_MIN;

        past = sizes[i];
        for (how = 0; how < 5; how += how == 0 ? 2 : 1) {
            expect_past(past_then_free, p, huge ? "hak_free" : "free");
        }
        how = 4;
        expect_past(past_then_realloc, p, "hak_realloc");
        expect_past(past_then_ask, p, "hak_usable_size");
        if (unit_block(p) <= HAK_TINY_MAX) {
            expect_past(past_then_free_sized, p, "free");
        }
        if (!UNIT_GCC_TSAN) {
            /* ACE's blocks are no thread's own: their way is the same. */
            expect_past(past_then_free_elsewhere, p, "hak_free");
        }
        hak_free(p);
    }
    unit_expect_none_live();
}

static void skip_one_then_free(void *p)
{
    ((unsigned char *)p)[past + 1] ^= 1;
    hak_free(p);
}

/* With nothing unused behind the end, the guard is the canary: two bytes. */
Test(hard_guards, the_second_byte_past_the_end_of_a_full_block)
{
    static const size_t full[] = {8, 24, 120, 1016, 2040};

    for (int i = 0; i < 5; i++) {
        void *p = hak_malloc(full[i]);

        past = full[i];
        cr_assert_eq(past + HAK_GUARD_BYTES, unit_block(p));
        expect_past(skip_one_then_free, p, "free");
        hak_free(p);
    }
}

/* A string's end is seen whatever the key is. */
Test(hard_guards, a_zero_past_the_end)
{
    how = 0;
    for (past = 20; past < 60; past++) {
        void *p = hak_malloc(past);

        expect_past(past_then_free, p, "free");
    }
}

static void far_past_then_free(void *p)
{
    memset(p, 'A', unit_block(p));
    hak_free(p);
}

Test(hard_guards, far_past_the_end)
{
    for (int i = 0; i < SIZES; i++) {
        unsigned char *p = hak_malloc(sizes[i]);

        unit_expect_fatal(far_past_then_free, p,
                          "hakmem: fatal: %s(%p): written far past its end, in "
                          "a block of %zu bytes\n",
                          haki_hard_grow(sizes[i]) >= HAK_LANE_HUGE_MIN
                              ? "hak_free"
                              : "free",
                          (void *)p, unit_block(p));
        hak_free(p);
    }
}

/* Whoever gave it out: the canary stands behind what was asked for. */
Test(hard_guards, every_block_has_a_guard_that_says_its_size)
{
    for (size_t size = 0; size < 3000; size++) {
        for (int i = 0; i < 5; i++) {
            unsigned char *p =
                i == 0   ? hak_malloc(size)
                : i == 1 ? hak_calloc(1, size)
                : i == 2 ? hak_aligned_alloc((size_t)16 << size % 14, size)
                : i == 3 ? hak_realloc(hak_malloc(size / 2), size)
                         : hak_realloc(hak_malloc(size * 2), size);

            cr_assert_eq(hak_usable_size(p), size);
            for (size_t k = 0; i == 1 && k < size; k++) {
                cr_assert_eq(p[k], 0);
            }
            memset(p, 0xee, size);
            cr_assert_eq(hak_usable_size(p), size);
            hak_free_sized(p, size);
        }
    }
    unit_expect_none_live();
}

/* In place as well as elsewhere, up and down, in and between the lanes. */
Test(hard_guards, the_guard_moves_with_the_end)
{
    struct unit_random random = {7};
    unsigned char *p = hak_malloc(10);
    size_t size = 10;

    how = 4;
    for (int i = 0; i < 400; i++) {
        size_t next =
            unit_below(&random, (size_t)64 << unit_below(&random, 18));

        unit_fill(p, size, (unsigned)i);
        p = hak_realloc(p, next);
        cr_assert(unit_filled(p, haki_min(size, next), (unsigned)i));
        cr_assert_eq(hak_usable_size(p), next);
        size = past = next;
        if (i % 10 == 0) {
            expect_past(past_then_ask, p, "hak_usable_size");
        }
    }
    hak_free(p);
    unit_expect_none_live();
}

Test(hard_guards, a_sized_free_knows_the_size_that_was_asked_for)
{
    void *p = hak_malloc(20);

    cr_assert_eq(hak_usable_size(p), 20);
    hak_free_sized(p, 20);
    unit_expect_none_live();
}

/* A guard touches the last page of what was asked for, and no other. */
Test(hard_guards, a_large_block_s_pages_stay_untouched)
{
    char *p = hak_calloc(1, 100 * HAK_PAGE), *q = hak_calloc(1, 3 * HAK_MIB);

    UNIT_SKIP_IF_WATCHED("the address sanitizer has its own calloc");
    cr_assert_leq(unit_resident(p, 101 * HAK_PAGE), 1);
    cr_assert_leq(unit_resident(q, 3 * HAK_MIB + HAK_PAGE), 1);
    hak_free(p);
    hak_free(q);
}

/* Blocks of explicit heaps are what they are in other builds. */
Test(hard_guards, explicit_heaps_have_no_guards)
{
    static const size_t asked[] = {100, 2000, 60000, 3000000};
    hak_heap *heap = hak_heap_new(NULL);

    for (int i = 0; i < 4; i++) {
        unsigned char *p = hak_heap_malloc(heap, asked[i]);
        size_t block = unit_block(p);

        cr_assert_eq(hak_usable_size(p), block);
        memset(p, 0xff, block);
        hak_free(p);
        p = hak_heap_malloc(heap, asked[i]);
        memset(p, 0xff, block);
        p = hak_heap_realloc(heap, p, asked[i] + 1);
        hak_heap_free(heap, p);
    }
    hak_heap_trim(heap);
    cr_assert_eq(hak_heap_live(heap), 0);
    hak_heap_delete(heap);
}
