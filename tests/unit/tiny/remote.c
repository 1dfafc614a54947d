/*
 * remote.c - tests of frees by other threads: outboxes, batches, inboxes,
 * producers and consumers.
 */
#include "heap/heap.h"
#include "heap/thread.h"
#include "range/slots.h"
#include "tiny/remote.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(remote, .timeout = 300);

enum { BATCH = 64 };

static size_t inbox_count(const struct hak_tiny *tiny)
{
    size_t count = 0;

    for (struct hak_block *p = atomic_load(&tiny->inbox); p != NULL;
         p = haki_link_get(p)) {
        count++;
    }
    return count;
}

static uint32_t tag_of(const void *p)
{
    return haki_range_tag_of(p);
}

/* ---- one thread plays all parts ------------------------------------------- */

Test(remote, blocks_are_sent_in_batches_of_64)
{
    struct hak_tiny *owner = tiny_new(false);
    struct hak_tiny *self = tiny_new(false);
    void *blocks[200];

    for (size_t i = 0; i < 200; i++) {
        blocks[i] = haki_tiny_alloc(owner, i % HAK_TINY_CLASSES);
    }
    for (size_t i = 0; i < 200; i++) {
        uint32_t sent = haki_remote_free(self, blocks[i], tag_of(blocks[i]));

        cr_assert_eq(sent, (i + 1) % BATCH == 0 ? owner->id : 0);
        cr_assert_eq(inbox_count(owner), (i + 1) / BATCH * BATCH);
        cr_assert_not(atomic_load(&self->busy));
    }
    cr_assert_eq(owner->remote_frees, 0);
    haki_tiny_collect(owner);
    cr_assert_eq(owner->remote_frees, 192);
    cr_assert_null(atomic_load(&owner->inbox));
    tiny_check(owner);
    tiny_check(self);
    for (unsigned i = 0; i < HAK_OUTBOXES; i++) {
        uint32_t sent = haki_remote_send(self, i);

        cr_assert_eq(sent, i == owner->id % HAK_OUTBOXES ? owner->id : 0);
    }
    cr_assert_eq(inbox_count(owner), 8);
    haki_tiny_trim(owner);
    cr_assert_eq(owner->remote_frees, 200);
    cr_assert_eq(owner->nslabs, 0);
    tiny_check(owner);
    tiny_delete(self);
    tiny_delete(owner);
}

Test(remote, collected_bytes_are_whole_blocks)
{
    struct hak_tiny *owner = tiny_new(true);
    size_t bytes = 0;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        void *p = haki_tiny_alloc(owner, c);

        bytes += haki_tiny_size[c];
        cr_assert_eq(haki_remote_free(NULL, p, tag_of(p)), owner->id);
    }
    haki_tiny_collect(owner);
    cr_assert_eq(owner->remote_bytes, bytes);
    cr_assert_eq(owner->remote_frees, HAK_TINY_CLASSES);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        cr_assert_eq(haki_tiny_live(owner, c), 0);
    }
    tiny_check(owner);
    tiny_delete(owner);
}

/* Without a state of one's own, and to an explicit heap: at once. */
Test(remote, direct_sends_hold_nothing_back)
{
    struct hak_tiny *threads = tiny_new(false);
    struct hak_tiny *made = tiny_new(true);
    struct hak_tiny *self = tiny_new(false);

    for (size_t i = 1; i <= 10; i++) {
        void *p = haki_tiny_alloc(threads, 3);
        void *q = haki_tiny_alloc(made, 3);

        cr_assert_eq(haki_remote_free(NULL, p, tag_of(p)), threads->id);
        cr_assert_eq(inbox_count(threads), i);
        cr_assert_eq(haki_remote_free(self, q, tag_of(q)), made->id);
        cr_assert_eq(inbox_count(made), i);
    }
    for (unsigned i = 0; i < HAK_OUTBOXES; i++) {
        cr_assert_eq(haki_tiny_outbox(self, i)->count, 0);
    }
    tiny_delete(self);
    tiny_delete(made);
    tiny_delete(threads);
}

