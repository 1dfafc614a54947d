/*
 * seal.c - tests of the fork seal: nothing is allocated from sealed slabs, a
 * free writes to none of their pages, and what is wholly free comes back.
 */
#include "heap/heap.h"
#include "settings/options.h"
#include "pool_check.h"
#include "heap/thread.h"
#include "tiny/tiny_seal.h"
#include "tiny_check.h"
#include "tiny/tiny_slab.h"
#include "unit.h"

TestSuite(seal, .timeout = 120);

/* ---- a parent with holes --------------------------------------------------- */

enum { OBJECTS = 20000 };

/* Every size class of Tiny, and some of Pool's. */
static size_t size_of(size_t i)
{
    return i % 50 == 49 ? 1100 + i % 40 * 300 : 8 + i * 37 % 900;
}

struct world {
    hak_heap *heap; /* NULL: the thread's */
    size_t count;
    char *p[OBJECTS];
};

static struct world world;

static void *take(struct world *w, size_t size)
{
    void *p =
        w->heap != NULL ? hak_heap_malloc(w->heap, size) : hak_malloc(size);

    NEED(p != NULL);
    return p;
}

static void drop(struct world *w, void *p)
{
    if (w->heap != NULL) {
        hak_heap_free(w->heap, p);
    } else {
        hak_free(p);
    }
}

static void drop_at(struct world *w, size_t i)
{
    if (w->p[i] != NULL) {
        NEED(unit_filled(w->p[i], size_of(i), (unsigned)i));
        drop(w, w->p[i]);
        w->p[i] = NULL;
    }
}

/* Objects with contents, of which every tenth is freed, in no order. */
static void build(struct world *w)
{
    w->count = unit_scale(OBJECTS, 4000);
    for (size_t i = 0; i < w->count; i++) {
        w->p[i] = take(w, size_of(i));
        unit_fill(w->p[i], size_of(i), (unsigned)i);
    }
    for (size_t i = 0; i < w->count; i++) {
        if (i * 7919 % w->count % 10 == 0) {
            drop_at(w, i * 7919 % w->count);
        }
    }
}

static void verify(const struct world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        NEED(w->p[i] == NULL || unit_filled(w->p[i], size_of(i), (unsigned)i));
    }
}

static void drop_all(struct world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        drop_at(w, i);
    }
}

static bool in_sealed(const void *p)
{
    return haki_range_sealed(haki_range_offset(p));
}

static size_t sealed_bytes(void)
{
    return unit_stats().sealed_bytes;
}

static void check(const struct hak_heap *heap)
{
    tiny_check(&heap->tiny);
    if (heap->pool != NULL) {
        pool_check(heap->pool);
    }
}

/* Many allocations and frees, of which none may lie in a sealed slab. */
static void churn(struct world *w, size_t n)
{
    struct unit_random random = {n};
    char *mine[500] = {NULL};
    size_t size[500];

    for (size_t i = 0; i < n; i++) {
        size_t k = unit_below(&random, 500);

        if (mine[k] != NULL) {
            NEED(unit_filled(mine[k], size[k], (unsigned)k));
            drop(w, mine[k]);
        }
        size[k] = size_of(unit_below(&random, 10000));
        mine[k] = take(w, size[k]);
        NEED(!in_sealed(mine[k]));
        unit_fill(mine[k], size[k], (unsigned)k);
    }
    for (size_t k = 0; k < 500; k++) {
        if (mine[k] != NULL) {
            drop(w, mine[k]);
        }
    }
}

/* ---- a write to a sealed slab is a crash ------------------------------------ */

/* So many superslabs are looked through; the tests use fewer. */
enum { SUPERS = 64 };

/*
 * `on`: protects sealed slabs; the others, which may have been given back
 * since, can be written to. How many are protected.
 */
static size_t protect(bool on)
{
    uint32_t first = unit_first_slab();
    size_t count = 0;

    for (uint32_t n = first; n < first + SUPERS * HAK_SUPER_SLABS; n++) {
        bool ours = on && haki_range_sealed((size_t)n << HAK_SLAB_SHIFT);

        if (haki_supers.at[n / HAK_SUPER_SLABS].state == HAK_SUPER_FRESH) {
            break;
        }
        NEED(mprotect(haki_range_slab_start(n), HAK_SLAB_SIZE,
                      ours ? PROT_READ : PROT_READ | PROT_WRITE) == 0);
        count += ours;
    }
    return count;
}

