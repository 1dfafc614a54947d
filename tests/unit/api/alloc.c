/*
 * alloc.c - tests of hak_malloc, hak_free and the like. Wrong pointers are in
 * front/check.c.
 */
#include "clock.h"
#include "block.h"
#include "front/lane.h"
#include "front/large.h"
#include "heap/thread.h"
#include "tiny_check.h"
#include "unit.h"

TestSuite(alloc, .timeout = 300);

/* ---- sizes and lanes -------------------------------------------------------- */

Test(alloc, every_size_is_usable_aligned_and_in_its_lane)
{
    static char *blocks[3000];

    for (size_t size = 0; size < 3000; size++) {
        blocks[size] = hak_malloc(size);
        cr_assert_not_null(blocks[size]);
        cr_assert_eq((uintptr_t)blocks[size] % 16, 0);
        cr_assert(hak_owns(blocks[size]));
        cr_assert_eq(haki_tag_is_large(haki_range_tag_of(blocks[size])),
                     size > unit_ask(HAK_TINY_MAX));
        cr_assert_geq(hak_usable_size(blocks[size]), size);
        memset(blocks[size], 0xee, hak_usable_size(blocks[size]));
        unit_fill(blocks[size], size, (unsigned)size);
    }
    tiny_check(&haki_self->tiny);
    for (size_t size = 0; size < 3000; size++) {
        cr_assert(unit_filled(blocks[size], size, (unsigned)size));
        hak_free(blocks[size]);
    }
    tiny_check(&haki_self->tiny);
    unit_expect_none_live();
}

Test(alloc, lanes_meet_at_1024_without_a_gap)
{
    char *tiny_1 = hak_malloc(unit_ask(1023));
    char *tiny_2 = hak_malloc(unit_ask(1024));
    char *large = hak_malloc(unit_ask(1025));
    hak_stats_t stats = unit_stats();

    cr_assert_eq(HAK_LANE_POOL_MIN, HAK_LANE_TINY_MAX + 1);
    cr_assert_eq(HAK_LANE_TINY_MAX, 1024);
    cr_assert(hak_owns(tiny_1) && hak_owns(tiny_2) && hak_owns(large));
    cr_assert_eq(hak_usable_size(tiny_1), unit_usable(1024, unit_ask(1023)));
    cr_assert_eq(hak_usable_size(tiny_2), unit_usable(1024, unit_ask(1024)));
    cr_assert_eq(hak_usable_size(large), unit_usable(1152, unit_ask(1025)));
    cr_assert_eq(stats.tiny_allocs, 2);
    cr_assert_eq(stats.pool_allocs, 1);
    cr_assert_eq(stats.pool_live_bytes, 1152);
    cr_assert_eq(stats.system_live, 0);
    hak_free(tiny_1);
    hak_free(tiny_2);
    hak_free(large);
    unit_expect_none_live();
}

Test(alloc, size_0_is_a_distinct_block)
{
    void *p = hak_malloc(unit_size(0));
    void *q = hak_malloc(unit_size(0));

    cr_assert(p != NULL && q != NULL && p != q);
    hak_free(p);
    hak_free(q);
    p = hak_calloc(unit_size(0), 5);
    cr_assert_not_null(p);
    hak_free_sized(p, 0);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
}

Test(alloc, wild_sizes_are_null_and_enomem)
{
    static const size_t wild[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2 + 1,
                                  (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX};
    static const size_t sizes[] = {50, 5000, 100000, 3 * HAK_MIB, 70};
    char *p[5];

    for (unsigned k = 0; k < 5; k++) {
        p[k] = k < 4 ? hak_malloc(sizes[k]) : unit_from_system(sizes[k]);
        unit_fill(p[k], sizes[k], k);
    }
    for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
        size_t size = unit_size(wild[i]);

        errno = 0;
        cr_assert_null(hak_malloc(size));
        cr_assert_eq(errno, ENOMEM);
        errno = 0;
        cr_assert_null(hak_realloc(NULL, size));
        cr_assert_eq(errno, ENOMEM);
        for (int k = 0; k < 5; k++) {
            errno = 0;
            cr_assert_null(hak_realloc(p[k], size));
            cr_assert_eq(errno, ENOMEM);
        }
        errno = 0;
        cr_assert_null(hak_calloc(1, size));
        cr_assert_eq(errno, ENOMEM);
        errno = 0;
        cr_assert_null(hak_aligned_alloc(64, size));
        cr_assert_eq(errno, ENOMEM);
    }
    for (unsigned k = 0; k < 5; k++) {
        cr_assert(unit_filled(p[k], sizes[k], k));
        hak_free(p[k]);
    }
    unit_expect_none_live();
}

