/*
 * tiny.h - the Tiny lane: requests of at most 1024 B.
 *
 * The hot path is inline here; README.md lists the other files. Nothing reads
 * thread-local state: every function takes the state it works on, which one
 * thread at a time uses.
 *
 * A block's life: carved from a slab into a bin, popped by an allocation,
 * pushed by a free, and flushed to its slab when the bin holds too many.
 *
 *     slab --carve, or its whole free list--> spare, head --pop--> user
 *     slab <--flush, when spare is taken----- spare <- head <-push--'
 *                         another thread's free ^
 *
 * A heap may be packed: its first blocks, of all sizes up to 16 KB, come from up to
 * two slabs where they lie side by side (tiny_grain.c). A small heap then is as
 * large as what it has in use, instead of a page or more for each class. A packed
 * slab's tag says HAK_TAG_PACKED instead of a class, so that only sized frees
 * (Lua's) find the bin at once; a flush clears a block's bits in the heap's maps.
 * Blocks above 1024 B are in no bin: they are taken from there and go back there.
 *
 * Invariants, for each class c of a heap:
 *   - head holds base - left - pops blocks (modulo 2^32): a push lowers `left`, and
 *     what else changes it changes `base` by as much; pops are all ever
 *     (haki_bin_pops: they count down to a sample, see profile.h); spare holds
 *     spare_count; taken = head + spare + what users and other threads'
 *     outboxes have;
 *   - a slab is in the open list exactly if nfree + ngone > 0 and it is not
 *     sealed, and those with nfree == 0 stand at its end;
 *   - nfree + ngone <= carved <= capacity; carved < capacity at most for `fresh`
 *     and sealed slabs;
 *   - ngone is the number of a slab's blocks that touch a page that is gone
 *     (pages.h): they are free, carved and in no list; 0 if the slab is sealed;
 *   - for a packed slab, the maps have the bits of its blocks in bins or in
 *     use; packed_bytes is the sum of these blocks, larger_bytes that of those
 *     in no class;
 *   - every slab is in the `all` list, and its tag is the heap's tag | c, or
 *     | HAK_TAG_PACKED for a packed one, whose counts are not used;
 *   - a slab with nfree + ngone == carved > 0 stays only as `fresh` or when it was the
 *     class's only open slab, and of these 1 + nslabs / 16 in all; nempty is
 *     their number; if it is sealed it does not stay;
 *   - no block of a sealed slab is in head or spare; a free one is counted in
 *     nfree or remote, or is in a stale list, or was sent to the inbox before;
 *   - a sealed slab is in sealed_inbox, or about to be, exactly if remote != 0.
 */
#ifndef HAK_TINY_H
#define HAK_TINY_H

#include "range/allowance.h"
#include "base/assert.h"
#include "base/base.h"
#include "guard/hard.h"
#include "profile/profile.h"
#include "range/range.h"
#include "range/slab_list.h"
#include "tiny/remote.h"
#include "tiny/tiny_class.h"
#include "tiny/tiny_walk.h"

/*
 * The hot half of a class: two to a cache line. Pushes are counted down from a
 * grant, so that every bin is looked at once in a while (haki_tiny_look),
 * however the program pops and pushes: a bin that holds too much then gives
 * some back, and idle memory goes back too.
 */
struct hak_bin {
    struct hak_block *head;  /* free blocks, last in first out */
    int32_t left;            /* pushes until the next look, less 1 */
    uint32_t magic;          /* const: haki_tiny_magic */
    int64_t until;           /* pops until a sample is due: see profile.h */
    struct hak_block *spare; /* the colder half, or NULL */
};

/* The cold half of a class. */
struct hak_shelf {
    uint32_t base;        /* see above: what head holds is counted by it */
    uint32_t open;        /* first slab with free blocks */
    uint32_t fresh;       /* the slab being carved, or HAK_NO_SLAB */
    uint32_t spare_count; /* spare's count */
    uint32_t seen;        /* blocks in head and spare, as last noted */
    uint16_t step;        /* bytes to carve next */
    uint16_t filled;      /* slabs carved in full, at most UINT16_MAX */
};

/*
 * The unit of packed slabs, and how many of them a word of their maps covers.
 */
