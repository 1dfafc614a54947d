/*
 * huge.c - tests of the Huge lane: sizes, alignment, what is zero, what goes
 * back at once, a random stream. Resizing is in huge_resize.c.
 */
#include "clock.h"
#include "range/slabs.h"
#include "huge_check.h"

TestSuite(huge, .init = clock_stop, .timeout = 300);

static char *get(size_t size, size_t align, bool *zero)
{
    char *p = haki_huge_alloc(size, align, HAK_ID_SHARED, zero);

    NEED(p != NULL);
    NEED((uintptr_t)p % haki_max(align, HAK_SUPER_SIZE) == 0);
    return p;
}

static void put(void *p)
{
    struct hak_huge_block block;

    NEED(haki_huge_free(p, &block));
}

static size_t resident(const char *p, size_t bytes)
{
    size_t pages = 0;

    for (size_t at = 0; at < bytes; at += HAK_SUPER_SIZE) {
        pages += unit_resident(p + at, haki_min(bytes - at, HAK_SUPER_SIZE));
    }
    return pages * HAK_PAGE;
}

/* ---- sizes and alignment ------------------------------------------------------- */

Test(huge, a_block_has_whole_superslabs_and_its_pages)
{
    static const struct {
        size_t size, pages, supers;
    } sizes[] = {
        {1, 1, 1},
        {HAK_SUPER_SIZE - 1, 512, 1},
        {HAK_SUPER_SIZE, 512, 1},
        {HAK_SUPER_SIZE + 1, 513, 2},
        {3 * HAK_MIB, 768, 2},
        {64 * HAK_MIB, 16384, 32},
        {HAK_GIB - 4095, 262144, 512},
    };

    UNIT_SKIP_IF_EMULATED("its window has 1 GB");
    cr_assert(haki_range_init());
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct hak_huge_block block;
        bool zero;
        char *p = get(sizes[i].size, HAK_PAGE, &zero);

        cr_assert(zero);
        cr_assert_eq(huge_check().supers, sizes[i].supers);
        cr_assert(haki_huge_find(p, &block));
        cr_assert_eq(block.size, sizes[i].pages * HAK_PAGE);
        cr_assert_eq(block.owner, HAK_ID_SHARED);
        cr_assert_eq(resident(p, haki_min(block.size, HAK_GIB / 8)), 0);
        p[0] = p[sizes[i].size - 1] = 1;
        cr_assert(haki_huge_free(p, &block));
        cr_assert_eq(block.size, sizes[i].pages * HAK_PAGE);
        cr_assert_eq(huge_check().blocks, 0);
        haki_range_purge(); /* the next one shall be zero */
    }
}

Test(huge, alignment_up_to_64_mb)
{
    char *p[60];
    int n = 0;
    bool zero;

    cr_assert(haki_range_init());
    for (size_t align = 1; align <= 64 * HAK_MIB; align *= 4) {
        static const size_t sizes[] = {0, 1, HAK_SUPER_SIZE, 5 * HAK_MIB};

        for (int i = 0; i < 4; i++) {
            if (n < 60) {
                p[n++] = get(haki_max(sizes[i], 1), align, &zero);
            }
        }
        huge_check();
    }
    /* No two share a superslab. */
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) {
            cr_assert_neq(p[i], p[k]);
        }
    }
    for (int i = 0; i < n; i++) {
        put(p[i]);
    }
    cr_assert_eq(huge_check().blocks, 0);
    cr_assert_null(haki_huge_alloc(1, (size_t)1 << 62, HAK_ID_SHARED, &zero));
    huge_check();
}

