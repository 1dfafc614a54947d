/*
 * tiny_packed.c - tests of heaps that start packed: the starter slab's runs,
 * what is flushed of it, frees by others, misuse, the end.
 */
#include "tiny.h"

#include "heap.h"
#include "unit.h"

TestSuite(tiny_packed, .timeout = 120);

static hak_heap *packed_new(void)
{
    hak_heap *heap = hak_heap_new(NULL);

    NEED(heap != NULL);
    heap->tiny.packed = true;
    return heap;
}

static bool in_starter(const hak_heap *heap, const void *p)
{
    return hak_range_offset(p) >> HAK_SLAB_SHIFT == heap->tiny.starter;
}

static uint32_t tag_of(const void *p)
{
    return hak_range_tag_of(p);
}

/* Every list of a class: how many, and that each is a block of the class. */
static size_t count(const struct hak_block *list, unsigned class)
{
    size_t n = 0;

    for (; list != NULL; list = hak_link_get(list)) {
        NEED(hak_tiny_class_of(list, tag_of(list)) == class);
        NEED(hak_tiny_is_block(list, tag_of(list), class));
        n++;
    }
    return n;
}

static void check(const hak_heap *heap)
{
    const struct hak_tiny *tiny = &heap->tiny;

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        const struct hak_shelf *shelf = &tiny->shelves[c];
        const struct hak_bin *bin = &tiny->bins[c];
        size_t head = count(bin->head, c);

        NEED(bin->left >= 0 && bin->left <= shelf->grant);
        NEED((int64_t)head ==
             shelf->base + (shelf->grant - bin->left) - (int64_t)bin->pops);
        NEED(count(bin->spare, c) == shelf->spare_count);
        NEED(count(hak_tiny_loose(tiny, c), c) == shelf->nloose);
        NEED((size_t)shelf->taken >= head + shelf->spare_count);
        NEED(hak_tiny_live(tiny, c) ==
             (size_t)shelf->taken - head - shelf->spare_count);
    }
    NEED(tiny->starter_used <= HAK_STARTER_UNITS);
}

Test(tiny_packed, a_few_blocks_of_every_class_share_one_slab)
{
    hak_heap *heap = packed_new();
    void *blocks[HAK_TINY_CLASSES];

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        blocks[c] = hak_tiny_alloc(&heap->tiny, c);
        cr_assert_not_null(blocks[c]);
        unit_fill(blocks[c], hak_tiny_size[c], c);
        cr_assert(in_starter(heap, blocks[c]));
        cr_assert_eq((uintptr_t)blocks[c] % 8, 0);
        if (hak_tiny_size[c] % 16 == 0) {
            cr_assert_eq((uintptr_t)blocks[c] % 16, 0);
        }
        cr_assert_eq(hak_usable_size(blocks[c]), hak_tiny_size[c]);
    }
    cr_assert_eq(heap->tiny.nslabs, 1);
    check(heap);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        cr_assert(unit_filled(blocks[c], hak_tiny_size[c], c));
        hak_tiny_free(&heap->tiny, c, blocks[c]);
    }
    check(heap);
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().slabs, 0);
}

Test(tiny_packed, a_full_starter_slab_gives_way_to_slabs_of_one_class)
{
    hak_heap *heap = packed_new();
    unsigned class = hak_tiny_class_8[hak_tiny_index(64)];
    size_t inside = 0;
    void *p;

    do {
        p = hak_tiny_alloc(&heap->tiny, class);
        cr_assert_not_null(p);
        inside += in_starter(heap, p);
    } while (in_starter(heap, p));
    cr_assert_eq(inside, HAK_SLAB_SIZE / 64);
    cr_assert_not(heap->tiny.packed);
    cr_assert_eq(heap->tiny.nslabs, 2);
    cr_assert_eq(HAK_TAG_CLASS(tag_of(p)), class * HAK_TAG_TINY);
    check(heap);
    hak_heap_delete(heap);
}