/* Owners that share a place in the outboxes push each other out of it. */
Test(remote, many_owners_share_the_outboxes)
{
    enum { OWNERS = 11, EACH = 500 };
    struct hak_tiny *self = tiny_new(false);
    struct hak_tiny *owners[OWNERS];
    struct unit_random random = {1};
    static void *blocks[OWNERS][EACH];
    size_t next[OWNERS] = {0}, freed = 0, held = 0, collected = 0;

    for (size_t k = 0; k < OWNERS; k++) {
        owners[k] = tiny_new(false);
        for (size_t i = 0; i < EACH; i++) {
            blocks[k][i] = haki_tiny_alloc(owners[k], k);
        }
    }
    while (freed < OWNERS * EACH) {
        size_t k = unit_below(&random, OWNERS);

        if (next[k] < EACH) {
            void *p = blocks[k][next[k]++];
            uint32_t sent = haki_remote_free(self, p, tag_of(p));

            freed++;
            cr_assert(sent == 0 || inbox_count(haki_range_heap(sent)) > 0);
        }
    }
    for (unsigned i = 0; i < HAK_OUTBOXES; i++) {
        held += haki_tiny_outbox(self, i)->count;
        cr_assert_lt(haki_tiny_outbox(self, i)->count, BATCH);
        haki_remote_send(self, i);
        cr_assert_eq(haki_tiny_outbox(self, i)->count, 0);
        cr_assert_eq(haki_tiny_outbox(self, i)->id, 0);
    }
    cr_assert_lt(held, HAK_OUTBOXES * BATCH);
    for (size_t k = 0; k < OWNERS; k++) {
        haki_tiny_trim(owners[k]);
        tiny_check(owners[k]);
        collected += owners[k]->remote_frees;
        cr_assert_eq(owners[k]->nslabs, 0);
        tiny_delete(owners[k]);
    }
    cr_assert_eq(collected, OWNERS * EACH);
    tiny_delete(self);
}

Test(remote, a_refill_takes_what_others_freed)
{
    struct hak_tiny *owner = tiny_new(true);
    unsigned c = HAK_TINY_CLASSES - 1;
    void *blocks[64];

    for (size_t i = 0; i < 64; i++) {
        blocks[i] = haki_tiny_alloc(owner, c);
    }
    for (size_t i = 0; i < 64; i++) {
        haki_remote_free(NULL, blocks[i], tag_of(blocks[i]));
    }
    while (owner->bins[c].head != NULL) {
        haki_tiny_alloc(owner, c);
    }
    cr_assert_eq(owner->remote_frees, 0);
    cr_assert_not_null(haki_tiny_alloc(owner, c));
    cr_assert_eq(owner->remote_frees, 64);
    cr_assert_eq(owner->nslabs, 1);
    tiny_check(owner);
    tiny_delete(owner);
}

/*
 * As much as a bin may keep is at hand at once; the rest goes to the slabs, as
 * does what is at hand when little is in use.
 */
Test(remote, what_others_freed_fills_the_spare_list_and_then_the_slabs)
{
    struct hak_tiny *owner = tiny_new(true);
    unsigned c = HAK_TINY_CLASSES - 1;
    size_t budget = 640 * 1024 / 16 / 1024 - 3; /* 1/16 of what is left */
    void *blocks[640];

    for (size_t i = 0; i < 640; i++) {
        blocks[i] = haki_tiny_alloc(owner, c);
    }
    cr_assert_eq(owner->nslabs, 10);
    haki_tiny_trim(owner);
    for (size_t i = 0; i < budget; i++) {
        haki_remote_free(NULL, blocks[i], tag_of(blocks[i]));
    }
    haki_tiny_collect(owner);
    tiny_check(owner);
    cr_assert_eq(owner->shelves[c].spare_count, budget);
    cr_assert_eq(owner->shelves[c].open, HAK_NO_SLAB);
    for (size_t i = budget; i < 640; i++) {
        haki_remote_free(NULL, blocks[i], tag_of(blocks[i]));
    }
    haki_tiny_collect(owner);
    tiny_check(owner);
    cr_assert_leq(owner->shelves[c].spare_count, budget);
    cr_assert_eq(owner->remote_frees, 640);
    cr_assert_eq(haki_tiny_live(owner, c), 0);
    cr_assert_leq(owner->nslabs, 2, "40 spare blocks, one idle slab");
    haki_tiny_trim(owner);
    cr_assert_eq(owner->nslabs, 0);
    tiny_delete(owner);
}