/* ---- calloc --------------------------------------------------------------------- */

Test(alloc, calloc_overflow_is_null_and_enomem)
{
    static const size_t pairs[][2] = {
        {SIZE_MAX, 2},
        {2, SIZE_MAX},
        {SIZE_MAX, SIZE_MAX},
        {(size_t)1 << 32, (size_t)1 << 32},
        {SIZE_MAX / 16 + 2, 16}, /* 16 in what is left */
        {((size_t)1 << 32) + 1, (size_t)1 << 32},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        errno = 0;
        cr_assert_null(hak_calloc(unit_size(pairs[i][0]),
                                  unit_size(pairs[i][1])));
        cr_assert_eq(errno, ENOMEM);
    }
    cr_assert_eq(unit_stats().tiny_allocs, 0);
    cr_assert_eq(unit_stats().system_live, 0);
}

static bool all_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0) {
            return false;
        }
    }
    return true;
}

Test(alloc, calloc_zeroes_used_blocks)
{
    for (size_t size = 0; size < 5000; size += 1 + size / 10) {
        char *p[20];

        for (int i = 0; i < 20; i++) {
            p[i] = hak_malloc(size);
            memset(p[i], 0xff, hak_usable_size(p[i]));
        }
        for (int i = 0; i < 20; i++) {
            hak_free(p[i]);
        }
        for (int i = 0; i < 20; i++) {
            p[i] = i % 2 != 0 ? hak_calloc(size, 1) : hak_calloc(1, size);
            cr_assert(all_zero(p[i], size), "size %zu", size);
        }
        for (int i = 0; i < 20; i++) {
            hak_free(p[i]);
        }
    }
}

/*
 * A run of ACE that realloc has emptied may be used again by way of its heap's
 * cache: what its next user wrote is not taken for zeros.
 */
Test(alloc, calloc_zeroes_what_realloc_had_left_behind)
{
    size_t size = 900 * HAK_KIB;
    char *p = hak_malloc(size);
    char *moved, *again;

    memset(p, 1, size);
    moved = hak_realloc(p, 3 * HAK_MIB);
    cr_assert_neq(moved, p);
    again = hak_malloc(size);
    memset(again, 0xff, size);
    hak_free(again);
    hak_trim();
    for (int i = 0; i < 4; i++) {
        p = hak_calloc(1, size);
        cr_assert(all_zero(p, size), "block %d", i);
        memset(p, 0xff, size);
    }
    hak_free(moved);
}

/* ---- realloc -------------------------------------------------------------------- */

static const size_t transitions[] = {
    0,    1,    7,    8,    9,    15,   16,   17,   24,    32,     33,
    64,   100,  128,  129,  144,  256,  257,  511,  512,   513,    768,
    1000, 1023, 1024, 1025, 1026, 2000, 4096, 5000, 65536, 100000, 1000000};

#define TRANSITIONS (sizeof(transitions) / sizeof(transitions[0]))

