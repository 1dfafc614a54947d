/*
 * fault_kinds.c - one kind of call to the system is refused, or several
 * together: what was to be dropped is still there, and must not be taken for
 * zero, nor what is not mapped for usable.
 *
 * fault.c and fault_lanes.c refuse the n-th call, of whatever kind.
 */
#include "front/lane.h"
#include "os/os.h"
#include "range/slabs.h"
#include "range_walk.h"
#include "range/supers.h"
#include "range/superslabs.h"
#include "unit.h"

TestSuite(fault_kinds, .timeout = 300);

static void refuse(unsigned kinds)
{
    haki_os_test_kinds(kinds);
    haki_os_test_refuse(1, true);
}

static void refuse_nothing(void)
{
    NEED(haki_os_test_calls() > 0);
    haki_os_test_refuse(0, false);
    haki_os_test_kinds(HAK_OS_ALL);
}

static bool is_zero(const char *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static char *filled(size_t size)
{
    char *p = hak_malloc(size);

    NEED(p != NULL && hak_owns(p));
    memset(p, 0x5a, size);
    return p;
}

/* Blocks of `size` bytes, asked for as zeros, until one of them covers p. */
static void callocs_are_zero(const char *p, size_t size)
{
    enum { MOST = 64 };
    char *blocks[MOST];
    bool met = false;
    size_t count = 0;

    while (count < MOST && !met) {
        char *q = hak_calloc(1, size);

        NEED(q != NULL && is_zero(q, size));
        met = p >= q && p < q + size;
        blocks[count++] = q;
    }
    NEED(met);
    while (count > 0) {
        hak_free(blocks[--count]);
    }
}

/* ---- calloc ------------------------------------------------------------------ */

/* It asks the system to drop what is warm, and writes zeros if it does not. */
Test(fault_kinds, calloc_is_zero_where_pages_are_not_dropped)
{
    static const size_t sizes[] = {3 << 20, 8 << 20, (8 << 20) + 5000};

    for (size_t i = 0; i < 3; i++) {
        char *p = filled(sizes[i]), *q;

        hak_free(p);
        refuse(HAK_OS_PURGE);
        q = hak_calloc(1, sizes[i]);
        refuse_nothing();
        cr_assert(hak_owns(q) && is_zero(q, sizes[i]));
        hak_free(q);
        hak_trim();
    }
}

/* What a trim could not drop, nor unmap, has contents still. */
Test(fault_kinds, calloc_is_zero_after_a_refused_trim)
{
    static const size_t sizes[] = {100, 3000, 40000, 200000, 3 << 20};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t size = unit_ask(sizes[i]);
        char *p = filled(size);

        refuse(HAK_OS_PURGE | HAK_OS_UNMAP);
        hak_free(p);
        hak_trim();
        refuse_nothing();
        callocs_are_zero(p, size);
        hak_trim();
    }
}

/* ---- a block that moves ------------------------------------------------------- */

/* It was copied, and what it has left is neither unmapped nor dropped. */
static void leave_behind(unsigned kinds)
{
    size_t size = 6 * HAK_MIB + 5 * HAK_PAGE;
    char *p, *in_the_way, *q;

    p = filled(size);
    in_the_way = filled(size);
    refuse(kinds);
    q = hak_realloc(p, 60 * HAK_MIB);
    refuse_nothing();
    NEED(q != NULL && q != p && q[0] == 0x5a);
    NEED(memcmp(q, q + 1, size - 1) == 0);
    range_check();
    callocs_are_zero(p, 3 * HAK_MIB);
    hak_free(q);
    hak_free(in_the_way);
    hak_trim();
    range_check();
    NEED(unit_stats().resident_bytes == 0);
}

Test(fault_kinds, what_a_copied_block_leaves_behind_is_not_zero)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    leave_behind(HAK_OS_MOVE | HAK_OS_UNMAP | HAK_OS_PURGE);
}

Test(fault_kinds, what_a_moved_block_leaves_behind_is_dropped_by_itself)
{
    setenv("HAKMEM_RANGE", "1G", 1);
    leave_behind(HAK_OS_UNMAP | HAK_OS_PURGE);
}

/* ---- superslabs that are mapped in part ---------------------------------------- */

/* Takes all there is of the range and writes to it. */
static void use_everything(void)
{
    for (;;) {
        uint32_t slab = haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY,
                                              HAK_SLABS_SOME);

        if (slab == HAK_NO_SLAB) {
            return;
        }
        *(volatile char *)haki_range_slab_start(slab) = 1;
        *(volatile char *)(haki_range_slab_start(slab) + HAK_SLAB_SIZE - 1) = 1;
    }
}

struct part {
    unsigned kinds; /* that are refused while it comes back */
    bool drop;
};

/* Under a limit a run has no more than it needs; its rest is not mapped. */
static void give_part(void *arg)
{
    const struct part *part = arg;
    struct rlimit limit = {unit_address_space() + 4 * HAK_GIB, RLIM_INFINITY};
    uint32_t first, none = 0;
    bool zero;

    setenv("HAKMEM_RANGE", "1G", 1);
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    NEED(haki_range_init());
    first = haki_range_run_take(2 * HAK_SUPER_SIZE + 3 * HAK_SLAB_SIZE, 1,
                                HAK_LANE_HUGE, &none, &zero);
    NEED(first != HAK_NO_SUPER);
    NEED(haki_supers.at[first + 2].claimed == 3 * HAK_SLAB_SIZE / HAK_PAGE);
    memset(haki_range_super_start(first + 2), 1, 3 * HAK_SLAB_SIZE);
    refuse(part->kinds);
    if (part->drop) {
        haki_range_supers_drop(first, 3, HAK_LANE_HUGE);
    } else {
        haki_range_supers_give(first, 3, HAK_LANE_HUGE, HAK_ALL_SLABS);
    }
    refuse_nothing();
    range_check();
    use_everything();
    range_check();
}

