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

enum { PLACES = 600, MINE = 60, AT_ONCE = 4, MARK = 256 };

/* A block's first bytes: what is in it. */
struct content {
    uint32_t size;
    uint32_t seed;
};

static _Atomic(char *) places[PLACES];
static _Atomic(size_t) handed;
static _Atomic(int) living; /* threads in live_until_told */
static _Atomic(bool) stop;

/* Most of the contents' bytes would be most of the time: some are enough. */
static size_t marked(size_t size)
{
    return haki_min(size - sizeof(struct content), MARK);
}

static char *fill(char *p, size_t size, uint32_t seed)
{
    struct content content = {(uint32_t)size, seed};
    size_t n = marked(size);

    NEED(p != NULL);
    memcpy(p, &content, sizeof(content));
    unit_fill(p + size - n, n, seed);
    return p;
}

static size_t check(const char *p)
{
    struct content content;
    size_t n;

    memcpy(&content, p, sizeof(content));
    NEED(content.size >= sizeof(content) && content.size <= 8000000);
    n = marked(content.size);
    NEED(unit_filled(p + content.size - n, n, content.seed));
    return content.size;
}

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

static void drop(char *p, struct unit_random *random)
{
    if (p != NULL) {
        size_t size = check(p);

        unit_below(random, 2) ? hak_free(p) : hak_free_sized(p, size);
    }
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

/* One step on one's own blocks. */
static void step_mine(char **mine, struct unit_random *random)
{
    char **at = &mine[unit_below(random, MINE)];
    size_t size = random_size(random);
    uint32_t seed = (uint32_t)unit_next(random);

    if (*at != NULL && seed % 4 == 0) {
        size_t old = check(*at);
        struct content content;

        *at = hak_realloc(*at, size);
        memcpy(&content, *at, sizeof(content));
        NEED(content.size == old);
        if (size >= old) {
            check(*at);
        }
        fill(*at, size, seed);
        return;
    }
    drop(*at, random);
    *at = fill(get(size, random), size, seed);
}

/* One block goes to whoever takes it, and another is taken. */
static void step_shared(char **mine, struct unit_random *random)
{
    char **at = &mine[unit_below(random, MINE)];

    *at = atomic_exchange(&places[unit_below(random, PLACES)], *at);
    if (*at != NULL) {
        check(*at);
        atomic_fetch_add_explicit(&handed, 1, memory_order_relaxed);
    }
}

/* A heap of one's own, some of its blocks freed through hak_free. */
static void step_heap(struct unit_random *random)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 4000000};
    hak_heap *heap = hak_heap_new(&config);
    char *p[40];

    NEED(heap != NULL);
    for (size_t i = 0; i < 40; i++) {
        size_t size = random_size(random);

        p[i] = hak_heap_malloc(heap, size);
        if (p[i] != NULL) {
            fill(p[i], size, (uint32_t)i);
        }
    }
    for (size_t i = 0; i < 40; i++) {
        if (p[i] != NULL) {
            check(p[i]);
            i % 3 == 0   ? hak_heap_free(heap, p[i])
            : i % 3 == 1 ? hak_free(p[i])
                         : (void)0;
        }
    }
    NEED(hak_heap_live(heap) <= 4000000);
    hak_heap_delete(heap);
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
            step_heap(random);
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
    for (size_t k = 0; k < MINE; k++) {
        drop(mine[k], &random);
    }
    return NULL;
}

/* What lies in the places goes, and then nothing may be left. */
static void drop_places(void)
{
    struct unit_random random = {1};

    for (size_t i = 0; i < PLACES; i++) {
        drop(atomic_exchange(&places[i], NULL), &random);
    }
}

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
    for (size_t k = 0; k < MINE; k++) {
        drop(mine[k], &random);
    }
    return NULL;
}

static void *live_in_child(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *mine[MINE] = {NULL};

    steps(mine, &random, 300);
    for (size_t k = 0; k < MINE; k++) {
        drop(mine[k], &random);
    }
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