#define SKIP_IF_HARD()                                                         \
    do {                                                                       \
        if (HAK_HARD) {                                                        \
            cr_skip("the hardened build marks blocks when they are freed");    \
        }                                                                      \
    } while (0)

/* ---- one thread -------------------------------------------------------------- */

static void nothing_is_allocated(struct world *w, void (*seal)(void))
{
    const struct hak_heap *heap;
    size_t live;

    build(w);
    heap = w->heap != NULL ? w->heap : haki_self;
    live = unit_stats().tiny_live_bytes + unit_stats().pool_live_bytes;
    seal();
    check(heap);
    cr_assert_eq(unit_stats().tiny_live_bytes + unit_stats().pool_live_bytes,
                 live);
    cr_assert_eq(heap->tiny.nslabs + heap->pool->nslabs, 0);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        cr_assert_eq(heap->pool->shelves[c].last, HAK_NO_SLAB);
    }
    cr_assert_eq(sealed_bytes(),
                 unit_stats().tiny_held_bytes + unit_stats().pool_held_bytes);
    for (size_t i = 0; i < w->count; i++) {
        cr_assert(w->p[i] == NULL || in_sealed(w->p[i]));
    }
    churn(w, w->count);
    check(heap);
    verify(w);
    drop_all(w);
    check(heap);
    cr_assert_eq(sealed_bytes(), 0, "all of them are given back");
    churn(w, w->count);
    check(heap);
}

Test(seal, nothing_is_allocated_from_sealed_slabs)
{
    nothing_is_allocated(&world, hak_seal);
    hak_trim();
    unit_expect_none_live();
    cr_assert_eq(unit_stats().slabs, 0);
}

static void seal_world(void)
{
    hak_heap_seal(world.heap);
}

Test(seal, a_heap_made_by_hand_is_sealed)
{
    world.heap = hak_heap_new(NULL);
    nothing_is_allocated(&world, seal_world);
    cr_assert_eq(hak_heap_live(world.heap), 0);
    hak_heap_delete(world.heap);
    cr_assert_eq(unit_stats().slabs, 0);
}

Test(seal, deleting_a_heap_frees_its_sealed_slabs)
{
    hak_stats_t before = unit_stats();

    world.heap = hak_heap_new(NULL);
    build(&world);
    hak_heap_seal(world.heap);
    churn(&world, 1000);
    for (size_t i = 0; i < world.count; i += 3) {
        drop_at(&world, i);
    }
    hak_heap_seal(world.heap);
    cr_assert_gt(sealed_bytes(), 0);
    hak_heap_delete(world.heap);
    cr_assert_eq(unit_stats().slabs, before.slabs);
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
    /* The slot's next heap knows nothing of it. */
    world.heap = hak_heap_new(NULL);
    memset(world.p, 0, sizeof(world.p));
    build(&world);
    check(world.heap);
    drop_all(&world);
    hak_heap_delete(world.heap);
}

/* Frees some of the blocks in each way that the thread has. */
static void free_some(struct world *w)
{
    for (size_t i = 0; i < w->count; i++) {
        char *p = w->p[i];

        if (p == NULL || i % 4 == 0) {
            continue;
        }
        w->p[i] = NULL;
        switch (i % 4) {
        case 1: drop(w, p); break;
        case 2: hak_free_sized(p, size_of(i)); break;
        default:
            p = w->heap != NULL ? hak_heap_realloc(w->heap, p, 70000)
                                : hak_realloc(p, 70000);
            NEED(p != NULL && unit_filled(p, size_of(i), (unsigned)i));
            drop(w, p);
        }
    }
}

static void nothing_is_written(struct world *w, void (*seal)(void))
{
    build(w);
    seal();
    cr_assert_gt(protect(true), 10);
    free_some(w);
    protect(true);
    seal();
    churn(w, 5000);
    protect(false);
    verify(w);
}

Test(seal, a_free_writes_to_no_page_of_a_sealed_slab)
{
    SKIP_IF_HARD();
    nothing_is_written(&world, hak_seal);
    check(haki_self);
}

Test(seal, a_free_into_a_sealed_heap_writes_to_no_page_of_a_slab)
{
    SKIP_IF_HARD();
    world.heap = hak_heap_new(NULL);
    nothing_is_written(&world, seal_world);
    hak_heap_trim(world.heap);
    check(world.heap);
}

