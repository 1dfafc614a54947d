/*
 * range.h - the address window that all blocks come from.
 *
 * The window is a contiguous stretch of addresses, chosen at first use
 * where nobody has anything, and used from its low end:
 *
 *     | supers | backs | descriptors | heap slots | tags | superslabs ....... |
 *     '----------- outside the window ------------'-- base --- size --- window '
 *
 * Nothing of it is reserved. A piece is claimed when it is needed, a superslab
 * or a run of them at a time, and unmapped when it has been free for a while:
 * address space is held as it is used. Somebody else's mapping that lies in the
 * way is marked and passed over. The arrays are mapped for the first `size`
 * bytes of the window, its extent, which doubles when it is full.
 *
 * A pointer below the extent has a tag. 0 is the tag of what no lane has, be it
 * free, never claimed or somebody else's: hot paths take such a pointer for no
 * heap's, and the slow ones ask haki_range_owns whether the address is ours.
 *
 * The tags stand at the base itself, so that one pointer leads from an address
 * to its distance and from there to its tag; their own slabs are never given
 * out and their tags stay 0. Behind them superslabs are set aside for the blocks that
 * a profile samples, which no lane takes (haki_range_samples).
 * A superslab is 2 MB, the unit of claims and of huge pages; a slab is 64 KB
 * of it. A slab is free or belongs to one lane, which may take several side by
 * side in one superslab (a span) or whole superslabs side by side. What is
 * known about a slab stands in arrays indexed by its number,
 * (p - base) / 64 KB, never in it.
 *
 * Slabs and single superslabs are taken from the low end of the extent, runs of
 * superslabs from its high end, so that they seldom stand in each other's way.
 *
 * range.[ch] has the window and the tags, slots.[ch] the heap slots, claims.[ch]
 * the superslabs' mappings; slabs.[ch] who has which slab, superslabs.[ch] which
 * superslab, rooms.[ch] where; purge.[ch] gives memory back to the system after a
 * while, pages.[ch] pages of slabs in use. supers.h is what their files share.
 */
#ifndef HAK_RANGE_H
#define HAK_RANGE_H

#include "base/base.h"
#include "range/claims.h"

#define HAK_SLAB_SHIFT 16
#define HAK_SLAB_SIZE ((size_t)1 << HAK_SLAB_SHIFT)
#define HAK_SUPER_SHIFT 21
#define HAK_SUPER_SIZE ((size_t)1 << HAK_SUPER_SHIFT)
#define HAK_SUPER_SLABS (HAK_SUPER_SIZE / HAK_SLAB_SIZE)
#define HAK_HEAP_SLOT (16 * HAK_PAGE)

/* Slab number 0 holds tags and is never given out: 0 ends lists of slabs. */
#define HAK_NO_SLAB 0u

/* Superslab 0 holds tags too. */
#define HAK_NO_SUPER 0u

/* Who has a slab; the order is that of the statistics. */
enum hak_lane {
    HAK_LANE_TINY,
    HAK_LANE_POOL,
    HAK_LANE_ACE,
    HAK_LANE_HUGE,
    HAK_LANES
};

/*
 * A tag: heap id << 8 | class byte. Ids begin at 1. The class bytes are the
 * lanes': Tiny's classes times HAK_TAG_TINY, then Pool's; a superslab that ACE
 * has cut into runs and the first slab of a Huge block belong to no heap but to
 * HAK_ID_SHARED. 0 is the tag of a free slab, and of the rest of a Huge block.
 *
 * Tiny's bytes times 8 are the distances of the bins in a heap, which a
 * processor adds while it loads: see haki_tiny_bin.
 *
 * The highest bit says that a heap's slab is sealed: nothing is allocated from
 * it any more, and a block freed into it is only counted (tiny.h, pool.h). Such
 * a tag matches no heap's, so hot paths leave the block to the slow ones.
 */
#define HAK_TAG_CLASS_BITS 8
#define HAK_TAG_TINY 4u
#define HAK_TAG_POOL 0xa0u   /* the first of Pool's class bytes */
#define HAK_TAG_ACE 0xf0u    /* in the hands of ace.c */
#define HAK_TAG_HUGE 0xf1u   /* in the hands of huge.c */
#define HAK_TAG_SAMPLE 0xf2u /* of sampled blocks: profile/samples.h */
#define HAK_TAG_PACKED 0xffu /* of all sizes: see tiny.h */
#define HAK_TAG_CLASS(tag) ((tag)&0xff)
#define HAK_TAG_SEALED 0x80000000u
#define HAK_TAG_HEAP(tag) (((tag) & ~HAK_TAG_SEALED) >> HAK_TAG_CLASS_BITS)
#define HAK_HEAP_ID_MAX 0x7ffffdu
#define HAK_ID_SHARED 0x7ffffeu
#define HAK_TAG_SHARED(class) (HAK_ID_SHARED << HAK_TAG_CLASS_BITS | (class))

