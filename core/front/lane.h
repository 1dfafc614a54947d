/*
 * lane.h - from a size to a lane, and from a pointer to its lane.
 *
 * The only place that defines the lanes' bounds. The functions below serve the
 * calling thread from the four lanes and never go to the system allocator:
 * alloc.c does that for hak_*, and the libc names do it for themselves.
 */
#ifndef HAK_LANE_H
#define HAK_LANE_H

#include <hakmem.h>

#include <errno.h>

#include "ace/ace.h"
#include "base/base.h"
#include "heap/heap.h"
#include "huge/huge.h"
#include "pool/pool.h"
#include "profile/guarded.h"
#include "system/system.h"
#include "tiny/tiny_class.h"

/* A lane serves sizes from its MIN to its MAX, in bytes. */
#define HAK_LANE_TINY_MIN ((size_t)0)
#define HAK_LANE_TINY_MAX HAK_TINY_MAX_SIZE
#define HAK_LANE_POOL_MIN HAK_POOL_MIN_SIZE
#define HAK_LANE_POOL_MAX HAK_POOL_MAX_SIZE
#define HAK_LANE_ACE_MIN (HAK_LANE_POOL_MAX + 1)
#define HAK_LANE_ACE_MAX (HAK_SUPER_SIZE - 1)
#define HAK_LANE_HUGE_MIN HAK_SUPER_SIZE
#define HAK_LANE_HUGE_MAX ((size_t)PTRDIFF_MAX)

_Static_assert(HAK_LANE_TINY_MAX == HAK_TINY_MAX, "the public bound");
_Static_assert(HAK_LANE_POOL_MIN == HAK_LANE_TINY_MAX + 1, "no gap");
_Static_assert(HAK_LANE_ACE_MIN == HAK_LANE_POOL_MAX + 1, "no gap");
_Static_assert(HAK_LANE_HUGE_MIN == HAK_LANE_ACE_MAX + 1, "no gap");
/* The bytes of ACE's smallest run. */
#define HAK_LANE_ACE_LEAST (HAK_ACE_LEAST * HAK_PAGE)

_Static_assert(HAK_LANE_ACE_LEAST - HAK_LANE_ACE_MIN < HAK_PAGE,
               "less than a page of ACE's smallest run is waste");

/* The alignment that every block has. */
#define HAK_LANE_ALIGN ((size_t)16)

/*
 * `size` bytes aligned to `alignment` (a power of two), all zero if `zero`.
 * NULL: *reason says why; errno is unchanged.
 */
void *haki_lane_alloc(size_t alignment, size_t size, bool zero,
                      enum hak_reason *reason);

/* Frees p, in the range; fatal, naming `caller`, if it is not a block. */
void haki_lane_free(void *p, const char *caller);

/*
 * Resizes p, in the range, within the lanes. NULL: *reason says why, p is
 * untouched. A shrink never fails.
 */
void *haki_lane_realloc(void *p, size_t size, enum hak_reason *reason,
                        const char *caller);

/*
 * The usable size of p, in the range; fatal, naming `caller`, if it is not a
 * block.
 */
size_t haki_lane_usable(const void *p, const char *caller);

/*
 * The Tiny class of the smallest blocks whose size is a multiple of
 * `alignment`, at least 16; HAK_TINY_CLASSES: there is none.
 */
unsigned haki_lane_aligned_class(size_t alignment, size_t size);

/*
 * Fills p, a block of `size` bytes, with zeros; returns it. A Huge block may
 * not be touched in full: its pages go back to the system, and are zero when
 * they are touched.
 */
void *haki_lane_make_zero(void *p, size_t size);

#endif /* HAK_LANE_H */
