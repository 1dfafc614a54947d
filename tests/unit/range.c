/*
 * range.c - tests of the range: ownership, the shared pool, warm slabs, the
 * populated ladder, heap slots, small ranges and none.
 */
#include "range.h"

#include "options.h"
#include "os.h"
#include "unit.h"

TestSuite(range, .timeout = 120);

/* ---- the reservation ----------------------------------------------------- */

Test(range, nothing_is_owned_before_the_first_use)
{
    int here;

    cr_assert_eq(hak_range.size, 0);
    cr_assert_not(hak_owns(&here));
    cr_assert_not(hak_owns(NULL));
    cr_assert_not(hak_owns((void *)UINTPTR_MAX));
    cr_assert_not(hak_owns((void *)(uintptr_t)1));
}

Test(range, is_reserved_once_and_aligned)
{
    char *base;

    cr_assert(hak_range_init());
    base = hak_range_slab_start(0);
    cr_assert_eq(hak_range.size, HAK_RANGE_DEFAULT);
    cr_assert_eq((uintptr_t)base % HAK_SUPER_SIZE, 0);
    cr_assert(hak_range_init());
    cr_assert_eq(hak_range_slab_start(0), base);
}

Test(range, all_tags_are_0_at_first)
{
    size_t used = 0;

    cr_assert(hak_range_init());
    for (size_t at = 0; at < hak_range.size; at += HAK_SLAB_SIZE) {
        used += hak_range_tag(at) != 0;
    }
    cr_assert_eq(used, 0);
}

Test(range, owns_is_arithmetic_on_any_address)
{
    static int in_data;
    int on_stack;
    void *of_libc = malloc(100);
    char *block = hak_malloc(24);
    char *large = hak_malloc(5000);
    char *base = hak_range_slab_start(0);
    char *end = base + hak_range.size;
    struct unit_random random = {1};

    cr_assert(hak_owns(base));
    cr_assert(hak_owns(base + 1));
    cr_assert(hak_owns(end - 1));
    cr_assert_not(hak_owns(base - 1));
    cr_assert_not(hak_owns(end));
    cr_assert_not(hak_owns(NULL));
    cr_assert_not(hak_owns((void *)(uintptr_t)1));
    cr_assert_not(hak_owns((void *)UINTPTR_MAX));
    cr_assert_not(hak_owns((void *)((uintptr_t)1 << 63)));
    cr_assert_not(hak_owns(&on_stack));
    cr_assert_not(hak_owns(&in_data));
    cr_assert_not(hak_owns(of_libc));
    cr_assert_not(hak_owns(large));
    cr_assert_not(hak_owns((void *)(uintptr_t)&hak_owns));
    cr_assert(hak_owns(block));
    cr_assert(hak_owns(block + 23));
    for (int i = 0; i < 100000; i++) {
        uintptr_t p = (uintptr_t)unit_next(&random) >> unit_below(&random, 40);

        cr_assert_eq(hak_owns((void *)p),
                     p >= (uintptr_t)base && p < (uintptr_t)end);
    }
    hak_free(block);
    hak_free(large);
    free(of_libc);
}

/* ---- the shared pool ------------------------------------------------------ */

/*
 * The tests count slabs from 1: number - unit_first_slab() + 1. 0: none.
 */
static uint32_t number_of(uint32_t i)
{
    return unit_first_slab() + i - 1;
}

static uint32_t take(void)
{
    uint32_t number = hak_range_slab_take();

    cr_assert(number == HAK_NO_SLAB || number >= unit_first_slab());
    return number == HAK_NO_SLAB ? 0 : number - unit_first_slab() + 1;
}

static uint32_t take_one(void)
{
    uint32_t i = take();

    cr_assert_neq(i, 0);
    return i;
}

static void give(uint32_t i)
{
    hak_range_slab_give(number_of(i));
}

static struct hak_slab *slab(uint32_t i)
{
    return hak_range_slab(number_of(i));
}

static char *start(uint32_t i)
{
    return hak_range_slab_start(number_of(i));
}

static bool ready(uint32_t i, size_t need, uint32_t before)
{
    return hak_range_slab_ready(number_of(i), need, before);
}

static void set_tag(uint32_t i, uint32_t tag)
{
    hak_range_set_tag(number_of(i), tag);
}