/*
 * The descriptor of a slab; one cache line. A span is described by its first
 * slab; of the others only `resident` and `gone` mean something. ACE and
 * Huge lay structs of their own over the descriptors of a superslab they have.
 */
struct hak_slab {
    /* owner thread */
    union {
        struct {                    /* Tiny */
            struct hak_block *free; /* blocks given back to the slab */
            uint32_t nfree;         /* how many those are */
            uint32_t carved;        /* blocks that were ever handed out */
            uint32_t capacity;      /* blocks that fit */
            uint16_t ngone;         /* free blocks that touch a page gone */
            uint16_t swept;         /* what tiny_pages.c has seen last */
        };
        struct {            /* Pool: a bit for each block of the span */
            uint64_t bits;  /* free blocks */
            uint64_t ready; /* blocks that were ever free */
            union {
                uint64_t held; /* hardened build: blocks in the bin */
                uint64_t seen; /* others: free at the last sweep */
            };
        };
    };
    uint32_t open_next;   /* slabs of the class with something free */
    uint32_t open_before; /* of the first one: the last */
    uint32_t all_next;    /* every slab or span of the heap's lane */
    uint32_t all_prev;
    /* any thread */
    /* Blocks that other threads freed. Pool: a bit for each; Tiny: how many
     * since the slab was sealed. */
    _Atomic(uint64_t) remote;
    uint32_t inbox_next; /* see pool.h, tiny.h */
    /* under the lock of slabs.c while free, then the owner thread */
    uint32_t resident; /* bytes from the start that have been touched */
    /* constant while in use */
    uint32_t block; /* block size in bytes */
    /* Pool: the tag's class byte; Tiny: the class, or HAK_TAG_PACKED */
    uint8_t class;
    uint8_t slabs; /* how many make up the span */
    /* owner thread; 0 while free */
    uint16_t gone; /* a bit for each page given back to the system: pages.h */
};

_Static_assert(sizeof(struct hak_slab) == 64, "a descriptor is a cache line");

/* What a superslab's descriptors offer to a lane that has it whole. */
#define HAK_SUPER_META (HAK_SUPER_SLABS * sizeof(struct hak_slab))

#define HAK_NO_BASE ((uintptr_t)1 << 63)

/*
 * The part that hot paths read; set by haki_range_init, but for `size`, which
 * grows. A thread that reads base and size before it has taken part in an
 * allocation may see either unset, or the size of a while ago: every pointer
 * beyond is then foreign, which is the truth for what it has, since whoever
 * handed it a younger block let it see the younger size as well.
 * (No base is half the address space away: from there no size reaches back.)
 * Read by HAK_FOLD (base.h).
 */
struct hak_range {
    uintptr_t base;
    size_t size; /* the extent; 0: no range (yet, or at all) */
    /* Where address 0's tag would be, and its `back`: see haki_range_tag_of. */
    uintptr_t tags;
    uintptr_t backs_of;
    struct hak_slab *slabs;
    char *heap_slots;
    uint8_t *backs; /* of a span's slabs: how many stand before it */
    size_t window;  /* the most that `size` can become */
};

extern HAK_HIDDEN struct hak_range haki_range;

/*
 * The window was guessed, under a limit on address space, or is smaller than
 * asked for, for want of it: another core's, of which a process may have
 * several, may lie across it. Else each has its own, since as much again was
 * free around it. Where they do, each passes over what the other has mapped.
 */
extern HAK_HIDDEN bool haki_range_may_overlap;

/*
 * Chooses the window; later calls do nothing. False: there is none (no memory
 * for the first arrays, or pages that are not HAK_PAGE; said once in one line)
 * and all requests go to the system allocator.
 */
bool haki_range_init(void);

/* Distance of p from the base; at least haki_range.size for a foreign p. */
HAK_INLINE size_t haki_range_offset(const void *p)
{
    return (uintptr_t)p - HAK_FOLD(haki_range.base);
}

/* Whether p has a tag: the test of hot paths, which look at the tag next. */
HAK_INLINE bool haki_range_covers(const void *p)
{
    return haki_range_offset(p) < HAK_FOLD(haki_range.size);
}

HAK_INLINE _Atomic(uint32_t) *haki_range_tags(void)
{
    return (_Atomic(uint32_t) *)HAK_FOLD(haki_range.base);
}

/* The tag of the slab at this distance. */
HAK_INLINE uint32_t haki_range_tag(size_t offset)
{
    return atomic_load_explicit(&haki_range_tags()[offset >> HAK_SLAB_SHIFT],
                                memory_order_relaxed);
}

