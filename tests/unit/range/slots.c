/*
 * slots.c - heap slots: which are in use, what is kept of those that are not.
 */
#include "range/purge.h"
#include "clock.h"
#include "range/range.h"
#include "range/slots.h"

#include <hakmem.h>
#include <pthread.h>
#include <sys/mman.h>

#include "range/supers.h"
#include "unit.h"

TestSuite(slots, .init = clock_stop, .timeout = 300);

enum { MOST = 5000, KEPT = 32 };

static uint32_t ids[MOST];

/* Takes n slots and touches both pages that may be kept. */
static void take(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        char *slot = haki_range_heap_take(&ids[i]);

        cr_assert_not_null(slot);
        slot[0] = slot[HAK_PAGE] = 1;
    }
}

/* Pages of slots that are resident. */
static size_t resident(void)
{
    size_t count = 0;

    for (uint32_t id = 1; id <= haki_range_heap_count(); id++) {
        unsigned char pages[HAK_HEAP_SLOT / HAK_PAGE];

        cr_assert_eq(mincore(haki_range_heap(id), HAK_HEAP_SLOT, pages), 0);
        for (size_t i = 0; i < sizeof(pages); i++) {
            count += pages[i] & 1;
        }
    }
    return count;
}

static void give_in_some_order(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        haki_range_heap_give(ids[(uint64_t)i * 2741 % n]);
    }
}

static void leave_little(uint32_t n)
{
    cr_assert(haki_range_init());
    for (int round = 0; round < 3; round++) {
        take(n);
        cr_assert_eq(resident(), 2 * n);
        give_in_some_order(n);
        cr_assert_leq(resident(), 2 * KEPT);
        cr_assert_gt(resident(), KEPT / 2);
        cr_assert_eq(haki_range_heap_next(0), 0);
    }
    cr_assert_eq(haki_range_heap_count(), n, "lower slots are used again");
    haki_range_purge();
    cr_assert_eq(resident(), 0);
}

Test(slots, what_is_given_back_leaves_a_few_pages_and_none_after_a_purge)
{
    leave_little((uint32_t)unit_scale(MOST, 200));
}

Test(slots, a_few_slots_are_taken_again_with_their_pages)
{
    uint32_t id;

    cr_assert(haki_range_init());
    for (int round = 0; round < 1000; round++) {
        take(KEPT);
        give_in_some_order(KEPT);
        cr_assert_eq(resident(), 2 * KEPT, "round %d", round);
    }
    cr_assert_not_null(haki_range_heap_take(&id));
    cr_assert_eq(id, ids[(KEPT - 1) * 2741 % KEPT], "the last one given");
}

Test(slots, statistics_say_what_is_kept)
{
    hak_stats_t stats = {.size = sizeof(stats)};

    cr_assert(haki_range_init());
    take(10);
    cr_assert_eq(hak_stats(&stats), 0);
    cr_assert_eq(stats.heaps_kept_bytes, 0);
    give_in_some_order(10);
    cr_assert_eq(hak_stats(&stats), 0);
    cr_assert_eq(stats.heaps_kept_bytes, 10 * HAK_HEAP_KEPT * HAK_PAGE);
    hak_trim();
    cr_assert_eq(hak_stats(&stats), 0);
    cr_assert_eq(stats.heaps_kept_bytes, 0);
}

Test(slots, what_is_kept_goes_back_when_it_was_idle)
{
    setenv("HAKMEM_PURGE_DELAY", "50", 1);
    cr_assert(haki_range_init());
    take(20);
    give_in_some_order(20);
    cr_assert_eq(resident(), 40);
    cr_assert(haki_range_waiting());
    for (uint32_t now = haki_os_tick(), end = now + 100; now != end; now++) {
        haki_range_tick(now);
    }
    cr_assert_eq(resident(), 0);
    cr_assert_not(haki_range_waiting());
}

Test(slots, a_walk_meets_every_slot_in_use_and_no_other)
{
    uint32_t n = (uint32_t)unit_scale(MOST, 300), met = 0;

    cr_assert(haki_range_init());
    cr_assert_eq(haki_range_heap_next(0), 0);
    take(n);
    for (uint32_t i = 0; i < n; i++) {
        if (i % 3 != 0 || (i > 500 && i < 1000)) {
            haki_range_heap_give(ids[i]);
            ids[i] = 0;
        }
    }
    for (uint32_t id = 0; (id = haki_range_heap_next(id)) != 0; met++) {
        while (ids[met] == 0) { /* met runs over those that were given back */
            met++;
        }
        cr_assert_eq(id, ids[met]);
    }
    for (; met < n; met++) {
        cr_assert_eq(ids[met], 0);
    }
}

/* A ghost may have been caught while it moved the list of what is kept. */
Test(slots, no_slot_is_taken_twice_after_a_mend)
{
    uint32_t more;

    cr_assert(haki_range_init());
    take(100);
    for (int i = 0; i < 50; i++) {
        haki_range_heap_give(ids[i]);
    }
    haki_lock_take(&haki_supers.lock);
    haki_range_mend();
    haki_lock_drop(&haki_supers.lock);
    for (int i = 0; i < 50; i++) {
        cr_assert_not_null(haki_range_heap_take(&more));
        cr_assert_eq(more, ids[i]);
    }
    cr_assert_not_null(haki_range_heap_take(&more));
    cr_assert_eq(more, 101);
}

