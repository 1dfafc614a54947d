/*
 * heap_explicit.c - tests of explicit heaps: making, deletion, blocks of others. What
 * they count is in heap/account.c.
 */
#include "range/slots.h"
#include "limited.h"
#include "tiny_check.h"

TestSuite(heap_explicit, .timeout = 300);

/* ---- making -------------------------------------------------------------------- */

Test(heap_explicit, config_may_be_null)
{
    hak_heap *heap = hak_heap_new(NULL);

    cr_assert_not_null(heap);
    cr_assert_eq(hak_heap_live(heap), 0);
    cr_assert_eq(heap->limit, SIZE_MAX);
    cr_assert_str_eq(heap->name, "");
    hak_heap_delete(heap);
    hak_heap_delete(NULL);
}

Test(heap_explicit, a_config_of_another_size_is_einval)
{
    hak_heap_config config = {.size = 0};
    static const size_t wrong[] = {
        0, 1, sizeof(config) - 1, sizeof(config) + 8, SIZE_MAX,
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        config.size = wrong[i];
        errno = 0;
        cr_assert_null(hak_heap_new(&config));
        cr_assert_eq(errno, EINVAL);
    }
    cr_assert_eq(unit_stats().heaps, 0);
}

Test(heap_explicit, at_most_31_bytes_of_a_name_are_kept)
{
    hak_heap_config config = {.size = sizeof(config)};
    hak_heap *heap;

    config.name = "0123456789012345678901234567890123456789";
    heap = hak_heap_new(&config);
    cr_assert_str_eq(heap->name, "0123456789012345678901234567890");
    hak_heap_delete(heap);
    config.name = "short";
    heap = hak_heap_new(&config);
    cr_assert_str_eq(heap->name, "short");
    hak_heap_delete(heap);
    config.name = NULL;
    heap = hak_heap_new(&config);
    cr_assert_str_eq(heap->name, "");
    hak_heap_delete(heap);
}

/* ---- blocks ---------------------------------------------------------------------- */

Test(heap_explicit, every_size_fits_aligned_and_distinct)
{
    hak_heap *heap = hak_heap_new(NULL);
    static char *blocks[2100];
    size_t live = 0;

    for (size_t size = 0; size < 2100; size++) {
        blocks[size] = hak_heap_malloc(heap, size);
        cr_assert_not_null(blocks[size]);
        cr_assert_eq((uintptr_t)blocks[size] % 16, 0);
        cr_assert(hak_owns(blocks[size]));
        cr_assert_geq(hak_usable_size(blocks[size]), size);
        cr_assert_eq(hak_usable_size(blocks[size]), whole(size));
        live += whole(size);
        cr_assert_eq(hak_heap_live(heap), live);
        unit_fill(blocks[size], size, (unsigned)size);
    }
    tiny_check(&heap->tiny);
    for (size_t size = 0; size < 2100; size++) {
        cr_assert(unit_filled(blocks[size], size, (unsigned)size));
        live -= hak_usable_size(blocks[size]);
        hak_heap_free(heap, blocks[size]);
        cr_assert_eq(hak_heap_live(heap), live);
    }
    hak_heap_free(heap, NULL);
    cr_assert_eq(live, 0);
    tiny_check(&heap->tiny);
    hak_heap_delete(heap);
}

Test(heap_explicit, realloc_keeps_contents_over_all_transitions)
{
    static const size_t sizes[] = {0,    1,    8,    9,    16,
                                   24,   128,  129,  512,  1000,
                                   1023, 1024, 1025, 2000, 100000};
    hak_heap *heap = hak_heap_new(NULL);
    size_t count = sizeof(sizes) / sizeof(sizes[0]);

    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            char *p = hak_heap_realloc(heap, NULL, sizes[i]);

            unit_fill(p, sizes[i], 3);
            p = hak_heap_realloc(heap, p, sizes[k]);
            cr_assert_not_null(p);
            cr_assert(unit_filled(p, haki_min(sizes[i], sizes[k]), 3));
            cr_assert_geq(hak_usable_size(p), sizes[k]);
            cr_assert_eq(hak_heap_live(heap), hak_usable_size(p));
            hak_heap_free(heap, p);
            cr_assert_eq(hak_heap_live(heap), 0);
        }
    }
    tiny_check(&heap->tiny);
    unit_expect_none_live();
    hak_heap_delete(heap);
}

