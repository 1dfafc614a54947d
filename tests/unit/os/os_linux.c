/*
 * os_linux.c - tests of the operating system layer (core/os/os_linux.c).
 */
#include "os/os.h"

#include "unit.h"

TestSuite(os, .timeout = 300);

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

/* Addresses of `size` bytes at which nothing is mapped. */
static char *free_place(size_t size)
{
    char *p = haki_os_place(size, HAK_PAGE, 0);

    cr_assert_not_null(p);
    return p;
}

/* ---- claims ----------------------------------------------------------------- */

Test(os, the_page_size_is_the_kernel_s)
{
    cr_assert_eq(haki_os_page_size(), (size_t)sysconf(_SC_PAGESIZE));
}

Test(os, a_place_is_aligned_and_has_nothing_mapped)
{
    unsigned char map[1];

    for (size_t align = HAK_PAGE; align <= 64 * HAK_MIB; align *= 4) {
        char *p = haki_os_place(4 * HAK_MIB, align, 0);

        cr_assert_not_null(p);
        cr_assert_eq((uintptr_t)p % align, 0);
        for (size_t at = 0; at < 4 * HAK_MIB; at += HAK_PAGE) {
            cr_assert_eq(mincore(p + at, HAK_PAGE, map), -1);
        }
    }
    cr_assert_null(haki_os_place((size_t)1 << 50, HAK_PAGE, 0));
    cr_assert_null(haki_os_map((size_t)1 << 50));
}

Test(os, a_place_is_not_where_the_kernel_maps_next)
{
    char *place = free_place(HAK_GIB);

    for (int i = 0; i < 1000; i++) {
        char *p = haki_os_map(2 * HAK_PAGE);

        cr_assert(p + 2 * HAK_PAGE <= place || p >= place + HAK_GIB);
    }
}

Test(os, a_claim_maps_usable_zeroed_pages)
{
    char *p = free_place(HAK_MIB);

    errno = 54;
    cr_assert_eq(haki_os_claim(p + HAK_PAGE, 2 * HAK_PAGE), HAK_OS_CLAIMED);
    cr_assert_eq(errno, 54);
    for (size_t i = 0; i < 2 * HAK_PAGE; i++) {
        cr_assert_eq(p[HAK_PAGE + i], 0);
    }
    memset(p + HAK_PAGE, 1, 2 * HAK_PAGE);
    cr_assert_not(faults(p + HAK_PAGE));
    cr_assert(faults(p));
    cr_assert(faults(p + 3 * HAK_PAGE));
    cr_assert(haki_os_unmap(p + HAK_PAGE, 2 * HAK_PAGE));
    cr_assert(faults(p + HAK_PAGE));
    cr_assert_eq(errno, 54);
}

Test(os, a_claim_leaves_what_is_there_alone)
{
    char *p = free_place(HAK_MIB);

    cr_assert_eq(haki_os_claim(p + 4 * HAK_PAGE, HAK_PAGE), HAK_OS_CLAIMED);
    unit_fill(p + 4 * HAK_PAGE, HAK_PAGE, 1);
    errno = 54;
    cr_assert_eq(haki_os_claim(p, 8 * HAK_PAGE), HAK_OS_TAKEN);
    cr_assert_eq(haki_os_claim(p + 4 * HAK_PAGE, HAK_PAGE), HAK_OS_TAKEN);
    cr_assert_eq(errno, 54);
    cr_assert(unit_filled(p + 4 * HAK_PAGE, HAK_PAGE, 1));
    cr_assert(faults(p));
    cr_assert(faults(p + 5 * HAK_PAGE));
}

