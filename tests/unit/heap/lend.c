/*
 * lend.c - tests of heaps that are lent while their threads sleep.
 */
#include "heap/lend.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <time.h>

#include "meet.h"
#include "os/os.h"
#include "range/purge.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(lend, .timeout = 300);

#define SKIP_UNLESS_SEEN()                                                     \
    do {                                                                       \
        if (!is_seen()) {                                                      \
            cr_skip("who sleeps is not to be seen here");                      \
        }                                                                      \
    } while (0)

static bool is_seen(void);

static void nothing(int number)
{
    (void)number;
}

/* A thread that has some blocks in its bins, does one thing, and ends. */
struct owner {
    void (*act)(struct owner *owner);
    pthread_t thread;
    _Atomic(struct hak_heap *) heap;
    atomic_bool acts, go;
    atomic_bool done;
    void *block;
    void *_Atomic other; /* what `act` leaves for others to free */
};

static size_t in_bins(const struct hak_heap *heap)
{
    size_t lists = 0;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        lists += heap->tiny.bins[c].head != NULL;
    }
    return lists;
}

static void *own(void *arg)
{
    struct owner *owner = arg;

    hak_free(hak_malloc(100));
    hak_free(hak_malloc(3000));
    owner->block = hak_malloc(200);
    unit_fill(owner->block, 200, 7);
    atomic_store(&owner->heap, haki_thread_own());
    NEED(in_bins(owner->heap) > 0);
    atomic_store(&owner->acts, true);
    owner->act(owner);
    NEED(hak_malloc(100) != NULL && haki_thread_own() == owner->heap);
    NEED(unit_filled(owner->block, 200, 7));
    hak_free(owner->block);
    atomic_store(&owner->done, true);
    return NULL;
}

static void doze(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    while (nanosleep(&time, &time) != 0) {
    }
}

static void start(struct owner *owner, void (*act)(struct owner *owner))
{
    owner->act = act;
    owner->thread = unit_start(own, owner);
    while (!atomic_load(&owner->acts)) {
        sched_yield();
    }
    doze(20);
}

static void finish(struct owner *owner)
{
    atomic_store(&owner->go, true);
    unit_join(owner->thread);
    NEED(owner->done);
}

static unsigned lent; /* calls of `work` */

static void work(struct hak_heap *heap)
{
    lent++;
    haki_heap_trim(heap);
    NEED(in_bins(heap) == 0);
}

/* Sleeps until it is told to go on. */
static void sleeps(struct owner *owner)
{
    while (!atomic_load(&owner->go)) {
        doze(50);
    }
}

/* Of what must not be are a few tries, until what must be there are many. */
enum { FEW = 20, MANY = 10000 };

/* Tries until it is lent or `tries` are over. */
static bool try(struct owner *owner, unsigned tries)
{
    for (unsigned n = 0; n < tries; n++) {
        if (haki_lend(owner->heap, work)) {
            return true;
        }
        doze(2);
    }
    return false;
}

static bool is_seen(void)
{
    struct owner owner = {0};
    bool seen;

    start(&owner, sleeps);
    seen = try(&owner, 200);
    finish(&owner);
    return seen;
}

/* ---- who sleeps ------------------------------------------------------------------ */

Test(lend, the_heap_of_a_thread_that_sleeps)
{
    struct owner owner = {0};

    SKIP_UNLESS_SEEN();
    lent = 0;
    start(&owner, sleeps);
    cr_assert(try(&owner, MANY));
    cr_assert_eq(lent, 1);
    finish(&owner);
}

static void waits_in_poll(struct owner *owner)
{
    while (!atomic_load(&owner->go)) {
        poll(NULL, 0, 50);
    }
}

static void waits_for_mutex(struct owner *owner)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    struct timespec until;

    pthread_mutex_lock(&mutex);
    while (!atomic_load(&owner->go)) {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 50000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&never, &mutex, &until);
    }
    pthread_mutex_unlock(&mutex);
}

static int pipe_ends[2];

static void reads(struct owner *owner)
{
    char c;

    NEED(read(pipe_ends[0], &c, 1) == 1);
    (void)owner;
}

