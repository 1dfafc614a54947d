/*
 * thread.c - tests of thread heaps: first use, exit, adoption, late requests. Forks are
 * in thread_fork.c.
 */
#include "heap/thread.h"

#include <time.h>

#include "heap/lend.h"
#include "range/purge.h"
#include "settings/options.h"
#include "os/os.h"
#include "mail.h"
#include "range/slots.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(thread, .timeout = 300);

/* ---- first use ---------------------------------------------------------------- */

Test(thread, a_thread_has_no_heap_before_its_first_request)
{
    cr_assert_not(haki_thread_has_heap());
    cr_assert_eq(haki_self, &haki_heap_none);
    hak_free(NULL);
    cr_assert_not(haki_thread_has_heap());
    hak_free(hak_malloc(1));
    cr_assert(haki_thread_has_heap());
    cr_assert_eq(haki_self->tiny.id, 1);
    cr_assert_eq(unit_stats().heaps, 1);
    tiny_check(&haki_self->tiny);
}

/* The constant empty heaps match no slab's tag and are never written. */
Test(thread, the_constant_heaps_match_no_tag)
{
    const struct hak_heap *constant[] = {&haki_heap_none, &haki_heap_exited};

    for (int i = 0; i < 2; i++) {
        uint32_t tag = constant[i]->tiny.tag;

        cr_assert_geq(tag ^ 0, HAK_TINY_CLASSES);
        cr_assert_geq(tag ^ (HAK_HEAP_ID_MAX << 8 | 39), HAK_TINY_CLASSES);
        cr_assert_gt(HAK_TAG_HEAP(tag), HAK_HEAP_ID_MAX);
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            cr_assert_null(constant[i]->tiny.bins[c].head);
        }
    }
}

/* ---- exit and adoption ------------------------------------------------------------ */

static void *use_heap(void *arg)
{
    char *blocks[300];

    for (size_t i = 0; i < 300; i++) {
        blocks[i] = hak_malloc(i * 5 % 1100);
        NEED(blocks[i] != NULL);
    }
    for (size_t i = 0; i < 300; i++) {
        hak_free(blocks[i]);
    }
    *(uint32_t *)arg = haki_self->tiny.id;
    return NULL;
}

Test(thread, a_thousand_threads_in_turn_share_one_heap)
{
    uint32_t id = 0;
    hak_stats_t stats;

    hak_free(hak_malloc(1));
    for (size_t i = 0; i < unit_scale(1000, 100); i++) {
        unit_in_thread(use_heap, &id);
        cr_assert_eq(id, 2);
    }
    stats = unit_stats();
    cr_assert_eq(stats.heaps, 1);
    cr_assert_eq(stats.heaps_parked, 0, "it ends with each");
    cr_assert_eq(haki_range_heap_count(), 2);
    cr_assert_eq(stats.tiny_live_bytes, 0);
    cr_assert_leq(stats.slabs, 1, "only the main thread's may stay");
    cr_assert_eq(stats.system_live, 0);
}

static void *use_together(void *arg)
{
    void *p = hak_malloc(100);

    *(uint32_t *)arg = haki_self->tiny.id;
    pthread_barrier_wait(&barrier);
    hak_free(p);
    return NULL;
}

/* Heaps are as many as threads that ran at once, however often. */
Test(thread, heaps_are_bounded_by_the_threads_at_once)
{
    enum { AT_ONCE = 16 };
    uint32_t ids[AT_ONCE];
    pthread_t threads[AT_ONCE];

    pthread_barrier_init(&barrier, NULL, AT_ONCE);
    for (size_t round = 0; round < unit_scale(60, 5); round++) {
        for (int i = 0; i < AT_ONCE; i++) {
            threads[i] = unit_start(use_together, &ids[i]);
        }
        for (int i = 0; i < AT_ONCE; i++) {
            unit_join(threads[i]);
            for (int k = 0; k < i; k++) {
                cr_assert_neq(ids[i], ids[k]);
            }
        }
        cr_assert_eq(haki_range_heap_count(), AT_ONCE);
        cr_assert_eq(unit_stats().heaps, 0);
        cr_assert_eq(unit_stats().heaps_parked, 0);
        cr_assert_eq(unit_stats().slabs, 0);
    }
}

