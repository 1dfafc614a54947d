/*
 * sized.c - tests of the functions that return or take a size, on threads'
 * heaps and on explicit ones, and of an explicit heap's calloc and aligned
 * blocks.
 */
#include "api/heap_explicit.h"
#include "front/lane.h"
#include "front/large.h"
#include "os/os.h"
#include "unit.h"

TestSuite(sized, .timeout = 300);

/* Sizes about every bound, and many between them. */
static size_t some_size(size_t i)
{
    static const size_t bounds[] = {
        16,
        128,
        HAK_LANE_TINY_MAX,
        HAK_LANE_POOL_MIN + 1,
        HAK_LANE_POOL_MAX,
        HAK_LANE_ACE_MIN + 4096,
        HAK_LANE_ACE_MAX,
        HAK_LANE_HUGE_MIN + 4096,
        3 * HAK_MIB,
    };
    enum { BOUNDS = sizeof(bounds) / sizeof(bounds[0]) };

    return i < BOUNDS * 6 ? bounds[i / 6] - 3 + i % 6 : (i - BOUNDS * 6) * 37;
}

static size_t some(void)
{
    return 9 * 6 + unit_scale(1800, 60);
}

/* Of a large block the first bytes and the last: all of it would take long. */
enum { WHOLE = 10000, END = 5000 };

static void fill(char *p, size_t size, unsigned seed)
{
    unit_fill(p, size <= WHOLE ? size : END, seed);
    if (size > WHOLE) {
        unit_fill(p + size - END, END, seed);
    }
}

/* Of what was filled so, and has `size` bytes now. */
static bool is_filled(const char *p, size_t filled, size_t size, unsigned seed)
{
    return unit_filled(p, haki_min(size, filled <= WHOLE ? filled : END),
                       seed) &&
           (filled <= WHOLE || size < filled ||
            unit_filled(p + filled - END, END, seed));
}

static bool is_zero(const char *p, size_t size)
{
    return size == 0 || (p[0] == 0 && memcmp(p, p + 1, size - 1) == 0);
}

/* ---- sizes -------------------------------------------------------------------- */

Test(sized, a_good_size_is_had_exactly_and_is_the_block_s)
{
    for (size_t i = 0; i < some(); i++) {
        size_t size = some_size(i), good = hak_good_size(size);
        char *p = hak_malloc(size), *q = hak_malloc(good);

        cr_assert_geq(good, size);
        cr_assert_eq(hak_good_size(good), good, "%zu", size);
        cr_assert_eq(hak_usable_size(q), good, "%zu: %zu", size, good);
        cr_assert_eq(hak_usable_size(p), HAK_HARD ? size : good);
        cr_assert_gt(hak_good_size(good + 1), good);
        fill(q, good, (unsigned)i);
        cr_assert(is_filled(q, good, good, (unsigned)i));
        hak_free_sized(p, size);
        hak_free_sized(q, good);
    }
    unit_expect_none_live();
}

Test(sized, a_heap_s_good_size_is_what_its_limit_counts)
{
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < some(); i++) {
        size_t size = some_size(i), good = hak_heap_good_size(heap, size);
        char *p = hak_heap_malloc(heap, size);

        cr_assert_geq(good, size);
        cr_assert_eq(hak_heap_good_size(heap, good), good);
        cr_assert_eq(hak_heap_usable_size(heap, p), good, "%zu", size);
        cr_assert_eq(hak_heap_live(heap), good);
        fill(p, good, (unsigned)i);
        cr_assert(is_filled(p, good, good, (unsigned)i));
        hak_heap_free_sized(heap, p, good);
        cr_assert_eq(hak_heap_live(heap), 0);
    }
    cr_assert_eq(hak_heap_usable_size(heap, NULL), 0);
    hak_heap_free_sized(heap, NULL, 100);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(sized, sizes_that_nobody_gets_stay)
{
    static const size_t large[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX - 1,
                                   SIZE_MAX};
    hak_heap *heap = hak_heap_new(NULL);
    size_t actual;

    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(hak_good_size(large[i]), large[i]);
        cr_assert_eq(hak_heap_good_size(heap, large[i]), large[i]);
        actual = 5;
        errno = 0;
        cr_assert_null(hak_alloc_at_least(large[i], &actual));
        cr_assert(errno == ENOMEM && actual == 0);
        actual = 5;
        errno = 0;
        cr_assert_null(hak_heap_alloc_at_least(heap, large[i], &actual));
        cr_assert(errno == ENOMEM && actual == 0);
    }
    hak_heap_delete(heap);
}

