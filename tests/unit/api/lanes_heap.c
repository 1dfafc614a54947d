/*
 * lanes_heap.c - tests of explicit heaps in all four lanes: account and
 * limit, blocks freed by other threads, the end of a heap with blocks in use.
 */
#include "front/lane.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(lanes_heap, .timeout = 300);

enum { LANE_SIZES = 12 };

static const size_t sizes[LANE_SIZES] = {
    0,     8,     1024,   1025,    5000,    53248,
    53249, 60000, 300000, 2097151, 2097152, 7000000,
};

static hak_heap *new_heap(size_t limit)
{
    hak_heap_config config = {.size = sizeof(config), .limit = limit};
    hak_heap *heap = hak_heap_new(&config);

    NEED(heap != NULL);
    return heap;
}

/* What all lanes hold, and what heaps have given out and not got back. */
struct state {
    uint64_t held[HAK_LANES], live[HAK_LANES];
};

static struct state state(void)
{
    hak_stats_t s = unit_stats();

    return (struct state){
        {s.tiny_held_bytes, s.pool_held_bytes, s.ace_held_bytes,
         s.huge_held_bytes},
        {s.tiny_live_bytes, s.pool_live_bytes, s.ace_live_bytes,
         s.huge_live_bytes},
    };
}

static void check_same(const struct state *a, const struct state *b)
{
    for (int i = 0; i < HAK_LANES; i++) {
        NEED(a->held[i] == b->held[i]);
        NEED(a->live[i] == b->live[i]);
    }
}

/* ---- account ------------------------------------------------------------------- */

Test(lanes_heap, live_is_the_sum_of_usable_sizes)
{
    hak_heap *heap = new_heap(0);
    char *p[LANE_SIZES];
    size_t sum = 0;

    for (int i = 0; i < LANE_SIZES; i++) {
        p[i] = hak_heap_malloc(heap, sizes[i]);
        cr_assert(hak_owns(p[i]));
        cr_assert_geq(hak_usable_size(p[i]), sizes[i]);
        unit_fill(p[i], sizes[i], (unsigned)i);
        sum += hak_usable_size(p[i]);
        cr_assert_eq(hak_heap_live(heap), sum, "size %zu", sizes[i]);
    }
    for (int i = 0; i < LANE_SIZES; i++) {
        cr_assert(unit_filled(p[i], sizes[i], (unsigned)i));
        sum -= hak_usable_size(p[i]);
        hak_heap_free(heap, p[i]);
        cr_assert_eq(hak_heap_live(heap), sum, "size %zu", sizes[i]);
    }
    cr_assert_eq(sum, 0);
    hak_heap_delete(heap);
}

/* From every size to every other, the account follows. */
Test(lanes_heap, realloc_keeps_contents_and_account)
{
    hak_heap *heap = new_heap(0);

    for (int i = 0; i < LANE_SIZES; i++) {
        for (int k = 0; k < LANE_SIZES; k++) {
            size_t both = haki_min(sizes[i], sizes[k]);
            char *p = hak_heap_malloc(heap, sizes[i]);

            unit_fill(p, sizes[i], 5);
            p = hak_heap_realloc(heap, p, sizes[k]);
            cr_assert(hak_owns(p));
            cr_assert(unit_filled(p, both, 5), "%zu -> %zu", sizes[i],
                      sizes[k]);
            cr_assert_geq(hak_usable_size(p), sizes[k]);
            cr_assert_eq(hak_heap_live(heap), hak_usable_size(p), "%zu -> %zu",
                         sizes[i], sizes[k]);
            hak_heap_free(heap, p);
            cr_assert_eq(hak_heap_live(heap), 0);
        }
    }
    hak_heap_delete(heap);
}

/* ---- limit ------------------------------------------------------------------------ */

/* Up to the limit and not a byte more, in each lane. */
Test(lanes_heap, a_limit_is_exact_in_every_lane)
{
    for (int i = 1; i < LANE_SIZES; i++) {
        size_t block, n;
        hak_heap *heap = new_heap(0);
        char *p[20];

        block = hak_usable_size(hak_heap_malloc(heap, sizes[i]));
        hak_heap_delete(heap);
        for (size_t less = 0; less < 2; less++) {
            heap = new_heap(10 * block - less);
            for (n = 0; n < 20; n++) {
                errno = 0;
                p[n] = hak_heap_malloc(heap, sizes[i]);
                if (p[n] == NULL) {
                    break;
                }
            }
            cr_assert_eq(n, 10 - less, "size %zu: %zu blocks", sizes[i], n);
            cr_assert_eq(errno, ENOMEM);
            cr_assert_eq(hak_heap_live(heap), n * block);
            /* One back, and there is room for one. */
            hak_heap_free(heap, p[3]);
            p[3] = hak_heap_malloc(heap, sizes[i]);
            cr_assert_not_null(p[3]);
            cr_assert_null(hak_heap_malloc(heap, sizes[i]));
            hak_heap_delete(heap);
        }
    }
    cr_assert_eq(unit_stats().system_live, 0);
}

/* Growing counts what it adds, whole pages. */
Test(lanes_heap, realloc_does_not_pass_the_limit)
{
    static const size_t limits[] = {100000, 400001, 3000001, 9000000};

    for (size_t k = 0; k < 4; k++) {
        size_t limit = limits[k];
        hak_heap *heap = new_heap(limit);
        char *p = hak_heap_malloc(heap, limit * 2 / 3);

        unit_fill(p, limit * 2 / 3, 1);
        for (size_t size = limit * 2 / 3; size < limit + 10000; size += 1000) {
            char *q = hak_heap_realloc(heap, p, size);

            cr_assert_leq(hak_heap_live(heap), limit, "limit %zu: size %zu",
                          limit, size);
            p = q != NULL ? q : p;
            cr_assert_eq(hak_heap_live(heap), hak_usable_size(p));
        }
        cr_assert(unit_filled(p, limit * 2 / 3, 1));
        hak_heap_free(heap, p);
        cr_assert_eq(hak_heap_live(heap), 0);
        p = hak_heap_malloc(heap, limit * 2 / 3);
        cr_assert_not_null(p);
        hak_heap_delete(heap);
    }
}