/* ---- heaps ---------------------------------------------------------------- */

/* A heap that has used all lanes, sealed or not. */
static void use_and_delete(bool seal)
{
    hak_heap *heap = hak_heap_new(NULL);
    static void *blocks[3000];

    cr_assert_not_null(heap);
    for (int i = 0; i < 3000; i++) {
        blocks[i] = hak_heap_malloc(heap, (size_t)(i * 31 % 60000 + 1));
        cr_assert_not_null(blocks[i]);
    }
    if (seal) {
        hak_heap_seal(heap);
    }
    for (int i = 0; i < 3000; i++) {
        hak_heap_free(heap, blocks[i]);
    }
    hak_heap_delete(heap);
}

Test(slots, a_deleted_heap_keeps_two_pages_at_most)
{
    for (int i = 0; i < 4; i++) {
        use_and_delete(i % 2 != 0);
        cr_assert_leq(resident(), 3, "%zu", resident());
        hak_trim();
        cr_assert_eq(resident(), 0);
    }
}

/* Resident pages among the descriptors and tags of n slabs from `first` on. */
static size_t resident_meta(uint32_t first, uint32_t n)
{
    static unsigned char pages[2][64];
    size_t bytes[2] = {n * sizeof(struct hak_slab), n * sizeof(uint32_t)};
    void *at[2] = {haki_range_slab(first), (void *)(haki_range_tags() + first)};
    size_t count = 0;

    for (int i = 0; i < 2; i++) {
        NEED(bytes[i] / HAK_PAGE <= sizeof(pages[i]));
        NEED(mincore(at[i], bytes[i], pages[i]) == 0);
        for (size_t page = 0; page < bytes[i] / HAK_PAGE; page++) {
            count += pages[i][page] & 1;
        }
    }
    return count;
}

Test(slots, descriptors_and_tags_go_with_their_superslabs)
{
    enum { HEAPS = 3000, STEP = HAK_META_STEP / sizeof(struct hak_slab) };
    static hak_heap *heaps[HEAPS];
    uint32_t first;

    UNIT_SKIP_IF_EMULATED("its window has 1 GB");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < HEAPS; i++) {
            heaps[i] = hak_heap_new(NULL);
            cr_assert_not_null(hak_heap_malloc(heaps[i], 100));
        }
        /* A step behind those that the tags' own superslabs have a part in. */
        first =
            (uint32_t)haki_round_up(haki_supers.tags * HAK_SUPER_SLABS, STEP);
        cr_assert_eq(resident_meta(first, STEP), 17);
        for (int i = 0; i < HEAPS; i++) {
            hak_heap_delete(heaps[i]);
        }
        hak_trim();
        cr_assert_eq(resident_meta(first, STEP), 0);
        cr_assert_eq(resident_meta(first + STEP, STEP), 0);
    }
}

/* Makes heaps that have a Pool, and deletes them. */
static void *make_and_delete(void *done)
{
    for (int i = 0; i < 1000; i++) {
        hak_heap *heaps[40];

        for (int n = 0; n < 40; n++) {
            heaps[n] = hak_heap_new(NULL);
            NEED(heaps[n] != NULL && hak_heap_malloc(heaps[n], 2000) != NULL);
        }
        for (int n = 0; n < 40; n++) {
            hak_heap_delete(heaps[n]);
        }
    }
    atomic_store((atomic_bool *)done, true);
    return NULL;
}

Test(slots, statistics_may_be_asked_while_heaps_are_deleted)
{
    atomic_bool done = false;
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, make_and_delete, &done), 0);
    while (!atomic_load(&done)) {
        hak_stats_t stats = {.size = sizeof(stats)};

        cr_assert_eq(hak_stats(&stats), 0);
    }
    pthread_join(thread, NULL);
}

/* Bytes that are resident when heaps have done what they do, again. */
static uint64_t populated_by_heaps(void)
{
    enum { HEAPS = 30 };
    hak_heap *heaps[HEAPS];
    hak_stats_t stats = {.size = sizeof(stats)};

    for (int i = 0; i < HEAPS; i++) {
        heaps[i] = hak_heap_new(NULL);
        NEED(heaps[i] != NULL);
        for (int n = 0; n < 600; n++) { /* a few of most, many of some */
            size_t size = n % 3 != 0 ? 40 : (size_t)(n % 50) * 16 + 1;
            char *block = hak_heap_malloc(heaps[i], size);

            NEED(block != NULL);
            memset(block, 1, size);
        }
    }
    NEED(hak_stats(&stats) == 0);
    for (int i = 0; i < HEAPS; i++) {
        hak_heap_delete(heaps[i]);
    }
    return stats.resident_bytes;
}

Test(slots, heaps_that_are_made_again_find_the_pages_they_need)
{
    uint64_t first = populated_by_heaps();

    for (int round = 0; round < 5; round++) {
        cr_assert_eq(populated_by_heaps(), first);
    }
}
