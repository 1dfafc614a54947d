/*
 * pressure.c - looking at limits, and enforcing HAKMEM_LIMIT.
 */
#include "range/pressure.h"

#include <hakmem.h>

#include <unistd.h>

#include "os/cgroup.h"
#include "os/lock.h"
#include "base/msg.h"
#include "os/os.h"
#include "range/purge.h"
#include "range/supers.h"

/*
 * NEAR: percent of a limit. WAITS: percent of the last 10 s, from
 * memory.pressure.
 */
enum { NEAR_FROM = 85, NEAR_UNTIL = 75, WAITS_FROM = 10, WAITS_UNTIL = 5 };

#define LOOK_FIRST (2 * HAK_MIB) /* held before the first look */
#define LOOK_MOST (8 * HAK_MIB)  /* charged between two */
#define LOOK_LEAST (256 * HAK_KIB)
#define LOOK_TIME 1000       /* milliseconds between two */
#define LOOK_TIME_FREE 10000 /* where nothing has a limit */

struct hak_pressure haki_pressure = {
    .limit = SIZE_MAX,
    .look_at = LOOK_FIRST,
    .relief_at = LOOK_FIRST,
    .runs_most = HAK_PRESSURE_RUNS,
};

/*
 * The number of the thread that looks, or 0. Only that thread uses what
 * follows. If it is a ghost (lock.h) another one takes over and reads
 * everything again.
 */
static _Atomic(uint64_t) pressure_looker;
static struct hak_cgroup pressure_group;
static pid_t pressure_group_of; /* the process that has found it; 0: none */
static bool pressure_said[HAK_CGROUP_OVER + 1], pressure_said_none,
    pressure_said_percent;

void (*haki_pressure_on_look)(void);

/* Any thread. */
static _Atomic(void (*)(
    void)) pressure_on_round; /* NULL: nobody has registered */
static _Atomic(uint32_t)
    pressure_looked; /* haki_os_tick() of the last look; 0: none */
static _Atomic(uint32_t) pressure_look_time = LOOK_TIME;
static _Atomic(size_t) pressure_container = SIZE_MAX; /* its limit */
static _Atomic(uint64_t) pressure_events, pressure_purges, pressure_refusals;
static _Atomic(size_t)
    pressure_told_limit; /* hak_set_limit's; 0: HAKMEM_LIMIT holds */

/* ---- one looks, others go on ------------------------------------------------ */

static bool pressure_begin(void)
{
    uint64_t number = haki_lock_number();
    uint64_t other = 0;

    while (!atomic_compare_exchange_weak(&pressure_looker, &other, number)) {
        if (other != 0 && !haki_lock_is_ghost(other)) {
            return false; /* perhaps this one: a signal handler */
        }
    }
    return true;
}

static void pressure_end(void)
{
    atomic_store(&pressure_looker, 0);
}

/* ---- what files say ----------------------------------------------------------- */

static void pressure_find_group(void)
{
    const char *fake = haki_option_cgroup();

    if (pressure_group_of == getpid()) {
        return;
    }
    haki_cgroup_find(&pressure_group, fake);
    pressure_group_of = getpid();
    if (fake != NULL && pressure_group.kind == HAK_CGROUP_NONE &&
        !pressure_said_none) {
        pressure_said_none = true;
        haki_warn("HAKMEM_CGROUP=%s: neither memory.max nor "
                  "memory.limit_in_bytes is there; no container limit is known",
                  fake);
    }
}

static void pressure_say_fault(const struct hak_cgroup_state *state)
{
    if (state->fault == HAK_CGROUP_FINE || pressure_said[state->fault]) {
        return;
    }
    pressure_said[state->fault] = true;
    if (state->fault == HAK_CGROUP_GARBLED) {
        haki_warn("%s: \"%s\" is neither a number of bytes nor max; max is "
                  "assumed",
                  state->fault_file, state->fault_text);
    } else {
        haki_warn("%s: the limit of %zu bytes is below the %zu in use; free "
                  "memory goes back at once",
                  state->fault_file, state->fault_limit, state->fault_used);
    }
}

static void pressure_read_group(struct hak_cgroup_state *state)
{
    pressure_find_group();
    if (!haki_cgroup_read(&pressure_group, state)) {
        pressure_group_of =
            0; /* it has gone, perhaps there is another by the next */
    }
    pressure_say_fault(state);
    atomic_store(&pressure_container, state->limit);
}

