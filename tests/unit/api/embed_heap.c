/*
 * embed_heap.c - tests of heaps for adapters: each kind serves, knows its own blocks
 * by address, and its sums are those of what was asked for.
 */
#include "api/embed_heap.h"

#include "api/inside.h"
#include "front/lane.h"
#include "heap/heap.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(embed_heap, .timeout = 300);

/* A size of every lane. */
static const size_t sizes[] = {40, 5000, 100000, 3 * HAK_MIB};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static struct hak_heap *made(enum hak_embed_kind kind)
{
    struct hak_heap *heap = haki_embed_new(kind, "embedded");

    cr_assert_not_null(heap);
    return heap;
}

static void fill(struct hak_heap *heap, char **p)
{
    for (size_t i = 0; i < SIZES; i++) {
        p[i] = hak_heap_malloc(heap, sizes[i]);
        cr_assert_not_null(p[i]);
        unit_fill(p[i], sizes[i], (unsigned)i);
    }
}

static void drop(struct hak_heap *heap, char **p)
{
    for (size_t i = 0; i < SIZES; i++) {
        cr_assert(unit_filled(p[i], sizes[i], (unsigned)i));
        hak_heap_free(heap, p[i]);
    }
}

static void serves_from_every_lane(enum hak_embed_kind kind)
{
    struct hak_heap *heap = made(kind);
    char *p[SIZES];

    cr_assert(haki_embed_is_explicit(heap));
    cr_assert_not(haki_embed_is_threads(heap));
    fill(heap, p);
    drop(heap, p);
    hak_heap_delete(heap);
}

Test(embed_heap, states_and_pools_serve_from_every_lane)
{
    serves_from_every_lane(HAK_EMBED_STATE);
    serves_from_every_lane(HAK_EMBED_POOL);
}

/* It is never deleted, and its user pushes what is freed into its bins. */
Test(embed_heap, that_of_one_lock_serves_small_blocks)
{
    struct hak_heap *heap = made(HAK_EMBED_ONE_LOCK);
    char *p = hak_heap_malloc(heap, 40);
    unsigned class = haki_tiny_class_16[haki_tiny_index(40)];

    cr_assert_not_null(p);
    cr_assert(haki_embed_is_explicit(heap) && haki_embed_has(heap, p));
    cr_assert_not(heap->tiny.sent_at_once || heap->tiny.accounted);
    cr_assert_geq(haki_embed_live(heap), 40);
    haki_bin_push(&heap->tiny.bins[class], p);
    cr_assert_eq(haki_embed_live(heap), 0);
}

Test(embed_heap, a_threads_heap_is_one)
{
    hak_free(hak_malloc(1));
    cr_assert(haki_embed_is_threads(haki_thread_own()));
    cr_assert_not(haki_embed_is_explicit(haki_thread_own()));
}

Test(embed_heap, it_has_its_own_blocks_and_no_other)
{
    struct hak_heap *heap = made(HAK_EMBED_STATE);
    struct hak_heap *other = made(HAK_EMBED_POOL);
    char *p[SIZES], *system;
    char *mine = hak_malloc(40);

    fill(heap, p);
    for (size_t i = 0; i < SIZES; i++) {
        cr_assert(haki_embed_has(heap, p[i]), "%zu bytes", sizes[i]);
        cr_assert_not(haki_embed_has(other, p[i]), "%zu bytes", sizes[i]);
    }
    cr_assert_not(haki_embed_has(heap, mine));
    cr_assert_not(haki_embed_has(heap, &mine));
    cr_assert_not(haki_embed_has(heap, NULL));
    system = haki_system_alloc(16, 100, heap, HAK_REASON_MEMORY);
    cr_assert_not_null(system);
    cr_assert(haki_embed_has(heap, system));
    cr_assert_not(haki_embed_has(other, system));
    drop(heap, p);
    hak_free(mine);
}

Test(embed_heap, its_sums_are_what_was_asked_for)
{
    struct hak_heap *heap = made(HAK_EMBED_STATE);
    unsigned class = haki_tiny_class_16[haki_tiny_index(40)];
    uint64_t activity = haki_embed_activity(heap), allocs, frees;
    struct hak_embed_held held;
    char *p[SIZES];

    fill(heap, p);
    cr_assert_neq(haki_embed_activity(heap), activity);
    haki_embed_tiny_counts(heap, &allocs, &frees);
    cr_assert(allocs == 1 && frees == 0);
    cr_assert_eq(haki_embed_class_allocs(heap, class), 1);
    cr_assert_eq(haki_embed_class_live(heap, class), 1);
    haki_embed_held(heap, &held);
    cr_assert_eq(held.sealed, 0);
    cr_assert_geq(held.slabs, 1);
    cr_assert_geq(held.other, 100000 + 3 * HAK_MIB);

    activity = haki_embed_activity(heap);
    drop(heap, p);
    cr_assert_neq(haki_embed_activity(heap), activity);
    haki_embed_tiny_counts(heap, &allocs, &frees);
    cr_assert(allocs == 1 && frees == 1);
    cr_assert_eq(haki_embed_class_allocs(heap, class), 1);
    cr_assert_eq(haki_embed_class_live(heap, class), 0);
    haki_embed_held(heap, &held);
    cr_assert_eq(held.other, 0);
}

Test(embed_heap, a_stand_in_has_nothing)
{
    static union {
        char page[HAK_PAGE];
        struct hak_heap heap;
    } stand_in __attribute__((aligned(HAK_PAGE)));
    char *p[SIZES];
    struct hak_heap *heap = made(HAK_EMBED_POOL);

    haki_embed_stand_in(stand_in.page);
    fill(heap, p);
    for (size_t i = 0; i < SIZES; i++) {
        cr_assert_neq(haki_range_tag_of(p[i]) & ~(uint32_t)0xff,
                      stand_in.heap.tiny.tag);
    }
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        cr_assert_null(haki_bin_pop(&stand_in.heap.tiny.bins[c]));
    }
    drop(heap, p);
    hak_heap_delete(heap);
}