/* A block that had to come from the system goes where there is room now. */
Test(heap_explicit, realloc_takes_the_system_s_blocks)
{
    static const size_t sizes[] = {0, 100, 2000, 100000, 3 * HAK_MIB};
    hak_heap *heap = hak_heap_new(NULL);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *p = from_system(heap, 2 * HAK_MIB + 50);

        unit_fill(p, 2 * HAK_MIB + 50, 4);
        cr_assert_eq(hak_heap_live(heap), 2 * HAK_MIB + 50);
        p = hak_heap_realloc(heap, p, sizes[i]);
        cr_assert_not_null(p);
        cr_assert(unit_filled(p, haki_min(sizes[i], 2 * HAK_MIB + 50), 4));
        cr_assert(hak_owns(p));
        cr_assert_eq(hak_heap_live(heap), whole(sizes[i]));
        cr_assert_eq(unit_stats().system_live, 0);
        hak_heap_free(heap, p);
        hak_heap_trim(heap);
        cr_assert_eq(hak_heap_live(heap), 0);
    }
    hak_heap_delete(heap);
    unit_expect_none_live();
}

Test(heap_explicit, realloc_within_a_block_does_not_move)
{
    hak_heap *heap = hak_heap_new(NULL);
    char *p = hak_heap_malloc(heap, 100);

    for (size_t size = 97; size <= 112; size++) {
        cr_assert_eq(hak_heap_realloc(heap, p, size), p);
    }
    hak_heap_delete(heap);
}

Test(heap_explicit, too_large_is_null_and_enomem)
{
    hak_heap *heap = hak_heap_new(NULL);
    char *p = hak_heap_malloc(heap, 10);

    unit_fill(p, 10, 1);
    errno = 0;
    cr_assert_null(hak_heap_malloc(heap, unit_size(SIZE_MAX)));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_heap_malloc(heap, unit_size((size_t)PTRDIFF_MAX + 1)));
    cr_assert_eq(errno, ENOMEM);
    errno = 0;
    cr_assert_null(hak_heap_realloc(heap, p, unit_size(SIZE_MAX)));
    cr_assert_eq(errno, ENOMEM);
    cr_assert(unit_filled(p, 10, 1));
    cr_assert_eq(hak_heap_live(heap), 16);
    hak_heap_delete(heap);
}

/* ---- trim and delete -------------------------------------------------------------------- */

Test(heap_explicit, trim_gives_idle_slabs_back)
{
    hak_heap *heap = hak_heap_new(NULL);
    static void *blocks[5000];
    char *kept = hak_heap_malloc(heap, 500);

    unit_fill(kept, 500, 7);
    for (size_t i = 0; i < 5000; i++) {
        blocks[i] = hak_heap_malloc(heap, 500);
        memset(blocks[i], 1, 500);
    }
    for (size_t i = 0; i < 5000; i++) {
        hak_heap_free(heap, blocks[i]);
    }
    cr_assert_gt(hak_heap_trim(heap), 2000000);
    cr_assert_eq(unit_stats().slabs, 1);
    cr_assert(unit_filled(kept, 500, 7));
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().slabs, 0);
}

Test(heap_explicit, delete_frees_everything_at_once)
{
    static const size_t sizes[] = {30, 3000, 90000, 2 * HAK_MIB, 3 * HAK_MIB};
    hak_heap *heap = hak_heap_new(NULL);
    hak_heap *other = hak_heap_new(NULL);
    hak_stats_t stats;
    char *kept[5];

    for (unsigned i = 0; i < 5; i++) {
        kept[i] = i < 4 ? hak_heap_malloc(other, sizes[i])
                        : from_system(other, sizes[i]);
        unit_fill(kept[i], sizes[i], i);
    }
    for (size_t i = 0; i < 20000; i++) {
        cr_assert_not_null(hak_heap_malloc(heap, i % 1024));
        cr_assert(i % 100 != 0 || hak_heap_malloc(heap, 2000 + i) != NULL);
        cr_assert(i % 500 != 0 || hak_heap_malloc(heap, 60000 + i) != NULL);
        cr_assert(i % 4000 != 0 || from_system(heap, 4 * HAK_MIB) != NULL);
        cr_assert(i % 4000 != 9 || hak_heap_malloc(heap, 2 * HAK_MIB) != NULL);
    }
    stats = unit_stats();
    cr_assert_eq(stats.pool_allocs, 201);
    cr_assert_eq(stats.ace_allocs, 41);
    cr_assert_eq(stats.huge_allocs, 6);
    cr_assert_eq(stats.system_live, 6);
    hak_heap_delete(heap);
    stats = unit_stats();
    cr_assert_eq(stats.slabs, 1 + 3, "3072 B come from spans of 3 slabs");
    cr_assert_eq(stats.system_live, 1);
    cr_assert_eq(stats.system_live_bytes, 3 * HAK_MIB);
    cr_assert_eq(stats.heaps, 1);
    cr_assert_eq(stats.tiny_live_bytes, 32);
    cr_assert_eq(stats.tiny_allocs, 20001);
    cr_assert_eq(stats.tiny_frees, 20000);
    cr_assert_eq(stats.pool_live_bytes, 3072);
    cr_assert_eq(stats.pool_frees, 200);
    cr_assert_eq(stats.ace_live_bytes, 22 * HAK_PAGE);
    cr_assert_eq(stats.ace_frees, 40);
    cr_assert_eq(stats.huge_live_bytes, 2 * HAK_MIB);
    cr_assert_eq(stats.huge_frees, 5);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert(unit_filled(kept[i], sizes[i], i));
    }
    hak_heap_delete(other);
    cr_assert_eq(unit_stats().slabs, 0);
    unit_expect_none_live();
}

