/*
 * lane.c - tests across the four lanes: each size is served by the lane that
 * lane.h names, and realloc, calloc, alignment and explicit heaps work in
 * all of them and from each into each. Contents are checked throughout.
 */
#include "front/hot.h"
#include "front/lane.h"
#include "heap/thread.h"
#include "unit.h"

TestSuite(lanes, .timeout = 300);

/* Every size at which something may change, in ascending order. */
static size_t edges[400];
static size_t edge_count;

static void edge(size_t size)
{
    for (size_t n = size - 1; n <= size + 1; n++) {
        if (edge_count == 0 || n > edges[edge_count - 1]) {
            edges[edge_count++] = n;
        }
    }
}

static void find_edges(void)
{
    edge(1);
    edge(8);
    edge(16);
    edge(128);
    edge(1023);
    edge(1024);
    edge(1025);
    for (unsigned c = 0; c < HAK_POOL_CLASSES; c++) {
        edge(haki_pool_classes[c].block);
    }
    edge(HAK_LANE_ACE_LEAST);
    edge(15 * HAK_PAGE);
    edge(64 * HAK_KIB);
    edge(HAK_MIB);
    edge(HAK_SUPER_SIZE - HAK_PAGE);
    edge(HAK_SUPER_SIZE);
    edge(HAK_SUPER_SIZE + HAK_PAGE);
    edge(2 * HAK_SUPER_SIZE);
}

/* The lane that has p, as the tag of its slab says. */
static enum hak_lane lane_at(const void *p)
{
    uint32_t class = HAK_TAG_CLASS(haki_range_tag_of(p));

    NEED(haki_range_owns(p));
    if (class == HAK_TAG_ACE) {
        return HAK_LANE_ACE;
    }
    if (class == HAK_TAG_HUGE) {
        return HAK_LANE_HUGE;
    }
    if (class >= HAK_TAG_POOL && class < HAK_TAG_POOL + HAK_POOL_CLASSES) {
        return HAK_LANE_POOL;
    }
    NEED(class < HAK_TAG_TINY_END || class == HAK_TAG_PACKED);
    return HAK_LANE_TINY;
}

/* The lane of a size, computed without the code under test. */
static enum hak_lane lane_for(size_t size)
{
    return size <= 1024           ? HAK_LANE_TINY
           : size <= 52 * HAK_KIB ? HAK_LANE_POOL
           : size < 2 * HAK_MIB   ? HAK_LANE_ACE
                                  : HAK_LANE_HUGE;
}

/* The most that may be left over in a block. */
static size_t waste_for(size_t size, size_t usable)
{
    if (size <= 128) {
        return size == 0 ? 16 : 15;
    }
    return size <= 52 * HAK_KIB ? usable / 8 : HAK_PAGE - 1;
}

/* The blocks' statistics: nothing in use, nothing at the system. */
static void check_all_free(void)
{
    hak_stats_t stats = unit_stats();

    NEED(stats.tiny_live_bytes == 0);
    NEED(stats.pool_live_bytes == 0);
    NEED(stats.ace_live_bytes == 0);
    NEED(stats.huge_live_bytes == 0);
    NEED(stats.system_live == 0);
    NEED(stats.tiny_allocs == stats.tiny_frees);
    NEED(stats.pool_allocs == stats.pool_frees);
    NEED(stats.ace_allocs == stats.ace_frees);
    NEED(stats.huge_allocs == stats.huge_frees);
}

/* ... and after a trim no lane holds anything. */
static void check_nothing_held(void)
{
    hak_stats_t stats;

    hak_trim();
    stats = unit_stats();
    NEED(stats.tiny_held_bytes == 0);
    NEED(stats.pool_held_bytes == 0);
    NEED(stats.ace_held_bytes == 0);
    NEED(stats.huge_held_bytes == 0);
    NEED(stats.slabs == 0);
    NEED(stats.resident_bytes == 0);
}