Test(lend, of_threads_that_wait_for_others)
{
    void (*const acts[])(struct owner *) = {waits_in_poll, waits_for_mutex,
                                            reads};

    SKIP_UNLESS_SEEN();
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        struct owner owner = {0};

        NEED(pipe(pipe_ends) == 0);
        start(&owner, acts[i]);
        cr_expect(try(&owner, MANY), "act %zu", i);
        NEED(write(pipe_ends[1], "", 1) == 1);
        finish(&owner);
        close(pipe_ends[0]);
        close(pipe_ends[1]);
    }
}

static void is_busy(struct owner *owner)
{
    while (!atomic_load(&owner->go)) {
    }
}

/* In a system call that is not one of those. */
static void suspends(struct owner *owner)
{
    sigset_t none;

    sigemptyset(&none);
    while (!atomic_load(&owner->go)) {
        sigsuspend(&none);
    }
}

/* A signal may come before it suspends itself: until it has ended, again. */
static void wake(struct owner *owner)
{
    atomic_store(&owner->go, true);
    while (!atomic_load(&owner->done)) {
        pthread_kill(owner->thread, SIGUSR2);
        doze(1);
    }
}

Test(lend, not_of_one_that_runs_or_suspends)
{
    struct owner owner = {0};
    struct owner other = {0};

    signal(SIGUSR2, nothing);
    start(&owner, is_busy);
    cr_assert_not(try(&owner, FEW));
    finish(&owner);
    start(&other, suspends);
    cr_assert_not(try(&other, FEW));
    wake(&other);
    finish(&other);
}

/* ---- for want of memory: those that were used ----------------------------------- */

static void work_and_note(struct hak_heap *heap)
{
    work(heap);
    heap->trimmed_use = haki_heap_use(heap);
}

/* Asks until it was found asleep, `tries` times. */
static unsigned lend_used(unsigned tries)
{
    unsigned before = lent;

    for (unsigned n = 0; n < tries && lent == before; n++) {
        haki_lend_used(work_and_note);
        doze(2);
    }
    return lent - before;
}

static void sleeps_and_leaves(struct owner *owner)
{
    atomic_store(&owner->other, hak_malloc(700));
    sleeps(owner);
}

Test(lend, once_until_it_is_used_again)
{
    struct owner owner = {0};

    SKIP_UNLESS_SEEN();
    start(&owner, sleeps_and_leaves);
    lent = 0;
    cr_assert_eq(lend_used(MANY), 1);
    cr_assert_eq(lend_used(FEW), 0);
    hak_free(atomic_load(&owner.other));
    haki_thread_trim(); /* sends it */
    cr_assert_eq(lend_used(MANY), 1);
    cr_assert_eq(lend_used(FEW), 0);
    finish(&owner);
}

/* One that runs is asked whether it sleeps once in 10 ms. */
Test(lend, one_that_runs_is_not_asked_all_the_time)
{
    struct owner owner = {0};
    uint32_t until;

    start(&owner, is_busy);
    lent = 0;
    haki_lend_used(work_and_note);
    until = atomic_load(&owner.heap)->lend_not_before;
    cr_assert_neq(until, 0);
    for (int n = 0; n < 100; n++) {
        haki_lend_used(work_and_note);
        /* Else it was late, if not before then in the midst of it. */
        if (!haki_tick_reached(haki_os_tick(), until)) {
            cr_assert_eq(atomic_load(&owner.heap)->lend_not_before, until);
        }
    }
    doze(20);
    haki_lend_used(work_and_note);
    cr_assert_neq(atomic_load(&owner.heap)->lend_not_before, until);
    cr_assert_eq(lent, 0);
    finish(&owner);
}

/* ---- signals' handlers --------------------------------------------------------- */

static struct owner *handled;

static void on_signal(int number)
{
    (void)number;
    while (!atomic_load(&handled->go)) {
        doze(50);
    }
}

static void spins_until(struct owner *owner)
{
    is_busy(owner);
}

/* Its hot path may be what the handler has interrupted. */
static void check_handler(int flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    struct owner owner = {0};

    handled = &owner;
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    start(&owner, spins_until);
    pthread_kill(owner.thread, SIGUSR1);
    doze(50);
    cr_assert_not(try(&owner, FEW), "flags %#x", flags);
    finish(&owner);
}

Test(lend, not_of_one_in_a_handler)
{
    check_handler(0);
    check_handler(SA_NODEFER);
    check_handler(SA_RESETHAND);
}

/* Nothing is blocked then, and none is set up any more. */
Test(lend, not_of_one_in_a_handler_that_was_set_up_for_one_time)
{
    check_handler((int)(SA_RESETHAND | SA_NODEFER));
}

