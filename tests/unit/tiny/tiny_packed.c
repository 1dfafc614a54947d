/*
 * tiny_packed.c - tests of packed heaps: the maps of their slabs, blocks of all
 * sizes side by side, what is freed joins and is used again, frees by others,
 * misuse, pages and slabs that go, the end.
 */
#include "tiny/tiny.h"

#include "heap/heap.h"
#include "os/os.h"
#include "pages_check.h"
#include "unit.h"

TestSuite(tiny_packed, .timeout = 300);

/* In the hardened build the first two classes are of one size, and only the second
 * is packed. */
enum { FIRST = HAK_HARD ? 1 : 0 };

static hak_heap *packed_new(void)
{
    hak_heap *heap = hak_heap_new(NULL);

    NEED(heap != NULL);
    heap->tiny.packed = true;
    return heap;
}

static bool in_packed(const void *p)
{
    return HAK_TAG_CLASS(haki_range_tag_of(p)) == HAK_TAG_PACKED;
}

static uint32_t tag_of(const void *p)
{
    return haki_range_tag_of(p);
}

/* Every list of a class: how many, and that each is a block of the class. */
static size_t count(const struct hak_block *list, unsigned class)
{
    size_t n = 0;

    for (; list != NULL; list = haki_link_get(list)) {
        NEED(haki_tiny_class_at_tag(list, tag_of(list)) == class);
        NEED(haki_tiny_is_block(list, tag_of(list), class));
        n++;
    }
    return n;
}

static bool bit(uint64_t word, uint32_t i)
{
    return (word >> i % 64 & 1) != 0;
}

/* The maps are of blocks as they may be, on pages that are there. */
static void check_units(const struct hak_tiny *tiny)
{
    const struct hak_unit *units = haki_tiny_units(tiny);
    size_t bytes = 0;
    bool open = false;

    NEED(tiny->units <= HAK_UNITS && tiny->units % 4 == 0);
    for (uint32_t g = 0; g < tiny->units * 64; g++) {
        uint32_t slab = tiny->packed_at[g / 64 / HAK_SLAB_UNITS];
        uint32_t page = (uint32_t)(g % (HAK_SLAB_SIZE / 8) / 512);
        bool used = bit(units[g / 64].used, g);
        bool last = bit(units[g / 64].last, g);

        NEED(slab != HAK_NO_SLAB);
        NEED(used || (!last && !open));
        NEED(!used || (haki_range_slab(slab)->gone >> page & 1) == 0);
        NEED(!used || page * HAK_PAGE < haki_range_slab(slab)->resident);
        open = used && !last;
        bytes += used * (size_t)8;
        NEED(!open || (g + 1) % (HAK_SLAB_SIZE / 8) != 0);
    }
    NEED(!open);
    NEED(bytes == tiny->packed_bytes);
}

static size_t sweep(hak_heap *heap)
{
    size_t bytes;

    haki_tiny_trim(&heap->tiny);
    haki_tiny_busy(&heap->tiny, true);
    bytes = haki_tiny_sweep(&heap->tiny);
    haki_tiny_busy(&heap->tiny, false);
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

        NEED(bin->left >= 0);
        NEED((uint32_t)head == shelf->base - (uint32_t)bin->left -
                                   (uint32_t)haki_bin_pops(tiny, c));
        NEED(count(bin->spare, c) == shelf->spare_count);
        NEED((size_t)tiny->taken[c] >= head + shelf->spare_count);
        NEED(haki_tiny_live(tiny, c) ==
             (size_t)tiny->taken[c] - head - shelf->spare_count);
    }
    check_units(tiny);
}

