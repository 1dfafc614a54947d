/*
 * toy.c - tests of the sample adapter: what each adapter's tests should have.
 */
#include "hak_toy.h"

#include "embed.h"
#include "os/os.h"
#include "unit.h"

TestSuite(toy, .timeout = 300);

static const char work[] = "list 200 { 'abc dup cat dup cat add 7 add dup } "
                           "150 { drop } list 3000 { 1 add } drop 1 2 +";

static const char eater[] = "list 1000000000 { 'a-text-of-some-length add }";

static hak_toy_stats stats_of(const hak_toy_heap *heap)
{
    hak_toy_stats stats = {.size = sizeof(stats)};

    cr_assert_eq(hak_toy_heap_stats(heap, &stats), 0);
    return stats;
}

/* The C library, counted: what a toy has before it is switched. */
static size_t libc_live;

static void *libc_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
    (void)ud;
    libc_live += nsize - osize;
    if (nsize == 0) {
        free(p);
        return NULL;
    }
    return realloc(p, nsize);
}

static void expect_worked(const struct toy *toy)
{
    cr_assert_eq(toy_number(toy), 3);
    cr_assert_eq(toy_depth(toy), 52);
}

Test(toy, it_runs_and_nothing_is_left)
{
    hak_toy_heap *heap = hak_toy_heap_new(0);
    struct toy *toy = toy_new(hak_toy_alloc, heap);

    cr_assert_eq(toy_run(toy, work), TOY_OK);
    expect_worked(toy);
    cr_assert_gt(stats_of(heap).live_bytes, 100000);
    cr_assert_gt(stats_of(heap).tiny_allocs, 10000);
    cr_assert_gt(stats_of(heap).larger_allocs, 0);
    cr_assert_gt(stats_of(heap).calls, stats_of(heap).tiny_allocs);
    toy_free(toy);
    cr_assert_eq(stats_of(heap).live_bytes, 0);
    cr_assert_eq(stats_of(heap).foreign_frees, 0);
    hak_toy_heap_delete(heap);
    unit_expect_none_live();
}

Test(toy, its_heap_may_go_with_all_that_is_in_it)
{
    for (int i = 0; i < 20; i++) {
        hak_toy_heap *heap = hak_toy_heap_new(0);
        struct toy *toy = toy_new(hak_toy_alloc, heap);

        cr_assert_eq(toy_run(toy, work), TOY_OK);
        hak_toy_heap_delete(heap);
    }
    hak_toy_heap_delete(NULL);
    unit_expect_none_live();
    cr_assert_eq(unit_stats().heaps, 0);
}

Test(toy, the_limit_is_an_error_that_it_survives)
{
    hak_toy_heap *heap = hak_toy_heap_new(300000);
    struct toy *toy = toy_new(hak_toy_alloc, heap);

    cr_assert_eq(toy_run(toy, eater), TOY_NO_MEMORY);
    cr_assert_leq(stats_of(heap).peak_bytes, 300000);
    cr_assert_geq(stats_of(heap).peak_bytes, 100000);
    cr_assert_gt(stats_of(heap).limit_refusals, 0);
    cr_assert_eq(toy_run(toy, "drop 1 2 +"), TOY_OK);
    cr_assert_eq(toy_number(toy), 3);
    toy_free(toy);
    cr_assert_eq(stats_of(heap).live_bytes, 0);
    hak_toy_heap_delete(heap);
}

/* What it had goes back to where it came from, what it gets is ours. */
Test(toy, a_running_one_is_switched)
{
    hak_toy_heap *heap = hak_toy_heap_new(0);
    struct toy *toy = toy_new(libc_alloc, NULL);
    size_t before;

    cr_assert_eq(toy_run(toy, work), TOY_OK);
    before = libc_live;
    hak_toy_switch(toy, heap);
    cr_assert_eq(toy_run(toy, "drop 50 { drop }"), TOY_OK);
    cr_assert_lt(libc_live, before / 4);
    cr_assert_gt(stats_of(heap).foreign_frees, 100);
    cr_assert_eq(toy_run(toy, "drop"), TOY_OK);
    cr_assert_eq(toy_run(toy, work), TOY_OK);
    expect_worked(toy);
    toy_free(toy);
    cr_assert_eq(libc_live, 0);
    cr_assert_eq(stats_of(heap).live_bytes, 0);
    hak_toy_heap_delete(heap);
    unit_expect_none_live();
}

/* Every call to the system refused in turn: an error or none, never a crash. */
Test(toy, it_survives_a_system_without_memory)
{
    for (int refuse = 1; refuse < 12; refuse++) {
        hak_toy_heap *heap;
        struct toy *toy = NULL;

        haki_os_test_refuse(refuse, true);
        heap = hak_toy_heap_new(0);
        if (heap != NULL) {
            toy = toy_new(hak_toy_alloc, heap);
        }
        if (toy != NULL && toy_run(toy, work) == TOY_OK) {
            expect_worked(toy);
        }
        haki_os_test_refuse(0, false);
        hak_toy_heap_delete(heap);
    }
    unit_expect_none_live();
}

static void works_on(void *toy)
{
    NEED(toy_run(toy, "drop") == TOY_OK);
    NEED(toy_run(toy, work) == TOY_OK && toy_number(toy) == 3);
}

/* A forked child has a copy, and goes on; so does the parent. */
Test(toy, a_child_goes_on_with_a_copy)
{
    hak_toy_heap *heap = hak_toy_heap_new(0);
    struct toy *toy = toy_new(hak_toy_alloc, heap);

    cr_assert_eq(toy_run(toy, work), TOY_OK);
    unit_expect_ok(works_on, toy);
    works_on(toy);
    toy_free(toy);
    cr_assert_eq(stats_of(heap).live_bytes, 0);
    hak_toy_heap_delete(heap);
}

static void frees_with_a_wrong_size(void *p)
{
    hak_toy_heap *heap = hak_toy_heap_new(0);

    (void)p;
    hak_toy_alloc(heap, hak_toy_alloc(heap, NULL, 0, 2000), 5000, 0);
}

Test(toy, misuse_is_said)
{
    hak_toy_heap *heap = hak_toy_heap_new(0);
    hak_toy_stats stats = {.size = 1};
    struct unit_child child;

    cr_assert_eq(hak_toy_heap_stats(heap, &stats), -1);
    cr_assert_eq(errno, EINVAL);
    unit_child(&child, frees_with_a_wrong_size, NULL);
    cr_assert(WIFSIGNALED(child.status));
    cr_assert_not_null(strstr(child.said, "the block has only 2048 bytes"));
    hak_toy_heap_delete(heap);
}
