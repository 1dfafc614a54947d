/*
 * pressure.c - tests of limits: HAKMEM_LIMIT is not exceeded by any lane and
 * what it refuses is refused; near a limit free memory goes back at once. The
 * container is a tree of files. Each case is a process of its own, since the
 * environment is read once.
 */
#include "range/pressure.h"

#include <sys/stat.h>
#include <time.h>

#include "front/lane.h"
#include "upkeep/relief.h"
#include "heap/lend.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(pressure, .timeout = 300);

enum { BLOCKS = 1000000 };

#define LIMIT (40 * HAK_MIB)

static char *blocks[BLOCKS];
static size_t count;

static const size_t sizes[] = {64, 1000, 5000, 40000, 100000, 900000, 3000000};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static size_t used(void)
{
    return unit_stats().limit_used_bytes;
}

/* Blocks of `size` bytes, written to, until there is none. */
static void fill(size_t size)
{
    char *p;

    for (count = 0; (p = hak_malloc(unit_ask(size))) != NULL; count++) {
        NEED(count < BLOCKS && count * size <= 2 * LIMIT);
        memset(p, 1, unit_ask(size));
        blocks[count] = p;
    }
    NEED(errno == ENOMEM);
}

static void drop_all(void)
{
    while (count > 0) {
        hak_free(blocks[--count]);
    }
}

