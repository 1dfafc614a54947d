/*
 * pool.c - tests of the Pool lane: spans, their bits and the bins over them,
 * whatever the order of frees, and what other threads free. Misuse is in
 * pool_misuse.c.
 */
#include "os/os.h"
#include "pool_check.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "range/slabs.h"
#include "unit.h"

TestSuite(pool, .timeout = 300);

static struct hak_pool *pool;
static uint32_t id;

static size_t held(void)
{
    struct hak_range_counts counts;

    haki_range_counts(&counts);
    return counts.held[HAK_LANE_POOL];
}

static char *get(unsigned class)
{
    char *p = haki_pool_alloc(pool, class);

    NEED(p != NULL);
    return p;
}

static void put(void *p)
{
    NEED(haki_pool_is_start(p, haki_pool_class_at(p)));
    haki_pool_free(pool, haki_pool_class_at(p), p);
}

static size_t live(void)
{
    return pool_check_quick(pool).live_bytes;
}

/* ---- one class at a time ----------------------------------------------------- */

Test(pool, a_span_holds_its_count_side_by_side)
{
    pool = pool_new(&id);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        const struct hak_pool_class *class = &haki_pool_classes[c];
        char *first = get(c);

        cr_assert(HAK_HARD || (uintptr_t)first % HAK_SLAB_SIZE == 0);
        cr_assert_eq(haki_pool_class_at(first), c);
        for (unsigned i = 1; i < class->count; i++) {
            char *p = get(c);

            cr_assert(HAK_HARD ? haki_pool_span(p) == haki_pool_span(first)
                               : p == first + (size_t)i * class->block);
            cr_assert_eq(haki_pool_state(p), HAK_POOL_USED);
            pool_check_quick(pool);
        }
        /* Full: in no list; the next one is from another span. */
        cr_assert_eq(pool->shelves[c].open, HAK_NO_SLAB);
        cr_assert_neq(haki_pool_span(get(c)), haki_pool_span(first));
    }
    pool_check(pool);
}

Test(pool, the_block_freed_last_is_taken_first)
{
    char *p[16];

    pool = pool_new(&id);
    for (int i = 0; i < 16; i++) {
        p[i] = get(15); /* 4096 B */
    }
    put(p[11]);
    put(p[3]);
    put(p[7]);
    pool_check(pool);
    cr_assert_eq(get(15), p[7]);
    cr_assert_eq(get(15), p[3]);
    put(p[3]);
    haki_pool_trim(pool);
    /* From the span the lowest comes first, but in the hardened build. */
    cr_assert(HAK_HARD || get(15) == p[3]);
    cr_assert(HAK_HARD || get(15) == p[11]);
    pool_check(pool);
}

/* Of what lies in bins and spans, only a little is kept. */
Test(pool, idle_spans_go_back)
{
    enum { SPANS = 10 };

    pool = pool_new(&id);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        size_t count = haki_pool_classes[c].count, total = count * SPANS;
        struct hak_pool_sums sums;
        char *p[64 * SPANS];

        for (size_t i = 0; i < total; i++) {
            p[i] = get(c);
        }
        cr_assert_eq(pool_check_quick(pool).in_class[c], SPANS);
        for (size_t i = 0; i < total; i++) {
            put(p[i]);
        }
        /* What the bin has lies in a few spans; one more may be open. */
        sums = pool_check_quick(pool);
        cr_assert_leq(sums.in_class[c], (sums.bins[c] - 1) / count + 3);
        cr_assert_eq(held(), pool->nslabs * HAK_SLAB_SIZE);
    }
    cr_assert_eq(live(), 0);
    haki_pool_trim(pool);
    cr_assert_eq(pool_check(pool).spans, 0);
    cr_assert_eq(held(), 0);
}