Test(heap_explicit, ten_thousand_heaps_leave_memory_flat)
{
    size_t rounds = unit_scale(10000, 2000);
    size_t before = 0;
    hak_stats_t stats;

    for (size_t i = 0; i < rounds; i++) {
        hak_heap *heap = hak_heap_new(NULL);

        for (size_t size = 1; size <= 1024; size += 33) {
            memset(hak_heap_malloc(heap, size), 1, size);
        }
        cr_assert_not_null(hak_heap_malloc(heap, 5000));
        hak_heap_delete(heap);
        if (i == rounds / 10) {
            before = unit_rss();
        }
    }
    stats = unit_stats();
    cr_assert_eq(stats.heaps, 0);
    cr_assert_eq(stats.slabs, 0);
    cr_assert_eq(stats.system_live, 0);
    cr_assert_eq(stats.tiny_allocs, rounds * 32);
    cr_assert_eq(stats.tiny_frees, rounds * 32);
    cr_assert_eq(stats.pool_allocs, rounds);
    cr_assert_eq(stats.pool_frees, rounds);
    cr_assert_leq(stats.committed_bytes, 4 * HAK_MIB);
    cr_assert_leq(haki_range_heap_count(), 1);
    if (!UNIT_WATCHED) {
        cr_assert_lt(unit_rss(), before + 256 * 1024);
    }
}

/* ---- wrong blocks -------------------------------------------------------------------------- */

static hak_heap *victim;

static void free_in_victim(void *p)
{
    hak_heap_free(victim, p);
}

static void realloc_in_victim(void *p)
{
    hak_heap_realloc(victim, p, 77);
}

static void expect_both_fatal(void *p, const char *reason)
{
    unit_expect_fatal(free_in_victim, p,
                      "hakmem: fatal: hak_heap_free(%p): %s\n", p, reason);
    unit_expect_fatal(realloc_in_victim, p,
                      "hakmem: fatal: hak_heap_realloc(%p): %s\n", p, reason);
}

Test(heap_explicit, wrong_blocks_are_fatal_and_named)
{
    hak_heap *other = hak_heap_new(NULL);
    char *mine;
    int on_stack;

    victim = hak_heap_new(NULL);
    mine = hak_heap_malloc(victim, 100);
    expect_both_fatal(hak_heap_malloc(other, 100), "a block of another heap");
    expect_both_fatal(hak_heap_malloc(other, 5000), "a block of another heap");
    expect_both_fatal(hak_malloc(100), "a block of another heap");
    expect_both_fatal(hak_malloc(5000), "a block of another heap");
    expect_both_fatal(mine + 8, "the middle of a block of 112 bytes");
    expect_both_fatal(mine + 1, "the middle of a block of 112 bytes");
    expect_both_fatal((char *)hak_heap_malloc(other, 50) + 32,
                      "the middle of a block of 64 bytes");
    expect_both_fatal((char *)hak_heap_malloc(victim, 5000) + 16,
                      "the middle of a block of 5120 bytes");
    expect_both_fatal(from_system(victim, 3 * HAK_MIB) + 16,
                      "not a block of HAKMEM");
    expect_both_fatal(from_system(other, 3 * HAK_MIB),
                      "a block of another heap");
    expect_both_fatal(haki_system_alloc(16, 100, NULL, HAK_REASON_MEMORY),
                      "a block of another heap");
    expect_both_fatal(&on_stack, "not a block of HAKMEM");
    expect_both_fatal((void *)UINTPTR_MAX, "not a block of HAKMEM");
    expect_both_fatal(haki_range_slab_start(unit_first_slab() + 1000),
                      "an address that was never given out");
    expect_both_fatal(haki_range_slab_start(0) + haki_range.size - 16,
                      "an address that was never given out");
    expect_both_fatal(haki_range_slab_start(0),
                      "an address that was never given out");
    unit_fill(mine, 100, 1);
    hak_heap_free(victim, mine);
}