#define HAK_GRAIN ((size_t)8)
#define HAK_UNIT (64 * HAK_GRAIN)
#define HAK_SLAB_UNITS ((uint32_t)(HAK_SLAB_SIZE / HAK_UNIT))
#define HAK_PACKED_SLABS 2u
#define HAK_UNITS (HAK_PACKED_SLABS * HAK_SLAB_UNITS)

/* A bit for each grain of a unit: see tiny_grain.c. */
struct hak_unit {
    _Atomic(uint64_t) used; /* part of a block in a bin or in use */
    _Atomic(uint64_t) last; /* the last grain of such a block */
};

/* The largest block of a packed slab. */
#define HAK_TINY_LARGER_MOST (16 * HAK_KIB)

/*
 * Other threads read `tag` to `sent_at_once` for every block they free, so these
 * share a cache line with fields that are rarely written.
 *
 * What kind of a heap it is say four properties: the three here, and whether it is
 * frugal (haki_is_frugal, in `allow`).
 *
 *                         accounted  sent_at_once  frugal  packed
 *     a thread's              no          no         no      no
 *     an explicit one         yes         yes        yes     no
 *     HAK_EMBED_STATE, _POOL  yes         yes        yes     yes
 *     HAK_EMBED_ONE_LOCK      no          no         no      no
 */
struct hak_tiny {
    struct hak_bin bins[HAK_TINY_CLASSES];
    /* const after init */
    uint32_t tag; /* id << 8 */
    uint32_t id;
    bool
        sent_at_once; /* what others free is never held back: it may be deleted */
    bool
        accounted; /* its blocks of ACE and Huge are its own by id, not all threads',
                     * and it keeps account of them; no block has a guard */
    /* owner */
    bool packed;  /* blocks of all sizes side by side at first; not if sealed */
    bool hasty;   /* it is expected to end soon: heap/haste.h */
    bool waiting; /* free memory waits to go back: look often */
    bool quiet;   /* little happens: look at the first occasion */
    uint8_t share;         /* a bin may hold 1/2^share of the heap's slabs */
    uint8_t sweep_class;   /* the class of sweep_slab */
    uint16_t grant_large;  /* pushes to a bin's next look in a large heap, */
    uint8_t grant_waiting; /* and in any while memory waits, at the most */
    uint8_t skips;         /* looks without a tick that a busy heap still has */
    uint32_t ticked_at;    /* when the heap last had a tick, or 0 */
    uint32_t fell_at;      /* haki_os_tick() when the last fall began */
    uint32_t idle_at;      /* when idle blocks next leave the bins */
    uint32_t packed_at[HAK_PACKED_SLABS]; /* slabs, or HAK_NO_SLAB */
    uint32_t units; /* number of units of the maps in use */
    uint32_t packed_bytes, larger_bytes; /* see above */
    uint32_t packed_seen;                /* the most since the last sweep */
    uint32_t freed_from;                 /* the lowest unit that became free */
    uint8_t from[HAK_TINY_CLASSES]; /* where searches begin, apart from that */
    uint32_t round; /* of a profile, as it was when the bins last drew */
    struct hak_allowance allow; /* what it may keep, Pool's and runs included */
    uint32_t all;               /* first of all slabs */
    uint32_t nslabs;            /* those that are not sealed */
    uint32_t most_slabs; /* the most of these since a thread owns the heap */
    uint32_t nempty;     /* those of them kept without a block in use */
    uint32_t nsealed;    /* sealed slabs */
    uint32_t nstale;     /* stale lists */
    uint32_t sweep_at;   /* when slabs are next swept (0: no pass under way), */
    uint32_t sweep_slab; /* from this one on */
    int64_t
        swept_low; /* in use at the lowest sweep, see haki_heap_sweep_sparse */
    int64_t fall_price; /* how deep the next fall must be, after */
    uint8_t falls;      /* this many; up to a bound */
    uint8_t
        packed_falls; /* the same for packed slabs, whose sweeps are others; */
    uint16_t packed_low; /* in grains */
    uint16_t packed_price;
    haki_frames_fn *frames; /* its own runtime's, or NULL */
    uint64_t refills, flushes;
    uint64_t remote_frees; /* blocks that came through the inbox */
    uint64_t remote_bytes;
    int64_t
        taken[HAK_TINY_CLASSES]; /* blocks that are out of slabs, see above */
    struct hak_shelf shelves[HAK_TINY_CLASSES];
    /* any thread */
    _Atomic(bool) busy; /* in a slow path: not to be adopted after a fork */
    /* owner */
    bool sampled;     /* a profile is on, as far as the heap knows */
    bool was_sampled; /* since the page for it was last zero */
    /* any thread */
    _Atomic(uint32_t) sealed_inbox;    /* sealed slabs with remote != 0 */
    _Atomic(struct hak_block *) inbox; /* blocks that others freed */
};

