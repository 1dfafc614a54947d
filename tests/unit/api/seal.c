/*
 * seal.c - tests of the fork seal in one thread: nothing is allocated from sealed
 * slabs, a free writes to none of their pages, what is wholly free comes back; and
 * misuse. Other threads are in seal_threads.c, children in seal_fork.c.
 */
#include "heap/thread.h"
#include "tiny/tiny_seal.h"
#include "tiny/tiny_slab.h"
#include "seal_world.h"

TestSuite(seal, .timeout = 300);

/* ---- one thread -------------------------------------------------------------- */

static void nothing_is_allocated(struct world *w, void (*seal)(void))
{
    const struct hak_heap *heap;
    size_t live;

    build(w);
    heap = w->heap != NULL ? w->heap : haki_self;
    live = unit_stats().tiny_live_bytes + unit_stats().pool_live_bytes;
    seal();
    check(heap);
    cr_assert_eq(unit_stats().tiny_live_bytes + unit_stats().pool_live_bytes,
                 live);
    cr_assert_eq(heap->tiny.nslabs + heap->pool->nslabs, 0);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        cr_assert_eq(heap->pool->shelves[c].last, HAK_NO_SLAB);
    }
    cr_assert_eq(sealed_bytes(),
                 unit_stats().tiny_held_bytes + unit_stats().pool_held_bytes);
    for (size_t i = 0; i < w->count; i++) {
        cr_assert(w->p[i] == NULL || in_sealed(w->p[i]));
    }
    churn(w, w->count);
    check(heap);
    verify(w);
    drop_all(w);
    check(heap);
    cr_assert_eq(sealed_bytes(), 0, "all of them are given back");
    churn(w, w->count);
    check(heap);
}

Test(seal, nothing_is_allocated_from_sealed_slabs)
{
    nothing_is_allocated(&world, hak_seal);
    hak_trim();
    unit_expect_none_live();
    cr_assert_eq(unit_stats().slabs, 0);
}

static void seal_world(void)
{
    hak_heap_seal(world.heap);
}

Test(seal, an_explicit_heap_is_sealed)
{
    world.heap = hak_heap_new(NULL);
    nothing_is_allocated(&world, seal_world);
    cr_assert_eq(hak_heap_live(world.heap), 0);
    hak_heap_delete(world.heap);
    cr_assert_eq(unit_stats().slabs, 0);
}

Test(seal, deleting_a_heap_frees_its_sealed_slabs)
{
    hak_stats_t before = unit_stats();

    world.heap = hak_heap_new(NULL);
    build(&world);
    hak_heap_seal(world.heap);
    churn(&world, 1000);
    for (size_t i = 0; i < world.count; i += 3) {
        drop_at(&world, i);
    }
    hak_heap_seal(world.heap);
    cr_assert_gt(sealed_bytes(), 0);
    hak_heap_delete(world.heap);
    cr_assert_eq(unit_stats().slabs, before.slabs);
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
    /* The slot's next heap knows nothing of it. */
    world.heap = hak_heap_new(NULL);
    memset(world.p, 0, sizeof(world.p));
    build(&world);
    check(world.heap);
    drop_all(&world);
    hak_heap_delete(world.heap);
}

static void nothing_is_written(struct world *w, void (*seal)(void))
{
    build(w);
    seal();
    cr_assert_gt(protect(true), 10);
    free_some(w);
    protect(true);
    seal();
    churn(w, 5000);
    protect(false);
    verify(w);
}

Test(seal, a_free_writes_to_no_page_of_a_sealed_slab)
{
    SKIP_IF_HARD();
    nothing_is_written(&world, hak_seal);
    check(haki_self);
}

Test(seal, a_free_into_a_sealed_heap_writes_to_no_page_of_a_slab)
{
    SKIP_IF_HARD();
    world.heap = hak_heap_new(NULL);
    nothing_is_written(&world, seal_world);
    hak_heap_trim(world.heap);
    check(world.heap);
}

/* What lies in head and spare when the heap is sealed is known to be free. */
Test(seal, blocks_in_bins_are_counted_and_not_touched)
{
    enum { COUNT = 3000 };
    static char *p[COUNT];
    const struct hak_tiny *tiny;
    unsigned class = haki_tiny_class_16[haki_tiny_index(100)];

    SKIP_IF_HARD();
    for (size_t i = 0; i < COUNT; i++) {
        p[i] = hak_malloc(100);
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (i % 100 != 0) {
            hak_free(p[i]);
        }
    }
    tiny = &haki_self->tiny;
    cr_assert_not_null(tiny->bins[class].head);
    cr_assert_not_null(tiny->bins[class].spare);
    for (uint32_t n = tiny->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        NEED(mprotect(haki_range_slab_start(n), HAK_SLAB_SIZE, PROT_READ) == 0);
    }
    hak_seal();
    cr_assert_eq(unit_stats().tiny_live_bytes,
                 COUNT / 100 * haki_tiny_size[class]);
    tiny_check(tiny);
    for (size_t i = 0; i < COUNT; i += 100) {
        hak_free(p[i]);
    }
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
}

