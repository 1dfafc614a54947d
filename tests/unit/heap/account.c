/*
 * account.c - tests of a heap's account and of its limit, on explicit heaps: exact in
 * every lane, whoever resizes or frees their blocks.
 */
#include "limited.h"
#include "tiny_check.h"

TestSuite(account, .timeout = 300);

Test(account, the_limit_is_exact_for_every_class)
{
    for (size_t size = 1; size <= 1024; size += 61) {
        size_t block =
            haki_tiny_size[haki_tiny_class_16[haki_tiny_index(size)]];
        hak_heap *heap = limited(10 * block);
        uint64_t refused = unit_stats().limit_refusals;
        void *last = NULL;

        for (int i = 0; i < 10; i++) {
            last = hak_heap_malloc(heap, size);
            cr_assert_not_null(last);
        }
        cr_assert_eq(hak_heap_live(heap), 10 * block);
        errno = 0;
        cr_assert_null(hak_heap_malloc(heap, 1));
        cr_assert_eq(errno, ENOMEM);
        cr_assert_null(hak_heap_malloc(heap, size));
        cr_assert_eq(unit_stats().limit_refusals, refused + 2);
        hak_heap_free(heap, last);
        cr_assert_not_null(hak_heap_malloc(heap, size));
        cr_assert_null(hak_heap_malloc(heap, size));
        tiny_check(&heap->tiny);
        hak_heap_delete(heap);
        cr_assert_eq(unit_stats().limit_refusals, refused + 3);
    }
}

Test(account, one_byte_under_a_block_refuses_it)
{
    hak_heap *heap = limited(79);

    cr_assert_null(hak_heap_malloc(heap, 80));
    cr_assert_null(hak_heap_malloc(heap, 65));
    cr_assert_not_null(hak_heap_malloc(heap, 64));
    cr_assert_null(hak_heap_malloc(heap, 9));
    cr_assert_null(hak_heap_malloc(heap, 0));
    cr_assert_eq(hak_heap_live(heap), 64);
    hak_heap_delete(heap);
    heap = limited(80);
    cr_assert_not_null(hak_heap_malloc(heap, 64));
    cr_assert_not_null(hak_heap_malloc(heap, 0));
    cr_assert_eq(hak_heap_live(heap), 80);
    cr_assert_null(hak_heap_malloc(heap, 0));
    hak_heap_delete(heap);
}

/*
 * A heap that is refused gives back what its bins hold. Refused again it has nothing to
 * give, and does no work for that (the extra is taken away by whoever does).
 */
Test(account, refusals_in_a_row_do_their_work_once)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 64 * HAK_KIB};
    hak_heap *heap = hak_heap_new(&config);
    void *p[100];

    for (int i = 0; i < 100; i++) {
        p[i] = hak_heap_malloc(heap, 100);
        NEED(p[i] != NULL);
    }
    for (int i = 0; i < 100; i += 10) {
        hak_heap_free(heap, p[i]);
        cr_assert_not_null(heap->tiny.bins[haki_tiny_class_16[13]].head);
        cr_assert_null(hak_heap_malloc(heap, 64 * HAK_KIB));
        cr_assert_null(heap->tiny.bins[haki_tiny_class_16[13]].head);
        heap->tiny.allow.extra = 12345;
        cr_assert_null(hak_heap_malloc(heap, 65 * HAK_KIB));
        cr_assert_null(hak_heap_malloc(heap, 64 * HAK_KIB));
        cr_assert_eq(heap->tiny.allow.extra, 12345);
    }
    hak_heap_delete(heap);
}

