/*
 * seal_fork.c - tests of children whose memory is sealed: who asked for it,
 * which heaps, among running threads, and how few pages they copy.
 */
#include "settings/options.h"
#include "heap/thread.h"
#include "seal_world.h"

TestSuite(seal_fork, .timeout = 300);

/* A fork whose child ends when it crashes or hangs. */
static pid_t start_child(void)
{
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        alarm(250);
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

Test(seal_fork, a_child_is_sealed_by_the_option)
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

Test(seal_fork, a_child_is_not_sealed_without_the_option)
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

Test(seal_fork, a_child_is_sealed_because_an_adapter_asked)
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
Test(seal_fork, sealing_a_child_writes_to_no_page)
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

Test(seal_fork, explicit_heaps_are_sealed_in_a_child_if_they_ask_for_it)
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
Test(seal_fork, a_heap_that_was_caught_in_a_slow_path_is_not_sealed)
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
Test(seal_fork, the_heaps_of_other_threads_are_sealed_in_a_child)
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
Test(seal_fork, a_sealed_child_drops_the_pages_of_free_slabs)
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
Test(seal_fork, forks_while_other_threads_run_hard)
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
Test(seal_fork, a_grandchild_is_sealed)
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

Test(seal_fork, a_child_of_a_sealed_parent_copies_few_pages)
{
    size_t kb;

    UNIT_SKIP_IF_WATCHED("shadow memory counts as well");
    kb = private_of_child(true);
    cr_assert_leq(kb, HAK_HARD ? 18000 : 1500, "%zu KB", kb);
}

Test(seal_fork, a_child_that_fills_holes_copies_most_pages)
{
    size_t kb;

    UNIT_SKIP_IF_WATCHED("shadow memory counts as well");
    kb = private_of_child(false);
    cr_assert_geq(kb, 8000, "%zu KB", kb);
}