/* From each size to each; `begin` makes the first block. */
static void realloc_all(char *(*begin)(size_t), bool owned)
{
    for (size_t i = 0; i < TRANSITIONS; i++) {
        for (size_t k = 0; k < TRANSITIONS; k++) {
            size_t from = transitions[i], to = transitions[k];
            char *p = begin(from);

            unit_fill(p, from, 3);
            p = hak_realloc(p, to);
            cr_assert_not_null(p);
            cr_assert(unit_filled(p, haki_min(from, to), 3), "%zu to %zu", from,
                      to);
            cr_assert_geq(hak_usable_size(p), to);
            cr_assert_eq(hak_owns(p), owned);
            unit_fill(p, to, 4);
            hak_free(p);
        }
    }
    unit_expect_none_live();
}

static char *from_nothing(size_t size)
{
    return hak_realloc(NULL, size);
}

Test(alloc, realloc_keeps_contents_over_all_transitions)
{
    realloc_all(from_nothing, true);
    tiny_check(&haki_self->tiny);
}

Test(alloc, realloc_of_the_system_s_blocks_keeps_contents)
{
    realloc_all(unit_from_system, false);
    cr_assert_eq(unit_stats().heaps, 0);
}

/* What the range has no room for moves to the system, with its contents. */
Test(alloc, realloc_moves_to_the_system_what_the_range_has_no_room_for)
{
    static const size_t sizes[] = {20, 3000, 80000, 3 * HAK_MIB};

    UNIT_SKIP_IF_WATCHED("valgrind maps the system's blocks into the window");
    setenv("HAKMEM_RANGE", "1G", 1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *p = hak_malloc(sizes[i]);
        char *moved;

        unit_fill(p, sizes[i], 7);
        cr_assert(hak_owns(p));
        moved = hak_realloc(p, HAK_GIB + 5);
        if (moved == NULL) { /* the system may have no room either */
            cr_assert_eq(errno, ENOMEM);
            cr_assert(unit_filled(p, sizes[i], 7));
            hak_free(p);
            continue;
        }
        cr_assert_not(hak_owns(moved));
        cr_assert(unit_filled(moved, sizes[i], 7));
        cr_assert_geq(hak_usable_size(moved), HAK_GIB + 5);
        cr_assert_eq(unit_stats().system_live_bytes, HAK_GIB + 5);
        moved = hak_realloc(moved, sizes[i]);
        cr_assert(unit_filled(moved, sizes[i], 7));
        hak_free(moved);
    }
    unit_expect_none_live();
}

Test(alloc, realloc_within_a_block_does_not_move)
{
    char *p = hak_malloc(unit_ask(200));

    for (size_t size = 193; size <= 208; size++) {
        cr_assert_eq(hak_realloc(p, unit_ask(size)), p);
    }
    cr_assert_neq(hak_realloc(p, unit_ask(209)), p);
}

Test(alloc, realloc_to_0_keeps_a_small_block)
{
    char *p = hak_realloc(hak_malloc(500), unit_size(0));

    cr_assert_not_null(p);
    cr_assert_eq(hak_usable_size(p), unit_usable(16, 0));
    hak_free(p);
    cr_assert_eq(unit_stats().tiny_live_bytes, 0);
}

static void *realloc_there(void *arg)
{
    char **p = arg;

    *p = hak_realloc(*p, 700);
    NEED(*p != NULL && unit_filled(*p, 300, 8));
    unit_fill(*p, 700, 8);
    return NULL;
}

Test(alloc, realloc_takes_blocks_of_other_threads)
{
    for (int i = 0; i < 100; i++) {
        char *p = hak_malloc(300);

        unit_fill(p, 300, 8);
        unit_in_thread(realloc_there, &p);
        p = hak_realloc(p, 2000);
        cr_assert(unit_filled(p, 700, 8));
        hak_free(p);
    }
    hak_trim();
    unit_expect_none_live();
}

/* ---- aligned_alloc ----------------------------------------------------------------- */

