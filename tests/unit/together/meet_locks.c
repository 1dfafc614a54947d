/*
 * meet_locks.c - a thread that needs what a lock guards waits for its holder.
 *
 * One thread holds a lock; another calls a function that takes it, and must
 * have fallen asleep before it comes back. Most functions that are called
 * without the lock end at a HAK_HELD; some have none, or do not need to get
 * there. meet.c has what goes wrong between two locks, or without any.
 */
#include "ace/ace.h"
#include "heap/heap.h"
#include "huge/huge.h"
#include "meet.h"
#include "range/supers.h"
#include "system/system.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "range/rooms.h"
#include "range/slabs.h"
#include "range/slots.h"
#include "range/superslabs.h"

TestSuite(meet_locks, .timeout = 300);

struct step {
    const char *name;
    void (*run)(void *arg);
    bool has_heap;
};

#define STEPS(steps) steps, sizeof(steps) / sizeof(steps[0])

/* Each of them while `hold` .. `let_go` is in between. */
static void each_waits(const struct step *steps, size_t count,
                       void (*hold)(void), void (*let_go)(void))
{
    for (size_t i = 0; i < count; i++) {
        struct meet_thread who;
        bool waited;

        meet_prepare(&who, steps[i].has_heap, steps[i].run, NULL);
        hold();
        waited = meet_has_to_wait(&who);
        let_go();
        unit_join(who.thread);
        cr_assert(waited, "%s did not wait for the lock", steps[i].name);
        cr_assert(atomic_load(&who.done), "%s did not end", steps[i].name);
    }
}

/* ---- the lanes' locks: held by who asks for statistics ------------------------ */

static pthread_t holder;
static void *(*hold_by)(void *);

static void *ask_ace(void *arg)
{
    struct hak_lane_counts counts;

    haki_ace_counts(&counts);
    return arg;
}

static void *ask_huge(void *arg)
{
    struct hak_lane_counts counts;

    haki_huge_counts(&counts);
    return arg;
}

static void *ask_system(void *arg)
{
    struct hak_system_counts counts;

    haki_system_counts(&counts);
    return arg;
}

static void *begin_heap(void *arg)
{
    hak_free(hak_malloc(1));
    return arg;
}

static const char *point;

static void hold(void)
{
    meet_hold(point);
    holder = unit_start(hold_by, NULL);
    meet_wait();
}

static void let_go(void)
{
    meet_go();
    unit_join(holder);
}

static void each_waits_at(const char *name, void *(*by)(void *),
                          const struct step *steps, size_t count)
{
    point = name;
    hold_by = by;
    each_waits(steps, count, hold, let_go);
}

/* ---- ACE ------------------------------------------------------------------- */

static char *run, *other_run;

static void ace_alloc(void *arg)
{
    bool zero;

    (void)arg;
    other_run = haki_ace_alloc(20, HAK_PAGE, HAK_ID_SHARED, &zero);
}

static void ace_free(void *arg)
{
    struct hak_ace_run was;

    (void)arg;
    NEED(haki_ace_free(other_run, &was) && was.bytes == 20 * HAK_PAGE);
}

static void ace_empty(void *arg)
{
    (void)arg;
    haki_ace_purge_run(run);
}

static void ace_around(void *arg)
{
    struct hak_ace_run found;

    (void)arg;
    NEED(haki_ace_around(run + 5000, &found) && found.bytes == 30 * HAK_PAGE);
}

static void ace_grow(void *arg)
{
    (void)arg;
    NEED(haki_ace_resize(run, 40));
}

static void ace_shrink(void *arg)
{
    (void)arg;
    NEED(haki_ace_resize(run, 30));
}

static void ace_free_owner(void *arg)
{
    (void)arg;
    haki_ace_free_owner(7);
}

static void ace_next(void *arg)
{
    size_t bytes;

    (void)arg;
    NEED(haki_ace_next(7, NULL, &bytes) == NULL);
}

static void ace_tick(void *arg)
{
    (void)arg;
    NEED(atomic_load(&haki_ace_due) != 0);
    haki_ace_tick(atomic_load(&haki_ace_due));
}

static void ace_trim(void *arg)
{
    (void)arg;
    haki_ace_trim();
}

static void ace_figures(void *arg)
{
    ask_ace(arg);
}

Test(meet_locks, ace)
{
    static const struct step steps[] = {
        {"alloc", ace_alloc, false},   {"free", ace_free, false},
        {"grow", ace_grow, false},     {"shrink", ace_shrink, false},
        {"around", ace_around, false}, {"empty", ace_empty, false},
        {"tick", ace_tick, false},     {"free_owner", ace_free_owner, false},
        {"trim", ace_trim, false},     {"figures", ace_figures, false},
        {"next", ace_next, false},
    };
    bool zero;

    hak_free(hak_malloc(1));
    run = haki_ace_alloc(30, HAK_PAGE, HAK_ID_SHARED, &zero);
    cr_assert_not_null(run);
    each_waits_at("ace", ask_ace, STEPS(steps));
}

