/*
 * hard.c - what the hardened build catches: free blocks freed again or written
 * to, writes past the end, in every lane; and what it makes random.
 *
 * Compiled only with HARDENED=1. The message is the test: exactly one line.
 */
#include "block.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(hard, .timeout = 120);

#define AGAIN "a block that is free already"

static void free_twice(void *p)
{
    hak_free(p);
    hak_free(p);
}

static void free_it(void *p)
{
    hak_free(p);
}

static void *free_in_thread(void *p)
{
    hak_free(p);
    return NULL;
}

static void free_elsewhere(void *p)
{
    unit_in_thread(free_in_thread, p);
}

/* ---- freed again: Tiny ------------------------------------------------------ */

static const size_t tiny_sizes[] = {0, 1, 8, 9, 16, 24, 100, 500, 1016};

enum { TINY_SIZES = sizeof(tiny_sizes) / sizeof(tiny_sizes[0]) };

Test(hard, a_tiny_block_in_its_bin)
{
    for (int i = 0; i < TINY_SIZES; i++) {
        void *p = hak_malloc(tiny_sizes[i]);

        unit_expect_fatal(free_twice, p, "hakmem: fatal: free(%p): " AGAIN "\n",
                          p);
        hak_free(p);
    }
}

static void free_flush_free(void *p)
{
    hak_free(p);
    hak_trim();
    hak_free(p);
}

static void free_others_between(void *p)
{
    void *other = hak_malloc(100);

    hak_free(p);
    hak_free(other);
    hak_free(hak_malloc(100));
    hak_free(p);
}

Test(hard, a_tiny_block_deeper_in_its_bin_or_back_in_its_slab)
{
    void *keep = hak_malloc(100), *p = hak_malloc(100);

    unit_expect_fatal(free_others_between, p,
                      "hakmem: fatal: free(%p): " AGAIN "\n", p);
    unit_expect_fatal(free_flush_free, p,
                      "hakmem: fatal: free(%p): " AGAIN "\n", p);
    hak_free(keep);
}

/* Whether p is on a page that its slab has given back. */
static bool is_gone(const void *p)
{
    return (haki_range_slab(haki_range_number(p))->gone >>
                (uintptr_t)p % HAK_SLAB_SIZE / HAK_PAGE &
            1) != 0;
}

/* Its page has gone with all its blocks, which are marked no more; the same of
 * an explicit heap, whose blocks have no guards. */
Test(hard, a_tiny_block_of_a_page_that_is_gone)
{
    enum { COUNT = 2000 };
    static void *blocks[COUNT];
    hak_heap *heap = hak_heap_new(NULL);

    for (int made = 0; made < 2; made++) {
        void *p = NULL;

        for (int i = 0; i < COUNT; i++) {
            blocks[i] = made ? hak_heap_malloc(heap, 100) : hak_malloc(100);
        }
        for (int i = 0; i < COUNT; i++) {
            if ((uintptr_t)blocks[i] / HAK_PAGE % 8 != 0) {
                hak_free(blocks[i]);
            }
        }
        hak_trim();
        hak_heap_trim(heap);
        for (int i = 0; i < COUNT; i++) {
            p = is_gone(blocks[i]) ? blocks[i] : p;
        }
        NEED(p != NULL);
        unit_expect_fatal(free_it, p, "hakmem: fatal: free(%p): " AGAIN "\n",
                          p);
        unit_expect_fatal(free_elsewhere, p,
                          "hakmem: fatal: free(%p): " AGAIN "\n", p);
    }
    hak_heap_delete(heap);
}

/* In an outbox, an inbox, and in the owner's bin. */
static void free_twice_elsewhere(void *p)
{
    free_elsewhere(p);
    free_elsewhere(p);
}

static void free_elsewhere_then_here(void *p)
{
    free_elsewhere(p);
    hak_free(p);
}

static void free_here_then_elsewhere(void *p)
{
    hak_free(p);
    free_elsewhere(p);
}

static void *free_twice_in_thread(void *p)
{
    free_twice(p);
    return NULL;
}

static void free_twice_in_one_other(void *p)
{
    unit_in_thread(free_twice_in_thread, p);
}