Test(tiny_packed, a_few_blocks_of_every_class_share_one_slab)
{
    hak_heap *heap = packed_new();
    void *blocks[HAK_TINY_CLASSES];

    for (unsigned c = FIRST; c < HAK_TINY_CLASSES; c++) {
        blocks[c] = haki_tiny_alloc(&heap->tiny, c);
        cr_assert_not_null(blocks[c]);
        unit_fill(blocks[c], haki_tiny_size[c], c);
        cr_assert(in_packed(blocks[c]));
        cr_assert_eq((uintptr_t)blocks[c] % 8, 0);
        if (haki_tiny_size[c] % 16 == 0) {
            cr_assert_eq((uintptr_t)blocks[c] % 16, 0);
        }
        cr_assert_eq(hak_usable_size(blocks[c]), haki_tiny_size[c]);
    }
    cr_assert_eq(heap->tiny.nslabs, 1);
    check(heap);
    for (unsigned c = FIRST; c < HAK_TINY_CLASSES; c++) {
        cr_assert(unit_filled(blocks[c], haki_tiny_size[c], c));
        haki_tiny_free(&heap->tiny, c, blocks[c]);
    }
    check(heap);
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().slabs, 0);
}

/* A heap of less than 20 KB is a page for itself, and those that its blocks touch. */
Test(tiny_packed, a_small_heap_s_maps_need_no_page_of_their_own)
{
    enum { EACH = 64, COUNT = 18 * 1024 / EACH };
    hak_heap *heap = packed_new();

    UNIT_SKIP_IF_WATCHED("pages are resident as the checker likes");
    for (int i = 0; i < COUNT; i++) {
        void *p = hak_heap_malloc(heap, EACH);

        NEED(p != NULL && in_packed(p));
        memset(p, 1, EACH);
    }
    cr_assert_leq(heap->tiny.units, HAK_UNITS_NEAR);
    cr_assert_eq(haki_os_resident(heap, HAK_HEAP_SLOT), HAK_PAGE);
    cr_assert_leq(hak_heap_resident(heap), 6 * HAK_PAGE);
    hak_heap_delete(heap);
}

Test(tiny_packed, full_packed_slabs_give_way_to_slabs_of_one_class)
{
    hak_heap *heap = packed_new();
    unsigned class = haki_tiny_class_8[haki_tiny_index(64)];
    size_t inside = 0;
    void *p;

    do {
        p = haki_tiny_alloc(&heap->tiny, class);
        cr_assert_not_null(p);
        inside += in_packed(p);
    } while (in_packed(p));
    cr_assert_eq(inside, HAK_PACKED_SLABS * HAK_SLAB_SIZE / 64);
    cr_assert_eq(heap->tiny.nslabs, HAK_PACKED_SLABS + 1);
    cr_assert_eq(HAK_TAG_CLASS(tag_of(p)), class * HAK_TAG_TINY);
    check(heap);
    hak_heap_delete(heap);
}

Test(tiny_packed, what_is_flushed_is_used_again)
{
    hak_heap *heap = packed_new();
    unsigned class = haki_tiny_class_8[haki_tiny_index(48)];
    enum { COUNT = 300 };
    void *blocks[COUNT];

    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = haki_tiny_alloc(&heap->tiny, class);
        NEED(in_packed(blocks[i]));
    }
    for (size_t i = 0; i < COUNT; i++) {
        haki_tiny_free(&heap->tiny, class, blocks[i]);
    }
    haki_tiny_trim(&heap->tiny);
    check(heap);
    cr_assert_eq(heap->tiny.packed_bytes, 0);
    cr_assert_eq(heap->tiny.taken[class], 0);
    cr_assert_eq(haki_tiny_live(&heap->tiny, class), 0);
    for (size_t i = 0; i < COUNT; i++) {
        NEED(in_packed(haki_tiny_alloc(&heap->tiny, class)));
    }
    cr_assert_eq(haki_tiny_live(&heap->tiny, class), COUNT);
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
    unsigned class = haki_tiny_class_8[haki_tiny_index(40)];
    void *p = haki_tiny_alloc(&heap->tiny, class);
    void *q = haki_tiny_alloc(&heap->tiny, class);

    unit_in_thread(free_it, p);
    hak_free(q);
    haki_tiny_collect(&heap->tiny);
    cr_assert_eq(heap->tiny.remote_frees, 2);
    cr_assert_eq(heap->tiny.remote_bytes, 2 * 40);
    cr_assert_eq(heap->tiny.shelves[class].spare_count, 2);
    cr_assert_eq(haki_tiny_live(&heap->tiny, class), 0);
    check(heap);
    haki_tiny_trim(&heap->tiny);
    cr_assert_eq(heap->tiny.packed_bytes, 0);
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
    char *p = haki_tiny_alloc(&heap->tiny, haki_tiny_class_8[5]);
    char *q = haki_tiny_alloc(&heap->tiny, HAK_TINY_CLASSES - 1);
    char *unused =
        haki_range_slab_start(heap->tiny.packed_at[0]) + HAK_SLAB_SIZE - 64;

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
    size_t pages = 0;

    for (uint32_t i = 0; i < HAK_PACKED_SLABS; i++) {
        if (heap->tiny.packed_at[i] != HAK_NO_SLAB) {
            pages +=
                unit_resident(haki_range_slab_start(heap->tiny.packed_at[i]),
                              HAK_SLAB_SIZE);
        }
    }
    return pages;
}