/* ---- many threads with little ------------------------------------------------ */

#define MANY 200
#define SIZES 12

static void *hold_little(void *arg)
{
    void *blocks[SIZES];

    for (size_t i = 0; i < SIZES; i++) {
        blocks[i] = hak_malloc(80 * i + 1);
        NEED(blocks[i] != NULL);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < SIZES; i++) {
        hak_free(blocks[i]);
    }
    return arg;
}

/*
 * The first slabs of a thread hold a block each: they don't come as huge pages, of
 * which each thread would have most of one.
 */
Test(thread, a_few_blocks_of_many_threads_take_a_page_each)
{
    static pthread_t threads[MANY];
    static char *blocks[12000];
    size_t before;

    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    for (size_t i = 0; i < 12000; i++) { /* that huge pages are due */
        blocks[i] = hak_malloc(1024);
        cr_assert_not_null(blocks[i]);
    }
    before = haki_range_resident_bytes();
    cr_assert_gt(before, 8 * HAK_MIB);
    pthread_barrier_init(&barrier, NULL, MANY + 1);
    for (int i = 0; i < MANY; i++) {
        threads[i] = unit_start(hold_little, NULL);
    }
    pthread_barrier_wait(&barrier);
    cr_assert_leq(haki_range_resident_bytes(),
                  before + (size_t)MANY * SIZES * HAK_PAGE);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < MANY; i++) {
        unit_join(threads[i]);
    }
    /* What they leave goes when no other thread comes, in portions. */
    cr_assert(haki_tick_reached(
        haki_os_tick() + (uint32_t)haki_option(HAK_OPT_purge_delay) / 4,
        atomic_load(&haki_range_due)));
    for (uint32_t i = 0; i < 20 && haki_range_due_bytes() != 0; i++) {
        haki_range_tick(haki_os_tick() + 20 * i + /* portions come in turn */
                        (uint32_t)haki_option(HAK_OPT_purge_delay) / 4);
    }
    cr_assert_leq(haki_range_resident_bytes(), before);
    cr_assert_eq(haki_range_due_bytes(), 0);
}

enum { LEFT = 5000 };

static void *leave_blocks(void *arg)
{
    char **blocks = arg;

    for (unsigned i = 0; i < LEFT; i++) {
        blocks[i] = hak_malloc(200);
        NEED(blocks[i] != NULL);
        unit_fill(blocks[i], 200, i);
    }
    return NULL;
}

