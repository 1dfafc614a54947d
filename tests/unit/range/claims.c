/*
 * claims.c - tests of the window: the extent grows, somebody else's mappings
 * are passed over, runs have room to grow into, and what is free is unmapped.
 */
#include "huge/huge.h"
#include "os/os.h"
#include "range/rooms.h"
#include "range/slots.h"
#include "range/superslabs.h"
#include "range_check.h"
#include "unit.h"

TestSuite(claims, .timeout = 300);

/* Maps one page of somebody else's at p. */
static void foreign_at(char *p)
{
    cr_assert_eq(mmap(p, HAK_PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
                 p);
    memset(p, 0x77, HAK_PAGE);
}

static bool is_untouched(const char *p)
{
    for (size_t i = 0; i < HAK_PAGE; i++) {
        if (p[i] != 0x77) {
            return false;
        }
    }
    return true;
}

static uint32_t take_run(uint32_t count, uint32_t *room)
{
    bool zero = false;
    uint32_t first = haki_range_run_take(count * HAK_SUPER_SIZE, 1,
                                         HAK_LANE_HUGE, room, &zero);

    cr_assert_neq(first, HAK_NO_SUPER);
    cr_assert(zero);
    return first;
}

/* ---- the extent ------------------------------------------------------------ */

Test(claims, the_extent_doubles_until_it_is_the_window)
{
    uint32_t none = 0;

    setenv("HAKMEM_RANGE", "5G", 1);
    cr_assert(haki_range_init());
    cr_assert_eq(haki_range.window, 5 * HAK_GIB);
    cr_assert_eq(haki_range.size, HAK_GIB);
    take_run(300, &none);
    cr_assert_eq(haki_range.size, HAK_GIB);
    take_run(300, &none);
    cr_assert_eq(haki_range.size, 2 * HAK_GIB);
    range_check();
    take_run(1000, &none); /* more than twice would be needed */
    cr_assert_eq(haki_range.size, 4 * HAK_GIB);
    take_run(500, &none);
    cr_assert_eq(haki_range.size, 5 * HAK_GIB, "not more than there is");
    range_check();
    for (size_t at = 0; at < haki_range.size; at += HAK_SLAB_SIZE) {
        cr_assert_eq(haki_range_tag(at), 0);
    }
    cr_assert(hak_owns((char *)haki_range.base + haki_range.size - 1));
    cr_assert_not(hak_owns((char *)haki_range.base + haki_range.size));
}

Test(claims, an_extent_that_is_refused_is_tried_smaller_and_again)
{
    uint32_t none = 0;
    bool zero;

    UNIT_SKIP_IF_EMULATED("its window has 1 GB");
    cr_assert(haki_range_init());
    take_run(150, &none);
    haki_os_test_kinds(HAK_OS_CLAIM);
    /* The first array, once more, then the second, the third. */
    for (unsigned n = 0; n < 4; n++) {
        haki_os_test_refuse(n < 2 ? 1 : 2, true);
        cr_assert_eq(haki_range_supers_take(200, 1, HAK_LANE_HUGE, &zero),
                     HAK_NO_SUPER);
        haki_os_test_refuse(0, false);
        cr_assert_eq(haki_range.size, HAK_GIB);
        range_check();
    }
    take_run(200, &none);
    cr_assert_eq(haki_range.size, 2 * HAK_GIB);
    range_check();
}

/* ---- others ------------------------------------------------------------------ */

Test(claims, a_single_superslab_of_somebody_else_s_is_passed_over)
{
    char *other;

    cr_assert(haki_range_init());
    other = haki_range_super_start(first_super()) + 100 * HAK_PAGE;
    foreign_at(other);
    cr_assert_not(hak_owns(other));
    cr_assert(hak_owns(other - HAK_PAGE), "nobody's is ours");
    cr_assert_eq(take(), HAK_SUPER_SLABS + 1);
    cr_assert_eq(haki_supers.foreign, 1);
    range_check();
    cr_assert_eq(munmap(other, HAK_PAGE), 0);
    cr_assert_eq(take(), HAK_SUPER_SLABS + 2, "it is not asked again");
}

Test(claims, a_run_goes_where_nobody_has_anything)
{
    uint32_t none = 0, first, end;
    char *other;

    cr_assert(haki_range_init());
    end = haki_supers.limit;
    other = haki_range_super_start(end - 3) + 5 * HAK_PAGE;
    foreign_at(other);
    first = take_run(4, &none);
    cr_assert_eq(first, end - 7);
    cr_assert_eq(haki_supers.foreign, 1);
    cr_assert_eq(take_run(2, &none), end - 2, "what lies behind is used");
    memset(haki_range_super_start(end - 2), 1, 2 * HAK_SUPER_SIZE);
    memset(haki_range_super_start(first), 1, 4 * HAK_SUPER_SIZE);
    cr_assert(is_untouched(other));
    range_check();
}

Test(claims, without_descriptors_superslabs_are_passed_over)
{
    uint32_t per_step = HAK_META_STEP / HAK_SUPER_META;
    uint32_t step;
    char *other;

    cr_assert(haki_range_init());
    step = first_super() / per_step + 1;
    other = (char *)haki_range.slabs + step * HAK_META_STEP + HAK_PAGE;
    foreign_at(other);
    for (uint32_t i = first_super(); i < step * per_step; i++) {
        for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
            cr_assert_neq(take(), 0);
        }
    }
    cr_assert_eq(number_of(take()) / HAK_SUPER_SLABS, (step + 1) * per_step);
    cr_assert_eq(haki_supers.foreign, per_step);
    cr_assert(is_untouched(other));
    range_check();
}