Test(tiny_packed, pages_without_a_block_in_use_go_and_come_again)
{
    enum { COUNT = 60 };
    hak_heap *heap = packed_new();
    static char *blocks[HAK_TINY_CLASSES][COUNT];
    static const unsigned classes[] = {2, 5, 11, 20, 30};
    enum { CLASSES = sizeof(classes) / sizeof(classes[0]) };
    size_t before;
    uint32_t units;

    for (size_t i = 0; i < COUNT; i++) {
        for (unsigned k = 0; k < CLASSES; k++) {
            unsigned c = classes[k];

            blocks[c][i] = haki_tiny_alloc(&heap->tiny, c);
            unit_fill(blocks[c][i], haki_tiny_size[c], c + (unsigned)i);
        }
    }
    /* One block in the middle stays. */
    before = resident(heap);
    for (unsigned k = 0; k < CLASSES; k++) {
        for (size_t i = 0; i < COUNT; i++) {
            unsigned c = classes[k];

            if (c != 11 || i != COUNT / 2) {
                haki_tiny_free(&heap->tiny, c, blocks[c][i]);
            }
        }
    }
    cr_assert_gt(sweep(heap), 0);
    check(heap);
    cr_assert_gt(before, 5);
    cr_assert_leq(resident(heap), 1);
    cr_assert(unit_filled(blocks[11][COUNT / 2], haki_tiny_size[11],
                          11 + COUNT / 2));
    cr_assert_eq(sweep(heap), 0);
    units = heap->tiny.units;
    /* The pages below serve any class, and no more of the slab is used. */
    for (size_t i = 0; i < units / 2; i++) {
        char *p = haki_tiny_alloc(&heap->tiny, 31 + i % 3); /* 512 B or so */

        NEED(in_packed(p));
        unit_fill(p, haki_tiny_size[31 + i % 3], (unsigned)i);
        check(heap);
    }
    cr_assert_leq(heap->tiny.units, units + 8);
    cr_assert(unit_filled(blocks[11][COUNT / 2], haki_tiny_size[11],
                          11 + COUNT / 2));
    hak_heap_delete(heap);
    pages_check_sum();
}

