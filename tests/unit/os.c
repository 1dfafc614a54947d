/*
 * os.c - tests of the operating system layer (core/os_linux.c).
 */
#include "os.h"

#include "unit.h"

TestSuite(os, .timeout = 60);

/* Whether a read or a write of p would fault, as the kernel's table says. */
static bool faults(const void *p)
{
    FILE *file = fopen("/proc/self/maps", "r");
    bool usable = false;
    char line[512];

    cr_assert_not_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        unsigned long from, to;
        char access[5];

        if (sscanf(line, "%lx-%lx %4s", &from, &to, access) == 3 &&
            (uintptr_t)p >= from && (uintptr_t)p < to) {
            usable = access[0] == 'r' && access[1] == 'w';
        }
    }
    fclose(file);
    return !usable;
}

Test(os, reserve_is_aligned_and_has_no_access)
{
    for (size_t align = HAK_PAGE; align <= 64 * HAK_MIB; align *= 4) {
        char *p = hak_os_reserve(4 * HAK_MIB, align);

        cr_assert_not_null(p);
        cr_assert_eq((uintptr_t)p % align, 0);
        cr_assert(faults(p));
        cr_assert(faults(p + 4 * HAK_MIB - 1));
        hak_os_unmap(p, 4 * HAK_MIB);
    }
}

Test(os, reserve_gives_the_rest_back)
{
    char *p = hak_os_reserve(HAK_MIB, 16 * HAK_MIB);
    unsigned char map[1];

    cr_assert_not_null(p);
    cr_assert_eq(mincore(p, HAK_PAGE, map), 0);
    cr_assert_eq(mincore(p + HAK_MIB - HAK_PAGE, HAK_PAGE, map), 0);
    hak_os_unmap(p, HAK_MIB);
    cr_assert_eq(mincore(p, HAK_PAGE, map), -1);
}

Test(os, reserve_refuses_what_nobody_has)
{
    cr_assert_null(hak_os_reserve((size_t)1 << 50, HAK_PAGE));
    cr_assert_null(hak_os_map((size_t)1 << 50));
}

Test(os, commit_makes_pages_usable_and_zero)
{
    char *p = hak_os_reserve(HAK_MIB, HAK_PAGE);

    cr_assert(hak_os_commit(p + HAK_PAGE, 2 * HAK_PAGE));
    for (size_t i = 0; i < 2 * HAK_PAGE; i++) {
        cr_assert_eq(p[HAK_PAGE + i], 0);
    }
    memset(p + HAK_PAGE, 1, 2 * HAK_PAGE);
    cr_assert_not(faults(p + HAK_PAGE));
    cr_assert(faults(p));
    cr_assert(faults(p + 3 * HAK_PAGE));
    cr_assert_not(hak_os_commit(NULL, HAK_PAGE));
}

Test(os, populate_makes_pages_resident_and_purge_drops_them)
{
    char *p = hak_os_map(16 * HAK_PAGE);

    cr_assert_not_null(p);
    cr_assert_eq(unit_resident(p, 16 * HAK_PAGE), 0);
    errno = 55;
    cr_assert(hak_os_populate(p, 8 * HAK_PAGE));
    cr_assert_eq(errno, 55);
    if (unit_resident(p, 8 * HAK_PAGE) == 0) {
        cr_skip("this kernel has no MADV_POPULATE_WRITE");
    }
    cr_assert_eq(unit_resident(p, 16 * HAK_PAGE), 8);
    memset(p, 7, 8 * HAK_PAGE);
    cr_assert(hak_os_purge(p, 4 * HAK_PAGE));
    cr_assert_eq(unit_resident(p, 16 * HAK_PAGE), 4);
    cr_assert_eq(p[0], 0);
    cr_assert_eq(p[4 * HAK_PAGE - 1], 0);
    cr_assert_eq(p[4 * HAK_PAGE], 7);
}

Test(os, purge_tells_a_refusal_and_keeps_errno)
{
    errno = 56;
    cr_assert_not(hak_os_purge((void *)(uintptr_t)HAK_PAGE, HAK_PAGE));
    cr_assert_eq(errno, 56);
}

Test(os, wishes_have_no_effect_on_contents)
{
    char *p = hak_os_map(4 * HAK_MIB);

    memset(p, 3, 4 * HAK_MIB);
    hak_os_want_huge(p, 4 * HAK_MIB);
    errno = 57;
    hak_os_name(p, 4 * HAK_MIB, "hakmem test");
    cr_assert_eq(errno, 57);
    for (size_t i = 0; i < 4 * HAK_MIB; i += 1000) {
        cr_assert_eq(p[i], 3);
    }
    hak_os_unmap(p, 4 * HAK_MIB);
}

/* ---- moving pages --------------------------------------------------------- */

Test(os, move_takes_contents_along_and_leaves_zeroes)
{
    enum { PAGES = 8 };
    char *from = hak_os_map(PAGES * HAK_PAGE);
    char *to = hak_os_reserve(PAGES * HAK_PAGE, HAK_PAGE);
    char *used = hak_os_map(PAGES * HAK_PAGE);

    unit_fill(from, PAGES * HAK_PAGE, 3);
    memset(used, 7, PAGES * HAK_PAGE);
    errno = 58;
    if (!hak_os_move(from, to, PAGES * HAK_PAGE)) {
        cr_assert_eq(errno, 58);
        cr_assert(unit_filled(from, PAGES * HAK_PAGE, 3));
        cr_skip("this kernel can't leave a mapping behind");
    }
    cr_assert(unit_filled(to, PAGES * HAK_PAGE, 3));
    cr_assert_eq(unit_resident(from, PAGES * HAK_PAGE), 0);
    for (size_t i = 0; i < PAGES * HAK_PAGE; i++) {
        cr_assert_eq(from[i], 0);
    }
    memset(from, 1, PAGES * HAK_PAGE);
    /* Onto pages that are in use: what they had is gone. */
    cr_assert(hak_os_move(to, used, PAGES * HAK_PAGE));
    cr_assert_eq(errno, 58);
    cr_assert(unit_filled(used, PAGES * HAK_PAGE, 3));
    cr_assert_eq(to[0], 0);
    cr_assert_eq(from[0], 1);
}

