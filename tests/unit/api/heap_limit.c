/*
 * heap_limit.c - tests of an explicit heap's limit as it changes, of its peak
 * and its statistics.
 */
#include "api/heap_explicit.h"
#include "front/lane.h"
#include "os/os.h"
#include "unit.h"

TestSuite(heap_limit, .timeout = 300);

static hak_heap_stats_t stats_of(const hak_heap *heap)
{
    hak_heap_stats_t stats = {.size = sizeof(stats)};

    cr_assert_eq(hak_heap_stats(heap, &stats), 0);
    return stats;
}

/* ---- the limit -------------------------------------------------------------- */

Test(heap_limit, it_is_read_as_it_was_set)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 5000};
    hak_heap *heap = hak_heap_new(&config);

    cr_assert_eq(hak_heap_limit(heap), 5000);
    cr_assert_eq(hak_heap_set_limit(heap, 7000), 5000);
    cr_assert_eq(hak_heap_limit(heap), 7000);
    cr_assert_eq(hak_heap_set_limit(heap, 0), 7000);
    cr_assert_eq(hak_heap_limit(heap), 0);
    cr_assert_eq(hak_heap_set_limit(heap, 1), 0);
    cr_assert_eq(hak_heap_limit(heap), 1);
    hak_heap_delete(heap);
    heap = hak_heap_new(NULL);
    cr_assert_eq(hak_heap_limit(heap), 0);
    hak_heap_delete(heap);
}

/* In every lane: exact when it rises, falls and goes. */
Test(heap_limit, a_new_limit_holds_from_the_next_request_on)
{
    static const size_t sizes[] = {64, 1024, 5120, 57344, 3 * HAK_MIB};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t size = sizes[i];
        hak_heap *heap = hak_heap_new(NULL);
        void *p[8];

        for (int k = 0; k < 3; k++) {
            p[k] = hak_heap_malloc(heap, size);
        }
        hak_heap_set_limit(heap, 4 * size);
        p[3] = hak_heap_malloc(heap, size);
        cr_assert_not_null(p[3]);
        errno = 0;
        cr_assert_null(hak_heap_malloc(heap, size));
        cr_assert_eq(errno, ENOMEM);
        hak_heap_set_limit(heap, 5 * size);
        cr_assert_not_null(hak_heap_malloc(heap, size));
        cr_assert_null(hak_heap_malloc(heap, 1));
        /* below what is in use: nothing is lost, nothing more is given */
        hak_heap_set_limit(heap, 2 * size);
        cr_assert_eq(hak_heap_live(heap), 5 * size);
        cr_assert_null(hak_heap_malloc(heap, 1));
        for (int k = 0; k < 3; k++) {
            cr_assert_null(hak_heap_realloc(heap, p[3], size + size / 2));
            hak_heap_free(heap, p[k]);
            cr_assert_null(hak_heap_malloc(heap, 1), "%zu: %d freed", size, k);
        }
        hak_heap_free(heap, p[3]);
        cr_assert_not_null(hak_heap_malloc(heap, size));
        cr_assert_null(hak_heap_malloc(heap, 1));
        hak_heap_set_limit(heap, 0);
        cr_assert_not_null(hak_heap_malloc(heap, 100 * size));
        cr_assert_geq(stats_of(heap).limit_refusals, 10);
        hak_heap_delete(heap);
    }
    unit_expect_none_live();
}

static void *free_one(void *p)
{
    hak_free(p);
    return NULL;
}

