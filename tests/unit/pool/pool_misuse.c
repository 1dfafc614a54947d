/*
 * pool_misuse.c - pointers that are not blocks of the Pool lane end the program
 * with one line that names them, whichever function and thread gets them.
 */
#include "block.h"
#include "front/lane.h"
#include "pool_check.h"
#include "heap/thread.h"
#include "misuse.h"
#include "unit.h"

TestSuite(pool_misuse, .timeout = 300);

/* The owner's own frees are looked at when they leave the bin. */
static void call_free_and_trim(void *arg)
{
    hak_free(((struct call *)arg)->p);
    hak_trim();
}

static void expect_fatal(size_t first, void *p, const char *reason)
{
    expect_fatal_sized(first, p, 1100, reason);
}

static void *free_in_thread(void *p)
{
    hak_free(p);
    return NULL;
}

static void call_free_elsewhere(void *arg)
{
    unit_in_thread(free_in_thread, ((struct call *)arg)->p);
}

/* The same from a thread that does not own the heap. */
static void expect_fatal_elsewhere(void *p, const char *reason)
{
    struct call call = {unit_pointer(p), 0, NULL};

    if (!UNIT_GCC_TSAN) {
        unit_expect_fatal(call_free_elsewhere, &call,
                          "hakmem: fatal: hak_free(%p): %s\n", p, reason);
    }
}

static void expect_fatal_anywhere(void *p, const char *reason)
{
    expect_fatal(ALL, p, reason);
    expect_fatal_elsewhere(p, reason);
}

/*
 * ... of which hak_free by the owner tells `later` only. The hardened build
 * finds at once what is not a question of whose bin it lies in.
 */
static void expect_fatal_later(void *p, const char *reason, const char *later)
{
    struct call call = {unit_pointer(p), 0, NULL};

    expect_fatal(1, p, reason);
    expect_fatal_elsewhere(p, reason);
    unit_expect_fatal(call_free_and_trim, &call, "hakmem: fatal: %s(%p): %s\n",
                      HAK_HARD && strcmp(reason, later) == 0 ? "hak_free"
                                                             : "free",
                      p, later);
}

/* ---- what it is --------------------------------------------------------------- */

Test(pool_misuse, the_middle_of_a_block)
{
    for (size_t size = 1025; size <= HAK_POOL_MAX_SIZE; size += 5000) {
        char *p = hak_malloc(size);
        size_t block = unit_block(p);
        char reason[60];

        snprintf(reason, sizeof(reason), "the middle of a block of %zu bytes",
                 block);
        expect_fatal_anywhere(p + 1, reason);
        expect_fatal_anywhere(p + 16, reason);
        expect_fatal_anywhere(p + block / 2, reason);
        expect_fatal_anywhere(p + block - 16, reason);
        hak_free(p);
    }
}

Test(pool_misuse, a_free_block)
{
    char *p = hak_malloc(3000);
    char *q = hak_malloc(3000);

    hak_free(p);
    hak_trim(); /* out of the bin */
    expect_fatal_later(p, "a block that is free",
                       "a block that is free already");
    hak_free(q);
}

/* Blocks of a span are made ready in steps once the process has grown. */
Test(pool_misuse, what_was_never_given_out)
{
    char *large = hak_malloc(1000), *p;

    for (int i = 0; i < 3000; i++) {
        memset(hak_malloc(1000), 1, 1000);
    }
    p = hak_malloc(1100);
    cr_assert_eq(haki_pool_state(p + 40 * 1152), HAK_POOL_NEVER);
    expect_fatal_later(p + 40 * 1152, "an address that was never given out",
                       "an address that was never given out");
    hak_free(p);
    hak_free(large);
}

Test(pool_misuse, a_block_of_a_span_that_has_gone_back)
{
    char *p = hak_malloc(50000);

    hak_free(p);
    hak_trim();
    expect_fatal_anywhere(p, "an address that was never given out");
}

/* ---- freed twice, once by another thread at least --------------------------- */

/* Before the owner has heard of the first time, ... */
static void free_twice_elsewhere(void *arg)
{
    unit_in_thread(free_in_thread, arg);
    unit_in_thread(free_in_thread, arg);
}

/* ... by the owner then, who has not heard of it, ... */
static void free_elsewhere_then_here(void *arg)
{
    unit_in_thread(free_in_thread, arg);
    hak_free(arg);
    hak_trim();
}

/* ... and by the owner before. */
static void free_here_then_elsewhere(void *arg)
{
    hak_free(arg);
    unit_in_thread(free_in_thread, arg);
    hak_trim();
}

Test(pool_misuse, freed_twice_by_two_threads)
{
    char *keep = hak_malloc(2000), *p = hak_malloc(2000);

    UNIT_SKIP_IF_GCC_TSAN();
    unit_expect_fatal(free_twice_elsewhere, p,
                      "hakmem: fatal: hak_free(%p): a block that is free "
                      "already\n",
                      (void *)p);
    unit_expect_fatal(free_elsewhere_then_here, p,
                      "hakmem: fatal: free(%p): a block that is free already\n",
                      (void *)p);
    unit_expect_fatal(
        free_here_then_elsewhere, p,
        HAK_HARD ? "hakmem: fatal: hak_free(%p): a block that is free\n"
                 : "hakmem: fatal: free(%p): a block that is free "
                   "already\n",
        (void *)p);
    hak_free(keep);
}

/* ---- not this heap's, larger than it is ------------------------------------------- */

Test(pool_misuse, a_block_of_another_heap)
{
    struct call call = {NULL, 0, hak_heap_new(NULL)};
    hak_heap *other = hak_heap_new(NULL);

    for (size_t size = 1025; size <= HAK_POOL_MAX_SIZE; size += 20000) {
        for (int thread_s = 0; thread_s < 2; thread_s++) {
            call.p = thread_s ? hak_malloc(size) : hak_heap_malloc(other, size);
            for (size_t i = HEAPS; i < CALLS; i++) {
                unit_expect_fatal(calls[i].run, &call,
                                  "hakmem: fatal: %s(%p): a block of another "
                                  "heap\n",
                                  calls[i].name, call.p);
            }
        }
    }
    hak_heap_delete(other);
    hak_heap_delete(call.heap);
}

Test(pool_misuse, a_size_larger_than_the_block)
{
    struct call call = {hak_malloc(2000), 2049, NULL};

    unit_expect_fatal(call_free_sized, &call,
                      "hakmem: fatal: hak_free_sized(%p, 2049): the block has "
                      "only %zu bytes\n",
                      call.p, unit_usable(2048, 2000));
    call.size = unit_usable(2048, 2000);
    unit_expect_ok(call_free_sized, &call);
}
