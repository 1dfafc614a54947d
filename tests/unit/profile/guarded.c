/*
 * guarded.c - tests of guarded blocks: where they lie, that they are blocks as any,
 * what is bounded, how often they come, and misuse that no fault shows.
 */
#include <math.h>
#include <sys/syscall.h>

#include "api/inside.h"
#include "guards.h"

TestSuite(guarded, .timeout = 120);

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

static const size_t sizes[] = {1,    2,    8,    16,   17,   100,   128,  1000,
                               1024, 1025, 4000, 4096, 5000, 12288, 16384};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

/* ---- a block as any ---------------------------------------------------------- */

Test(guarded, a_block_lies_alone_beside_a_page_without_access)
{
    bool ends = false, begins = false;

    GUARDS_SKIP_IF_HARD();
    guards_on();
    for (int n = 0; n < 40; n++) {
        for (size_t i = 0; i < SIZES; i++) {
            size_t size = sizes[i];
            char *p = guards_block(size), *next;

            cr_assert_eq((uintptr_t)p % 16, 0);
            cr_assert_eq(hak_usable_size(p), size, "%zu", size);
            cr_assert(hak_owns(p));
            memset(p, 1, size);
            next = p + (size + 15) / 16 * 16;
            if ((uintptr_t)next % 4096 == 0 && !guards_can_read(next)) {
                ends = true;
            } else {
                begins = true;
                cr_assert_eq((uintptr_t)p % 4096, 0);
                cr_assert(!guards_can_read(p - 1));
            }
            hak_free(p);
            cr_assert(!guards_can_read(p));
        }
    }
    cr_assert(ends && begins);
    hak_guard_stop();
    unit_expect_none_live();
}

Test(guarded, the_family_works_on_them)
{
    GUARDS_SKIP_IF_HARD();
    guards_on();
    for (size_t i = 0; i < SIZES; i++) {
        size_t size = sizes[i], actual;
        char *p = guards_block(size), *q;

        memset(p, 3, size);
        q = hak_realloc(p, 2 * size);
        cr_assert_not_null(q);
        cr_assert_eq(q[size - 1], 3);
        q = hak_realloc(q, size);
        cr_assert_eq(q[size - 1], 3);
        cr_assert_geq(hak_usable_size(q), size);
        hak_free_sized(q, size);
        p = hak_calloc(1, size);
        for (size_t b = 0; b < size; b++) {
            cr_assert_eq(p[b], 0);
        }
        hak_free(p);
        for (size_t to = 32; to <= 16384; to *= 2) {
            p = hak_aligned_alloc(to, size);
            cr_assert_eq((uintptr_t)p % to, 0, "%zu %zu", to, size);
            memset(p, 5, size);
            hak_free_aligned_sized(p, to, size);
        }
        p = hak_alloc_at_least(size, &actual);
        memset(p, 7, actual);
        hak_free(p);
    }
    hak_free(NULL);
    hak_guard_stop();
    unit_expect_none_live();
}

Test(guarded, they_begin_with_the_next_request)
{
    char *p = NULL;

    for (int i = 0; i < 10; i++) { /* its bin is full of blocks */
        hak_free(p);
        p = hak_malloc(40);
    }
    hak_free(p);
    cr_assert_eq(hak_guard_start(1), 0);
    p = hak_malloc(40);
    cr_assert(haki_guarded_covers(p));
    hak_free(p);
}

Test(guarded, a_larger_block_is_not_guarded)
{
    guards_on();
    hak_free(guards_block(100));
    for (int i = 0; i < 100; i++) {
        void *p = hak_malloc(40 * KIB);

        cr_assert(!haki_guarded_covers(p));
        hak_free(p);
    }
}

static void *free_it_there(void *p)
{
    hak_free(p);
    return NULL;
}

Test(guarded, statistics_and_another_thread)
{
    hak_stats_t before, after;
    char *p[20];

    GUARDS_SKIP_IF_HARD();
    guards_on();
    hak_free(guards_block(64));
    before = unit_stats();
    for (int i = 0; i < 20; i++) {
        p[i] = hak_malloc(64);
        cr_assert(haki_guarded_covers(p[i]));
    }
    after = unit_stats();
    cr_assert_eq(after.tiny_allocs - before.tiny_allocs, 20);
    cr_assert_eq(after.tiny_live_bytes - before.tiny_live_bytes,
                 20 * hak_good_size(64));
    for (int i = 0; i < 20; i++) {
        unit_in_thread(free_it_there, p[i]);
    }
    unit_expect_none_live();
}

/* ---- bounds ------------------------------------------------------------------------ */

#define MANY 4000