Test(hard, a_tiny_block_freed_by_other_threads)
{
    UNIT_SKIP_IF_GCC_TSAN();
    for (int i = 0; i < TINY_SIZES; i++) {
        void *p = hak_malloc(tiny_sizes[i]);

        unit_expect_fatal(free_twice_elsewhere, p,
                          "hakmem: fatal: hak_free(%p): " AGAIN "\n", p);
        unit_expect_fatal(free_twice_in_one_other, p,
                          "hakmem: fatal: hak_free(%p): " AGAIN "\n", p);
        unit_expect_fatal(free_here_then_elsewhere, p,
                          "hakmem: fatal: hak_free(%p): " AGAIN "\n", p);
        unit_expect_fatal(free_elsewhere_then_here, p,
                          "hakmem: fatal: free(%p): " AGAIN "\n", p);
        hak_free(p);
    }
}

struct call {
    void *p;
    hak_heap *heap;
};

static void heap_free_twice(void *arg)
{
    struct call *call = arg;

    hak_heap_free(call->heap, call->p);
    hak_heap_free(call->heap, call->p);
}

static void heap_free_then_free(void *arg)
{
    struct call *call = arg;

    hak_heap_free(call->heap, call->p);
    hak_free(call->p);
}

static void free_then_heap_free(void *arg)
{
    struct call *call = arg;

    hak_free(call->p);
    hak_heap_free(call->heap, call->p);
}

static void heap_free_then_realloc(void *arg)
{
    struct call *call = arg;

    hak_heap_free(call->heap, call->p);
    NEED(hak_heap_realloc(call->heap, call->p, 1) == arg);
}

Test(hard, a_tiny_block_of_a_heap_made_by_hand)
{
    for (int i = 0; i < TINY_SIZES; i++) {
        struct call call = {NULL, hak_heap_new(NULL)};

        call.p = hak_heap_malloc(call.heap, tiny_sizes[i]);
        unit_expect_fatal(heap_free_twice, &call,
                          "hakmem: fatal: free(%p): " AGAIN "\n", call.p);
        unit_expect_fatal(heap_free_then_free, &call,
                          "hakmem: fatal: hak_free(%p): " AGAIN "\n", call.p);
        unit_expect_fatal(free_then_heap_free, &call,
                          "hakmem: fatal: free(%p): " AGAIN "\n", call.p);
        unit_expect_fatal(heap_free_then_realloc, &call,
                          "hakmem: fatal: free(%p): " AGAIN "\n", call.p);
        hak_heap_delete(call.heap);
    }
}

static void realloc_free_block(void *p)
{
    hak_free(p);
    NEED(hak_realloc(p, 5) == NULL);
}

static void size_of_free_block(void *p)
{
    hak_free(p);
    NEED(hak_usable_size(p) == 77);
}

static void free_sized_twice(void *p)
{
    hak_free(p);
    hak_free_sized(p, 1);
}

Test(hard, a_free_tiny_block_given_to_other_functions)
{
    for (int i = 2; i < TINY_SIZES; i++) {
        void *p = hak_malloc(tiny_sizes[i]);

        unit_expect_fatal(realloc_free_block, p,
                          "hakmem: fatal: hak_realloc(%p): " AGAIN "\n", p);
        unit_expect_fatal(size_of_free_block, p,
                          "hakmem: fatal: hak_usable_size(%p): " AGAIN "\n", p);
        unit_expect_fatal(free_sized_twice, p,
                          "hakmem: fatal: free(%p): " AGAIN "\n", p);
        hak_free(p);
    }
}

/* A block in use may hold what it held when it was free, or a copy of it. */
Test(hard, what_a_free_block_held_is_no_mark_in_one_in_use)
{
    for (int i = 0; i < TINY_SIZES; i++) {
        size_t size = haki_max(tiny_sizes[i], 8);
        unsigned char seen[16], *p = hak_malloc(size), *q = hak_malloc(size);

        hak_free(p);
        memcpy(seen, p, 16);
        p = hak_malloc(size);
        cr_assert_eq(((uint64_t *)(void *)p)[0], 0);
        memcpy(q, seen, haki_min(size, 16));
        hak_free(q);
        hak_free(p);
    }
    unit_expect_none_live();
}