/* A heap that has outgrown its starter slab and become small is packed again. */
Test(tiny_packed, a_heap_that_was_large_is_packed_again)
{
    enum { COUNT = 4000 };
    hak_heap *heap = packed_new();
    unsigned class = haki_tiny_class_8[haki_tiny_index(64)];
    static void *blocks[COUNT];
    void *p;

    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = haki_tiny_alloc(&heap->tiny, class);
    }
    cr_assert_gt(heap->tiny.nslabs, HAK_PACKED_SLABS);
    for (size_t i = 0; i < COUNT; i++) {
        haki_tiny_free(&heap->tiny, class, blocks[i]);
    }
    sweep(heap);
    cr_assert_eq(heap->tiny.nslabs, 0);
    for (unsigned c = FIRST; c < HAK_TINY_CLASSES; c++) {
        p = haki_tiny_alloc(&heap->tiny, c);
        cr_assert(in_packed(p));
        unit_fill(p, haki_tiny_size[c], c);
    }
    check(heap);
    cr_assert_eq(heap->tiny.nslabs, 1);
    cr_assert_leq(heap->tiny.units, 4 * HAK_TINY_CLASSES);
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
            NEED(unit_filled(blocks[slot], haki_tiny_size[class[slot]],
                             (unsigned)slot));
            haki_tiny_free(&heap->tiny, class[slot], blocks[slot]);
            blocks[slot] = NULL;
        } else if (i / 20000 % 2 == 0 || unit_below(&random, 8) == 0) {
            class[slot] =
                FIRST + (unsigned)unit_below(&random, HAK_TINY_CLASSES - FIRST);
            blocks[slot] = haki_tiny_alloc(&heap->tiny, class[slot]);
            NEED(blocks[slot] != NULL);
            unit_fill(blocks[slot], haki_tiny_size[class[slot]],
                      (unsigned)slot);
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

/* ---- above 1024 B --------------------------------------------------------- */

Test(tiny_packed, larger_blocks_lie_among_the_others)
{
    hak_heap *heap = packed_new();
    char *blocks[20], *p;
    size_t live = 0;

    for (size_t i = 0; i < 20; i++) {
        size_t size = 1025 + i * 150;

        blocks[i] = hak_heap_malloc(heap, size);
        cr_assert(blocks[i] != NULL && in_packed(blocks[i]));
        cr_assert_eq((uintptr_t)blocks[i] % 16, 0);
        cr_assert_eq(hak_usable_size(blocks[i]), haki_round_up(size, 16));
        live += haki_round_up(size, 16);
        unit_fill(blocks[i], size, (unsigned)i);
        NEED(in_packed(hak_heap_malloc(heap, 24)));
        live += 32;
    }
    cr_assert_null(heap->pool);
    check(heap);
    cr_assert_eq(hak_heap_live(heap), live);
    p = hak_heap_malloc(heap, HAK_TINY_LARGER_MOST + 1);
    cr_assert_not(in_packed(p));
    hak_heap_free(heap, p);
    for (size_t i = 0; i < 20; i++) {
        size_t size = 1025 + i * 150;

        cr_assert(unit_filled(blocks[i], size, (unsigned)i));
        if (i % 3 == 0) {
            unit_in_thread(free_it, blocks[i]);
        } else if (i % 3 == 1) {
            hak_heap_free(heap, blocks[i]);
        } else {
            p = hak_heap_realloc(heap, blocks[i], size * 2);
            cr_assert(unit_filled(p, size, (unsigned)i));
            p = hak_heap_realloc(heap, p, 100);
            cr_assert(unit_filled(p, 100, (unsigned)i));
            hak_heap_free(heap, p);
        }
        live -= haki_round_up(size, 16);
    }
    haki_tiny_collect(&heap->tiny);
    cr_assert_eq(heap->tiny.larger_bytes, 0);
    cr_assert_eq(hak_heap_live(heap), live);
    check(heap);
    hak_heap_delete(heap);
}

/* What a seal leaves is freed to no avail, larger ones as well. */
Test(tiny_packed, sealed_slabs_are_left_alone)
{
    hak_heap *heap = packed_new();
    void *small = hak_heap_malloc(heap, 100);
    void *large = hak_heap_malloc(heap, 2000);
    void *sent = hak_heap_malloc(heap, 3000);
    uint64_t before;

    haki_heap_seal_slabs(heap);
    before = haki_tiny_units(&heap->tiny)->used;
    hak_heap_free(heap, small);
    hak_heap_free(heap, large);
    unit_in_thread(free_it, sent);
    haki_tiny_collect(&heap->tiny);
    cr_assert_eq(haki_tiny_units(&heap->tiny)->used, before);
    cr_assert_eq(hak_heap_live(heap), 0);
    cr_assert_not(in_packed(hak_heap_malloc(heap, 100)));
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().slabs, 0);
}