Test(sized, at_least_gives_all_that_it_tells)
{
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < some(); i++) {
        size_t size = some_size(i), actual = 0;
        char *p = hak_alloc_at_least(size, &actual);

        cr_assert(p != NULL && actual == hak_good_size(size));
        fill(p, actual, (unsigned)i);
        hak_free_sized(p, actual);
        p = hak_heap_alloc_at_least(heap, size, &actual);
        cr_assert(p != NULL && actual == hak_heap_good_size(heap, size));
        fill(p, actual, (unsigned)i);
        hak_heap_free_sized(heap, p, actual);
    }
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(sized, realloc_sized_keeps_contents_and_account)
{
    static const size_t sizes[] = {0,     1,       16,      100,    1000,
                                   1024,  1025,    5000,    53248,  53249,
                                   90000, 2097151, 2097152, 3000000};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < SIZES; k++) {
            char *p = hak_realloc_sized(NULL, 77, sizes[i]);
            char *q = hak_heap_realloc_sized(heap, NULL, 77, sizes[i]);

            fill(p, sizes[i], 1);
            fill(q, sizes[i], 2);
            p = hak_realloc_sized(p, sizes[i], sizes[k]);
            q = hak_heap_realloc_sized(heap, q, sizes[i], sizes[k]);
            cr_assert(p != NULL && q != NULL);
            cr_assert(is_filled(p, sizes[i], sizes[k], 1));
            cr_assert(is_filled(q, sizes[i], sizes[k], 2));
            cr_assert_eq(hak_heap_live(heap), hak_heap_usable_size(heap, q));
            hak_free_aligned_sized(p, 16, sizes[k]);
            hak_heap_free_sized(heap, q, sizes[k]);
        }
    }
    cr_assert_eq(hak_heap_live(heap), 0);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

/* ---- an explicit heap's calloc and aligned blocks -------------------------------- */

Test(sized, a_heap_s_calloc_is_zero_after_other_use)
{
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < some(); i++) {
        size_t size = some_size(i);
        char *p = hak_heap_malloc(heap, size);

        memset(p, 255, size);
        hak_heap_free(heap, p);
        p = hak_heap_calloc(heap, 1, size);
        cr_assert_not_null(p);
        NEED(is_zero(p, size));
        memset(p, 255, size);
        hak_heap_free(heap, p);
    }
    cr_assert_not_null(hak_heap_calloc(heap, 0, 100));
    cr_assert_not_null(hak_heap_calloc(heap, 100, 0));
    cr_assert_geq(hak_heap_usable_size(heap, hak_heap_calloc(heap, 3, 100)),
                  300);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

/* The system's blocks, too: what lies behind one is left as it is. */
Test(sized, a_heap_s_calloc_by_the_system)
{
    size_t size = 2 * HAK_MIB + 50;
    hak_heap *heap = hak_heap_new(NULL);
    char *p;

    hak_free(haki_system_alloc(16, 10, NULL, HAK_REASON_MEMORY));
    haki_os_test_refuse(1, true);
    p = hak_heap_calloc(heap, 1, size);
    haki_os_test_refuse(0, false);
    cr_assert(p != NULL && !hak_owns(p));
    NEED(is_zero(p, size));
    cr_assert_eq(hak_heap_usable_size(heap, p), size);
    hak_heap_free_sized(heap, p, size);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(sized, a_product_that_overflows_is_enomem)
{
    size_t half = unit_size((size_t)1 << 32);
    hak_heap *heap = hak_heap_new(NULL);

    errno = 0;
    cr_assert_null(hak_heap_calloc(heap, half, half));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_heap_calloc(heap, half + 1, half));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_heap_calloc(heap, unit_size(SIZE_MAX), 1));
    cr_assert_eq(errno, ENOMEM);
    cr_assert_eq(hak_heap_live(heap), 0);
    hak_heap_delete(heap);
}