Test(tiny_packed, what_is_flushed_is_used_again)
{
    hak_heap *heap = packed_new();
    unsigned class = hak_tiny_class_8[hak_tiny_index(48)];
    enum { COUNT = 300 };
    void *blocks[COUNT];

    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = hak_tiny_alloc(&heap->tiny, class);
        NEED(in_starter(heap, blocks[i]));
    }
    for (size_t i = 0; i < COUNT; i++) {
        hak_tiny_free(&heap->tiny, class, blocks[i]);
    }
    hak_tiny_trim(&heap->tiny);
    check(heap);
    cr_assert_geq(heap->tiny.shelves[class].nloose, COUNT);
    cr_assert_eq(heap->tiny.shelves[class].taken, 0);
    cr_assert_eq(hak_tiny_live(&heap->tiny, class), 0);
    for (size_t i = 0; i < COUNT; i++) {
        NEED(in_starter(heap, hak_tiny_alloc(&heap->tiny, class)));
    }
    cr_assert_eq(hak_tiny_live(&heap->tiny, class), COUNT);
    check(heap);
    hak_heap_delete(heap);
}

static void *free_it(void *p)
{
    hak_free(p);
    return NULL;
}

Test(tiny_packed, frees_by_tag_and_by_other_threads_find_the_class)
{
    hak_heap *heap = packed_new();
    unsigned class = hak_tiny_class_8[hak_tiny_index(40)];
    void *p = hak_tiny_alloc(&heap->tiny, class);
    void *q = hak_tiny_alloc(&heap->tiny, class);

    unit_in_thread(free_it, p);
    hak_free(q);
    hak_tiny_collect(&heap->tiny);
    cr_assert_eq(heap->tiny.remote_frees, 2);
    cr_assert_eq(heap->tiny.remote_bytes, 2 * 40);
    cr_assert_eq(heap->tiny.shelves[class].spare_count, 2);
    cr_assert_eq(hak_tiny_live(&heap->tiny, class), 0);
    check(heap);
    /* A run of 512 B has 12 blocks of 40 B. */
    hak_tiny_trim(&heap->tiny);
    cr_assert_eq(heap->tiny.shelves[class].nloose, 12);
    check(heap);
    hak_heap_delete(heap);
}

static void free_child(void *p)
{
    hak_free(p);
}

Test(tiny_packed, misuse_is_fatal_as_in_any_slab)
{
    hak_heap *heap = packed_new();
    char *p = hak_tiny_alloc(&heap->tiny, hak_tiny_class_8[5]);
    char *q = hak_tiny_alloc(&heap->tiny, HAK_TINY_CLASSES - 1);
    char *unused =
        hak_range_slab_start(heap->tiny.starter) + HAK_SLAB_SIZE - 64;

    /* The second block of 40 B lies at 40, 24 would be one of another size. */
    unit_expect_fatal(free_child, p + 24,
                      "hakmem: fatal: hak_free(%p): the middle of a block of "
                      "40 bytes\n",
                      (void *)(p + 24));
    unit_expect_fatal(free_child, q + 512,
                      "hakmem: fatal: hak_free(%p): the middle of a block of "
                      "1024 bytes\n",
                      (void *)(q + 512));
    unit_expect_fatal(free_child, unused,
                      "hakmem: fatal: hak_free(%p): an address that was never "
                      "given out\n",
                      (void *)unused);
    hak_heap_delete(heap);
}

/* Random allocations and sized frees, contents kept, lists whole. */
Test(tiny_packed, random_use_keeps_contents_and_lists)
{
    enum { SLOTS = 900 };
    hak_heap *heap = packed_new();
    struct unit_random random = {42};
    static void *blocks[SLOTS];
    static unsigned class[SLOTS];

    for (size_t i = 0; i < unit_scale(400000, 20000); i++) {
        size_t slot = unit_below(&random, SLOTS);

        if (blocks[slot] != NULL) {
            NEED(unit_filled(blocks[slot], hak_tiny_size[class[slot]],
                             (unsigned)slot));
            hak_tiny_free(&heap->tiny, class[slot], blocks[slot]);
            blocks[slot] = NULL;
        } else {
            class[slot] = (unsigned)unit_below(&random, HAK_TINY_CLASSES);
            blocks[slot] = hak_tiny_alloc(&heap->tiny, class[slot]);
            NEED(blocks[slot] != NULL);
            unit_fill(blocks[slot], hak_tiny_size[class[slot]], (unsigned)slot);
        }
        if (i % 5000 == 0) {
            check(heap);
        }
        if (i % 30000 == 0) {
            hak_tiny_trim(&heap->tiny);
            check(heap);
        }
    }
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().slabs, 0);
}
