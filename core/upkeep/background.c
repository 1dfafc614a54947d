/*
 * background.c - the thread that gives memory back while the program sleeps.
 *
 * Obeys HAKMEM_BACKGROUND_THREAD.
 */
#include "upkeep/background.h"

#include <errno.h>

#include "ace/ace.h"
#include "heap/lend.h"
#include "base/msg.h"
#include "settings/options.h"
#include "os/os.h"
#include "range/pressure.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "upkeep/look.h"

/* No thread is started while less than this waits to go back. */
#define LEAST HAK_RANGE_FREED_MUCH

/* How often it looks at threads' heaps after nothing waits any more. */
#define LOOKS_MORE 3

/*
 * Milliseconds: between two attempts to start it; from a fork to the first
 * attempt.
 */
#define RETRY 1000
#define PAUSE_AFTER_FORK 100

/* How long a fork waits for it to end. */
#define GOODBYE 100

/* The shortest sleep, between two portions when much is due; while somebody watches
 * (haki_look_watched); the longest. */
#define SLEEP_PORTION 1
#define SLEEP_WATCHED 100
#define SLEEP_LEAST 5
#define SLEEP_MOST 60000

static atomic_bool background_closed;
static atomic_uint background_pauses; /* in progress, for forks and others */
static atomic_flag background_starting = ATOMIC_FLAG_INIT;
static _Atomic(uint32_t)
    background_not_before; /* haki_os_tick() of the next attempt, or 0 */
static _Atomic(uint32_t) background_stop; /* it should end: it sleeps on this */

/*
 * It is about to end, and looks for the last time. While this is not set, a
 * thread that has freed memory and finds it running need not start another:
 * that last look, or an earlier one, sees what was freed.
 */
static atomic_bool background_leaving;

static void background_run(void);
static struct hak_os_thread background_thread = {.name = "hakmem",
                                                 .run = background_run};

/* ---- in the thread ----------------------------------------------------------- */

/* Milliseconds from now to `due`; SLEEP_MOST: never, or it is far away. */
static uint32_t background_time_to(uint32_t due, uint32_t now)
{
    if (due == 0) {
        return SLEEP_MOST;
    }
    return haki_tick_reached(now, due)
               ? 0
               : (uint32_t)haki_min(due - now, SLEEP_MOST);
}

static uint32_t background_range_due(void)
{
    return atomic_load_explicit(&haki_range_due, memory_order_relaxed);
}

static uint32_t background_ace_due(void)
{
    return atomic_load_explicit(&haki_ace_due, memory_order_relaxed);
}

/*
 * A heap that has not been used between two looks is trimmed, and what that
 * frees then waits for the whole delay.
 */
static uint32_t background_look_every(void)
{
    return (uint32_t)haki_max((size_t)haki_purge_delay() / 4, 10 * SLEEP_LEAST);
}

/* What the thread remembers from one round to the next. */
struct rounds {
    uint32_t look_at; /* when it next looks at threads' heaps */
    uint32_t looks;   /* how many are left, unless something waits */
};

/* Gives back what is due: see background_round_of. */
static uint32_t background_give_back(struct rounds *rounds)
{
    uint32_t now = haki_os_tick();
    uint32_t wait;
    bool more = haki_purge_portion(now);

    haki_ace_tick(now);
    if (haki_tick_reached(now, rounds->look_at)) {
        rounds->look_at = now + background_look_every();
        rounds->looks -= rounds->looks > 0;
        if (haki_thread_trim_idle() && rounds->looks == 0) {
            rounds->looks = 1;
        }
    }
    if (background_range_due() != 0 || background_ace_due() != 0) {
        rounds->looks = LOOKS_MORE;
    }
    if (rounds->looks == 0) {
        return 0;
    }
    wait = (uint32_t)haki_min(background_time_to(background_range_due(), now),
                              background_time_to(background_ace_due(), now));
    wait = (uint32_t)haki_min(wait, background_time_to(rounds->look_at, now));
    HAK_ASSERT(rounds->looks <= LOOKS_MORE && wait <= SLEEP_MOST);
    return more ? SLEEP_PORTION : (uint32_t)haki_max(wait, SLEEP_LEAST);
}

/* Waits until it may take locks; false: it must end. */
static bool background_join(void)
{
    enum hak_lock_joined joined = haki_lock_join();

    while (joined == HAK_LOCK_WAIT && atomic_load(&background_stop) == 0) {
        haki_os_wait(&background_stop, 0, 1);
        joined = haki_lock_join();
    }
    if (joined == HAK_LOCK_WAIT) {
        haki_lock_part();
    }
    return joined == HAK_LOCK_JOINED;
}

/* Whether somebody wants looks, whatever waits. */
static bool background_is_watched(void)
{
    uint32_t until = atomic_load(&haki_look_watched);

    return until != 0 && !haki_tick_reached(haki_os_tick(), until);
}

/* The sleep, so that it is not too long for that, nor none. */
static uint32_t background_wait_watched(uint32_t wait)
{
    if (!background_is_watched()) {
        return wait;
    }
    return wait == 0 ? SLEEP_WATCHED : (uint32_t)haki_min(wait, SLEEP_WATCHED);
}

/* Does a round. Returns milliseconds to the next one; 0: nothing is left. */
static uint32_t background_round_of(struct rounds *rounds)
{
    uint32_t wait = 0;

    if (background_join()) {
        wait = background_wait_watched(background_give_back(rounds));
        haki_look_show(haki_os_tick(), wait == 0);
        wait = background_wait_watched(wait);
        HAK_ASSERT(haki_lock_self.held == 0); /* it sleeps next, perhaps long */
        HAK_ASSERT(haki_self == &haki_heap_exited); /* it has no heap */
        haki_lock_part();
    }
    return wait;
}

