/*
 * meet.c - threads meet where neither has a lock, or between two locks: a heap
 * that is left and what is sent to it, a slab that is told of twice, who is
 * woken by whom.
 *
 * What of these things has been broken, one by one, and who told of it; where
 * the thread sanitizer did as well, in which programs (HAK_HELD off):
 *
 *   broken                                  told by          thread sanitizer
 *   no lock where lists change              HAK_HELD         thread, stress
 *   ... where nothing is but read           meet_locks       seldom
 *   no lock for who sends to a parked heap  meet_locks       meet, thread
 *   a heap is left: looked, then said       meet             -
 *   ... said, but not before it looks       meet, on x86-64  -
 *   who sends does not look again           meet             -
 *   a told slab's next is read too late     meet             -
 *   a sleeper wakes nobody after itself     meet             -
 *   who sends, tells or drops: relaxed      -                meet, remote, seal
 *   a refusal is taken for done             fault_kinds, os  -
 *   the kernel is taken at its word         wrap/refused     -
 */
#include "heap/heap.h"
#include "front/lane.h"
#include "front/large.h"
#include "meet.h"
#include "os/os.h"
#include "heap/thread.h"
#include "range/slots.h"
#include "tiny/remote.h"
#include "tiny/tiny_seal.h"

TestSuite(meet, .timeout = 300);

/* ---- a heap is left while something is sent to it --------------------------- */

/* How a block comes to its heap, and where it waits there. */
struct way {
    size_t size;
    bool sealed;
};

static const struct way ways[] = {{100, false}, {3000, false}, {100, true}};

enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static bool waits(struct hak_heap *heap)
{
    return atomic_load(&heap->tiny.inbox) != NULL ||
           atomic_load(&heap->tiny.sealed_inbox) != HAK_NO_SLAB ||
           (heap->pool != NULL &&
            atomic_load(&heap->pool->inbox) != HAK_NO_SLAB);
}

/* Puts p into its heap's inbox; whom to tell, or 0. */
static uint32_t put(void *p)
{
    uint32_t tag = haki_range_tag_of(p);
    bool told;

    if (haki_tag_is_large(tag)) {
        struct hak_heap *owner = haki_range_heap(HAK_TAG_HEAP(tag));

        NEED(haki_pool_remote_free(owner->pool, p, &told));
        return told ? HAK_TAG_HEAP(tag) : 0;
    }
    return (tag & HAK_TAG_SEALED) != 0 ? haki_tiny_seal_free(NULL, p, tag)
                                       : haki_remote_free(NULL, p, tag);
}

/* As hak_free by a thread without a heap: at once. */
static void send(void *p)
{
    haki_heap_sent(put(p));
}

static void *send_it(void *p)
{
    send(p);
    return NULL;
}

struct owner {
    const struct way *way;
    struct hak_heap *heap;
    _Atomic(void *) block;
    sem_t end;
};

/* Leaves a block. */
static void *leave_one(void *arg)
{
    struct owner *owner = arg;
    void *p = hak_malloc(owner->way->size);

    if (owner->way->sealed) {
        haki_thread_seal();
    }
    owner->heap = haki_self;
    atomic_store(&owner->block, p);
    return NULL;
}

/* Others have not seen yet that the thread has gone: it takes in what comes. */
Test(meet, what_is_sent_before_a_heap_is_said_to_be_left)
{
    hak_free(hak_malloc(1));
    for (int i = 0; i < WAYS; i++) {
        struct owner owner = {.way = &ways[i]};
        pthread_t thread;

        meet_hold("park");
        thread = unit_start(leave_one, &owner);
        meet_wait();
        send(atomic_load(&owner.block));
        cr_assert(waits(owner.heap));
        meet_go();
        unit_join(thread);
        cr_assert_not(waits(owner.heap), "way %d", i);
    }
    hak_trim();
    unit_expect_none_live();
    cr_assert_eq(unit_stats().slabs, 0);
}

/* The same, but that the thread does not end yet. */
static void *stay(void *arg)
{
    struct owner *owner = arg;

    leave_one(owner);
    NEED(sem_post(&meet_there) == 0);
    meet_sleep(&owner->end);
    return NULL;
}

/* Who has seen a heap that nobody has must look again: somebody has it now. */
Test(meet, who_sends_leaves_an_adopted_heap_alone)
{
    hak_free(hak_malloc(1));
    for (int i = 0; i < WAYS; i++) {
        struct owner owner = {.way = &ways[i]}, next = owner;
        pthread_t sender, keeper;

        NEED(sem_init(&next.end, 0, 0) == 0);
        unit_in_thread(leave_one, &owner);
        meet_hold("sent");
        sender = unit_start(send_it, owner.block);
        meet_wait();
        keeper = unit_start(stay, &next);
        meet_wait();
        cr_assert_eq(next.heap, owner.heap);
        put(next.block);
        cr_assert(waits(next.heap));
        meet_go();
        unit_join(sender);
        cr_assert(waits(next.heap), "way %d: not by its owner", i);
        NEED(sem_post(&next.end) == 0);
        unit_join(keeper);
        cr_assert_not(waits(next.heap), "way %d", i);
    }
    hak_trim();
    unit_expect_none_live();
}

