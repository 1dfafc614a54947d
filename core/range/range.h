/*
 * range.h - the address window that all blocks come from.
 *
 * The window is a contiguous range of addresses, chosen at first use where
 * nothing is mapped, and used from its low end:
 *
 *     | supers | backs | descriptors | heap slots | tags | superslabs ....... |
 *     '----------- outside the window ------------'-- base --- size --- window '
 *
 * None of it is reserved. A superslab, or a run of them, is claimed (mapped)
 * when it is needed and unmapped when it has been free for a while, so address
 * space is held only as it is used. Somebody else's mapping in the way is
 * marked and passed over. The arrays are mapped for the first `size` bytes of
 * the window, its extent, which doubles when it is full.
 *
 * A pointer below the extent has a tag. Tag 0 means that no lane has the slab,
 * whether it is free, never claimed or somebody else's: to hot paths such a
 * pointer belongs to no heap, and slow paths ask haki_range_owns whether the
 * address is ours.
 *
 * The tags are stored at the base itself, so that one pointer is enough to get
 * from an address to its distance and from there to its tag. Their own slabs
 * are never given out and have the tag 0. The superslabs behind them are set aside
 * for the blocks that a profile samples (haki_range_samples). A superslab is 2 MB, the unit of
 * claims and of huge pages; a slab is 64 KB of it. A slab is free or belongs to
 * one lane, which may take several side by side in one superslab (a span) or
 * whole superslabs side by side. What is known about a slab is kept in arrays
 * indexed by its number, (p - base) / 64 KB, never in the slab.
 *
 * Slabs and single superslabs are taken from the low end of the extent, runs of
 * superslabs from its high end, so that they rarely get in each other's way.
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

/* Slab 0 holds tags and is never given out, so 0 ends lists of slabs. */
#define HAK_NO_SLAB 0u

/* Superslab 0 holds tags too. */
#define HAK_NO_SUPER 0u

/* Who has a slab; in the order of the statistics. */
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
 * Tiny's class bytes times 8 are the bins' distances in a heap, which a
 * processor adds as part of a load: see haki_tiny_bin.
 *
 * The highest bit says that a heap's slab is sealed: nothing is allocated from
 * it any more, and a block freed into it is only counted (tiny.h, pool.h). Such
 * a tag matches no heap's, so hot paths leave the block to the slow ones.
 */
#define HAK_TAG_CLASS_BITS 8
#define HAK_TAG_TINY 4u
#define HAK_TAG_POOL 0xa0u   /* the first of Pool's class bytes */
#define HAK_TAG_ACE 0xf0u    /* ace.c has it */
#define HAK_TAG_HUGE 0xf1u   /* huge.c has it */
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
 * slab's; in the others only `resident` and `gone` have a meaning. ACE and Huge
 * overlay the descriptors of their superslabs with structs of their own.
 */