/* ---- a heap that starts packed ------------------------------------------- */

enum { PACKED = 2000 };

/* Blocks of many classes; the first ones are of packed slabs. */
static void fill_packed(hak_heap *heap, void **blocks)
{
    heap->tiny.packed = true;
    for (unsigned i = 0; i < PACKED; i++) {
        blocks[i] = hak_heap_malloc(heap, i % 600);
        cr_assert_not_null(blocks[i]);
        unit_fill(blocks[i], i % 600, i);
    }
    cr_assert_eq(HAK_TAG_CLASS(haki_range_tag_of(blocks[0])), HAK_TAG_PACKED);
    cr_assert_neq(HAK_TAG_CLASS(haki_range_tag_of(blocks[PACKED - 1])),
                  HAK_TAG_PACKED);
}

/* Sealed or not, of packed slabs and of others. */
Test(heap_explicit, a_packed_heap_frees_and_resizes)
{
    void *blocks[PACKED];

    for (int seal = 0; seal < 2; seal++) {
        hak_heap *heap = hak_heap_new(NULL);

        fill_packed(heap, blocks);
        if (seal == 1) {
            hak_heap_seal(heap);
        }
        for (unsigned i = 0; i < PACKED; i++) {
            if (i % 2 == 0) {
                hak_heap_free(heap, blocks[i]);
                continue;
            }
            blocks[i] = hak_heap_realloc(heap, blocks[i], i * 7 % 900);
            cr_assert_not_null(blocks[i]);
            cr_assert(unit_filled(blocks[i], haki_min(i % 600, i * 7 % 900),
                                  i));
            unit_fill(blocks[i], i * 7 % 900, i);
        }
        for (unsigned i = 1; i < PACKED; i += 2) {
            cr_assert(unit_filled(blocks[i], i * 7 % 900, i));
            hak_heap_free(heap, blocks[i]);
        }
        cr_assert_eq(hak_heap_live(heap), 0);
        hak_heap_delete(heap);
        unit_expect_none_live();
    }
}

Test(heap_explicit, wrong_blocks_of_a_packed_heap_are_fatal)
{
    hak_heap *other = hak_heap_new(NULL);
    void *blocks[PACKED], *theirs[PACKED];

    victim = hak_heap_new(NULL);
    fill_packed(victim, blocks);
    fill_packed(other, theirs);
    expect_both_fatal(theirs[0], "a block of another heap");
    expect_both_fatal(theirs[PACKED - 1], "a block of another heap");
    expect_both_fatal((char *)blocks[100] + 16,
                      "the middle of a block of 112 bytes");
    expect_both_fatal((char *)blocks[100] + 8,
                      "the middle of a block of 112 bytes");
    victim = hak_heap_new(NULL);
    victim->tiny.packed = true;
    blocks[0] = hak_heap_malloc(victim, 100);
    expect_both_fatal((void *)((uintptr_t)blocks[0] | (HAK_SLAB_SIZE - 16)),
                      "an address that was never given out");
}

/* A block may be freed with hak_free by any thread, in any order. */
Test(heap_explicit, hak_free_takes_blocks_of_a_heap)
{
    hak_heap *heap = hak_heap_new(NULL);

    for (int i = 0; i < 1000; i++) {
        hak_free(hak_heap_malloc(heap, (size_t)i * 3));
    }
    for (int i = 0; i < 1000; i++) {
        hak_free_sized(hak_heap_malloc(heap, (size_t)i * 3), (size_t)i * 3);
    }
    hak_heap_trim(heap);
    cr_assert_eq(hak_heap_live(heap), 0);
    cr_assert_eq(unit_stats().slabs, 0);
    hak_heap_delete(heap);
}

/* ---- random use --------------------------------------------------------------------------------- */