Test(guarded, memory_is_bounded_and_slots_are_used_again)
{
    static void *p[MANY];
    size_t guarded = 0, most;
    char *area;

    guards_on();
    for (int round = 0; round < 5; round++) {
        guarded = 0;
        for (int i = 0; i < MANY; i++) {
            p[i] = hak_malloc(100);
            memset(p[i], 1, 100);
            guarded += haki_guarded_covers(p[i]);
        }
        area = (char *)atomic_load(&haki_guarded_area.at);
        most = atomic_load(&haki_guarded_area.bytes);
        cr_assert_leq(haki_guarded_held(), 512 * KIB * guards_larger());
        cr_assert_geq(guarded, 64, "round %d: %zu", round, guarded);
        cr_assert_leq(guarded, 128);
        cr_assert_leq(unit_resident(area, haki_min(most, 4 * MIB)),
                      128 * guards_larger());
        for (int i = 0; i < MANY; i++) {
            hak_free(p[i]);
        }
        cr_assert_eq(haki_guarded_held(), 0);
        if (!UNIT_WATCHED) { /* valgrind's MADV_DONTNEED is its own affair */
            cr_assert_eq(unit_resident(area, haki_min(most, 4 * MIB)), 0);
        }
    }
    unit_expect_none_live();
}

Test(guarded, what_found_no_room_is_counted)
{
    enum { BLOCKS = 300 };
    static void *p[BLOCKS];
    hak_stats_t before = {.size = sizeof(before)}, after = before;
    size_t guarded = 0;

    GUARDS_SKIP_IF_HARD();
    guards_on();
    hak_free(guards_block(100));
    cr_assert_eq(hak_stats(&before), 0);
    cr_assert_geq(before.guards, 1);
    cr_assert_eq(before.guards_missed, 0);
    for (size_t i = 0; i < BLOCKS; i++) {
        p[i] = hak_malloc(100);
        guarded += haki_guarded_covers(p[i]);
    }
    cr_assert_eq(hak_stats(&after), 0);
    cr_assert_eq(after.guards - before.guards, guarded);
    cr_assert_eq(after.guards_missed, BLOCKS - guarded);
    cr_assert_gt(after.guards_missed, 0);
    for (size_t i = 0; i < BLOCKS; i++) {
        hak_free(p[i]);
    }
    hak_free(hak_malloc(HAK_GUARDED_MOST + 1)); /* it is never due */
    hak_guard_stop();
    cr_assert_eq(hak_stats(&before), 0);
    cr_assert_eq(before.guards_missed, after.guards_missed);
}

static size_t area_resident(void)
{
    return unit_resident((void *)atomic_load(&haki_guarded_area.at),
                         atomic_load(&haki_guarded_area.bytes));
}

/* Guards switched on before the program locks its memory, or after. */
static void locks_all(bool before)
{
    GUARDS_SKIP_IF_HARD();
    UNIT_SKIP_IF_WATCHED("the checker's memory would be locked as well");
    if (guards_larger() > 1) {
        cr_skip("it counts pages of 4 KB");
    }
    guards_set_memory(128 * KIB);
    if (before) {
        guards_on();
        hak_free(guards_block(100));
    }
    /* Sanitizers make nothing of the function. */
    if (syscall(SYS_mlockall, MCL_CURRENT | MCL_FUTURE) != 0) {
        cr_skip("so much may not be locked here");
    }
    if (!before) {
        guards_on();
    }
    for (int i = 0; i < 200; i++) {
        char *p = guards_block(4000);

        memset(p, 1, 4000);
        cr_assert_eq(area_resident(), 1);
        hak_free(p);
        cr_assert_eq(area_resident(), 0, "%d", i);
    }
    syscall(SYS_munlockall);
}

Test(guarded, freed_ones_keep_no_page_where_memory_is_locked)
{
    locks_all(true);
}

Test(guarded, nor_do_those_made_after_that)
{
    locks_all(false);
}

Test(guarded, what_was_freed_is_out_of_reach_for_a_while)
{
    char *freed[60];

    guards_on();
    for (int i = 0; i < 60; i++) {
        freed[i] = guards_block(48);
        hak_free(freed[i]);
        for (int j = 0; j <= i; j++) {
            cr_assert(!guards_can_read(freed[j]), "%d of %d", j, i);
        }
    }
}

Test(guarded, more_memory_guards_more)
{
    size_t guarded = 0;

    UNIT_SKIP_IF_EMULATED("its window has 1 GB");
    guards_set_memory(4 * MIB);
    guards_on();
    for (int i = 0; i < 1000; i++) {
        guarded += haki_guarded_covers(hak_malloc(10));
    }
    /* The most memory is 16 MB: 256 pages of 64 KB, less what is known of them. */
    cr_assert_geq(guarded, guards_larger() < 16 ? 600 : 200, "%zu", guarded);
}

/* ---- chance -------------------------------------------------------------------------- */

