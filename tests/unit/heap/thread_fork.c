/*
 * thread_fork.c - tests of thread heaps in forked children: other threads were at work,
 * their heaps are parked, adopted and freed.
 */
#include "heap/thread.h"
#include "mail.h"
#include "range/slots.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(thread_fork, .timeout = 300);

enum { SHARED = 2000 };

static char *shared[SHARED]; /* allocated by threads that run on */
static atomic_bool stop;

/* Now and then a size of the lanes above Tiny. */
static size_t random_size(struct unit_random *random)
{
    switch (unit_below(random, 200)) {
    case 0: return 3 * HAK_MIB;
    case 1:
    case 2: return 53000 + unit_below(random, 200000);
    case 3:
    case 4: return unit_below(random, 53000);
    default: return unit_below(random, 1500);
    }
}

static void *run_hard(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *mine[200] = {NULL};

    for (size_t i = ((uintptr_t)arg - 1) * SHARED / 4;
         i < (uintptr_t)arg * SHARED / 4; i++) {
        shared[i] = hak_malloc(i % 1024 + 1);
        unit_fill(shared[i], i % 1024 + 1, (unsigned)i);
    }
    pthread_barrier_wait(&barrier);
    while (!atomic_load(&stop)) {
        size_t k = unit_below(&random, 200);
        hak_heap *heap;

        hak_free(mine[k]);
        mine[k] = hak_malloc(random_size(&random));
        NEED(mine[k] != NULL);
        hak_free(atomic_exchange(&mail[unit_below(&random, MAIL)],
                                 hak_malloc(unit_below(&random, 300))));
        if (k == 0) {
            heap = hak_heap_new(NULL);
            NEED(hak_heap_malloc(heap, 50) != NULL);
            hak_heap_delete(heap);
            hak_trim();
        }
    }
    for (size_t k = 0; k < 200; k++) {
        hak_free(mine[k]);
    }
    return NULL;
}

/* Everything a child may do with what it got and with its own. */
static void use_in_child(void)
{
    static char *mine[3000];
    uint32_t count = haki_range_heap_count();

    for (size_t i = 0; i < SHARED; i++) {
        NEED(unit_filled(shared[i], i % 1024 + 1, (unsigned)i));
        hak_free(shared[i]);
    }
    for (size_t i = 0; i < 3000; i++) {
        mine[i] = hak_malloc(i % 1100);
        NEED(mine[i] != NULL);
        unit_fill(mine[i], i % 1100, (unsigned)i);
    }
    for (size_t i = 0; i < 3000; i++) {
        NEED(unit_filled(mine[i], i % 1100, (unsigned)i));
        hak_free(mine[i]);
    }
    for (size_t i = 0; i < 8; i++) {
        mine[i] = hak_malloc(1000 * i * i * i * i);
        NEED(mine[i] != NULL && hak_owns(mine[i]));
        unit_fill(mine[i], 1000 * i * i * i * i, (unsigned)i);
    }
    for (size_t i = 0; i < 8; i++) {
        NEED(unit_filled(mine[i], 1000 * i * i * i * i, (unsigned)i));
        hak_free(mine[i]);
    }
    hak_heap_delete(hak_heap_new(NULL));
    hak_trim();
    NEED(unit_stats().heaps >= 1);
    NEED(haki_range_heap_count() <= count + 1);
    tiny_check(&haki_self->tiny);
    for (uint32_t id = 1; id <= count; id++) {
        struct hak_heap *heap = haki_range_heap(id);

        if (atomic_load(&heap->state) == HAK_HEAP_PARKED) {
            tiny_check(&heap->tiny);
        }
    }
}

static void fork_again(void *arg)
{
    pid_t pid;
    int status;

    (void)arg;
    use_in_child();
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        hak_free(hak_malloc(100));
        hak_trim();
        NEED(unit_stats().heaps >= 1);
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    hak_free(hak_malloc(100));
}

Test(thread_fork, fork_while_other_threads_run_hard)
{
    pthread_t threads[4];

    hak_free(hak_malloc(1));
    pthread_barrier_init(&barrier, NULL, 5);
    for (uintptr_t i = 0; i < 4; i++) {
        threads[i] = unit_start(run_hard, (void *)(i + 1));
    }
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < unit_scale(50, 5); i++) {
        unit_expect_ok(fork_again, NULL);
        hak_free(hak_malloc(i * 30));
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 4; i++) {
        unit_join(threads[i]);
    }
    for (size_t i = 0; i < SHARED; i++) {
        cr_assert(unit_filled(shared[i], i % 1024 + 1, (unsigned)i));
        hak_free(shared[i]);
    }
    for (size_t i = 0; i < MAIL; i++) {
        hak_free(atomic_load(&mail[i]));
    }
    hak_trim();
    unit_expect_none_live();
}