/* What lies in head and spare when the heap is sealed is known to be free. */
Test(seal, blocks_in_bins_are_counted_and_not_touched)
{
    enum { COUNT = 3000 };
    static char *p[COUNT];
    const struct hak_tiny *tiny;
    unsigned class = haki_tiny_class_16[haki_tiny_index(100)];

    SKIP_IF_HARD();
    for (size_t i = 0; i < COUNT; i++) {
        p[i] = hak_malloc(100);
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (i % 100 != 0) {
            hak_free(p[i]);
        }
    }
    tiny = &haki_self->tiny;
    cr_assert_not_null(tiny->bins[class].head);
    cr_assert_not_null(tiny->bins[class].spare);
    for (uint32_t n = tiny->all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        NEED(mprotect(haki_range_slab_start(n), HAK_SLAB_SIZE, PROT_READ) == 0);
    }
    hak_seal();
    cr_assert_eq(unit_stats().tiny_live_bytes,
                 COUNT / 100 * haki_tiny_size[class]);
    tiny_check(tiny);
    for (size_t i = 0; i < COUNT; i += 100) {
        hak_free(p[i]);
    }
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
}

Test(seal, an_empty_heap_can_be_sealed)
{
    hak_heap *heap = hak_heap_new(NULL);

    hak_seal(); /* the thread has none */
    hak_heap_seal(heap);
    hak_free(hak_malloc(10));
    hak_seal();
    hak_seal();
    cr_assert_eq(sealed_bytes(), 0, "no block was in use");
    cr_assert_eq(unit_stats().slabs, 0);
    check(haki_self);
    hak_heap_delete(heap);
}

/* A class's only open slab is kept with nothing in use: not by a seal. */
Test(seal, what_is_wholly_free_is_not_sealed)
{
    enum { COUNT = 64 }; /* blocks of a slab */
    struct hak_tiny *tiny = tiny_new(false);
    void *p[COUNT];

    for (size_t i = 0; i < COUNT; i++) {
        p[i] = haki_tiny_alloc(tiny, HAK_TINY_CLASSES - 1);
    }
    for (size_t i = 0; i < COUNT; i++) {
        haki_tiny_slab_put(tiny, p[i]);
    }
    cr_assert_eq(tiny->nslabs, 1);
    haki_tiny_seal(tiny);
    cr_assert_eq(tiny->nslabs, 0);
    cr_assert_eq(tiny->nsealed, 0);
    tiny_check(tiny);
    tiny_delete(tiny);
}

Test(seal, it_can_be_sealed_again_and_again)
{
    size_t before;

    for (unsigned round = 0; round < 4; round++) {
        for (size_t i = round; i < OBJECTS / 5; i += 4) {
            world.p[i] = take(&world, size_of(i));
            unit_fill(world.p[i], size_of(i), (unsigned)i);
        }
        before = sealed_bytes();
        hak_seal();
        cr_assert_gt(sealed_bytes(), before);
        check(haki_self);
    }
    world.count = OBJECTS / 5;
    verify(&world);
    drop_all(&world);
    cr_assert_eq(sealed_bytes(), 0);
    check(haki_self);
}

/* As a child's child's child: nobody has counted what was in the bins. */
Test(seal, there_is_room_for_stale_lists)
{
    hak_heap *heap = hak_heap_new(NULL);
    struct hak_tiny *tiny = &heap->tiny;
    void *p[8 * HAK_TINY_CLASSES], *freed[HAK_TINY_CLASSES];
    uint32_t most = 0;

    tiny->allow.extra = HAK_EXTRA_MOST; /* what it frees stays in its bins */
    for (size_t round = 0; round < 8; round++) {
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            p[round * HAK_TINY_CLASSES + c] = haki_tiny_alloc(tiny, c);
            freed[c] = haki_tiny_alloc(tiny, c);
        }
        for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
            haki_tiny_free(tiny, c, freed[c]);
        }
        haki_tiny_seal(tiny);
        most = haki_max(most, tiny->nstale);
        tiny_check(tiny);
    }
    for (size_t i = 0; i < 8 * HAK_TINY_CLASSES; i++) {
        hak_free(p[i]);
    }
    hak_heap_trim(heap);
    cr_assert_gt(most, HAK_TINY_STALE / 2);
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(tiny->nstale, 0);
    hak_heap_delete(heap);
}

Test(seal, runs_in_the_cache_go_back)
{
    for (int i = 0; i < 100; i++) { /* until the heap knows that it needs it */
        hak_free(hak_malloc(200000));
    }
    cr_assert_eq(haki_self->runs->held, 49);
    hak_seal();
    cr_assert_eq(haki_self->runs->held, 0);
    cr_assert_eq(unit_stats().ace_held_bytes, 0);
}