/* A bin holds at most 1 MB, or a part of the pool, and never all. */
Test(pool, a_bin_holds_a_bounded_part)
{
    static char *p[3000];
    size_t kept;

    pool = pool_new(&id);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c += 4) {
        size_t block = haki_pool_classes[c].block;
        size_t n = haki_min(3000, 8 * HAK_MIB / block);

        for (size_t i = 0; i < n; i++) {
            p[i] = get(c);
        }
        for (size_t i = 0; i < n; i++) {
            size_t most = haki_max(HAK_MIB, pool->nslabs * HAK_SLAB_SIZE / 16);

            put(p[i]);
            cr_assert_leq(pool_check_quick(pool).bins[c],
                          haki_max(haki_min(most / block, HAK_POOL_STACK - 1),
                                   8),
                          "class %u", c);
        }
        haki_keep_idle(pool->allow); /* twelve times may look busy */
        haki_pool_shed(pool);
        kept = 0;
        for (unsigned k = 0; k < HAK_POOL_CLASSES; k++) {
            kept += pool_check_quick(pool).bins[k] * haki_pool_classes[k].block;
        }
        cr_assert_eq((size_t)haki_kept(pool->allow), kept);
        cr_assert_leq(kept, 64 * HAK_KIB, "all bins together");
    }
}

/* ---- random streams -------------------------------------------------------------- */

enum { PLACES = 600 };

struct place {
    char *p;
    size_t size;
    unsigned seed;
};

static struct place places[PLACES];
static size_t used; /* bytes of blocks in them */

static void drop(struct place *place)
{
    NEED(unit_filled(place->p, place->size, place->seed));
    put(place->p);
    used -= place->size;
    place->p = NULL;
}

static void fill(struct place *place, unsigned class, unsigned seed)
{
    place->p = get(class);
    place->seed = seed;
    place->size = haki_pool_classes[class].block;
    NEED(haki_pool_class_at(place->p) == class);
    unit_fill(place->p, place->size, seed);
    used += place->size;
}

/* A stream on `classes` classes from `first` on; checked at every step. */
static void stream(unsigned first, unsigned classes, size_t steps)
{
    struct unit_random random = {first * 100 + classes};

    for (size_t i = 0; i < steps; i++) {
        struct place *place = &places[unit_below(&random, PLACES)];
        unsigned class = first + (unsigned)unit_below(&random, classes);

        if (place->p != NULL) {
            drop(place);
        } else {
            fill(place, class, (unsigned)i);
        }
        NEED(live() == used);
        if (unit_below(&random, 1000) == 0) {
            haki_pool_trim(pool);
            pool_check(pool);
        }
    }
    for (size_t i = 0; i < PLACES; i++) {
        if (places[i].p != NULL) {
            drop(&places[i]);
        }
    }
    NEED(live() == 0);
    haki_pool_trim(pool);
    NEED(pool_check(pool).spans == 0);
    NEED(held() == 0);
}

Test(pool, a_random_stream_on_one_small_class)
{
    pool = pool_new(&id);
    stream(0, 1, unit_scale(20000, 2000));
}

Test(pool, a_random_stream_on_one_large_class)
{
    pool = pool_new(&id);
    stream(44, 1, unit_scale(4000, 500));
}

Test(pool, a_random_stream_on_all_classes)
{
    pool = pool_new(&id);
    stream(0, HAK_POOL_CLASSES, unit_scale(8000, 500));
}

/* Of an explicit heap; the stacks become long as it grows. */
Test(pool, a_random_stream_that_begins_with_short_stacks)
{
    static char *p[400];

    pool = pool_new(&id);
    /* A heap that was here before has left its stacks behind. */
    memset(pool->stacks, 0xee, 45 * HAK_POOL_STACK_SHORT * sizeof(void *));
    haki_pool_init(pool, pool->allow, id, true);
    for (int i = 0; i < 400; i++) {
        p[i] = get((unsigned)(i * 7) % 12);
        pool_check_quick(pool);
        if (i % 3 == 0) {
            put(p[i]);
            p[i] = get((unsigned)(i * 7) % 12);
        }
    }
    cr_assert_eq(pool->places, HAK_POOL_STACK);
    for (int i = 0; i < 400; i++) {
        put(p[i]);
        pool_check_quick(pool);
    }
    haki_pool_release(pool);
    memset(pool->allow, 0, sizeof(*pool->allow)); /* another heap's */
    haki_allowance_init(pool->allow, false);
    haki_pool_init(pool, pool->allow, id, true);
    stream(0, HAK_POOL_CLASSES, unit_scale(4000, 500));
}