/* ---- Huge ------------------------------------------------------------------ */

static char *huge;

static void huge_alloc(void *arg)
{
    bool zero;

    (void)arg;
    huge = haki_huge_alloc(2 * HAK_SUPER_SIZE, 1, HAK_ID_SHARED, &zero);
}

static void huge_find(void *arg)
{
    struct hak_huge_block found;

    (void)arg;
    NEED(haki_huge_find(huge, &found) && found.owner == HAK_ID_SHARED);
}

static void huge_grow(void *arg)
{
    (void)arg;
    huge = haki_huge_resize(huge, 20 * HAK_SUPER_SIZE);
    NEED(huge != NULL);
}

static void huge_shrink(void *arg)
{
    (void)arg;
    NEED(haki_huge_resize(huge, HAK_SUPER_SIZE) == huge);
}

static void huge_free(void *arg)
{
    struct hak_huge_block was;

    (void)arg;
    NEED(haki_huge_free(huge, &was) && was.size == HAK_SUPER_SIZE);
}

static void huge_free_owner(void *arg)
{
    (void)arg;
    haki_huge_free_owner(7);
}

static void huge_next(void *arg)
{
    size_t bytes;

    (void)arg;
    NEED(haki_huge_next(7, NULL, &bytes) == NULL);
}

static void huge_figures(void *arg)
{
    ask_huge(arg);
}

Test(meet_locks, huge)
{
    static const struct step steps[] = {
        {"alloc", huge_alloc, false}, {"find", huge_find, false},
        {"grow", huge_grow, false},   {"shrink", huge_shrink, false},
        {"free", huge_free, false},   {"free_owner", huge_free_owner, false},
        {"next", huge_next, false},   {"figures", huge_figures, false},
    };

    hak_free(hak_malloc(1));
    each_waits_at("huge", ask_huge, STEPS(steps));
}

/* ---- the system's registry -------------------------------------------------- */

static void *known;

static void system_alloc(void *arg)
{
    (void)arg;
    known = haki_system_alloc(16, 100, NULL, HAK_REASON_MEMORY);
}

static void system_find(void *arg)
{
    struct hak_heap *owner;
    size_t size;

    (void)arg;
    NEED(haki_system_find(known, &owner, &size) && size == 100);
}

static void system_resize(void *arg)
{
    (void)arg;
    known = haki_system_resize(known, 300);
}

static void system_free(void *arg)
{
    struct hak_heap *owner;
    size_t size;

    (void)arg;
    NEED(haki_system_free(known, &owner, &size) && size == 300);
}

static void system_free_owner(void *arg)
{
    (void)arg;
    haki_system_free_owner((struct hak_heap *)(void *)&known);
}

static void system_figures(void *arg)
{
    ask_system(arg);
}

Test(meet_locks, system)
{
    static const struct step steps[] = {
        {"alloc", system_alloc, false},
        {"find", system_find, false},
        {"resize", system_resize, false},
        {"free", system_free, false},
        {"free_owner", system_free_owner, false},
        {"figures", system_figures, false},
    };

    each_waits_at("system", ask_system, STEPS(steps));
}

/* ---- the heaps: held by who adopts one --------------------------------------- */

static void first_use(void *arg)
{
    (void)arg;
    hak_free(hak_malloc(1));
}

static void just_end(void *arg)
{
    (void)arg;
}

static void trim(void *arg)
{
    (void)arg;
    haki_thread_trim();
}

static void seal(void *arg)
{
    (void)arg;
    haki_thread_seal();
}

Test(meet_locks, heaps)
{
    static const struct step steps[] = {
        {"adopt", first_use, false},
        {"park", just_end, true},
        {"trim", trim, true},
        {"seal", seal, true},
    };

    hak_free(hak_malloc(1));
    each_waits_at("adopt", begin_heap, STEPS(steps));
    cr_assert_leq(haki_range_heap_count(), 3);
}

/* To tell the keeper of a parked heap that there is something in its inbox. */
static void tell(void *arg)
{
    haki_heap_sent(*(uint32_t *)arg);
}

static void *get_id(void *arg)
{
    /* It is left, or the heap would end with its thread. */
    NEED(hak_malloc(1) != NULL);
    *(uint32_t *)arg = haki_self->tiny.id;
    return NULL;
}

Test(meet_locks, who_sends_to_a_parked_heap)
{
    struct meet_thread who;
    uint32_t id;
    bool waited;

    meet_prepare(&who, false, tell, &id);
    unit_in_thread(get_id, &id);
    point = "adopt";
    hold_by = begin_heap;
    hold();
    waited = meet_has_to_wait(&who);
    let_go();
    unit_join(who.thread);
    cr_assert(waited);
}

/* ---- the range --------------------------------------------------------------- */