/* A packed heap: its slabs stay, sealed, to the end. */
Test(seal, packed_slabs_are_sealed)
{
    hak_heap *heap = hak_heap_new(NULL);
    struct hak_tiny *tiny = &heap->tiny;
    void *p[HAK_TINY_CLASSES], *freed;

    tiny->packed = true;
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        p[c] = haki_tiny_alloc(tiny, c);
    }
    freed = haki_tiny_alloc(tiny, 5);
    haki_tiny_free(tiny, 5, freed);
    haki_tiny_seal(tiny);
    cr_assert(haki_range_sealed((size_t)tiny->packed_at[0] << HAK_SLAB_SHIFT));
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        void *other = haki_tiny_alloc(tiny, c);

        cr_assert_not(in_sealed(other));
        haki_tiny_free(tiny, c, other);
        cr_assert_eq(haki_tiny_live(tiny, c), 1);
        cr_assert_eq(hak_usable_size(p[c]), haki_tiny_size[c]);
        hak_free(p[c]); /* of the thread's heap or none: another's, to it */
    }
    hak_heap_trim(heap);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        cr_assert_eq(haki_tiny_live(tiny, c), 0);
    }
    cr_assert(haki_range_sealed((size_t)tiny->packed_at[0] << HAK_SLAB_SHIFT));
    hak_heap_delete(heap);
    hak_trim();
    cr_assert_eq(unit_stats().slabs, 0);
}

Test(seal, the_limit_of_a_sealed_heap_holds)
{
    hak_heap_config config = {sizeof(config), 64 * HAK_KIB, NULL};
    hak_heap *heap = hak_heap_new(&config);
    void *p[64];

    for (size_t i = 0; i < 64; i++) {
        p[i] = hak_heap_malloc(heap, 1024);
        cr_assert_not_null(p[i]);
    }
    hak_heap_seal(heap);
    cr_assert_eq(hak_heap_live(heap), 64 * HAK_KIB);
    cr_assert_null(hak_heap_malloc(heap, 1024));
    hak_free(p[0]); /* comes in as another thread's */
    cr_assert_not_null(hak_heap_malloc(heap, 1024));
    hak_heap_free(heap, p[1]);
    cr_assert_not_null(hak_heap_malloc(heap, 1024));
    cr_assert_null(hak_heap_malloc(heap, 1));
    cr_assert_eq(hak_heap_live(heap), 64 * HAK_KIB);
    hak_heap_delete(heap);
}

/* Huge pages begin anew: a worker that needs little gets little. */
Test(seal, a_sealed_process_populates_as_a_small_one)
{
    uint64_t before;

    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    for (size_t i = 0; i < 20000; i++) {
        world.p[i] = hak_malloc(1000);
    }
    cr_assert_gt(unit_stats().resident_bytes, 16 * HAK_MIB);
    hak_seal();
    before = unit_stats().resident_bytes;
    for (size_t i = 0; i < 6000; i++) {
        uint64_t now = unit_stats().resident_bytes;

        cr_assert_leq(now - before, HAK_SLAB_SIZE);
        before = now;
        cr_assert_not_null(hak_malloc(1000));
    }
}

/* ---- other threads ------------------------------------------------------------- */

/* Frees what is left of every other object. */
static void *free_odd(void *arg)
{
    for (size_t i = 1; i < world.count; i += 2) {
        if (world.p[i] != NULL) {
            NEED(unit_filled(world.p[i], size_of(i), (unsigned)i));
            hak_free(world.p[i]);
        }
    }
    return arg;
}

Test(seal, frees_by_other_threads_write_to_no_page_and_come_in)
{
    SKIP_IF_HARD();
    build(&world);
    hak_seal();
    protect(true);
    unit_in_thread(free_odd, NULL);
    check(haki_self);
    hak_trim();
    check(haki_self);
    protect(false);
    for (size_t i = 1; i < world.count; i += 2) {
        world.p[i] = NULL;
    }
    verify(&world);
    drop_all(&world);
    hak_trim();
    unit_expect_none_live();
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().slabs, 0);
}

