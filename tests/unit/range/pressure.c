/*
 * pressure.c - tests of HAKMEM_LIMIT: it is not exceeded by any lane and what it
 * refuses is refused. Each case is a process of its own, since the environment is
 * read once. A container's limit is in container.c.
 */
#include "range/pressure.h"

#include "front/lane.h"
#include "upkeep/relief.h"
#include "heap/lend.h"
#include "heap/thread.h"
#include "limit_fill.h"
#include "unit.h"

TestSuite(pressure, .timeout = 300);

/* ---- HAKMEM_LIMIT ---------------------------------------------------------- */

/* One size after another takes all that there is, and nothing more. */
static void fills_up(void *arg)
{
    size_t before;

    (void)arg;
    set_limit("40M");
    memset(blocks, 1, sizeof(blocks));
    before = unit_rss();
    for (size_t i = 0; i < SIZES; i++) {
        hak_stats_t stats;

        errno = 0;
        fill(sizes[i]);
        stats = unit_stats();
        NEED(stats.limit_bytes == LIMIT);
        NEED(stats.limit_used_bytes <= LIMIT);
        /* It is used up but for what a block and size classes leave. */
        NEED(count * sizes[i] >= LIMIT - LIMIT / 8 - sizes[i]);
        NEED(unit_rss() <= before + LIMIT + 4 * HAK_MIB);
        NEED(stats.system_live == 0);
        NEED(stats.limit_refusals == i + 1);
        NEED(stats.limit_purges > 0);
        drop_all();
    }
}

Test(pressure, the_limit_is_not_exceeded_and_all_of_it_can_be_had)
{
    struct unit_child child;

    UNIT_SKIP_IF_WATCHED("resident memory is the watcher's");
    unit_child(&child, fills_up, NULL);
    cr_expect(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0,
              "%#x: %s", (unsigned)child.status, child.said);
    cr_expect(strncmp(child.said, "hakmem: HAKMEM_LIMIT: ", 22) == 0 &&
                  strstr(child.said, " of 41943040 bytes are in use, a request "
                                     "for ") != NULL &&
                  strchr(child.said, '\n') ==
                      child.said + strlen(child.said) - 1,
              "one line: %s", child.said);
}

/* What was freed of one size must not stand in the way of another. */
static void changes_sizes(void *arg)
{
    (void)arg;
    set_limit("40M");
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t k = 0; k < SIZES; k++) {
            size_t wish = LIMIT / 10 * 8 / sizes[k];

            fill(sizes[i]);
            drop_all();
            for (; count < wish; count++) {
                blocks[count] = hak_malloc(unit_ask(sizes[k]));
                NEED(blocks[count] != NULL);
            }
            drop_all();
        }
    }
}

Test(pressure, what_one_size_left_free_another_can_have)
{
    unit_expect_ok(changes_sizes, NULL);
}

/* What a thread has freed that sleeps now is had, by who was refused before. */
enum { LEFT = 50000 };

static atomic_int step;
static struct hak_heap *sleeper;

static void no_work(struct hak_heap *heap)
{
    (void)heap;
}

static void *frees_and_sleeps(void *arg)
{
    static char *mine[LEFT];

    for (size_t i = 0; i < LEFT; i++) {
        mine[i] = hak_malloc(64);
        NEED(mine[i] != NULL);
    }
    sleeper = haki_thread_own();
    atomic_store(&step, 1);
    while (atomic_load(&step) == 1) {
        usleep(1000);
    }
    for (size_t i = 0; i < LEFT; i++) {
        hak_free(mine[i]);
    }
    atomic_store(&step, 3);
    while (atomic_load(&step) == 3) {
        usleep(1000000);
    }
    return arg;
}

