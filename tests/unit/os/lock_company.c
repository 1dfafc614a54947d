/*
 * lock_company.c - tests of locks where there is one thread, and one that the C
 * library does not know. The locks are told that it is so.
 *
 * The source itself is compiled in, for what the only thread does unseen.
 */
#include "../../../core/os/lock.c"

#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "unit.h"

TestSuite(lock_company, .timeout = 300);

static atomic_int mended;

static void mend(void)
{
    atomic_fetch_add(&mended, 1);
}

static hak_lock lock = HAK_LOCK_INIT(mend), other = HAK_LOCK_INIT(NULL);
static size_t count; /* under the lock */

/* The calling thread is the only one, but for a stranger that it starts. */
static void be_only(void)
{
    atomic_store(&lock_test_only, true);
    haki_lock_not_alone();
}

static bool has_fence(void)
{
    return atomic_load(&lock_company) != HAK_LOCK_CROWD;
}

static void take_and_drop(void)
{
    haki_lock_take(&lock);
    count++;
    haki_lock_drop(&lock);
}

/* Whether the lock, if it was free, is taken by plain stores. */
static bool takes_alone(void)
{
    bool alone;

    haki_lock_take(&lock);
    alone = haki_lock_self.alone != 0;
    NEED(atomic_load(&haki_lock_entered) || !alone);
    haki_lock_drop(&lock);
    NEED(haki_lock_self.alone == 0 && !atomic_load(&haki_lock_entered));
    return alone;
}

static void begin_test(void)
{
    be_only();
    if (!has_fence()) {
        cr_skip_test("the kernel has no membarrier");
    }
    takes_alone(); /* the first one draws a number */
}

static void *end_at_once(void *arg)
{
    return arg;
}

Test(lock_company, the_only_thread_goes_by_what_it_finds)
{
    begin_test();
    cr_assert(takes_alone());
    atomic_store(&lock_company, HAK_LOCK_TOGETHER);
    cr_assert_not(takes_alone());
    atomic_store(&lock_company, HAK_LOCK_APART);
    cr_assert(takes_alone());
    unit_in_thread(end_at_once,
                   NULL); /* the test's library may have no thread */
    atomic_store(&lock_test_only, false);
    cr_assert_not(takes_alone());
}

/* How the first one is taken is how the next is. */
Test(lock_company, one_within_another_is_taken_likewise)
{
    begin_test();
    haki_lock_take(&other);
    NEED(haki_lock_self.alone == 1);
    atomic_store(&lock_company,
                 HAK_LOCK_TOGETHER); /* as if it waited for us now */
    haki_lock_take(&lock);
    cr_assert_eq(haki_lock_self.alone, 2);
    haki_lock_drop(&other);
    cr_assert(atomic_load(&haki_lock_entered));
    haki_lock_drop(&lock);
    cr_assert_not(atomic_load(&haki_lock_entered));
    haki_lock_take(&other);
    atomic_store(&lock_company, HAK_LOCK_APART);
    haki_lock_take(&lock);
    cr_assert_eq(haki_lock_self.alone, 0);
    haki_lock_drop(&lock);
    haki_lock_drop(&other);
}

static atomic_bool over;
static _Atomic(size_t) of_stranger; /* turns, each of 1 to 3 */

static void *stranger(void *arg)
{
    haki_lock_begin_stranger();
    while (!atomic_load(&over)) {
        if (haki_lock_join() != HAK_LOCK_JOINED) {
            continue;
        }
        for (size_t i = 0; i <= of_stranger % 3; i++) {
            take_and_drop();
            NEED(haki_lock_self.alone == 0);
        }
        of_stranger++;
        haki_lock_part();
        for (atomic_int pause = 0; pause < (int)(of_stranger % 512); pause++) {
        }
    }
    return arg;
}

/* A handler that comes in between, of the only thread's. */
static size_t of_handler;
static pthread_t only_thread;

static void handle(int number)
{
    (void)number;
    if (pthread_equal(pthread_self(), only_thread)) {
        haki_lock_take(&other);
        of_handler++;
        haki_lock_drop(&other);
    }
}

static void tick_often(bool on)
{
    struct itimerval often = {.it_interval = {.tv_usec = on ? 100 : 0},
                              .it_value = {.tv_usec = on ? 100 : 0}};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};

    NEED(sigaction(SIGALRM, &action, NULL) == 0);
    NEED(setitimer(ITIMER_REAL, &often, NULL) == 0);
}