#define USED_UP                                                                \
    "hakmem: the address window of %u MB is used up, %u MB of it by other "    \
    "mappings (a larger HAKMEM_RANGE?); further requests go to the system "    \
    "allocator\n"

/* Somebody has mapped something where the tags of the next extent belong. */
static void use_without_tags(void *arg)
{
    char *other, *p[40];
    int ours = 0, fit;

    (void)arg;
    NEED(haki_range_init());
    other = haki_supers.parts[HAK_PART_TAGS].at +
            haki_supers.parts[HAK_PART_TAGS].mapped;
    foreign_at(other);
    for (int i = 0; i < 40; i++) {
        p[i] = hak_malloc(unit_ask(60 * HAK_MIB));
        NEED(p[i] != NULL);
        ours += hak_owns(p[i]);
        memset(p[i], i, 1000);
    }
    fit = (int)((haki_supers.limit - first_super()) /
                haki_supers_for(60 * HAK_MIB));
    NEED(ours == fit || (UNIT_WATCHED && ours > fit / 2 && ours < fit));
    NEED(haki_range.size == HAK_GIB);
    NEED(is_untouched(other));
    for (int i = 0; i < 40; i++) {
        hak_free(p[i]);
    }
    NEED(hak_owns(hak_malloc(unit_ask(60 * HAK_MIB))));
    range_check();
}

Test(claims, without_tags_the_window_ends_said_once)
{
    char *said;

    UNIT_SKIP_IF_EMULATED("its window has 1 GB");
    cr_assert(haki_range_init());
    cr_assert_gt(asprintf(&said, USED_UP,
                          (unsigned)(haki_range.window / HAK_MIB), 0),
                 0);
    unit_expect_said(use_without_tags, NULL, said);
}