static uint32_t tag_at(uint32_t i, size_t offset)
{
    return hak_range_tag(((size_t)number_of(i) << HAK_SLAB_SHIFT) + offset);
}

Test(range, the_lowest_address_comes_first_after_the_tags)
{
    cr_assert(hak_range_init());
    for (uint32_t i = 1; i <= 3 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
    }
    give(70);
    give(5);
    give(40);
    cr_assert_eq(take(), 5);
    cr_assert_eq(take(), 40);
    cr_assert_eq(take(), 70);
    cr_assert_eq(take(), 3 * HAK_SUPER_SLABS + 1);
}

Test(range, superslabs_are_committed_one_by_one)
{
    struct hak_range_figures figures;
    uint32_t taken = 0;

    cr_assert(hak_range_init());
    hak_range_figures(&figures);
    cr_assert_eq(figures.committed, 0);
    for (uint32_t supers = 1; supers <= 70; supers++) {
        while (taken < supers * HAK_SUPER_SLABS) {
            char *at;

            cr_assert_eq(take(), ++taken);
            hak_range_figures(&figures);
            cr_assert_eq(figures.committed, supers * HAK_SUPER_SIZE);
            cr_assert_eq(figures.slabs_used, taken);
            at = start(taken);
            at[0] = at[HAK_SLAB_SIZE - 1] = 1;
        }
    }
}

Test(range, a_given_slab_has_tag_0)
{
    uint32_t first, second;

    cr_assert(hak_range_init());
    first = take();
    second = take();
    set_tag(first, 0x123);
    set_tag(second, 0x456);
    cr_assert_eq(tag_at(first, 0), 0x123);
    cr_assert_eq(tag_at(first, 65535), 0x123);
    cr_assert_eq(tag_at(first, 65536), 0x456);
    give(first);
    cr_assert_eq(tag_at(first, 0), 0);
    cr_assert_eq(tag_at(second, 0), 0x456);
}

Test(range, a_list_of_slabs_is_given_at_once)
{
    struct hak_range_figures figures;
    uint32_t list = HAK_NO_SLAB;

    cr_assert(hak_range_init());
    hak_range_slabs_give(HAK_NO_SLAB);
    for (int i = 0; i < 100; i++) {
        uint32_t number = hak_range_slab_take();

        hak_range_set_tag(number, 0x100);
        hak_range_slab(number)->all_next = list;
        list = number;
    }
    hak_range_slabs_give(list);
    hak_range_figures(&figures);
    cr_assert_eq(figures.slabs_used, 0);
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert_eq(tag_at(i, 0), 0);
    }
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert_eq(take(), i);
    }
}

/* ---- warm slabs ----------------------------------------------------------- */

Test(range, warm_slabs_come_first_lowest_address_first)
{
    static const uint32_t warm[] = {7, 31, 33, 64, 90};
    uint32_t cold = 1;

    cr_assert(hak_range_init());
    for (int i = 0; i < 100; i++) {
        cr_assert_neq(take(), 0);
    }
    for (int i = 0; i < 5; i++) {
        cr_assert(ready(warm[i], 100, 0));
    }
    for (uint32_t number = 100; number >= 1; number--) {
        give(number);
    }
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(take(), warm[i]);
        cr_assert_eq(slab(warm[i])->populated, HAK_PAGE);
    }
    for (int i = 0; i < 95; i++, cold++) {
        while (cold == 7 || cold == 31 || cold == 33 || cold == 64 ||
               cold == 90) {
            cold++;
        }
        cr_assert_eq(take(), cold);
        cr_assert_eq(slab(cold)->populated, 0);
    }
}

Test(range, purge_drops_warm_slabs_and_only_those)
{
    size_t warm = 0;
    struct hak_range_figures figures;

    cr_assert(hak_range_init());
    for (uint32_t i = 1; i <= 90; i++) {
        cr_assert_eq(take(), i);
        cr_assert(ready(i, i % 3 == 0 ? 20000 : 60000, 0));
        memset(start(i), (int)i, 20000);
    }
    cr_assert_eq(hak_range_purge(), 0);
    for (uint32_t i = 1; i <= 90; i++) {
        /* Single slabs, pairs, runs over a superslab's bound, a whole one. */
        if (i % 7 < 2 || (i > 28 && i < 36) || i > 64) {
            warm += slab(i)->populated;
            give(i);
        }
    }
    hak_range_figures(&figures);
    cr_assert_eq(hak_range_purge(), warm);
    cr_assert_eq(hak_range_purge(), 0);
    hak_range_figures(&figures);
    cr_assert_eq(figures.purged, warm);
    for (uint32_t i = 1; i <= 90; i++) {
        bool free = i % 7 < 2 || (i > 28 && i < 36) || i > 64;

        cr_assert_eq(start(i)[19999], free ? 0 : (char)i);
        cr_assert_eq(slab(i)->populated == 0, free);
    }
    cr_assert_eq(take(), 1);
}