/* ---- memory that stays untouched -------------------------------------------------- */

/* A small process: pages become resident as their blocks are used. */
Test(pool, a_free_block_s_memory_is_never_written_to)
{
    char *p[16];

    pool = pool_new(&id);
    for (int i = 0; i < 16; i++) {
        p[i] = get(15);
    }
    memset(p[2], 1, 4096);
    for (int i = 0; i < 16; i++) {
        put(p[i]);
    }
    for (int i = 0; i < 16; i++) {
        cr_assert_eq(haki_pool_span(get(15)), haki_pool_span(p[0]));
    }
    for (int i = 0; i < 16; i++) {
        put(p[i]);
    }
    haki_pool_trim(pool); /* the span goes back, its pages as they are */
    for (int i = 0; i < 16; i++) {
        cr_assert_eq(unit_resident(p[i], 4096), i == 2, "block %d", i);
    }
    cr_assert_eq(p[2][4095], 1);
}

static void *free_all_remotely(void *arg)
{
    char **p = arg;

    for (int i = 0; i < 8; i++) {
        bool told;

        NEED(haki_pool_remote_free(pool, p[i], &told));
        NEED(told == (i == 0)); /* once for the span */
    }
    return NULL;
}

Test(pool, a_remote_free_writes_nothing_into_the_block)
{
    char *p[8];

    pool = pool_new(&id);
    for (int i = 0; i < 8; i++) {
        p[i] = get(23); /* 8192 B, 8 to a span */
    }
    unit_in_thread(free_all_remotely, p);
    cr_assert_eq(live(), 8 * 8192);
    pool_check(pool);
    haki_pool_collect(pool);
    cr_assert_eq(live(), 0);
    cr_assert_eq(pool->remote_frees, 8);
    cr_assert_eq(pool->remote_bytes, 8 * 8192);
    cr_assert_eq(unit_resident(p[0], HAK_SLAB_SIZE), 0);
    pool_check(pool);
}

/* ---- what is resident, as far as we count --------------------------------------- */

/* The resident bytes of every slab of a superslab, as its descriptors say. */
static size_t described(uint32_t super)
{
    size_t bytes = 0;

    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        bytes += haki_range_slab(super * HAK_SUPER_SLABS + n)->resident;
    }
    return bytes;
}

/*
 * A span over slabs of which a later one is resident already: its bytes are
 * counted once.
 */
Test(pool, resident_bytes_are_counted_once)
{
    uint32_t span;

    cr_assert(haki_range_init());
    span =
        haki_range_slabs_take(2, HAK_LANE_POOL, HAK_CLASS_ANY, HAK_SLABS_ALL);
    cr_assert(haki_range_ready(span + 1, 1, HAK_SLAB_SIZE, 0));
    cr_assert_eq(haki_range_resident_bytes(), HAK_SLAB_SIZE);
    cr_assert(haki_range_ready(span, 2, HAK_SLAB_SIZE + 4096, 0));
    cr_assert_eq(described(span / HAK_SUPER_SLABS), 2 * HAK_SLAB_SIZE);
    cr_assert_eq(haki_range_resident_bytes(), 2 * HAK_SLAB_SIZE);
    haki_range_slabs_give(span, 2, HAK_LANE_POOL);
    cr_assert_eq(haki_range_purge(), 2 * HAK_SLAB_SIZE);
    cr_assert_eq(haki_range_resident_bytes(), 0);
}

Test(pool, after_all_is_purged_nothing_counts_as_resident)
{
    pool = pool_new(&id);
    stream(0, HAK_POOL_CLASSES, unit_scale(4000, 500));
    stream(10, 1, unit_scale(4000, 500));
    haki_range_purge();
    cr_assert_eq(haki_range_resident_bytes(), 0);
}

/* ---- other threads -------------------------------------------------------------- */

enum { MANY = 2000 };

static char *blocks[MANY];

static void *free_third(void *arg)
{
    for (size_t i = (size_t)(uintptr_t)arg; i < MANY; i += 3) {
        bool told;

        NEED(haki_pool_remote_free(pool, blocks[i], &told));
    }
    return NULL;
}