/* ---- many senders, one inbox ------------------------------------------------- */

enum { SENDERS = 4 };

struct sender {
    struct hak_tiny *owner;
    void **blocks;
    size_t count;
    bool own_state;
};

static void *send_blocks(void *arg)
{
    struct sender *sender = arg;
    struct hak_tiny *self = sender->own_state ? tiny_new(false) : NULL;

    for (size_t i = 0; i < sender->count; i++) {
        void *p = sender->blocks[i];

        haki_remote_free(self, p, tag_of(p));
    }
    for (unsigned i = 0; self != NULL && i < HAK_OUTBOXES; i++) {
        haki_remote_send(self, i);
    }
    return NULL;
}

/* All send into one inbox while its owner takes from it. */
static void no_block_is_lost(bool own_state)
{
    struct hak_tiny *owner = tiny_new(false);
    size_t each = unit_scale(200000, 10000);
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    size_t empty = 0;

    for (size_t k = 0; k < SENDERS; k++) {
        senders[k] = (struct sender){owner, calloc(each, sizeof(void *)), each,
                                     own_state};
        for (size_t i = 0; i < each; i++) {
            senders[k].blocks[i] =
                haki_tiny_alloc(owner, (unsigned)(i + k) % 8);
        }
    }
    for (size_t k = 0; k < SENDERS; k++) {
        threads[k] = unit_start(send_blocks, &senders[k]);
    }
    while (owner->remote_frees < SENDERS * each && empty < 100000000) {
        uint64_t before = owner->remote_frees;

        haki_tiny_collect(owner);
        empty = owner->remote_frees == before ? empty + 1 : 0;
    }
    for (size_t k = 0; k < SENDERS; k++) {
        unit_join(threads[k]);
        free(senders[k].blocks);
    }
    haki_tiny_collect(owner);
    cr_assert_eq(owner->remote_frees, SENDERS * each);
    tiny_check(owner);
    haki_tiny_trim(owner);
    cr_assert_eq(owner->nslabs, 0);
    tiny_delete(owner);
}

Test(remote, no_block_is_lost_among_many_senders_in_batches)
{
    no_block_is_lost(true);
}

Test(remote, no_block_is_lost_among_many_senders_one_by_one)
{
    no_block_is_lost(false);
}

/* ---- producers and consumers through the public interface --------------------- */

enum { RING = 1024 };

/* One producer, one consumer. */
struct ring {
    _Atomic(void *) places[RING];
    size_t count;
};

static void *produce(void *arg)
{
    struct ring *ring = arg;

    for (size_t i = 0; i < ring->count; i++) {
        size_t size = 8 + i * 40 % 300;
        char *p = hak_malloc(size);

        NEED(p != NULL);
        p[0] = (char)size;
        p[size - 1] = (char)i;
        while (atomic_load(&ring->places[i % RING]) != NULL) {
            sched_yield();
        }
        atomic_store(&ring->places[i % RING], p);
    }
    return NULL;
}

static void *consume(void *arg)
{
    struct ring *ring = arg;

    for (size_t i = 0; i < ring->count; i++) {
        size_t size = 8 + i * 40 % 300;
        char *p;

        while ((p = atomic_load(&ring->places[i % RING])) == NULL) {
            sched_yield();
        }
        atomic_store(&ring->places[i % RING], NULL);
        NEED(p[0] == (char)size || size == 1);
        NEED(p[size - 1] == (char)i);
        hak_free(p);
    }
    return NULL;
}