Test(range, a_superslab_all_warm_is_purged_as_one_run)
{
    cr_assert(hak_range_init());
    for (uint32_t i = 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(take(), i);
        cr_assert(ready(i, HAK_SLAB_SIZE, 8));
        start(i)[65535] = 1;
    }
    for (uint32_t i = HAK_SUPER_SLABS + 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        give(i);
    }
    cr_assert_eq(hak_range_purge(), HAK_SUPER_SIZE);
    for (uint32_t i = 1; i <= 2 * HAK_SUPER_SLABS; i++) {
        cr_assert_eq(start(i)[65535], i <= HAK_SUPER_SLABS);
    }
}

Test(range, purge_makes_pages_not_resident)
{
    uint32_t number;

    cr_assert(hak_range_init());
    number = take_one();
    cr_assert(ready(number, HAK_SLAB_SIZE, 8));
    memset(start(number), 1, HAK_SLAB_SIZE);
    cr_assert_eq(unit_resident(start(number), HAK_SLAB_SIZE), 16);
    give(number);
    cr_assert_eq(unit_resident(start(number), HAK_SLAB_SIZE), 16);
    cr_assert_eq(hak_range_purge(), HAK_SLAB_SIZE);
    cr_assert_eq(unit_resident(start(number), HAK_SLAB_SIZE), 0);
}

/* ---- the ladder ------------------------------------------------------------ */

/* Asks for `need` bytes of a slab and expects so many populated. */
static void expect_ready(uint32_t number, size_t need, uint32_t before,
                         size_t populated)
{
    cr_assert(ready(number, need, before));
    cr_assert_eq(slab(number)->populated, populated, "need %zu: %u, not %zu",
                 need, slab(number)->populated, populated);
}

Test(range, the_ladder_doubles_what_is_resident_in_first_slabs)
{
    struct hak_range_figures figures;
    uint32_t number;

    cr_assert(hak_range_init());
    number = take_one();
    cr_assert_eq(slab(number)->populated, 0);
    hak_os_test_refuse(0, false);
    expect_ready(number, 1, 0, 4096);
    expect_ready(number, 4096, 0, 4096);
    cr_assert_eq(hak_os_test_calls(), 0, "a first page is left to its fault");
    cr_assert_eq(unit_resident(start(number), 4096), 0);
    expect_ready(number, 4097, 0, 8192);
    expect_ready(number, 8193, 0, 16384);
    expect_ready(number, 16384, 0, 16384);
    expect_ready(number, 20000, 0, 32768);
    expect_ready(number, 40000, 0, 65536);
    expect_ready(number, 65536, 0, 65536);
    cr_assert_eq(hak_os_test_calls(), 3);
    hak_range_figures(&figures);
    cr_assert_eq(figures.populated, 65536);
    if (unit_resident(start(number), 65536) != 0) {
        cr_assert_eq(unit_resident(start(number) + 8192, 57344), 14);
    }
}

Test(range, the_ladder_goes_by_16_kb_and_then_by_slabs)
{
    for (uint32_t before = 1; before < 8; before++) {
        uint32_t number;

        cr_assert(hak_range_init());
        number = take_one();
        expect_ready(number, 1, before, 16384);
        expect_ready(number, 16385, before, 32768);
        expect_ready(number, 49153, before, 53248);
        expect_ready(number, 53249, before, 65536);
        number = take_one();
        expect_ready(number, 65536, before, 65536);
    }
    expect_ready(take_one(), 1, 8, 65536);
    expect_ready(take_one(), 1, 1000000, 65536);
}

Test(range, the_ladder_jumps_to_what_is_needed)
{
    uint32_t number;

    cr_assert(hak_range_init());
    number = take_one();
    expect_ready(number, 12289, 0, 16384);
    expect_ready(number, 65000, 0, 65536);
}