/* ---- sizes ------------------------------------------------------------------- */

Test(lanes, every_boundary_size_is_served_by_its_lane)
{
    static char *blocks[400];

    find_edges();
    for (size_t i = 0; i < edge_count; i++) {
        size_t size = edges[i], usable;

        blocks[i] = hak_malloc(size);
        cr_assert_not_null(blocks[i]);
        cr_assert_eq(lane_at(blocks[i]), lane_for(haki_hard_grow(size)),
                     "size %zu", size);
        cr_assert_eq((uintptr_t)blocks[i] % (size > 8 ? 16 : 8), 0);
        usable = hak_usable_size(blocks[i]);
        cr_assert_geq(usable, size);
        cr_assert_leq(usable - size, waste_for(size, usable), "size %zu: %zu",
                      size, usable);
        unit_fill(blocks[i], usable, (unsigned)i);
    }
    for (size_t i = 0; i < edge_count; i++) {
        cr_assert(unit_filled(blocks[i], hak_usable_size(blocks[i]),
                              (unsigned)i),
                  "size %zu", edges[i]);
        if (i % 2 == 0) {
            hak_free_sized(blocks[i], edges[i]);
        } else {
            hak_free(blocks[i]);
        }
    }
    check_all_free();
    check_nothing_held();
}

Test(lanes, figures_count_what_each_lane_has)
{
    static const size_t sizes[] = {100, 5000, 200000, 5000000};
    static const size_t blocks[] = {112, 5120, 200704, 5001216};
    char *p[4];
    hak_stats_t stats;

    for (int i = 0; i < 4; i++) {
        p[i] = hak_malloc(sizes[i]);
        cr_assert_eq(hak_usable_size(p[i]), unit_usable(blocks[i], sizes[i]));
    }
    stats = unit_stats();
    cr_assert_eq(stats.tiny_live_bytes, blocks[0]);
    cr_assert_eq(stats.pool_live_bytes, blocks[1]);
    cr_assert_eq(stats.ace_live_bytes, blocks[2]);
    cr_assert_eq(stats.huge_live_bytes, blocks[3]);
    cr_assert_eq(stats.tiny_held_bytes, HAK_SLAB_SIZE);
    cr_assert_eq(stats.pool_held_bytes, 5 * HAK_SLAB_SIZE);
    cr_assert_eq(stats.ace_held_bytes, HAK_SUPER_SIZE);
    cr_assert_eq(stats.huge_held_bytes, 3 * HAK_SUPER_SIZE);
    for (int i = 0; i < 4; i++) {
        hak_free(p[i]);
    }
    check_all_free();
    check_nothing_held();
}

/* ---- realloc -------------------------------------------------------------------- */

Test(lanes, realloc_from_each_boundary_to_each_keeps_contents)
{
    size_t step;

    find_edges();
    step = UNIT_WATCHED ? 7 : 1;
    for (size_t i = 0; i < edge_count; i += step) {
        for (size_t k = i % 5; k < edge_count; k += 5 * step) {
            size_t from = edges[i], to = edges[k];
            char *p = hak_malloc(from), *q;

            NEED(p != NULL);
            unit_fill(p, haki_min(from, 70000), 3);
            if (from > 0) {
                p[from - 1] = 77;
            }
            q = hak_realloc(p, to);
            NEED(q != NULL && hak_owns(q) && hak_usable_size(q) >= to);
            if (to >= from && from > 0) {
                NEED(q[from - 1] == 77);
            }
            NEED(unit_filled(q,
                             haki_min(haki_min(from, to), 70000 - 1) -
                                 (from > 0 && from <= to),
                             3) ||
                 from <= 1);
            /* A much smaller block is of the lane that its size has. */
            if (to < from / 2 || to > from) {
                NEED(hak_usable_size(q) - to <=
                     haki_max(waste_for(to, hak_usable_size(q)),
                              hak_usable_size(q) / 4));
            }
            hak_free(q);
        }
    }
    check_all_free();
    check_nothing_held();
}