/* How many of n draws a probability gives, to 6.5 sigma: one false alarm in 10^10. */
static void check_count(const char *what, double chance, size_t n, size_t count)
{
    double sigma = sqrt((double)n * chance * (1 - chance));

    cr_expect_leq(fabs((double)count - chance * (double)n), 6.5 * sigma + 1,
                  "%s: %zu of %zu, chance %g", what, count, n, chance);
}

/* A block is drawn with 1 - exp(-bytes / draw); what it then is. */
static void check_both(size_t rate, size_t guards, size_t bytes)
{
    double sample = rate != 0 ? haki_draw_chance(rate, bytes) : 0;
    double guard = haki_draw_chance(guards, bytes);
    size_t n = unit_scale(200000, 20000), count[4] = {0, 0, 0, 0};
    uint64_t random = 1;

    NEED(haki_profile_set(rate));
    NEED(hak_guard_start(guards) == 0);
    for (size_t i = 0; i < n; i++) {
        if (haki_profile_draw(bytes, &random) == 0) {
            count[haki_profile_drawn(bytes, &random)]++;
        }
    }
    check_count("sample", sample * (1 - guard), n, count[HAK_DRAWN_SAMPLE]);
    check_count("guard", guard * (1 - sample), n, count[HAK_DRAWN_GUARD]);
    check_count("both", guard * sample, n, count[3]);
}

Test(guarded, two_chances_at_once_are_what_each_alone_had_been)
{
    static const size_t rates[] = {0, 1, 100, 3000, 512 * 1024};

    for (size_t r = 0; r < 5; r++) {
        for (size_t g = 1; g < 5; g++) {
            check_both(rates[r], rates[g] + 1, 16);
            check_both(rates[r], rates[g] + 1, 1000);
            check_both(rates[r], rates[g] + 1, 16384);
        }
    }
}

/* What a run says: how many of n blocks of the size were guarded, and the profile's
 * estimate of all. */
Test(guarded, as_many_as_the_rate_says_beside_a_profile_without_bias)
{
    size_t n = unit_scale(400000, 20000), guarded = 0;
    double bytes = (double)hak_good_size(256), alloc = 0, chance, sigma;
    struct hak_stacks *stacks;

    haki_profile_test_seed(42);
    NEED(haki_profile_set(8 * KIB));
    NEED(hak_guard_start(32 * KIB) == 0);
    for (size_t i = 0; i < n; i++) {
        void *p = hak_malloc(256);

        guarded += haki_guarded_covers(p);
        hak_free(p);
    }
    check_count("guarded", haki_draw_chance(32 * KIB, (size_t)bytes), n,
                guarded);
    stacks = haki_profile_read(false);
    for (uint32_t i = 0; i < stacks->count; i++) {
        alloc += (double)stacks->stack[i].sums.bytes[HAK_SUM_ALLOC];
    }
    haki_profile_drop(stacks);
    chance = haki_draw_chance(8 * KIB, (size_t)bytes);
    sigma = bytes * sqrt((double)n * (1 - chance) / chance);
    cr_assert_leq(fabs(alloc - bytes * (double)n), 6.5 * sigma);
}

/* ---- explicit heaps ------------------------------------------------------------------ */

Test(guarded, an_explicit_heap_counts_and_frees_its_own)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 64 * KIB};
    hak_heap *heap;
    char *p[100], *mine;
    size_t live;

    GUARDS_SKIP_IF_HARD();
    guards_on();
    mine = guards_block(50);
    heap = hak_heap_new(&config);
    live = hak_heap_live(heap);
    for (int i = 0; i < 20; i++) {
        p[i] = hak_heap_malloc(heap, (size_t)i * 70 + 1);
        NEED(p[i] != NULL);
        cr_assert(haki_guarded_covers(p[i]));
        cr_assert_eq(hak_heap_usable_size(heap, p[i]), (size_t)i * 70 + 1);
        p[i] = hak_heap_realloc(heap, p[i], (size_t)i * 80 + 2);
    }
    for (int i = 0; i < 20; i += 2) {
        hak_heap_free(heap, p[i]);
        unit_in_thread(free_it_there, p[i + 1]);
    }
    cr_assert_eq(hak_heap_live(heap), live);
    for (int i = 0; i < 50; i++) {
        p[i] = hak_heap_malloc(heap, 300);
    }
    cr_assert_null(hak_heap_malloc(heap, 60 * KIB));
    hak_heap_delete(heap);
    cr_assert_eq(haki_guarded_held(), haki_range.page);
    for (int i = 0; i < 50; i++) {
        cr_assert(!haki_guarded_covers(p[i]) || !guards_can_read(p[i]));
    }
    mine[0] = 1;
    hak_free(mine);
    unit_expect_none_live();
}

/* ---- fork ------------------------------------------------------------------------------ */

