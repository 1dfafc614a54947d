/*
 * lane.h - from a size to a lane, and from a pointer to its lane.
 *
 * Layer 6. The lanes' bounds stand here once. The functions below serve the
 * calling thread from the four lanes and never go to the system allocator:
 * alloc.c does that for hak_*, the libc names in the same way for their own.
 */
#ifndef HAK_LANE_H
#define HAK_LANE_H

#include <hakmem.h>

#include <errno.h>

#include "ace.h"
#include "base.h"
#include "heap.h"
#include "huge.h"
#include "pool.h"
#include "system.h"
#include "tiny_class.h"

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
 * `size` bytes aligned to `alignment` (a power of two), all zero if `zero`. NULL: *reason says why; errno is as
 * it was.
 */
void *hak_lane_alloc(size_t alignment, size_t size, bool zero,
                     enum hak_reason *reason);

/*
 * The Tiny class of the smallest blocks that are a multiple of `alignment`, 16
 * or more; HAK_TINY_CLASSES: there is none.
 */
unsigned hak_lane_aligned_class(size_t alignment, size_t size);

/*
 * Fills p, a block of `size` bytes, with zeros; returns it. What a caller asks
 * for in the Huge lane it may not touch all of: its pages go back, and come as
 * zeros when they are.
 */
void *hak_lane_make_zero(void *p, size_t size);

/* hakmem.h's functions for calls from inside: see HAK_INSIDE. */
extern HAK_HIDDEN __typeof__(hak_free) hak_inside_free;
extern HAK_HIDDEN __typeof__(hak_heap_new) hak_inside_heap_new;
extern HAK_HIDDEN __typeof__(hak_heap_delete) hak_inside_heap_delete;
extern HAK_HIDDEN __typeof__(hak_heap_trim) hak_inside_heap_trim;

/* Frees p, in the range; `caller` is named if it is no block. */
void hak_lane_free(void *p, const char *caller);

/*
 * Resizes p, in the range, within the lanes. NULL: *reason says why, p is
 * untouched. A shrink never fails.
 */
void *hak_lane_realloc(void *p, size_t size, enum hak_reason *reason,
                       const char *caller);

/* The usable size of p, in the range; `caller` is named if it is no block. */
size_t hak_lane_usable(const void *p, const char *caller);

/*
 * check.c: ends the program, naming `caller`, p and the reason, unless p (which is in
 * the range) is the start of a block in use, as far as can be told.
 */
void hak_lane_check(const void *p, const char *caller);

/* Ends the program: p, in the range, could not be taken for a block in use. */
void hak_lane_misuse(const void *p, const char *caller);

/*
 * Gives back what has been idle for long, the cache of `heap` (NULL: none)
 * included; called on slow paths.
 */
void hak_heap_tick(struct hak_heap *heap);

/* The same, and what bins have kept for long while other lanes were at work. */
void hak_heap_look_around(struct hak_heap *heap);

/* Runs from the cache between two such looks. */
#define HAK_LOOK_EVERY 32

/* The looks at a bin that a push has asked for, and what is due besides. */
HAK_NOINLINE void hak_heap_look(struct hak_heap *heap, struct hak_bin *bin);
HAK_NOINLINE void hak_heap_look_pool(struct hak_heap *heap, unsigned class);
/* ---- seals: see hard.h -------------------------------------------------- */

size_t hak_lane_open_slow(const void *p, const char *caller);
void hak_lane_close_slow(void *p, size_t size);

/*
 * What the user of p, a block of `block` bytes, has of it: the hardened build
 * looks at its seal and ends the program, naming `caller`, if it is broken.
 */
HAK_INLINE size_t hak_lane_open(const void *p, size_t block, const char *caller)
{
    return HAK_HARD ? hak_lane_open_slow(p, caller) : block;
}

/* Hardened build: seals p (NULL: does nothing) for `size` bytes; returns p. */
HAK_INLINE void *hak_lane_close(void *p, size_t size)
{
    if (HAK_HARD && p != NULL) {
        hak_lane_close_slow(p, size);
    }
    return p;
}

/* ---- sizes above Tiny, on a given heap: large.c -------------------------- */

/* The lanes above Tiny; `size` is above HAK_LANE_TINY_MAX or `alignment` is.
 * *zero: the contents are zero. NULL: *reason says why. */
void *hak_large_alloc(struct hak_heap *heap, size_t alignment, size_t size,
                      bool *zero, enum hak_reason *reason);

/* What a block for `size` bytes, above HAK_LANE_TINY_MAX, takes. */
HAK_INLINE size_t hak_large_bytes(size_t size)
{
    return size <= HAK_LANE_POOL_MAX
               ? hak_pool_classes[hak_pool_class_of(size)].block
               : hak_round_up(size, HAK_PAGE);
}

/* Whether a block with `usable` bytes may stay where it is for `size`. */
HAK_INLINE bool hak_fits_as_is(size_t usable, size_t size)
{
    if (usable <= HAK_LANE_TINY_MAX) {
        return size <= usable &&
               usable == hak_tiny_size[hak_tiny_class_16[hak_tiny_index(size)]];
    }
    /* A copy for less than a quarter is not worth it. */
    return size <= usable && size >= usable - usable / 4;
}

/* Whether a block with this tag is of one of those lanes. */
HAK_INLINE bool hak_tag_is_large(uint32_t tag)
{
    return HAK_TAG_CLASS(tag) - HAK_TAG_POOL <= HAK_TAG_HUGE - HAK_TAG_POOL;
}

/*
 * Frees p, an address in a slab of those lanes, from a thread that works on
 * `heap` (NULL: it has none). False: no block in use begins there.
 */
bool hak_large_free(struct hak_heap *heap, void *p);

/* The usable size of p and its owner's id, HAK_ID_SHARED for threads' ACE and
 * Huge blocks. 0: no block begins there. */
size_t hak_large_find(const void *p, uint32_t *owner);

/*
 * Makes p, a block of those lanes, fit `size` bytes, above HAK_LANE_TINY_MAX,
 * without copying: where it is, or by moving pages. NULL: it can't.
 */
void *hak_large_resize(void *p, size_t size);

/*
 * A new block for `size` bytes, above HAK_LANE_TINY_MAX, with the first `n`
 * bytes of the block p, of any lane; p is still to be freed, and its contents
 * may be gone. NULL: *reason says why, p is untouched.
 */
void *hak_large_copy(struct hak_heap *heap, void *p, size_t n, size_t size,
                     enum hak_reason *reason);

/* Frees ACE and Huge blocks of a heap made by hand. */
void hak_large_free_owner(struct hak_heap *heap);

/* ---- the system behind the lanes: alloc.c -------------------------------- */

/* Frees p outside the range; fatal if it is no block of the system's. */
void hak_lane_free_system(void *p, const char *caller);

/*
 * What glibc's aligned_alloc and memalign do with an alignment above 16 B: one
 * that is no power of two becomes the next. 0, or the errno they fail with.
 */
HAK_INLINE int hak_lane_align_as_glibc(size_t *alignment, size_t size)
{
    if (*alignment > SIZE_MAX / 2 + 1) {
        return EINVAL;
    }
    if (!hak_is_pow2(*alignment)) {
        *alignment = (size_t)1 << (64 - __builtin_clzl(*alignment));
    }
    return size > PTRDIFF_MAX || *alignment > PTRDIFF_MAX - size ? ENOMEM : 0;
}

#endif /* HAK_LANE_H */
