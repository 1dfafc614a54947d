/*
 * fault.c - the n-th call to the operating system fails, for n = 1, 2, 3 ...
 * until the work is done without a refusal, once and for ever after.
 *
 * The whole core is under test: nothing may crash, what was given out keeps
 * its contents, requests that the core can't serve go to the system or are
 * NULL with ENOMEM, and once memory is back everything is as before.
 */
#include "fault.h"
#include "front/lane.h"
#include "os/os.h"
#include "range_check.h"
#include "heap/thread.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(fault, .timeout = 600);

/* Of a larger block, only MARKED bytes have contents to be checked. */
enum { BLOCKS = 1200, MARKED = 8192 };

static char *blocks[BLOCKS];
static size_t sizes[BLOCKS];
static size_t count; /* of them that are used */

/* Sizes of every lane, few of the large ones. */
static size_t size_for(size_t i)
{
    switch (i % 1000) {
    case 7:
    case 507: return HAK_LANE_ACE_MIN + 20 * i;
    case 78: return HAK_LANE_HUGE_MIN + i;
    case 177: return HAK_LANE_POOL_MAX - i;
    default: return i % 40 == 0 ? HAK_LANE_POOL_MIN + i : (i * 37) % 1025;
    }
}

/* The registry's own table is there from here on. */
static void use_registry(void)
{
    hak_free(haki_system_alloc(16, 10, NULL, HAK_REASON_LARGE));
}

/* NULL is allowed, with ENOMEM. */
static char *keep(size_t i, char *p, size_t size)
{
    NEED(p != NULL || errno == ENOMEM);
    blocks[i] = p;
    sizes[i] = size;
    if (p != NULL) {
        unit_fill(p, haki_min(size, MARKED), (unsigned)i);
    }
    return p;
}

static void check(size_t i)
{
    NEED(blocks[i] == NULL ||
         unit_filled(blocks[i], haki_min(sizes[i], MARKED), (unsigned)i));
}

/* The thread's heap: all kinds of requests. */
static void use_thread_heap(void)
{
    for (size_t i = 0; i < count; i++) {
        size_t size = size_for(i);

        errno = 0;
        keep(i, i % 9 == 0 ? hak_calloc(1, size) : hak_malloc(size), size);
    }
    for (size_t i = 0; i < count; i += 3) {
        size_t size = size_for(i + 1);
        char *p;

        check(i);
        errno = 0;
        p = hak_realloc(blocks[i], size);
        NEED(p != NULL || errno == ENOMEM);
        if (p != NULL) {
            NEED(blocks[i] == NULL ||
                 unit_filled(p, haki_min(haki_min(size, sizes[i]), MARKED),
                             (unsigned)i));
            keep(i, p, size);
        }
    }
    for (size_t i = 0; i < count; i++) {
        check(i);
        hak_free(blocks[i]);
    }
    hak_trim();
}

/* An explicit heap, which may be refused itself. */
static void use_made_heap(void)
{
    hak_heap *heap = hak_heap_new(NULL);

    NEED(heap != NULL || errno == ENOMEM);
    if (heap == NULL) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        errno = 0;
        keep(i, hak_heap_malloc(heap, size_for(i)), size_for(i));
    }
    for (size_t i = 0; i < count; i++) {
        check(i);
        if (i % 2 == 0 && blocks[i] != NULL) {
            hak_heap_free(heap, blocks[i]);
        }
    }
    tiny_check(&heap->tiny);
    hak_heap_delete(heap);
}

static void *use_in_thread(void *arg)
{
    use_thread_heap();
    return arg;
}

static void work(void)
{
    count = unit_scale(BLOCKS, 600);
    use_thread_heap();
    use_made_heap();
    unit_in_thread(use_in_thread, NULL);
}