Test(seal, an_empty_heap_can_be_sealed)
{
    hak_heap *heap = hak_heap_new(NULL);

    hak_seal(); /* the thread has none */
    hak_heap_seal(heap);
    hak_free(hak_malloc(10));
    hak_seal();
    hak_seal();
    cr_assert_eq(sealed_bytes(), 0, "no block was in use");
    cr_assert_eq(unit_stats().slabs, 0);
    check(haki_self);
    hak_heap_delete(heap);
}

/* A class's only open slab is kept with nothing in use: not by a seal. */
Test(seal, what_is_wholly_free_is_not_sealed)
{
    enum { COUNT = 64 }; /* blocks of a slab */
    struct hak_tiny *tiny = tiny_new(false);
    void *p[COUNT];

    for (size_t i = 0; i < COUNT; i++) {
        p[i] = haki_tiny_alloc(tiny, HAK_TINY_CLASSES - 1);
    }
    for (size_t i = 0; i < COUNT; i++) {
        haki_tiny_slab_put(tiny, p[i]);
    }
    cr_assert_eq(tiny->nslabs, 1);
    haki_tiny_seal(tiny);
    cr_assert_eq(tiny->nslabs, 0);
    cr_assert_eq(tiny->nsealed, 0);
    tiny_check(tiny);
    tiny_delete(tiny);
}

Test(seal, it_can_be_sealed_again_and_again)
{
    size_t before;

    for (unsigned round = 0; round < 4; round++) {
        for (size_t i = round; i < OBJECTS / 5; i += 4) {
            world.p[i] = take(&world, size_of(i));
            unit_fill(world.p[i], size_of(i), (unsigned)i);
        }
        before = sealed_bytes();
        hak_seal();
        cr_assert_gt(sealed_bytes(), before);
        check(haki_self);
    }
    world.count = OBJECTS / 5;
    verify(&world);
    drop_all(&world);
    cr_assert_eq(sealed_bytes(), 0);
    check(haki_self);
}

/* As a child's child's child: nobody has counted what was in the bins. */
Test(seal, there_is_room_for_stale_lists)
{
    hak_heap *heap = hak_heap_new(NULL);
    struct hak_tiny *tiny = &heap->tiny;
    void *p[8 * HAK_TINY_CLASSES], *freed[HAK_TINY_CLASSES];
    uint32_t most = 0;

    tiny->allow.extra = HAK_EXTRA_MOST; /* what it frees stays in its bins */
    for (size_t round = 0; round < 8; round++) {
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            p[round * HAK_TINY_CLASSES + c] = haki_tiny_alloc(tiny, c);
            freed[c] = haki_tiny_alloc(tiny, c);
        }
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            haki_tiny_free(tiny, c, freed[c]);
        }
        haki_tiny_seal(tiny);
        most = haki_max(most, tiny->nstale);
        tiny_check(tiny);
    }
    for (size_t i = 0; i < 8 * HAK_TINY_CLASSES; i++) {
        hak_free(p[i]);
    }
    hak_heap_trim(heap);
    cr_assert_gt(most, HAK_TINY_STALE / 2);
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(tiny->nstale, 0);
    hak_heap_delete(heap);
}

Test(seal, runs_in_the_cache_go_back)
{
    for (int i = 0; i < 100; i++) { /* until the heap knows that it needs it */
        hak_free(hak_malloc(200000));
    }
    cr_assert_eq(haki_self->runs->held, 49);
    hak_seal();
    cr_assert_eq(haki_self->runs->held, 0);
    cr_assert_eq(unit_stats().ace_held_bytes, 0);
}

/* A packed heap: its slabs stay, sealed, to the end. */
Test(seal, packed_slabs_are_sealed)
{
    hak_heap *heap = hak_heap_new(NULL);
    struct hak_tiny *tiny = &heap->tiny;
    void *p[HAK_TINY_CLASSES], *freed;

    tiny->packed = true;
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        p[c] = haki_tiny_alloc(tiny, c);
    }
    freed = haki_tiny_alloc(tiny, 5);
    haki_tiny_free(tiny, 5, freed);
    haki_tiny_seal(tiny);
    cr_assert(haki_range_sealed((size_t)tiny->packed_at[0] << HAK_SLAB_SHIFT));
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        void *other = haki_tiny_alloc(tiny, c);

        cr_assert_not(in_sealed(other));
        haki_tiny_free(tiny, c, other);
        cr_assert_eq(haki_tiny_live(tiny, c), 1);
        cr_assert_eq(hak_usable_size(p[c]), haki_tiny_size[c]);
        hak_free(p[c]); /* of the thread's heap or none: another's, to it */
    }
    hak_heap_trim(heap);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        cr_assert_eq(haki_tiny_live(tiny, c), 0);
    }
    cr_assert(haki_range_sealed((size_t)tiny->packed_at[0] << HAK_SLAB_SHIFT));
    hak_heap_delete(heap);
    hak_trim();
    cr_assert_eq(unit_stats().slabs, 0);
}