Test(huge, find_and_free_know_the_start_alone)
{
    struct hak_huge_block block;
    bool zero;
    char *p;

    cr_assert(haki_range_init());
    p = get(5 * HAK_MIB, 1, &zero);
    cr_assert(!haki_huge_find(p + 1, &block));
    cr_assert(!haki_huge_free(p + HAK_PAGE, &block));
    cr_assert(!haki_huge_free(p + HAK_SUPER_SIZE, &block));
    cr_assert(!haki_huge_free(p - HAK_SUPER_SIZE, &block));
    huge_check();
    put(p);
    cr_assert(!haki_huge_find(p, &block));
    cr_assert(!haki_huge_free(p, &block));
    huge_check();
}

Test(huge, free_owner_frees_that_owner_s_alone)
{
    struct hak_huge_block block;
    bool zero;
    char *p[30];

    cr_assert(haki_range_init());
    for (uint32_t i = 0; i < 30; i++) {
        p[i] =
            haki_huge_alloc((1 + i % 3) * HAK_SUPER_SIZE, 1, 5 + i % 3, &zero);
    }
    haki_huge_free_owner(6);
    cr_assert_eq(huge_check().blocks, 20);
    haki_huge_free_owner(8);
    cr_assert_eq(huge_check().blocks, 20);
    for (uint32_t i = 0; i < 30; i++) {
        cr_assert_eq(haki_huge_find(p[i], &block), i % 3 != 1);
        cr_assert(i % 3 == 1 || block.owner == 5 + i % 3);
    }
    haki_huge_free_owner(5);
    haki_huge_free_owner(7);
    cr_assert_eq(huge_check().blocks, 0);
}

/* ---- memory back ------------------------------------------------------------------ */

static char *get_full(size_t size)
{
    bool zero;
    char *p = get(size, 1, &zero);

    memset(p, 0x5a, size);
    return p;
}

Test(huge, large_blocks_go_back_at_once)
{
    size_t size = KEEP_BLOCK + HAK_SUPER_SIZE;
    bool zero;
    char *p;

    cr_assert(haki_range_init());
    p = get_full(size);
    cr_assert_eq(resident(p, size), size);
    put(p);
    cr_assert_eq(resident(p, size), 0);
    cr_assert_eq(haki_range_unused(), 0);
    cr_assert_eq(haki_range_resident_bytes(), 0);
    cr_assert_eq(get(size, 1, &zero), p);
    cr_assert(zero);
    cr_assert_eq(p[size - 1], 0);
}

/* Recent ones are kept, up to KEEP_ALL bytes, and go after the delay. */
Test(huge, a_bounded_amount_is_kept_for_a_while)
{
    enum { BLOCK = 8 * 1024 * 1024, KEPT = KEEP_ALL / BLOCK, MANY = KEPT + 4 };
    char *p[MANY], *again;
    bool zero;

    cr_assert(haki_range_init());
    for (int i = 0; i < MANY; i++) {
        p[i] = get_full(BLOCK);
    }
    for (int i = 0; i < MANY; i++) {
        put(p[i]);
        cr_assert_leq(haki_range_unused(), KEEP_ALL);
        cr_assert_eq(resident(p[i], BLOCK), i < KEPT ? BLOCK : 0);
    }
    cr_assert_eq(haki_range_unused(), KEEP_ALL);
    again = get(2 * HAK_SUPER_SIZE, 1, &zero);
    /* It is from the top of the range, where the first block was. */
    cr_assert(!zero && again[0] == 0x5a);
    put(again);
    haki_range_tick(haki_os_tick() + 900);
    cr_assert_eq(haki_range_unused(), KEEP_ALL);
    for (uint32_t later = 1100; haki_range_waiting(); later += 20) {
        cr_assert_lt(later, 3000);
        haki_range_tick(haki_os_tick() + later);
    }
    cr_assert_eq(haki_range_unused(), 0);
    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(resident(p[i], BLOCK), 0);
    }
    get(2 * HAK_SUPER_SIZE, 1, &zero);
    cr_assert(zero);
}

