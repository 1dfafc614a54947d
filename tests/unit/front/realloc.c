/*
 * realloc.c - tests of realloc's short path (haki_hot_realloc): what it does
 * itself, and what it leaves to the lanes, of which it must change nothing.
 */
#include "block.h"
#include "front/hot.h"
#include "pool_check.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(hot_realloc, .timeout = 120);

enum { SEED = 7 };

static char *filled(size_t size)
{
    char *p = hak_malloc(size);

    NEED(p != NULL);
    unit_fill(p, size, SEED);
    return p;
}

/* The bin of this size has a block. */
static void *put_into_bin(size_t size)
{
    void *p = unit_pointer(hak_malloc(size));

    NEED(p != NULL);
    hak_free(p);
    return p;
}

static void check_heap(void)
{
    tiny_check(&haki_self->tiny);
    if (haki_self->pool != NULL) {
        pool_check(haki_self->pool);
    }
}

Test(hot_realloc, a_block_stays_where_its_class_or_a_quarter_says)
{
    static const struct {
        size_t has, asked;
    } stays[] = {{32, 25},     {100, 97},    {1024, 1024}, {1024, 1009},
                 {2000, 1999}, {4096, 4000}, {4096, 3072}, {32768, 32768}};

    for (size_t i = 0; i < sizeof(stays) / sizeof(*stays); i++) {
        char *p = filled(unit_ask(stays[i].has));
        char *q = haki_hot_realloc(p, unit_ask(stays[i].asked));

        cr_assert_eq(q, HAK_HARD ? NULL : p, "%zu", stays[i].has);
        cr_assert_eq(hak_realloc(p, unit_ask(stays[i].asked)), p);
        hak_free(p);
    }
    check_heap();
}

static const size_t sizes[] = {16,   40,   200,  720,  1000,
                               1500, 3000, 5000, 9000, 30000};
enum { SIZES = sizeof(sizes) / sizeof(*sizes) };

/*
 * From bin to bin, in Tiny, in Pool and between them; the old block is the caller's
 * to free. The first frees of a class may empty its bin.
 */
Test(hot_realloc, a_block_moves_to_where_a_bin_has_one)
{
    size_t moved = 0;

    for (size_t i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < SIZES; k++) {
            char *to = put_into_bin(sizes[k]), *p = filled(sizes[i]), *q;
            size_t kept = haki_min(sizes[i], sizes[k]);

            if (i == k || HAK_HARD) {
                hak_free(p);
                continue;
            }
            q = haki_hot_realloc(p, sizes[k]);
            if (q == NULL) {
                cr_assert(unit_filled(p, sizes[i], SEED));
                hak_free(p);
                continue;
            }
            moved++;
            cr_assert_eq(q, to, "%zu to %zu", sizes[i], sizes[k]);
            cr_assert(unit_filled(q, kept, SEED));
            cr_assert(unit_filled(p, sizes[i], SEED));
            hak_free(p);
            hak_free(q);
        }
    }
    cr_assert(HAK_HARD || moved >= SIZES * (SIZES - 1) / 2, "%zu", moved);
    check_heap();
    unit_expect_none_live();
}

/* Without a block in the bin, or for larger ones, it does nothing. */
Test(hot_realloc, an_empty_bin_and_larger_sizes_are_left_to_the_lanes)
{
    static const size_t larger[] = {600, 52 * HAK_KIB + 1, HAK_MIB,
                                    3 * HAK_MIB};
    char *p = filled(100);

    hak_trim();
    for (size_t i = 0; i < sizeof(larger) / sizeof(*larger); i++) {
        char *q = filled(larger[i]);

        cr_assert_null(haki_hot_realloc(p, larger[i] * 2));
        cr_assert(unit_filled(p, 100, SEED));
        if (larger[i] > 52 * HAK_KIB) {
            cr_assert_null(haki_hot_realloc(q, 100));
            cr_assert(unit_filled(q, larger[i], SEED));
        }
        hak_free(q);
    }
    cr_assert_null(haki_hot_realloc(p, SIZE_MAX));
    cr_assert_null(haki_hot_realloc(p, PTRDIFF_MAX));
    hak_free(p);
    check_heap();
}

/* ---- not a block of the thread's heap ------------------------------------------ */

static char *theirs[SIZES];