/* Blocks of every lane above Tiny, and of the system. */
Test(account, the_limit_counts_blocks_of_every_lane)
{
    size_t large = 2 * HAK_MIB + 100;
    hak_heap *heap = limited(large + 10000);
    char *of_system = from_system(heap, large);
    char *small;

    cr_assert_eq(hak_heap_live(heap), large);
    cr_assert_null(hak_heap_malloc(heap, 10001));
    cr_assert_null(hak_heap_malloc(heap, 60000));
    cr_assert_null(hak_heap_malloc(heap, large));
    cr_assert_eq(unit_stats().system_live, 1);
    cr_assert_not_null(hak_heap_malloc(heap, 8500));
    small = hak_heap_malloc(heap, 768);
    cr_assert_not_null(small);
    cr_assert_eq(hak_heap_live(heap), large + 9216 + 768);
    cr_assert_null(hak_heap_malloc(heap, 17));
    cr_assert_not_null(hak_heap_malloc(heap, 16));
    cr_assert_null(hak_heap_malloc(heap, 1));
    hak_heap_free(heap, of_system);
    cr_assert_eq(hak_heap_live(heap), 10000);
    cr_assert_eq(unit_stats().system_live, 0);
    /* `large` is no whole number of pages: Huge rounds it beyond the limit. */
    cr_assert_null(hak_heap_malloc(heap, large));
    cr_assert_not_null(hak_heap_malloc(heap, 2 * HAK_MIB - HAK_PAGE));
    cr_assert_eq(hak_heap_live(heap), 2 * HAK_MIB - HAK_PAGE + 10000);
    cr_assert_null(hak_heap_malloc(heap, 1200000));
    cr_assert_null(hak_heap_malloc(heap, 4097));
    cr_assert_not_null(hak_heap_malloc(heap, 4096));
    cr_assert_eq(hak_heap_live(heap), large + 10000 - 100);
    cr_assert_null(hak_heap_malloc(heap, 128));
    hak_heap_free(heap, small);
    cr_assert_not_null(hak_heap_malloc(heap, 800));
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(account, the_limit_is_exact_for_a_huge_block)
{
    hak_heap *heap = limited(3 * HAK_MIB);
    char *p;

    cr_assert_null(hak_heap_malloc(heap, 3 * HAK_MIB + 1));
    p = hak_heap_malloc(heap, 3 * HAK_MIB - 1);
    cr_assert_not_null(p);
    cr_assert_eq(hak_heap_live(heap), 3 * HAK_MIB);
    cr_assert_null(hak_heap_malloc(heap, 1));
    errno = 0;
    cr_assert_null(hak_heap_realloc(heap, p, 3 * HAK_MIB + 1));
    cr_assert_eq(errno, ENOMEM);
    cr_assert_eq(hak_heap_realloc(heap, p, 2 * HAK_MIB), p);
    cr_assert_eq(hak_heap_live(heap), 2 * HAK_MIB);
    cr_assert_null(hak_heap_malloc(heap, HAK_MIB + 1));
    cr_assert_not_null(hak_heap_malloc(heap, HAK_MIB));
    cr_assert_eq(hak_heap_live(heap), 3 * HAK_MIB);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

/* One that needs another block, for which the limit leaves no room, stays. */
Test(account, a_refused_realloc_leaves_the_block_and_a_shrink_never_fails)
{
    hak_heap *heap = limited(2048 + 96 + 4);
    char *p = hak_heap_malloc(heap, 2000);
    char *q = hak_heap_malloc(heap, 96);
    size_t sizes[] = {1500, 1025, 1000, 100, 0};

    unit_fill(p, 2000, 1);
    unit_fill(q, 96, 2);
    errno = 0;
    cr_assert_null(hak_heap_realloc(heap, q, 200));
    cr_assert_eq(errno, ENOMEM);
    cr_assert(unit_filled(q, 96, 2));
    errno = 0;
    cr_assert_null(hak_heap_realloc(heap, p, 2049));
    cr_assert_eq(errno, ENOMEM);
    cr_assert(unit_filled(p, 2000, 1));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        p = hak_heap_realloc(heap, p, sizes[i]);
        cr_assert_not_null(p);
        cr_assert(unit_filled(p, sizes[i], 1));
        cr_assert_leq(hak_heap_live(heap), 2048 + 96);
    }
    q = hak_heap_realloc(heap, q, 10);
    cr_assert_not_null(q);
    cr_assert(unit_filled(q, 10, 2));
    hak_heap_free(heap, p);
    hak_heap_free(heap, q);
    cr_assert_eq(hak_heap_live(heap), 0);
    hak_heap_delete(heap);
}

static void *free_all(void *arg)
{
    void **blocks = arg;

    for (size_t i = 0; blocks[i] != NULL; i++) {
        hak_free(blocks[i]);
    }
    return NULL;
}

/* Frees by others make room again as soon as it is needed. */
Test(account, frees_by_others_settle_the_account)
{
    static const size_t sizes[] = {3000, 60000, 2 * HAK_MIB, 3 * HAK_MIB};
    size_t limit = 100 * 64;
    void *blocks[105] = {NULL};
    hak_heap *heap;

    for (size_t i = 0; i < 4; i++) {
        limit += whole(sizes[i]);
    }
    heap = limited(limit);

    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < 100; i++) {
            blocks[i] = hak_heap_malloc(heap, 64);
            cr_assert_not_null(blocks[i], "round %d, block %zu", round, i);
        }
        for (size_t i = 0; i < 3; i++) {
            blocks[100 + i] = hak_heap_malloc(heap, sizes[i]);
            cr_assert(hak_owns(blocks[100 + i]), "round %d, %zu", round, i);
        }
        blocks[103] = from_system(heap, sizes[3]);
        cr_assert_eq(hak_heap_live(heap), limit);
        cr_assert_null(hak_heap_malloc(heap, 1));
        round % 2 != 0 ? (void)free_all(blocks)
                       : unit_in_thread(free_all, blocks);
        cr_assert_eq(unit_stats().system_live, 0);
        cr_assert_eq(unit_stats().huge_live_bytes, 0);
    }
    hak_heap_trim(heap);
    cr_assert_eq(hak_heap_live(heap), 0);
    tiny_check(&heap->tiny);
    hak_heap_delete(heap);
}