Test(thread, blocks_outlive_their_thread_and_are_given_back)
{
    static char *blocks[LEFT];
    uint64_t slabs, before;

    hak_free(hak_malloc(1));
    unit_in_thread(leave_blocks, blocks);
    cr_assert_eq(unit_stats().heaps_parked, 1);
    slabs = before = unit_stats().slabs;
    cr_assert_geq(slabs, LEFT * 208 / 65536);
    for (unsigned i = 0; i < LEFT; i++) {
        cr_assert(unit_filled(blocks[i], 200, i));
        hak_free(blocks[i]);
        if (i % 1000 == 999) {
            cr_assert_lt(unit_stats().slabs, slabs);
            slabs = unit_stats().slabs;
        }
    }
    cr_assert_leq(slabs, 4);
    cr_assert_geq(before, 15);
    hak_trim();
    cr_assert_eq(unit_stats().slabs, 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
    cr_assert_eq(unit_stats().remote_frees, LEFT);
}

static void *adopt_and_free(void *arg)
{
    char **blocks = arg;

    hak_free(hak_malloc(1)); /* adopts the heap that has the blocks */
    for (unsigned i = 0; i < LEFT; i++) {
        NEED(unit_filled(blocks[i], 200, i));
        hak_free(blocks[i]);
    }
    tiny_check(&haki_self->tiny);
    return NULL;
}

Test(thread, who_adopts_a_heap_owns_its_blocks)
{
    static char *blocks[LEFT];

    hak_free(hak_malloc(1));
    unit_in_thread(leave_blocks, blocks);
    unit_in_thread(adopt_and_free, blocks);
    cr_assert_eq(unit_stats().remote_frees, 0);
    cr_assert_leq(unit_stats().slabs, 1);
    cr_assert_eq(haki_range_heap_count(), 2);
}

/* An explicit heap becomes the thread's, with its blocks. */
Test(thread, an_explicit_heap_is_adopted)
{
    static char *blocks[LEFT];
    struct hak_heap *made = hak_heap_new(NULL), *before;
    char *p;

    if (HAK_HARD) {
        cr_skip("a thread's blocks have guards, those of such a heap do not");
    }
    p = hak_malloc(200);
    before = haki_self;
    for (unsigned i = 0; i < LEFT; i++) {
        blocks[i] = hak_heap_malloc(made, 200);
        unit_fill(blocks[i], 200, i);
    }
    haki_thread_adopt(made);
    cr_assert_eq(haki_self, made);
    cr_assert_eq(atomic_load(&made->state), HAK_HEAP_OWNED);
    cr_assert_eq(atomic_load(&before->state), HAK_HEAP_PARKED);
    for (unsigned i = 0; i < LEFT; i++) {
        cr_assert(unit_filled(blocks[i], 200, i));
        hak_free(blocks[i]);
    }
    cr_assert_eq(unit_stats().remote_frees, 0);
    hak_free(p);
    hak_trim();
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
    cr_assert_eq(unit_stats().heaps_parked, 0, "with its last block it ended");
    cr_assert_eq(haki_range_heap_count(), 2);
}

static void *left;

static void *adopt_and_end(void *arg)
{
    haki_thread_adopt(arg);
    left = hak_malloc(1);
    return NULL;
}

/* By a thread that had none; when it ends the next one has it. */
Test(thread, an_adopted_heap_is_parked_at_the_thread_s_end)
{
    struct hak_heap *made = hak_heap_new(NULL);

    if (HAK_HARD) {
        cr_skip("as above");
    }
    unit_in_thread(adopt_and_end, made);
    cr_assert_eq(atomic_load(&made->state), HAK_HEAP_PARKED);
    hak_free(hak_malloc(1));
    cr_assert_eq(haki_self, made);
    cr_assert_eq(haki_range_heap_count(), 1);
    hak_free(left);
}

/* A thread that ends sends what its outboxes hold. */
static void *free_few(void *arg)
{
    void **blocks = arg;

    hak_free(hak_malloc(1));
    for (int i = 0; i < 10; i++) {
        hak_free(blocks[i]);
    }
    NEED(atomic_load(&((struct hak_heap *)haki_range_heap(1))->tiny.inbox) ==
         NULL);
    return NULL;
}

Test(thread, outboxes_are_sent_at_exit)
{
    void *blocks[10];

    for (int i = 0; i < 10; i++) {
        blocks[i] = hak_malloc(100);
    }
    unit_in_thread(free_few, blocks);
    cr_assert_not_null(atomic_load(&haki_self->tiny.inbox));
    haki_tiny_collect(&haki_self->tiny);
    cr_assert_eq(haki_self->tiny.remote_frees, 10);
    tiny_check(&haki_self->tiny);
}

/* The same for a running thread, by hak_trim. */
static void *free_few_and_trim(void *arg)
{
    void **blocks = arg;

    hak_free(hak_malloc(1));
    for (int i = 0; i < 10; i++) {
        hak_free(blocks[i]);
    }
    haki_lend_close(); /* else the owner, who sleeps, would have them already */
    hak_trim();
    NEED(atomic_load(&((struct hak_heap *)haki_range_heap(1))->tiny.inbox) !=
         NULL);
    return NULL;
}

Test(thread, outboxes_are_sent_by_trim)
{
    void *blocks[10];

    for (int i = 0; i < 10; i++) {
        blocks[i] = hak_malloc(100);
    }
    unit_in_thread(free_few_and_trim, blocks);
    haki_tiny_collect(&haki_self->tiny);
    cr_assert_eq(haki_self->tiny.remote_frees, 10);
}

/* Threads come and go while others free what the gone ones left. */
static void *swap_mail(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};

    for (size_t i = 0; i < 3000; i++) {
        size_t size = 1 + unit_below(&random, 1024);
        char *p = hak_malloc(size);

        NEED(p != NULL);
        memset(p, (int)size, size);
        hak_free(atomic_exchange(&mail[unit_below(&random, MAIL)], p));
    }
    return NULL;
}