static void claim_under_a_limit(void *arg)
{
    struct rlimit limit = {3 * HAK_GIB, RLIM_INFINITY};
    char *p = haki_os_place(8 * HAK_GIB, HAK_PAGE, 0);
    char *guess;

    (void)arg;
    NEED(haki_os_address_limit() == SIZE_MAX);
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    NEED(haki_os_address_limit() == 3 * HAK_GIB);
    NEED(haki_os_claim(p, 4 * HAK_GIB) == HAK_OS_REFUSED);
    NEED(faults(p));
    NEED(haki_os_claim(p, HAK_PAGE) == HAK_OS_CLAIMED);
    /* That something is there is told all the same. */
    NEED(haki_os_claim(p, 4 * HAK_GIB) == HAK_OS_TAKEN);
    for (unsigned i = 0; i < 10; i++) {
        guess = haki_os_place(1024 * HAK_GIB, 2 * HAK_MIB, i);
        NEED(guess != NULL && (uintptr_t)guess % (2 * HAK_MIB) == 0);
        NEED(haki_os_claim(guess, HAK_MIB) == HAK_OS_CLAIMED);
        NEED(haki_os_unmap(guess, HAK_MIB));
    }
}

Test(os, under_a_limit_a_place_is_a_guess_and_claims_are_refused)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(claim_under_a_limit, NULL, "");
}

/* ---- pages come and go ----------------------------------------------------- */

/* Where a filter may kill at mincore the same comes from a file. */
Test(os, resident_pages_are_found_in_either_way)
{
    enum { PAGES = 100 };
    size_t page = haki_os_page_size(), all = PAGES * page;
    char *p;

    UNIT_SKIP_IF_EMULATED("the file has the addresses of qemu's machine");
    p = haki_os_map(all);
    haki_os_want_small(p, all);
    for (int i = 0; i < PAGES; i += 3) {
        p[i * page] = 1;
    }
    for (int filtered = 0; filtered < 2; filtered++) {
        haki_os_test_filtered(filtered != 0);
        for (int i = 0; i < PAGES; i++) {
            cr_assert_eq(haki_os_resident(p + i * page, HAK_PAGE),
                         i % 3 == 0 ? HAK_PAGE : 0, "%d %d", filtered, i);
        }
        cr_assert_eq(haki_os_resident(p, 30 * page), 10 * page);
    }
    haki_os_test_filtered(false);
    haki_os_unmap(p, all);
}

Test(os, what_is_mapped_is_told)
{
    size_t page = haki_os_page_size();
    char *p;

    UNIT_SKIP_IF_EMULATED("qemu tells of no page that can't be read");
    p = haki_os_map(3 * page);
    haki_os_unmap(p + page, page);
    /* valgrind calls it an error to ask msync of such addresses. */
    for (int filtered = 0; filtered < (UNIT_WATCHED ? 1 : 2); filtered++) {
        haki_os_test_filtered(filtered != 0);
        cr_assert(haki_os_is_mapped(p) && haki_os_is_mapped(p + page - 1));
        cr_assert_not(haki_os_is_mapped(p + page));
        cr_assert_not(haki_os_is_mapped(p + 2 * page - 1));
        cr_assert(haki_os_is_mapped(p + 2 * page));
        cr_assert(haki_os_protect(p, page, false));
        cr_assert(haki_os_is_mapped(p));
        cr_assert_not(haki_os_is_mapped(NULL));
        cr_assert_not(haki_os_is_mapped((void *)(UINTPTR_MAX - 100)));
        cr_assert(haki_os_protect(p, page, true));
    }
    haki_os_test_filtered(false);
}

Test(os, populate_makes_pages_resident_and_purge_drops_them)
{
    char *p = haki_os_map(16 * HAK_PAGE);

    cr_assert_not_null(p);
    cr_assert_eq(unit_resident(p, 16 * HAK_PAGE), 0);
    errno = 55;
    cr_assert(haki_os_populate(p, 8 * HAK_PAGE));
    cr_assert_eq(errno, 55);
    if (unit_resident(p, 8 * HAK_PAGE) == 0) {
        cr_skip("this kernel has no MADV_POPULATE_WRITE");
    }
    cr_assert_eq(unit_resident(p, 16 * HAK_PAGE), 8);
    memset(p, 7, 8 * HAK_PAGE);
    cr_assert(haki_os_purge(p, 4 * HAK_PAGE));
    cr_assert_eq(unit_resident(p, 16 * HAK_PAGE), 4);
    cr_assert_eq(p[0], 0);
    cr_assert_eq(p[4 * HAK_PAGE - 1], 0);
    cr_assert_eq(p[4 * HAK_PAGE], 7);
}