static void *try_theirs(void *arg)
{
    for (size_t i = 0; i < SIZES; i++) {
        hak_free(filled(sizes[i]));
        cr_assert_null(haki_hot_realloc(theirs[i], sizes[i]));
        cr_assert_null(haki_hot_realloc(theirs[i], sizes[(i + 1) % SIZES]));
    }
    for (size_t i = 0; i < SIZES; i++) {
        theirs[i] = hak_realloc(theirs[i], sizes[i] * 2);
        NEED(theirs[i] != NULL && unit_filled(theirs[i], sizes[i], SEED));
    }
    return arg;
}

Test(hot_realloc, blocks_of_other_threads_are_left_to_the_lanes)
{
    for (size_t i = 0; i < SIZES; i++) {
        theirs[i] = filled(sizes[i]);
    }
    unit_in_thread(try_theirs, NULL);
    for (size_t i = 0; i < SIZES; i++) {
        cr_assert(unit_filled(theirs[i], sizes[i], SEED));
        hak_free(theirs[i]);
    }
    hak_trim();
    check_heap();
    unit_expect_none_live();
}

/* A thread that has no heap yet has no block that it could be for. */
static void *try_without(void *arg)
{
    NEED(haki_self->tiny.id == 0);
    NEED(haki_hot_realloc(theirs[0], sizes[0]) == NULL);
    NEED(haki_hot_realloc(theirs[SIZES - 1], sizes[SIZES - 1]) == NULL);
    NEED(haki_self->tiny.id == 0);
    return arg;
}

Test(hot_realloc, a_thread_without_a_heap_leaves_all_to_the_lanes)
{
    for (size_t i = 0; i < SIZES; i++) {
        theirs[i] = filled(sizes[i]);
    }
    unit_in_thread(try_without, NULL);
}

static void explicit_heap_is_left(bool packed)
{
    hak_heap *heap = hak_heap_new(NULL);

    heap->tiny.packed = packed; /* an adapter's */
    for (size_t i = 0; i < SIZES; i++) {
        char *p = hak_heap_malloc(heap, sizes[i]);

        cr_assert_not_null(p);
        hak_free(filled(sizes[i]));
        cr_assert_null(haki_hot_realloc(p, sizes[i]));
        cr_assert_null(haki_hot_realloc(p, sizes[(i + 1) % SIZES]));
        hak_heap_free(heap, p);
    }
    hak_heap_delete(heap);
    check_heap();
}

Test(hot_realloc, explicit_heaps_blocks_are_left_to_the_lanes)
{
    explicit_heap_is_left(false);
    explicit_heap_is_left(true);
}

/* A sealed slab gets no block back, and its block no more writes than asked. */
Test(hot_realloc, sealed_blocks_are_left_to_the_lanes)
{
    char *p[SIZES];

    for (size_t i = 0; i < SIZES; i++) {
        p[i] = filled(sizes[i]);
    }
    hak_seal();
    for (size_t i = 0; i < SIZES; i++) {
        hak_free(filled(sizes[i]));
        cr_assert_null(haki_hot_realloc(p[i], sizes[i]));
        cr_assert_null(haki_hot_realloc(p[i], sizes[(i + 1) % SIZES]));
        p[i] = hak_realloc(p[i], sizes[i] * 2);
        cr_assert(unit_filled(p[i], sizes[i], SEED));
        hak_free(p[i]);
    }
    hak_trim();
    check_heap();
    unit_expect_none_live();
}

/* ---- wrong pointers --------------------------------------------------------------- */

static void move_inside(void *p)
{
    (void)hak_realloc(unit_pointer(p), 500);
}

Test(hot_realloc, a_pointer_into_a_block_is_left_to_the_lanes_that_end_it)
{
    static const size_t into[] = {8, 16, 100};

    for (size_t i = 0; i < SIZES; i++) {
        char *p = filled(sizes[i]);

        hak_free(filled(500));
        for (size_t k = 0; k < sizeof(into) / sizeof(*into); k++) {
            if (into[k] >= sizes[i]) {
                continue;
            }
            cr_assert_null(haki_hot_realloc(p + into[k], sizes[i]));
            cr_assert_null(haki_hot_realloc(p + into[k], 500));
        }
        if (!UNIT_GCC_TSAN && (i == 1 || i == SIZES - 1)) {
            struct unit_child child;

            unit_child(&child, move_inside, p + 8);
            cr_assert(WIFSIGNALED(child.status) &&
                      WTERMSIG(child.status) == SIGABRT);
            cr_assert_not_null(strstr(child.said, "hakmem: fatal: hak_realloc"),
                               "%s", child.said);
        }
        hak_free(p);
    }
    check_heap();
}