static void had_of_sleeper(void *arg)
{
    pthread_t thread;
    size_t before, tries = 0;

    (void)arg;
    set_limit("40M");
    thread = unit_start(frees_and_sleeps, NULL);
    while (atomic_load(&step) == 0) {
        usleep(1000);
    }
    fill(64);
    before = count;
    for (int refused = 0; refused < 1000;) { /* refused again and again */
        blocks[count] = hak_malloc(64);
        if (blocks[count] == NULL) {
            refused++;
        } else { /* of what the sleeper's heap kept, until it was asleep */
            NEED(++count < before + LEFT / 100);
        }
    }
    before = count;
    atomic_store(&step, 2);
    while (atomic_load(&step) == 2) {
        usleep(1000);
    }
    while (count < before + LEFT - LEFT / 200) {
        char *p = hak_malloc(64);

        if (p == NULL) { /* it was not asleep yet */
            usleep(5000);
            if (++tries == 2000) {
                NEED(!haki_lend(sleeper, no_work)); /* can't be seen here */
                break;
            }
        } else {
            NEED(count < BLOCKS);
            blocks[count++] = p;
        }
    }
    atomic_store(&step, 4);
    unit_join(thread);
    drop_all();
}

Test(pressure, what_a_sleeping_thread_has_freed_can_be_had)
{
    UNIT_SKIP_IF_GCC_TSAN();
    unit_expect_ok(had_of_sleeper, NULL);
}

/* A Huge block and an ACE one grow up to the limit, and come back. */
static void grows(void *arg)
{
    size_t start = *(size_t *)arg, size = start, first;
    char *p, *moved;

    set_limit("40M");
    p = hak_malloc(start);
    NEED(p != NULL);
    unit_fill(p, start, 1);
    first = used();
    while ((moved = hak_realloc(p, size + HAK_MIB)) != NULL) {
        p = moved;
        size += HAK_MIB;
        NEED(used() <= LIMIT && size <= LIMIT);
    }
    NEED(errno == ENOMEM && unit_filled(p, start, 1));
    NEED(size >= LIMIT - 3 * HAK_MIB);
    NEED(unit_stats().system_live == 0);
    NEED(hak_realloc(p, 60 * HAK_MIB) == NULL);
    p = hak_realloc(p, start);
    NEED(p != NULL && unit_filled(p, start, 1));
    hak_trim();
    NEED(used() <= first + HAK_MIB);
    hak_free(p);
}

Test(pressure, a_block_that_grows_meets_the_limit)
{
    static size_t starts[] = {100000, 3000000};

    for (size_t i = 0; i < 2; i++) {
        unit_expect_ok(grows, &starts[i]);
    }
}

static void heap_fills_up(void *arg)
{
    hak_heap *heap;

    (void)arg;
    set_limit("40M");
    heap = hak_heap_new(NULL);
    for (size_t i = 0; i < SIZES; i++) {
        for (count = 0; (blocks[count] = hak_heap_malloc(heap, sizes[i]));) {
            NEED(++count * sizes[i] <= 2 * LIMIT);
        }
        NEED(errno == ENOMEM && used() <= LIMIT);
        NEED(count * sizes[i] >= LIMIT - LIMIT / 8 - sizes[i]);
        NEED(unit_stats().system_live == 0);
        NEED(unit_stats().limit_refusals == i + 1);
        while (count > 0) {
            hak_heap_free(heap, blocks[--count]);
        }
    }
    hak_heap_delete(heap);
}

Test(pressure, explicit_heaps_meet_it_too)
{
    unit_expect_ok(heap_fills_up, NULL);
}

static void *greedy(void *arg)
{
    struct unit_random random = {(size_t)(uintptr_t)arg};
    char **mine = calloc(BLOCKS, sizeof(*mine));
    size_t n = 0;

    do {
        mine[n] = hak_malloc(sizes[unit_below(&random, SIZES)]);
        NEED(used() <= LIMIT + 16 * HAK_MIB); /* charged, then checked */
    } while (mine[n++] != NULL);
    while (n > 0) {
        hak_free(mine[--n]);
    }
    free(mine);
    return NULL;
}

static void threads_fill_up(void *arg)
{
    pthread_t threads[4];

    (void)arg;
    set_limit("40M");
    for (size_t i = 0; i < 4; i++) {
        threads[i] = unit_start(greedy, (void *)(uintptr_t)(i + 1));
    }
    for (size_t i = 0; i < 4; i++) {
        unit_join(threads[i]);
    }
    hak_trim();
    NEED(used() <= HAK_MIB);
}

Test(pressure, threads_that_take_all_together)
{
    threads_fill_up(NULL); /* threads in a child are too much for one checker */
}

