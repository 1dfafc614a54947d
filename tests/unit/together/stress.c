/*
 * stress.c - several threads on everything at once, contents checked: blocks
 * change hands, heaps come and go, threads end and start, memory is trimmed.
 */
#include "heap/heap.h"
#include "range_check.h"
#include "heap/thread.h"
#include "range/slots.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(stress, .timeout = 300);

enum { PLACES = 3000, MINE = 300 };

/* A block's first bytes: what is in it. */
struct content {
    uint32_t size;
    uint32_t seed;
};

static _Atomic(char *) places[PLACES];
static _Atomic(size_t) handed;

static char *fill(char *p, size_t size, uint32_t seed)
{
    struct content content = {(uint32_t)size, seed};

    NEED(p != NULL);
    memcpy(p, &content, sizeof(content));
    unit_fill(p + sizeof(content), size - sizeof(content), seed);
    return p;
}

static size_t check(const char *p)
{
    struct content content;

    memcpy(&content, p, sizeof(content));
    NEED(content.size >= sizeof(content) && content.size <= 6000);
    NEED(unit_filled(p + sizeof(content), content.size - sizeof(content),
                     content.seed));
    return content.size;
}

static size_t random_size(struct unit_random *random)
{
    size_t what = unit_below(random, 100);

    return sizeof(struct content) + unit_below(random, what < 70   ? 120
                                                       : what < 98 ? 1016
                                                                   : 5000);
}

static void drop(char *p, struct unit_random *random)
{
    if (p != NULL) {
        size_t size = check(p);

        unit_below(random, 2) ? hak_free(p) : hak_free_sized(p, size);
    }
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
        NEED(unit_filled(*at + sizeof(content),
                         haki_min(old, size) - sizeof(content), content.seed));
        fill(*at, size, seed);
        return;
    }
    drop(*at, random);
    *at = fill(hak_malloc(size), size, seed);
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
    hak_heap_config config = {.size = sizeof(config), .limit = 40000};
    hak_heap *heap = hak_heap_new(&config);
    char *p[60];

    NEED(heap != NULL);
    for (size_t i = 0; i < 60; i++) {
        size_t size = random_size(random);

        p[i] = hak_heap_malloc(heap, size);
        if (p[i] != NULL) {
            fill(p[i], size, (uint32_t)i);
        }
    }
    for (size_t i = 0; i < 60; i++) {
        if (p[i] != NULL) {
            check(p[i]);
            i % 3 == 0   ? hak_heap_free(heap, p[i])
            : i % 3 == 1 ? hak_free(p[i])
                         : (void)0;
        }
    }
    hak_heap_delete(heap);
}

static void *live(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *mine[MINE] = {NULL};

    for (size_t i = 0; i < unit_scale(60000, 3000); i++) {
        size_t what = unit_below(&random, 10000);

        if (what < 7000) {
            step_mine(mine, &random);
        } else if (what < 9990) {
            step_shared(mine, &random);
        } else if (what < 9998) {
            step_heap(&random);
        } else {
            hak_trim();
        }
    }
    for (size_t k = 0; k < MINE; k++) {
        drop(mine[k], &random);
    }
    return NULL;
}

Test(stress, threads_on_everything_at_once)
{
    enum { AT_ONCE = 4 };
    struct unit_random random = {1};
    hak_stats_t stats;

    hak_free(hak_malloc(1));
    for (uintptr_t round = 0; round < unit_scale(8, 2); round++) {
        pthread_t threads[AT_ONCE];

        for (uintptr_t i = 0; i < AT_ONCE; i++) {
            threads[i] = unit_start(live, (void *)(round * 100 + i + 1));
        }
        for (int i = 0; i < AT_ONCE; i++) {
            unit_join(threads[i]);
        }
    }
    cr_assert_gt(atomic_load(&handed), 1000);
    for (size_t i = 0; i < PLACES; i++) {
        drop(atomic_load(&places[i]), &random);
    }
    hak_trim();
    stats = unit_stats();
    unit_expect_none_live();
    cr_assert_eq(stats.slabs, 0);
    range_check();
    cr_assert_gt(stats.remote_frees, 1000);
    cr_assert_leq(haki_range_heap_count(), 2 * AT_ONCE + 1);
    for (uint32_t id = 1; id <= haki_range_heap_count(); id++) {
        struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) != HAK_HEAP_FREE) {
            tiny_check(&heap->tiny);
        }
    }
}