/* Every superslab that we have not is somebody else's. */
static void use_beside_others(void *arg)
{
    char *p[3000];
    int ours = 0;

    (void)arg;
    setenv("HAKMEM_RANGE", "1G", 1);
    p[0] = hak_malloc(1000);
    NEED(hak_owns(p[0]));
    for (uint32_t i = first_super() + 1; i < haki_supers.limit; i++) {
        foreign_at(haki_range_super_start(i) + i % 512 * HAK_PAGE);
    }
    for (int i = 1; i < 3000; i++) {
        p[i] = hak_malloc(1000);
        NEED(p[i] != NULL);
        ours += hak_owns(p[i]);
        unit_fill(p[i], 1000, (unsigned)i);
    }
    NEED(ours > 1900 && ours < 2048 && !hak_owns(p[2999]));
    for (int i = 1; i < 3000; i++) {
        NEED(unit_filled(p[i], 1000, (unsigned)i));
        hak_free(p[i]);
    }
    for (uint32_t i = first_super() + 1; i < haki_supers.limit; i++) {
        NEED(is_untouched(haki_range_super_start(i) + i % 512 * HAK_PAGE));
    }
    NEED(unit_stats().system_live == 0);
    range_check();
}

Test(claims, a_window_that_others_fill_up_is_said_once)
{
    char *said;

    cr_assert_gt(asprintf(&said, USED_UP, 1024, 988), 0);
    unit_expect_said(use_beside_others, NULL, said);
}

Test(claims, heaps_end_where_somebody_else_begins)
{
    uint32_t id, count = 0;

    cr_assert(haki_range_init());
    foreign_at(haki_range.heap_slots + 10 * HAK_META_STEP);
    while (haki_range_heap_take(&id) != NULL) {
        count++;
    }
    cr_assert_eq(count, 10 * HAK_META_STEP / HAK_HEAP_SLOT);
    haki_range_heap_give(3);
    cr_assert_eq(haki_range_heap_take(&id), haki_range_heap(3));
    cr_assert_null(haki_range_heap_take(&id));
}

/* ---- room ---------------------------------------------------------------------- */

Test(claims, a_run_grows_into_its_room_and_nobody_else_does)
{
    uint32_t room = 20, none = 0, run, other;
    bool zero = false;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    run = take_run(5, &room);
    cr_assert_eq(room, 20);
    range_check();
    for (int i = 0; i < 10; i++) {
        other = take_run(3, &none);
        cr_assert(other + 3 <= run || other >= run + 25);
    }
    cr_assert(haki_range_run_grow(run, 5, &room, 15 * HAK_SUPER_SIZE,
                                  HAK_LANE_HUGE, &zero));
    cr_assert(zero);
    cr_assert_eq(room, 10);
    memset(haki_range_super_start(run), 1, 15 * HAK_SUPER_SIZE);
    range_check();
    cr_assert(haki_range_run_grow(run, 15, &room, 25 * HAK_SUPER_SIZE,
                                  HAK_LANE_HUGE, &zero));
    cr_assert_eq(room, 0);
    cr_assert_not(haki_range_run_grow(run, 25, &room, 30 * HAK_SUPER_SIZE,
                                      HAK_LANE_HUGE, &zero));
    range_check();
}

Test(claims, room_that_is_given_back_is_free)
{
    uint32_t room = 50, none = 0, run;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    run = take_run(5, &room);
    haki_range_room_give(run + 5, room);
    range_check();
    cr_assert_eq(take_run(50, &none), run + 5);
}

Test(claims, room_ends_where_somebody_else_begins)
{
    uint32_t room = 20, run;
    bool zero;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    run = take_run(5, &room);
    foreign_at(haki_range_super_start(run + 7));
    cr_assert(haki_range_run_grow(run, 5, &room, 7 * HAK_SUPER_SIZE,
                                  HAK_LANE_HUGE, &zero));
    cr_assert_not(haki_range_run_grow(run, 7, &room, 9 * HAK_SUPER_SIZE,
                                      HAK_LANE_HUGE, &zero));
    cr_assert_eq(room, 0);
    cr_assert_eq(haki_supers.foreign, 1);
    range_check();
}