static void aligned_in(hak_heap *heap)
{
    static const size_t sizes[] = {0,    1,     64,    100,     1024,   1025,
                                   9000, 53248, 60000, 2097151, 2097152};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
    char *p[SIZES];

    for (size_t align = 1; align <= 8 * HAK_MIB; align *= 2) {
        for (size_t i = 0; i < SIZES; i++) {
            p[i] = hak_heap_aligned_alloc(heap, align, sizes[i]);
            cr_assert_not_null(p[i], "%zu aligned to %zu", sizes[i], align);
            cr_assert_eq((uintptr_t)p[i] % align, 0);
            cr_assert_geq(hak_heap_usable_size(heap, p[i]), sizes[i]);
            fill(p[i], sizes[i], (unsigned)i);
        }
        for (size_t i = 0; i < SIZES; i++) {
            cr_assert(is_filled(p[i], sizes[i], sizes[i], (unsigned)i));
            p[i] = hak_heap_realloc(heap, p[i], sizes[i] + 5000);
            cr_assert(is_filled(p[i], sizes[i], sizes[i], (unsigned)i));
            hak_heap_free(heap, p[i]);
        }
        hak_heap_trim(heap);
        cr_assert_eq(hak_heap_live(heap), 0);
    }
}

Test(sized, a_heap_s_aligned_blocks_are)
{
    hak_heap *heap = hak_heap_new(NULL);

    aligned_in(heap);
    hak_heap_delete(heap);
    heap = hak_heap_new(NULL);
    heap->tiny.packed = true; /* an adapter's */
    aligned_in(heap);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(sized, alignments_that_are_none_are_einval)
{
    static const size_t wrong[] = {0, 3, 24, 48, 4095, SIZE_MAX};
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        errno = 0;
        cr_assert_null(hak_heap_aligned_alloc(heap, wrong[i], 100));
        cr_assert_eq(errno, EINVAL);
        errno = 0;
        cr_assert_null(hak_aligned_alloc(wrong[i], 100));
        cr_assert_eq(errno, EINVAL);
    }
    errno = 0;
    cr_assert_null(hak_heap_aligned_alloc(heap, (size_t)1 << 62, 10));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_heap_aligned_alloc(heap, 64, unit_size(SIZE_MAX)));
    cr_assert_eq(errno, ENOMEM);
    cr_assert_eq(hak_heap_live(heap), 0);
    hak_heap_delete(heap);
}

/* The block is of a larger class than its size would need: that counts. */
Test(sized, the_limit_holds_for_aligned_blocks)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 40000};
    hak_heap *heap = hak_heap_new(&config);

    for (size_t align = 16; align <= 16384; align *= 2) {
        for (int i = 0; hak_heap_aligned_alloc(heap, align, 2100) != NULL;
             i++) {
            NEED(i < 40 && hak_heap_live(heap) <= 40000);
        }
        cr_assert_eq(errno, ENOMEM);
        cr_assert_leq(hak_heap_live(heap), 40000);
        cr_assert_geq(hak_heap_live(heap), 20000);
        hak_heap_delete(heap);
        heap = hak_heap_new(&config);
    }
    hak_heap_delete(heap);
    unit_expect_none_live();
}

/* ---- wrong blocks ------------------------------------------------------------------ */

static hak_heap *victim;

static void usable_in_victim(void *p)
{
    hak_heap_usable_size(victim, p);
}

static void free_in_victim(void *p)
{
    hak_heap_free_sized(victim, p, 10);
}

static void resize_in_victim(void *p)
{
    hak_heap_realloc_sized(victim, p, 10, 77);
}

static void resize(void *p)
{
    void *moved = hak_realloc_sized(p, 10, 77);

    (void)moved;
}