Test(alloc, aligned_alloc_is_aligned_for_all_powers_and_sizes)
{
    static const size_t sizes[] = {0,    1,    8,    9,    16,   31,   48,
                                   100,  128,  129,  500,  512,  1000, 1023,
                                   1024, 1025, 4000, 4096, 70000};
    size_t count = sizeof(sizes) / sizeof(sizes[0]);

    for (size_t align = 1; align <= 8 * HAK_MIB; align *= 2) {
        for (size_t i = 0; i < count; i++) {
            char *p[3];

            for (int k = 0; k < 3; k++) {
                p[k] = hak_aligned_alloc(align, sizes[i]);
                cr_assert_not_null(p[k]);
                cr_assert_eq((uintptr_t)p[k] % align, 0, "%zu, %zu", align,
                             sizes[i]);
                cr_assert_geq(hak_usable_size(p[k]), sizes[i]);
                cr_assert(hak_owns(p[k]));
                unit_fill(p[k], sizes[i], (unsigned)k);
            }
            p[0] = hak_realloc(p[0], sizes[i] + 40);
            cr_assert(unit_filled(p[0], sizes[i], 0));
            for (int k = 0; k < 3; k++) {
                cr_assert(unit_filled(p[k], sizes[i], (unsigned)k));
                k == 1 ? hak_free_sized(p[k], sizes[i]) : hak_free(p[k]);
            }
        }
    }
    tiny_check(&haki_self->tiny);
    cr_assert_eq(unit_stats().fallback_aligned, 0);
    unit_expect_none_live();
}

Test(alloc, aligned_alloc_refuses_what_is_no_power_of_two)
{
    static const size_t wrong[] = {0, 3, 5, 6, 7, 12, 24, 1000, 4097, SIZE_MAX};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        errno = 0;
        cr_assert_null(hak_aligned_alloc(unit_size(wrong[i]), 100));
        cr_assert_eq(errno, EINVAL);
    }
    if (!UNIT_WATCHED) { /* the address sanitizer takes it for its own bug */
        errno = 0;
        cr_assert_null(hak_aligned_alloc((size_t)1 << 63, 100));
        cr_assert_eq(errno, ENOMEM);
    }
}

/* ---- frees ------------------------------------------------------------------------- */

Test(alloc, free_of_null_does_nothing_and_keeps_errno)
{
    errno = 4321;
    hak_free(NULL);
    hak_free_sized(NULL, 0);
    hak_free_sized(NULL, 100);
    cr_assert_eq(errno, 4321);
    cr_assert_eq(hak_usable_size(NULL), 0);
}

Test(alloc, free_sized_takes_every_size_that_was_asked_for)
{
    for (size_t size = 0; size < 1200; size++) {
        hak_free_sized(hak_malloc(size), size);
        hak_free_sized(hak_calloc(1, size), size);
        hak_free_sized(hak_realloc(hak_malloc(77), size), size);
    }
    unit_expect_none_live();
}

/* ---- trim ------------------------------------------------------------------------------ */

Test(alloc, trim_gives_a_peak_back)
{
    size_t count = unit_scale(100, 10) * HAK_MIB / 512, size = unit_ask(512);
    char **blocks = malloc(count * sizeof(*blocks));
    size_t before, peak, given;

    clock_stop(); /* else some may go back before */
    memset(blocks, 0, count * sizeof(*blocks));
    hak_free(hak_malloc(1));
    before = unit_rss();
    for (size_t i = 0; i < count; i++) {
        blocks[i] = hak_malloc(size);
        memset(blocks[i], 1, size);
    }
    peak = unit_rss();
    cr_assert(UNIT_WATCHED || peak - before >= count * 512);
    cr_assert_leq(unit_stats().resident_bytes, count * 512 + 3 * HAK_MIB);
    for (size_t i = 0; i < count; i++) {
        hak_free(blocks[i]);
    }
    given = hak_trim();
    cr_assert_geq(given, count * 512);
    cr_assert_eq(unit_stats().purged_bytes, given);
    cr_assert_eq(unit_stats().slabs, 0);
    cr_assert_eq(unit_stats().resident_bytes, 0);
    cr_assert(UNIT_WATCHED || unit_rss() < before + 2 * HAK_MIB, "%zu, %zu",
              before, unit_rss());
    cr_assert_eq(hak_trim(), 0);
    /* And the memory may be used again. */
    for (size_t i = 0; i < count; i++) {
        blocks[i] = hak_calloc(1, size);
        cr_assert(all_zero(blocks[i], size));
        blocks[i][size - 1] = 1;
    }
    free(blocks);
}

