/*
 * tiny_packed.c - tests of heaps that start packed: the starter slab's runs,
 * what is flushed of it, frees by others, misuse, the end.
 */
#include "tiny/tiny.h"

#include "heap/heap.h"
#include "pages_check.h"
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

/* No run lies on a page that is gone; holes are known. */
static void check_units(const struct hak_tiny *tiny)
{
    if (tiny->starter == HAK_NO_SLAB) {
        return;
    }
    for (uint32_t at = 0; at < HAK_STARTER_UNITS; at++) {
        bool used = tiny->starter_class[at] != 0xff;
        uint32_t page = at * HAK_STARTER_UNIT / HAK_PAGE;

        NEED(!used || at < tiny->starter_used);
        NEED(!used || (hak_range_slab(tiny->starter)->gone >> page & 1) == 0);
        NEED(used || at >= tiny->starter_used || tiny->holes);
    }
}

static size_t sweep(hak_heap *heap)
{
    size_t bytes;

    hak_tiny_trim(&heap->tiny);
    hak_tiny_busy(&heap->tiny, true);
    bytes = hak_tiny_sweep(&heap->tiny);
    hak_tiny_busy(&heap->tiny, false);
    pages_check_sum();
    return bytes;
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
    check_units(tiny);
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

static size_t resident(const hak_heap *heap)
{
    return unit_resident(hak_range_slab_start(heap->tiny.starter),
                         HAK_SLAB_SIZE);
}

Test(tiny_packed, pages_without_a_block_in_use_go_and_come_again)
{
    enum { COUNT = 60 };
    hak_heap *heap = packed_new();
    static char *blocks[HAK_TINY_CLASSES][COUNT];
    static const unsigned classes[] = {2, 5, 11, 20, 30};
    enum { CLASSES = sizeof(classes) / sizeof(classes[0]) };
    size_t before, holes;

    for (size_t i = 0; i < COUNT; i++) {
        for (unsigned k = 0; k < CLASSES; k++) {
            unsigned c = classes[k];

            blocks[c][i] = hak_tiny_alloc(&heap->tiny, c);
            unit_fill(blocks[c][i], hak_tiny_size[c], c + (unsigned)i);
        }
    }
    /* One run in the middle stays. */
    before = resident(heap);
    for (unsigned k = 0; k < CLASSES; k++) {
        for (size_t i = 0; i < COUNT; i++) {
            unsigned c = classes[k];

            if (c != 11 || i != COUNT / 2) {
                hak_tiny_free(&heap->tiny, c, blocks[c][i]);
            }
        }
    }
    cr_assert_gt(sweep(heap), 0);
    check(heap);
    cr_assert_gt(before, 5);
    cr_assert_leq(resident(heap), 1);
    cr_assert(unit_filled(blocks[11][COUNT / 2], hak_tiny_size[11],
                          11 + COUNT / 2));
    cr_assert_eq(sweep(heap), 0);
    holes = heap->tiny.starter_used;
    /* The holes serve any class, and not more of the slab is used. */
    for (size_t i = 0; i < holes - 4; i++) {
        char *p = hak_tiny_alloc(&heap->tiny, 31 + i % 3); /* 512 B or so */

        NEED(in_starter(heap, p));
        unit_fill(p, hak_tiny_size[31 + i % 3], (unsigned)i);
        check(heap);
    }
    cr_assert_leq(heap->tiny.starter_used, 2 * holes + 8);
    cr_assert(unit_filled(blocks[11][COUNT / 2], hak_tiny_size[11],
                          11 + COUNT / 2));
    hak_heap_delete(heap);
    pages_check_sum();
}

/* A heap that has outgrown its starter slab and become small is packed again. */
Test(tiny_packed, a_heap_that_was_large_is_packed_again)
{
    enum { COUNT = 4000 };
    hak_heap *heap = packed_new();
    unsigned class = hak_tiny_class_8[hak_tiny_index(64)];
    static void *blocks[COUNT];
    void *p;

    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = hak_tiny_alloc(&heap->tiny, class);
    }
    cr_assert_not(heap->tiny.packed);
    for (size_t i = 0; i < COUNT; i++) {
        hak_tiny_free(&heap->tiny, class, blocks[i]);
    }
    sweep(heap);
    cr_assert_eq(heap->tiny.nslabs, 1);
    cr_assert_eq(resident(heap), 0);
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        p = hak_tiny_alloc(&heap->tiny, c);
        cr_assert(in_starter(heap, p));
        unit_fill(p, hak_tiny_size[c], c);
    }
    check(heap);
    cr_assert_eq(heap->tiny.nslabs, 1);
    cr_assert_leq(heap->tiny.starter_used, 2 * HAK_TINY_CLASSES);
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
        } else if (i / 20000 % 2 == 0 || unit_below(&random, 8) == 0) {
            class[slot] = (unsigned)unit_below(&random, HAK_TINY_CLASSES);
            blocks[slot] = hak_tiny_alloc(&heap->tiny, class[slot]);
            NEED(blocks[slot] != NULL);
            unit_fill(blocks[slot], hak_tiny_size[class[slot]], (unsigned)slot);
        }
        if (i % 5000 == 0) {
            check(heap);
        }
        if (i % 3000 == 0) {
            sweep(heap);
            check(heap);
        }
    }
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().slabs, 0);
}