/* All rooms together leave half of the window. */
Test(claims, rooms_are_a_share_of_what_is_left)
{
    uint32_t before = UINT32_MAX;

    setenv("HAKMEM_RANGE", "64G", 1);
    cr_assert(haki_range_init());
    if (haki_range.window < 64 * HAK_GIB) {
        cr_skip("this process has no window of 64 GB");
    }
    for (int i = 0; i < 200; i++) {
        uint32_t room = haki_range_room_for(HAK_SUPER_SIZE);

        cr_assert_leq(room, before);
        before = room;
        take_run(1, &room);
    }
    cr_assert_leq(haki_supers.rooms, 32 * HAK_GIB / HAK_SUPER_SIZE);
    cr_assert_gt(haki_supers.rooms, 16 * HAK_GIB / HAK_SUPER_SIZE);
    range_check();
}

/* ---- a limit on address space ----------------------------------------------------- */

static void limit_to(size_t more)
{
    struct rlimit limit = {unit_address_space() + more, RLIM_INFINITY};

    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    usleep(20000); /* the clock has ticked */
    haki_range_ask_limit(haki_os_tick());
    NEED(haki_range_limited());
}

static void use_exactly(void *arg)
{
    bool zero;
    size_t before;
    char *p;

    (void)arg;
    NEED(haki_range_init());
    limit_to(100 * HAK_MIB);
    before = unit_address_space();
    p = haki_huge_alloc(2 * HAK_MIB + 1, 1, HAK_ID_SHARED, &zero);
    NEED(unit_address_space() - before <= 2 * HAK_MIB + 128 * HAK_KIB);
    range_check();
    NEED(haki_huge_resize(p, 3 * HAK_MIB) == p);
    memset(p, 1, 3 * HAK_MIB);
    NEED(unit_address_space() - before <= 3 * HAK_MIB + 128 * HAK_KIB);
    NEED(haki_huge_resize(p, 2 * HAK_MIB) == p);
    range_check();
    NEED(haki_huge_free(p, &(struct hak_huge_block){0}));
    range_check();
}

Test(claims, under_a_limit_a_run_has_whole_pages_only)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(use_exactly, NULL, "");
}

/*
 * A limit that has come a moment ago: the next run has whole pages only, and
 * what is free by now is unmapped.
 */
static void use_under_a_new_limit(void *resource)
{
    struct rlimit limit = {1024 * HAK_MIB, RLIM_INFINITY};
    char *p[8];
    size_t before;
    bool zero;

    NEED(haki_range_init());
    for (int i = 0; i < 8; i++) {
        NEED((p[i] = hak_malloc(unit_ask(16 * HAK_MIB))) != NULL);
        memset(p[i], 1, 16 * HAK_MIB - HAK_GUARD_BYTES);
    }
    for (int i = 0; i < 8; i += 2) {
        hak_free(p[i]);
    }
    NEED(haki_range_unused() == 64 * HAK_MIB);
    before = unit_address_space();
    NEED(setrlimit(*(int *)resource, &limit) == 0);
    NEED(haki_huge_alloc(16 * HAK_MIB + 1, 1, HAK_ID_SHARED, &zero) != NULL);
    NEED(haki_range_unused() == 0);
    NEED(unit_address_space() <= before - 48 * HAK_MIB + 256 * HAK_KIB);
    range_check();
}

Test(claims, a_limit_that_is_new_is_heeded_at_once)
{
    int resources[] = {RLIMIT_AS, RLIMIT_DATA};

    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    for (int i = 0; i < 2; i++) {
        unit_expect_said(use_under_a_new_limit, &resources[i], "");
    }
}

/* At the limit a block shrinks, though there is none of the smaller size. */
static void shrink_at_the_limit(void *arg)
{
    size_t sizes[] = {90 * HAK_MIB, 5 * HAK_MIB, 1500 * HAK_KIB};
    char *p[3];

    (void)arg;
    NEED(haki_range_init());
    hak_free(hak_malloc(1));
    limit_to(150 * HAK_MIB);
    for (int i = 0; i < 3; i++) {
        NEED((p[i] = hak_malloc(sizes[i])) != NULL);
        unit_fill(p[i], 10000, (unsigned)i);
    }
    for (int i = 0; i < 3; i++) {
        for (size_t size = 9 * HAK_MIB; size > 500; size /= 3) {
            while (hak_malloc(size) != NULL) {
            }
        }
        while (hak_malloc(10000) != NULL) {
        }
        NEED(hak_realloc(p[i], 10000) == p[i]);
        NEED(unit_filled(p[i], 10000, (unsigned)i));
        NEED(hak_malloc(sizes[i] / 2) != NULL);
    }
    range_check();
}