/* Exits with 3 if the n-th call was never reached. */
static void work_with_fault(void *arg)
{
    const struct fault *fault = arg;
    unsigned calls;
    hak_stats_t stats;

    use_registry();
    haki_os_test_refuse(fault->n, fault->forever);
    work();
    calls = haki_os_test_calls();
    haki_os_test_refuse(0, false);
    stats = unit_stats();
    NEED(stats.tiny_live_bytes == 0 && stats.system_live == 0);
    NEED(stats.pool_live_bytes == 0 && stats.ace_live_bytes == 0);
    NEED(stats.huge_live_bytes == 0);
    NEED(stats.tiny_allocs == stats.tiny_frees);
    NEED(stats.pool_allocs == stats.pool_frees);
    NEED(stats.ace_allocs == stats.ace_frees);
    NEED(stats.huge_allocs == stats.huge_frees);
    range_check();
    if (calls < fault->n) {
        NEED(stats.fallback_memory == 0);
        NEED(stats.pool_allocs > 0 && stats.ace_allocs > 0);
        NEED(stats.huge_allocs > 0);
        _exit(3);
    }
    /* Memory is back: with a range, all is served from it again. */
    if (stats.range_bytes != 0) {
        void *p = hak_malloc(100);

        NEED(hak_owns(p));
        tiny_check(&haki_self->tiny);
        hak_free(p);
    }
    work();
    hak_trim();
    stats = unit_stats();
    NEED(stats.slabs == 0 && stats.system_live == 0);
    NEED(stats.ace_held_bytes == 0 && stats.huge_held_bytes == 0);
    range_check();
}

Test(fault, any_one_call_may_fail)
{
    UNIT_SKIP_IF_GCC_TSAN();
    cr_assert_geq(run_all(false, 3), 20);
}

Test(fault, any_call_and_all_later_ones_may_fail)
{
    UNIT_SKIP_IF_GCC_TSAN();
    cr_assert_geq(run_all(true, 3), 20);
}

/* ---- what is counted ---------------------------------------------------------- */

static void count_fallbacks(void *arg)
{
    size_t foreign = 0;

    (void)arg;
    use_registry();
    hak_free(hak_malloc(8));
    haki_os_test_refuse(1, true);
    for (size_t i = 0; i < 2000; i++) {
        char *p = hak_malloc(1000);

        if (p == NULL) {
            NEED(errno == ENOMEM); /* the registry can't grow either */
            break;
        }
        memset(p, 1, 1000);
        foreign += !hak_owns(p);
    }
    haki_os_test_refuse(0, false);
    NEED(foreign > 100);
    NEED(unit_stats().fallback_memory == foreign);
    NEED(unit_stats().fallback_large == 1);
}

Test(fault, requests_that_go_to_the_system_are_counted)
{
    unit_expect_said(count_fallbacks, NULL, "");
}

/* A limit holds for what the system gave instead, too. */
static void limit_under_fault(void *arg)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 10000};
    hak_heap *heap = hak_heap_new(&config);
    size_t given = 0;

    (void)arg;
    use_registry();
    haki_os_test_refuse(1, true);
    while (hak_heap_malloc(heap, 100) != NULL) {
        given++;
    }
    NEED(errno == ENOMEM);
    NEED(given >= 89 && given <= 100);
    NEED(hak_heap_live(heap) <= 10000);
    NEED(unit_stats().system_live == given);
    NEED(unit_stats().limit_refusals == 1);
    haki_os_test_refuse(0, false);
    hak_heap_delete(heap);
    NEED(unit_stats().system_live == 0);
}

Test(fault, a_heap_s_limit_holds_for_what_the_system_gave)
{
    unit_expect_said(limit_under_fault, NULL, "");
}

/* Alignment asked for holds, whoever serves it. */
static void align_under_fault(void *arg)
{
    (void)arg;
    use_registry();
    hak_free(hak_malloc(8));
    haki_os_test_refuse(1, true);
    for (size_t align = 16; align <= 4096; align *= 2) {
        for (int i = 0; i < 10; i++) {
            void *p = hak_aligned_alloc(align, 100);

            NEED(p != NULL && (uintptr_t)p % align == 0);
            NEED(hak_usable_size(p) >= 100);
        }
    }
    NEED(unit_stats().system_live > 0);
}

Test(fault, alignment_holds_for_what_the_system_gave)
{
    unit_expect_said(align_under_fault, NULL, "");
}
