/*
 * profile.c - tests of the profile's samples: that they are unbiased, find their
 * records, count in their heaps, and what forks and heaps' ends leave of them.
 */
#include <math.h>

#include "api/inside.h"
#include "front/lane.h"
#include "heap/account.h"
#include "heap/thread.h"
#include "profile/profile.h"
#include "unit.h"

TestSuite(profile, .timeout = 300);

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* Sums of all stacks. */
struct sums {
    double alloc, live, allocs, lives;
};

static struct sums sum_all(void)
{
    struct hak_stacks *stacks = haki_profile_read(false);
    struct sums sums = {0, 0, 0, 0};

    NEED(stacks != NULL);
    for (uint32_t i = 0; i < stacks->count; i++) {
        const struct hak_sums *all = &stacks->stack[i].sums;

        sums.alloc += (double)all->bytes[HAK_SUM_ALLOC];
        sums.live += (double)all->bytes[HAK_SUM_LIVE];
        sums.allocs += (double)all->count[HAK_SUM_ALLOC] / HAK_COUNT_ONE;
        sums.lives += (double)all->count[HAK_SUM_LIVE] / HAK_COUNT_ONE;
    }
    haki_profile_drop(stacks);
    return sums;
}

static void on(size_t rate)
{
    haki_profile_test_seed(42);
    NEED(haki_profile_set(rate));
}

static uint32_t live_records(void)
{
    struct hak_profile_counts counts;

    haki_profile_counts(&counts);
    return counts.live;
}

static size_t lanes_live_bytes(void)
{
    hak_stats_t stats = unit_stats();

    return stats.tiny_live_bytes + stats.pool_live_bytes +
           stats.ace_live_bytes + stats.huge_live_bytes;
}

/* The bytes of the block that a request gets. */
static size_t block_bytes(size_t size)
{
    size_t before = lanes_live_bytes();
    void *p = hak_malloc(size);
    size_t bytes = lanes_live_bytes() - before;

    NEED(p != NULL);
    hak_free(p);
    return bytes;
}

static bool is_sample(const void *p)
{
    struct hak_sampled sampled;

    return haki_sample_find(p, &sampled);
}

/* ---- chance ------------------------------------------------------------------ */

Test(profile, chance_is_what_exp_says)
{
    for (size_t rate = 1; rate < MIB * 16; rate = rate * 7 + 1) {
        for (size_t size = 1; size < 8 * MIB; size = size * 3 + 1) {
            double want = -expm1(-(double)size / (double)rate);

            cr_assert_lt(fabs(haki_draw_chance(rate, size) / want - 1), 1e-9,
                         "%zu of %zu", size, rate);
        }
    }
}

Test(profile, distances_have_the_mean_and_the_tail)
{
    uint64_t state = 1;
    double sum = 0;
    size_t n = unit_scale(1000000, 10000), beyond = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)haki_draw_bytes(1000000, &state);

        sum += d;
        beyond += d > 2302585; /* exp(-2.302585) is 0.1 */
    }
    cr_assert_lt(fabs(sum / (double)n / 1e6 - 1), 6 / sqrt((double)n));
    cr_assert_lt(fabs((double)beyond / (double)n - 0.1),
                 6 * sqrt(0.09 / (double)n));
}

/* ---- unbiased -------------------------------------------------------------------- */

/* n blocks of `size` bytes, each freed at once: the estimate of their bytes, of what
 * they have, and how far off it may be: 6 sigma. */
static void check_size(size_t size, size_t rate, size_t n)
{
    double block = (double)block_bytes(size), truth, chance, sigma, off;
    struct sums sums;

    on(rate);
    for (size_t i = 0; i < n; i++) {
        void *p = hak_malloc(size);

        NEED(p != NULL);
        hak_free(p);
    }
    sums = sum_all();
    truth = block * (double)n;
    chance = haki_draw_chance(rate, (size_t)block);
    sigma = block * sqrt((double)n * (1 - chance) / chance);
    off = fabs(sums.alloc - truth);
    cr_expect_leq(off, 6 * sigma + (double)n,
                  "%zu bytes: %.0f instead of %.0f, sigma %.0f", size,
                  sums.alloc, truth, sigma);
    cr_expect_leq(fabs(sums.allocs - (double)n),
                  6 * sigma / block + (double)n * 1e-3, "%zu: %.0f of %zu",
                  size, sums.allocs, n);
    cr_expect_lt(fabs(sums.live), 0.5);
    haki_profile_set(0);
}

