/*
 * pool.c - tests of pool/blocks.c: the few and the heap, limit, refusals.
 */
#include "pool/blocks.h"

#include "front/lane.h"
#include "os/os.h"
#include "range_check.h"
#include "unit.h"

TestSuite(pool, .timeout = 300);

enum { FEW = HAK_NGX_BLOCKS_FEW };

static struct hak_ngx_blocks pool;

static void begin(size_t limit)
{
    hak_ngx_blocks_init(&pool, limit, "test");
}

/* Blocks of `size` bytes until the pool has n of them. */
static void fill(void **blocks, size_t n, size_t size)
{
    for (size_t i = 0; i < n; i++) {
        blocks[i] = hak_ngx_blocks_alloc(&pool, size);
        NEED(blocks[i] != NULL);
        unit_fill(blocks[i], size, (unsigned)i);
    }
}

static uint64_t in_use(void)
{
    return pool.allocs - pool.frees;
}

/* ---- the few and the heap ------------------------------------------------ */

Test(pool, nothing_is_allocated_before_the_first_block)
{
    uint64_t allocs;

    hak_free(hak_malloc(1));
    allocs = unit_stats().tiny_allocs;
    begin(0);
    cr_assert_eq(hak_ngx_blocks_live(&pool), 0);
    cr_assert_eq(hak_ngx_blocks_held(&pool), 0);
    hak_ngx_blocks_end(&pool);
    cr_assert_eq(unit_stats().tiny_allocs, allocs);
}

Test(pool, one_block_more_than_few_opens_a_heap)
{
    void *blocks[FEW + 1];

    begin(0);
    fill(blocks, FEW, 100);
    cr_assert_null(pool.heap);
    cr_assert_eq(hak_ngx_blocks_held(&pool), 0);
    /* One that goes makes room for one more. */
    cr_assert(hak_ngx_blocks_free(&pool, blocks[FEW / 2]));
    fill(&blocks[FEW / 2], 1, 100);
    cr_assert_null(pool.heap);
    fill(&blocks[FEW], 1, 100);
    cr_assert_not_null(pool.heap);
    cr_assert_str_eq(pool.heap->name, "test");
    cr_assert_eq(hak_ngx_blocks_held(&pool), HAK_SLAB_SIZE);
    cr_assert_eq(in_use(), FEW + 1);
    for (size_t i = 0; i <= FEW; i++) {
        cr_assert(unit_filled(blocks[i], 100,
                              i == FEW || i == FEW / 2 ? 0 : (unsigned)i));
    }
    hak_ngx_blocks_end(&pool);
    unit_expect_none_live();
    cr_assert_eq(unit_stats().heaps, 1); /* the thread's */
}

/* A small pool's heap lies on few pages, whatever its sizes. */
Test(pool, a_heap_of_few_blocks_is_small)
{
    void *blocks[FEW];
    char *start = NULL;

    begin(0);
    fill(blocks, FEW, 16);
    for (size_t size = 16; size <= 512; size += 32) {
        fill(blocks, 1, size);
        start = (char *)((uintptr_t)blocks[0] & ~(HAK_SLAB_SIZE - 1));
    }
    cr_assert_not_null(pool.heap);
    cr_assert_eq(hak_ngx_blocks_held(&pool), HAK_SLAB_SIZE);
    cr_assert_leq(unit_resident(start, HAK_SLAB_SIZE), 4);
    hak_ngx_blocks_end(&pool);
}

Test(pool, end_frees_blocks_of_every_lane_and_none_twice)
{
    static const size_t sizes[] = {0,     1,     100,    1024,   1025,
                                   53248, 53249, 300000, 2 << 20};

    for (size_t n = 1; n < 4 * FEW; n += 509) {
        begin(0);
        for (size_t i = 0; i < n; i++) {
            /* Few of the largest. */
            void *p = hak_ngx_blocks_alloc(&pool, sizes[i % (i < 27 ? 9 : 6)]);

            cr_assert_not_null(p);
            cr_assert_eq((uintptr_t)p % 16, 0);
            if (i % 3 == 2) {
                cr_assert(hak_ngx_blocks_free(&pool, p));
            }
        }
        hak_ngx_blocks_end(&pool);
        unit_expect_none_live();
    }
}

Test(pool, calloc_is_zero_in_both)
{
    begin(0);
    for (size_t i = 0; i < 3 * FEW; i++) {
        size_t size = i * 37 % 3000;
        unsigned char *p = hak_ngx_blocks_alloc(&pool, size);

        cr_assert_not_null(p);
        memset(p, 0xff, size);
        cr_assert(hak_ngx_blocks_free(&pool, p));
        p = hak_ngx_blocks_calloc(&pool, size);
        cr_assert_not_null(p);
        for (size_t n = 0; n < size; n++) {
            cr_assert_eq(p[n], 0);
        }
    }
    cr_assert_not_null(pool.heap);
    hak_ngx_blocks_end(&pool);
}