static void use_in_child(void *p)
{
    char *q = guards_block(200);

    ((char *)p)[0] = 2;
    hak_free(p);
    NEED(!guards_can_read(p));
    hak_free(q);
    NEED(!guards_can_read(q));
}

Test(guarded, a_child_has_them_too)
{
    char *p;

    guards_on();
    p = guards_block(100);
    unit_expect_ok(use_in_child, p);
    p[0] = 1;
    hak_free(p);
}

/* ---- misuse ------------------------------------------------------------------------------ */

static HAK_NOINLINE void frees_it(void *p)
{
    hak_free(p);
    __asm__ volatile(""); /* the call of it is none that ends its caller */
}

static void free_twice(void *arg)
{
    char *p;

    guards_on();
    p = guards_block(*(size_t *)arg);
    hak_free(p);
    frees_it(unit_pointer(p));
    __asm__ volatile("");
}

static void free_inside(void *arg)
{
    char *p;

    guards_on();
    p = guards_block(*(size_t *)arg);
    hak_free(unit_pointer(p + 16));
}

static void free_inside_freed(void *arg)
{
    char *p;

    guards_on();
    p = guards_block(*(size_t *)arg);
    hak_free(p);
    hak_realloc(unit_pointer(p + 16), 5);
}

static void write_before(void *arg)
{
    volatile char *p;

    guards_on();
    p = unit_pointer(guards_block_at(*(size_t *)arg, true));
    p[-1] = 1;
    hak_free((void *)(uintptr_t)p);
}

static void write_behind(void *arg)
{
    size_t size = *(size_t *)arg;
    volatile char *p;

    guards_on();
    p = unit_pointer(guards_block_at(size, false));
    p[size] = 1;
    hak_free((void *)(uintptr_t)p);
}

static void write_into_slack(void *arg)
{
    size_t size = *(size_t *)arg;
    volatile char *p;

    guards_on();
    p = unit_pointer(guards_block_at(size, true));
    p[size] = 'x';
    hak_free((void *)(uintptr_t)p);
}

static void realloc_freed(void *arg)
{
    char *p;

    guards_on();
    p = guards_block(*(size_t *)arg);
    hak_free(p);
    hak_realloc(unit_pointer(p), 100);
}

Test(guarded, misuse_is_reported_and_ends_the_program)
{
    static size_t some[] = {20, 100, 1000, 5000};

    GUARDS_SKIP_IF_HARD();
    for (int i = 0; i < 4; i++) {
        guards_expect(free_twice, &some[i], SIGABRT,
                      GUARDS_WORDS("hak_free(0x", "free already: byte 0 of a",
                                   "  allocated by thread", "  freed by thread",
                                   "  used by thread"));
        guards_expect(free_inside, &some[i], SIGABRT,
                      GUARDS_WORDS("not the beginning of a block: byte 16 of",
                                   "  allocated by thread"));
        guards_expect(free_inside_freed, &some[i], SIGABRT,
                      GUARDS_WORDS("hak_realloc(0x",
                                   "inside a block that is "
                                   "free already",
                                   "  freed by thread"));
        guards_expect(write_before, &some[i], SIGABRT,
                      GUARDS_WORDS("write before a block, found at its free",
                                   "1 byte before a block of",
                                   "  freed by thread"));
        guards_expect(write_behind, &some[i], SIGABRT,
                      GUARDS_WORDS("write beyond a block, found at its free",
                                   "1 byte past the end of a block of"));
        guards_expect(realloc_freed, &some[i], SIGABRT,
                      GUARDS_WORDS("hak_realloc(0x", "free already"));
    }
    if (!HAK_HARD) {
        guards_expect(write_into_slack, &some[1], SIGABRT,
                      GUARDS_WORDS("write beyond a block, found at its free",
                                   "1 byte past the end of a block of 100"));
    }
}

/* The functions that did it, by their names. */
Test(guarded, a_report_names_functions)
{
    static size_t size = 100;

    unit_need_names();
    guards_expect(free_twice, &size, SIGABRT,
                  GUARDS_WORDS("free_twice+0x", "frees_it+0x"));
}

static void use_after_heap_delete(void *arg)
{
    hak_heap *heap;
    char *p;

    (void)arg;
    guards_on();
    hak_free(guards_block(100));
    heap = hak_heap_new(NULL);
    p = hak_heap_malloc(heap, 100);
    NEED(haki_guarded_covers(p));
    hak_heap_delete(heap);
    hak_free(unit_pointer(p));
    __asm__ volatile("");
}

Test(guarded, a_block_of_a_deleted_heap_is_one_that_is_free)
{
    unit_need_names();
    guards_expect(use_after_heap_delete, NULL, SIGABRT,
                  GUARDS_WORDS("free already", "  freed by thread",
                               "use_after_heap_delete"));
}