Test(range, a_refused_step_of_the_ladder_changes_nothing)
{
    struct hak_range_figures figures;
    uint32_t number;

    cr_assert(hak_range_init());
    number = take_one();
    hak_os_test_refuse(1, false);
    cr_assert_not(ready(number, 20000, 0));
    cr_assert_eq(slab(number)->populated, 0);
    hak_range_figures(&figures);
    cr_assert_eq(figures.populated, 0);
    expect_ready(number, 20000, 0, 20480);
    hak_os_test_refuse(1, false);
    cr_assert_not(ready(number, 50000, 8));
    cr_assert_eq(slab(number)->populated, 20480);
}

/* Makes `bytes` resident in slabs; 8 MB of it fill 4 superslabs. */
static void make_resident(size_t bytes)
{
    cr_assert(hak_range_init());
    while (bytes > 0) {
        size_t part = hak_min(bytes, HAK_SLAB_SIZE);

        cr_assert(ready(take_one(), part, 8 * (part == HAK_SLAB_SIZE)));
        bytes -= part;
    }
}

static size_t populated(void)
{
    struct hak_range_figures figures;

    hak_range_figures(&figures);
    return figures.populated;
}

Test(range, above_8_mb_superslabs_come_as_huge_pages)
{
    setenv("HAKMEM_HUGE", "always", 1);
    make_resident(8 * HAK_MIB);
    cr_assert_eq(populated(), 8 * HAK_MIB);
    for (size_t supers = 1; supers <= 3; supers++) {
        for (size_t i = 0; i < HAK_SUPER_SLABS; i++) {
            uint32_t number = take_one();

            cr_assert_eq(slab(number)->populated, HAK_SLAB_SIZE);
            cr_assert_eq(populated(), 8 * HAK_MIB + supers * HAK_SUPER_SIZE);
            cr_assert(UNIT_WATCHED ||
                      unit_resident(start(number), HAK_SLAB_SIZE) == 16);
        }
    }
}

Test(range, below_8_mb_superslabs_come_empty)
{
    setenv("HAKMEM_HUGE", "always", 1);
    make_resident(8 * HAK_MIB - HAK_PAGE);
    cr_assert_eq(populated(), 8 * HAK_MIB - HAK_PAGE);
    cr_assert_eq(slab(take_one())->populated, 0);
    cr_assert_eq(populated(), 8 * HAK_MIB - HAK_PAGE);
}

Test(range, without_huge_pages_superslabs_come_empty)
{
    setenv("HAKMEM_HUGE", "never", 1);
    make_resident(20 * HAK_MIB);
    cr_assert_eq(populated(), 20 * HAK_MIB);
    cr_assert_eq(slab(take_one())->populated, 0);
}

/* What they cost decides; whatever it is, the accounts are right. */
Test(range, huge_pages_by_their_cost_keep_the_accounts)
{
    size_t expected = 8 * HAK_MIB;

    make_resident(8 * HAK_MIB);
    for (size_t i = 0; i < 20; i++) {
        uint32_t number = take_one();

        cr_assert(slab(number)->populated == 0 ||
                  slab(number)->populated == HAK_SLAB_SIZE);
        expected += slab(number)->populated != 0 ? HAK_SUPER_SIZE : 0;
        cr_assert_eq(populated(), expected);
        for (size_t k = 1; k < HAK_SUPER_SLABS; k++) {
            cr_assert_eq(slab(take_one())->populated, slab(number)->populated);
        }
        cr_assert_eq(populated(), expected);
    }
}

Test(range, a_refused_huge_page_leaves_plain_pages)
{
    uint32_t number;

    setenv("HAKMEM_HUGE", "always", 1);
    make_resident(8 * HAK_MIB);
    hak_os_test_refuse(2, false); /* the superslab's commit, its populate */
    number = take_one();
    cr_assert_eq(hak_os_test_calls(), 2);
    cr_assert_eq(slab(number)->populated, 0);
    cr_assert_eq(populated(), 8 * HAK_MIB);
    start(number)[0] = 1;
}

/* ---- refusals --------------------------------------------------------------- */

