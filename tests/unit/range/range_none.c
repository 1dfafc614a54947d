/*
 * range_none.c - tests of the range when it is smaller than wanted, does not
 * exist, or has no slab left.
 */
#include "settings/options.h"
#include "os/os.h"
#include "range/slabs.h"
#include "range_check.h"
#include "unit.h"

TestSuite(range_none, .timeout = 300);

/* ---- less than the wish, and none --------------------------------------------------- */

static void limit_address_space(size_t bytes)
{
    struct rlimit limit = {bytes, bytes};

    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* A limit that is there from the start takes no heap away, nor is it said. */
static void run_in_256_mb(void *arg)
{
    size_t before = unit_address_space();
    char *p;

    (void)arg;
    limit_address_space(before + 256 * HAK_MIB);
    p = hak_malloc(100);
    NEED(p != NULL && hak_owns(p));
    NEED(haki_range.window == HAK_RANGE_DEFAULT);
    NEED(unit_address_space() - before < 4 * HAK_MIB);
    hak_free(p);
    p = hak_malloc(200 * HAK_MIB);
    NEED(p != NULL && hak_owns(p));
    NEED(hak_malloc(100 * HAK_MIB) == NULL && errno == ENOMEM);
    hak_free(p);
    p = hak_malloc(220 * HAK_MIB);
    NEED(p != NULL && hak_owns(p));
    range_check();
}

Test(range_none, a_limit_on_addresses_leaves_the_window)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(run_in_256_mb, NULL, "");
}

/* The place, and the first piece of each of the arrays. */
enum { INIT_CALLS = 5 };

static void refuse_once(void *arg)
{
    haki_os_test_refuse(*(unsigned *)arg, false);
    NEED(haki_range_init());
    NEED(UNIT_WATCHED || haki_range.window == HAK_RANGE_DEFAULT / 2);
    hak_free(hak_malloc(100));
    range_check();
}

Test(range_none, what_is_refused_at_the_start_is_tried_smaller_silently)
{
    UNIT_SKIP_IF_EMULATED("its window has 1 GB");
    for (unsigned n = 1; n <= INIT_CALLS; n++) {
        unit_expect_said(refuse_once, &n, "");
    }
}

#define NO_RANGE                                                               \
    "hakmem: out of memory at the start (ulimit -v?); all requests go to the " \
    "system allocator\n"

/* Everything the API offers, on the system allocator. */
static void use_everything(void)
{
    char *p[200];
    hak_stats_t stats;

    for (size_t i = 0; i < 200; i++) {
        p[i] = hak_malloc(i * 11);
        NEED(p[i] != NULL && !hak_owns(p[i]) && (uintptr_t)p[i] % 16 == 0);
        NEED(hak_usable_size(p[i]) >= i * 11);
        unit_fill(p[i], i * 11, (unsigned)i);
    }
    stats = unit_stats();
    NEED(stats.range_bytes == 0 && stats.slabs == 0 && stats.tiny_allocs == 0);
    NEED(stats.pool_allocs == 0 && stats.ace_allocs == 0);
    NEED(stats.fallback_memory == 200 && stats.fallback_large == 0);
    NEED(stats.system_live == 200);
    for (size_t i = 0; i < 200; i++) {
        size_t old = i * 11;

        p[i] = hak_realloc(p[i], (200 - i) * 13);
        NEED(unit_filled(p[i], old < (200 - i) * 13 ? old : (200 - i) * 13,
                         (unsigned)i));
        NEED(hak_usable_size(p[i]) >= (200 - i) * 13);
        i % 2 != 0 ? hak_free(p[i]) : hak_free_sized(p[i], (200 - i) * 13);
    }
    p[0] = hak_calloc(10, 10);
    NEED(p[0] != NULL && p[0][99] == 0);
    hak_free(p[0]);
    NEED(hak_trim() == 0);
    NEED(unit_stats().system_live == 0);
    NEED(hak_stats_text(NULL, 0) > 100);
}

static void *use_in_thread(void *arg)
{
    void *p = hak_malloc(33);

    NEED(p != NULL && !hak_owns(p));
    hak_free(arg);
    return p;
}

static void use_heap(void)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 5000};
    hak_heap *heap = hak_heap_new(&config);
    char *p, *q;

    NEED(heap != NULL);
    p = hak_heap_malloc(heap, 100);
    NEED(p != NULL && !hak_owns(p));
    q = hak_heap_malloc(heap, 3000);
    NEED(q != NULL && hak_heap_live(heap) >= 3100);
    NEED(hak_heap_malloc(heap, 2000) == NULL && errno == ENOMEM);
    unit_fill(p, 100, 1);
    p = hak_heap_realloc(heap, p, 900);
    NEED(p != NULL && unit_filled(p, 100, 1));
    hak_heap_free(heap, p);
    hak_free(q);
    NEED(hak_heap_live(heap) == 0);
    NEED(hak_heap_malloc(heap, 10) != NULL);
    NEED(hak_heap_trim(heap) == 0);
    hak_heap_delete(heap);
    NEED(unit_stats().system_live == 0);
}