/*
 * The maps of the packed slabs begin at the end of the heap's first page, so
 * that a heap of 20 KB needs no other page, and end on the second.
 */
#define HAK_UNITS_NEAR 40u
#define HAK_UNITS_AT (HAK_PAGE - HAK_UNITS_NEAR * sizeof(struct hak_unit))
HAK_INLINE struct hak_unit *haki_tiny_units(const struct hak_tiny *tiny)
{
    return (struct hak_unit *)(void *)((char *)(uintptr_t)tiny + HAK_UNITS_AT);
}

/*
 * In their place, HAK_OUTBOXES_BYTES, a thread's heap, which is not packed, has its
 * outboxes, and behind them Pool's boxes for other threads' blocks (heap.h). An explicit
 * heap has none: its user frees what belongs to other heaps as a thread.
 */
#define HAK_OUTBOXES_BYTES (HAK_UNITS_NEAR * sizeof(struct hak_unit))
HAK_INLINE struct hak_outbox *haki_tiny_outbox(const struct hak_tiny *tiny,
                                               unsigned i)
{
    HAK_ASSERT(!tiny->accounted && !tiny->packed);
    return (struct hak_outbox *)(void *)((char *)(uintptr_t)tiny +
                                         HAK_UNITS_AT) +
           i;
}

/*
 * What a heap needs while there is a profile: a page of its slot, zeros or what was
 * there before.
 */
#define HAK_SAMPLING_AT (14 * HAK_PAGE)
HAK_INLINE struct hak_sampling *haki_tiny_sampling(const struct hak_tiny *tiny)
{
    return (struct hak_sampling *)(void *)((char *)(uintptr_t)tiny +
                                           HAK_SAMPLING_AT);
}

/* Blocks given out of a bin, ever. */
HAK_INLINE uint64_t haki_bin_pops(const struct hak_tiny *tiny, unsigned class)
{
    const volatile int64_t *word = &tiny->bins[class].until;
    int64_t until = *word;

    return (uint64_t)((tiny->sampled ? haki_tiny_sampling(tiny)->at[class]
                                     : HAK_NEVER) -
                      (until > 0 ? until : 0));
}

/* Whether a sample is due in a bin with this `until`, or another round has begun. */
HAK_INLINE bool haki_tiny_must_draw(const struct hak_tiny *tiny, int64_t until)
{
    return until < 0 ||
           tiny->round !=
               atomic_load_explicit(&haki_profile.round, memory_order_relaxed);
}

/* All bins draw anew; the caller marks itself as busy. */
void haki_tiny_draw_round(struct hak_tiny *tiny);

/* Blocks of the class come out of slabs, and none was: draws, if nothing has yet. */
void haki_tiny_draw_first(struct hak_tiny *tiny, unsigned class);

/* From here on it counts as without a profile, until its next slow path. */
void haki_tiny_draw_never(struct hak_tiny *tiny);

/*
 * Whether `bytes` bytes that are given out, but not of a bin, are a sample. Who
 * then: haki_tiny_sampler.
 */
bool haki_tiny_is_due_slow(struct hak_tiny *tiny, size_t bytes);
HAK_INLINE bool haki_tiny_is_due(struct hak_tiny *tiny, size_t bytes)
{
    return HAK_UNLIKELY(tiny->sampled || haki_tiny_must_draw(tiny, 0)) &&
           haki_tiny_is_due_slow(tiny, bytes);
}
struct hak_sampler haki_tiny_sampler(struct hak_tiny *tiny);

/* Makes the state of heap `id` (at least 1): an explicit one's or a thread's. */
void haki_tiny_init(struct hak_tiny *tiny, uint32_t id, bool is_explicit);