Test(os, purge_tells_a_refusal_and_keeps_errno)
{
    UNIT_SKIP_IF_EMULATED("qemu drops pages that are not there");
    errno = 56;
    cr_assert_not(haki_os_purge((void *)(uintptr_t)HAK_PAGE, HAK_PAGE));
    cr_assert_eq(errno, 56);
}

Test(os, wishes_have_no_effect_on_contents)
{
    char *p = haki_os_map(4 * HAK_MIB);

    memset(p, 3, 4 * HAK_MIB);
    haki_os_want_huge(p, 4 * HAK_MIB);
    errno = 57;
    haki_os_name(p, 4 * HAK_MIB, "hakmem test");
    cr_assert_eq(errno, 57);
    for (size_t i = 0; i < 4 * HAK_MIB; i += 1000) {
        cr_assert_eq(p[i], 3);
    }
    haki_os_unmap(p, 4 * HAK_MIB);
}

/* ---- moving pages --------------------------------------------------------- */

enum { PAGES = 8 };

/* Whether this kernel moves pages at all; a refusal changes nothing. */
static bool move(char *from, char *to, size_t bytes)
{
    bool moved;

    errno = 58;
    moved = haki_os_move(from, to, bytes);
    cr_assert_eq(errno, 58);
    return moved;
}

static char *filled_pages(unsigned seed)
{
    char *p = haki_os_map(PAGES * HAK_PAGE);

    unit_fill(p, PAGES * HAK_PAGE, seed);
    return p;
}

Test(os, move_takes_contents_along_and_leaves_zeroes)
{
    char *from = filled_pages(3);
    char *to = free_place(PAGES * HAK_PAGE);

    if (!move(from, to, PAGES * HAK_PAGE)) {
        cr_assert(unit_filled(from, PAGES * HAK_PAGE, 3));
        cr_assert(faults(to));
        cr_skip("this kernel can't leave a mapping behind");
    }
    cr_assert(unit_filled(to, PAGES * HAK_PAGE, 3));
    cr_assert_eq(unit_resident(from, PAGES * HAK_PAGE), 0);
    for (size_t i = 0; i < PAGES * HAK_PAGE; i++) {
        cr_assert_eq(from[i], 0);
    }
    memset(from, 1, PAGES * HAK_PAGE);
    cr_assert(unit_filled(to, PAGES * HAK_PAGE, 3));
    /* What has moved can be dropped. */
    cr_assert(haki_os_purge(to, PAGES * HAK_PAGE));
    cr_assert_eq(to[0], 0);
}

Test(os, a_move_onto_somebody_else_s_mapping_changes_nothing)
{
    char *from = filled_pages(3);
    char *to = free_place(PAGES * HAK_PAGE);
    char *other = to + (PAGES - 1) * HAK_PAGE;

    cr_assert_eq(haki_os_claim(other, HAK_PAGE), HAK_OS_CLAIMED);
    unit_fill(other, HAK_PAGE, 4);
    cr_assert_not(move(from, to, PAGES * HAK_PAGE));
    cr_assert(unit_filled(from, PAGES * HAK_PAGE, 3));
    cr_assert(unit_filled(other, HAK_PAGE, 4));
    cr_assert(faults(to));
}

Test(os, a_move_of_several_mappings_changes_nothing)
{
    char *from = filled_pages(3);
    char *to = free_place(PAGES * HAK_PAGE);

    cr_assert_eq(mprotect(from + 3 * HAK_PAGE, HAK_PAGE, PROT_READ), 0);
    if (!move(from, to, PAGES * HAK_PAGE)) {
        cr_assert(unit_filled(from, PAGES * HAK_PAGE, 3));
        cr_assert(faults(to));
    } else {
        cr_assert(unit_filled(to, PAGES * HAK_PAGE, 3));
    }
}