Test(claims, at_a_limit_what_shrinks_gives_back)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(shrink_at_the_limit, NULL, "");
}

/* Slabs, runs and holes: nothing that is free stays mapped. */
static void free_everything(void *arg)
{
    static void *p[20000];
    size_t before;

    (void)arg;
    NEED(haki_range_init());
    hak_free(hak_malloc(1));
    limit_to(800 * HAK_MIB);
    before = unit_address_space();
    for (size_t size = 500; size < 40 * HAK_MIB; size *= 9) {
        size_t n = haki_min(20000, 300 * HAK_MIB / size);

        for (size_t i = 0; i < n; i++) {
            NEED((p[i] = hak_malloc(size)) != NULL);
        }
        for (size_t i = 0; i < n; i++) {
            hak_free(p[i]);
        }
        NEED(unit_address_space() - before < 32 * HAK_MIB);
        range_check();
    }
}

Test(claims, under_a_limit_what_is_free_is_unmapped_at_once)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(free_everything, NULL, "");
}

/* ---- unmapping is refused ------------------------------------------------------------ */

Test(claims, what_can_t_be_unmapped_is_purged_and_used_again)
{
    uint32_t none = 0, run;

    cr_assert(haki_range_init());
    run = take_run(3, &none);
    memset(haki_range_super_start(run), 1, 3 * HAK_SUPER_SIZE);
    haki_os_test_kinds(HAK_OS_UNMAP);
    haki_os_test_refuse(1, true);
    haki_range_supers_drop(run, 3, HAK_LANE_HUGE);
    haki_os_test_refuse(0, false);
    range_check();
    cr_assert_eq(unit_resident(haki_range_super_start(run), HAK_SUPER_SIZE), 0);
    cr_assert_eq(take_run(3, &none), run);
    cr_assert_eq(haki_range_super_start(run)[0], 0);
}

Test(claims, what_can_t_be_unmapped_nor_purged_is_not_called_zero)
{
    uint32_t none = 0, run;
    bool zero = true;

    cr_assert(haki_range_init());
    run = take_run(3, &none);
    memset(haki_range_super_start(run), 1, 3 * HAK_SUPER_SIZE);
    haki_os_test_refuse(1, true);
    haki_range_supers_drop(run, 3, HAK_LANE_HUGE);
    haki_os_test_refuse(0, false);
    range_check();
    cr_assert_eq(haki_range_supers_take(3, 1, HAK_LANE_HUGE, &zero), run);
    cr_assert_not(zero);
    cr_assert_eq(haki_range_super_start(run)[0], 1);
}

/* The last superslab of a run is mapped in part and can neither go nor grow. */
static void give_a_part(void *arg)
{
    uint32_t none = 0, run;
    bool zero;

    (void)arg;
    NEED(haki_range_init());
    limit_to(100 * HAK_MIB);
    run = haki_range_run_take(HAK_SUPER_SIZE + HAK_PAGE, 1, HAK_LANE_HUGE,
                              &none, &zero);
    NEED(run != HAK_NO_SUPER);
    haki_os_test_refuse(1, true);
    haki_range_supers_drop(run, 2, HAK_LANE_HUGE);
    haki_os_test_refuse(0, false);
    NEED(haki_supers.at[run + 1].state == HAK_SUPER_FOREIGN);
    NEED(haki_range_supers_take(2, 1, HAK_LANE_HUGE, &zero) != run);
}

Test(claims, a_part_that_nothing_can_be_done_about_is_left_alone)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(give_a_part, NULL, "");
}