/* The properties of its kind are an explicit heap's, or a thread's. */
void haki_tiny_set_kind(struct hak_tiny *tiny, bool is_explicit);

/* Gives back every slab, even with blocks in use. O(slabs). */
void haki_tiny_release(struct hak_tiny *tiny);

/* Fills the class's bin if it is empty, and pops a block, or if a sample is due takes
 * that. NULL: out of memory. */
HAK_NOINLINE void *haki_tiny_refill(struct hak_tiny *tiny, unsigned class);

/*
 * Looks at a bin of `tiny` whose `left` a push has brought below 0. Returns
 * whether it holds more than at the last look, or gave some back.
 */
HAK_NOINLINE bool haki_tiny_look(struct hak_tiny *tiny, struct hak_bin *bin);

/*
 * A heap of more slabs than this looks at its bins now and then and gives back
 * what they have kept for long, even if no other memory waits to go back.
 */
#define HAK_TINY_LARGE 64

/*
 * Settles all bins; if together they hold too much, the fullest are emptied
 * into the slabs.
 */
void haki_tiny_shed(struct hak_tiny *tiny);

/* Sets every bin's next look according to the state of the heap. */
void haki_tiny_grant_all(struct hak_tiny *tiny);

/* Gives back what bins have kept for long; called on slow paths. */
void haki_tiny_tick(struct hak_tiny *tiny);

/* Takes back what other threads freed. */
void haki_tiny_collect(struct hak_tiny *tiny);

/* Empties the bins into the slabs and gives back every unused slab. */
void haki_tiny_trim(struct hak_tiny *tiny);

/*
 * Gives back those pages of slabs that hold no block in use; returns their
 * bytes. The caller marks itself as busy. O(slabs), and O(free blocks) for
 * slabs that have changed.
 */
size_t haki_tiny_sweep(struct hak_tiny *tiny);

/*
 * From here on blocks stay in the bins, Pool's too: for a heap about to be
 * released.
 */
void haki_tiny_hold(struct hak_tiny *tiny);

/*
 * Blocks of a class that users have (or that are on their way back): popped and
 * not freed. Any thread may ask; the number may then be a moment old.
 */
uint64_t haki_tiny_live(const struct hak_tiny *tiny, unsigned class);

/*
 * Marks slow paths. A fork in another thread may copy a heap at any
 * instruction: outside these marks its lists are whole. The mark is set before
 * the lists are touched and cleared after.
 */
HAK_INLINE void haki_tiny_busy(struct hak_tiny *tiny, bool on)
{
    HAK_ASSERT(atomic_load(&tiny->busy) != on); /* slow paths don't nest */
    HAK_WALK(on ? (void)0 : haki_tiny_walk_if_due(tiny));
    atomic_store_explicit(&tiny->busy, on, memory_order_release);
    haki_fence_release();
}

/*
 * The class of p, an address in a slab with this tag. In a packed slab it may
 * be no class: p is in a block above 1024 B, or free.
 */
unsigned haki_tiny_class_at_tag(const void *p, uint32_t tag);
#define HAK_TINY_LARGER HAK_TINY_CLASSES
#define HAK_TINY_NONE 0xffu

/* The size of the block that p lies in, or 0. */
size_t haki_tiny_bytes_of(const void *p, uint32_t tag);

/*
 * Allocates a block of more than 1024 B in a packed heap. NULL: there is no
 * place for it, or the heap is not packed.
 */
void *haki_tiny_larger_alloc(struct hak_tiny *tiny, size_t size);

/*
 * Gives back pages of packed slabs if much of them is free that was not at the
 * last look. The caller marks itself as busy.
 */
void haki_tiny_grain_sweep_sparse(struct hak_tiny *tiny);

/* Resident bytes of packed slabs, as far as their maps reach. */
size_t haki_tiny_grain_resident(const struct hak_tiny *tiny);

/* Frees p, such a block of this heap. */
void haki_tiny_larger_free(struct hak_tiny *tiny, void *p);

/* The class of the block p. */
HAK_INLINE unsigned haki_tiny_class_at(const void *p)
{
    return haki_tiny_class_at_tag(p, haki_range_tag_of(p));
}