/* What other threads freed makes room under a limit that was set since. */
Test(heap_limit, what_others_free_makes_room)
{
    hak_heap *heap = hak_heap_new(NULL);
    void *p[10];

    for (int i = 0; i < 10; i++) {
        p[i] = hak_heap_malloc(heap, 1000);
    }
    hak_heap_set_limit(heap, 6 * 1024);
    for (int i = 0; i < 5; i++) {
        unit_in_thread(free_one, p[i]);
    }
    cr_assert_not_null(hak_heap_malloc(heap, 1000));
    cr_assert_null(hak_heap_malloc(heap, 1000));
    cr_assert_eq(stats_of(heap).remote_frees, 5);
    cr_assert_eq(hak_heap_live(heap), 6 * 1024);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

/* ---- the peak ---------------------------------------------------------------- */

/* Never above the truth, and below it by no more than is said. */
static void check_peak(const hak_heap *heap, size_t peak)
{
    size_t told = stats_of(heap).peak_bytes;

    NEED(told <= peak);
    NEED(told + haki_max(peak / 16, 4096) >= peak);
}

Test(heap_limit, the_peak_is_what_was_live_at_most)
{
    enum { SLOTS = 500 };
    static const size_t sizes[] = {100, 1000, 5000, 60000};
    static char *p[SLOTS];
    struct unit_random random = {3};

    for (size_t limit = 0; limit < 2; limit++) {
        hak_heap *heap = hak_heap_new(NULL);
        size_t peak = 0;

        hak_heap_set_limit(heap, limit * 4 * HAK_MIB);
        memset(p, 0, sizeof(p));
        check_peak(heap, 0);
        for (size_t i = unit_scale(40000, 4000); i > 0; i--) {
            size_t at = unit_below(&random, SLOTS);
            size_t wave = i / 1000 % 4;

            if (p[at] != NULL && (wave < 2 || i % 4 == 0)) {
                i % 2 != 0 ? hak_free(p[at]) : hak_heap_free(heap, p[at]);
                p[at] = NULL;
            } else if (p[at] == NULL && wave >= 1) {
                p[at] = hak_heap_malloc(
                    heap, unit_below(&random, sizes[unit_below(&random, 4)]));
            }
            /* hak_free's come in when the heap likes, and then at once. */
            peak = haki_max(peak, hak_heap_live(heap));
            check_peak(heap, peak);
        }
        hak_heap_delete(heap);
    }
    unit_expect_none_live();
}

/* Small blocks alone, which come out of bins without another look. */
Test(heap_limit, the_peak_follows_a_heap_that_grows_by_small_blocks)
{
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 1; i <= 20000; i++) {
        cr_assert_not_null(hak_heap_malloc(heap, 64));
        check_peak(heap, i * 64);
    }
    hak_heap_delete(heap);
    unit_expect_none_live();
}

/* What has gone since does not lower it. */
Test(heap_limit, the_peak_stays_when_all_is_freed)
{
    static void *p[3000];
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < 3000; i++) {
        p[i] = hak_heap_malloc(heap, 64);
    }
    for (size_t i = 0; i < 3000; i++) {
        hak_heap_free(heap, p[i]);
    }
    check_peak(heap, 3000 * 64);
    hak_heap_delete(heap);
}

/* ---- statistics ---------------------------------------------------------------- */

