/*
 * hard.c - what the hardened build catches: free blocks freed again or written to,
 * in every lane; and what it makes random. Writes past the end are in hard_guards.c.
 *
 * Compiled only with HARDENED=1. The message is the test: exactly one line.
 */
#include "block.h"
#include "hard_frees.h"
#include "unit.h"

TestSuite(hard, .timeout = 300);

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

Test(hard, a_tiny_block_of_an_explicit_heap)
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

Test(hard, a_pool_block_of_an_explicit_heap)
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