/* Collected by a refill, before the account is settled. */
Test(account, live_is_right_while_frees_by_others_come_in)
{
    hak_heap *heap = hak_heap_new(NULL);
    void *blocks[64];
    size_t count = 64;

    for (size_t i = 0; i < 64; i++) {
        blocks[i] = hak_heap_malloc(heap, 1024);
    }
    for (size_t i = 0; i < 30; i++) {
        hak_free(blocks[i]);
    }
    while (heap->tiny.remote_frees == 0) {
        cr_assert_eq(hak_heap_live(heap), count * 1024);
        cr_assert_not_null(hak_heap_malloc(heap, 1024));
        count++;
    }
    cr_assert_eq(heap->tiny.remote_frees, 30);
    cr_assert_eq(hak_heap_live(heap), (count - 30) * 1024);
    hak_heap_delete(heap);
}

/* hak_realloc takes any block; the heap's account must stay right. */
Test(account, hak_realloc_of_a_heap_s_block_keeps_its_account)
{
    static const size_t from[] = {100, 2000, 70000, 3 * HAK_MIB};
    static const size_t to[] = {50,     600,         1500,       50000,
                                200000, 2 * HAK_MIB, 5 * HAK_MIB};

    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 7; k++) {
            hak_heap *heap = hak_heap_new(NULL);
            char *p = hak_heap_malloc(heap, from[i]);

            unit_fill(p, from[i], 6);
            p = hak_realloc(p, to[k]);
            cr_assert_not_null(p);
            cr_assert(unit_filled(p, haki_min(from[i], to[k]), 6));
            cr_assert_leq(hak_heap_live(heap),
                          haki_round_up(haki_hard_grow(5 * HAK_MIB), HAK_PAGE));
            hak_free(p);
            hak_heap_trim(heap);
            cr_assert_eq(hak_heap_live(heap), 0, "%zu to %zu: %zu", from[i],
                         to[k], hak_heap_live(heap));
            hak_heap_delete(heap);
        }
    }
    unit_expect_none_live();
}

/* The same of a block that came from the system. */
Test(account, hak_realloc_of_a_system_s_block_keeps_the_heap_s_account)
{
    hak_heap *heap = hak_heap_new(NULL);
    char *p = from_system(heap, 3 * HAK_MIB);

    unit_fill(p, 2000, 6);
    p = hak_realloc(p, 2000);
    cr_assert(unit_filled(p, 2000, 6));
    cr_assert_eq(hak_heap_live(heap), 2000);
    p = hak_realloc(p, 4 * HAK_MIB);
    cr_assert(unit_filled(p, 2000, 6));
    cr_assert_eq(hak_heap_live(heap), 4 * HAK_MIB);
    cr_assert_eq(unit_stats().system_live_bytes, 4 * HAK_MIB);
    hak_free(p);
    cr_assert_eq(hak_heap_live(heap), 0);
    hak_heap_delete(heap);
    unit_expect_none_live();
}