Test(remote, a_producer_and_a_consumer_need_little_memory)
{
    static struct ring ring;
    pthread_t consumer;
    hak_stats_t stats;

    ring.count = unit_scale(3000000, 50000);
    consumer = unit_start(consume, &ring);
    produce(&ring);
    unit_join(consumer);
    stats = unit_stats();
    cr_assert_lt(stats.resident_bytes, 8 * HAK_MIB, "%zu",
                 (size_t)stats.resident_bytes);
    cr_assert_lt(stats.slabs, 120);
    cr_assert_geq(stats.remote_frees, ring.count * 9 / 10);
    hak_trim();
    stats = unit_stats();
    cr_assert_eq(stats.tiny_allocs, ring.count);
    cr_assert_eq(stats.tiny_frees, ring.count);
    cr_assert_eq(stats.tiny_live_bytes, 0);
    cr_assert_eq(stats.slabs, 0);
}

Test(remote, chains_of_producers_and_consumers_need_little_memory)
{
    static struct ring rings[3];
    pthread_t threads[6];
    hak_stats_t stats;

    for (size_t i = 0; i < 3; i++) {
        rings[i].count = unit_scale(500000, 20000);
        threads[2 * i] = unit_start(produce, &rings[i]);
        threads[2 * i + 1] = unit_start(consume, &rings[i]);
    }
    for (size_t i = 0; i < 6; i++) {
        unit_join(threads[i]);
    }
    stats = unit_stats();
    cr_assert_lt(stats.resident_bytes, 24 * HAK_MIB);
    hak_trim();
    cr_assert_eq(unit_stats().slabs, 0);
    cr_assert_eq(unit_stats().tiny_frees, unit_stats().tiny_allocs);
}

/* ---- a thread that only frees ---------------------------------------------------- */

struct parcel {
    void **blocks;
    size_t count;
    uint64_t heaps; /* that there were while the thread ran */
};

static void *only_free(void *arg)
{
    struct parcel *parcel = arg;

    for (size_t i = 0; i < parcel->count; i++) {
        hak_free(parcel->blocks[i]);
    }
    /* It has got a heap, to collect what it frees, but not a slab. */
    NEED(haki_thread_has_heap() && haki_self->tiny.nslabs == 0);
    for (unsigned i = 0; i < HAK_OUTBOXES; i++) {
        NEED(haki_tiny_outbox(&haki_self->tiny, i)->count < BATCH);
    }
    parcel->heaps = unit_stats().heaps;
    return NULL;
}

Test(remote, a_thread_that_only_frees_needs_no_memory)
{
    struct parcel parcel = {NULL, unit_scale(200000, 20000), 0};

    parcel.blocks = calloc(parcel.count, sizeof(void *));
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < parcel.count; i++) {
            parcel.blocks[i] = hak_malloc(1 + i % 1024);
        }
        unit_in_thread(only_free, &parcel);
        cr_assert_eq(parcel.heaps, 2);
        cr_assert_eq(haki_range_heap_count(), 2);
        /* All was sent when it ended: the next refills take all back. */
        hak_trim();
        cr_assert_eq(unit_stats().tiny_live_bytes, 0);
        cr_assert_eq(unit_stats().slabs, 0);
    }
    cr_assert_eq(unit_stats().remote_frees, 3 * parcel.count);
    free(parcel.blocks);
}

/* ---- explicit heaps ------------------------------------------------------------ */

static void *free_one(void *arg)
{
    hak_free(hak_malloc(1)); /* with a heap, and so with outboxes */
    hak_free(arg);
    return NULL;
}

Test(remote, an_explicit_heap_gets_its_blocks_at_once)
{
    hak_heap *heap = hak_heap_new(NULL);
    void *blocks[20];

    for (size_t i = 0; i < 20; i++) {
        blocks[i] = hak_heap_malloc(heap, 100);
    }
    for (size_t i = 0; i < 20; i++) {
        unit_in_thread(free_one, blocks[i]);
        cr_assert_eq(inbox_count(&heap->tiny), i + 1);
    }
    hak_heap_trim(heap);
    cr_assert_eq(inbox_count(&heap->tiny), 0);
    cr_assert_eq(hak_heap_live(heap), 0);
    tiny_check(&heap->tiny);
    hak_heap_delete(heap);
}