/* ---- HAKMEM_LIMIT -------------------------------------------------------------- */

/* The option in bytes; `of` is the container's limit. */
static size_t pressure_limit_of(size_t of)
{
    size_t wish = atomic_load(&pressure_told_limit);

    if (wish != 0) {
        return wish;
    }
    wish = haki_option(HAK_OPT_limit);
    if (wish == 0) {
        return SIZE_MAX;
    }
    if ((wish & HAK_PERCENT) == 0) {
        return wish;
    }
    HAK_ASSERT(wish - HAK_PERCENT >= 1 && wish - HAK_PERCENT <= 100);
    if (of != SIZE_MAX) {
        return (size_t)((hak_u128)of * (wish - HAK_PERCENT) / 100);
    }
    if (!pressure_said_percent) {
        pressure_said_percent = true;
        haki_warn(
            "HAKMEM_LIMIT=%zu%%: no container limit is known (memory.max, "
            "memory.limit_in_bytes); there is no limit",
            wish - HAK_PERCENT);
    }
    return SIZE_MAX;
}

/*
 * Sets how many bytes held trigger a look; under pressure slow paths always
 * ask.
 */
static void pressure_look_next_at(size_t held)
{
    atomic_store(&haki_pressure.look_at, held);
    atomic_store(&haki_pressure.relief_at, haki_pressure_near() ? 0 : held);
}

void haki_limit_start(void)
{
    struct hak_cgroup_state state = {.limit = SIZE_MAX};
    size_t limit;

    if (haki_option(HAK_OPT_limit) == 0 || !pressure_begin()) {
        return;
    }
    if ((haki_option(HAK_OPT_limit) & HAK_PERCENT) != 0) {
        pressure_read_group(&state);
    }
    limit = pressure_limit_of(state.limit);
    atomic_store(&haki_pressure.limit, limit);
    pressure_look_next_at(haki_min(LOOK_FIRST, limit / 100 * NEAR_FROM));
    pressure_end();
}

size_t hak_limit(void)
{
    size_t limit;

    haki_range_init(); /* reads HAKMEM_LIMIT */
    limit = atomic_load(&haki_pressure.limit);
    return limit != SIZE_MAX ? limit : 0;
}

size_t hak_set_limit(size_t limit)
{
    size_t before = hak_limit();

    limit = limit != 0 ? limit : SIZE_MAX;
    atomic_store(&pressure_told_limit, limit);
    atomic_store(&haki_pressure.limit, limit);
    pressure_look_next_at(0); /* the next slow path sees whether it is near */
    return before;
}

bool haki_limit_charge_slow(_Atomic(size_t) *counter, size_t bytes)
{
    size_t limit = atomic_load(&haki_pressure.limit);

    HAK_ASSERT(!haki_lock_mine(&haki_supers.lock)); /* what follows takes it */
    HAK_ASSERT(atomic_load(counter) >= bytes);
    if (haki_limit_used() <= limit) {
        return true;
    }
    haki_range_purge();
    haki_limit_purged();
    if (haki_limit_used() <= limit) {
        return true;
    }
    haki_limit_uncharge(counter, bytes);
    return false;
}

bool haki_limit_refuses_slow(size_t size)
{
    static atomic_bool told;

    if (HAK_LOAD(haki_range.size) == 0) {
        return false;
    }
    atomic_fetch_add(&pressure_refusals, 1);
    if (!atomic_exchange(&told, true)) {
        haki_warn("HAKMEM_LIMIT: %zu of %zu bytes are in use, a request for "
                  "%zu is refused (later refusals are not reported)",
                  haki_limit_used(), atomic_load(&haki_pressure.limit), size);
    }
    return true;
}

void haki_limit_purged(void)
{
    atomic_fetch_add_explicit(&pressure_purges, 1, memory_order_relaxed);
}

/* ---- looks ----------------------------------------------------------------------- */

static bool pressure_is_near(const struct hak_cgroup_state *state, size_t limit,
                             size_t want)
{
    bool was = atomic_load(&haki_pressure.near);
    unsigned full = (unsigned)haki_max(state->full, haki_cgroup_rlimits());

    if (limit != SIZE_MAX) {
        full = (unsigned)haki_max(full, haki_percent(haki_limit_used(), limit));
    }
    return full >= (was ? NEAR_UNTIL : NEAR_FROM) || want > state->room / 2 ||
           state->pressure >= (was ? WAITS_UNTIL : WAITS_FROM);
}