/* A slab's descriptor is what the slab's last lane has left there. */
Test(seal, frees_by_others_are_counted_from_0)
{
    enum { RUNS = 30 };
    void *runs[RUNS];

    for (size_t i = 0; i < RUNS; i++) {
        runs[i] = hak_malloc(unit_ask(14 * HAK_PAGE));
    }
    for (size_t i = 0; i < RUNS; i++) {
        hak_free(runs[i]);
    }
    hak_trim();
    cr_assert_eq(unit_stats().ace_held_bytes, 0);
    build(&world);
    hak_seal();
    unit_in_thread(free_odd, NULL);
    for (size_t i = 0; i < world.count; i += 2) {
        drop_at(&world, i);
    }
    hak_trim();
    cr_assert_eq(sealed_bytes(), 0);
    unit_expect_none_live();
}

/* The owner frees and seals while the other thread frees. */
Test(seal, two_threads_free_into_sealed_slabs_at_once)
{
    pthread_t other;

    for (size_t round = 0; round < unit_scale(20, 3); round++) {
        build(&world);
        if (round % 2 == 0) {
            hak_seal();
        }
        other = unit_start(free_odd, NULL);
        for (size_t i = 0; i < world.count; i += 2) {
            drop_at(&world, i);
            if (i % 1000 == 0) {
                hak_seal();
            }
            hak_free(hak_malloc(size_of(i)));
        }
        unit_join(other);
        memset(world.p, 0, sizeof(world.p));
        hak_trim();
        check(haki_self);
        unit_expect_none_live();
        cr_assert_eq(sealed_bytes(), 0);
    }
}

/* What was on its way when the heap was sealed is taken in all the same. */
static void *free_few(void *arg)
{
    for (size_t i = 0; i < 100; i++) {
        hak_free(world.p[i]);
    }
    return arg;
}

Test(seal, blocks_in_the_inbox_are_counted)
{
    world.heap = hak_heap_new(NULL);
    for (size_t i = 0; i < 200; i++) {
        world.p[i] = take(&world, 500);
    }
    unit_in_thread(free_few, NULL);
    cr_assert_not_null(atomic_load(&world.heap->tiny.inbox));
    hak_heap_seal(world.heap);
    tiny_check(&world.heap->tiny);
    cr_assert_null(atomic_load(&world.heap->tiny.inbox));
    cr_assert_eq(hak_heap_live(world.heap), 100 * 512);
    for (size_t i = 100; i < 200; i++) {
        drop(&world, world.p[i]);
    }
    cr_assert_eq(sealed_bytes(), 0);
    hak_heap_delete(world.heap);
}

static void *build_and_end(void *arg)
{
    build(&world);
    return arg;
}

static void *build_seal_and_end(void *arg)
{
    build(&world);
    hak_seal();
    return arg;
}

static void *churn_and_end(void *arg)
{
    churn(&world, 3000);
    check(haki_self);
    return arg;
}

/* A parked heap: sealed before its thread ended or after, adopted, freed. */
static void parked(void *(*run)(void *))
{
    hak_free(hak_malloc(1));
    unit_in_thread(run, NULL);
    hak_seal();
    cr_assert_gt(sealed_bytes(), 0);
    for (size_t i = 0; i < world.count; i++) {
        cr_assert(world.p[i] == NULL || in_sealed(world.p[i]));
    }
    unit_in_thread(churn_and_end, NULL); /* adopts it */
    verify(&world);
    drop_all(&world);
    cr_assert_eq(sealed_bytes(), 0, "it is given back for the heap");
    hak_trim();
    unit_expect_none_live();
    cr_assert_eq(unit_stats().slabs, 0);
    cr_assert_eq(unit_stats().heaps_parked, 0, "and has ended");
}

Test(seal, the_heap_of_a_thread_that_has_ended_is_sealed)
{
    parked(build_and_end);
}

Test(seal, a_sealed_heap_outlives_its_thread)
{
    parked(build_seal_and_end);
}

static void *make_seal_and_end(void *arg)
{
    for (size_t i = 0; i < 2000; i++) {
        world.p[i] = hak_malloc(100);
    }
    hak_seal();
    return arg;
}

Test(seal, a_slab_of_a_parked_heap_is_given_back_with_its_last_block)
{
    hak_free(hak_malloc(1));
    unit_in_thread(make_seal_and_end, NULL);
    for (size_t i = 0; i < 2000; i++) {
        cr_assert_gt(sealed_bytes(), 0);
        hak_free(world.p[i]);
    }
    cr_assert_eq(sealed_bytes(), 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
}

/* ---- fork --------------------------------------------------------------------- */

/* A fork whose child ends when it crashes or hangs. */
static pid_t start_child(void)
{
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        alarm(100);
    }
    return pid;
}