/* A size that is larger than all limits, or wraps around. */
Test(lanes_heap, wild_sizes_are_refused_and_nothing_is_counted)
{
    static const size_t wild[] = {SIZE_MAX,        SIZE_MAX - 4094,
                                  SIZE_MAX - 4095, SIZE_MAX / 2 + 1,
                                  PTRDIFF_MAX,     (size_t)1 << 50};
    hak_heap *heap = new_heap(1000000);
    char *p = hak_heap_malloc(heap, 100000);
    size_t live = hak_heap_live(heap);

    for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
        errno = 0;
        cr_assert_null(hak_heap_malloc(heap, unit_size(wild[i])));
        cr_assert_eq(errno, ENOMEM);
        errno = 0;
        cr_assert_null(hak_heap_realloc(heap, p, unit_size(wild[i])));
        cr_assert_eq(errno, ENOMEM);
        cr_assert_eq(hak_heap_live(heap), live);
    }
    hak_heap_delete(heap);
}

/* ---- the end of a heap ---------------------------------------------------------------- */

static void fill_heap(hak_heap *heap, unsigned seed)
{
    struct unit_random random = {seed};
    char *p[200];

    for (int i = 0; i < 200; i++) {
        size_t size = sizes[unit_below(&random, LANE_SIZES - (i % 20 != 0))];

        p[i] = hak_heap_malloc(heap, size - haki_min(size, (size_t)i));
        NEED(p[i] != NULL);
        p[i][0] = 1;
    }
    for (int i = 0; i < 200; i += 3) {
        hak_heap_free(heap, p[i]);
    }
    for (int i = 1; i < 200; i += 6) {
        hak_free(p[i]);
    }
}

Test(lanes_heap, delete_frees_what_is_in_use_in_every_lane)
{
    struct state before, after;
    char *mine[LANE_SIZES];

    for (int i = 0; i < LANE_SIZES; i++) {
        mine[i] = hak_malloc(sizes[i]);
        unit_fill(mine[i], sizes[i], 9);
    }
    hak_trim();
    before = state();
    for (unsigned round = 0; round < unit_scale(40, 4); round++) {
        hak_heap *heap = new_heap(0), *other = new_heap(0);

        fill_heap(heap, round);
        fill_heap(other, round + 1000);
        hak_heap_delete(heap);
        fill_heap(other, round + 2000);
        hak_heap_delete(other);
    }
    hak_trim();
    after = state();
    check_same(&before, &after);
    for (int i = 0; i < LANE_SIZES; i++) {
        cr_assert(unit_filled(mine[i], sizes[i], 9));
        hak_free(mine[i]);
    }
}

/* ---- other threads ---------------------------------------------------------------------- */

/* Of a larger block, only MARKED bytes have contents to be checked. */
enum { MARKED = 50000 };

static char *handed[LANE_SIZES * 20];

static void *free_handed(void *arg)
{
    size_t from = (size_t)(uintptr_t)arg;

    for (size_t i = from; i < LANE_SIZES * 20; i += 2) {
        NEED(unit_filled(handed[i], haki_min(sizes[i % LANE_SIZES], MARKED),
                         (unsigned)i));
        hak_free(handed[i]);
    }
    return NULL;
}

Test(lanes_heap, blocks_are_freed_by_other_threads)
{
    hak_heap *heap = new_heap((size_t)600 * HAK_MIB);

    for (int round = 0; round < 3; round++) {
        pthread_t threads[2];
        size_t sum = 0;

        for (size_t i = 0; i < LANE_SIZES * 20; i++) {
            handed[i] = hak_heap_malloc(heap, sizes[i % LANE_SIZES]);
            cr_assert(hak_owns(handed[i]));
            unit_fill(handed[i], haki_min(sizes[i % LANE_SIZES], MARKED),
                      (unsigned)i);
            sum += hak_usable_size(handed[i]);
        }
        cr_assert_eq(hak_heap_live(heap), sum);
        threads[0] = unit_start(free_handed, NULL);
        threads[1] = unit_start(free_handed, (void *)1);
        unit_join(threads[0]);
        unit_join(threads[1]);
        hak_heap_trim(heap);
        cr_assert_eq(hak_heap_live(heap), 0);
    }
    hak_heap_delete(heap);
    hak_trim();
    cr_assert_eq(unit_stats().slabs, 0);
    cr_assert_eq(unit_stats().ace_live_bytes, 0);
    cr_assert_eq(unit_stats().huge_held_bytes, 0);
}

/* What others freed makes room under the limit at once. */
Test(lanes_heap, what_others_freed_makes_room_under_a_limit)
{
    for (int i = 1; i < LANE_SIZES; i++) {
        hak_heap *heap = new_heap(9 * haki_max(sizes[i], 4096));
        size_t n = 0;

        while (n < LANE_SIZES * 20 &&
               (handed[n] = hak_heap_malloc(heap, sizes[i])) != NULL) {
            n++;
        }
        cr_assert_geq(n, 5);
        for (size_t k = 0; k < n; k++) {
            hak_free(handed[k]);
        }
        for (size_t k = 0; k < n; k++) {
            handed[k] = hak_heap_malloc(heap, sizes[i]);
            cr_assert_not_null(handed[k], "size %zu: block %zu of %zu",
                               sizes[i], k, n);
        }
        hak_heap_delete(heap);
    }
}
