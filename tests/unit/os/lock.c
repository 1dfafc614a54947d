/*
 * lock.c - tests of locks: exclusion, who holds one, and what a forked child
 * makes of those that threads of its parent held.
 *
 * The source itself is compiled in, for a kernel that refuses the page.
 */
#include "../../../core/os/lock.c"

#include <sys/syscall.h>

#include "unit.h"

TestSuite(lock, .timeout = 300);

/* qemu 7.2 answers MADV_WIPEONFORK with success and does nothing: a child that no
 * handler of fork's prepares waits for ghosts for ever. */
#define SKIP_WITHOUT_WIPING()                                                  \
    UNIT_SKIP_IF_EMULATED("qemu does not wipe at a fork")

static atomic_int mended;

static void mend(void)
{
    atomic_fetch_add(&mended, 1);
}

static hak_lock lock = HAK_LOCK_INIT(mend);

/* ---- within a process ------------------------------------------------------- */

static size_t count;

static void *count_up(void *arg)
{
    for (size_t i = 0; i < unit_scale(300000, 20000); i++) {
        errno = 123;
        haki_lock_take(&lock);
        count++;
        haki_lock_drop(&lock);
        NEED(errno == 123);
    }
    return arg;
}

Test(lock, one_thread_at_a_time)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) {
        threads[i] = unit_start(count_up, NULL);
    }
    for (int i = 0; i < 4; i++) {
        unit_join(threads[i]);
    }
    cr_assert_eq(count, 4 * unit_scale(300000, 20000));
    cr_assert_eq(atomic_load(&mended), 0);
    cr_assert_eq(atomic_load(&lock.word), 0);
}

Test(lock, the_holder_is_told)
{
    cr_assert_not(haki_lock_mine(&lock));
    haki_lock_take(&lock);
    cr_assert(haki_lock_mine(&lock));
    HAK_HELD(&lock);
    haki_lock_drop(&lock);
    cr_assert_not(haki_lock_mine(&lock));
}

static void expect_held(void *arg)
{
    (void)arg;
    HAK_HELD(&lock);
}

static void take_twice(void *arg)
{
    (void)arg;
    haki_lock_take(&lock);
    haki_lock_take(&lock);
}

Test(lock, what_would_never_end_is_fatal)
{
    unit_expect_fatal(expect_held, NULL,
                      "hakmem: fatal: expect_held: its lock is not held\n");
    unit_expect_fatal(
        take_twice, NULL,
        "hakmem: fatal: a signal's handler asked for memory while "
        "its thread was being served\n");
}

static void *take_once(void *arg)
{
    haki_lock_take(&lock);
    haki_lock_drop(&lock);
    return arg;
}

/* A program without threads has neither a page for this nor a number. */
Test(lock, the_page_comes_with_the_second_thread)
{
    if (!lock_is_single()) { /* the test's own library has a thread */
        haki_lock_take(&lock);
        haki_lock_drop(&lock);
        cr_assert(atomic_load(&haki_process) != &lock_plain);
    }
    unit_in_thread(take_once, NULL);
    cr_assert(atomic_load(&haki_process) != &lock_plain ||
              atomic_load(&lock_refused));
}

/* ---- ghosts ------------------------------------------------------------------- */

static pthread_barrier_t barrier;
static atomic_bool go_on;

/* Holds the lock until it may go on. */
static void *hold(void *arg)
{
    haki_lock_take(&lock);
    pthread_barrier_wait(&barrier);
    while (!atomic_load(&go_on)) {
        sched_yield();
    }
    haki_lock_drop(&lock);
    return arg;
}

static pthread_t start_holder(void)
{
    pthread_t holder;

    NEED(pthread_barrier_init(&barrier, NULL, 2) == 0);
    holder = unit_start(hold, NULL);
    pthread_barrier_wait(&barrier);
    return holder;
}

static void end_holder(pthread_t holder)
{
    atomic_store(&go_on, true);
    unit_join(holder);
    cr_assert_eq(atomic_load(&mended), 0, "in the parent");
}

pid_t _Fork(void) __attribute__((weak));

static pid_t bare_fork(void)
{
    return _Fork != NULL ? _Fork() : unit_bare_fork();
}

static pid_t clone_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void expect_well(pid_t pid)
{
    int status;

    NEED(pid > 0 && waitpid(pid, &status, 0) == pid);
    cr_assert(status == 0, "status %#x", (unsigned)status);
}

static void take_over(void)
{
    alarm(250);
    take_once(NULL);
    NEED(atomic_load(&mended) == 1);
    take_once(NULL);
    NEED(atomic_load(&mended) == 1);
}

