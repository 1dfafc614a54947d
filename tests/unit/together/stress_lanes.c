/*
 * stress_lanes.c - several threads on all lanes at once, contents checked:
 * blocks change hands, heaps come and go, threads end and their heaps are
 * adopted, the program forks in the midst of it.
 */
#include "front/lane.h"
#include "heap/thread.h"
#include "range/slots.h"
#include "unit.h"

TestSuite(stress_lanes, .timeout = 300);

/* Most of the contents' bytes would be most of the time: some are enough. */
enum { PLACES = 600, MINE = 60, MOST = 8000000, MARK = 256, AT_ONCE = 4 };

#include "stress.h"

static _Atomic(int) living; /* threads in live_until_told */
static _Atomic(bool) stop;

/* Of every lane, the larger the seldomer. */
static size_t random_size(struct unit_random *random)
{
    size_t what = unit_below(random, 1000);
    size_t most = what < 500   ? HAK_LANE_TINY_MAX
                  : what < 850 ? HAK_LANE_POOL_MAX
                  : what < 985 ? HAK_LANE_ACE_MAX / (what % 4 + 1)
                               : 6000000;

    return sizeof(struct content) + unit_below(random, most - 8);
}

static char *get(size_t size, struct unit_random *random)
{
    size_t what = unit_below(random, 10);
    char *p;

    if (what == 0) {
        size_t align = (size_t)1 << unit_below(random, 17);

        p = hak_aligned_alloc(align, size);
        NEED((uintptr_t)p % align == 0);
    } else if (what == 1) {
        p = hak_calloc(1, size);
        NEED(p != NULL && p[0] == 0 && p[size / 2] == 0 && p[size - 1] == 0);
    } else {
        p = hak_malloc(size);
    }
    return p;
}

static void steps(char **mine, struct unit_random *random, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t what = unit_below(random, 10000);

        if (what < 7000) {
            step_mine(mine, random);
        } else if (what < 9980) {
            step_shared(mine, random);
        } else if (what < 9998) {
            step_heap(random, 4000000);
        } else {
            hak_trim();
        }
    }
}

static void *live(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *mine[MINE] = {NULL};

    steps(mine, &random, unit_scale(20000, 800));
    drop_mine(mine, &random);
    return NULL;
}

/* What lay in the places has gone, and nothing is left. */
static void check_all_back(void)
{
    hak_stats_t stats;

    hak_trim();
    stats = unit_stats();
    NEED(stats.system_live == 0);
    NEED(stats.tiny_live_bytes == 0 && stats.tiny_held_bytes == 0);
    NEED(stats.pool_live_bytes == 0 && stats.pool_held_bytes == 0);
    NEED(stats.ace_live_bytes == 0 && stats.ace_held_bytes == 0);
    NEED(stats.huge_live_bytes == 0 && stats.huge_held_bytes == 0);
    NEED(stats.tiny_allocs == stats.tiny_frees);
    NEED(stats.pool_allocs == stats.pool_frees);
    NEED(stats.ace_allocs == stats.ace_frees);
    NEED(stats.huge_allocs == stats.huge_frees);
    NEED(stats.resident_bytes == 0);
}

Test(stress_lanes, threads_in_all_lanes_at_once)
{
    hak_free(hak_malloc(1));
    for (uintptr_t round = 0; round < unit_scale(6, 2); round++) {
        pthread_t threads[AT_ONCE];

        for (uintptr_t i = 0; i < AT_ONCE; i++) {
            threads[i] = unit_start(live, (void *)(round * 100 + i + 1));
        }
        for (int i = 0; i < AT_ONCE; i++) {
            unit_join(threads[i]);
        }
    }
    cr_assert_gt(atomic_load(&handed), 300);
    drop_places();
    check_all_back();
    cr_assert_gt(unit_stats().remote_frees, 300);
    /* Each thread's heap has been adopted by a later one. */
    cr_assert_leq(haki_range_heap_count(), 2 * AT_ONCE + 1);
}

/* ---- fork ------------------------------------------------------------------------- */

static void *live_until_told(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *mine[MINE] = {NULL};

    atomic_fetch_add(&living, 1);
    while (!atomic_load(&stop)) {
        steps(mine, &random, 50);
    }
    drop_mine(mine, &random);
    return NULL;
}

static void *live_in_child(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *mine[MINE] = {NULL};

    steps(mine, &random, 300);
    drop_mine(mine, &random);
    return NULL;
}

/*
 * The parent's threads are not here. What they handed over is, with its
 * contents, and may be freed; threads of our own may work in all lanes.
 */
static void child(void *arg)
{
    pthread_t threads[2];

    (void)arg;
    drop_places();
    live_in_child((void *)7);
    threads[0] = unit_start(live_in_child, (void *)8);
    threads[1] = unit_start(live_in_child, (void *)9);
    unit_join(threads[0]);
    unit_join(threads[1]);
    drop_places();
    hak_trim();
}

Test(stress_lanes, a_fork_in_the_midst_of_it)
{
    pthread_t threads[AT_ONCE];

    UNIT_SKIP_IF_GCC_TSAN();
    for (uintptr_t i = 0; i < AT_ONCE; i++) {
        threads[i] = unit_start(live_until_told, (void *)(i + 1));
    }
    /* A starting thread may hold a lock of ASan's, which a fork then copies. */
    while (atomic_load(&living) < AT_ONCE) {
        sched_yield();
    }
    for (size_t i = 0; i < unit_scale(40, 3); i++) {
        /* Threads take a block out of its place and put it back. */
        unit_expect_said(child, NULL, "");
    }
    atomic_store(&stop, true);
    for (int i = 0; i < AT_ONCE; i++) {
        unit_join(threads[i]);
    }
    drop_places();
    check_all_back();
}