Test(pool, blocks_freed_by_three_threads_at_once_come_back)
{
    pthread_t threads[3];

    pool = pool_new(&id);
    for (size_t round = 0; round < unit_scale(20, 2); round++) {
        for (size_t i = 0; i < MANY; i++) {
            blocks[i] = get((unsigned)(i % 5));
        }
        for (uintptr_t i = 0; i < 3; i++) {
            threads[i] = unit_start(free_third, (void *)i);
        }
        for (int i = 0; i < 3; i++) {
            unit_join(threads[i]);
        }
        pool_check(pool);
        haki_pool_collect(pool);
        cr_assert_eq(live(), 0);
        cr_assert_leq(pool_check(pool).spans, 10);
    }
    haki_pool_trim(pool);
    cr_assert_eq(held(), 0);
}

/* ---- a producer and a consumer ----------------------------------------------------- */

enum { QUEUE = 256 };

static _Atomic(char *) queue[QUEUE];
static size_t rounds;

static void *consume(void *arg)
{
    for (size_t i = 0; i < rounds; i++) {
        char *p;

        while ((p = atomic_exchange(&queue[i % QUEUE], NULL)) == NULL) {
            sched_yield();
        }
        NEED(p[0] == (char)i);
        hak_free(p);
    }
    return arg;
}

Test(pool, a_producer_and_a_consumer_do_not_grow)
{
    pthread_t consumer;
    size_t most = 0;

    rounds = unit_scale(400000, 4000);
    consumer = unit_start(consume, NULL);
    for (size_t i = 0; i < rounds; i++) {
        char *p = hak_malloc(1025 + i % 3000);

        NEED(hak_owns(p));
        p[0] = (char)i;
        while (atomic_load(&queue[i % QUEUE]) != NULL) {
            sched_yield();
        }
        atomic_store(&queue[i % QUEUE], p);
        most = i % 64 == 0 ? haki_max(most, held()) : most;
    }
    unit_join(consumer);
    /* 257 blocks of at most 4096 B, and a few spans for each of 16 classes. */
    cr_assert_leq(most, 257 * 4096 + 16 * 4 * 7 * HAK_SLAB_SIZE);
    hak_trim();
    pool_check(haki_self->pool);
    cr_assert_eq(held(), 0);
}

/* A heap of a thread that has ended takes its blocks back at once. */
static void *make_blocks(void *arg)
{
    for (size_t i = 0; i < MANY; i++) {
        blocks[i] = hak_malloc(1025 + 20 * i);
        NEED(hak_owns(blocks[i]));
    }
    return arg;
}

Test(pool, the_heap_of_an_ended_thread_gives_its_spans_back)
{
    hak_free(hak_malloc(1));
    unit_in_thread(make_blocks, NULL);
    cr_assert_gt(held(), MANY * 1025);
    for (size_t i = 0; i < MANY; i++) {
        hak_free(blocks[i]);
    }
    cr_assert_eq(held(), 0);
}

/* Blocks that were freed by the owner and by another thread in turn. */
Test(pool, release_gives_back_what_is_in_use)
{
    bool told;

    pool = pool_new(&id);
    for (size_t i = 0; i < MANY; i++) {
        blocks[i] = get((unsigned)(i % HAK_POOL_CLASSES));
    }
    for (size_t i = 0; i < MANY; i += 3) {
        put(blocks[i]);
    }
    for (size_t i = 1; i < MANY; i += 3) {
        cr_assert(haki_pool_remote_free(pool, blocks[i], &told));
    }
    haki_pool_release(pool);
    cr_assert_eq(held(), 0);
    pool = pool_new(&id);
    stream(0, HAK_POOL_CLASSES, 500);
}

/* Out of memory is NULL, and nothing is lost by it. */
Test(pool, out_of_memory_is_null_and_then_goes_on)
{
    char *p;

    pool = pool_new(&id);
    p = get(0);
    haki_os_test_refuse(1, true);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        /* A superslab's worth is there already. */
        for (int i = 0; haki_pool_alloc(pool, c) != NULL; i++) {
            cr_assert_lt(i, 2000);
        }
        pool_check_quick(pool);
    }
    haki_os_test_refuse(0, false);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        put(get(c));
        pool_check_quick(pool);
    }
    put(p);
}