Test(heap_explicit, random_use_keeps_contents_account_and_limit)
{
    enum { HELD = 2000 };
    static struct {
        char *p;
        size_t size, usable;
    } held[HELD];
    hak_heap *heap = limited(600000);
    struct unit_random random = {11};
    size_t live = 0, refused = 0;

    for (size_t i = 0; i < unit_scale(300000, 30000); i++) {
        size_t k = unit_below(&random, HELD);
        size_t size = unit_below(&random, i % 50 == 0 ? 9000 : 1025);
        char *p;

        if (held[k].p != NULL) {
            cr_assert(unit_filled(held[k].p, held[k].size, (unsigned)k));
        }
        if (held[k].p != NULL && i % 3 != 0) {
            hak_heap_free(heap, held[k].p);
            live -= held[k].usable;
            held[k].p = NULL;
            continue;
        }
        p = hak_heap_realloc(heap, held[k].p, size);
        if (p == NULL) {
            cr_assert_gt(live + whole(size), 600000);
            refused++;
            continue;
        }
        cr_assert(held[k].p == NULL ||
                  unit_filled(p, haki_min(size, held[k].size), (unsigned)k));
        live -= held[k].p != NULL ? held[k].usable : 0;
        held[k].p = p;
        held[k].size = size;
        held[k].usable = hak_usable_size(p);
        live += held[k].usable;
        unit_fill(p, size, (unsigned)k);
        cr_assert_eq(hak_heap_live(heap), live);
        cr_assert_leq(live, 600000);
    }
    tiny_check(&heap->tiny);
    cr_assert_gt(refused, 0);
    cr_assert_geq(unit_stats().limit_refusals, refused);
    hak_heap_delete(heap);
    unit_expect_none_live();
}

/* ---- a sparse heap -------------------------------------------------------- */

/* Its slabs hold a block each: their pages go while the others are freed. */
Test(heap_explicit, what_is_left_of_a_bulk_free_is_resident_and_little_else)
{
    enum { COUNT = 4000, EACH = 128 };
    static unsigned char *blocks[COUNT];
    hak_heap *heap = hak_heap_new(NULL);

    for (int i = 0; i < COUNT; i++) {
        blocks[i] = hak_heap_malloc(heap, i % 8 != 0 ? 500 : 3000);
        NEED(blocks[i] != NULL);
        memset(blocks[i], i % 251, i % 8 != 0 ? 500 : 3000);
    }
    cr_assert_gt(hak_heap_resident(heap), 2 * HAK_MIB);
    for (int i = 0; i < COUNT; i++) {
        if (i % EACH != 1) {
            hak_heap_free(heap, blocks[i]);
        }
    }
    /* A page or two for each that is left, and what bins keep. */
    cr_assert_leq(hak_heap_resident(heap), 512 * HAK_KIB);
    for (int i = 1; i < COUNT; i += EACH) {
        NEED(blocks[i][0] == i % 251 && blocks[i][499] == i % 251);
    }
    hak_heap_delete(heap);
}

/* Fills a heap with blocks of many sizes, `most` bytes of them; their number. */
static int fill_mixed(hak_heap *heap, size_t most, void **blocks)
{
    int n = 0;

    for (size_t bytes = 0; bytes < most; n++) {
        size_t size = 100 + (size_t)n * 7 % 3000;

        blocks[n] = hak_heap_malloc(heap, size);
        NEED(blocks[n] != NULL);
        memset(blocks[n], 1, size);
        bytes += size;
    }
    return n;
}

/*
 * A heap of 6 KB fills and is emptied again, and that is all: it is as small
 * as before, with a few pages, however much it had.
 */
Test(heap_explicit, a_small_heap_is_small_again_with_the_last_free)
{
    static const size_t most[] = {64 * HAK_KIB, 256 * HAK_KIB, HAK_MIB};
    static void *blocks[2000], *rest[100];

    for (size_t i = 0; i < sizeof(most) / sizeof(most[0]); i++) {
        hak_heap *heap = hak_heap_new(NULL);
        int n;

        heap->tiny.packed = true;
        for (int k = 0; k < 100; k++) {
            rest[k] = hak_heap_malloc(heap, 60);
            NEED(rest[k] != NULL);
        }
        n = fill_mixed(heap, most[i], blocks);
        for (int k = 0; k < n; k++) {
            hak_heap_free(heap, blocks[k]);
        }
        cr_expect_leq(hak_heap_resident(heap), 32 * HAK_KIB, "%zu KB of %zu",
                      hak_heap_resident(heap) / HAK_KIB, most[i] / HAK_KIB);
        cr_expect(heap->pool == NULL ||
                  heap->pool->places == HAK_POOL_STACK_SHORT);
        for (int k = 0; k < 100; k++) {
            hak_heap_free(heap, rest[k]);
        }
        hak_heap_delete(heap);
    }
}