Test(pool, trim_with_nothing_left_makes_it_small_again)
{
    void *blocks[3 * FEW];

    begin(8 << 20);
    fill(blocks, 3 * FEW, 1000);
    for (size_t i = 0; i < 3 * FEW; i++) {
        cr_assert(hak_ngx_blocks_free(&pool, blocks[i]));
    }
    cr_assert_not_null(pool.heap);
    cr_assert_eq(hak_ngx_blocks_live(&pool), 0);
    cr_assert_gt(hak_ngx_blocks_trim(&pool), 0);
    cr_assert_null(pool.heap);
    fill(blocks, 3 * FEW, 1000);
    cr_assert_eq(in_use(), 3 * FEW);
    for (size_t i = 0; i < 3 * FEW; i++) {
        cr_assert(unit_filled(blocks[i], 1000, (unsigned)i));
    }
    hak_ngx_blocks_trim(&pool);
    cr_assert_not_null(pool.heap);
    hak_ngx_blocks_end(&pool);
    unit_expect_none_live();
}

/* ---- what is not the pool's ---------------------------------------------- */

static void expect_declined(void *p)
{
    uint64_t frees = pool.frees;

    cr_assert_not(hak_ngx_blocks_free(&pool, p));
    errno = 0;
    if (p != NULL) {
        cr_assert_null(hak_ngx_blocks_realloc(&pool, p, 50));
        cr_assert_eq(errno, EINVAL);
    }
    cr_assert_eq(pool.frees, frees);
}

Test(pool, blocks_of_others_are_declined_untouched)
{
    static const size_t sizes[] = {100, 3000, 100000, 3 << 20};
    void *blocks[FEW + 20], *theirs[FEW + 20];
    struct hak_ngx_blocks other;
    char local[16];

    for (size_t few = 1; few <= FEW + 20; few += FEW + 19) {
        begin(0);
        hak_ngx_blocks_init(&other, 0, NULL);
        fill(blocks, few, 100);
        for (size_t i = 0; i < FEW + 20; i++) {
            theirs[i] =
                hak_ngx_blocks_alloc(&other, sizes[i % (i < 40 ? 4 : 2)]);
            cr_assert_not_null(theirs[i]);
            expect_declined(theirs[i]);
        }
        for (size_t i = 0; i < 4; i++) {
            void *p = hak_malloc(sizes[i]);

            expect_declined(p);
            hak_free(p);
        }
        expect_declined(NULL);
        expect_declined(local);
        cr_assert_eq(other.allocs, FEW + 20);
        hak_ngx_blocks_end(&other);
        hak_ngx_blocks_end(&pool);
        unit_expect_none_live();
    }
}

static void free_middle(void *p)
{
    hak_ngx_blocks_free(&pool, (char *)p + 16);
}

static void realloc_middle(void *p)
{
    hak_ngx_blocks_realloc(&pool, (char *)p + 16, 500);
}

/* In packed slabs, where blocks of several sizes lie, and in others. */
Test(pool, the_middle_of_a_block_in_the_heap_is_fatal)
{
    void *blocks[FEW + 200];

    begin(0);
    fill(blocks, FEW + 200, 1000);
    for (size_t i = FEW; i < FEW + 200; i += 199) {
        char *p = blocks[i];

        unit_expect_fatal(free_middle, p,
                          "hakmem: fatal: hak_heap_free(%p): the middle of a "
                          "block of 1024 bytes\n",
                          (void *)(p + 16));
        unit_expect_fatal(realloc_middle, p,
                          "hakmem: fatal: hak_heap_realloc(%p): the middle of "
                          "a block of 1024 bytes\n",
                          (void *)(p + 16));
    }
    hak_ngx_blocks_end(&pool);
}

/* ---- the limit ----------------------------------------------------------- */

static void expect_refused(void *p, uint64_t refused)
{
    cr_assert_null(p);
    cr_assert_eq(errno, ENOMEM);
    cr_assert_eq(pool.limit_refusals, refused);
}

Test(pool, the_limit_is_exact_before_and_behind_the_few)
{
    void *blocks[4 * FEW];

    for (size_t n = FEW / 2; n <= 4 * FEW; n *= 2) {
        begin(n * unit_usable(64, 64));
        fill(blocks, n, 64);
        errno = 0;
        expect_refused(hak_ngx_blocks_alloc(&pool, 1), 1);
        errno = 0;
        expect_refused(hak_ngx_blocks_calloc(&pool, 64), 2);
        errno = 0;
        expect_refused(hak_ngx_blocks_realloc(&pool, blocks[0], 80), 3);
        errno = 0;
        expect_refused(hak_ngx_blocks_realloc(&pool, blocks[n - 1], 5000), 4);
        cr_assert(unit_filled(blocks[0], 64, 0));
        cr_assert(unit_filled(blocks[n - 1], 64, (unsigned)n - 1));
        /* One of the few that goes makes room in the heap. */
        cr_assert(hak_ngx_blocks_free(&pool, blocks[0]));
        fill(blocks, 1, 64);
        cr_assert(hak_ngx_blocks_free(&pool, blocks[n - 1]));
        fill(&blocks[n - 1], 1, 64);
        cr_assert_eq(hak_ngx_blocks_limit(&pool, 0), n * 64);
        fill(blocks, 1, 64);
        hak_ngx_blocks_end(&pool);
    }
}