/* In a child: as expect_child. */
static void need_child(pid_t pid)
{
    int status;

    NEED(pid >= 0);
    NEED(waitpid(pid, &status, 0) == pid);
    NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void expect_child(pid_t pid)
{
    int status;

    NEED(pid >= 0);
    NEED(waitpid(pid, &status, 0) == pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x",
              (unsigned)status);
}

static void want_seal(const char *value)
{
    setenv("HAKMEM_SEAL_FORK", value, 1);
    haki_option(HAK_OPT_seal_fork);
    haki_option_test_reload();
}

Test(seal, a_child_is_sealed_by_the_option)
{
    pid_t pid;

    want_seal("1");
    build(&world);
    pid = start_child();
    if (pid == 0) {
        for (size_t i = 0; i < world.count; i++) {
            NEED(world.p[i] == NULL || in_sealed(world.p[i]));
        }
        check(haki_self);
        NEED(haki_self->tiny.nstale > 0); /* the free blocks in bins */
        if (!HAK_HARD) {
            NEED(protect(true) > 10);
        }
        free_some(&world);
        protect(!HAK_HARD);
        churn(&world, 5000);
        protect(false);
        verify(&world);
        drop_all(&world);
        NEED(haki_self->tiny.nstale == 0); /* counted by and by */
        NEED(sealed_bytes() == 0);
        _exit(0);
    }
    expect_child(pid);
    cr_assert_eq(sealed_bytes(), 0, "the parent is not");
    cr_assert_not(in_sealed(world.p[1]));
    drop_all(&world);
    check(haki_self);
}

Test(seal, a_child_is_not_sealed_without_the_option)
{
    pid_t pid;

    build(&world);
    pid = start_child();
    if (pid == 0) {
        NEED(sealed_bytes() == 0);
        _exit(0);
    }
    expect_child(pid);
}

Test(seal, a_child_is_sealed_because_an_adapter_asked)
{
    pid_t pid;

    want_seal("0");
    haki_thread_seal_forks();
    build(&world);
    pid = start_child();
    if (pid == 0) {
        NEED(in_sealed(world.p[1]));
        churn(&world, 1000);
        drop_all(&world);
        NEED(sealed_bytes() == 0);
        _exit(0);
    }
    expect_child(pid);
    cr_assert_not(in_sealed(world.p[1]));
}

/* The fork itself writes to no page of a slab that it seals. */
Test(seal, sealing_a_child_writes_to_no_page)
{
    const struct hak_heap *heap;
    pid_t pid;

    SKIP_IF_HARD();
    want_seal("1");
    build(&world);
    heap = haki_self;
    for (uint32_t n = heap->tiny.all; n != HAK_NO_SLAB;
         n = haki_range_slab(n)->all_next) {
        NEED(mprotect(haki_range_slab_start(n), HAK_SLAB_SIZE, PROT_READ) == 0);
    }
    pid = start_child();
    if (pid == 0) {
        churn(&world, 1000);
        _exit(0);
    }
    expect_child(pid);
}

Test(seal, heaps_made_by_hand_are_sealed_in_a_child_if_they_ask_for_it)
{
    hak_heap *other = hak_heap_new(NULL);
    void *p = hak_heap_malloc(other, 100);
    pid_t pid;

    want_seal("0");
    world.heap = hak_heap_new(NULL);
    build(&world);
    hak_heap_seal_at_fork(world.heap, true);
    pid = start_child();
    if (pid == 0) {
        NEED(!in_sealed(p));
        NEED(in_sealed(world.p[1]));
        churn(&world, 5000);
        drop_all(&world);
        NEED(sealed_bytes() == 0);
        NEED(hak_heap_live(world.heap) == 0);
        hak_heap_delete(world.heap);
        hak_heap_delete(other);
        NEED(unit_stats().slabs == 0);
        _exit(0);
    }
    expect_child(pid);
    cr_assert_not(in_sealed(world.p[1]));
    hak_heap_seal_at_fork(world.heap, false);
    want_seal("1");
    pid = start_child();
    if (pid == 0) {
        NEED(!in_sealed(world.p[1]));
        _exit(0);
    }
    expect_child(pid);
}

/* As if another thread had been at work on it. */
Test(seal, a_heap_that_was_caught_in_a_slow_path_is_not_sealed)
{
    pid_t pid;

    world.heap = hak_heap_new(NULL);
    build(&world);
    hak_heap_seal_at_fork(world.heap, true);
    haki_tiny_busy(&world.heap->tiny, true);
    pid = start_child();
    if (pid == 0) {
        NEED(sealed_bytes() == 0);
        _exit(0);
    }
    expect_child(pid);
    haki_tiny_busy(&world.heap->tiny, false);
    haki_pool_busy(world.heap->pool, true);
    pid = start_child();
    if (pid == 0) {
        NEED(sealed_bytes() == 0);
        _exit(0);
    }
    expect_child(pid);
}

static void *run_on(void *arg)
{
    pthread_barrier_t *barrier = arg;

    build(&world);
    pthread_barrier_wait(barrier); /* built */
    pthread_barrier_wait(barrier); /* forked */
    return NULL;
}

/* The other threads' heaps are sealed, parked, adopted and freed. */
Test(seal, the_heaps_of_other_threads_are_sealed_in_a_child)
{
    pthread_barrier_t barrier;
    pthread_t thread;
    pid_t pid;

    UNIT_SKIP_IF_GCC_TSAN();
    want_seal("1");
    pthread_barrier_init(&barrier, NULL, 2);
    hak_free(hak_malloc(1));
    thread = unit_start(run_on, &barrier);
    pthread_barrier_wait(&barrier);
    pid = start_child();
    if (pid == 0) {
        NEED(unit_stats().heaps_parked == 1);
        NEED(in_sealed(world.p[1]));
        unit_in_thread(churn_and_end, NULL); /* adopts it */
        verify(&world);
        drop_all(&world);
        hak_trim();
        NEED(sealed_bytes() == 0);
        NEED(unit_stats().tiny_live_bytes == 0);
        _exit(0);
    }
    expect_child(pid);
    pthread_barrier_wait(&barrier);
    unit_join(thread);
}

/* Their pages would be copied, too, if the child got them. */
Test(seal, a_sealed_child_drops_the_pages_of_free_slabs)
{
    uint64_t purged;
    pid_t pid;

    want_seal("1");
    build(&world);
    drop_all(&world);
    purged = unit_stats().purged_bytes;
    pid = start_child();
    if (pid == 0) {
        NEED(unit_stats().purged_bytes > purged);
        churn(&world, 1000);
        check(haki_self);
        _exit(0);
    }
    expect_child(pid);
    cr_assert_eq(unit_stats().purged_bytes, purged, "the parent keeps its own");
}

static atomic_bool stop;

static void *run_hard(void *arg)
{
    struct world *mine = calloc(1, sizeof(*mine));
    size_t rounds = 0;

    NEED(mine != NULL);
    while (!atomic_load(&stop)) {
        if (++rounds % 8 == 0) {
            build(mine);
            drop_all(mine);
        }
        churn(mine, 3000);
    }
    free(mine);
    return arg;
}

/* Heaps are caught at any instruction. */
Test(seal, forks_while_other_threads_run_hard)
{
    pthread_t threads[3];

    want_seal("1");
    for (size_t i = 0; i < 3; i++) {
        threads[i] = unit_start(run_hard, NULL);
    }
    build(&world);
    for (size_t round = 0; round < unit_scale(60, 5); round++) {
        pid_t pid = start_child();

        if (pid == 0) {
            check(haki_self);
            churn(&world, 500);
            drop_all(&world);
            hak_trim(); /* the parked heaps as well */
            check(haki_self);
            NEED(haki_self->tiny.nsealed == 0);
            _exit(0);
        }
        expect_child(pid);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 3; i++) {
        unit_join(threads[i]);
    }
}

/* A child of a sealed child, whose own memory is sealed in turn. */
Test(seal, a_grandchild_is_sealed)
{
    static char *mine[1000];
    pid_t pid;

    want_seal("1");
    build(&world);
    pid = start_child();
    if (pid == 0) {
        for (size_t i = 0; i < 1000; i++) {
            mine[i] = hak_malloc(i);
        }
        pid = start_child();
        if (pid == 0) {
            for (size_t i = 0; i < 1000; i++) {
                NEED(in_sealed(mine[i]));
            }
            churn(&world, 2000);
            for (size_t i = 0; i < 1000; i++) {
                hak_free(mine[i]);
            }
            check(haki_self);
            drop_all(&world);
            NEED(sealed_bytes() == 0);
            _exit(0);
        }
        need_child(pid);
        drop_all(&world);
        _exit(0);
    }
    expect_child(pid);
}

/* Kilobytes that the process shares with nobody. */
static size_t private_kb(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[200];
    size_t kb = 0;

    NEED(file != NULL);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Private_Dirty: %zu", &kb) == 1) {
            break;
        }
    }
    fclose(file);
    return kb;
}