Test(lend, not_of_one_in_a_handler_of_a_fault)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct owner owner = {0};

    handled = &owner;
    NEED(sigaction(SIGABRT, &action, NULL) == 0);
    start(&owner, spins_until);
    pthread_kill(owner.thread, SIGABRT);
    doze(50);
    cr_assert_not(try(&owner, FEW));
    finish(&owner);
}

Test(lend, where_signals_were_blocked_from_the_start)
{
    struct owner owner = {0};
    sigset_t all;

    SKIP_UNLESS_SEEN();
    signal(SIGUSR1, nothing);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    start(&owner, sleeps);
    cr_assert(try(&owner, MANY));
    finish(&owner);
}

/* ---- other numbers ------------------------------------------------------------- */

static void *borrows(void *arg)
{
    NEED(!try(arg, FEW));
    return arg;
}

/*
 * In a namespace of process numbers whose /proc is not mounted: a thread that
 * runs has, there, the number that one which sleeps has in /proc.
 */
static void run_beside_namesake(void)
{
    struct owner owner = {0};
    pthread_t borrower;
    char number[32];
    ssize_t n = readlink("/proc/self", number, sizeof(number) - 1);
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);

    NEED(n > 0);
    number[n] = '\0';
    n = snprintf(number, sizeof(number), "%d", atoi(number) - 1);
    if (fd < 0 || write(fd, number, (size_t)n) != n) {
        _exit(77);
    }
    close(fd);
    start(&owner, is_busy);
    borrower = unit_start(borrows, &owner);
    doze(300);
    unit_join(borrower);
    finish(&owner);
    _exit(0);
}

Test(lend, not_of_one_that_proc_knows_by_another_number)
{
    int status;
    pid_t child;

    UNIT_SKIP_IF_GCC_TSAN();
    if (unshare(CLONE_NEWPID) != 0) {
        cr_skip("no namespace can be made");
    }
    child = fork();
    if (child == 0) {
        run_beside_namesake();
    }
    NEED(child > 0 && waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        cr_skip("numbers can't be chosen");
    }
    cr_assert_eq(status, 0);
}

/* ---- by who sends to it --------------------------------------------------------- */

enum { SENT = 64 * 64 * 12 };
static void *mail[SENT];
static atomic_uint asked;
static atomic_bool mailed;

static void count_asked(const char *name)
{
    atomic_fetch_add(&asked, strcmp(name, "lend") == 0);
}

static void makes_and_is_busy(struct owner *owner)
{
    for (size_t i = 0; i < SENT; i++) {
        mail[i] = hak_malloc(100);
        NEED(mail[i] != NULL);
    }
    atomic_store(&mailed, true);
    is_busy(owner);
}

static void makes_and_sleeps(struct owner *owner)
{
    for (size_t i = 0; i < SENT; i++) {
        mail[i] = hak_malloc(100);
        NEED(mail[i] != NULL);
    }
    atomic_store(&mailed, true);
    sleeps(owner);
}

/* How often the owner is asked for its heap while its blocks are freed. */
static unsigned asks(void (*act)(struct owner *owner), uint32_t *time)
{
    struct owner owner = {0};

    atomic_store(&mailed, false);
    start(&owner, act);
    while (!atomic_load(&mailed)) {
        sched_yield();
    }
    doze(50);
    atomic_store(&asked, 0);
    atomic_store(&haki_test_meet, count_asked);
    *time = haki_os_tick();
    for (size_t i = 0; i < SENT; i++) {
        hak_free(mail[i]);
    }
    *time = haki_os_tick() - *time;
    atomic_store(&haki_test_meet, NULL);
    finish(&owner);
    return atomic_load(&asked);
}

/*
 * One that is at work is not asked all the time. One that sleeps is asked for each
 * few batches, if it is found asleep each time: it may have been kept from it, or
 * have woken.
 */
Test(lend, a_sleeper_gets_its_mail_taken_in)
{
    uint32_t time;
    unsigned count;

    SKIP_UNLESS_SEEN();
    setenv("HAKMEM_BACKGROUND_THREAD", "0", 1);
    count = asks(makes_and_is_busy, &time);
    cr_expect_leq(count, 1 + time / 20, "%u in %u ms", count, time);
    count = asks(makes_and_sleeps, &time);
    for (int again = 0; again < 100 && count < 6; again++) {
        count = asks(makes_and_sleeps, &time);
    }
    cr_expect_geq(count, 6, "%u in %u ms", count, time);
}