/* Larger by 1.5 each time, then smaller: what a growing buffer does. */
Test(lanes, a_buffer_that_grows_and_shrinks_through_all_lanes)
{
    size_t size = 1, most = UNIT_WATCHED ? 5000000 : 50000000;
    char *p = hak_malloc(1);

    p[0] = 1;
    while (size < most) {
        size_t more = size + size / 2 + 1;

        p = hak_realloc(p, more);
        NEED(p != NULL && p[0] == 1 && p[size - 1] == (char)size);
        p[more - 1] = (char)more;
        size = more;
        if (size == 2) {
            p[1] = 2;
        }
    }
    while (size > 1) {
        size_t less = size / 2;

        p[less - 1] = (char)less;
        p[0] = less == 1 ? 1 : p[0];
        p = hak_realloc(p, less);
        NEED(p != NULL && p[less - 1] == (char)less);
        size = less;
    }
    hak_free(p);
    check_all_free();
}

/* 1.25 times these is a size that wraps around to a small one. */
Test(lanes, realloc_to_wild_sizes_is_null_and_enomem)
{
    static const size_t wild[] = {
        SIZE_MAX / 5 * 4,
        SIZE_MAX / 5 * 4 + 1,
        SIZE_MAX / 5 * 4 + 2,
        SIZE_MAX / 5 * 4 + 64,
        SIZE_MAX / 5 * 4 + 70000,
        SIZE_MAX / 5 * 4 + 1000000,
        SIZE_MAX,
        SIZE_MAX - 4095,
        (size_t)PTRDIFF_MAX,
        (size_t)PTRDIFF_MAX + 1,
    };
    static const size_t sizes[] = {50, 5000, 200000, 5000000};

    for (size_t i = 0; i < 4; i++) {
        char *p = hak_malloc(sizes[i]);
        hak_heap *heap = hak_heap_new(NULL);
        char *q = hak_heap_malloc(heap, sizes[i]);

        unit_fill(p, sizes[i], 1);
        unit_fill(q, sizes[i], 2);
        for (size_t k = 0; k < sizeof(wild) / sizeof(wild[0]); k++) {
            errno = 0;
            cr_assert_null(hak_realloc(p, unit_size(wild[k])), "%zu from %zu",
                           wild[k], sizes[i]);
            cr_assert_eq(errno, ENOMEM);
            errno = 0;
            cr_assert_null(hak_heap_realloc(heap, q, unit_size(wild[k])));
            cr_assert_eq(errno, ENOMEM);
            errno = 0;
            cr_assert_null(hak_heap_malloc(heap, unit_size(wild[k])));
            cr_assert_eq(errno, ENOMEM);
        }
        cr_assert(unit_filled(p, sizes[i], 1));
        cr_assert(unit_filled(q, sizes[i], 2));
        cr_assert_eq(hak_heap_live(heap), hak_usable_size(q));
        hak_heap_delete(heap);
        hak_free(p);
    }
    check_all_free();
}

/* ---- calloc, alignment -------------------------------------------------------------- */

static bool is_zero(const char *p, size_t bytes)
{
    return bytes == 0 || (p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0);
}

Test(lanes, calloc_is_zero_over_dirty_memory)
{
    static char *blocks[400];

    find_edges();
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < edge_count; i++) {
            size_t size = edges[i];

            blocks[i] =
                round % 2 == 0 ? hak_calloc(1, size) : hak_calloc(size, 1);
            cr_assert_not_null(blocks[i]);
            cr_assert(is_zero(blocks[i], size), "size %zu, round %d", size,
                      round);
            memset(blocks[i], 0xff, hak_usable_size(blocks[i]));
        }
        for (size_t i = 0; i < edge_count; i++) {
            hak_free(blocks[(i * 3) % edge_count]);
            blocks[(i * 3) % edge_count] = NULL;
        }
        for (size_t i = 0; i < edge_count; i++) {
            hak_free(blocks[i]);
        }
        if (round == 1) {
            hak_trim();
        }
    }
    check_all_free();
}