/* Class bytes below this are Tiny's. */
#define HAK_TAG_TINY_END (HAK_TAG_TINY * HAK_TINY_CLASSES)

_Static_assert(HAK_TAG_TINY_END <= HAK_TAG_POOL, "class bytes differ");
_Static_assert(sizeof(struct hak_bin) == 8 * HAK_TAG_TINY,
               "the bins' distances, see haki_tiny_bin");

/*
 * The bin of a Tiny class byte. The next allocation waits for what a free
 * writes there: so this uses as few instructions as possible.
 */
HAK_INLINE struct hak_bin *haki_tiny_bin(struct hak_tiny *tiny, uint32_t byte)
{
    return (struct hak_bin *)((char *)tiny->bins + (size_t)byte * 8);
}

/*
 * Whether p, of the class that haki_tiny_class_at_tag returned, was ever given
 * out.
 */
bool haki_tiny_is_carved(const void *p, uint32_t tag, unsigned class);

/* Whether p, for which haki_tiny_is_carved is true, is the start of a block. */
bool haki_tiny_is_block(const void *p, uint32_t tag, unsigned class);

/* Pops a block, or NULL: the bin is empty, or a sample is due; haki_tiny_refill. */
HAK_INLINE void *haki_bin_pop(struct hak_bin *bin)
{
    struct hak_block *block = bin->head;

    if (HAK_LIKELY(block != NULL)) {
        struct hak_block *next;

        if (HAK_UNLIKELY(--bin->until < 0)) {
            return NULL;
        }
        next = haki_link_get(block);
        bin->head = next;
        haki_link_wipe(block);
    }
    return block;
}

/*
 * Hardened build: ends the program if p, a block in a Tiny slab that is being
 * freed, is free already: in a list, or on a page that is gone.
 */
HAK_INLINE void haki_tiny_refuse(const void *p)
{
    if (HAK_HARD) {
        const struct hak_slab *slab = haki_range_slab(haki_range_number(p));
        uint32_t page = ((uintptr_t)p & (HAK_SLAB_SIZE - 1)) / HAK_PAGE;

        /*
         * Its owner may be changing it, but not for the page of a block in use.
         */
        if (HAK_UNLIKELY((__atomic_load_n(&slab->gone, __ATOMIC_RELAXED) >>
                              page &
                          1) != 0)) {
            haki_hard_freed(p, "free");
        }
        haki_link_refuse(p);
    }
}

/*
 * haki_remote_free for the start of a Tiny block with this tag, if the outbox has
 * others for the same heap and isn't full with this one. False: nothing was done.
 */
HAK_INLINE bool haki_remote_join(struct hak_tiny *self, struct hak_block *block,
                                 uint32_t tag)
{
    uint32_t id = tag >> HAK_TAG_CLASS_BITS; /* if it is sealed, nobody's */
    struct hak_outbox *box = haki_tiny_outbox(self, id % HAK_OUTBOXES);

    if (HAK_UNLIKELY(box->id != id || box->count - 1 >= HAK_OUTBOX_MOST - 2)) {
        return false;
    }
    haki_tiny_refuse(block);
    haki_tiny_busy(self, true);
    haki_link_set(block, box->head);
    box->head = block;
    box->count++;
    haki_tiny_busy(self, false);
    return true;
}

/* Pushes a block; false: it is time for haki_tiny_look. */
HAK_INLINE bool haki_bin_push(struct hak_bin *bin, void *p)
{
    struct hak_block *block = p;

    haki_tiny_refuse(block);
    haki_link_set(block, bin->head);
    bin->head = block;
    return --bin->left >= 0;
}

HAK_INLINE void *haki_tiny_alloc(struct hak_tiny *tiny, unsigned class)
{
    void *p = haki_bin_pop(&tiny->bins[class]);

    return HAK_LIKELY(p != NULL) ? p : haki_tiny_refill(tiny, class);
}

HAK_INLINE void haki_tiny_free(struct hak_tiny *tiny, unsigned class, void *p)
{
    struct hak_bin *bin = &tiny->bins[class];

    if (HAK_UNLIKELY(!haki_bin_push(bin, p))) {
        haki_tiny_look(tiny, bin);
    }
}

#endif /* HAK_TINY_H */