/* ---- freed again: the other lanes --------------------------------------------- */

Test(hard, a_pool_block)
{
    UNIT_SKIP_IF_GCC_TSAN();
    for (size_t size = 1100; size < HAK_POOL_MAX_SIZE; size += 7000) {
        void *keep = hak_malloc(size), *p = hak_malloc(size);

        unit_expect_fatal(free_twice, p, "hakmem: fatal: free(%p): " AGAIN "\n",
                          p);
        unit_expect_fatal(free_flush_free, p,
                          "hakmem: fatal: free(%p): " AGAIN "\n", p);
        unit_expect_fatal(free_elsewhere_then_here, p,
                          "hakmem: fatal: free(%p): " AGAIN "\n", p);
        unit_expect_fatal(free_here_then_elsewhere, p,
                          "hakmem: fatal: hak_free(%p): a block that is free\n",
                          p);
        unit_expect_fatal(free_twice_elsewhere, p,
                          "hakmem: fatal: hak_free(%p): " AGAIN "\n", p);
        unit_expect_fatal(realloc_free_block, p,
                          "hakmem: fatal: hak_realloc(%p): a block that is "
                          "free\n",
                          p);
        hak_free(p);
        hak_free(keep);
    }
}

Test(hard, a_pool_block_of_a_heap_made_by_hand)
{
    struct call call = {NULL, hak_heap_new(NULL)};

    /* Without a block in use the span would go back at once. */
    cr_assert_neq(hak_heap_malloc(call.heap, 5000), NULL);
    call.p = hak_heap_malloc(call.heap, 5000);
    unit_expect_fatal(heap_free_twice, &call,
                      "hakmem: fatal: hak_heap_free(%p): a block that is "
                      "free\n",
                      call.p);
    unit_expect_fatal(heap_free_then_free, &call,
                      "hakmem: fatal: hak_free(%p): a block that is free\n",
                      call.p);
    hak_heap_delete(call.heap);
}

/* In a cache, the thread's own or another's, and in a hole. */
Test(hard, a_run)
{
    static const size_t sizes[] = {60000, 1000000, 1500000};
    static void (*const runs[])(void *) = {free_twice, free_flush_free,
                                           free_here_then_elsewhere};
    void *keep = hak_malloc(60000);

    UNIT_SKIP_IF_GCC_TSAN();
    for (int i = 0; i < 3; i++) {
        void *p;

        hak_trim();
        p = hak_malloc(sizes[i]);

        for (int k = 0; k < 3; k++) {
            unit_expect_fatal(runs[k], p,
                              "hakmem: fatal: hak_free(%p): a block that is "
                              "free, or an address never given out\n",
                              p);
        }
        hak_free(p);
    }
    hak_free(keep);
}

Test(hard, a_huge_block)
{
    void *p = hak_malloc(5000000);

    unit_expect_fatal(free_twice, p,
                      "hakmem: fatal: hak_free(%p): an address that was never "
                      "given out\n",
                      p);
    hak_free(p);
}

/* ---- written to while it was free ----------------------------------------------- */

/* Flips one bit of the byte `at` of a free block, then takes it from its bin. */
static size_t at;

static void write_then_take(void *p)
{
    size_t size = hak_usable_size(p);

    hak_free(p);
    ((unsigned char *)p)[at] ^= 1;
    NEED(hak_malloc(size) == NULL);
}

static void write_then_flush(void *p)
{
    hak_free(p);
    ((unsigned char *)p)[at] ^= 0x80;
    hak_trim();
}

/* The thread's end sends the block to its owner's inbox. */
static void write_then_collect(void *p)
{
    free_elsewhere(p);
    ((unsigned char *)p)[at] ^= 0x80;
    hak_trim();
}

Test(hard, every_byte_of_a_link_and_a_mark_is_watched)
{
    void *keep = hak_malloc(40), *p = hak_malloc(40);

    UNIT_SKIP_IF_GCC_TSAN();
    for (at = 0; at < 16; at++) {
        unit_expect_fatal(write_then_take, p,
                          "hakmem: fatal: malloc or free: %p, a block that is "
                          "free, was written to\n",
                          p);
        unit_expect_fatal(write_then_flush, p,
                          "hakmem: fatal: malloc or free: %p, a block that is "
                          "free, was written to\n",
                          p);
        unit_expect_fatal(write_then_collect, p,
                          "hakmem: fatal: malloc or free: %p, a block that is "
                          "free, was written to\n",
                          p);
    }
    hak_free(p);
    hak_free(keep);
}