Test(lanes, every_alignment_and_size)
{
    static const size_t sizes[] = {0,     1,      8,       100,     1024,
                                   1025,  5000,   40000,   53248,   53249,
                                   70000, 500000, 2097151, 2097152, 9000000};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

    for (size_t align = 1; align <= 64 * HAK_MIB; align *= 2) {
        char *p[SIZES];

        for (size_t i = 0; i < SIZES; i++) {
            p[i] = hak_aligned_alloc(align, sizes[i]);
            cr_assert_not_null(p[i]);
            cr_assert(hak_owns(p[i]));
            cr_assert_eq((uintptr_t)p[i] % align, 0, "%zu aligned to %zu",
                         sizes[i], align);
            cr_assert_geq(hak_usable_size(p[i]), sizes[i]);
            unit_fill(p[i], haki_min(hak_usable_size(p[i]), 100000),
                      (unsigned)i);
        }
        for (size_t i = 0; i < SIZES; i++) {
            size_t usable = haki_min(hak_usable_size(p[i]), 100000);

            cr_assert(unit_filled(p[i], usable, (unsigned)i));
            p[i] = i % 3 == 0 ? hak_realloc(p[i], sizes[i] + 3000) : p[i];
            cr_assert(unit_filled(p[i], haki_min(usable, sizes[i]),
                                  (unsigned)i));
            hak_free(p[i]);
        }
    }
    if (!UNIT_WATCHED) { /* valgrind's own posix_memalign ends the program */
        errno = 0;
        cr_assert_null(hak_aligned_alloc((size_t)1 << 62, 10));
        cr_assert_eq(errno, ENOMEM);
    }
    check_all_free();
    check_nothing_held();
}

/* Alignments up to a page of sizes up to Pool's, from bins that have blocks. */
Test(lanes, aligned_blocks_from_warm_bins)
{
    enum { AT_ONCE = 4 };
    void *p[AT_ONCE];

    for (size_t align = 32; align <= HAK_PAGE; align *= 2) {
        for (size_t size = 0; size <= HAK_LANE_POOL_MAX;
             size += size < 2048 ? 24 : 1000) {
            size_t need = haki_hot_need(align, size);

            cr_assert(need == SIZE_MAX || need >= size);
            for (int round = 0; round < 2; round++) {
                for (int i = 0; i < AT_ONCE; i++) {
                    p[i] = hak_aligned_alloc(align, size);
                    cr_assert_eq((uintptr_t)p[i] % align, 0,
                                 "%zu aligned to %zu", size, align);
                    cr_assert_geq(hak_usable_size(p[i]), size);
                    unit_fill(p[i], size, (unsigned)i);
                }
                for (int i = 0; i < AT_ONCE; i++) {
                    cr_assert(unit_filled(p[i], size, (unsigned)i));
                    hak_free_sized(p[i], size);
                }
            }
        }
    }
    check_all_free();
}

Test(lanes, what_no_bin_has_aligned)
{
    cr_assert_eq(haki_hot_need(48, 100), SIZE_MAX);
    cr_assert_eq(haki_hot_need(2 * HAK_PAGE, 100), SIZE_MAX);
    cr_assert_eq(haki_hot_need(64, HAK_LANE_POOL_MAX + 1), SIZE_MAX);
    cr_assert_eq(haki_hot_need(64, SIZE_MAX), SIZE_MAX);
    cr_assert_eq(haki_hot_need(64, PTRDIFF_MAX), SIZE_MAX);
    cr_assert_eq(haki_hot_need(64, 65 - HAK_GUARD_BYTES), 128);
    cr_assert_eq(haki_hot_need(HAK_PAGE, 1), HAK_PAGE);
}
