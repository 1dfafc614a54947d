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

TestSuite(background, .timeout = 300);

/*
 * MB, seconds. What is left: less than 4 MB, for which no thread is started, if most
 * of it went back while it was freed, and what heaps keep.
 */
enum { MUCH = 64, LEFT = 8, WAIT = 30 };

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

static bool is_back(size_t most)
{
    return haki_background_thread() == 0 &&
           unit_stats().resident_bytes <= most * HAK_MIB;
}

/* Whether no more than `most` MB are resident and the thread is gone, soon. */
static bool goes_back(size_t most)
{
    for (int n = 0; n < WAIT * 50; n++) {
        doze(20);
        if (is_back(most)) {
            return true;
        }
    }
    return false;
}

/* Its thread is there, or has done its work while this one was kept from its own. */
static bool is_seen_to(size_t most)
{
    return haki_background_thread() != 0 || is_back(most);
}

/* A thread that has ended is listed for a moment longer. */
static bool is_alone(void)
{
    for (int n = 0; n < WAIT * 50 && threads() != before; n++) {
        doze(20);
    }
    return threads() == before;
}

Test(background, what_was_freed_goes_back_asleep)
{
    const size_t sizes[] = {16, 200, 2000, 20000, 200000, 3000000};

    want();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        use(MUCH, sizes[i]);
        cr_expect(is_seen_to(LEFT), "size %zu", sizes[i]);
        cr_expect(goes_back(LEFT), "size %zu: %zu KB are left", sizes[i],
                  (size_t)(unit_stats().resident_bytes / HAK_KIB));
    }
    cr_expect(is_alone());
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
        cr_expect(goes_back(LEFT), "size %zu: %zu KB are left", sizes[i],
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
    unsigned met = 0, gone = 0;

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
            NEED(is_seen_to(LEFT));
            NEED(goes_back(LEFT));
            _exit(0);
        }
        NEED(child > 0);
        gone += seen_at_fork == before;
        NEED(waitpid(child, &status, 0) == child);
        cr_assert_eq(status, 0);
        doze(120);
    }
    cr_assert_gt(met, 0);
    cr_assert_geq(gone, 4, "%u of 5; a fork may give up waiting", gone);
    use(16, 2000);
    cr_assert(goes_back(LEFT));
}

static atomic_bool handler_forked;

/* Each few milliseconds of the program's own, however slow a fork is. */
static void tick_often(bool on)
{
    struct itimerval often = {{0, on ? 3000 : 0}, {0, on ? 3000 : 0}};

    NEED(setitimer(ITIMER_VIRTUAL, &often, NULL) == 0);
}

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
    want();
    UNIT_SKIP_IF_WATCHED("no malloc of theirs in a handler");
    NEED(signal(SIGVTALRM, fork_in_handler) != SIG_ERR);
    tick_often(true);
    for (int n = 0; n < 50 || !handler_forked; n++) {
        use(16, 2000);
    }
    tick_often(false);
    doze(200);
    use(16, 2000);
    cr_assert(goes_back(LEFT));
}