/* ---- who wakes ------------------------------------------------------------------- */

static struct owner *waking;
static void (*when_lent)(void);

static void slow_work(struct hak_heap *heap)
{
    atomic_store(&waking->go, true);
    when_lent();
    NEED(!atomic_load(&waking->done));
    haki_heap_trim(heap);
}

static void a_while(void)
{
    doze(200);
}

/* It allocates, but not before it has its heap again. */
Test(lend, one_that_wakes_waits)
{
    struct owner owner = {0};
    bool done = false;

    SKIP_UNLESS_SEEN();
    waking = &owner;
    when_lent = a_while;
    start(&owner, sleeps);
    for (unsigned n = 0; n < MANY && !done; n++) {
        done = haki_lend(owner.heap, slow_work);
        doze(done ? 0 : 2);
    }
    cr_assert(done);
    finish(&owner);
}

pid_t _Fork(void) __attribute__((weak));

/* The owner forks while its heap is lent: nobody gives it back in the child. */
static void forks(struct owner *owner)
{
    pid_t child;
    int status;

    sleeps(owner);
    child = _Fork != NULL ? _Fork() : fork();
    if (child == 0) {
        NEED(hak_malloc(100) != NULL);
        NEED(unit_filled(owner->block, 200, 7));
        hak_free(owner->block);
        hak_free(hak_malloc(5000));
        _exit(0);
    }
    NEED(child > 0 && waitpid(child, &status, 0) == child);
    NEED(status == 0);
}

Test(lend, one_that_forks_has_a_heap_in_the_child)
{
    struct owner owner = {0};
    bool done = false;

    SKIP_UNLESS_SEEN();
    UNIT_SKIP_IF_WATCHED("their own fork handlers are needed");
    waking = &owner;
    when_lent = a_while;
    start(&owner, forks);
    for (unsigned n = 0; n < MANY && !done; n++) {
        done = haki_lend(owner.heap, slow_work);
        doze(done ? 0 : 2);
    }
    cr_assert(done);
    finish(&owner);
}

/* ---- many ------------------------------------------------------------------------- */

enum { OWNERS = 6, BLOCKS = 200 };
static atomic_bool over;

static void handle_shortly(int number)
{
    (void)number;
    doze(1);
}

static void *live(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    char *blocks[BLOCKS] = {NULL};
    size_t sizes[BLOCKS];

    while (!atomic_load(&over)) {
        for (unsigned n = unit_below(&random, 400); n > 0; n--) {
            size_t i = unit_below(&random, BLOCKS);

            if (blocks[i] != NULL) {
                NEED(unit_filled(blocks[i], sizes[i], (unsigned)i));
                hak_free(blocks[i]);
            }
            sizes[i] = 1 + unit_below(&random, n % 8 == 0 ? 70000 : 700);
            blocks[i] = hak_malloc(sizes[i]);
            NEED(blocks[i] != NULL);
            unit_fill(blocks[i], sizes[i], (unsigned)i);
        }
        usleep((useconds_t)unit_below(&random, 6000));
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        if (blocks[i] != NULL) {
            NEED(unit_filled(blocks[i], sizes[i], (unsigned)i));
        }
        hak_free(blocks[i]);
    }
    return NULL;
}

static void count_work(struct hak_heap *heap)
{
    lent++;
    haki_heap_trim(heap);
}

/* Threads work and sleep, are interrupted by handlers that sleep, are lent. */
Test(lend, heaps_stay_whole)
{
    struct sigaction action = {.sa_handler = handle_shortly,
                               .sa_flags = SA_RESTART};
    pthread_t threads[OWNERS];
    unsigned enough = (unsigned)unit_scale(300, 30);

    SKIP_UNLESS_SEEN();
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    lent = 0;
    for (uintptr_t i = 0; i < OWNERS; i++) {
        threads[i] = unit_start(live, (void *)(i + 1));
    }
    for (unsigned n = 0; lent < enough; n++) {
        haki_lend_all(count_work);
        if (n % 16 == 0) {
            pthread_kill(threads[n / 16 % OWNERS], SIGUSR1);
        }
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < OWNERS; i++) {
        unit_join(threads[i]);
    }
}