Test(os, random_bytes_are_others_each_time)
{
    unsigned char one[256] = {0}, two[256] = {0};

    hak_os_random(one, sizeof(one) - 1);
    hak_os_random(two, sizeof(two) - 1);
    cr_assert_neq(memcmp(one, two, sizeof(one)), 0);
    cr_assert_neq(memcmp(one, one + 128, 64), 0);
    cr_assert_eq(one[255], 0);
    cr_assert_eq(two[255], 0);
}

Test(os, a_move_that_is_refused_changes_nothing)
{
    char *from = hak_os_map(HAK_PAGE);
    char *to = hak_os_map(HAK_PAGE);

    unit_fill(from, HAK_PAGE, 3);
    unit_fill(to, HAK_PAGE, 4);
    errno = 59;
    hak_os_test_refuse(1, false);
    cr_assert_not(hak_os_move(from, to, HAK_PAGE));
    hak_os_test_refuse(0, false);
    cr_assert(unit_filled(from, HAK_PAGE, 3));
    cr_assert(unit_filled(to, HAK_PAGE, 4));
    /* The kernel unmaps the target before it sees that there is no source. */
    cr_assert_not(hak_os_move((char *)UINTPTR_MAX - 4095, to, HAK_PAGE));
    cr_assert_eq(errno, 59);
    cr_assert_not(faults(to));
    cr_assert(to[0] == 0 || unit_filled(to, HAK_PAGE, 4));
    memset(to, 1, HAK_PAGE);
}

/* Then the kernel could not give the target back: it is not even tried. */
static void move_under_a_limit(void *arg)
{
    struct rlimit limit = {3 * HAK_GIB, RLIM_INFINITY};
    char *from = hak_os_map(HAK_PAGE);
    char *to = hak_os_map(HAK_PAGE);

    (void)arg;
    unit_fill(from, HAK_PAGE, 3);
    unit_fill(to, HAK_PAGE, 4);
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    NEED(!hak_os_move(from, to, HAK_PAGE));
    NEED(unit_filled(from, HAK_PAGE, 3) && unit_filled(to, HAK_PAGE, 4));
}

Test(os, no_move_is_tried_under_a_limit_on_addresses)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(move_under_a_limit, NULL, "");
}

/* ---- clocks --------------------------------------------------------------- */

Test(os, clocks_agree_and_go_forward)
{
    uint64_t clock = hak_os_clock();
    uint32_t tick = hak_os_tick();
    uint64_t ms;

    usleep(100000);
    ms = (hak_os_clock() - clock) / 1000000;
    cr_assert_geq(ms, 100);
    cr_assert_geq(hak_os_tick() - tick, 90, "coarse, but not that coarse");
    cr_assert_leq(hak_os_tick() - tick,
                  (hak_os_clock() - clock) / 1000000 + 10);
}

/* ---- limits and refusals -------------------------------------------------- */

static void limited(void *arg)
{
    struct rlimit limit = {3 * HAK_GIB, RLIM_INFINITY};

    (void)arg;
    NEED(hak_os_address_limit() == SIZE_MAX);
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    NEED(hak_os_address_limit() == 3 * HAK_GIB);
    NEED(hak_os_reserve(4 * HAK_GIB, HAK_PAGE) == NULL);
}

Test(os, address_limit_is_the_process_s)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(limited, NULL, "");
}

/* One call of each kind that can be refused; a bit for each that was. */
static unsigned refusals(char *p)
{
    void *q;
    unsigned refused = 0;

    refused |= (q = hak_os_map(HAK_PAGE)) == NULL ? 1 : 0;
    hak_os_unmap(q != NULL ? q : p, q != NULL ? HAK_PAGE : 0);
    refused |= hak_os_commit(p, HAK_PAGE) ? 0 : 2;
    refused |= hak_os_populate(p, HAK_PAGE) ? 0 : 4;
    refused |= (q = hak_os_reserve(HAK_PAGE, HAK_PAGE)) == NULL ? 8 : 0;
    hak_os_unmap(q != NULL ? q : p, q != NULL ? HAK_PAGE : 0);
    refused |= hak_os_move(p + HAK_PAGE, p + 2 * HAK_PAGE, HAK_PAGE) ? 0 : 16;
    return refused;
}

Test(os, the_nth_call_is_refused)
{
    char *p = hak_os_map(4 * HAK_PAGE);
    unsigned never; /* a kernel that moves nothing refuses by itself */

    hak_os_test_refuse(0, false);
    never = refusals(p);
    cr_assert(never == 0 || never == 16);
    cr_assert_eq(hak_os_test_calls(), 5);
    for (unsigned n = 1; n <= 5; n++) {
        hak_os_test_refuse(n, false);
        cr_assert_eq(refusals(p), 1u << (n - 1) | never);
        cr_assert_eq(refusals(p), never);
        cr_assert_eq(hak_os_test_calls(), 10);
        hak_os_test_refuse(n, true);
        cr_assert_eq(refusals(p), (31u & ~((1u << (n - 1)) - 1)) | never);
        cr_assert_eq(refusals(p), 31);
    }
    hak_os_test_refuse(0, true);
    cr_assert_eq(refusals(p), never);
}
