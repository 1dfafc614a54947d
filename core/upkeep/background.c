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

/* With less than this waiting no thread is started. */
#define LEAST HAK_RANGE_FREED_MUCH

/* Looks at threads' heaps after the last time that something waited. */
#define LOOKS_MORE 3

/* Milliseconds: between two attempts to start it; to the first after a fork. */
#define RETRY 1000
#define PAUSE_AFTER_FORK 100

/* How long a fork waits for it to be gone. */
#define GOODBYE 100

/* The shortest sleep, between two portions of much; and the longest. */
#define SLEEP_PORTION 1
#define SLEEP_LEAST 5
#define SLEEP_MOST 60000

static atomic_bool closed;
static atomic_uint pauses; /* under way, of forks and others */
static atomic_flag starting = ATOMIC_FLAG_INIT;
static _Atomic(uint32_t)
    not_before;                /* haki_os_tick() of the next attempt, or 0 */
static _Atomic(uint32_t) stop; /* it is to end: it sleeps on this */

/*
 * It is about to end and looks for the last time. Who has freed and finds it there
 * and this not set need not start another: what was freed is seen by that look, or
 * by one before.
 */
static atomic_bool leaving;

static void run(void);
static struct hak_os_thread thread = {.name = "hakmem", .run = run};

/* ---- in the thread ----------------------------------------------------------- */

/* Milliseconds from now to `due`; SLEEP_MOST: never, or it is far away. */
static uint32_t time_to(uint32_t due, uint32_t now)
{
    if (due == 0) {
        return SLEEP_MOST;
    }
    return haki_tick_reached(now, due)
               ? 0
               : (uint32_t)haki_min(due - now, SLEEP_MOST);
}

static uint32_t range_due(void)
{
    return atomic_load_explicit(&haki_range_due, memory_order_relaxed);
}

static uint32_t ace_due(void)
{
    return atomic_load_explicit(&haki_ace_due, memory_order_relaxed);
}

/*
 * A heap that has not been used from one look to the next is trimmed, and what
 * comes of it then waits the whole delay.
 */
static uint32_t look_every(void)
{
    return (uint32_t)haki_max((size_t)haki_purge_delay() / 4, 10 * SLEEP_LEAST);
}

/* What the thread knows from one round to the next. */
struct rounds {
    uint32_t look_at; /* when it next looks at threads' heaps */
    uint32_t looks;   /* that are left, unless something waits */
};

/* Gives back what is due: see round_of. */
static uint32_t give_back(struct rounds *rounds)
{
    uint32_t now = haki_os_tick();
    uint32_t wait;
    bool more = haki_purge_portion(now);

    haki_ace_tick(now);
    if (haki_tick_reached(now, rounds->look_at)) {
        rounds->look_at = now + look_every();
        rounds->looks -= rounds->looks > 0;
        if (haki_thread_trim_idle() && rounds->looks == 0) {
            rounds->looks = 1;
        }
    }
    if (range_due() != 0 || ace_due() != 0) {
        rounds->looks = LOOKS_MORE;
    }
    if (rounds->looks == 0) {
        return 0;
    }
    wait =
        (uint32_t)haki_min(time_to(range_due(), now), time_to(ace_due(), now));
    wait = (uint32_t)haki_min(wait, time_to(rounds->look_at, now));
    return more ? SLEEP_PORTION : (uint32_t)haki_max(wait, SLEEP_LEAST);
}

/* Whether it may take locks now, perhaps after a while; false: it is to end. */
static bool join(void)
{
    enum hak_lock_joined joined = haki_lock_join();

    while (joined == HAK_LOCK_WAIT && atomic_load(&stop) == 0) {
        haki_os_wait(&stop, 0, 1);
        joined = haki_lock_join();
    }
    if (joined == HAK_LOCK_WAIT) {
        haki_lock_part();
    }
    return joined == HAK_LOCK_JOINED;
}

/* A round. Milliseconds to the next one; 0: nothing is left. */
static uint32_t round_of(struct rounds *rounds)
{
    uint32_t wait = 0;

    if (join()) {
        wait = give_back(rounds);
        haki_lock_part();
    }
    return wait;
}