struct hak_slab {
    /* owner thread */
    union {
        struct {                    /* Tiny */
            struct hak_block *free; /* blocks given back to the slab */
            uint32_t nfree;         /* how many there are */
            uint32_t carved;        /* blocks that were ever handed out */
            uint32_t capacity;      /* blocks that fit */
            uint16_t ngone;         /* free blocks that touch a page gone */
            uint16_t swept;         /* what tiny_pages.c saw last */
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
    /*
     * Blocks that other threads freed. Pool: a bit for each; Tiny: their number
     * since the slab was sealed.
     */
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

/* The bytes of a superslab's descriptors, for a lane that has it whole. */
#define HAK_SUPER_META (HAK_SUPER_SLABS * sizeof(struct hak_slab))

#define HAK_NO_BASE ((uintptr_t)1 << 63)

/*
 * The part that hot paths read; set by haki_range_init, except `size`, which
 * grows. A thread that reads base and size before it has taken part in an
 * allocation may see either unset, or an older size. Every pointer beyond is
 * then foreign to it, which is right for the pointers it can have, since
 * whoever hands it a younger block also makes it see the younger size. (The
 * initial base is half the address space away: no size reaches back from
 * there.) Read with HAK_FOLD (base.h).
 */
struct hak_range {
    uintptr_t base;
    size_t size; /* the extent; 0: no range (yet, or at all) */
    /*
     * Where the tag of address 0 would be, and its `back`: see
     * haki_range_tag_of.
     */
    uintptr_t tags;
    uintptr_t backs_of;
    struct hak_slab *slabs;
    char *heap_slots;
    uint8_t *backs; /* for each slab of a span: how many precede it */
    size_t window;  /* the most that `size` can become */
    size_t page;    /* the machine's: HAK_PAGE, 4 or 16 times that */
};

extern HAK_HIDDEN struct hak_range haki_range;

/*
 * Lanes count in pages of HAK_PAGE everywhere. Where the machine's are larger,
 * what has pages of its own (runs, Huge blocks) has whole ones of the machine's,
 * and of a slab in use only whole ones are given back.
 */
HAK_INLINE size_t haki_whole_pages(size_t size)
{
    return haki_round_up(size, haki_range.page);
}

/*
 * The window was guessed, under a limit on address space, or is smaller than
 * asked for because addresses were short: another core's window, of which a
 * process may have several, may overlap it. Otherwise they are apart, since as
 * much again was free around each. Cores whose windows overlap pass over what
 * the other has mapped.
 */
extern HAK_HIDDEN bool haki_range_may_overlap;

/*
 * Chooses the window; later calls do nothing. False: there is none (no memory
 * for the first arrays, or pages other than of 4, 16 or 64 KB; reported once, in
 * one line) and all requests go to the system allocator.
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
 * The tag of p, which is in the range: the same, but one subtraction earlier,
 * which shortens the path of a free.
 */
HAK_INLINE uint32_t haki_range_tag_of(const void *p)
{
    return atomic_load_explicit(
        (_Atomic(uint32_t) *)(HAK_FOLD(haki_range.tags) +
                              ((uintptr_t)p >> HAK_SLAB_SHIFT) *
                                  sizeof(uint32_t)),
        memory_order_relaxed);
}

/* Whether p is an address of ours, in a block or not; safe for any value. */
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

/* Seals a heap's slab; a tag that is sealed already is not written to. */
HAK_INLINE void haki_range_seal(uint32_t number)
{
    uint32_t tag = haki_range_tag((size_t)number << HAK_SLAB_SHIFT);

    if ((tag & HAK_TAG_SEALED) == 0) {
        haki_range_set_tag(number, tag | HAK_TAG_SEALED);
    }
}

/*
 * Puts a slab into its owner's inbox. Called by the thread that has changed its
 * `remote` from 0.
 */
HAK_INLINE void haki_slab_tell(_Atomic(uint32_t) *inbox, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    uint32_t old = atomic_load_explicit(inbox, memory_order_relaxed);

    /* seq_cst: the sender then reads whether the owner is gone. */
    do {
        slab->inbox_next = old;
    } while (!atomic_compare_exchange_weak_explicit(inbox, &old, number,
                                                    memory_order_seq_cst,
                                                    memory_order_relaxed));
}

/* ---- statistics, fork ---------------------------------------------------------- */

/* What a lane counts, in the order of hakmem_stats.def. */
struct hak_lane_counts {
    uint64_t allocs, frees, live_bytes;
    uint64_t peak_bytes; /* of live bytes; Tiny, Pool: of held bytes */
    uint64_t held_bytes;
};

/* The range's statistics. */
struct hak_range_counts {
    size_t committed, resident, purged, slabs_used;
    uint64_t purges;
    size_t held[HAK_LANES]; /* bytes of slabs and superslabs */
    size_t held_peak[HAK_LANES];
    size_t heaps_kept; /* an upper bound in bytes, see haki_range_heap_give */
};
void haki_range_counts(struct hak_range_counts *counts);

/* In a forked child: see haki_lock_settle. */
bool haki_range_forked(void);

#endif /* HAK_RANGE_H */
