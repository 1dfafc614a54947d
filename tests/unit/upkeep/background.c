/*
 * background.c - tests of the thread that gives memory back.
 */
#include "upkeep/background.h"

#include <dirent.h>
#include <sys/time.h>
#include <time.h>

#include "os/os.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(background, .timeout = 180);

enum { MUCH = 64, WAIT = 30 }; /* MB, seconds */

static unsigned threads(void);
static unsigned before; /* threads: Criterion may have one of its own */

/* Before the first use of all. */
static void want(void)
{
    before = threads();
    setenv("HAKMEM_BACKGROUND_THREAD", "1", 1);
    setenv("HAKMEM_PURGE_DELAY", "200", 1);
}

static void doze(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    while (nanosleep(&time, &time) != 0) {
    }
}

static unsigned threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    unsigned count = 0;

    NEED(tasks != NULL);
    for (struct dirent *d; (d = readdir(tasks)) != NULL;) {
        count += d->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/* Takes and frees `megabytes` in blocks of `size`; no malloc of the C library's,
 * in which a signal's handler could not fork. */
static void use(size_t megabytes, size_t size)
{
    size_t count = megabytes * HAK_MIB / size;
    char **blocks = haki_os_map(count * sizeof(*blocks));

    NEED(blocks != NULL);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = hak_malloc(size);
        NEED(blocks[i] != NULL);
        memset(blocks[i], 1, size);
    }
    for (size_t i = 0; i < count; i++) {
        hak_free(blocks[i]);
    }
    haki_os_unmap(blocks, count * sizeof(*blocks));
}

/* Whether no more than `most` MB are resident and the thread is gone, soon. */
static bool goes_back(size_t most)
{
    for (int n = 0; n < WAIT * 50; n++) {
        doze(20);
        if (haki_background_thread() == 0 &&
            unit_stats().resident_bytes <= most * HAK_MIB) {
            return true;
        }
    }
    return false;
}

Test(background, what_was_freed_goes_back_asleep)
{
    const size_t sizes[] = {16, 200, 2000, 20000, 200000, 3000000};

    want();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        use(MUCH, sizes[i]);
        cr_expect_neq(haki_background_thread(), 0, "size %zu", sizes[i]);
        cr_expect(goes_back(4), "size %zu: %zu KB are left", sizes[i],
                  (size_t)(unit_stats().resident_bytes / HAK_KIB));
    }
    cr_expect_eq(threads(), before);
}

Test(background, little_starts_no_thread)
{
    want();
    for (int n = 0; n < 20; n++) {
        use(1, 1000);
        cr_assert_eq(haki_background_thread(), 0);
    }
    cr_assert_eq(threads(), before);
}

Test(background, the_option_turns_it_off)
{
    want();
    setenv("HAKMEM_BACKGROUND_THREAD", "0", 1);
    use(MUCH, 1000);
    cr_assert_eq(threads(), before);
}

Test(background, an_adapter_turns_it_off)
{
    want();
    haki_background_close();
    use(MUCH, 1000);
    cr_assert_eq(threads(), before);
}

/* ---- blocks of a thread that sleeps --------------------------------------------- */

enum { SENT = 8 * 1024 };
static char *sent[SENT];
static atomic_bool made, over;

static void *makes(void *arg)
{
    for (size_t i = 0; i < SENT; i++) {
        sent[i] = hak_malloc(*(size_t *)arg);
        NEED(sent[i] != NULL);
        memset(sent[i], 1, *(size_t *)arg);
    }
    atomic_store(&made, true);
    while (!atomic_load(&over)) {
        doze(100);
    }
    return NULL;
}

Test(background, blocks_that_another_thread_freed)
{
    size_t sizes[] = {1000, 4000};

    want();
    UNIT_SKIP_IF_WATCHED("threads may not be seen asleep");
    for (size_t i = 0; i < 2; i++) {
        pthread_t thread;

        atomic_store(&over, false);
        atomic_store(&made, false);
        thread = unit_start(makes, &sizes[i]);
        while (!atomic_load(&made)) {
            sched_yield();
        }
        for (size_t n = 0; n < SENT; n++) {
            hak_free(sent[n]);
        }
        cr_expect(goes_back(3), "size %zu: %zu KB are left", sizes[i],
                  (size_t)(unit_stats().resident_bytes / HAK_KIB));
        atomic_store(&over, true);
        unit_join(thread);
    }
}

/* ---- forks --------------------------------------------------------------------- */

static unsigned seen_at_fork;

static void look_at_fork(void)
{
    seen_at_fork = threads();
}

/* Registered later, so run sooner: but glibc runs the parent's in order. */
Test(background, it_is_gone_before_a_fork)
{
    unsigned met = 0;

    want();
    UNIT_SKIP_IF_WATCHED("their own threads");
    hak_free(hak_malloc(1));
    NEED(pthread_atfork(NULL, look_at_fork, NULL) == 0);
    for (int n = 0; n < 5; n++) {
        int status;
        pid_t child;

        use(16, 2000);
        met += haki_background_thread() != 0;
        child = fork();
        if (child == 0) {
            NEED(threads() == 1);
            use(16, 2000);
            NEED(haki_background_thread() != 0);
            NEED(goes_back(4));
            _exit(0);
        }
        NEED(child > 0);
        cr_assert_eq(seen_at_fork, before);
        NEED(waitpid(child, &status, 0) == child);
        cr_assert_eq(status, 0);
        doze(120);
    }
    cr_assert_gt(met, 0);
    use(16, 2000);
    cr_assert(goes_back(4));
}

static atomic_bool handler_forked;

/* A fork in a signal's handler, wherever the thread was. */
static void fork_in_handler(int number)
{
    pid_t child = fork();

    (void)number;
    if (child == 0) {
        _exit(0);
    }
    NEED(child > 0 && waitpid(child, NULL, 0) == child);
    atomic_store(&handler_forked, true);
}

Test(background, a_handler_forks)
{
    struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};

    want();
    UNIT_SKIP_IF_WATCHED("no malloc of theirs in a handler");
    NEED(signal(SIGALRM, fork_in_handler) != SIG_ERR);
    NEED(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int n = 0; n < 50; n++) {
        use(16, 2000);
    }
    NEED(setitimer(ITIMER_REAL, &never, NULL) == 0);
    cr_assert(handler_forked);
    doze(200);
    use(16, 2000);
    cr_assert(goes_back(4));
}