static void run(void)
{
    struct rounds rounds = {.looks = LOOKS_MORE};
    uint32_t wait = look_every();

    haki_lock_begin_stranger();
    haki_self = (struct hak_heap *)&haki_heap_exited;
    rounds.look_at = haki_os_tick();
    while (wait != 0 && atomic_load(&stop) == 0) {
        wait = round_of(&rounds);
        if (wait == 0) {
            atomic_store(&leaving, true);
            rounds.look_at = haki_os_tick();
            wait = round_of(&rounds);
            atomic_store(&leaving, wait == 0);
        }
        if (wait != 0 && atomic_load(&stop) == 0) {
            haki_os_wait(&stop, 0, wait);
        }
    }
}

/* ---- its start ---------------------------------------------------------------- */

/* Whether enough waits; what blocks sent to others weigh is not known here. */
static bool is_worth_it(void)
{
    return ace_due() != 0 || atomic_load(&haki_range_freed.sent) >= LEAST ||
           haki_range_due_bytes() >= LEAST;
}

static void start(void)
{
    void *const locals[] = {&haki_lock_self, (char *)&haki_lock_self + 1,
                            &haki_self};

    haki_lock_not_alone();
    atomic_store(&stop, 0);
    atomic_store(&leaving, false);
    if (!haki_os_thread_start(&thread, locals,
                              sizeof(locals) / sizeof(locals[0]))) {
        atomic_store(&not_before, haki_some_time(haki_os_tick() + RETRY));
    }
}

/* Whether it is there and will see what was freed up to now. */
static bool is_at_work(void)
{
    return atomic_load(&thread.id) != 0 && !atomic_load(&leaving) &&
           atomic_load(&stop) == 0;
}

/* Whether it may be started now. */
static bool may_start(void)
{
    uint32_t at = atomic_load(&not_before);

    return atomic_load(&pauses) == 0 && atomic_load(&thread.id) == 0 &&
           (at == 0 || haki_tick_reached(haki_os_tick(), at));
}

static size_t set_to_0(_Atomic(size_t) *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed) != 0
               ? atomic_exchange(counter, 0)
               : 0;
}

/* Counts from here on; what was counted up to now, which was something. */
static size_t count_anew(void)
{
    return set_to_0(&haki_range_freed.slabs) +
           set_to_0(&haki_range_freed.runs) + set_to_0(&haki_range_freed.sent) +
           set_to_0(&haki_range_freed.again);
}

void haki_background_start(void)
{
    if (atomic_load(&thread.id) != 0) {
        size_t freed = count_anew();

        if (!is_at_work()) {
            atomic_fetch_add(&haki_range_freed.again, freed);
        }
        return;
    }
    if (atomic_load(&closed) || haki_option(HAK_OPT_background_thread) == 0) {
        count_anew();
        return;
    }
    if (!may_start() || atomic_flag_test_and_set(&starting)) {
        return;
    }
    if (may_start()) {
        bool worth_it = is_worth_it();

        count_anew();
        if (worth_it) {
            start();
        }
    }
    atomic_flag_clear(&starting);
}

void haki_background_close(void)
{
    atomic_store(&closed, true);
    haki_lend_close();
}

int32_t haki_background_thread(void)
{
    return (int32_t)atomic_load(&thread.id);
}

/* ---- its end, forks ------------------------------------------------------------ */

/*
 * It ends; what waited counts again, so that it is started when it may be. It
 * may itself wait for a lock that the calling thread has, in a signal's handler.
 */
static void end(void)
{
    if (atomic_load(&thread.id) != 0) {
        atomic_store(&stop, 1);
        haki_os_wake(&stop);
        if (haki_lock_self.held == 0) {
            haki_os_thread_wait(&thread, GOODBYE);
        }
        atomic_store(&haki_range_freed.again, LEAST);
    }
}

void haki_background_pause(void)
{
    atomic_fetch_add(&pauses, 1);
    end();
}

void haki_background_resume(void)
{
    atomic_store(&not_before,
                 haki_some_time(haki_os_tick() + PAUSE_AFTER_FORK));
    atomic_fetch_sub(&pauses, 1);
}

static void fork_child(void)
{
    atomic_store(&thread.id, 0);
    atomic_store(&pauses, 0);
    atomic_store(&not_before, 0);
    atomic_flag_clear(&starting);
}

__attribute__((constructor)) static void watch_forks(void)
{
    if (pthread_atfork(haki_background_pause, haki_background_resume,
                       fork_child) == 0) {
        haki_range_on_much = haki_background_start;
    } else {
        haki_background_close();
        haki_warn("pthread_atfork failed: memory does not go back while the "
                  "program sleeps");
    }
}

/* Others' destructors run after it; it would only cost them time. */
__attribute__((destructor)) static void at_exit(void)
{
    atomic_store(&closed, true);
    end();
}