Test(seal, the_limit_of_a_sealed_heap_holds)
{
    hak_heap_config config = {sizeof(config), 64 * HAK_KIB, NULL};
    hak_heap *heap = hak_heap_new(&config);
    void *p[64];

    for (size_t i = 0; i < 64; i++) {
        p[i] = hak_heap_malloc(heap, 1024);
        cr_assert_not_null(p[i]);
    }
    hak_heap_seal(heap);
    cr_assert_eq(hak_heap_live(heap), 64 * HAK_KIB);
    cr_assert_null(hak_heap_malloc(heap, 1024));
    hak_free(p[0]); /* comes in as another thread's */
    cr_assert_not_null(hak_heap_malloc(heap, 1024));
    hak_heap_free(heap, p[1]);
    cr_assert_not_null(hak_heap_malloc(heap, 1024));
    cr_assert_null(hak_heap_malloc(heap, 1));
    cr_assert_eq(hak_heap_live(heap), 64 * HAK_KIB);
    hak_heap_delete(heap);
}

/* Huge pages begin anew: a worker that needs little gets little. */
Test(seal, a_sealed_process_populates_as_a_small_one)
{
    uint64_t before;

    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    for (size_t i = 0; i < 20000; i++) {
        world.p[i] = hak_malloc(1000);
    }
    cr_assert_gt(unit_stats().resident_bytes, 16 * HAK_MIB);
    hak_seal();
    before = unit_stats().resident_bytes;
    for (size_t i = 0; i < 6000; i++) {
        uint64_t now = unit_stats().resident_bytes;

        cr_assert_leq(now - before, HAK_SLAB_SIZE);
        before = now;
        cr_assert_not_null(hak_malloc(1000));
    }
}

/* ---- misuse -------------------------------------------------------------------- */

static void *sealed_block(size_t size)
{
    void *p = hak_malloc(size);
    void *other = hak_malloc(size);

    NEED(p != NULL && other != NULL);
    hak_seal();
    NEED(in_sealed(p) && in_sealed(other));
    return p;
}

static void free_middle(void *p)
{
    hak_free((char *)p + 16);
}

Test(seal, the_middle_of_a_sealed_block_is_fatal)
{
    char *p = sealed_block(unit_ask(64));
    char *large = sealed_block(unit_ask(2048));

    unit_expect_fatal(free_middle, p,
                      "hakmem: fatal: hak_free(%p): the middle of a block of "
                      "64 bytes\n",
                      (void *)(p + 16));
    unit_expect_fatal(free_middle, large,
                      "hakmem: fatal: hak_free(%p): the middle of a block of "
                      "2048 bytes\n",
                      (void *)(large + 16));
}

static void free_sized_more(void *p)
{
    hak_free_sized(p, unit_size(2000));
}

Test(seal, a_size_larger_than_the_sealed_block_is_fatal)
{
    char *p = sealed_block(unit_ask(64));
    unsigned has = (unsigned)unit_usable(64, unit_ask(64));

    unit_expect_fatal(free_sized_more, p,
                      "hakmem: fatal: hak_free_sized(%p, 2000): the block has "
                      "only %u bytes\n",
                      (void *)p, has);
}

static void free_twice(void *p)
{
    hak_free(p);
    hak_free(p);
}

Test(seal, a_sealed_pool_block_freed_twice_is_fatal)
{
    char *p = sealed_block(unit_ask(2048));

    unit_expect_fatal(free_twice, p,
                      "hakmem: fatal: hak_free(%p): a block that is free\n",
                      (void *)p);
}

Test(seal, a_sealed_tiny_block_freed_twice_is_fatal_in_the_hardened_build)
{
    char *p = sealed_block(unit_ask(64));

    if (!HAK_HARD) {
        cr_skip("other builds do not look for it");
    }
    unit_expect_fatal(free_twice, p,
                      "hakmem: fatal: hak_free(%p): a block that is free "
                      "already\n",
                      (void *)p);
}

static void free_in_other_heap(void *p)
{
    hak_heap_free(hak_heap_new(NULL), p);
}

Test(seal, a_sealed_block_of_another_heap_is_fatal)
{
    char *p = sealed_block(unit_ask(64));

    unit_expect_fatal(free_in_other_heap, p,
                      "hakmem: fatal: hak_heap_free(%p): a block of another "
                      "heap\n",
                      (void *)p);
}