/* In a child the heaps of threads that are not there are adopted. */
static void *sleep_with_blocks(void *arg)
{
    for (size_t i = 0; i < 100; i++) {
        shared[i] = hak_malloc(64);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return arg;
}

static void expect_parked(void *arg)
{
    (void)arg;
    NEED(unit_stats().heaps == 1 && unit_stats().heaps_parked == 1);
    for (size_t i = 0; i < 100; i++) {
        hak_free(shared[i]);
    }
    hak_trim();
    NEED(unit_stats().tiny_live_bytes == 0 && unit_stats().slabs == 0);
}

static void expect_lost(void *arg)
{
    struct hak_heap *heap = haki_range_heap(2);

    (void)arg;
    NEED(atomic_load(&heap->state) == HAK_HEAP_LOST);
    NEED(unit_stats().heaps_parked == 0);
    for (size_t i = 0; i < 100; i++) {
        hak_free(shared[i]); /* must not touch the lists */
    }
    hak_trim();
    NEED(heap->tiny.remote_frees == 0);
    NEED(atomic_load(&heap->tiny.inbox) != NULL);
}

Test(thread_fork, fork_parks_the_heaps_of_other_threads)
{
    pthread_t thread;
    struct hak_heap *heap;

    hak_free(hak_malloc(1));
    pthread_barrier_init(&barrier, NULL, 2);
    thread = unit_start(sleep_with_blocks, NULL);
    pthread_barrier_wait(&barrier);
    unit_expect_ok(expect_parked, NULL);
    heap = haki_range_heap(2);
    cr_assert_eq(atomic_load(&heap->state), HAK_HEAP_OWNED);
    haki_tiny_busy(&heap->tiny, true); /* as if caught in a slow path */
    unit_expect_ok(expect_lost, NULL);
    haki_tiny_busy(&heap->tiny, false);
    cr_assert_eq(unit_stats().heaps_parked, 0);
    pthread_barrier_wait(&barrier);
    unit_join(thread);
    cr_assert_eq(unit_stats().heaps_parked, 1);
}

/* Blocks of a lane that has a lock, or of the system for size 0. */
static char *get_locked(size_t size)
{
    char *p = size != 0 ? hak_malloc(size)
                        : haki_system_alloc(16, 4000, NULL, HAK_REASON_MEMORY);

    NEED(p != NULL);
    return p;
}

struct locked {
    size_t size;
    char *p; /* got before the fork */
};

static void free_locked(void *arg)
{
    struct locked *locked = arg;

    alarm(250);
    hak_free(locked->p);
    hak_free(get_locked(locked->size));
}

static void *churn_locked(void *arg)
{
    const struct locked *locked = arg;

    while (!atomic_load(&stop)) {
        hak_free(get_locked(locked->size));
    }
    return NULL;
}

static void fork_among_blocks_of(size_t size)
{
    struct locked locked = {size, get_locked(size)};
    pthread_t threads[2];

    for (int i = 0; i < 2; i++) {
        threads[i] = unit_start(churn_locked, &locked);
    }
    for (size_t i = 0; i < unit_scale(100, 20); i++) {
        unit_expect_ok(free_locked, &locked);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        unit_join(threads[i]);
    }
    hak_free(locked.p);
}

Test(thread_fork, fork_among_the_system_s_blocks_alone)
{
    fork_among_blocks_of(0);
}

Test(thread_fork, fork_among_pool_blocks_alone)
{
    fork_among_blocks_of(4000);
}

Test(thread_fork, fork_among_ace_blocks_alone)
{
    fork_among_blocks_of(100000);
}

Test(thread_fork, fork_among_huge_blocks_alone)
{
    fork_among_blocks_of(3 * HAK_MIB);
}

/* Blocks in the outbox of a thread are not sent twice by parent and child. */
static void *fill_outbox(void *arg)
{
    hak_free(hak_malloc(1));
    for (size_t i = 0; i < 30; i++) {
        hak_free(shared[i]);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return arg;
}

static void *adopt(void *arg)
{
    hak_free(hak_malloc(1));
    NEED(haki_self->tiny.id == 2);
    return arg;
}

static void adopt_outbox(void *arg)
{
    (void)arg;
    NEED(unit_stats().heaps_parked == 1);
    unit_in_thread(adopt, NULL);
    NEED(unit_stats().heaps_parked == 0);
    hak_trim();
    NEED(haki_self->tiny.remote_frees == 30);
    tiny_check(&haki_self->tiny);
}

Test(thread_fork, an_adopted_outbox_reaches_its_owner_in_the_child)
{
    UNIT_SKIP_IF_GCC_TSAN();
    pthread_t thread;

    for (size_t i = 0; i < 30; i++) {
        shared[i] = hak_malloc(64);
    }
    pthread_barrier_init(&barrier, NULL, 2);
    thread = unit_start(fill_outbox, NULL);
    pthread_barrier_wait(&barrier);
    unit_expect_ok(adopt_outbox, NULL);
    pthread_barrier_wait(&barrier);
    unit_join(thread);
    hak_trim();
    cr_assert_eq(haki_self->tiny.remote_frees, 30);
    tiny_check(&haki_self->tiny);
}