Test(pool, a_limit_below_what_is_in_use_refuses_growth_alone)
{
    void *blocks[2 * FEW];
    void *p;

    begin(0);
    fill(blocks, 2 * FEW, 200);
    cr_assert_eq(hak_ngx_blocks_limit(&pool, 1000), 0);
    errno = 0;
    expect_refused(hak_ngx_blocks_alloc(&pool, 1), 1);
    errno = 0;
    expect_refused(hak_ngx_blocks_realloc(&pool, blocks[1], 300), 2);
    errno = 0;
    expect_refused(hak_ngx_blocks_realloc(&pool, blocks[FEW + 1], 300), 3);
    p = hak_ngx_blocks_realloc(&pool, blocks[1], 100);
    cr_assert(p != NULL && unit_filled(p, 100, 1));
    p = hak_ngx_blocks_realloc(&pool, blocks[FEW + 1], 100);
    cr_assert(p != NULL && unit_filled(p, 100, FEW + 1));
    cr_assert_eq(hak_ngx_blocks_limit(&pool, 1 << 20), 1000);
    cr_assert_not_null(hak_ngx_blocks_alloc(&pool, 1000));
    hak_ngx_blocks_end(&pool);
}

Test(pool, sizes_that_nobody_has_are_enomem)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 15,
                                   (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX};
    void *blocks[FEW + 1];

    for (size_t limit = 0; limit < 2; limit++) {
        for (size_t n = 1; n <= FEW + 1; n += FEW) {
            begin(limit << 30);
            fill(blocks, n, 100);
            for (size_t i = 0; i < 4; i++) {
                size_t size = unit_size(sizes[i]);
                /* The last is a size that a limit alone refuses. */
                uint64_t by_limit = limit * (i == 3);

                errno = 0;
                expect_refused(hak_ngx_blocks_alloc(&pool, size), by_limit);
                errno = 0;
                expect_refused(hak_ngx_blocks_calloc(&pool, size),
                               2 * by_limit);
                errno = 0;
                expect_refused(hak_ngx_blocks_realloc(&pool, blocks[n - 1],
                                                      size),
                               3 * by_limit);
            }
            cr_assert(unit_filled(blocks[n - 1], 100, (unsigned)n - 1));
            hak_ngx_blocks_end(&pool);
        }
    }
    unit_expect_none_live();
}

/* ---- random use ---------------------------------------------------------- */

enum { SLOTS = 2 * FEW };

struct slot {
    char *p;
    size_t size;
};

static size_t some_size(struct unit_random *random)
{
    switch (unit_below(random, 40)) {
    case 0: return unit_below(random, 200000);
    case 1:
    case 2: return unit_below(random, 10000);
    default: return unit_below(random, 600);
    }
}

static void step(struct slot *slot, unsigned seed, struct unit_random *random)
{
    size_t size = some_size(random);
    char *p;

    if (slot->p == NULL || unit_below(random, 3) != 0) {
        p = slot->p == NULL && unit_below(random, 2) == 0
                ? hak_ngx_blocks_calloc(&pool, size)
                : hak_ngx_blocks_realloc(&pool, slot->p, size);
        if (p == NULL) {
            NEED(errno == ENOMEM);
        } else {
            NEED(unit_filled(p, haki_min(size, slot->size), seed) ||
                 slot->p == NULL);
            slot->p = p;
            slot->size = size;
            unit_fill(p, size, seed);
        }
    } else {
        NEED(unit_filled(slot->p, slot->size, seed));
        NEED(hak_ngx_blocks_free(&pool, slot->p));
        slot->p = NULL;
        slot->size = 0;
    }
    NEED(hak_ngx_blocks_live(&pool) <= pool.limit);
}

static void use_at_random(size_t limit, size_t n, unsigned seed)
{
    static struct slot slots[SLOTS];
    struct unit_random random = {seed};
    size_t used = 0;

    memset(slots, 0, sizeof(slots));
    begin(limit);
    for (size_t i = 0; i < n; i++) {
        /* Few of them at first, and again in between. */
        size_t at = unit_below(&random, i % 8000 < 1000 ? 40 : SLOTS);

        step(&slots[at], (unsigned)at, &random);
    }
    for (size_t at = 0; at < SLOTS; at++) {
        used += slots[at].p != NULL;
        NEED(slots[at].p == NULL ||
             unit_filled(slots[at].p, slots[at].size, (unsigned)at));
    }
    NEED(in_use() == used);
    NEED(pool.heap != NULL || limit != 0);
    hak_ngx_blocks_end(&pool);
}