Test(profile, every_size_is_told_without_bias)
{
    static const size_t sizes[] = {1,     16,    24,   64,      100,
                                   512,   1024,  1025, 3000,    10000,
                                   52000, 60000, MIB,  2 * MIB, 3 * MIB};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t n = unit_scale(haki_min(64 * MIB / sizes[i], 300000), 100);

        check_size(sizes[i], haki_max(16 * KIB, sizes[i] / 2),
                   haki_max(n, 100));
    }
}

Test(profile, blocks_that_stay_are_told_until_they_go)
{
    size_t n = unit_scale(20000, 1000);
    void **p = calloc(n, sizeof(*p));
    double truth = 0, sigma = 0;
    uint64_t seed = 7;
    struct sums sums;

    on(4 * KIB);
    for (size_t i = 0; i < n; i++) {
        size_t size = 16 + haki_draw_next(&seed) % 3000, have;
        double chance;

        p[i] = hak_malloc(size);
        have = hak_usable_size(p[i]);
        memset(p[i], (int)i, size);
        chance = haki_draw_chance(4 * KIB, have);
        truth += (double)have;
        sigma += (double)have * (double)have * (1 - chance) / chance;
    }
    sums = sum_all();
    cr_assert_lt(fabs(sums.live - truth), 6 * sqrt(sigma) + (double)n);
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(*(unsigned char *)p[i], (unsigned char)i);
        hak_free(p[i]);
    }
    cr_assert_eq(live_records(), 0);
    cr_assert_lt(fabs(sum_all().live), 0.5);
    free(p);
}

/* ---- one of everything ----------------------------------------------------------- */

Test(profile, at_rate_1_each_block_is_a_sample_and_a_block_as_any)
{
    static const size_t sizes[] = {1,    16,    100,   1024,    1025,
                                   5000, 52000, 60000, 2 * MIB, 5 * MIB};

    on(1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t size = sizes[i];
        char *p = hak_malloc(size), *q;

        cr_assert(is_sample(p), "%zu", size);
        cr_assert(hak_owns(p));
        cr_assert_eq((uintptr_t)p % 16, 0);
        cr_assert_geq(hak_usable_size(p), size);
        memset(p, 3, size);
        q = hak_realloc(p, 2 * size);
        cr_assert_not_null(q);
        cr_assert_eq(q[size - 1], 3);
        cr_assert(is_sample(q), "%zu", size);
        q = hak_realloc(q, size);
        cr_assert_eq(q[size - 1], 3);
        hak_free_sized(q, size);
        p = hak_calloc(1, size);
        cr_assert_eq(p[0] | p[size - 1], 0);
        hak_free(p);
        p = hak_aligned_alloc(256, size);
        cr_assert_eq((uintptr_t)p % 256, 0, "%zu", size);
        hak_free(p);
    }
    cr_assert_eq(live_records(), 0);
}

Test(profile, off_and_on_again_in_the_middle)
{
    void *p[100], *q[100];

    on(1);
    for (int i = 0; i < 100; i++) {
        p[i] = hak_malloc(100);
    }
    NEED(haki_profile_set(0));
    for (int i = 0; i < 100; i++) {
        q[i] = hak_malloc(3000);
    }
    cr_assert_lt(live_records(), 110);
    cr_assert_geq(live_records(), 100);
    for (int i = 0; i < 100; i++) {
        hak_free(p[i]);
        hak_free(q[i]);
    }
    cr_assert_eq(live_records(), 0);
    on(1);
    cr_assert(is_sample(hak_malloc(100)) || is_sample(hak_malloc(100)) ||
              is_sample(hak_malloc(101)));
}

Test(profile, statistics_add_up)
{
    size_t tiny = block_bytes(64), pool = block_bytes(2048);
    hak_stats_t before, after;
    void *p[1000];

    before.size = after.size = sizeof(before);
    on(200);
    hak_stats(&before);
    for (int i = 0; i < 1000; i++) {
        p[i] = hak_malloc(i % 2 != 0 ? 64 : 2048);
    }
    hak_stats(&after);
    cr_assert_eq(after.tiny_allocs - before.tiny_allocs, 500);
    cr_assert_eq(after.pool_allocs - before.pool_allocs, 500);
    cr_assert_eq(after.tiny_live_bytes - before.tiny_live_bytes, 500 * tiny);
    cr_assert_eq(after.pool_live_bytes - before.pool_live_bytes, 500 * pool);
    for (int i = 0; i < 1000; i++) {
        hak_free(p[i]);
    }
    hak_stats(&after);
    cr_assert_eq(after.tiny_frees, after.tiny_allocs);
    cr_assert_eq(after.pool_frees, after.pool_allocs);
    cr_assert_eq(after.tiny_live_bytes, 0);
}