/* Blocks of all sizes come, grow, shrink and go; what was charged goes too. */
static void balances(void *arg)
{
    enum { SLOTS = 100 };
    struct unit_random random = {7};

    (void)arg;
    hak_free(hak_malloc(1));
    for (size_t i = unit_scale(60000, 3000); i > 0; i--) {
        size_t slot = unit_below(&random, SLOTS);
        size_t size = sizes[unit_below(&random, SIZES)];

        size = size / 2 + unit_below(&random, size);
        if (blocks[slot] == NULL) {
            blocks[slot] = hak_malloc(size);
        } else if (unit_below(&random, 2) == 0) {
            blocks[slot] = hak_realloc(blocks[slot], size);
        } else {
            hak_free(blocks[slot]);
            blocks[slot] = NULL;
        }
    }
    for (size_t slot = 0; slot < SLOTS; slot++) {
        hak_free(blocks[slot]);
    }
    hak_trim();
    NEED(atomic_load(&haki_pressure.charged[HAK_CHARGED_ACE]) == 0);
    NEED(atomic_load(&haki_pressure.charged[HAK_CHARGED_HUGE]) == 0);
    NEED(used() == unit_stats().resident_bytes);
}

Test(pressure, what_is_charged_is_given_back)
{
    unit_expect_ok(balances, NULL);
}

/* A child has its parent's blocks, and the same limit. */
static void forks(void *arg)
{
    int status;
    pid_t pid;

    (void)arg;
    set_limit("40M");
    blocks[0] = hak_malloc(10 * HAK_MIB);
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        blocks[1] = hak_malloc(20 * HAK_MIB);
        NEED(blocks[1] != NULL && hak_malloc(20 * HAK_MIB) == NULL);
        hak_free(blocks[0]);
        NEED((blocks[0] = hak_malloc(19 * HAK_MIB)) != NULL);
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    NEED(hak_malloc(29 * HAK_MIB) != NULL);
}

Test(pressure, a_forked_child_counts_for_itself)
{
    unit_expect_ok(forks, NULL);
}

/* ---- hak_set_limit --------------------------------------------------------- */

/* `mb` MB are to be had of 64 B blocks, and no more. */
static void have(size_t mb)
{
    fill(64);
    NEED(used() <= mb * HAK_MIB);
    NEED(count * 64 >= mb * HAK_MIB / 8 * 7);
    drop_all();
}

/* `arg`: what HAKMEM_LIMIT says, or NULL; whatever it is, the call holds. */
static void sets(void *arg)
{
    char *p;

    if (arg != NULL) {
        set_limit(arg);
    }
    NEED(hak_limit() == (arg != NULL ? LIMIT : 0));
    NEED(hak_set_limit(20 * HAK_MIB) == (arg != NULL ? LIMIT : 0));
    NEED(hak_limit() == 20 * HAK_MIB);
    have(20);
    haki_pressure_test_look(); /* which does not go back to the option */
    NEED(hak_limit() == 20 * HAK_MIB);
    NEED(hak_set_limit(30 * HAK_MIB) == 20 * HAK_MIB);
    have(30);
    NEED(unit_stats().limit_bytes == 30 * HAK_MIB);
    NEED(hak_set_limit(0) == 30 * HAK_MIB && hak_limit() == 0);
    p = hak_malloc(50 * HAK_MIB);
    NEED(p != NULL);
    /* below what is in use: that stays, nothing is added */
    NEED(hak_set_limit(1) == 0);
    memset(p, 1, 50 * HAK_MIB);
    NEED(hak_malloc(3 * HAK_MIB) == NULL && errno == ENOMEM);
    NEED(hak_realloc(p, 60 * HAK_MIB) == NULL);
    hak_free(p);
    NEED(hak_set_limit(20 * HAK_MIB) == 1);
    have(20);
}

Test(pressure, a_limit_set_by_the_program_holds_instead_of_the_variable)
{
    static char text[] = "40M";
    struct unit_child child;

    for (int i = 0; i < 2; i++) {
        unit_child(&child, sets, i == 0 ? NULL : text);
        cr_expect(WIFEXITED(child.status) && WEXITSTATUS(child.status) == 0,
                  "%#x: %s", (unsigned)child.status, child.said);
    }
}