static void background_run(void)
{
    struct rounds rounds = {.looks = LOOKS_MORE};
    uint32_t wait = background_look_every();

    haki_lock_begin_stranger();
    haki_self = (struct hak_heap *)&haki_heap_exited;
    rounds.look_at = haki_os_tick();
    while (wait != 0 && atomic_load(&background_stop) == 0) {
        wait = background_round_of(&rounds);
        if (wait == 0) {
            atomic_store(&background_leaving, true);
            rounds.look_at = haki_os_tick();
            wait = background_round_of(&rounds);
            atomic_store(&background_leaving, wait == 0);
        }
        if (wait != 0 && atomic_load(&background_stop) == 0) {
            haki_os_wait(&background_stop, 0, wait);
        }
    }
}

/* ---- its start ---------------------------------------------------------------- */

/*
 * Whether enough waits; the size of blocks sent to other heaps is not known
 * here.
 */
static bool background_is_worth_it(void)
{
    return background_is_watched() || background_ace_due() != 0 ||
           atomic_load(&haki_range_freed.sent) >= LEAST ||
           haki_range_due_bytes() >= LEAST;
}

static void background_start(void)
{
    void *const locals[] = {&haki_lock_self, (char *)&haki_lock_self + 1,
                            &haki_self};

    HAK_ASSERT(atomic_load(&background_thread.id) ==
               0); /* there is one at most */
    haki_lock_not_alone();
    atomic_store(&background_stop, 0);
    atomic_store(&background_leaving, false);
    if (!haki_os_thread_start(&background_thread, locals,
                              sizeof(locals) / sizeof(locals[0]))) {
        atomic_store(&background_not_before,
                     haki_some_time(haki_os_tick() + RETRY));
    }
}

/* Whether it is running and will see what was freed up to now. */
static bool background_is_at_work(void)
{
    return atomic_load(&background_thread.id) != 0 &&
           !atomic_load(&background_leaving) &&
           atomic_load(&background_stop) == 0;
}

/* Whether it may be started now. */
static bool background_may_start(void)
{
    uint32_t at = atomic_load(&background_not_before);

    return atomic_load(&background_pauses) == 0 &&
           atomic_load(&background_thread.id) == 0 &&
           (at == 0 || haki_tick_reached(haki_os_tick(), at));
}

static size_t background_set_to_0(_Atomic(size_t) *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed) != 0
               ? atomic_exchange(counter, 0)
               : 0;
}

/* Starts counting again; returns the former count, at least 1. */
static size_t background_count_anew(void)
{
    return background_set_to_0(&haki_range_freed.slabs) +
           background_set_to_0(&haki_range_freed.runs) +
           background_set_to_0(&haki_range_freed.sent) +
           background_set_to_0(&haki_range_freed.again);
}

void haki_background_start(void)
{
    if (atomic_load(&background_thread.id) != 0) {
        size_t freed = background_count_anew();

        if (!background_is_at_work()) {
            atomic_fetch_add(&haki_range_freed.again, freed);
        }
        return;
    }
    if (atomic_load(&background_closed) ||
        haki_option(HAK_OPT_background_thread) == 0) {
        background_count_anew();
        return;
    }
    if (!background_may_start() ||
        atomic_flag_test_and_set(&background_starting)) {
        return;
    }
    if (background_may_start()) {
        bool worth_it = background_is_worth_it();

        background_count_anew();
        if (worth_it) {
            background_start();
        }
    }
    atomic_flag_clear(&background_starting);
}

void haki_background_close(void)
{
    atomic_store(&background_closed, true);
    haki_lend_close();
}

int32_t haki_background_thread(void)
{
    return (int32_t)atomic_load(&background_thread.id);
}

/* ---- its end, forks ------------------------------------------------------------ */

/*
 * Ends the thread. What waited counts again, so that it is restarted when that
 * is allowed. It may be waiting for a lock that the calling thread, in a signal
 * handler, holds.
 */
static void background_end(void)
{
    if (atomic_load(&background_thread.id) != 0) {
        atomic_store(&background_stop, 1);
        haki_os_wake(&background_stop);
        if (haki_lock_self.held == 0) {
            haki_os_thread_wait(&background_thread, GOODBYE);
        }
        atomic_store(&haki_range_freed.again, LEAST);
    }
}

void haki_background_pause(void)
{
    atomic_fetch_add(&background_pauses, 1);
    background_end();
}

void haki_background_resume(void)
{
    atomic_store(&background_not_before,
                 haki_some_time(haki_os_tick() + PAUSE_AFTER_FORK));
    atomic_fetch_sub(&background_pauses, 1);
}

static void background_fork_child(void)
{
    atomic_store(&background_thread.id, 0);
    atomic_store(&background_pauses, 0);
    atomic_store(&background_not_before, 0);
    atomic_flag_clear(&background_starting);
}

__attribute__((constructor)) static void background_watch_forks(void)
{
    if (pthread_atfork(haki_background_pause, haki_background_resume,
                       background_fork_child) == 0) {
        haki_range_on_much = haki_background_start;
    } else {
        haki_background_close();
        haki_warn("pthread_atfork failed: memory does not go back while the "
                  "program sleeps");
    }
}

/*
 * Other destructors run after this one; the thread would only slow them down.
 */
__attribute__((destructor)) static void background_at_exit(void)
{
    atomic_store(&background_closed, true);
    background_end();
}