/* ---- explicit heaps -------------------------------------------------------------- */

static void *free_all(void *arg)
{
    void **p = arg;

    for (int i = 0; p[i] != NULL; i++) {
        hak_free(p[i]);
    }
    return NULL;
}

Test(profile, a_sample_counts_in_its_heap)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 256 * KIB};
    hak_heap *heap;
    void *p[4097] = {NULL};
    pthread_t thread;
    size_t n = 0, live;

    on(1);
    heap = hak_heap_new(&config);
    while ((p[n] = hak_heap_malloc(heap, 100)) != NULL) {
        cr_assert(is_sample(p[n]));
        n++;
    }
    live = hak_heap_live(heap);
    cr_assert_leq(live, 256 * KIB);
    cr_assert_geq(live, 255 * KIB);
    hak_heap_free(heap, p[--n]);
    p[n] = NULL;
    cr_assert_lt(hak_heap_live(heap), live);
    cr_assert_eq(pthread_create(&thread, NULL, free_all, p), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(hak_heap_live(heap), 0);
    p[0] = hak_heap_malloc(heap, 200 * KIB);
    cr_assert_not_null(p[0]);
    cr_assert(is_sample(p[0]));
    p[1] = hak_heap_malloc(heap, 5000);
    cr_assert_not_null(p[1]);
    cr_assert_eq(live_records(), 2);
    hak_heap_delete(heap);
    cr_assert_eq(live_records(), 0);
}

Test(profile, a_heap_draws_for_the_classes_that_it_uses)
{
    hak_heap *heap;
    unsigned drawn = 0;

    on(512 * KIB);
    heap = hak_heap_new(NULL);
    NEED(hak_heap_malloc(heap, 16) != NULL);
    NEED(hak_heap_malloc(heap, 700) != NULL);
    cr_assert(heap->tiny.sampled);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        bool is_drawn = haki_tiny_sampling(&heap->tiny)->at[c] != HAK_NEVER;

        cr_assert_eq(is_drawn, heap->tiny.taken[c] != 0);
        drawn += is_drawn;
    }
    cr_assert_eq(drawn, 2);
    hak_heap_delete(heap);
}

Test(profile, a_deleted_heaps_counts_are_not_the_next_ones)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 256 * KIB};
    void *p[200] = {NULL};
    pthread_t thread;

    on(1);
    for (int round = 0; round < 3; round++) {
        hak_heap *heap = hak_heap_new(&config);

        for (int i = 0; i < 100; i++) {
            p[i] = hak_heap_malloc(heap, 100);
            NEED(p[i] != NULL);
        }
        cr_assert_geq(hak_heap_live(heap), 100 * 100);
        cr_assert_eq(pthread_create(&thread, NULL, free_all, p), 0);
        pthread_join(thread, NULL);
        hak_heap_delete(heap);
        cr_assert_eq(live_records(), 0);
    }
}

Test(profile, a_deleted_heap_frees_its_samples_and_no_others)
{
    hak_heap *one, *two;
    void *mine, *theirs;

    on(1);
    one = hak_heap_new(NULL);
    two = hak_heap_new(NULL);
    mine = hak_malloc(50);
    theirs = hak_heap_malloc(two, 70000);
    for (int i = 0; i < 300; i++) {
        NEED(hak_heap_malloc(one, (size_t)i * 300) != NULL);
    }
    hak_heap_delete(one);
    cr_assert_eq(live_records(), 2);
    cr_assert(is_sample(mine) && is_sample(theirs));
    hak_heap_free(two, theirs);
    hak_heap_delete(two);
    hak_free(mine);
    cr_assert_eq(live_records(), 0);
}

