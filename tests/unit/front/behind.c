/*
 * behind.c - tests of blocks of the system allocator that are freed by address, and
 * of alignments as glibc takes them.
 */
#include "front/behind.h"

#include "limited.h"

TestSuite(behind, .timeout = 300);

Test(behind, a_block_of_the_system_is_freed)
{
    char *p = haki_system_alloc(16, 1000, NULL, HAK_REASON_MEMORY);

    cr_assert_not_null(p);
    cr_assert_eq(unit_stats().system_live, 1);
    haki_lane_free_system(p, "test");
    cr_assert_eq(unit_stats().system_live, 0);
}

Test(behind, its_heap_is_charged_no_more)
{
    hak_heap *heap = limited(100 * HAK_MIB);
    char *p = from_system(heap, 3 * HAK_MIB);

    cr_assert_geq(hak_heap_live(heap), 3 * HAK_MIB);
    haki_lane_free_system(p, "test");
    cr_assert_eq(hak_heap_live(heap), 0);
    hak_heap_delete(heap);
}

static void free_it(void *p)
{
    haki_lane_free_system(p, "caller");
}

Test(behind, what_the_system_does_not_have_is_fatal)
{
    char local[16], *p = haki_system_alloc(16, 1000, NULL, HAK_REASON_MEMORY);

    unit_expect_fatal(free_it, local,
                      "hakmem: fatal: caller(%p): not a block of HAKMEM\n",
                      (void *)local);
    unit_expect_fatal(free_it, p + 16,
                      "hakmem: fatal: caller(%p): not a block of HAKMEM\n",
                      (void *)(p + 16));
    haki_lane_free_system(p, "caller");
}

static size_t aligned_as(size_t alignment)
{
    cr_assert_eq(haki_lane_align_as_glibc(&alignment, 100), 0);
    return alignment;
}

Test(behind, an_alignment_becomes_the_next_power_of_two)
{
    cr_assert_eq(aligned_as(32), 32);
    cr_assert_eq(aligned_as(33), 64);
    cr_assert_eq(aligned_as(48), 64);
    cr_assert_eq(aligned_as(4095), 4096);
    cr_assert_eq(aligned_as((size_t)1 << 40), (size_t)1 << 40);
}

Test(behind, alignments_and_sizes_that_are_refused)
{
    size_t half = SIZE_MAX / 2 + 1, alignment = half + 1;

    cr_assert_eq(haki_lane_align_as_glibc(&alignment, 1), EINVAL);
    alignment = half;
    cr_assert_eq(haki_lane_align_as_glibc(&alignment, 1), ENOMEM);
    alignment = half - 1; /* the next power of two is `half` */
    cr_assert_eq(haki_lane_align_as_glibc(&alignment, 1), ENOMEM);
    alignment = 64;
    cr_assert_eq(haki_lane_align_as_glibc(&alignment, SIZE_MAX), ENOMEM);
    alignment = 64;
    cr_assert_eq(haki_lane_align_as_glibc(&alignment, PTRDIFF_MAX), ENOMEM);
    alignment = 64;
    cr_assert_eq(haki_lane_align_as_glibc(&alignment, PTRDIFF_MAX - 64), 0);
}