/* 16 MB of objects with holes; the child frees and allocates 1 MB. */
static size_t private_of_child(bool sealed)
{
    enum { COUNT = 160000, SIZE = 100 };
    static char *p[COUNT];
    int pipes[2];
    size_t kb = 0;
    pid_t pid;

    NEED(pipe(pipes) == 0);
    for (size_t i = 0; i < COUNT; i++) {
        p[i] = hak_malloc(SIZE);
        memset(p[i], 1, SIZE);
    }
    for (size_t i = 0; i < COUNT; i += 10) {
        hak_free(p[i]);
    }
    if (sealed) {
        hak_seal();
    }
    pid = start_child();
    if (pid == 0) {
        size_t before = private_kb();

        for (size_t i = 1; i < COUNT; i += 40) {
            hak_free(p[i]);
        }
        for (size_t i = 0; i < 10000; i++) {
            memset(hak_malloc(SIZE), 2, SIZE);
        }
        kb = private_kb() - before;
        NEED(write(pipes[1], &kb, sizeof(kb)) == sizeof(kb));
        _exit(0);
    }
    expect_child(pid);
    NEED(read(pipes[0], &kb, sizeof(kb)) == sizeof(kb));
    close(pipes[0]);
    close(pipes[1]);
    return kb;
}

Test(seal, a_child_of_a_sealed_parent_copies_few_pages)
{
    size_t kb;

    UNIT_SKIP_IF_WATCHED("shadow memory counts as well");
    kb = private_of_child(true);
    cr_assert_leq(kb, HAK_HARD ? 18000 : 1500, "%zu KB", kb);
}