static pid_t (*const forks[])(void) = {fork, bare_fork, clone_fork};

Test(lock, a_child_takes_over_what_a_ghost_holds)
{
    pthread_t holder;

    SKIP_WITHOUT_WIPING();
    holder = start_holder();

    for (int i = 0; i < 3; i++) {
        pid_t pid = forks[i]();

        if (pid == 0) {
            take_over();
            _exit(0);
        }
        expect_well(pid);
    }
    end_holder(holder);
}

Test(lock, so_does_a_child_of_a_child)
{
    pthread_t holder;

    SKIP_WITHOUT_WIPING();
    holder = start_holder();

    for (int i = 0; i < 9; i++) {
        pid_t pid = forks[i % 3]();

        if (pid == 0) {
            pid = forks[i / 3]();
            if (pid == 0) {
                take_over();
                _exit(0);
            }
            expect_well(pid);
            _exit(0);
        }
        expect_well(pid);
    }
    end_holder(holder);
}

/* A thread that had never taken a lock, and so has no number, forks. */
static void *fork_unnumbered(void *arg)
{
    NEED(haki_lock_self.number == 0);
    *(pid_t *)arg = bare_fork();
    if (*(pid_t *)arg == 0) {
        static hak_lock free_lock = HAK_LOCK_INIT(NULL);

        haki_lock_take(&free_lock);
        NEED(haki_lock_self.number != 0 && haki_lock_mine(&free_lock));
        haki_lock_drop(&free_lock);
        take_over();
        _exit(0);
    }
    return NULL;
}

Test(lock, so_does_a_child_of_a_thread_that_never_took_one)
{
    pthread_t holder;
    pid_t pid;

    SKIP_WITHOUT_WIPING();
    holder = start_holder();

    unit_in_thread(fork_unnumbered, &pid);
    expect_well(pid);
    end_holder(holder);
}

/* Settled by who forked, or by fork's handlers in the core that is linked in. */
Test(lock, a_lock_is_settled_without_being_wanted)
{
    pthread_t holder = start_holder();
    pid_t pid = fork();

    if (pid == 0) {
        haki_lock_forked();
        NEED(haki_lock_settle(&lock) && atomic_load(&mended) == 1);
        NEED(haki_lock_settle(&lock) && atomic_load(&mended) == 1);
        NEED(atomic_load(&lock.word) == 0);
        haki_lock_take(&lock);
        NEED(!haki_lock_settle(&lock) && haki_lock_mine(&lock));
        _exit(0);
    }
    expect_well(pid);
    end_holder(holder);
}

/* Threads of a child without handlers; the one that forked is none of them. */
Test(lock, one_thread_of_many_takes_over)
{
    pthread_t holder;

    SKIP_WITHOUT_WIPING();
    UNIT_SKIP_IF_GCC_TSAN();
    holder = start_holder();

    for (int i = 0; i < 3; i++) {
        pid_t pid = forks[i]();

        if (pid == 0) {
            pthread_t threads[4];

            alarm(250);
            for (int n = 0; n < 4; n++) {
                threads[n] = unit_start(count_up, NULL);
            }
            for (int n = 0; n < 4; n++) {
                unit_join(threads[n]);
            }
            take_once(NULL);
            NEED(count == 4 * unit_scale(300000, 20000));
            NEED(atomic_load(&mended) == 1);
            _exit(0);
        }
        expect_well(pid);
    }
    end_holder(holder);
}

static void *take_and_say(void *arg)
{
    haki_lock_take(&lock);
    atomic_store((atomic_bool *)arg, true);
    haki_lock_drop(&lock);
    return NULL;
}

/* The one that forked holds a lock: it goes on with it, others wait. */
Test(lock, nobody_takes_over_what_the_forking_thread_holds)
{
    pid_t pid;

    UNIT_SKIP_IF_GCC_TSAN();
    unit_in_thread(take_once, NULL);
    haki_lock_take(&lock);
    pid = fork();
    if (pid == 0) {
        atomic_bool taken = false;
        pthread_t other;

        haki_lock_forked();
        other = unit_start(take_and_say, &taken);
        usleep(50000);
        NEED(haki_lock_mine(&lock) && !atomic_load(&taken));
        haki_lock_drop(&lock);
        unit_join(other);
        NEED(atomic_load(&taken) && atomic_load(&mended) == 0);
        _exit(0);
    }
    expect_well(pid);
    haki_lock_drop(&lock);
}