Test(range, a_refused_commit_is_no_slab_and_the_next_try_works)
{
    struct hak_range_figures figures;

    cr_assert(hak_range_init());
    for (unsigned n = 1; n <= 2; n++) {
        hak_os_test_refuse(n, false);
        cr_assert_eq(take(), 0);
        hak_range_figures(&figures);
        cr_assert_eq(figures.committed, 0);
        cr_assert_eq(figures.slabs_used, 0);
    }
    cr_assert_eq(take(), 1);
}

Test(range, refused_heap_slots_are_no_heap_and_the_next_try_works)
{
    uint32_t id;

    cr_assert(hak_range_init());
    hak_os_test_refuse(1, false);
    cr_assert_null(hak_range_heap_take(&id));
    cr_assert_eq(hak_range_heap_count(), 0);
    cr_assert_not_null(hak_range_heap_take(&id));
    cr_assert_eq(id, 1);
}

/* ---- heap slots -------------------------------------------------------------- */

Test(range, heap_slots_are_pages_found_by_their_id_and_reused)
{
    static char *slots[101];
    uint32_t id;

    cr_assert(hak_range_init());
    for (uint32_t i = 1; i <= 100; i++) {
        slots[i] = hak_range_heap_take(&id);
        cr_assert_eq(id, i);
        cr_assert_eq(slots[i], hak_range_heap(i));
        cr_assert_eq((uintptr_t)slots[i] % HAK_PAGE, 0);
        cr_assert_not(hak_owns(slots[i]));
        memset(slots[i], (int)i, HAK_HEAP_SLOT);
    }
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert_eq(slots[i][0], (char)i);
        cr_assert_eq(slots[i][HAK_HEAP_SLOT - 1], (char)i);
    }
    hak_range_heap_give(17);
    hak_range_heap_give(99);
    cr_assert_eq(hak_range_heap_count(), 100);
    cr_assert_eq(hak_range_heap_take(&id), slots[99]);
    cr_assert_eq(id, 99);
    cr_assert_eq(hak_range_heap_take(&id), slots[17]);
    cr_assert_eq(id, 17);
    hak_range_heap_take(&id);
    cr_assert_eq(id, 101);
    cr_assert_eq(hak_range_heap_count(), 101);
}

/* ---- a small range, full ------------------------------------------------------ */

Test(range, a_small_range_gives_every_slab_and_then_none)
{
    uint32_t total;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(hak_range_init());
    cr_assert_eq(hak_range.size, HAK_GIB);
    total = (uint32_t)(HAK_GIB / HAK_SLAB_SIZE) - unit_first_slab();
    cr_assert_geq(total, 16000);
    for (uint32_t i = 1; i <= total; i++) {
        cr_assert_eq(take(), i);
    }
    cr_assert_eq(take(), 0);
    cr_assert_eq(take(), 0);
    start(total)[HAK_SLAB_SIZE - 1] = 1;
    give(total);
    give(12345);
    cr_assert_eq(take(), 12345);
    cr_assert_eq(take(), total);
    cr_assert_eq(take(), 0);
}

Test(range, heap_slots_end_with_null)
{
    uint32_t id, count = 0;
    char *slot, *last = NULL;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(hak_range_init());
    while ((slot = hak_range_heap_take(&id)) != NULL) {
        count++;
        last = slot;
    }
    cr_assert_eq(count, HAK_GIB / 32 / HAK_HEAP_SLOT);
    last[HAK_HEAP_SLOT - 1] = 1;
    hak_range_heap_give(5);
    cr_assert_eq(hak_range_heap_take(&id), hak_range_heap(5));
}

/* ---- random use against a shadow ------------------------------------------------ */

enum { SHADOW = 400 };

struct shadow {
    bool used[SHADOW];
    uint32_t populated[SHADOW];
    size_t count;
};

/* The slab that must come next; SHADOW if only a new one can. */
static uint32_t next_slab(const struct shadow *shadow, uint32_t known)
{
    uint32_t cold = SHADOW;

    for (uint32_t n = known; n >= 1; n--) {
        cold = shadow->used[n] ? cold : n;
    }
    for (uint32_t n = 1; n <= known; n++) {
        if (!shadow->used[n] && shadow->populated[n] > 0) {
            return n;
        }
    }
    return cold;
}