Test(seal, a_child_that_fills_holes_copies_most_pages)
{
    size_t kb;

    UNIT_SKIP_IF_WATCHED("shadow memory counts as well");
    kb = private_of_child(false);
    cr_assert_geq(kb, 8000, "%zu KB", kb);
}

/* ---- misuse -------------------------------------------------------------------- */

static void *sealed_block(size_t size)
{
    void *p = hak_malloc(size);
    void *other = hak_malloc(size);

    NEED(p != NULL && other != NULL);
    hak_seal();
    NEED(in_sealed(p) && in_sealed(other));
    return p;
}

static void free_middle(void *p)
{
    hak_free((char *)p + 16);
}

Test(seal, the_middle_of_a_sealed_block_is_fatal)
{
    char *p = sealed_block(unit_ask(64));
    char *large = sealed_block(unit_ask(2048));

    unit_expect_fatal(free_middle, p,
                      "hakmem: fatal: hak_free(%p): the middle of a block of "
                      "64 bytes\n",
                      (void *)(p + 16));
    unit_expect_fatal(free_middle, large,
                      "hakmem: fatal: hak_free(%p): the middle of a block of "
                      "2048 bytes\n",
                      (void *)(large + 16));
}

static void free_sized_more(void *p)
{
    hak_free_sized(p, unit_size(2000));
}

Test(seal, a_size_larger_than_the_sealed_block_is_fatal)
{
    char *p = sealed_block(unit_ask(64));
    unsigned has = (unsigned)unit_usable(64, unit_ask(64));

    unit_expect_fatal(free_sized_more, p,
                      "hakmem: fatal: hak_free_sized(%p, 2000): the block has "
                      "only %u bytes\n",
                      (void *)p, has);
}

static void free_twice(void *p)
{
    hak_free(p);
    hak_free(p);
}

Test(seal, a_sealed_pool_block_freed_twice_is_fatal)
{
    char *p = sealed_block(unit_ask(2048));

    unit_expect_fatal(free_twice, p,
                      "hakmem: fatal: hak_free(%p): a block that is free\n",
                      (void *)p);
}

Test(seal, a_sealed_tiny_block_freed_twice_is_fatal_in_the_hardened_build)
{
    char *p = sealed_block(unit_ask(64));

    if (!HAK_HARD) {
        cr_skip("other builds do not look for it");
    }
    unit_expect_fatal(free_twice, p,
                      "hakmem: fatal: hak_free(%p): a block that is free "
                      "already\n",
                      (void *)p);
}

static void free_in_other_heap(void *p)
{
    hak_heap_free(hak_heap_new(NULL), p);
}

Test(seal, a_sealed_block_of_another_heap_is_fatal)
{
    char *p = sealed_block(unit_ask(64));

    unit_expect_fatal(free_in_other_heap, p,
                      "hakmem: fatal: hak_heap_free(%p): a block of another "
                      "heap\n",
                      (void *)p);
}