/* Its thread before the fork holds one more, taken after it. */
Test(lock, a_lock_taken_in_a_child_is_nobody_s_to_take_over)
{
    pthread_t holder;

    SKIP_WITHOUT_WIPING();
    UNIT_SKIP_IF_GCC_TSAN();
    holder = start_holder();

    for (int i = 0; i < 3; i++) {
        pid_t pid = forks[i]();

        if (pid == 0) {
            atomic_bool taken = false;
            pthread_t other;

            haki_lock_take(&lock);
            other = unit_start(take_and_say, &taken);
            usleep(20000);
            NEED(!atomic_load(&taken) && atomic_load(&mended) == 1);
            haki_lock_drop(&lock);
            unit_join(other);
            NEED(atomic_load(&taken) && atomic_load(&mended) == 1);
            _exit(0);
        }
        expect_well(pid);
    }
    end_holder(holder);
}

/* A child by vfork has its parent's memory: nobody is a ghost. */
static void *end_soon(void *arg)
{
    usleep(100000);
    atomic_store(&go_on, true);
    return arg;
}

Test(lock, a_child_by_vfork_waits_for_its_parent_s_threads)
{
    pthread_t holder, ender;
    pid_t pid;

    UNIT_SKIP_IF_WATCHED("valgrind and the sanitizers make a fork of it");
    holder = start_holder();
    ender = unit_start(end_soon, NULL);
    pid = vfork();
    if (pid == 0) {
        haki_lock_take(&lock);
        haki_lock_drop(&lock);
        _exit(atomic_load(&mended) != 0 || !atomic_load(&go_on));
    }
    expect_well(pid);
    unit_join(ender);
    end_holder(holder);
}

/* ---- a signal's handler forks while its thread waits ----------------------------- */

static _Atomic(pid_t) forked_in_handler = -1;

static void fork_in_handler(int signal)
{
    (void)signal;
    atomic_store(&forked_in_handler, bare_fork());
}

static void *signal_and_end(void *arg)
{
    while (!haki_lock_any_waits()) {
        usleep(1000);
    }
    usleep(50000); /* it sleeps by then, mostly */
    NEED(pthread_kill(*(pthread_t *)arg, SIGUSR1) == 0);
    while (atomic_load(&forked_in_handler) == -1) {
        usleep(1000);
    }
    atomic_store(&go_on, true);
    return NULL;
}

Test(lock, who_waits_goes_on_in_the_child)
{
    struct sigaction action = {.sa_handler = fork_in_handler,
                               .sa_flags = SA_RESTART};
    pthread_t me = pthread_self(), holder, other;

    SKIP_WITHOUT_WIPING();
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    holder = start_holder();
    other = unit_start(signal_and_end, &me);
    haki_lock_take(&lock);
    haki_lock_drop(&lock);
    if (atomic_load(&forked_in_handler) == 0) {
        _exit(atomic_load(&mended) != 1);
    }
    unit_join(other);
    expect_well(atomic_load(&forked_in_handler));
    end_holder(holder);
}

/* ---- a kernel that has no such page ----------------------------------------------- */

Test(lock, without_the_page_fork_s_handler_mends)
{
    pthread_t holder;
    pid_t pid;

    atomic_store(&lock_refused, true);
    atomic_store(&haki_process, &lock_plain);
    holder = start_holder();
    pid = fork();
    if (pid == 0) {
        haki_lock_forked();
        take_over();
        _exit(0);
    }
    expect_well(pid);
    end_holder(holder);
}

static void *wait_once(void *arg)
{
    haki_lock_take(&lock);
    haki_lock_drop(&lock);
    return arg;
}

/* A heap is lent only where nobody waits. */
Test(lock, ghosts_do_not_wait)
{
    pthread_t waits;
    pid_t pid;

    haki_lock_take(&lock);
    waits = unit_start(wait_once, NULL);
    while (!haki_lock_any_waits()) {
        sched_yield();
    }
    pid = fork();
    if (pid == 0) {
        haki_lock_forked();
        NEED(!haki_lock_any_waits());
        _exit(0);
    }
    expect_well(pid);
    haki_lock_drop(&lock);
    unit_join(waits);
    cr_assert_not(haki_lock_any_waits());
}

/* Nor is an emulator believed that says it wipes pages and does not. */
Test(lock, a_page_that_is_not_wiped_is_noticed)
{
    static struct hak_process page;
    pthread_t holder;
    pid_t pid;

    atomic_store(&page.number, atomic_load(&lock_first));
    atomic_store(&page.pid, getpid());
    atomic_store(&haki_process, &page);
    holder = start_holder();
    pid = fork();
    if (pid == 0) {
        haki_lock_forked();
        take_over();
        _exit(0);
    }
    expect_well(pid);
    end_holder(holder);
}
