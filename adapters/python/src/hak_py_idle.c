/*
 * hak_py_idle.c - gives memory back while the program makes no requests.
 *
 * Slow paths give back what has been free for a while, but a sleeping program
 * takes none. So when a slow path sees that free memory waits, it starts a
 * thread. The thread looks every half HAKMEM_PURGE_DELAY (and when something is
 * due) until nothing waits any more, then ends:
 *
 *     none --something waits--> runs --nothing does, or it is told to--> none
 *
 * The thread has no Python state, never asks for the GIL, has all signals
 * blocked and a small stack. It borrows the GIL's heap (hak_py_loan.c) for some
 * microseconds when nobody has the GIL. What the heap's bins keep goes back if
 * the heap has not changed since the previous look.
 *
 * A fork waits until the thread is gone, from the kernel's list too: a child has
 * one thread, and 3.12 warns of a fork in a process with several. If it is not
 * gone after BOUND, the thread that forks must hold what it waits for (a signal
 * handler forked inside a slow path of ours).
 *
 * `lock` guards starting and ending, and no one waits for the thread while
 * holding it; signals are blocked meanwhile, as a handler may fork.
 */
#include <errno.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hak_py.h"

/*
 * make check-python-loans sets this: the heap is then borrowed all the time and
 * its bins emptied each time, so that a thread that wrongly uses it meanwhile
 * is caught.
 */
#ifndef HAK_PY_EAGER
#define HAK_PY_EAGER 0
#endif

#define STACK (64 * HAK_KIB)
#define BOUND 2000 /* ms that a fork waits for the thread's end */
#define WHILE 20   /* ms that the next start waits, with `lock` */
#define SPINS 50
#define LEAST_PAUSE 10  /* ms between two looks */
#define AGAIN_AFTER 500 /* ms, after a failed start */
#define LATER 20        /* ms after a fork, see hak_py_idle_release */
/* The C library is asked to trim when it has given out this many blocks, and
 * has got this many back since it was last asked. */
#define LIBC_GAVE 256
#define LIBC_FREED HAK_PY_NOTICE_FOREIGN

/* Values of hak_py_idle_seen: why waiting memory need not be noticed. */
enum { RUNS = 1, FORBIDDEN = 2, HELD = 4 };

_Atomic(uint32_t) hak_py_idle_seen = FORBIDDEN;

static hak_lock lock = HAK_LOCK_INIT(NULL);
static unsigned holds;      /* under lock: of forks */
static bool was_running;    /* under lock: when the first of them began */
static uint32_t not_before; /* under lock: no thread until then; 0: any time */

static _Atomic(uint32_t) order;  /* a futex; 1: the thread is to end */
static _Atomic(uint64_t) number; /* the thread's, see lock.h; 0: not yet */

/* The kernel's number of the last thread; 0: it is gone. */
#define BEGINS (-1)
static _Atomic(int32_t) tid;

/* What the thread has seen; kept from one thread to the next. */
static struct {
    uint32_t next;     /* time of the next look */
    uint64_t activity; /* of the GIL's heap at the last one */
    uint64_t libc;     /* the same for the C library, as far as known */
    bool collected;    /* the heap has nothing to give since */
} seen;

/* How many of the C library's blocks were freed before it was last trimmed. */
static _Atomic(uint64_t) libc_trimmed;

/* Milliseconds of the clock that haki_embed_due uses. */
static uint32_t tick(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

/* ---- is there something to do? ---------------------------------------------- */

static uint64_t foreign_frees(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        sum += atomic_load_explicit(&hak_py.domains[i].foreign,
                                    memory_order_relaxed);
    }
    return sum;
}

/* How many blocks above 1024 B, which are usually the C library's, were given
 * out. */
static uint64_t libc_gave(void)
{
    uint64_t gave = 0;

    for (unsigned i = 0; i < HAK_PY_DOMAINS; i++) {
        gave += atomic_load_explicit(&hak_py.domains[i].fallback[HAK_PY_LARGE],
                                     memory_order_relaxed);
    }
    return gave;
}

static bool libc_is_due(void)
{
    return libc_gave() >= LIBC_GAVE &&
           foreign_frees() -
                   atomic_load_explicit(&libc_trimmed, memory_order_relaxed) >=
               LIBC_FREED;
}

/* Whether the GIL's heap has ACE runs in its cache; may be a moment old. */
static HAK_RACY_READER bool keeps_runs(void)
{
    const struct hak_heap *heap =
        __atomic_load_n(&hak_py.heap, __ATOMIC_RELAXED);

    return heap != NULL && haki_embed_keeps_runs(heap);
}