/* Only if all of it was purged is a block called zero. */
Test(huge, a_block_with_one_warm_slab_is_not_called_zero)
{
    uint32_t low, slab;
    bool zero;
    char *p;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    slab =
        haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY, HAK_SLABS_SOME);
    low = slab / HAK_SUPER_SLABS;
    cr_assert(haki_range_ready(slab, 1, HAK_PAGE, 0));
    haki_range_slab_start(slab)[100] = 7;
    haki_range_slabs_give(slab, 1, HAK_LANE_TINY);
    /* All of the range but the tags. */
    p = get((haki_range.size / HAK_SUPER_SIZE - low) * HAK_SUPER_SIZE, 1,
            &zero);
    cr_assert_eq(p, haki_range_slab_start(slab));
    cr_assert(!zero);
    cr_assert_eq(p[100], 7);
    cr_assert_null(haki_huge_alloc(1, 1, HAK_ID_SHARED, &zero));
    put(p);
    huge_check();
}

/* ---- a random stream --------------------------------------------------------------- */

enum { PLACES = 24 };

struct place {
    char *p;
    size_t size;
    unsigned seed;
};

static struct place places[PLACES];
static struct unit_random rnd;

/* The pages that a test writes to: the first, the last, some between. */
static size_t page_of(const struct place *place, unsigned i)
{
    size_t pages = place->size / HAK_PAGE;

    return i == 0 ? 0 : i == 1 ? pages - 1 : (place->seed * i) % pages;
}

static void write_some(struct place *place)
{
    for (unsigned i = 0; i < 12; i++) {
        size_t page = page_of(place, i);

        memset(place->p + page * HAK_PAGE, (int)(place->seed + page), 64);
    }
}

/* What was written below `size` bytes is still there. */
static void check_some(const struct place *place, size_t size)
{
    for (unsigned i = 0; i < 12; i++) {
        size_t page = page_of(place, i);
        const char *at = place->p + page * HAK_PAGE;

        if ((page + 1) * HAK_PAGE <= size) {
            NEED(at[0] == (char)(place->seed + page));
            NEED(at[63] == (char)(place->seed + page));
        }
    }
}

static size_t some_size(void)
{
    size_t most = unit_below(&rnd, 4) == 0 ? 80 * HAK_MIB : 12 * HAK_MIB;

    return haki_round_up(HAK_SUPER_SIZE + unit_below(&rnd, most), HAK_PAGE);
}

static void fill_place(struct place *place)
{
    bool zero;
    char *end;

    place->size = some_size();
    place->seed = (unsigned)unit_below(&rnd, 1000000);
    place->p = get(place->size, (size_t)1 << unit_below(&rnd, 26), &zero);
    end = place->p + place->size - 1;
    NEED(!zero || (place->p[0] == 0 && *end == 0));
    write_some(place);
}

static void resize_place(struct place *place)
{
    size_t size = some_size(), old = place->size;
    char *p = haki_huge_resize(place->p, size);

    NEED(p != NULL);
    place->p = p;
    check_some(place, haki_min(old, size));
    place->size = size;
    place->seed = (unsigned)unit_below(&rnd, 1000000);
    write_some(place);
}

Test(huge, a_random_stream)
{
    rnd.state = 1;
    cr_assert(haki_range_init());
    for (size_t i = 0; i < unit_scale(3000, 300); i++) {
        struct place *place = &places[unit_below(&rnd, PLACES)];

        if (place->p == NULL) {
            fill_place(place);
        } else if (unit_below(&rnd, 2) == 0) {
            check_some(place, place->size);
            resize_place(place);
        } else {
            check_some(place, place->size);
            put(place->p);
            place->p = NULL;
        }
        huge_check();
    }
    for (int i = 0; i < PLACES; i++) {
        if (places[i].p != NULL) {
            check_some(&places[i], places[i].size);
            put(places[i].p);
        }
    }
    cr_assert_eq(huge_check().blocks, 0);
    cr_assert_leq(haki_range_unused(), KEEP_ALL);
    haki_range_purge();
    cr_assert_eq(haki_range_resident_bytes(), 0);
}
