/*
 * large_misuse.c - pointers that are not blocks of the ACE or the Huge lane end
 * the program with one line that names them.
 */
#include "front/lane.h"
#include "heap/thread.h"
#include "misuse.h"
#include "unit.h"

TestSuite(large_misuse, .timeout = 300);

#define NEVER "an address that was never given out"
#define HOLE "a block that is free, or an address never given out"

static void expect_fatal(size_t first, void *p, const char *reason)
{
    expect_fatal_sized(first, p, 60000, reason);
}

static void expect_middle(char *p, size_t at, size_t bytes)
{
    char reason[60];

    snprintf(reason, sizeof(reason), "the middle of a block of %zu bytes",
             bytes);
    expect_fatal(ALL, p + at, reason);
}

/* ---- ACE ------------------------------------------------------------------------ */

Test(large_misuse, the_middle_of_a_run)
{
    char *p = hak_malloc(100000);
    size_t bytes = 25 * HAK_PAGE;

    expect_middle(p, 1, bytes);
    expect_middle(p, 16, bytes);
    expect_middle(p, HAK_PAGE, bytes);
    expect_middle(p, bytes - 16, bytes);
    hak_free(p);
}

Test(large_misuse, a_hole)
{
    char *keep = hak_malloc(100000), *p = hak_malloc(100000);

    hak_free(p);
    hak_trim(); /* out of the heap's cache */
    expect_fatal(ALL, p, HOLE);
    expect_fatal(ALL, p + HAK_PAGE, HOLE);
    expect_fatal(ALL, p + HAK_MIB, HOLE);
    hak_free(keep);
}

static void free_twice(void *arg)
{
    hak_free(arg);
    hak_free(arg);
}

/* The second time it lies in the heap's cache, or in a hole. */
Test(large_misuse, a_run_freed_twice)
{
    static const size_t sizes[] = {60000, 1000000, 1500000};
    char *keep = hak_malloc(100000);

    for (int i = 0; i < 3; i++) {
        char *p = hak_malloc(sizes[i]);
        struct unit_child child;

        unit_child(&child, free_twice, p);
        cr_assert(WIFSIGNALED(child.status) &&
                  WTERMSIG(child.status) == SIGABRT);
        cr_assert_not_null(strstr(child.said, "a block that is free"), "%s",
                           child.said);
        hak_free(p);
    }
    hak_free(keep);
}

Test(large_misuse, a_superslab_that_has_gone_back)
{
    char *p = hak_malloc(100000);

    hak_free(p);
    hak_trim();
    expect_fatal(ALL, p, NEVER);
}

/* ---- Huge ---------------------------------------------------------------------------- */

Test(large_misuse, the_middle_of_a_huge_block)
{
    char *p = hak_malloc(5000000);
    size_t bytes = 1221 * HAK_PAGE;

    expect_middle(p, 1, bytes);
    expect_middle(p, HAK_SLAB_SIZE, bytes);
    expect_middle(p, HAK_SUPER_SIZE, bytes);
    expect_middle(p, 2 * HAK_SUPER_SIZE + 16, bytes);
    hak_free(p);
}

Test(large_misuse, a_huge_block_that_is_free)
{
    char *p = hak_malloc(5000000);

    hak_free(p);
    expect_fatal(ALL, p, NEVER);
    expect_fatal(ALL, p + HAK_SUPER_SIZE, NEVER);
}

Test(large_misuse, what_a_huge_block_has_left_behind)
{
    char *p, *q;

    setenv("HAKMEM_RANGE", "1G", 1); /* it can't grow over the end */
    p = hak_malloc(5000000);
    q = hak_realloc(p, 90000000);
    cr_assert_neq(p, q);
    expect_fatal(ALL, p, NEVER);
    q = hak_realloc(q, 2500000);
    expect_fatal(ALL, q + 2 * HAK_SUPER_SIZE, NEVER);
    hak_free(q);
}

/* ---- both ------------------------------------------------------------------------------- */

Test(large_misuse, a_block_of_another_heap)
{
    static const size_t sizes[] = {60000, 1000000, 3000000};
    hak_heap *other = hak_heap_new(NULL);

    for (int i = 0; i < 3; i++) {
        char *p = hak_malloc(sizes[i]);

        expect_fatal(HEAPS, p, "a block of another heap");
        hak_free(p);
        p = hak_heap_malloc(other, sizes[i]);
        expect_fatal(HEAPS, p, "a block of another heap");
        hak_free(p); /* which may */
    }
    cr_assert_eq(hak_heap_live(other), 0);
    hak_heap_delete(other);
}

Test(large_misuse, a_size_larger_than_the_block)
{
    struct call call = {hak_malloc(56000), 60000, NULL};

    cr_assert_eq(hak_usable_size(call.p), unit_usable(57344, 56000));
    unit_expect_fatal(call_free_sized, &call,
                      "hakmem: fatal: hak_free_sized(%p, 60000): the block has "
                      "only %zu bytes\n",
                      call.p, unit_usable(57344, 56000));
    hak_free(call.p);
}