/*
 * Who leaves says so and looks, who sends puts and looks: one of them at least
 * sees the other. The machine must not look first and say later; whether it
 * would can only be tried. Both begin at the same time, a little apart in every
 * other way.
 */
static atomic_uint at_start[2];

static void line_up(unsigned who, unsigned round)
{
    atomic_store(&at_start[who], round);
    for (unsigned n = 1; atomic_load(&at_start[1 - who]) < round; n++) {
        if (n % 2000 == 0) {
            sched_yield();
        }
    }
}

static unsigned round_now;

static void line_up_to_park(const char *name)
{
    if (strcmp(name, "park") == 0) {
        line_up(0, round_now);
    }
}

static void linger(unsigned n)
{
    for (volatile unsigned i = 0; i < n; i++) {
    }
}

/* So that the thread's store has to wait for the line. */
static void look_at(struct hak_heap *heap)
{
    NEED(atomic_load(&heap->state) == HAK_HEAP_OWNED);
}

/* As many rounds as there is time for: they take long on one processor. */
Test(meet, nobody_looks_away_from_a_heap_that_is_left)
{
    enum { ROUNDS = 30000, APART = 200 };
    uint64_t until = haki_os_clock() + UINT64_C(20000000000);

    hak_free(hak_malloc(1));
    atomic_store(&haki_test_meet, line_up_to_park);
    for (unsigned i = 1;
         i <= unit_scale(ROUNDS, 500) && haki_os_clock() < until; i++) {
        struct owner owner = {.way = &ways[i % 4 == 0 ? i / 4 % WAYS : 0]};
        pthread_t thread;

        round_now = i;
        thread = unit_start(leave_one, &owner);
        while (atomic_load(&at_start[0]) < i) {
            sched_yield();
        }
        look_at(owner.heap);
        line_up(1, i);
        linger(i % APART);
        send(owner.block);
        unit_join(thread);
        cr_assert_not(waits(owner.heap), "round %u", i);
    }
}

/* ---- a slab that is told of again while it is collected ---------------------- */

enum { BLOCKS = 200 };

struct collector {
    const struct way *way;
    struct hak_heap *heap;
    char *blocks[BLOCKS];
    sem_t collect;
    uint64_t got;
};

static void *collect(void *arg)
{
    struct collector *who = arg;

    for (int i = 0; i < BLOCKS; i++) {
        who->blocks[i] = hak_malloc(who->way->size);
    }
    if (who->way->sealed) {
        haki_thread_seal();
    }
    who->heap = haki_self;
    NEED(sem_post(&meet_there) == 0);
    meet_sleep(&who->collect);
    haki_heap_trim(haki_self);
    haki_heap_trim(haki_self);
    who->got = haki_self->tiny.remote_frees;
    who->got += haki_self->pool != NULL ? haki_self->pool->remote_frees : 0;
    return NULL;
}

/* Blocks of two slabs wait; the slab that is collected first gets another. */
static void tell_again(const struct way *way, const char *name)
{
    struct collector who = {.way = way};
    uint32_t last;
    pthread_t thread;
    int i = 0;

    NEED(sem_init(&who.collect, 0, 0) == 0);
    meet_hold(name);
    thread = unit_start(collect, &who);
    meet_wait();
    last = haki_range_number(who.blocks[BLOCKS - 1]);
    last -= haki_range_back(last);
    cr_assert_neq(last, haki_range_number(who.blocks[0]));
    put(who.blocks[0]);
    put(who.blocks[BLOCKS - 1]);
    NEED(sem_post(&who.collect) == 0);
    meet_wait();
    put(who.blocks[BLOCKS - 2]);
    meet_go();
    unit_join(thread);
    cr_assert_eq(who.got, 3);
    for (i = 1; i < BLOCKS - 2; i++) {
        hak_free(who.blocks[i]);
    }
    hak_trim();
    unit_expect_none_live();
}

Test(meet, a_span_is_told_of_again)
{
    static const struct way pool = {3000, false};

    hak_free(hak_malloc(1));
    tell_again(&pool, "pool");
}

Test(meet, a_sealed_slab_is_told_of_again)
{
    static const struct way sealed = {1000, true};

    hak_free(hak_malloc(1));
    tell_again(&sealed, "seal");
}

/* ---- who waits for a lock is woken ------------------------------------------- */

static hak_lock lock = HAK_LOCK_INIT(NULL);

static void have_a_turn(void *arg)
{
    (void)arg;
    haki_lock_take(&lock);
    haki_lock_drop(&lock);
}

/* Each by the one before it: a sleeper's own limit is a second. */
static uint64_t wake_all(void)
{
    enum { WAITERS = 4 };
    struct meet_thread who[WAITERS];
    uint64_t began;

    for (int i = 0; i < WAITERS; i++) {
        meet_prepare(&who[i], false, have_a_turn, NULL);
    }
    haki_lock_take(&lock);
    for (int i = 0; i < WAITERS; i++) {
        NEED(meet_has_to_wait(&who[i]));
    }
    began = haki_os_clock();
    haki_lock_drop(&lock);
    for (int i = 0; i < WAITERS; i++) {
        unit_join(who[i].thread);
    }
    return haki_os_clock() - began;
}

Test(meet, sleepers_wake_each_other)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 20 && best > 500000000; i++) {
        best = haki_min(best, wake_all());
    }
    cr_assert_lt(best, 500000000);
}