static void shadow_take(struct shadow *shadow)
{
    struct hak_range_figures figures;
    uint32_t expected, number;

    hak_range_figures(&figures);
    expected = next_slab(shadow, (uint32_t)(figures.committed / HAK_SLAB_SIZE));
    if (expected == SHADOW && figures.committed / HAK_SLAB_SIZE > SHADOW - 33) {
        return;
    }
    number = take();
    cr_assert(expected == SHADOW
                  ? number == figures.committed / HAK_SLAB_SIZE + 1
                  : number == expected);
    cr_assert_eq(slab(number)->populated, shadow->populated[number]);
    set_tag(number, 0x10000 + number);
    shadow->used[number] = true;
    shadow->count++;
}

static void shadow_touch(struct shadow *shadow, uint32_t number, size_t need)
{
    cr_assert(ready(number, need, (uint32_t)(need % 10)));
    cr_assert_geq(slab(number)->populated, need);
    cr_assert_geq(slab(number)->populated, shadow->populated[number]);
    shadow->populated[number] = slab(number)->populated;
    start(number)[need - 1] = 1;
}

static void shadow_purge(struct shadow *shadow)
{
    size_t bytes = 0;

    for (uint32_t n = 1; n < SHADOW; n++) {
        if (!shadow->used[n]) {
            bytes += shadow->populated[n];
            shadow->populated[n] = 0;
        }
    }
    cr_assert_eq(hak_range_purge(), bytes);
}

static void shadow_check(const struct shadow *shadow)
{
    struct hak_range_figures figures;
    size_t populated = 0;

    for (uint32_t n = 1; n < SHADOW; n++) {
        cr_assert_eq(tag_at(n, 0), shadow->used[n] ? 0x10000 + n : 0);
        populated += shadow->populated[n];
    }
    hak_range_figures(&figures);
    cr_assert_eq(figures.slabs_used, shadow->count);
    cr_assert_eq(figures.populated, populated);
}

Test(range, random_use_agrees_with_a_shadow)
{
    static struct shadow shadow;
    struct unit_random random = {2};
    size_t steps = unit_scale(40000, 4000);

    setenv("HAKMEM_HUGE", "never", 1);
    cr_assert(hak_range_init());
    for (size_t i = 0; i < steps; i++) {
        uint32_t number = 1 + (uint32_t)unit_below(&random, SHADOW - 1);
        size_t what = unit_below(&random, 1000);

        if (what < 400 + 200 * (i / 2000 % 2)) {
            shadow_take(&shadow);
        } else if (what < 2 || what > 997) {
            shadow_purge(&shadow);
        } else if (shadow.used[number] && what < 800) {
            give(number);
            shadow.used[number] = false;
            shadow.count--;
        } else if (shadow.used[number]) {
            shadow_touch(&shadow, number,
                         1 + unit_below(&random, HAK_SLAB_SIZE));
        }
        if (i % 100 == 0) {
            shadow_check(&shadow);
        }
    }
    shadow_check(&shadow);
}

/* ---- several threads -------------------------------------------------------------- */

static _Atomic(uint32_t) holders[8192];

static void *take_and_give(void *arg)
{
    struct unit_random random = {(uintptr_t)arg};
    uint32_t mine[64] = {0};

    for (size_t i = 0; i < unit_scale(100000, 2000); i++) {
        uint32_t *at = &mine[unit_below(&random, 64)];

        if (*at != 0) {
            NEED(atomic_exchange(&holders[*at], 0) == (uintptr_t)arg);
            hak_range_slab_give(*at);
            *at = 0;
        } else {
            *at = hak_range_slab_take();
            NEED(*at != HAK_NO_SLAB && *at < 8192);
            NEED(atomic_exchange(&holders[*at], (uintptr_t)arg) == 0);
        }
    }
    return NULL;
}

static void *init_and_note(void *arg)
{
    NEED(hak_range_init());
    *(char **)arg = start(0);
    return NULL;
}

Test(range, threads_never_hold_the_same_slab)
{
    pthread_t threads[4];
    char *bases[4];

    for (int i = 0; i < 4; i++) {
        threads[i] = unit_start(init_and_note, &bases[i]);
    }
    for (int i = 0; i < 4; i++) {
        unit_join(threads[i]);
        cr_assert_eq(bases[i], bases[0]);
    }
    for (uintptr_t i = 0; i < 4; i++) {
        threads[i] = unit_start(take_and_give, (void *)(i + 1));
    }
    for (int i = 0; i < 4; i++) {
        unit_join(threads[i]);
    }
}

/* ---- less than the wish, and none --------------------------------------------------- */