static void set_limit(const char *text)
{
    setenv("HAKMEM_LIMIT", text, 1);
    haki_option_test_reload();
}

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
    for (int i = 0; i < 1000; i++) { /* refused again and again */
        NEED(hak_malloc(64) == NULL);
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
            if (++tries == 500) {
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

/* ---- a container ------------------------------------------------------------ */

static char tree[60];

static void put(const char *name, const char *text)
{
    char path[120];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", tree, name);
    file = fopen(path, "w");
    NEED(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void make_tree(void)
{
    snprintf(tree, sizeof(tree), "%s/hakmem-pressure-XXXXXX", P_tmpdir);
    cr_assert_not_null(mkdtemp(tree));
    setenv("HAKMEM_CGROUP", tree, 1);
}

static void remove_tree(void)
{
    char command[100];

    snprintf(command, sizeof(command), "rm -r %s", tree);
    cr_assert_eq(system(command), 0);
}

TestSuite(container, .init = make_tree, .fini = remove_tree, .timeout = 120);

/* 100 MB, of which this many are in use; looks. */
static void use(size_t mb)
{
    char text[40];

    snprintf(text, sizeof(text), "%zu\n", mb * HAK_MIB);
    put("memory.current", text);
    haki_pressure_test_look();
}

static bool is_near(void)
{
    return haki_pressure_near();
}

static void begin(void)
{
    haki_option_test_reload();
    put("memory.max", "104857600\n");
    use(10);
    NEED(!is_near());
}

static void comes_and_goes(void *arg)
{
    (void)arg;
    begin();
    use(84);
    NEED(!is_near());
    use(85);
    NEED(is_near());
    use(76); /* it does not flap */
    NEED(is_near());
    use(74);
    NEED(!is_near());
    use(84);
    NEED(!is_near() && unit_stats().pressure_events == 1);
    use(99);
    NEED(is_near() && unit_stats().pressure_events == 2);
    NEED(unit_stats().limit_bytes == 100 * HAK_MIB);
}

Test(container, pressure_begins_above_85_percent_and_ends_below_75)
{
    unit_expect_said(comes_and_goes, NULL, "");
}

static void waits(void *arg)
{
    (void)arg;
    begin();
    put("memory.pressure", "some avg10=9.99 avg60=0.00 avg300=0 total=0\n");
    use(10);
    NEED(!is_near());
    put("memory.pressure", "some avg10=10.00 avg60=0.00 avg300=0 total=0\n");
    use(10);
    NEED(is_near());
    put("memory.pressure", "some avg10=5.00 avg60=0.00 avg300=0 total=0\n");
    use(10);
    NEED(is_near());
    put("memory.pressure", "some avg10=4.00 avg60=0.00 avg300=0 total=0\n");
    use(10);
    NEED(!is_near());
}

Test(container, waiting_for_memory_is_pressure_too)
{
    unit_expect_said(waits, NULL, "");
}

/* A little activity until no more than `most` bytes are held. */
static void comes_down(size_t most)
{
    struct timespec nap = {0, 1000000};

    for (int ms = 0; used() > most; ms++) {
        NEED(ms < 20000);
        for (size_t size = 100; size < 10000000; size *= 20) {
            hak_free(hak_malloc(size));
        }
        nanosleep(&nap, NULL);
    }
}

static void goes_back(void *arg)
{
    size_t size = *(size_t *)arg;

    setenv("HAKMEM_PURGE_DELAY", "3600000", 1);
    begin();
    for (count = 0; count * size < 50 * HAK_MIB; count++) {
        blocks[count] = hak_malloc(size);
        memset(blocks[count], 1, size);
    }
    drop_all();
    use(90);
    NEED(is_near());
    comes_down(2 * HAK_MIB);
    NEED(unit_stats().limit_purges > 0);
    /* As long as there is pressure, so does what is freed now. */
    for (count = 0; count * size < 20 * HAK_MIB; count++) {
        blocks[count] = hak_malloc(size);
        memset(blocks[count], 1, size);
    }
    drop_all();
    comes_down(4 * HAK_MIB);
}

Test(container, under_pressure_free_memory_goes_back_at_once)
{
    for (size_t i = 0; i < SIZES; i++) {
        unit_expect_said(goes_back, (void *)(uintptr_t)&sizes[i], "");
    }
}

static void *park(void *arg)
{
    size_t n = *(size_t *)arg;

    for (size_t i = 0; i < n; i++) {
        blocks[i] = hak_malloc(100);
    }
    for (size_t i = 0; i < n; i++) {
        hak_free(blocks[i]);
    }
    return NULL;
}

/* By itself, from slow paths: nobody asks for a look. */
static void looks_by_itself(void *arg)
{
    size_t size = *(size_t *)arg;

    setenv("HAKMEM_PURGE_DELAY", "3600000", 1);
    haki_option_test_reload();
    put("memory.max", "104857600\n");
    put("memory.current", "94371840\n");
    for (count = 0; count * size < 20 * HAK_MIB; count++) {
        blocks[count] = hak_malloc(size);
    }
    NEED(is_near() && unit_stats().pressure_events == 1);
}

Test(container, slow_paths_look_by_themselves)
{
    for (size_t i = 0; i < SIZES; i++) {
        unit_expect_said(looks_by_itself, (void *)(uintptr_t)&sizes[i], "");
    }
}

/* Others in the container take more while this process takes nothing. */
static void looks_in_time(void *arg)
{
    (void)arg;
    setenv("HAKMEM_PURGE_DELAY", "3600000", 1);
    begin();
    for (count = 0; count < 500; count++) {
        blocks[count] = hak_malloc(100000);
        memset(blocks[count], 1, 100000);
    }
    drop_all();
    put("memory.current", "94371840\n");
    comes_down(2 * HAK_MIB);
    NEED(is_near() && unit_stats().pressure_events == 1);
}

Test(container, a_look_comes_with_time)
{
    unit_expect_said(looks_in_time, NULL, "");
}

/* A process of less than a few MB does not read files. */
static void stays_small(void *arg)
{
    (void)arg;
    put("memory.max", "banana\n");
    haki_option_test_reload();
    for (count = 0; count < 10000; count++) {
        blocks[count] = hak_malloc(100);
    }
    drop_all();
}

Test(container, a_small_process_does_not_look)
{
    unit_expect_said(stays_small, NULL, "");
}

static void no_huge_pages(void *arg)
{
    (void)arg;
    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    begin();
    use(90);
    for (count = 0; count < 300000; count++) {
        blocks[count] = hak_malloc(100);
        NEED(blocks[count] != NULL);
    }
    /* Huge ones would come populated by 2 MB: the last is used up in part. */
    NEED(unit_stats().resident_bytes < 300000 * 112 + HAK_MIB);
}

Test(container, under_pressure_no_huge_page_is_taken)
{
    UNIT_SKIP_IF_WATCHED("the hardened and watched builds have other sizes");
    if (HAK_HARD) {
        cr_skip("blocks are larger");
    }
    unit_expect_said(no_huge_pages, NULL, "");
}

static void percentage(void *arg)
{
    (void)arg;
    put("memory.max", "52428800\n");
    put("memory.current", "1048576\n");
    set_limit("80%");
    errno = 0;
    fill(100000);
    NEED(unit_stats().limit_bytes == LIMIT && used() <= LIMIT);
    NEED(count * 100000 >= LIMIT - LIMIT / 8);
    /* The container gets a larger limit. */
    put("memory.max", "104857600\n");
    haki_pressure_test_look();
    NEED(unit_stats().limit_bytes == 2 * LIMIT);
    NEED(hak_malloc(100000) != NULL);
}

Test(container, a_percentage_is_of_the_containers_limit)
{
    unit_expect_ok(percentage, NULL);
}

/* In a child the limits are read anew. */
static void child_looks(void *arg)
{
    int status;
    pid_t pid;

    (void)arg;
    begin();
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        use(90);
        NEED(is_near());
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    NEED(!is_near());
}

Test(container, a_forked_child_looks_for_itself)
{
    unit_expect_said(child_looks, NULL, "");
}

/* Its thread is gone: what it kept goes back in the round of another. */
static void parked(void *arg)
{
    size_t n = 200000;

    (void)arg;
    setenv("HAKMEM_PURGE_DELAY", "3600000", 1);
    begin();
    unit_in_thread(park, &n);
    use(90);
    comes_down(2 * HAK_MIB);
}

Test(container, heaps_of_threads_that_ended_take_part)
{
    parked(NULL); /* threads in a child are too much for one checker */
}

/* ---- bad input: one line, and all goes on ----------------------------------- */

static char line[400];

static __attribute__((format(printf, 1, 2))) void says(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
}

static void works(void)
{
    haki_option_test_reload();
    blocks[0] = hak_malloc(10);
    haki_pressure_test_look();
    haki_pressure_test_look();
    for (count = 0; count < 100; count++) {
        blocks[count] = hak_malloc(500000);
        NEED(blocks[count] != NULL);
    }
    drop_all();
}

static void works_with(void *arg)
{
    if (arg != NULL) {
        setenv("HAKMEM_LIMIT", arg, 1);
    }
    works();
}

static void expect(const char *limit, const char *text)
{
    unit_expect_said(works_with, (void *)(uintptr_t)limit, text);
}

Test(container, files_that_are_missing)
{
    says("hakmem: HAKMEM_CGROUP=%s: neither memory.max nor "
         "memory.limit_in_bytes is there; no container limit is known\n",
         tree);
    expect(NULL, line);
}

Test(container, max)
{
    put("memory.max", "max\n");
    put("memory.current", "1\n");
    expect(NULL, "");
    expect("50%", "hakmem: HAKMEM_LIMIT=50%: no container limit is known "
                  "(memory.max, memory.limit_in_bytes); there is no limit\n");
}

Test(container, garbled)
{
    put("memory.max", "banana\n");
    put("memory.current", "1\n");
    says("hakmem: %s/memory.max: \"banana\" is neither a number of bytes nor "
         "max; it is taken for max\n",
         tree);
    expect(NULL, line);
}

Test(container, a_limit_below_what_is_in_use)
{
    put("memory.max", "1000000\n");
    put("memory.current", "2000000\n");
    says("hakmem: %s/memory.max: the limit of 1000000 bytes is below the "
         "2000000 in use; free memory goes back at once\n",
         tree);
    expect(NULL, line);
}