/*
 * How much may be charged beyond `used` until the next look: a part of the
 * room, and no more than brings us near our own limit. `used` includes the
 * bytes about to be taken, which this look has allowed for: otherwise a program
 * that takes and frees large blocks in turns would cause a look each time.
 */
static size_t pressure_step(const struct hak_cgroup_state *state, size_t limit,
                            size_t used, size_t want)
{
    size_t near = limit != SIZE_MAX ? limit / 100 * NEAR_FROM : SIZE_MAX;
    size_t others = state->room - haki_min(want, state->room);
    size_t room = haki_min(others, limit - haki_min(used, limit));
    size_t most = haki_max(haki_min(room / 4, LOOK_MOST), LOOK_LEAST);

    most = used < near ? haki_min(most, near - used) : most;
    HAK_ASSERT(most > 0); /* else each charge would bring a look */
    return most;
}

static void pressure_set_near(bool near)
{
    uint32_t round = haki_pressure_round() + 1;

    if (!atomic_exchange(&haki_pressure.near, near) && near) {
        atomic_fetch_add(&pressure_events, 1);
    }
    atomic_store(&haki_pressure.runs_most, near ? 0 : HAK_PRESSURE_RUNS);
    if (near) {
        atomic_store(&haki_pressure.round, round != 0 ? round : 1);
    }
    HAK_ASSERT(!near || haki_pressure_round() != 0);
    HAK_ASSERT(!near || haki_purge_delay() == 0);
}

static void pressure_look(uint32_t now, size_t want)
{
    struct hak_cgroup_state state;
    size_t limit, used;
    bool near;

    HAK_ASSERT(!haki_lock_mine(&haki_supers.lock)); /* lanes give back next */
    pressure_read_group(&state);
    do { /* hak_set_limit doesn't wait for this */
        limit = pressure_limit_of(state.limit);
        atomic_store(&haki_pressure.limit, limit);
    } while (limit != pressure_limit_of(state.limit));
    near = pressure_is_near(&state, limit, want);
    pressure_set_near(near);
    atomic_store(&pressure_look_time,
                 state.room == SIZE_MAX && limit == SIZE_MAX ? LOOK_TIME_FREE
                                                             : LOOK_TIME);
    atomic_store(&pressure_looked, haki_some_time(now));
    used = haki_limit_used();
    used += haki_min(want, SIZE_MAX / 2 - used);
    pressure_look_next_at(used + pressure_step(&state, limit, used, want));
}

void haki_pressure_on_round(void (*lanes)(void))
{
    atomic_store(&pressure_on_round, lanes);
}

static void pressure_tell(void)
{
    void (*lanes)(void) = atomic_load(&pressure_on_round);

    if (haki_pressure_on_look != NULL) {
        haki_pressure_on_look();
    }
    if (lanes != NULL && haki_pressure_near()) {
        lanes();
    }
}

void haki_pressure_tick(uint32_t now, size_t want)
{
    uint32_t last =
        atomic_load_explicit(&pressure_looked, memory_order_relaxed);
    uint32_t time =
        atomic_load_explicit(&pressure_look_time, memory_order_relaxed);

    if (haki_limit_used() + want < atomic_load_explicit(&haki_pressure.look_at,
                                                        memory_order_relaxed) &&
        (last == 0 || now - last < time)) {
        return;
    }
    if (pressure_begin()) {
        pressure_look(now, want);
        pressure_end();
        pressure_tell();
    }
}

void haki_pressure_counts(struct hak_pressure_counts *counts)
{
    size_t own = atomic_load(&haki_pressure.limit);
    size_t limit = own != SIZE_MAX ? own : atomic_load(&pressure_container);

    counts->limit = limit != SIZE_MAX ? limit : 0;
    counts->events = atomic_load(&pressure_events);
    counts->purges = atomic_load(&pressure_purges);
    counts->refusals = atomic_load(&pressure_refusals);
}

#ifdef HAK_TESTING
void haki_pressure_test_look(void)
{
    if (pressure_begin()) {
        pressure_look(haki_os_tick(), 0);
        pressure_end();
        pressure_tell();
    }
}
#endif