static void limit_address_space(size_t bytes)
{
    struct rlimit limit = {bytes, bytes};

    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
}

static void run_in_6_gb(void *arg)
{
    void *p;

    (void)arg;
    limit_address_space(6 * HAK_GIB);
    p = hak_malloc(100);
    NEED(p != NULL && hak_owns(p));
    NEED(hak_range.size == 2 * HAK_GIB);
    NEED(unit_stats().range_bytes == 2 * HAK_GIB);
    hak_free(p);
}

Test(range, a_limit_on_addresses_makes_it_smaller_silently)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(run_in_6_gb, NULL, "");
}

static void refuse_twice(void *arg)
{
    (void)arg;
    hak_os_test_refuse(1, false);
    NEED(hak_range_init());
    NEED(hak_range.size == HAK_RANGE_DEFAULT / 2);
}

Test(range, a_refused_reservation_is_halved_silently)
{
    unit_expect_said(refuse_twice, NULL, "");
}

static void refuse_meta(void *arg)
{
    (void)arg;
    hak_os_test_refuse(2, false); /* the commit of the arrays */
    NEED(hak_range_init());
    NEED(hak_range.size == HAK_RANGE_DEFAULT / 2);
}

Test(range, refused_arrays_are_tried_smaller_too)
{
    unit_expect_said(refuse_meta, NULL, "");
}

#define NO_RANGE                                                               \
    "hakmem: no address range of 1 GB or more could be reserved "              \
    "(ulimit -v?); all requests go to the system allocator\n"

/* Everything the API offers, on the system allocator. */
static void use_everything(void)
{
    char *p[200];
    hak_stats_t stats;

    for (size_t i = 0; i < 200; i++) {
        p[i] = hak_malloc(i * 11);
        NEED(p[i] != NULL && !hak_owns(p[i]) && (uintptr_t)p[i] % 16 == 0);
        NEED(hak_usable_size(p[i]) >= i * 11);
        unit_fill(p[i], i * 11, (unsigned)i);
    }
    stats = unit_stats();
    NEED(stats.range_bytes == 0 && stats.slabs == 0 && stats.tiny_allocs == 0);
    NEED(stats.fallback_memory == 94 && stats.fallback_large == 106);
    NEED(stats.system_live == 200);
    for (size_t i = 0; i < 200; i++) {
        size_t old = i * 11;

        p[i] = hak_realloc(p[i], (200 - i) * 13);
        NEED(unit_filled(p[i], old < (200 - i) * 13 ? old : (200 - i) * 13,
                         (unsigned)i));
        NEED(hak_usable_size(p[i]) >= (200 - i) * 13);
        i % 2 != 0 ? hak_free(p[i]) : hak_free_sized(p[i], (200 - i) * 13);
    }
    p[0] = hak_calloc(10, 10);
    NEED(p[0] != NULL && p[0][99] == 0);
    hak_free(p[0]);
    NEED(hak_trim() == 0);
    NEED(unit_stats().system_live == 0);
    NEED(hak_stats_text(NULL, 0) > 100);
}

static void *use_in_thread(void *arg)
{
    void *p = hak_malloc(33);

    NEED(p != NULL && !hak_owns(p));
    hak_free(arg);
    return p;
}

static void use_heap(void)
{
    hak_heap_config config = {.size = sizeof(config), .limit = 5000};
    hak_heap *heap = hak_heap_new(&config);
    char *p, *q;

    NEED(heap != NULL);
    p = hak_heap_malloc(heap, 100);
    NEED(p != NULL && !hak_owns(p));
    q = hak_heap_malloc(heap, 3000);
    NEED(q != NULL && hak_heap_live(heap) >= 3100);
    NEED(hak_heap_malloc(heap, 2000) == NULL && errno == ENOMEM);
    unit_fill(p, 100, 1);
    p = hak_heap_realloc(heap, p, 900);
    NEED(p != NULL && unit_filled(p, 100, 1));
    hak_heap_free(heap, p);
    hak_free(q);
    NEED(hak_heap_live(heap) == 0);
    NEED(hak_heap_malloc(heap, 10) != NULL);
    NEED(hak_heap_trim(heap) == 0);
    hak_heap_delete(heap);
    NEED(unit_stats().system_live == 0);
}