Test(os, a_move_that_is_refused_changes_nothing)
{
    char *from = filled_pages(3);
    char *to = free_place(PAGES * HAK_PAGE);

    haki_os_test_refuse(1, false);
    cr_assert_not(move(from, to, PAGES * HAK_PAGE));
    haki_os_test_refuse(0, false);
    cr_assert(unit_filled(from, PAGES * HAK_PAGE, 3));
    cr_assert(faults(to));
    cr_assert_not(move((char *)UINTPTR_MAX - 4095, to, HAK_PAGE));
    cr_assert(faults(to));
}

static void move_under_a_limit(void *arg)
{
    struct rlimit limit = {0, RLIM_INFINITY};
    char *from = filled_pages(3);
    char *to = free_place(PAGES * HAK_PAGE);

    (void)arg;
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    NEED(!haki_os_move(from, to, PAGES * HAK_PAGE));
    NEED(unit_filled(from, PAGES * HAK_PAGE, 3));
}

Test(os, a_move_over_the_limit_on_addresses_changes_nothing)
{
    UNIT_SKIP_IF_WATCHED("address limits do not go with shadow memory");
    unit_expect_said(move_under_a_limit, NULL, "");
}

Test(os, random_bytes_are_others_each_time)
{
    unsigned char one[256] = {0}, two[256] = {0};

    haki_os_random(one, sizeof(one) - 1);
    haki_os_random(two, sizeof(two) - 1);
    cr_assert_neq(memcmp(one, two, sizeof(one)), 0);
    cr_assert_neq(memcmp(one, one + 128, 64), 0);
    cr_assert_eq(one[255], 0);
    cr_assert_eq(two[255], 0);
}

/* ---- clocks --------------------------------------------------------------- */

Test(os, clocks_agree_and_go_forward)
{
    uint64_t clock = haki_os_clock();
    uint32_t tick = haki_os_tick();
    uint64_t ms;

    usleep(100000);
    ms = (haki_os_clock() - clock) / 1000000;
    cr_assert_geq(ms, 100);
    cr_assert_geq(haki_os_tick() - tick, 90, "coarse, but not that coarse");
    cr_assert_leq(haki_os_tick() - tick,
                  (haki_os_clock() - clock) / 1000000 + 20);
}

/* ---- refusals -------------------------------------------------- */

enum { KINDS = 6 };

/* One call of each kind that can be refused; a bit for each that was. */
static unsigned refusals(char *p, char *place)
{
    void *q;
    unsigned refused = 0;

    refused |= (q = haki_os_map(HAK_PAGE)) == NULL ? 1 : 0;
    munmap(q, q != NULL ? HAK_PAGE : 0);
    refused |= haki_os_claim(place, HAK_PAGE) == HAK_OS_CLAIMED ? 0 : 2;
    munmap(place, HAK_PAGE);
    refused |= haki_os_populate(p, HAK_PAGE) ? 0 : 4;
    refused |= haki_os_place(HAK_PAGE, HAK_PAGE, 0) == NULL ? 8 : 0;
    refused |= haki_os_purge(p, HAK_PAGE) ? 0 : 16;
    q = mmap(place, HAK_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    refused |= haki_os_unmap(q, HAK_PAGE) ? 0 : 32;
    munmap(q, HAK_PAGE);
    return refused;
}

Test(os, the_nth_call_is_refused)
{
    char *p = haki_os_map(4 * HAK_PAGE);
    char *place = free_place(HAK_PAGE);

    haki_os_test_refuse(0, false);
    cr_assert_eq(refusals(p, place), 0);
    cr_assert_eq(haki_os_test_calls(), KINDS);
    for (unsigned n = 1; n <= KINDS; n++) {
        haki_os_test_refuse(n, false);
        cr_assert_eq(refusals(p, place), 1u << (n - 1));
        cr_assert_eq(refusals(p, place), 0);
        cr_assert_eq(haki_os_test_calls(), 2 * KINDS);
        haki_os_test_refuse(n, true);
        cr_assert_eq(refusals(p, place), 63u & ~((1u << (n - 1)) - 1));
        cr_assert_eq(refusals(p, place), 63);
    }
    haki_os_test_refuse(0, true);
    cr_assert_eq(refusals(p, place), 0);
}