static void expect_fatal(void *p, const char *reason)
{
    unit_expect_fatal(usable_in_victim, p,
                      "hakmem: fatal: hak_heap_usable_size(%p): %s\n", p,
                      reason);
    unit_expect_fatal(free_in_victim, p,
                      "hakmem: fatal: hak_heap_free_sized(%p): %s\n", p,
                      reason);
    unit_expect_fatal(resize_in_victim, p,
                      "hakmem: fatal: hak_heap_realloc_sized(%p): %s\n", p,
                      reason);
}

Test(sized, wrong_blocks_are_fatal_and_named)
{
    hak_heap *other = hak_heap_new(NULL);
    int on_stack;

    victim = hak_heap_new(NULL);
    expect_fatal(hak_heap_malloc(other, 100), "a block of another heap");
    expect_fatal(hak_heap_malloc(other, 5000), "a block of another heap");
    expect_fatal(hak_heap_malloc(other, 90000), "a block of another heap");
    expect_fatal(hak_malloc(100), "a block of another heap");
    expect_fatal((char *)hak_heap_malloc(victim, 100) + 16,
                 "the middle of a block of 112 bytes");
    expect_fatal(&on_stack, "not a block of HAKMEM");
    unit_expect_fatal(
        resize, &on_stack,
        "hakmem: fatal: hak_realloc_sized(%p): not a block of HAKMEM\n",
        (void *)&on_stack);
}

static void free_113(void *p)
{
    hak_heap_free_sized(victim, p, 113);
}

static void resize_113(void *p)
{
    hak_heap_realloc_sized(victim, p, 113, 20);
}

static void free_5121(void *p)
{
    hak_heap_free_sized(victim, p, 5121);
}

static void resize_thread_s(void *p)
{
    void *moved = hak_realloc_sized(p, 113, 20);

    (void)moved;
}

Test(sized, a_size_beyond_the_block_is_fatal)
{
    void *p, *q;

    victim = hak_heap_new(NULL);
    p = hak_heap_malloc(victim, 100);
    q = hak_heap_malloc(victim, 5000);
    unit_expect_fatal(free_113, p,
                      "hakmem: fatal: hak_heap_free_sized(%p, 113): the block "
                      "has only 112 bytes\n",
                      p);
    unit_expect_fatal(resize_113, p,
                      "hakmem: fatal: hak_heap_realloc_sized(%p, 113): the "
                      "block has only 112 bytes\n",
                      p);
    unit_expect_fatal(free_5121, q,
                      "hakmem: fatal: hak_heap_free_sized(%p, 5121): the block "
                      "has only 5120 bytes\n",
                      q);
    p = hak_malloc(100);
    unit_expect_fatal(resize_thread_s, p,
                      "hakmem: fatal: hak_realloc_sized(%p, 113): the block "
                      "has only %zu bytes\n",
                      p, hak_usable_size(p));
}

static void free_aligned_to_0(void *p)
{
    hak_free_aligned_sized(p, 0, 10);
}

static void free_aligned_to_24(void *p)
{
    hak_free_aligned_sized(p, 24, 10);
}

static void free_aligned_to_64(void *p)
{
    hak_free_aligned_sized(p, 64, 10);
}

Test(sized, an_alignment_that_the_block_has_not_is_fatal)
{
    static const struct {
        void (*run)(void *);
        int alignment;
    } wrong[] = {{free_aligned_to_0, 0},
                 {free_aligned_to_24, 24},
                 {free_aligned_to_64, 64}};
    char *p = hak_aligned_alloc(64, 1024);
    void *q = p + 32;

    for (size_t i = 0; i < 3; i++) {
        unit_expect_fatal(wrong[i].run, q,
                          "hakmem: fatal: hak_free_aligned_sized(%p, %d, 10): "
                          "not aligned to that\n",
                          q, wrong[i].alignment);
    }
    hak_free_aligned_sized(p, 64, 1024);
    hak_free_aligned_sized(NULL, 64, 1024);
    unit_expect_none_live();
}
