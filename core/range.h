/*
 * range.h - the one address range that all blocks come from.
 *
 * Layer 3. The range is reserved at first use and never given back:
 *
 *     | supers | maps | slabs' descriptors | heap slots | tags | superslabs |
 *     '------------- outside the range proper ----------'-- base ...     --'
 *
 * The tags stand at the base itself, so that one pointer leads from an address
 * to its distance and from there to its tag; their own slabs are never given
 * out and their tags stay 0.
 * A superslab is 2 MB, the unit of commit and of huge pages; a slab is 64 KB
 * of it. A slab is free or belongs to one heap. What is known about a slab
 * stands in arrays indexed by its number, (p - base) / 64 KB, never in it.
 *
 * Invariants:
 *   - tag == 0 exactly for a slab that no heap has;
 *   - a bit of supers[i].free is set for a free slab, and of .warm for a free
 *     slab that has resident pages (warm is a subset of free);
 *   - slabs[n].populated bytes from a slab's start have been touched.
 * `lock` guards supers, the maps, the number of superslabs and the descriptors
 * of free slabs. The descriptor of a slab in use is its heap's, and the tag is
 * written by the owner: any thread may read it.
 */
#ifndef HAK_RANGE_H
#define HAK_RANGE_H

#include "base.h"

#define HAK_SLAB_SHIFT 16
#define HAK_SLAB_SIZE ((size_t)1 << HAK_SLAB_SHIFT)
#define HAK_SUPER_SHIFT 21
#define HAK_SUPER_SIZE ((size_t)1 << HAK_SUPER_SHIFT)
#define HAK_SUPER_SLABS (HAK_SUPER_SIZE / HAK_SLAB_SIZE)
#define HAK_HEAP_SLOT HAK_PAGE

/* Slab number 0 holds tags and is never given out: 0 ends lists of slabs. */
#define HAK_NO_SLAB 0u

/*
 * A tag: heap id << 8 | class. Ids begin at 1. Class bytes below
 * HAK_TINY_CLASSES are Tiny's; the other lanes get the rest.
 */
#define HAK_TAG_CLASS_BITS 8
#define HAK_TAG_PACKED 0xffu /* a starter slab: see tiny.h */
#define HAK_TAG_CLASS(tag) ((tag)&0xff)
#define HAK_TAG_HEAP(tag) ((tag) >> HAK_TAG_CLASS_BITS)
#define HAK_HEAP_ID_MAX 0xfffffeu

/* The descriptor of a slab; one cache line. */
struct hak_slab {
    /* owner thread */
    struct hak_block *free; /* blocks given back to the slab */
    uint32_t nfree;         /* how many those are */
    uint32_t carved;        /* blocks that were ever handed to the bin */
    uint32_t capacity;      /* blocks that fit */
    uint32_t open_next;     /* slabs of the class with nfree > 0 */
    uint32_t open_prev;
    uint32_t all_next; /* every slab of the heap */
    uint32_t all_prev;
    /* under the range's lock while free, then the owner thread */
    uint32_t populated; /* bytes from the start that have been touched */
    uint16_t block;     /* block size in bytes */
    uint8_t class;
    uint8_t unused[21];
};

_Static_assert(sizeof(struct hak_slab) == 64, "a descriptor is a cache line");

/*
 * The part that hot paths read; set once, by hak_range_init. A thread that
 * reads base and size before it has taken part in an allocation may see either
 * unset: every pointer is then foreign, which is the truth for what it has.
 * (No base is half the address space away: from there no size reaches back.)
 * Hence plain words, which compilers fold into their instructions; the thread
 * sanitizer gets to see atomics.
 */
#ifdef HAK_TSAN
#define HAK_SET_ONCE(type) _Atomic(type)
#else
#define HAK_SET_ONCE(type) type
#endif

#define HAK_NO_BASE ((uintptr_t)1 << 63)

struct hak_range {
    HAK_SET_ONCE(uintptr_t) base;
    HAK_SET_ONCE(size_t) size; /* 0: no range (yet, or at all) */
    struct hak_slab *slabs;
    char *heap_slots;
};

extern HAK_HIDDEN struct hak_range hak_range;

/*
 * Reserves the range; later calls do nothing. False: there is none (it was
 * refused at every size, said once in one line) and all requests go to the
 * system allocator.
 */
bool hak_range_init(void);

/* Distance of p from the base; at least hak_range.size for a foreign p. */
HAK_INLINE size_t hak_range_offset(const void *p)
{
    return (uintptr_t)p - hak_range.base;
}

HAK_INLINE bool hak_range_owns(const void *p)
{
    return hak_range_offset(p) < hak_range.size;
}

HAK_INLINE _Atomic(uint32_t) *hak_range_tags(void)
{
    return (_Atomic(uint32_t) *)hak_range.base;
}

/* The tag of the slab at this distance. */
HAK_INLINE uint32_t hak_range_tag(size_t offset)
{
    return atomic_load_explicit(&hak_range_tags()[offset >> HAK_SLAB_SHIFT],
                                memory_order_relaxed);
}

HAK_INLINE void hak_range_set_tag(uint32_t number, uint32_t tag)
{
    atomic_store_explicit(&hak_range_tags()[number], tag, memory_order_relaxed);
}

HAK_INLINE struct hak_slab *hak_range_slab(uint32_t number)
{
    return &hak_range.slabs[number];
}

HAK_INLINE char *hak_range_slab_start(uint32_t number)
{
    return (char *)hak_range.base + ((size_t)number << HAK_SLAB_SHIFT);
}

/*
 * Takes a free slab, one with resident pages first, the lowest address first,
 * committing a superslab if none is free. Only `populated` of its descriptor
 * is set. HAK_NO_SLAB: out of memory.
 */
uint32_t hak_range_slab_take(void);

/*
 * Makes the first `need` bytes of a slab in use usable, by the ladder: the
 * first slabs of a class double what is resident with each call, from a page
 * that is left to its fault, later ones (`before` slabs of the class have been
 * filled) go by 16 KB, then by the whole slab. Above 8 MB slabs may come
 * populated, as huge pages: super_add. Called by the slab's owner. False: out
 * of memory.
 */
bool hak_range_slab_ready(uint32_t number, size_t need, uint32_t before);

/* Gives a slab back; its tag becomes 0. */
void hak_range_slab_give(uint32_t number);

/* Gives back a list of slabs linked by all_next. */
void hak_range_slabs_give(uint32_t first);

/* Drops the pages of every free slab; returns the bytes. */
size_t hak_range_purge(void);

/*
 * Memory for a heap, HAK_HEAP_SLOT bytes, page-aligned; *id is its number.
 * A reused slot keeps its old contents. NULL: out of memory or of slots.
 */
void *hak_range_heap_take(uint32_t *id);
void hak_range_heap_give(uint32_t id);

/* The heap slot with this id, which was taken at some time. */
HAK_INLINE void *hak_range_heap(uint32_t id)
{
    return hak_range.heap_slots + (size_t)(id - 1) * HAK_HEAP_SLOT;
}

/* How many heap slots were ever taken: their ids are 1 to this. */
uint32_t hak_range_heap_count(void);

/* Figures for stats. */
struct hak_range_figures {
    size_t committed, populated, purged, slabs_used;
};
void hak_range_figures(struct hak_range_figures *figures);

/* Around fork: take the lock, drop it. */
void hak_range_fork_prepare(void);
void hak_range_fork_done(void);

#endif /* HAK_RANGE_H */
