/*
 * large_misuse.c - pointers that are not blocks of the ACE or the Huge lane end
 * the program with one line that names them.
 */
#include "front/lane.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(large_misuse, .timeout = 120);

#define NEVER "an address that was never given out"
#define HOLE "a block that is free, or an address never given out"

struct call {
    void *p;
    hak_heap *heap;
};

static void call_free(void *arg)
{
    hak_free(((struct call *)arg)->p);
}

static void call_free_sized(void *arg)
{
    hak_free_sized(((struct call *)arg)->p, 60000);
}

static void call_realloc(void *arg)
{
    NEED(hak_realloc(((struct call *)arg)->p, 777777) == arg);
}

static void call_usable_size(void *arg)
{
    NEED(hak_usable_size(((struct call *)arg)->p) == 77);
}

static void call_heap_free(void *arg)
{
    hak_heap_free(((struct call *)arg)->heap, ((struct call *)arg)->p);
}

static void call_heap_realloc(void *arg)
{
    const struct call *call = arg;

    NEED(hak_heap_realloc(call->heap, call->p, 777777) == arg);
}

static const struct {
    const char *name;
    void (*run)(void *);
} calls[] = {
    {"hak_free", call_free},           {"hak_free_sized", call_free_sized},
    {"hak_realloc", call_realloc},     {"hak_usable_size", call_usable_size},
    {"hak_heap_free", call_heap_free}, {"hak_heap_realloc", call_heap_realloc},
};

enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

/* All, or those on heaps, must name themselves, p and the reason, and abort. */
static void expect_fatal(bool heaps, void *p, const char *reason)
{
    struct call call = {unit_pointer(p), hak_heap_new(NULL)};

    for (size_t i = heaps ? 4 : 0; i < CALLS; i++) {
        unit_expect_fatal(calls[i].run, &call, "hakmem: fatal: %s(%p): %s\n",
                          calls[i].name, p, reason);
    }
    hak_heap_delete(call.heap);
}

static void expect_middle(char *p, size_t at, size_t bytes)
{
    char reason[60];

    snprintf(reason, sizeof(reason), "the middle of a block of %zu bytes",
             bytes);
    expect_fatal(false, p + at, reason);
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
    expect_fatal(false, p, HOLE);
    expect_fatal(false, p + HAK_PAGE, HOLE);
    expect_fatal(false, p + HAK_MIB, HOLE);
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
    expect_fatal(false, p, NEVER);
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
    expect_fatal(false, p, NEVER);
    expect_fatal(false, p + HAK_SUPER_SIZE, NEVER);
}

Test(large_misuse, what_a_huge_block_has_left_behind)
{
    char *p, *q;

    setenv("HAKMEM_RANGE", "1G", 1); /* it can't grow over the end */
    p = hak_malloc(5000000);
    q = hak_realloc(p, 90000000);
    cr_assert_neq(p, q);
    expect_fatal(false, p, NEVER);
    q = hak_realloc(q, 2500000);
    expect_fatal(false, q + 2 * HAK_SUPER_SIZE, NEVER);
    hak_free(q);
}

/* ---- both ------------------------------------------------------------------------------- */

Test(large_misuse, a_block_of_another_heap)
{
    static const size_t sizes[] = {60000, 1000000, 3000000};
    hak_heap *other = hak_heap_new(NULL);

    for (int i = 0; i < 3; i++) {
        char *p = hak_malloc(sizes[i]);

        expect_fatal(true, p, "a block of another heap");
        hak_free(p);
        p = hak_heap_malloc(other, sizes[i]);
        expect_fatal(true, p, "a block of another heap");
        hak_free(p); /* which may */
    }
    cr_assert_eq(hak_heap_live(other), 0);
    hak_heap_delete(other);
}

Test(large_misuse, a_size_larger_than_the_block)
{
    struct call call = {hak_malloc(56000), NULL};

    cr_assert_eq(hak_usable_size(call.p), unit_usable(57344, 56000));
    unit_expect_fatal(call_free_sized, &call,
                      "hakmem: fatal: hak_free_sized(%p, 60000): the block has "
                      "only %zu bytes\n",
                      call.p, unit_usable(57344, 56000));
    hak_free(call.p);
}
