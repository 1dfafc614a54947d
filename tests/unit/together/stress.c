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

enum { PLACES = 3000, MINE = 300, MOST = 6000, MARK = MOST };

#include "stress.h"

static size_t random_size(struct unit_random *random)
{
    size_t what = unit_below(random, 100);

    return sizeof(struct content) + unit_below(random, what < 70   ? 120
                                                       : what < 98 ? 1016
                                                                   : 5000);
}

static char *get(size_t size, struct unit_random *random)
{
    (void)random;
    return hak_malloc(size);
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
            step_heap(&random, 40000);
        } else {
            hak_trim();
        }
    }
    drop_mine(mine, &random);
    return NULL;
}

Test(stress, threads_on_everything_at_once)
{
    enum { AT_ONCE = 4 };
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
    drop_places();
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