Test(thread, nothing_is_lost_when_threads_come_and_go)
{
    enum { AT_ONCE = 6 };
    hak_stats_t stats;

    hak_free(hak_malloc(1));
    for (uintptr_t round = 0; round < unit_scale(60, 5); round++) {
        pthread_t threads[AT_ONCE];

        for (uintptr_t i = 0; i < AT_ONCE; i++) {
            threads[i] =
                unit_start(swap_mail, (void *)(round * AT_ONCE + i + 1));
        }
        for (int i = 0; i < AT_ONCE; i++) {
            unit_join(threads[i]);
        }
    }
    for (size_t i = 0; i < MAIL; i++) {
        hak_free(atomic_load(&mail[i]));
    }
    hak_trim();
    stats = unit_stats();
    cr_assert_eq(stats.tiny_live_bytes, 0);
    cr_assert_eq(stats.tiny_allocs, stats.tiny_frees);
    cr_assert_eq(stats.slabs, 0);
    cr_assert_leq(haki_range_heap_count(), AT_ONCE + 1);
    cr_assert_eq(stats.heaps_parked, 0);
    tiny_check(&haki_self->tiny);
}

/* ---- what ended threads keep -------------------------------------------------- */

/* Uses every lane, and leaves one block of the size that *arg points to. */
static void *use_all_and_leave(void *arg)
{
    size_t size = *(size_t *)arg;

    for (size_t n = 16; n < 300000; n = n * 3 / 2) {
        char *p = hak_malloc(n);

        memset(p, 1, n);
        hak_free(p);
    }
    left = size != 0 ? hak_malloc(size) : NULL;
    *(size_t *)arg = haki_self->tiny.id;
    return NULL;
}

static void expect_rest(size_t size, size_t pages)
{
    struct hak_heap *heap;
    size_t arg = size;

    hak_free(hak_malloc(1));
    unit_in_thread(use_all_and_leave, &arg);
    heap = haki_range_heap((uint32_t)arg);
    cr_assert_eq(unit_stats().heaps_parked, pages != 0);
    if (pages != 0) {
        cr_assert_leq(haki_os_resident(heap, HAK_HEAP_SLOT), pages * HAK_PAGE);
        cr_assert_eq(unit_stats().heaps_parked_bytes, pages * HAK_PAGE);
        tiny_check(&heap->tiny);
    }
    hak_free(left);
    hak_trim(); /* sends it */
    cr_assert_eq(unit_stats().heaps_parked, 0, "gone with its last block");
    cr_assert_eq(haki_os_resident(heap, HAK_HEAP_SLOT), 0);
    cr_assert_eq(atomic_load(&heap->state), HAK_HEAP_FREE);
    cr_assert_eq(unit_stats().pool_allocs, unit_stats().pool_frees);
}

Test(thread, an_ended_thread_without_blocks_leaves_nothing)
{
    expect_rest(0, 0);
}

Test(thread, a_parked_heap_keeps_a_page)
{
    expect_rest(100, 1);
}

Test(thread, with_blocks_of_pool_it_keeps_two)
{
    expect_rest(5000, 2);
}

/* As an adapter counts, in its heap; leaves a block if *arg. */
static void *count_in_extra(void *arg)
{
    uint64_t *extra;

    left = hak_malloc(100);
    extra = haki_heap_extra(haki_self);
    for (unsigned i = 0; i < HAK_HEAP_COUNTERS; i++) {
        extra[i] += i + 1;
    }
    if (!*(bool *)arg) {
        hak_free(left);
        left = NULL;
    }
    return NULL;
}

Test(thread, what_an_adapter_counted_in_a_heap_outlives_it)
{
    bool leave = false;

    hak_free(hak_malloc(1));
    unit_in_thread(count_in_extra, &leave);
    unit_in_thread(count_in_extra, &leave);
    leave = true;
    unit_in_thread(count_in_extra, &leave);
    for (unsigned i = 0; i < HAK_HEAP_COUNTERS; i++) {
        cr_assert_eq(atomic_load(&haki_heap_past.extra[i]), 2 * (i + 1));
    }
    hak_free(left);
    hak_trim(); /* sends it */
    for (unsigned i = 0; i < HAK_HEAP_COUNTERS; i++) {
        cr_assert_eq(atomic_load(&haki_heap_past.extra[i]), 3 * (i + 1));
    }
}