static uint32_t slab, listed, single, pair, moved, heap_id, room;

static void slabs_take(void *arg)
{
    (void)arg;
    slab = haki_range_slabs_take(3, HAK_LANE_POOL, HAK_CLASS_ANY,
                                 HAK_SLABS_SPARSE);
    NEED(slab != HAK_NO_SLAB);
}

static void slabs_give(void *arg)
{
    (void)arg;
    haki_range_slabs_give(slab, 3, HAK_LANE_POOL);
}

static void list_give(void *arg)
{
    (void)arg;
    haki_range_list_give(listed, HAK_LANE_TINY);
}

static void start_small(void *arg)
{
    (void)arg;
    haki_range_start_small();
}

static void super_take(void *arg)
{
    uint32_t warm;

    (void)arg;
    single = haki_range_super_take(HAK_LANE_ACE, &warm);
    NEED(single != HAK_NO_SUPER);
}

static void super_head(void *arg)
{
    (void)arg;
    NEED(haki_range_super_head(single) == single);
}

static void supers_give(void *arg)
{
    (void)arg;
    haki_range_supers_give(single, 1, HAK_LANE_ACE, HAK_ALL_SLABS);
}

static void room_for(void *arg)
{
    (void)arg;
    NEED(haki_range_room_for(64 * HAK_MIB) > 0);
}

static void run_take(void *arg)
{
    bool zero;

    (void)arg;
    room = 4;
    pair =
        haki_range_run_take(2 * HAK_SUPER_SIZE, 1, HAK_LANE_HUGE, &room, &zero);
    NEED(pair != HAK_NO_SUPER && room == 4);
}

static void run_grow(void *arg)
{
    bool zero;

    (void)arg;
    NEED(haki_range_run_grow(pair, 2, &room, 3 * HAK_SUPER_SIZE, HAK_LANE_HUGE,
                             &zero));
}

static void run_move(void *arg)
{
    uint32_t none = 0;

    (void)arg;
    moved =
        haki_range_run_move(pair, 3, 5 * HAK_SUPER_SIZE, HAK_LANE_HUGE, &none);
    NEED(moved != HAK_NO_SUPER);
}

static void room_give(void *arg)
{
    (void)arg;
    haki_range_room_give(pair + 3, room);
}

static void supers_drop(void *arg)
{
    (void)arg;
    haki_range_supers_drop(pair, 3, HAK_LANE_HUGE);
}

static void spare(void *arg)
{
    (void)arg;
    haki_range_unused();
}

static void heap_take(void *arg)
{
    (void)arg;
    NEED(haki_range_heap_take(&heap_id) != NULL);
}

static void heap_give(void *arg)
{
    (void)arg;
    haki_range_heap_give(heap_id);
}

static void tick(void *arg)
{
    (void)arg;
    NEED(atomic_load(&haki_range_due) != 0);
    haki_range_tick(atomic_load(&haki_range_due));
}

static void purge(void *arg)
{
    (void)arg;
    haki_range_purge();
}

static void purged(void *arg)
{
    (void)arg;
    haki_range_purged(4096);
}

static void counts(void *arg)
{
    struct hak_range_counts all;

    (void)arg;
    haki_range_counts(&all);
}

static void hold_range(void)
{
    haki_lock_take(&haki_supers.lock);
}

static void let_range_go(void)
{
    haki_lock_drop(&haki_supers.lock);
}

Test(meet_locks, range)
{
    static const struct step steps[] = {
        {"slabs_take", slabs_take, false},
        {"slabs_give", slabs_give, false},
        {"list_give", list_give, false},
        {"start_small", start_small, false},
        {"super_take", super_take, false},
        {"super_head", super_head, false},
        {"supers_give", supers_give, false},
        {"spare", spare, false},
        {"tick", tick, false},
        {"run_take", run_take, false},
        {"run_grow", run_grow, false},
        {"run_move", run_move, false},
        {"room_give", room_give, false},
        {"supers_drop", supers_drop, false},
        {"heap_take", heap_take, false},
        {"heap_give", heap_give, false},
        {"purge", purge, false},
        {"purged", purged, false},
        {"figures", counts, false},
    };

    cr_assert(haki_range_init());
    listed =
        haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY, HAK_SLABS_SOME);
    cr_assert_neq(listed, HAK_NO_SLAB);
    haki_range_slab(listed)->all_next = HAK_NO_SLAB;
    haki_range_slab(listed)->slabs = 1;
    each_waits(STEPS(steps), hold_range, let_range_go);
}

/* Valgrind leaves some machines a smaller window, which has no rooms. */
Test(meet_locks, room_of_a_run)
{
    static const struct step steps[] = {{"room_for", room_for, false}};

    cr_assert(haki_range_init());
    if (haki_range.window < 64 * HAK_GIB) {
        cr_skip("this process has no window of 64 GB");
    }
    each_waits(STEPS(steps), hold_range, let_range_go);
}
