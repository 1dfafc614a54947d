/*
 * seal_threads.c - tests of the fork seal where other threads free into sealed slabs,
 * and of sealed heaps whose threads have ended.
 */
#include "heap/thread.h"
#include "tiny/tiny_seal.h"
#include "seal_world.h"

TestSuite(seal_threads, .timeout = 300);

/* Frees what is left of every other object. */
static void *free_odd(void *arg)
{
    for (size_t i = 1; i < world.count; i += 2) {
        if (world.p[i] != NULL) {
            NEED(unit_filled(world.p[i], size_of(i), (unsigned)i));
            hak_free(world.p[i]);
        }
    }
    return arg;
}

Test(seal_threads, frees_by_other_threads_write_to_no_page_and_come_in)
{
    SKIP_IF_HARD();
    build(&world);
    hak_seal();
    protect(true);
    unit_in_thread(free_odd, NULL);
    check(haki_self);
    hak_trim();
    check(haki_self);
    protect(false);
    for (size_t i = 1; i < world.count; i += 2) {
        world.p[i] = NULL;
    }
    verify(&world);
    drop_all(&world);
    hak_trim();
    unit_expect_none_live();
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().slabs, 0);
}

/* A slab's descriptor is what the slab's last lane has left there. */
Test(seal_threads, frees_by_others_are_counted_from_0)
{
    enum { RUNS = 30 };
    void *runs[RUNS];

    for (size_t i = 0; i < RUNS; i++) {
        runs[i] = hak_malloc(unit_ask(14 * HAK_PAGE));
    }
    for (size_t i = 0; i < RUNS; i++) {
        hak_free(runs[i]);
    }
    hak_trim();
    cr_assert_eq(unit_stats().ace_held_bytes, 0);
    build(&world);
    hak_seal();
    unit_in_thread(free_odd, NULL);
    for (size_t i = 0; i < world.count; i += 2) {
        drop_at(&world, i);
    }
    hak_trim();
    cr_assert_eq(sealed_bytes(), 0);
    unit_expect_none_live();
}

/* The owner frees and seals while the other thread frees. */
Test(seal_threads, two_threads_free_into_sealed_slabs_at_once)
{
    pthread_t other;

    for (size_t round = 0; round < unit_scale(20, 3); round++) {
        build(&world);
        if (round % 2 == 0) {
            hak_seal();
        }
        other = unit_start(free_odd, NULL);
        for (size_t i = 0; i < world.count; i += 2) {
            drop_at(&world, i);
            if (i % 1000 == 0) {
                hak_seal();
            }
            hak_free(hak_malloc(size_of(i)));
        }
        unit_join(other);
        memset(world.p, 0, sizeof(world.p));
        hak_trim();
        check(haki_self);
        unit_expect_none_live();
        cr_assert_eq(sealed_bytes(), 0);
    }
}

/* What was on its way when the heap was sealed is taken in all the same. */
static void *free_few(void *arg)
{
    for (size_t i = 0; i < 100; i++) {
        hak_free(world.p[i]);
    }
    return arg;
}

Test(seal_threads, blocks_in_the_inbox_are_counted)
{
    world.heap = hak_heap_new(NULL);
    for (size_t i = 0; i < 200; i++) {
        world.p[i] = take(&world, 500);
    }
    unit_in_thread(free_few, NULL);
    cr_assert_not_null(atomic_load(&world.heap->tiny.inbox));
    hak_heap_seal(world.heap);
    tiny_check(&world.heap->tiny);
    cr_assert_null(atomic_load(&world.heap->tiny.inbox));
    cr_assert_eq(hak_heap_live(world.heap), 100 * 512);
    for (size_t i = 100; i < 200; i++) {
        drop(&world, world.p[i]);
    }
    cr_assert_eq(sealed_bytes(), 0);
    hak_heap_delete(world.heap);
}

static void *build_and_end(void *arg)
{
    build(&world);
    return arg;
}

static void *build_seal_and_end(void *arg)
{
    build(&world);
    hak_seal();
    return arg;
}

/* A parked heap: sealed before its thread ended or after, adopted, freed. */
static void parked(void *(*run)(void *))
{
    hak_free(hak_malloc(1));
    unit_in_thread(run, NULL);
    hak_seal();
    cr_assert_gt(sealed_bytes(), 0);
    for (size_t i = 0; i < world.count; i++) {
        cr_assert(world.p[i] == NULL || in_sealed(world.p[i]));
    }
    unit_in_thread(churn_and_end, NULL); /* adopts it */
    verify(&world);
    drop_all(&world);
    cr_assert_eq(sealed_bytes(), 0, "it is given back for the heap");
    hak_trim();
    unit_expect_none_live();
    cr_assert_eq(unit_stats().slabs, 0);
    cr_assert_eq(unit_stats().heaps_parked, 0, "and has ended");
}

Test(seal_threads, the_heap_of_a_thread_that_has_ended_is_sealed)
{
    parked(build_and_end);
}

Test(seal_threads, a_sealed_heap_outlives_its_thread)
{
    parked(build_seal_and_end);
}

static void *make_seal_and_end(void *arg)
{
    for (size_t i = 0; i < 2000; i++) {
        world.p[i] = hak_malloc(100);
    }
    hak_seal();
    return arg;
}

Test(seal_threads, a_slab_of_a_parked_heap_is_given_back_with_its_last_block)
{
    hak_free(hak_malloc(1));
    unit_in_thread(make_seal_and_end, NULL);
    for (size_t i = 0; i < 2000; i++) {
        cr_assert_gt(sealed_bytes(), 0);
        hak_free(world.p[i]);
    }
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
}