/*
 * The tag of p, in the range: the same, a subtraction earlier, and a free waits
 * for it.
 */
HAK_INLINE uint32_t haki_range_tag_of(const void *p)
{
    return atomic_load_explicit(
        (_Atomic(uint32_t) *)(HAK_FOLD(haki_range.tags) +
                              ((uintptr_t)p >> HAK_SLAB_SHIFT) *
                                  sizeof(uint32_t)),
        memory_order_relaxed);
}

/* Whether p is an address of ours, in a block or not: safe on any value. */
HAK_INLINE bool haki_range_owns(const void *p)
{
    return haki_range_covers(p) &&
           (haki_range_tag_of(p) != 0 || !haki_range_is_foreign(p));
}

HAK_INLINE void haki_range_set_tag(uint32_t number, uint32_t tag)
{
    atomic_store_explicit(&haki_range_tags()[number], tag,
                          memory_order_relaxed);
}

HAK_INLINE struct hak_slab *haki_range_slab(uint32_t number)
{
    return &haki_range.slabs[number];
}

HAK_INLINE char *haki_range_slab_start(uint32_t number)
{
    return (char *)HAK_FOLD(haki_range.base) +
           ((size_t)number << HAK_SLAB_SHIFT);
}

HAK_INLINE uint32_t haki_range_back(uint32_t number)
{
    return haki_range.backs[number];
}

/* The same for the slab that p, in the range, lies in. */
HAK_INLINE uint32_t haki_range_back_of(const void *p)
{
    return *(const uint8_t *)(HAK_FOLD(haki_range.backs_of) +
                              ((uintptr_t)p >> HAK_SLAB_SHIFT));
}

HAK_INLINE void haki_range_set_back(uint32_t number, uint8_t back)
{
    haki_range.backs[number] = back;
}

/* The number of the slab that p, in the range, lies in. */
HAK_INLINE uint32_t haki_range_number(const void *p)
{
    return (uint32_t)(haki_range_offset(p) >> HAK_SLAB_SHIFT);
}

HAK_INLINE char *haki_range_super_start(uint32_t super)
{
    return haki_range_slab_start(super * (uint32_t)HAK_SUPER_SLABS);
}

/* The descriptors of a superslab that a lane has whole: HAK_SUPER_META bytes */
HAK_INLINE void *haki_range_super_meta(uint32_t super)
{
    return haki_range_slab(super * (uint32_t)HAK_SUPER_SLABS);
}

/*
 * Where sampled blocks may lie: the first slab, and how many bytes from there on.
 * profile/samples.c claims it, slab by slab, and sets the tags.
 */
uint32_t haki_range_samples(size_t *bytes);

/* ---- sealed slabs --------------------------------------------------------- */

/* Whether the slab at this distance from the base is sealed. */
HAK_INLINE bool haki_range_sealed(size_t offset)
{
    return (haki_range_tag(offset) & HAK_TAG_SEALED) != 0;
}

/* Seals a slab of a heap; a tag that says so already is not written to. */
HAK_INLINE void haki_range_seal(uint32_t number)
{
    uint32_t tag = haki_range_tag((size_t)number << HAK_SLAB_SHIFT);

    if ((tag & HAK_TAG_SEALED) == 0) {
        haki_range_set_tag(number, tag | HAK_TAG_SEALED);
    }
}

/*
 * Puts a slab into its owner's inbox: called by who has made its `remote`
 * something else than 0.
 */
HAK_INLINE void haki_slab_tell(_Atomic(uint32_t) *inbox, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    uint32_t old = atomic_load_explicit(inbox, memory_order_relaxed);

    /* seq_cst: the sender then reads whether the owner has gone. */
    do {
        slab->inbox_next = old;
    } while (!atomic_compare_exchange_weak_explicit(inbox, &old, number,
                                                    memory_order_seq_cst,
                                                    memory_order_relaxed));
}

/* ---- statistics, fork ---------------------------------------------------------- */

/* What a lane counts, in the order of its statistics in hakmem_stats.def. */
struct hak_lane_counts {
    uint64_t allocs, frees, live_bytes;
    uint64_t peak_bytes; /* of live bytes; Tiny, Pool: of held bytes */
    uint64_t held_bytes;
};

/* Statistics for stats. */
struct hak_range_counts {
    size_t committed, resident, purged, slabs_used;
    uint64_t purges;
    size_t held[HAK_LANES]; /* bytes of slabs and superslabs */
    size_t held_peak[HAK_LANES];
    size_t heaps_kept; /* bytes at the most, see haki_range_heap_give */
};
void haki_range_counts(struct hak_range_counts *counts);

/* In a forked child: see haki_lock_settle. */
bool haki_range_forked(void);

#endif /* HAK_RANGE_H */