/* One block of each slab is kept: all but its page goes, and is counted. */
Test(alloc, trim_counts_the_pages_of_slabs_in_use)
{
    enum { COUNT = 20 * 64 };
    static char *blocks[COUNT];
    size_t per_slab = HAK_SLAB_SIZE / 1024, given;

    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = hak_malloc(unit_ask(1024));
        memset(blocks[i], 1, unit_ask(1024));
    }
    for (size_t i = 0; i < COUNT; i++) {
        if (i % per_slab != 0) {
            hak_free(blocks[i]);
        }
    }
    given = hak_trim();
    cr_assert_geq(given, COUNT / per_slab * 14 * HAK_PAGE);
    cr_assert_eq(unit_stats().purged_bytes, given);
    cr_assert_eq(hak_trim(), 0);
}

Test(alloc, trim_leaves_blocks_in_use_alone)
{
    static char *blocks[20000];

    for (size_t i = 0; i < 20000; i++) {
        blocks[i] = hak_malloc(i % 1024);
        unit_fill(blocks[i], i % 1024, (unsigned)i);
    }
    for (size_t i = 0; i < 20000; i++) {
        if (i % 7 != 0) {
            hak_free(blocks[i]);
        }
    }
    hak_trim();
    hak_trim();
    tiny_check(&haki_self->tiny);
    for (size_t i = 0; i < 20000; i += 7) {
        cr_assert(unit_filled(blocks[i], i % 1024, (unsigned)i));
        hak_free(blocks[i]);
    }
    hak_trim();
    cr_assert_eq(unit_stats().slabs, 0);
}

Test(alloc, trim_works_before_the_first_allocation)
{
    cr_assert_eq(hak_trim(), 0);
    cr_assert_eq(unit_stats().heaps, 0);
}

/* ---- version ---------------------------------------------------------------------------- */

Test(alloc, version_is_three_numbers)
{
    int major, minor, patch, end = 0;

    cr_assert_eq(sscanf(hak_version(), "%d.%d.%d%n", &major, &minor, &patch,
                        &end),
                 3);
    cr_assert_eq(hak_version()[end], '\0');
}

/* ---- random use ---------------------------------------------------------------------------- */

Test(alloc, random_use_keeps_contents_and_invariants)
{
    enum { HELD = 3000 };
    static struct {
        char *p;
        size_t size;
    } held[HELD];
    struct unit_random random = {21};

    hak_free(hak_malloc(1));
    for (size_t i = 0; i < unit_scale(400000, 30000); i++) {
        size_t k = unit_below(&random, HELD);
        size_t size = unit_below(&random, i % 20 == 0 ? 5000 : 600);
        size_t what = unit_below(&random, 10);

        if (held[k].p != NULL) {
            cr_assert(unit_filled(held[k].p, held[k].size, (unsigned)k));
        }
        if (what < 3) {
            char *p = hak_realloc(held[k].p, size);

            cr_assert(held[k].p == NULL ||
                      unit_filled(p, haki_min(size, held[k].size),
                                  (unsigned)k));
            held[k].p = p;
        } else {
            what < 6 ? hak_free_sized(held[k].p, held[k].size)
                     : hak_free(held[k].p);
            held[k].p =
                what < 9 ? hak_malloc(size) : hak_aligned_alloc(64, size);
        }
        cr_assert_not_null(held[k].p);
        held[k].size = size;
        unit_fill(held[k].p, size, (unsigned)k);
        if (i % 20000 == 0) {
            tiny_check(&haki_self->tiny);
        }
    }
    for (size_t k = 0; k < HELD; k++) {
        hak_free(held[k].p);
    }
    tiny_check(&haki_self->tiny);
    unit_expect_none_live();
}