bool hak_py_idle_is_due(void)
{
    return haki_embed_waits() || keeps_runs() || libc_is_due();
}

/* ---- a look ------------------------------------------------------------------ */

/* Looks at the GIL's heap, which is borrowed. */
static void look_at(struct hak_heap *heap)
{
    if (!HAK_PY_EAGER && haki_embed_activity(heap) != seen.activity) {
        seen.collected = false;
        haki_heap_tick_all(heap);
    } else if (HAK_PY_EAGER || !seen.collected) {
        haki_embed_trim(heap);
        seen.collected = true;
    }
    seen.activity = haki_embed_activity(heap);
}

/* The C library need not be borrowed, but its trim locks others out meanwhile.
 */
static void look_at_libc(void)
{
    uint64_t freed = foreign_frees();
    uint64_t now = freed + libc_gave();

    if (now == seen.libc && libc_is_due()) {
        malloc_trim(0);
        atomic_store(&libc_trimmed, freed);
    }
    seen.libc = now;
}

static uint32_t half_delay(void)
{
    size_t half = haki_option(HAK_OPT_purge_delay) / 2;

    return (uint32_t)haki_max(half, LEAST_PAUSE);
}

static void look(void)
{
    uint32_t now = tick();

    if (HAK_PY_EAGER || haki_tick_reached(now, seen.next)) {
        seen.next = now + half_delay();
        if (hak_py_loan_begin()) {
            look_at(hak_py.heap);
            hak_py_loan_end();
        }
        look_at_libc();
    }
    haki_heap_tick(NULL);
}

/* Milliseconds to the next one. */
static uint32_t pause_time(void)
{
    uint32_t now = tick();
    uint32_t due = haki_embed_due();
    uint32_t at = seen.next;

    if (due != 0 && haki_tick_reached(at, due)) {
        at = due;
    }
    return haki_tick_reached(now, at)
               ? 1
               : (uint32_t)haki_min(at - now, half_delay());
}

/* ---- the thread ---------------------------------------------------------------- */

/* Waits; false: the thread is to end. */
static bool rest(uint32_t ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

    if (!HAK_PY_EAGER && atomic_load(&order) == 0) {
        syscall(SYS_futex, &order, FUTEX_WAIT_PRIVATE, 0, &time, NULL, 0);
    }
    return atomic_load(&order) == 0;
}

/* Whether the thread may end because nothing waits. A thread that frees
 * something from here on starts another one. */
static bool leave(void)
{
    bool last;

    if (hak_py_idle_is_due()) {
        return false;
    }
    haki_lock_take(&lock);
    last = atomic_load(&order) != 0;
    if (!last) {
        atomic_fetch_and(&hak_py_idle_seen, ~(uint32_t)RUNS);
        last = !hak_py_idle_is_due();
        if (!last) {
            atomic_fetch_or(&hak_py_idle_seen, RUNS);
        }
    }
    haki_lock_drop(&lock);
    return last;
}

static void *run(void *unused)
{
    (void)unused;
    atomic_store(&tid, (int32_t)syscall(SYS_gettid));
    atomic_store(&number, haki_lock_number());
    pthread_setname_np(pthread_self(), "hakmem");
    while (rest(pause_time())) {
        look();
        if (leave()) {
            break;
        }
    }
    return NULL;
}

/* False: there is no such thread, or it can't be found out. */
static bool is_there(int32_t thread)
{
    return syscall(SYS_tgkill, getpid(), thread, 0) == 0 || errno != ESRCH;
}

/* Waits, for `most` ms, until the kernel has forgotten the thread, which has
 * been told to end. */
static bool await_gone(uint32_t most)
{
    uint32_t end = tick() + most;
    int32_t thread;

    for (unsigned i = 0; (thread = atomic_load(&tid)) != 0; i++) {
        if (thread != BEGINS && !is_there(thread)) {
            atomic_compare_exchange_strong(&tid, &thread, 0);
        } else if (i < SPINS) {
            sched_yield();
        } else {
            struct timespec time = {0, 20000};

            if (haki_tick_reached(tick(), end)) {
                return false;
            }
            nanosleep(&time, NULL);
        }
    }
    return true;
}

static int create(size_t stack)
{
    pthread_attr_t attr;
    pthread_t thread;
    int error = pthread_attr_init(&attr);

    if (error != 0) {
        return error;
    }
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (stack != 0) {
        pthread_attr_setstacksize(&attr, stack);
    }
    error = pthread_create(&thread, &attr, run, NULL);
    pthread_attr_destroy(&attr);
    return error;
}

