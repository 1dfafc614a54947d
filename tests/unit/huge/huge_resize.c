/*
 * huge_resize.c - tests of how a Huge block grows and shrinks: in place, by
 * moving pages, and by copying where the kernel can't move; and of what
 * happens when the address range is used up.
 */
#include "huge_check.h"
#include "front/lane.h"
#include "range_walk.h"

TestSuite(huge_resize, .timeout = 300);

static char *get(size_t size)
{
    bool zero;
    char *p = haki_huge_alloc(size, 1, HAK_ID_SHARED, &zero);

    NEED(p != NULL);
    return p;
}

static void put(void *p)
{
    struct hak_huge_block block;

    NEED(haki_huge_free(p, &block));
}

/* Something else in every 8 bytes. */
static void write_all(char *p, size_t size, uint64_t seed)
{
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = (seed + at) * UINT64_C(0x9e3779b97f4a7c15);

        memcpy(p + at, &word, 8);
    }
}

static bool has_contents(const char *p, size_t size, uint64_t seed)
{
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = (seed + at) * UINT64_C(0x9e3779b97f4a7c15), is;

        memcpy(&is, p + at, 8);
        if (is != word) {
            return false;
        }
    }
    return true;
}

static size_t size_of(const void *p)
{
    struct hak_huge_block block;

    NEED(haki_huge_find(p, &block));
    return block.size;
}

static struct rusage usage(void)
{
    struct rusage usage;