Test(fault_kinds, what_is_mapped_in_part_is_made_whole_or_left_alone)
{
    static const unsigned kinds[] = {
        HAK_OS_UNMAP,
        HAK_OS_UNMAP | HAK_OS_PURGE,
        HAK_OS_UNMAP | HAK_OS_CLAIM,
        HAK_OS_UNMAP | HAK_OS_PURGE | HAK_OS_CLAIM,
    };

    UNIT_SKIP_IF_WATCHED("they need more address space than a limit leaves");
    for (unsigned i = 0; i < 8; i++) {
        struct part part = {kinds[i % 4], i < 4};

        unit_expect_ok(give_part, &part);
    }
}

/* ---- pages that are to be made resident ----------------------------------------- */

/* What the kernel can't give is told: here there is nothing mapped. */
Test(fault_kinds, populate_tells_what_there_is_no_memory_for)
{
    char *p = haki_os_map(4 * HAK_PAGE);

    cr_assert_not_null(p);
    cr_assert(haki_os_populate(p, HAK_PAGE));
    if (unit_resident(p, HAK_PAGE) == 0) {
        cr_skip("this kernel has no MADV_POPULATE_WRITE");
    }
    cr_assert(haki_os_unmap(p + 2 * HAK_PAGE, 2 * HAK_PAGE));
    errno = 77;
    cr_assert_not(haki_os_populate(p, 4 * HAK_PAGE));
    cr_assert_eq(errno, 77);
    cr_assert_not(haki_os_purge(p, 4 * HAK_PAGE));
    cr_assert_eq(errno, 77);
    /* It can be done elsewhere still. */
    cr_assert(haki_os_populate(p, 2 * HAK_PAGE));
    cr_assert_eq(unit_resident(p, 2 * HAK_PAGE), 2);
}

Test(fault_kinds, slabs_that_are_not_populated_are_not_counted)
{
    size_t before;
    uint32_t slab;

    cr_assert(haki_range_init());
    slab = haki_range_slabs_take(2, HAK_LANE_POOL, HAK_CLASS_ANY,
                                 HAK_SLABS_SPARSE);
    cr_assert_neq(slab, HAK_NO_SLAB);
    before = haki_range_resident_bytes();
    refuse(HAK_OS_POPULATE);
    cr_assert_not(haki_range_ready(slab, 2, HAK_SLAB_SIZE + 1, 4 * HAK_PAGE));
    refuse_nothing();
    cr_assert_eq(haki_range_resident_bytes(), before);
    cr_assert_eq(haki_range_resident(slab, 2), 0);
    cr_assert(haki_range_ready(slab, 2, HAK_SLAB_SIZE + 1, 4 * HAK_PAGE));
    cr_assert_eq(haki_range_resident(slab, 2), HAK_SLAB_SIZE + HAK_PAGE);
    haki_range_slabs_give(slab, 2, HAK_LANE_POOL);
    range_check();
}

/* A superslab that was to come as a huge page comes as one without. */
Test(fault_kinds, a_huge_page_that_is_refused_is_not_counted)
{
    enum { MOST = 40 };
    uint32_t supers = 0;
    size_t before;

    setenv("HAKMEM_HUGE_PAGES", "always", 1);
    cr_assert(haki_range_init());
    for (uint32_t n = 0; n < 5 * HAK_SUPER_SLABS; n++) {
        uint32_t slab = haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY,
                                              HAK_SLABS_ALL);

        cr_assert(haki_range_ready(slab, 1, HAK_SLAB_SIZE, HAK_SLAB_SIZE));
    }
    before = haki_range_resident_bytes();
    cr_assert_geq(before, 9 * HAK_MIB);
    refuse(HAK_OS_POPULATE);
    while (haki_os_test_calls() == 0 && supers++ < MOST * HAK_SUPER_SLABS) {
        cr_assert_neq(haki_range_slabs_take(1, HAK_LANE_TINY, HAK_CLASS_ANY,
                                            HAK_SLABS_ALL),
                      HAK_NO_SLAB);
    }
    refuse_nothing();
    cr_assert_eq(haki_range_resident_bytes(), before);
    range_check();
}

/* A copy of a block for which there is no memory is not begun. */
Test(fault_kinds, a_block_that_grows_into_what_can_t_be_populated)
{
    size_t size = 300000;
    char *p, *in_the_way, *q;

    p = filled(size);
    in_the_way = filled(size);
    refuse(HAK_OS_POPULATE);
    q = hak_realloc(p, 4 * size);
    refuse_nothing();
    cr_assert_not_null(q);
    cr_assert_not(hak_owns(q));
    cr_assert(q[0] == 0x5a && memcmp(q, q + 1, size - 1) == 0);
    hak_free(q);
    hak_free(in_the_way);
    unit_expect_none_live();
}