Test(pool, random_use_keeps_contents_account_and_limit)
{
    for (unsigned seed = 1; seed <= 4; seed++) {
        use_at_random(seed % 2 == 0 ? 0 : HAK_MIB * seed,
                      unit_scale(100000, 8000), seed);
        unit_expect_none_live();
    }
}

/* ---- refusals ------------------------------------------------------------ */

static void without_a_range(void *arg)
{
    void *blocks[2 * FEW];

    (void)arg;
    haki_os_test_refuse(1, true);
    NEED(!haki_range_init());
    haki_os_test_refuse(0, false);
    use_at_random(0, 8000, 5);
    use_at_random(1 << 20, 8000, 6);
    NEED(!haki_range_init());
    NEED(unit_stats().system_live == 0);
    begin(0);
    fill(blocks, 2 * FEW, 100);
    NEED(pool.heap != NULL);
    NEED(unit_stats().system_live >= 2 * FEW);
    NEED(hak_ngx_blocks_live(&pool) == 200 * FEW);
    hak_ngx_blocks_trim(&pool);
    NEED(hak_ngx_blocks_held(&pool) == 0);
    hak_ngx_blocks_end(&pool);
    NEED(unit_stats().system_live == 0);
}

Test(pool, without_a_range_the_system_serves_and_all_is_freed)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_ok(without_a_range, NULL);
}

/* Every call to the operating system from the n-th on is refused. */
Test(pool, refused_memory_is_null_or_the_system_s)
{
    void *blocks[4 * FEW];

    hak_free(hak_malloc(1));
    hak_free(haki_system_alloc(16, 10, NULL, HAK_REASON_MEMORY));
    for (unsigned n = 1; n < 40; n++) {
        size_t got = 0;

        begin(0);
        haki_os_test_refuse(n, true);
        for (size_t i = 0; i < 4 * FEW; i++) {
            blocks[i] = hak_ngx_blocks_alloc(&pool, i * 37 % 5000);
            NEED(blocks[i] != NULL || errno == ENOMEM);
            got += blocks[i] != NULL;
        }
        for (size_t i = 0; i < 4 * FEW; i += 2) {
            NEED(blocks[i] == NULL || hak_ngx_blocks_free(&pool, blocks[i]));
        }
        haki_os_test_refuse(0, false);
        cr_assert_eq(pool.allocs, got);
        hak_ngx_blocks_end(&pool);
        unit_expect_none_live();
    }
}

/* ---- threads and fork ---------------------------------------------------- */

static void *use_in_thread(void *blocks)
{
    void **few = blocks;

    for (size_t i = 0; i < 4 * FEW; i += 2) {
        NEED(unit_filled(few[i], 100, (unsigned)i));
        NEED(hak_ngx_blocks_free(&pool, few[i]));
        few[i] = hak_ngx_blocks_alloc(&pool, 100);
        NEED(few[i] != NULL);
        unit_fill(few[i], 100, (unsigned)i);
    }
    return NULL;
}

Test(pool, it_may_move_from_thread_to_thread)
{
    void *blocks[4 * FEW];

    begin(0);
    fill(blocks, FEW, 100);
    fill(&blocks[FEW], 3 * FEW, 100);
    for (size_t i = 0; i < 4 * FEW; i++) {
        unit_fill(blocks[i], 100, (unsigned)i);
    }
    unit_in_thread(use_in_thread, blocks);
    unit_in_thread(use_in_thread, blocks);
    for (size_t i = 0; i < 4 * FEW; i++) {
        cr_assert(unit_filled(blocks[i], 100, (unsigned)i));
    }
    hak_ngx_blocks_end(&pool);
    hak_trim();
    unit_expect_none_live();
}

static void use_in_child(void *blocks)
{
    use_in_thread(blocks);
    hak_ngx_blocks_end(&pool);
    NEED(unit_stats().tiny_live_bytes == 0);
}

Test(pool, a_forked_child_has_its_own)
{
    void *blocks[4 * FEW];

    begin(0);
    fill(blocks, 4 * FEW, 100);
    unit_expect_ok(use_in_child, blocks);
    for (size_t i = 0; i < 4 * FEW; i++) {
        cr_assert(unit_filled(blocks[i], 100, (unsigned)i));
        cr_assert(hak_ngx_blocks_free(&pool, blocks[i]));
    }
    hak_ngx_blocks_end(&pool);
    unit_expect_none_live();
}