Test(hard, a_link_does_not_show_where_it_leads)
{
    void *p = hak_malloc(40), *q = hak_malloc(40);

    hak_free(p);
    hak_free(q);
    cr_assert_neq(((struct hak_block *)q)->next, p);
    cr_assert_eq(haki_link_get(q), p);
}

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

Test(hard, one_byte_past_the_end)
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
Test(hard, the_second_byte_past_the_end_of_a_full_block)
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
Test(hard, a_zero_past_the_end)
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

Test(hard, far_past_the_end)
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
Test(hard, every_block_is_sealed_and_says_its_size)
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
Test(hard, the_seal_moves_with_the_end)
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

Test(hard, a_sized_free_knows_the_size_that_was_asked_for)
{
    void *p = hak_malloc(20);

    cr_assert_eq(hak_usable_size(p), 20);
    hak_free_sized(p, 20);
    unit_expect_none_live();
}

/* A guard touches the last page of what was asked for, and no other. */
Test(hard, a_large_block_s_pages_stay_untouched)
{
    char *p = hak_calloc(1, 100 * HAK_PAGE), *q = hak_calloc(1, 3 * HAK_MIB);

    UNIT_SKIP_IF_WATCHED("the address sanitizer has its own calloc");
    cr_assert_leq(unit_resident(p, 101 * HAK_PAGE), 1);
    cr_assert_leq(unit_resident(q, 3 * HAK_MIB + HAK_PAGE), 1);
    hak_free(p);
    hak_free(q);
}

/* Blocks of explicit heaps are what they are in other builds. */
Test(hard, heaps_made_by_hand_have_no_seals)
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

/* ---- random start ----------------------------------------------------------------------- */

static void say_base(void *arg)
{
    (void)arg;
    hak_free(hak_malloc(1));
    fprintf(stderr, "%zx", (size_t)haki_range.base);
    fflush(stderr);
}

/* Children of one process have one layout, but not one range. */
Test(hard, the_range_begins_anywhere)
{
    struct unit_child children[10];
    int others = 0;

    for (int i = 0; i < 10; i++) {
        unit_child(&children[i], say_base, NULL);
        cr_assert_gt(strlen(children[i].said), 0);
        others += strcmp(children[i].said, children[0].said) != 0;
    }
    cr_assert_gt(others, 0);
}

Test(hard, new_blocks_come_in_any_order)
{
    char *tiny[32], *pool[8];
    int down = 0, up = 0;

    for (int i = 0; i < 32; i++) {
        tiny[i] = hak_malloc(8);
    }
    for (int i = 1; i < 32; i++) {
        down += tiny[i] < tiny[i - 1];
        up += tiny[i] > tiny[i - 1];
    }
    cr_assert(down > 0 && up > 0);
    for (int i = 0; i < 8; i++) {
        pool[i] = NULL;
    }
    down = up = 0;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 8; i++) {
            pool[i] = hak_malloc(1100);
            down += i > 0 && pool[i] < pool[i - 1];
            up += i > 0 && pool[i] > pool[i - 1];
        }
    }
    cr_assert(down > 0 && up > 0);
}

static void compare_secrets(void *p)
{
    struct hak_hard *before = p;

    NEED(memcmp(before, &haki_hard, sizeof(haki_hard)) == 0);
}

Test(hard, secrets_are_drawn_at_first_use_and_kept_by_a_fork)
{
    struct hak_hard none = {0, 0, 0}, now;

    cr_assert_eq(memcmp(&haki_hard, &none, sizeof(none)), 0);
    hak_free(hak_malloc(1));
    now = haki_hard;
    cr_assert(now.link != 0 && now.mark != 0 && now.guard != 0);
    cr_assert(now.link != now.mark && now.mark != now.guard);
    unit_expect_ok(compare_secrets, &now);
}