/* Called under `lock`, with all signals blocked. */
static void start_locked(void)
{
    uint32_t now = tick();
    int error;

    HAK_HELD(&lock);
    if (atomic_load(&hak_py_idle_seen) != 0 ||
        (not_before != 0 && !haki_tick_reached(now, not_before)) ||
        !await_gone(WHILE)) {
        return;
    }
    not_before = 0;
    atomic_store(&order, 0);
    atomic_store(&number, 0);
    atomic_store(&tid, BEGINS);
    atomic_fetch_or(&hak_py_idle_seen, RUNS);
    if (!(seen.next - now - 1 < half_delay())) {
        seen.next = now + half_delay();
    }
    error = create(STACK);
    if (error == EINVAL) { /* thread-local data is larger */
        error = create(0);
    }
    if (error != 0) {
        not_before = haki_some_time(now + AGAIN_AFTER);
        atomic_store(&tid, 0);
        atomic_fetch_and(&hak_py_idle_seen, ~(uint32_t)RUNS);
    }
}

/* ---- the lock, with all signals blocked ------------------------------------ */

static void take(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
    haki_lock_take(&lock);
}

static void drop(const sigset_t *before)
{
    haki_lock_drop(&lock);
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

void hak_py_idle_start(void)
{
    int before = errno;
    sigset_t signals;

    take(&signals);
    start_locked();
    drop(&signals);
    errno = before;
}

/* Tells the thread to end. */
static void stop_locked(void)
{
    HAK_HELD(&lock);
    if ((atomic_fetch_and(&hak_py_idle_seen, ~(uint32_t)RUNS) & RUNS) != 0) {
        atomic_store(&order, 1);
        syscall(SYS_futex, &order, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

void hak_py_idle_allow(bool on)
{
    sigset_t signals;

    take(&signals);
    if (on) {
        atomic_fetch_and(&hak_py_idle_seen, ~(uint32_t)FORBIDDEN);
        if (hak_py_idle_is_due()) {
            start_locked();
        }
    } else {
        atomic_fetch_or(&hak_py_idle_seen, FORBIDDEN);
        stop_locked();
    }
    drop(&signals);
    if (!on) {
        await_gone(BOUND);
    }
}

bool hak_py_idle_is_allowed(void)
{
    return (atomic_load(&hak_py_idle_seen) & FORBIDDEN) == 0;
}

/* ---- fork ----------------------------------------------------------------------- */

void hak_py_idle_hold(void)
{
    int before = errno;
    sigset_t signals;

    take(&signals);
    if (holds++ == 0) {
        was_running = (atomic_load(&hak_py_idle_seen) & RUNS) != 0;
        atomic_fetch_or(&hak_py_idle_seen, HELD);
    }
    stop_locked();
    drop(&signals);
    await_gone(BOUND);
    errno = before;
}

bool hak_py_idle_release(bool later)
{
    int before = errno;
    bool resumes = false;
    sigset_t signals;

    take(&signals);
    if (holds > 0 && --holds == 0) {
        atomic_fetch_and(&hak_py_idle_seen, ~(uint32_t)HELD);
        resumes = was_running;
        not_before = later ? haki_some_time(tick() + LATER) : 0;
        if (resumes && !later) {
            start_locked();
        }
    }
    drop(&signals);
    errno = before;
    return resumes && later;
}

void hak_py_idle_resume(void)
{
    sigset_t signals;

    take(&signals);
    not_before = 0;
    start_locked();
    drop(&signals);
}

static void fork_parent(void)
{
    hak_py_idle_release(false);
}

/* In a child there is no thread, whatever the parent had. */
static void begin_anew(void)
{
    atomic_fetch_and(&hak_py_idle_seen, FORBIDDEN);
    atomic_store(&tid, 0);
    atomic_store(&number, 0);
    atomic_store(&libc_trimmed, foreign_frees()); /* the parent's to trim */
    holds = 0;
}

static void fork_child(void)
{
    sigset_t signals;

    take(&signals);
    begin_anew();
    drop(&signals);
    if (atomic_load(&hak_py.lent)) {
        hak_py_loan_await();
    }
}

void hak_py_idle_watch_forks(void)
{
    static bool done;

    if (!done) {
        done = true;
        pthread_atfork(hak_py_idle_hold, fork_parent, fork_child);
    }
}

void hak_py_idle_check(void)
{
    uint64_t thread = atomic_load(&number);

    if (thread != 0 && haki_lock_is_ghost(thread)) {
        fork_child();
    }
}