static void *adopt_and_use(void *arg)
{
    size_t none = 0;
    void *before = left;

    use_all_and_leave(&none);
    NEED(none == *(size_t *)arg);
    hak_free(before);
    return NULL;
}

/* What was dropped is made anew by who adopts it. */
Test(thread, an_adopted_heap_has_all_lanes_again)
{
    for (size_t size = 100; size < 20000; size *= 7) {
        size_t arg = size;

        unit_in_thread(use_all_and_leave, &arg);
        unit_in_thread(adopt_and_use, &arg);
        cr_assert_eq(unit_stats().heaps_parked, 0);
    }
}

/* ---- late requests -------------------------------------------------------------------- */

static pthread_key_t late_key;
static char *late_blocks[4];

/* Runs after the heap's own destructor: its key is the later one. */
static void late(void *arg)
{
    void *of_main = arg;

    NEED(haki_self == &haki_heap_exited);
    late_blocks[0] = hak_malloc(40);
    late_blocks[1] = hak_calloc(10, 10);
    late_blocks[2] = hak_realloc(hak_malloc(500), 800);
    late_blocks[3] = hak_malloc(5000);
    for (int i = 0; i < 4; i++) {
        NEED(late_blocks[i] != NULL && !hak_owns(late_blocks[i]));
        memset(late_blocks[i], i, 40);
    }
    hak_free(hak_malloc(10));
    hak_free(of_main);
    hak_free(NULL);
    NEED(hak_usable_size(late_blocks[0]) >= 40);
    hak_trim();
}

static void *end_with_late_requests(void *arg)
{
    NEED(pthread_setspecific(late_key, arg) == 0);
    hak_free(hak_malloc(1));
    return NULL;
}

Test(thread, late_requests_are_served_by_the_system)
{
    hak_stats_t stats;

    hak_free(hak_malloc(1)); /* makes the core's key first */
    cr_assert_eq(pthread_key_create(&late_key, late), 0);
    unit_in_thread(end_with_late_requests, hak_malloc(70));
    stats = unit_stats();
    cr_assert_eq(stats.fallback_exited, 5);
    cr_assert_eq(stats.fallback_large, 0);
    cr_assert_eq(stats.system_live, 4);
    cr_assert_eq(stats.heaps_parked, 0);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(late_blocks[i][39], i == 1 ? 1 : i);
        hak_free(late_blocks[i]);
    }
    hak_trim();
    stats = unit_stats();
    cr_assert_eq(stats.system_live, 0);
    cr_assert_eq(stats.tiny_live_bytes, 0);
}

static void *end_with_early_requests(void *arg)
{
    NEED(pthread_setspecific(late_key, hak_malloc(10)) == 0);
    return arg;
}

static void free_late(void *p)
{
    hak_free(p);
}

/* What a destructor frees after the heap is parked goes back to it. */
Test(thread, late_frees_reach_the_parked_heap)
{
    hak_free(hak_malloc(1));
    cr_assert_eq(pthread_key_create(&late_key, free_late), 0);
    for (int i = 0; i < 50; i++) {
        unit_in_thread(end_with_early_requests, NULL);
    }
    hak_trim();
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
    cr_assert_eq(unit_stats().slabs, 0);
    cr_assert_eq(unit_stats().fallback_exited, 0);
}

/* ---- no key ------------------------------------------------------------------------------ */

static void use_without_key(void *arg)
{
    pthread_key_t key;
    void *p;

    (void)arg;
    while (pthread_key_create(&key, NULL) == 0) {
    }
    for (int i = 0; i < 2; i++) {
        p = hak_malloc(100);
        NEED(p != NULL && !hak_owns(p));
        hak_free(p);
    }
    NEED(unit_stats().fallback_memory == 2);
}

Test(thread, without_a_key_all_goes_to_the_system_said_once)
{
    unit_expect_said(use_without_key, NULL,
                     "hakmem: no thread key is left (PTHREAD_KEYS_MAX): all "
                     "requests go to the system allocator\n");
}