Test(heap_limit, statistics_tell_what_was_done)
{
    hak_heap_config config = {
        .size = sizeof(config), .limit = 10 * HAK_MIB, .name = "a name"};
    hak_heap *heap = hak_heap_new(&config);
    hak_heap_stats_t stats = stats_of(heap);
    void *tiny, *pool;

    cr_assert_str_eq(stats.name, "a name");
    cr_assert_eq(stats.size, sizeof(stats));
    cr_assert_eq(stats.limit, 10 * HAK_MIB);
    cr_assert_eq(stats.live_bytes, 0);
    cr_assert_eq(stats.peak_bytes, 0);
    cr_assert_eq(stats.tiny_allocs + stats.larger_allocs + stats.fallback, 0);
    tiny = hak_heap_malloc(heap, 100);
    pool = hak_heap_malloc(heap, 5000);
    cr_assert_not_null(hak_heap_malloc(heap, 90000));
    cr_assert_not_null(hak_heap_malloc(heap, 3 * HAK_MIB));
    cr_assert_null(hak_heap_malloc(heap, 9 * HAK_MIB));
    stats = stats_of(heap);
    cr_assert_eq(stats.live_bytes, 112 + 5120 + 90112 + 3 * HAK_MIB);
    cr_assert_eq(stats.peak_bytes, stats.live_bytes);
    cr_assert_eq(stats.tiny_allocs, 1);
    cr_assert_eq(stats.larger_allocs, 3);
    cr_assert_eq(stats.fallback, 0);
    cr_assert_eq(stats.limit_refusals, 1);
    cr_assert_geq(stats.held_bytes, stats.live_bytes);
    cr_assert_leq(stats.held_bytes, 90112 + 3 * HAK_MIB + 8 * HAK_SLAB_SIZE);
    hak_heap_free(heap, tiny);
    hak_heap_free(heap, pool);
    stats = stats_of(heap);
    cr_assert_eq(stats.live_bytes, 90112 + 3 * HAK_MIB);
    cr_assert_leq(stats.kept_bytes, 112 + 5120);
    cr_assert_eq(stats.peak_bytes, 112 + 5120 + 90112 + 3 * HAK_MIB);
    cr_assert_eq(stats.sealed_bytes, 0);
    cr_assert_not_null(hak_heap_malloc(heap, 100));
    hak_heap_seal(heap);
    cr_assert_gt(stats_of(heap).sealed_bytes, 0);
    cr_assert_geq(stats_of(heap).held_bytes, stats_of(heap).sealed_bytes);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(heap_limit, the_system_s_blocks_are_its_fallback)
{
    hak_heap *heap = hak_heap_new(NULL);
    void *p;

    hak_free(haki_system_alloc(16, 10, NULL, HAK_REASON_MEMORY));
    haki_os_test_refuse(1, true);
    p = hak_heap_malloc(heap, 3 * HAK_MIB);
    haki_os_test_refuse(0, false);
    cr_assert(p != NULL && !hak_owns(p));
    cr_assert_eq(stats_of(heap).fallback, 1);
    cr_assert_eq(stats_of(heap).larger_allocs, 0);
    cr_assert_eq(stats_of(heap).peak_bytes, 3 * HAK_MIB);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(heap_limit, statistics_of_another_size_are_einval)
{
    hak_heap_stats_t stats = {.size = 0};
    static const size_t wrong[] = {0, 1, sizeof(stats) - 1, sizeof(stats) + 8,
                                   SIZE_MAX};
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        stats.size = wrong[i];
        errno = 0;
        cr_assert_eq(hak_heap_stats(heap, &stats), -1);
        cr_assert_eq(errno, EINVAL);
        cr_assert_eq(stats.size, wrong[i]);
    }
    stats.size = sizeof(stats);
    cr_assert_eq(hak_heap_stats(NULL, &stats), -1);
    cr_assert_eq(hak_heap_stats(heap, NULL), -1);
    hak_heap_delete(heap);
}

/* ---- another thread reads ---------------------------------------------------------- */

static atomic_bool done;

static void *reads(void *heap)
{
    while (!atomic_load(&done)) {
        hak_heap_stats_t stats = stats_of(heap);

        NEED(stats.limit == HAK_MIB || stats.limit == 2 * HAK_MIB);
        NEED(stats.peak_bytes <= 2 * HAK_MIB);
        NEED(hak_heap_limit(heap) >= HAK_MIB);
    }
    return NULL;
}

Test(heap_limit, another_thread_may_ask)
{
    hak_heap_config config = {.size = sizeof(config), .limit = HAK_MIB};
    hak_heap *heap = hak_heap_new(&config);
    pthread_t reader = unit_start(reads, heap);

    for (size_t i = 0; i < unit_scale(100000, 5000); i++) {
        void *p = hak_heap_malloc(heap, i % 3000);

        cr_assert_not_null(p);
        hak_heap_free(heap, p);
        hak_heap_set_limit(heap, (1 + i % 2) * HAK_MIB);
    }
    atomic_store(&done, true);
    unit_join(reader);
    hak_heap_delete(heap);
}