static void run_without_range(void *arg)
{
    pthread_t thread;
    void *p, *q;

    (void)arg;
    haki_os_test_refuse(1, true);
    NEED(!haki_range_init());
    haki_os_test_refuse(0, false);
    use_everything();
    p = hak_malloc(8);
    thread = unit_start(use_in_thread, p);
    NEED(pthread_join(thread, &q) == 0);
    hak_free(q);
    NEED(!haki_range_init() && haki_range.size == 0);
}

Test(range_none, without_a_range_all_goes_to_the_system_said_once)
{
    UNIT_SKIP_IF_GCC_TSAN();
    unit_expect_said(run_without_range, NULL, NO_RANGE);
}

static void run_heaps_without_range(void *arg)
{
    haki_os_test_refuse(*(unsigned *)arg, true);
    NEED(!haki_range_init());
    haki_os_test_refuse(0, false);
    use_heap();
    use_heap();
}

Test(range_none, without_a_range_explicit_heaps_work_too)
{
    for (unsigned n = 1; n <= INIT_CALLS; n++) {
        unit_expect_said(run_heaps_without_range, &n, NO_RANGE);
    }
}

static void align_without_range(void *arg)
{
    (void)arg;
    haki_os_test_refuse(1, true);
    NEED(!haki_range_init());
    haki_os_test_refuse(0, false);
    for (size_t align = 1; align <= 4096; align *= 2) {
        for (size_t size = 0; size < 1100; size += 100) {
            void *p = hak_aligned_alloc(align, size);

            NEED(p != NULL && (uintptr_t)p % align == 0);
            NEED(hak_usable_size(p) >= size);
        }
    }
}

Test(range_none, without_a_range_alignments_still_hold)
{
    unit_expect_said(align_without_range, NULL, NO_RANGE);
}

/* A free of anything at all, where no address is in the range. */
static void free_wrong(void *arg)
{
    haki_os_test_refuse(1, true);
    NEED(!haki_range_init());
    haki_os_test_refuse(0, false);
    hak_free(arg);
}

Test(range_none, without_a_range_wrong_frees_are_still_fatal)
{
    unit_expect_fatal(free_wrong, (void *)0x1230,
                      NO_RANGE
                      "hakmem: fatal: hak_free(0x1230): not a block of "
                      "HAKMEM\n");
}

/* ---- full: the process goes on ------------------------------------------------------- */

/* Takes every free slab as somebody else's; a list of them. */
static uint32_t take_all(void)
{
    uint32_t list = HAK_NO_SLAB;
    uint32_t number;

    while ((number = haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY,
                                           HAK_SLABS_ALL)) != HAK_NO_SLAB) {
        haki_range_set_tag(number, 0xfffff00);
        haki_range_slab(number)->slabs = 1;
        haki_range_slab(number)->all_next = list;
        list = number;
    }
    return list;
}

Test(range_none, a_full_range_sends_requests_to_the_system_and_recovers)
{
    static const size_t larger[] = {5000, 100000, 3 * HAK_MIB};
    static char *blocks[1200];
    uint64_t refused = 1200 - 3 * 64;
    hak_heap *heap;
    uint32_t list;
    size_t n = 0;

    setenv("HAKMEM_RANGE", "1G", 1);
    hak_free(hak_malloc(1));
    hak_trim();
    heap = hak_heap_new(NULL);
    list = take_all();
    for (int i = 0; i < 3; i++) {
        uint32_t number = list;

        list = haki_range_slab(list)->all_next;
        haki_range_slabs_give(number, 1, HAK_LANE_TINY);
    }
    for (; n < 1200; n++) {
        blocks[n] = hak_malloc(1000);
        cr_assert_not_null(blocks[n]);
        unit_fill(blocks[n], 1000, (unsigned)n);
    }
    cr_assert(hak_owns(blocks[0]));
    cr_assert_not(hak_owns(blocks[1199]));
    cr_assert_eq(unit_stats().fallback_memory, refused);
    cr_assert_not_null(hak_heap_malloc(heap, 10));
    cr_assert_eq(unit_stats().fallback_memory, ++refused);
    for (size_t i = 0; i < 3; i++) {
        char *p = hak_malloc(larger[i]);

        cr_assert(p != NULL && !hak_owns(p));
        unit_fill(p, larger[i], 9);
        cr_assert_eq(unit_stats().fallback_memory, ++refused);
        hak_free(p);
    }
    range_check();
    for (size_t i = 0; i < n; i++) {
        cr_assert(unit_filled(blocks[i], 1000, (unsigned)i));
        hak_free(blocks[i]);
    }
    haki_range_list_give(list, HAK_LANE_TINY);
    for (size_t i = 0; i < n; i++) {
        blocks[i] = hak_malloc(1000);
        cr_assert(hak_owns(blocks[i]));
    }
    for (size_t i = 0; i < 3; i++) {
        cr_assert(hak_owns(hak_malloc(larger[i])));
    }
    cr_assert_eq(unit_stats().fallback_memory, refused);
    cr_assert_eq(unit_stats().fallback_large, 0);
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().system_live, 0);
    range_check();
}