Test(lock_company, both_take_the_lock)
{
    size_t mine = 0, alone = 0;
    sigset_t alarms;
    pthread_t thread;

    begin_test();
    count = 0;
    only_thread = pthread_self();
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    thread = unit_start(stranger, NULL);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
    tick_often(true);
    while (mine < unit_scale(3000000, 100000) ||
           of_stranger < unit_scale(30000, 1000)) {
        haki_lock_take(&lock);
        count++;
        mine++;
        alone += haki_lock_self.alone != 0;
        haki_lock_drop(&lock);
    }
    tick_often(false);
    atomic_store(&over, true);
    unit_join(thread);
    for (size_t turn = 0; turn < of_stranger; turn++) {
        mine += 1 + turn % 3;
    }
    cr_assert_eq(count, mine);
    cr_assert_eq(atomic_load(&lock.word) | atomic_load(&other.word), 0);
    cr_assert_gt(alone, 0);
    cr_assert_gt(of_handler, 0);
    cr_assert_not(atomic_load(&haki_lock_entered));
}

static enum hak_lock_joined joined;

static void join_at_enter(const char *name)
{
    if (strcmp(name, "enter") == 0) {
        joined = haki_lock_join();
    }
}

static void join_at_entered(const char *name)
{
    if (strcmp(name, "entered") == 0) {
        joined = haki_lock_join();
    }
}

/* A stranger that joins in the midst of it: one of the two sees the other. */
Test(lock_company, who_is_about_to_enter_looks_again)
{
    begin_test();
    atomic_store(&haki_test_meet, join_at_enter);
    cr_assert_not(takes_alone());
    cr_assert_eq(joined, HAK_LOCK_JOINED);
    haki_lock_part();
    atomic_store(&haki_test_meet, join_at_entered);
    cr_assert_not(takes_alone());
    cr_assert_eq(joined, HAK_LOCK_WAIT);
    atomic_store(&haki_test_meet, NULL);
    haki_lock_part();
    cr_assert(takes_alone());
}

/* The stranger waits for who has entered, and says so. */
Test(lock_company, a_stranger_waits_until_the_only_thread_has_left)
{
    begin_test();
    haki_lock_take(&lock);
    NEED(haki_lock_self.alone == 1);
    cr_assert_eq(haki_lock_join(), HAK_LOCK_WAIT);
    haki_lock_drop(&lock);
    cr_assert_eq(haki_lock_join(), HAK_LOCK_JOINED);
    cr_assert_not(takes_alone());
    haki_lock_part();
    cr_assert(takes_alone());
}

static pthread_barrier_t barrier;

/* Has the lock when it is forked, and lets go of it when the child has ended. */
static void *holding_stranger(void *arg)
{
    haki_lock_begin_stranger();
    while (haki_lock_join() != HAK_LOCK_JOINED) {
    }
    haki_lock_take(&lock);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    haki_lock_drop(&lock);
    haki_lock_part();
    return arg;
}

/* In the child, with the handlers' part and without. */
static void take_over(bool handled)
{
    alarm(250);
    if (handled) {
        haki_lock_forked();
    }
    takes_alone();
    NEED(atomic_load(&mended) == 1);
    NEED(takes_alone() == handled); /* its ghost has not parted */
    NEED(atomic_load(&mended) == 1);
}

Test(lock_company, a_child_takes_over_what_a_stranger_held)
{
    pthread_t thread;
    int status;

    UNIT_SKIP_IF_EMULATED("qemu does not wipe at a fork");
    begin_test();
    NEED(pthread_barrier_init(&barrier, NULL, 2) == 0);
    thread = unit_start(holding_stranger, NULL);
    pthread_barrier_wait(&barrier);
    for (int handled = 0; handled < 2; handled++) {
        pid_t pid = unit_bare_fork();

        if (pid == 0) {
            take_over(handled);
            _exit(0);
        }
        NEED(pid > 0 && waitpid(pid, &status, 0) == pid);
        cr_assert_eq(status, 0, "status %#x", (unsigned)status);
    }
    pthread_barrier_wait(&barrier);
    unit_join(thread);
}