static void run_in_less_than_2_gb(void *arg)
{
    void *p;
    void *q;
    pthread_t thread;

    limit_address_space(1536 * HAK_MIB);
    (void)arg;
    use_everything();
    p = hak_malloc(8);
    thread = unit_start(use_in_thread, p);
    NEED(pthread_join(thread, &q) == 0);
    hak_free(q);
    NEED(!hak_range_init() && hak_range.size == 0);
}

Test(range, too_little_address_space_sends_all_to_the_system_said_once)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(run_in_less_than_2_gb, NULL, NO_RANGE);
}

static void run_without_range(void *arg)
{
    (void)arg;
    hak_os_test_refuse(1, true);
    NEED(!hak_range_init());
    hak_os_test_refuse(0, false);
    use_everything();
}

Test(range, without_a_range_all_goes_to_the_system_said_once)
{
    unit_expect_said(run_without_range, NULL, NO_RANGE);
}

static void run_heaps_without_range(void *arg)
{
    (void)arg;
    hak_os_test_refuse(1, true);
    NEED(!hak_range_init());
    hak_os_test_refuse(0, false);
    use_heap();
    use_heap();
}

Test(range, without_a_range_heaps_made_by_hand_work_too)
{
    unit_expect_said(run_heaps_without_range, NULL, NO_RANGE);
}

static void align_without_range(void *arg)
{
    (void)arg;
    hak_os_test_refuse(1, true);
    NEED(!hak_range_init());
    hak_os_test_refuse(0, false);
    for (size_t align = 1; align <= 4096; align *= 2) {
        for (size_t size = 0; size < 1100; size += 100) {
            void *p = hak_aligned_alloc(align, size);

            NEED(p != NULL && (uintptr_t)p % align == 0);
            NEED(hak_usable_size(p) >= size);
        }
    }
}

Test(range, without_a_range_alignments_still_hold)
{
    unit_expect_said(align_without_range, NULL, NO_RANGE);
}

/* A free of anything at all, where no address is in the range. */
static void free_wrong(void *arg)
{
    hak_os_test_refuse(1, true);
    NEED(!hak_range_init());
    hak_os_test_refuse(0, false);
    hak_free(arg);
}

Test(range, without_a_range_wrong_frees_are_still_fatal)
{
    unit_expect_fatal(free_wrong, (void *)0x1230,
                      NO_RANGE
                      "hakmem: fatal: hak_free(0x1230): not a block of "
                      "HAKMEM\n");
}

/* ---- full: the process goes on ------------------------------------------------------- */

Test(range, a_full_range_sends_requests_to_the_system_and_recovers)
{
    static char *blocks[1200];
    size_t count = 0;
    uint32_t list = HAK_NO_SLAB;
    hak_heap *heap;
    uint32_t number;

    setenv("HAKMEM_RANGE", "1G", 1);
    hak_free(hak_malloc(1));
    heap = hak_heap_new(NULL);
    /* Somebody has all but a few slabs. */
    while ((number = hak_range_slab_take()) != HAK_NO_SLAB) {
        hak_range_set_tag(number, 0xfffff00);
        hak_range_slab(number)->all_next = list;
        list = number;
    }
    for (int i = 0; i < 3; i++) {
        number = list;
        list = hak_range_slab(list)->all_next;
        hak_range_slab_give(number);
    }
    while (count < 1200) {
        blocks[count] = hak_malloc(1000);
        cr_assert_not_null(blocks[count]);
        unit_fill(blocks[count], 1000, (unsigned)count);
        count++;
    }
    cr_assert(hak_owns(blocks[0]));
    cr_assert_not(hak_owns(blocks[1199]));
    cr_assert_eq(unit_stats().fallback_memory, 1200 - 3 * 64);
    cr_assert_not_null(hak_heap_malloc(heap, 10));
    cr_assert_eq(unit_stats().fallback_memory, 1201 - 3 * 64);
    for (size_t i = 0; i < count; i++) {
        cr_assert(unit_filled(blocks[i], 1000, (unsigned)i));
        hak_free(blocks[i]);
    }
    hak_range_slabs_give(list);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = hak_malloc(1000);
        cr_assert(hak_owns(blocks[i]));
    }
    cr_assert_eq(unit_stats().fallback_memory, 1201 - 3 * 64);
    hak_heap_delete(heap);
    cr_assert_eq(unit_stats().system_live, 0);
}