/* Its own heap took no part: it was not used since the profile began. */
Test(profile, a_deleted_heap_frees_the_samples_that_its_users_resized)
{
    hak_heap *heap = hak_heap_new(NULL);
    void *ace = hak_heap_malloc(heap, 200 * KIB);
    void *huge = hak_heap_malloc(heap, 3 * MIB);
    uint32_t before;

    on(1);
    hak_free(hak_malloc(MIB)); /* this thread's takes part */
    before = live_records();
    ace = hak_heap_realloc(heap, ace, 300 * KIB);
    huge = hak_heap_realloc(heap, huge, 4 * MIB);
    NEED(ace != NULL && huge != NULL);
    cr_assert_gt(live_records(), before);
    hak_heap_delete(heap);
    cr_assert_eq(live_records(), before);
}

static void free_it(void *p)
{
    hak_free(p);
}

Test(profile, misuse_of_a_sample_is_told_as_of_any_block)
{
    static const size_t sizes[] = {100, 1000, 5000, 40000};

    on(1);
    for (size_t i = 0; i < 4; i++) {
        size_t block = block_bytes(sizes[i]);
        char *p = NULL;

        while (!is_sample(p)) {
            p = hak_malloc(sizes[i]);
        }
        unit_expect_fatal(
            free_it, p + 16,
            "hakmem: fatal: hak_free(%p): the middle of a block of "
            "%zu bytes\n",
            (void *)(p + 16), block);
        hak_free(p);
        unit_expect_fatal(
            free_it, p,
            "hakmem: fatal: hak_free(%p): a block that is free, or "
            "an address never given out\n",
            (void *)p);
    }
}

/* Tags of free superslabs lose their pages. The smallest window: a step of these has
 * samples' and lanes'. */
Test(profile, samples_have_their_tags_when_all_else_was_free)
{
    void *p;

    setenv("HAKMEM_RANGE", "1G", 1);
    hak_free(hak_malloc(60 * KIB));
    on(1);
    for (size_t i = 0; i < 500; i++) {
        hak_free(hak_malloc(i * 100));
    }
    p = hak_malloc(5000);
    NEED(is_sample(p));
    hak_trim();
    cr_assert(hak_owns(p));
    cr_assert_eq(hak_usable_size(p), unit_usable(hak_good_size(5000), 5000));
    hak_free(p);
    cr_assert_eq(live_records(), 0);
}

/* ---- threads, fork ------------------------------------------------------------------ */

static void *churn(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    void *p[64] = {NULL};

    for (size_t i = unit_scale(20000, 1000); i > 0; i--) {
        size_t at = haki_draw_next(&seed) % 64;

        hak_free(p[at]);
        p[at] = hak_malloc(haki_draw_next(&seed) % 4000 + 1);
        NEED(p[at] != NULL);
        memset(p[at], (int)i, 1);
    }
    for (size_t i = 0; i < 64; i++) {
        hak_free(p[i]);
    }
    return NULL;
}

Test(profile, threads_while_it_is_switched)
{
    pthread_t threads[4];

    for (uintptr_t i = 0; i < 4; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, churn, (void *)(i + 1)),
                     0);
    }
    for (int i = 0; i < 200; i++) {
        NEED(haki_profile_set(i % 3 == 0 ? 0 : (size_t)1000 * (size_t)i + 1));
        haki_profile_drop(haki_profile_read(i % 2 == 0));
        haki_profile_mark();
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(live_records(), 0);
}

Test(profile, a_child_has_its_parents_records_and_its_own_sums)
{
    void *p, *q;
    int status;
    pid_t pid;

    on(1);
    p = hak_malloc(100);
    pid = fork();
    if (pid == 0) {
        bool good = live_records() == 1 && is_sample(p) &&
                    sum_all().alloc < 0.5 && sum_all().live > 99;

        hak_free(p);
        q = hak_malloc(500);
        q = is_sample(q) ? q : hak_malloc(500);
        good = good && is_sample(q) && sum_all().alloc > 499;
        hak_free(q);
        _exit(good ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    cr_assert_eq(status, 0);
    cr_assert(is_sample(p));
    hak_free(p);
    cr_assert_eq(live_records(), 0);
}

Test(profile, what_grew_is_what_came_since_the_mark)
{
    struct hak_stacks *grown;
    double live = 0;
    void *p, *q;

    on(1);
    p = hak_malloc(1000);
    haki_profile_mark();
    q = hak_malloc(3000);
    grown = haki_profile_read(true);
    for (uint32_t i = 0; i < grown->count; i++) {
        live += (double)grown->stack[i].sums.bytes[HAK_SUM_LIVE];
    }
    cr_assert_geq(live, 3000);
    cr_assert_lt(live, 4000);
    haki_profile_drop(grown);
    hak_free(p);
    hak_free(q);
}