    NEED(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage;
}

/* ---- in place ----------------------------------------------------------------- */

Test(huge_resize, grows_in_place_when_what_follows_is_free)
{
    char *above, *p;

    setenv("HAKMEM_RANGE", "1G", 1);
    cr_assert(haki_range_init());
    above = get(20 * HAK_MIB);
    p = get(4 * HAK_MIB);
    cr_assert_eq(p + 4 * HAK_MIB, above);
    write_all(p, 4 * HAK_MIB, 1);
    /* Within its superslabs, ... */
    cr_assert_eq(haki_huge_resize(p, 3 * HAK_MIB), p);
    cr_assert_eq(size_of(p), 3 * HAK_MIB);
    cr_assert_eq(haki_huge_resize(p, 3 * HAK_MIB + 1), p);
    cr_assert_eq(size_of(p), 3 * HAK_MIB + HAK_PAGE);
    /* ... over the next ones, ... */
    put(above);
    cr_assert_eq(haki_huge_resize(p, 24 * HAK_MIB), p);
    cr_assert_eq(huge_check().supers, 12);
    cr_assert(has_contents(p, 3 * HAK_MIB, 1));
    /* ... but not over the end of the range. */
    cr_assert_neq(haki_huge_resize(p, 24 * HAK_MIB + 1), p);
    huge_check();
}

Test(huge_resize, a_shrunk_block_gives_its_tail_back)
{
    size_t size = 40 * HAK_MIB;
    char *p;

    cr_assert(haki_range_init());
    p = get(size);
    write_all(p, size, 2);
    cr_assert_eq(haki_huge_resize(p, 4 * HAK_MIB + 1), p);
    cr_assert_eq(huge_check().supers, 3);
    cr_assert(has_contents(p, 4 * HAK_MIB, 2));
    /* 34 MB are more than is kept. */
    cr_assert_eq(unit_resident(p + 6 * HAK_MIB, 2 * HAK_MIB), 0);
    cr_assert_eq(unit_resident(p + 38 * HAK_MIB, 2 * HAK_MIB), 0);
    /* And others may have them. */
    cr_assert_eq(get(34 * HAK_MIB), p + 6 * HAK_MIB);
    huge_check();
}

/* ---- by moving pages ------------------------------------------------------------- */

static bool can_move;

/* Whether this kernel moves pages: valgrind's, for one, doesn't. */
static void probe(void)
{
    char *from = haki_os_map(HAK_PAGE), *to = haki_os_map(HAK_PAGE);

    can_move =
        mremap(from, HAK_PAGE, HAK_PAGE,
               MREMAP_MAYMOVE | MREMAP_FIXED | 4 /* DONTUNMAP */, to) == to;
}

/* Fills a block whose successor is taken and doubles it. */
static void double_it(void *arg)
{
    size_t size = 64 * HAK_MIB;
    struct rusage before, after;
    char *p, *q;

    (void)arg;
    setenv("HAKMEM_RANGE", "1G", 1); /* it begins at the end of the window */
    NEED(haki_range_init());
    probe();
    p = get(size);
    write_all(p, size, 3);
    before = usage();
    q = haki_huge_resize(p, 2 * size);
    after = usage();
    NEED(q != NULL && q != p);
    NEED(has_contents(q, size, 3));
    NEED(size_of(q) == 2 * size);
    NEED(huge_check().blocks == 1);
    if (can_move && !UNIT_WATCHED) {
        /*
         * Half as much again is populated ahead, 8,192 pages; a copy would
         * fault in 16,384 more.
         */
        NEED(after.ru_minflt - before.ru_minflt < 9000);
        NEED(after.ru_maxrss - before.ru_maxrss < 40000);
    }
    /* What was left behind has gone, and is zero to the next one. */
    NEED(!haki_huge_find(p, &(struct hak_huge_block){0}));
    NEED(unit_resident(p, 2 * HAK_MIB) == 0);
    write_all(q + size, size, 3 + size);
    NEED(has_contents(q, 2 * size, 3));
}

Test(huge_resize, pages_move_and_are_not_copied)
{
    unit_expect_said(double_it, NULL, "");
}

Test(huge_resize, hak_realloc_moves_pages_all_the_way_up)
{
    size_t size = 2 * HAK_MIB, faults = 0;
    char *p = hak_malloc(size), *fence;

    probe();
    write_all(p, size, 4);
    while (size < 128 * HAK_MIB) {
        struct rusage before = usage();

        fence = hak_malloc(2 * HAK_MIB); /* something comes in between */
        p = hak_realloc(p, 2 * size);
        cr_assert(hak_owns(p));
        faults += (size_t)(usage().ru_minflt - before.ru_minflt);
        cr_assert(has_contents(p, size, 4), "after %zu", size);
        write_all(p + size, size, 4 + size);
        size *= 2;
        hak_free(fence);
        huge_check();
    }
    if (can_move && !UNIT_WATCHED) {
        /* 16,128 are populated ahead, as many again and more to copy. */
        cr_assert_leq(faults, 18000);
    }
    hak_free(p);
    cr_assert_eq(huge_check().blocks, 0);
}

/*
 * A block that has moved and then grown in place is of several mappings, which
 * the kernel does not move with one call.
 */
Test(huge_resize, a_block_of_several_mappings_moves)
{
    char *p, *fence;
    size_t size = 4 * HAK_MIB;

    cr_assert(haki_range_init());
    p = get(size);
    write_all(p, size, 5);
    for (int i = 0; i < 12; i++) {
        size_t more = size + 2 * HAK_MIB * (size_t)(1 + i % 3);

        fence = i % 2 == 0 ? get(2 * HAK_MIB) : NULL;
        p = haki_huge_resize(p, more);
        cr_assert_not_null(p);
        cr_assert(has_contents(p, size, 5), "step %d", i);
        write_all(p + size, more - size, 5 + size);
        size = more;
        if (fence != NULL && i % 4 == 0) {
            put(fence);
        }
        huge_check();
    }
    put(p);
}

/* ---- by copying --------------------------------------------------------------------- */

/*
 * From the `refuse`-th move on, or that one alone, the kernel can't. A block
 * that grows then begins at the end of the window.
 */
static void move_refused(unsigned refuse, bool forever)
{
    size_t size = 12 * HAK_MIB;
    char *p, *q;

    setenv("HAKMEM_RANGE", "1G", 1);
    NEED(haki_range_init());
    p = get(size);
    write_all(p, size, 6);
    haki_os_test_kinds(HAK_OS_MOVE);
    haki_os_test_refuse(refuse, forever);
    q = haki_huge_resize(p, 2 * size);
    /* All at once, then each of six. */
    NEED(haki_os_test_calls() == 7);
    haki_os_test_refuse(0, false);
    NEED(q != NULL && q != p);
    NEED(has_contents(q, size, 6));
    for (size_t at = size; at < 2 * size; at += HAK_PAGE) {
        NEED(q[at] == 0);
    }
    huge_check();
    range_check();
    NEED(haki_huge_resize(q, size) == q);
    put(q);
    huge_check();
    range_check();
}

Test(huge_resize, contents_are_kept_where_the_kernel_can_t_move)
{
    move_refused(1, true);
}

Test(huge_resize, superslabs_move_one_by_one_where_the_whole_does_not)
{
    move_refused(1, false);
}

/*
 * The whole does not move, nor one of its superslabs, whose copy's place is
 * refused as well: all goes back to where it was.
 */
static void move_broken_off(void *arg)
{
    unsigned at = *(unsigned *)arg;
    size_t size = 12 * HAK_MIB;
    char *p;

    setenv("HAKMEM_RANGE", "1G", 1);
    NEED(haki_range_init());
    put(get(400 * HAK_MIB)); /* the descriptors are there */
    p = get(size);
    write_all(p, size, 6);
    /* The tail, the whole, `at` superslabs that move; then nothing any more. */
    haki_os_test_kinds(HAK_OS_MOVE | HAK_OS_CLAIM);
    haki_os_test_refuse(2, false);
    haki_os_test_refuse_from(3 + at);
    NEED(haki_huge_resize(p, 2 * size) == NULL);
    haki_os_test_refuse(0, false);
    NEED(has_contents(p, size, 6) && size_of(p) == size);
    huge_check();
    range_check();
    NEED(haki_huge_resize(p, 2 * size) != NULL);
    huge_check();
    range_check();
}

Test(huge_resize, a_move_that_is_broken_off_is_undone)
{
    for (unsigned at = 0; at < 6; at++) {
        unit_expect_said(move_broken_off, &at, "");
    }
}

/* A limit that leaves no second block of that size beside the first. */
static void grow_under_limit(void *arg)
{
    struct rlimit limit = {0, RLIM_INFINITY};
    size_t size = 600 * HAK_MIB;
    char *p, *q;

    (void)arg;
    NEED(haki_range_init());
    p = get(size);
    write_all(p, HAK_MIB, 7);
    limit.rlim_cur = unit_address_space() + 300 * HAK_MIB;
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    q = haki_huge_resize(p, size + 200 * HAK_MIB);
    NEED(q == p);
    NEED(has_contents(q, HAK_MIB, 7));
    write_all(q + size, 200 * HAK_MIB, 8);
    NEED(haki_huge_resize(q, size + 400 * HAK_MIB) == NULL);
    NEED(size_of(q) == size + 200 * HAK_MIB);
    huge_check();
    range_check();
}

Test(huge_resize, a_large_block_grows_where_it_is_under_a_limit)
{
    UNIT_SKIP_IF_WATCHED("their address space is beyond any limit");
    unit_expect_said(grow_under_limit, NULL, "");
}

enum { PAIRS = 40000 };

/* Every second page of a large mapping is one of its own. */
static char *use_up_mappings(void)
{
    char *p = haki_os_map(2 * PAIRS * HAK_PAGE);

    NEED(p != NULL);
    for (size_t i = 0; i < PAIRS; i++) {
        char *at = p + 2 * i * HAK_PAGE;

        if (mprotect(at, HAK_PAGE, PROT_READ) != 0) {
            NEED(errno == ENOMEM);
            return at;
        }
    }
    return NULL;
}

/* With hardly a mapping left a block grows, or is as it was. */
static void grow_without_mappings(void *arg)
{
    size_t size = 4 * HAK_MIB;
    char *p, *q, *last;

    (void)arg;
    setenv("HAKMEM_RANGE", "1G", 1);
    NEED(haki_range_init());
    get(size);
    p = get(size);
    write_all(p, size, 5);
    last = use_up_mappings();
    if (last == NULL) {
        _exit(3);
    }
    for (size_t i = 0; i < 8; i++) {
        q = haki_huge_resize(p, size + 4 * HAK_MIB);
        NEED(has_contents(q != NULL ? q : p, size, 5));
        if (q != NULL) {
            p = q;
            NEED(haki_huge_resize(p, size) == p);
        }
        huge_check();
        range_check();
        last -= 2 * HAK_PAGE; /* two mappings less */
        NEED(mprotect(last, HAK_PAGE, PROT_READ | PROT_WRITE) == 0);
    }
    NEED(haki_huge_resize(p, size + 4 * HAK_MIB) != NULL);
}

Test(huge_resize, contents_are_kept_when_mappings_run_out)
{
    struct unit_child child;

    UNIT_SKIP_IF_WATCHED("they need mappings of their own");
    unit_child(&child, grow_without_mappings, NULL);
    if (WIFEXITED(child.status) && WEXITSTATUS(child.status) == 3) {
        cr_skip("the kernel allows more mappings than we make");
    }
    cr_assert_eq(child.status, 0, "status %#x: %s", (unsigned)child.status,
                 child.said);
}

/* ---- out of memory, out of range ----------------------------------------------------- */

Test(huge_resize, a_refused_resize_leaves_the_block_alone)
{
    size_t size = 8 * HAK_MIB;
    char *p, *below;

    cr_assert(haki_range_init());
    p = get(size);
    below = get(size);
    write_all(below, size, 9);
    haki_os_test_refuse(1, true);
    cr_assert_null(haki_huge_resize(below, 4 * size));
    haki_os_test_refuse(0, false);
    cr_assert_null(haki_huge_resize(below, haki_range.window + 1));
    cr_assert_null(haki_huge_resize(below, PTRDIFF_MAX));
    cr_assert_null(haki_huge_resize(below, SIZE_MAX));
    cr_assert_eq(size_of(below), size);
    cr_assert(has_contents(below, size, 9));
    huge_check();
    put(p);
    cr_assert_eq(haki_huge_resize(below, 2 * size), below);
    huge_check();
}

/* All of a range of 1 GB is used up. */
static void use_up(void *arg)
{
    struct hak_huge_block block;
    char *p[64], *q;
    int n = 0;

    (void)arg;
    setenv("HAKMEM_RANGE", "1G", 1);
    for (; n < 64 && hak_owns(p[n] = hak_malloc(31 * HAK_MIB)); n++) {
        write_all(p[n], 4096, (uint64_t)n);
    }
    /* The system serves what the range can't. */
    NEED(n >= 30 && n < 33 && p[n] != NULL);
    NEED(unit_stats().fallback_memory == 1);
    write_all(p[n], 31 * HAK_MIB, 99);
    /* A block that has no room to grow goes to the system, contents and all. */
    q = hak_realloc(p[3], 40 * HAK_MIB);
    NEED(q != NULL && !hak_owns(q) && has_contents(q, 4096, 3));
    NEED(unit_stats().fallback_memory == 2);
    NEED(!haki_huge_find(p[3], &block));
    /* Its place is there for the next one. */
    p[3] = hak_malloc(31 * HAK_MIB);
    NEED(hak_owns(p[3]));
    NEED(has_contents(p[n], 31 * HAK_MIB, 99));
    hak_free(q);
    /* Larger than the whole range. */
    q = hak_malloc(1100 * HAK_MIB);
    NEED(q != NULL && !hak_owns(q));
    NEED(unit_stats().fallback_large == 1);
    hak_free(q);
    for (int i = 0; i <= n; i++) {
        NEED(i == 3 || i == n || has_contents(p[i], 4096, (uint64_t)i));
        hak_free(p[i]);
    }
    NEED(huge_check().blocks == 0 && unit_stats().system_live == 0);
}

Test(huge_resize, a_range_that_is_used_up)
{
    unit_expect_said(use_up, NULL, "");
}

/* ... and the system has no more either. */
static void use_up_all(void *arg)
{
    struct rlimit limit = {0, 0};
    char *p, *q;

    (void)arg;
    setenv("HAKMEM_RANGE", "1G", 1);
    p = hak_malloc(500 * HAK_MIB);
    write_all(p, 4096, 1);
    q = hak_malloc(480 * HAK_MIB);
    NEED(hak_owns(p) && hak_owns(q));
    limit.rlim_cur = limit.rlim_max = 1500 * HAK_MIB;
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    errno = 0;
    NEED(hak_malloc(600 * HAK_MIB) == NULL && errno == ENOMEM);
    errno = 0;
    NEED(hak_calloc(2, 300 * HAK_MIB) == NULL && errno == ENOMEM);
    errno = 0;
    NEED(hak_aligned_alloc(64, 600 * HAK_MIB) == NULL && errno == ENOMEM);
    errno = 0;
    NEED(hak_realloc(p, 600 * HAK_MIB) == NULL && errno == ENOMEM);
    NEED(has_contents(p, 4096, 1) && hak_usable_size(p) == 500 * HAK_MIB);
    hak_free(q);
    hak_free(p);
    p = hak_malloc(600 * HAK_MIB);
    NEED(hak_owns(p));
    hak_free(p);
    NEED(huge_check().blocks == 0 && unit_stats().system_live == 0);
}

Test(huge_resize, a_range_and_a_system_that_are_used_up)
{
    UNIT_SKIP_IF_WATCHED("their address space is beyond any limit");
    unit_expect_said(use_up_all, NULL, "");
}
