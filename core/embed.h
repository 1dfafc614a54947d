/*
 * embed.h - the core for adapters: the one header of it that an adapter
 * includes.
 *
 * An adapter serves a runtime from heaps: explicit ones, which are used by one
 * thread at a time and end as a whole, or each thread's own (haki_thread_own).
 * Its hot paths consist of three steps that are inline here:
 *
 *     the bin of a size          haki_embed_bin_for, haki_embed_bin
 *     the bin of a block         haki_embed_byte, haki_embed_bin_at
 *     a pop, or a push           haki_embed_pop, haki_embed_push, haki_embed_look
 *
 * and what they can't do (an empty bin, a larger size, somebody else's block)
 * is left to functions that take a heap (haki_embed_alloc, haki_large_*) or use
 * the calling thread's (haki_hot_*, haki_lane_*). Functions that run out of
 * memory return NULL; asking the system's allocator, raising an error or
 * collecting garbage is up to the adapter.
 *
 * Whatever else an adapter may use is declared by the headers included here,
 * from the folders base, guard (the hardened build), settings (a table of
 * options), profile (haki_profile_*, struct hak_frame), system (why a lane had no
 * block), upkeep, front and api, and
 * heap/thread.h, os/lock.h and the haki_limit_* of range/pressure.h. Adapters
 * use no field of a struct of the core, and no name from range, tiny, pool, ace
 * or huge.
 */
#ifndef HAK_EMBED_H
#define HAK_EMBED_H

#include <hakmem.h>

#include <string.h>

#include "api/embed_heap.h"
#include "api/inside.h"
#include "api/profiling.h"
#include "api/stats.h"
#include "base/msg.h"
#include "base/stub.h"
#include "front/behind.h"
#include "front/check.h"
#include "front/hard_lane.h"
#include "front/hot.h"
#include "front/lane.h"
#include "front/large.h"
#include "heap/account.h"
#include "heap/thread.h"
#include "os/lock.h"
#include "os/os.h"
#include "profile/copies.h"
#include "range/purge.h"
#include "range/slots.h"
#include "settings/options.h"
#include "tiny/tiny_seal.h"
#include "upkeep/background.h"
#include "upkeep/look.h"
#include "upkeep/relief.h"

/* ---- room for the adapter, all heaps ---------------------------------------- */

/*
 * A heap's first page has room for its adapter: this many bytes, zero when the
 * heap is made. In a thread's heap the first HAK_EMBED_COUNTERS words are
 * counters: such a heap may end at any time, and its counters are then added to
 * haki_embed_past.
 */
#define HAK_EMBED_EXTRA HAK_HEAP_EXTRA
#define HAK_EMBED_COUNTERS HAK_HEAP_COUNTERS

HAK_INLINE void *haki_embed_extra(struct hak_heap *heap)
{
    return haki_heap_extra(heap);
}

/* The heap that this room belongs to, without a load. */
HAK_INLINE struct hak_heap *haki_embed_heap(const void *extra)
{
    return (struct hak_heap *)((char *)extra - HAK_HEAP_EXTRA_AT);
}

/* The heap's name; HAK_EMBED_NAME bytes. */
#define HAK_EMBED_NAME HAK_HEAP_NAME
HAK_INLINE const char *haki_embed_name(const struct hak_heap *heap)
{
    return heap->name;
}

/*
 * Walks over all heaps: *heap becomes the next one after `id`, 0 at first.
 * Returns its id; 0: there is none. Any thread; heaps made meanwhile may be
 * left out. The caller must prevent the deletion of a heap that it uses.
 */
HAK_INLINE uint32_t haki_embed_next(uint32_t id, struct hak_heap **heap)
{
    id = haki_range_heap_next(id);
    *heap = id != 0 ? haki_range_heap(id) : NULL;
    return id;
}

/* The bytes of a slab; heaps have whole slabs. */
#define HAK_EMBED_SLAB HAK_SLAB_SIZE

/* ---- sizes and bins ---------------------------------------------------------- */

/* The number of classes of Tiny, which serves sizes up to HAK_LANE_TINY_MAX. */
#define HAK_EMBED_CLASSES ((unsigned)HAK_TINY_CLASSES)

/* The class for a Tiny size, with blocks that are multiples of 8, or of 16. */
HAK_INLINE unsigned haki_embed_class_8(size_t size)
{
    return haki_tiny_class_8[haki_tiny_index(size)];
}

HAK_INLINE unsigned haki_embed_class_16(size_t size)
{
    return haki_tiny_class_16[haki_tiny_index(size)];
}

/* The bytes of a block of that class. */
HAK_INLINE size_t haki_embed_class_bytes(unsigned class)
{
    return haki_tiny_size[class];
}

HAK_INLINE struct hak_bin *haki_embed_bin(struct hak_heap *heap, unsigned class)
{
    return &heap->tiny.bins[class];
}

/* For sizes from 1 to this a bin is found without a table. */
#define HAK_EMBED_STEP_MAX ((size_t)HAK_TINY_STEP_MAX)

/* The bin for such a size; `step` is 8 or 16, a constant. */
HAK_INLINE struct hak_bin *haki_embed_bin_for(struct hak_heap *heap,
                                              size_t size, size_t step)
{
    char *first = (char *)&heap->tiny.bins[step / 8 - 1];

    return (struct hak_bin *)(void *)(first + ((size - 1) & ~(step - 1)) *
                                                  (sizeof(struct hak_bin) / 8));
}

/*
 * Copies the first n bytes of a Tiny block to another one, rounded up to whole
 * `step`s, 8 or 16, a constant, as both blocks are. For few bytes: no call. With
 * 16 it copies a step even if n is 0.
 */
HAK_INLINE void haki_embed_copy(void *to, const void *from, size_t n,
                                size_t step)
{
    size_t i = 0;

    if (step == 16) {
        do {
            memcpy((char *)to + i, (const char *)from + i, 16);
            i += 16;
        } while (i < n);
        return;
    }
    for (; i + 8 < n; i += 16) { /* arrays, most of what grows */
        memcpy((char *)to + i, (const char *)from + i, 16);
    }
    if (i < n) {
        memcpy((char *)to + i, (const char *)from + i, 8);
    }
}

/* A block, or NULL: the bin is empty. */
HAK_INLINE void *haki_embed_pop(struct hak_bin *bin)
{
    return haki_bin_pop(bin);
}

/* Takes back a block; false: call haki_embed_look next. */
HAK_INLINE bool haki_embed_push(struct hak_bin *bin, void *p)
{
    return haki_bin_push(bin, p);
}

/* Answers who has asked for statistics, or for a profile. */
void haki_embed_show(void);

/*
 * The look at a bin that a push has asked for, and that; haki_heap_look also does
 * whatever else is due.
 */
HAK_INLINE void haki_embed_look(struct hak_heap *heap, struct hak_bin *bin)
{
    haki_heap_look_bin(heap, bin);
    if (haki_look_is_asked()) {
        haki_embed_show();
    }
}

/* A block of the class; fills the bin if it is empty. NULL: no memory. */
HAK_INLINE void *haki_embed_alloc(struct hak_heap *heap, unsigned class)
{
    return haki_tiny_alloc(&heap->tiny, class);
}

/* Takes back a block, and looks at the bin if that is due. */
HAK_INLINE void haki_embed_free(struct hak_heap *heap, unsigned class, void *p)
{
    haki_tiny_free(&heap->tiny, class, p);
}

/* How often one of the heap's bins had to be filled. */
HAK_INLINE uint64_t haki_embed_refills(const struct hak_heap *heap)
{
    return heap->tiny.refills;
}

/* ---- blocks by their address ------------------------------------------------- */

/* Whether p is in the range: ours, free, or somebody else's mapping. */
HAK_INLINE bool haki_embed_covers(const void *p)
{
    return haki_range_covers(p);
}

/* Whether p is an address of ours. */
HAK_INLINE bool haki_embed_owns(const void *p)
{
    return haki_range_owns(p);
}

/* The tag of the slab of p, in the range; see haki_tag_is_large, and below. */
HAK_INLINE uint32_t haki_embed_tag(const void *p)
{
    return haki_range_tag_of(p);
}

/* A slab's class byte, whichever heap has it. */
HAK_INLINE uint32_t haki_embed_tag_byte(uint32_t tag)
{
    return HAK_TAG_CLASS(tag);
}

/*
 * The slab's class byte if the slab is this heap's: below HAK_EMBED_TINY a Tiny
 * class. The functions below tell what other values mean.
 */
#define HAK_EMBED_TINY HAK_TAG_TINY_END
HAK_INLINE uint32_t haki_embed_byte(const struct hak_heap *heap, uint32_t tag)
{
    return tag ^ heap->tiny.tag;
}

/* For a byte below HAK_EMBED_TINY: the bin, and the size of the block. */
HAK_INLINE struct hak_bin *haki_embed_bin_at(struct hak_heap *heap,
                                             uint32_t byte)
{
    return haki_tiny_bin(&heap->tiny, byte);
}

HAK_INLINE size_t haki_embed_bytes_at(uint32_t byte)
{
    return haki_tiny_size[byte / HAK_TAG_TINY];
}

/* Whether the slab is the heap's and Tiny's, but sealed. */
HAK_INLINE bool haki_embed_is_sealed(uint32_t byte)
{
    return (byte ^ HAK_TAG_SEALED) < HAK_TAG_TINY_END;
}

/* Takes back a block in such a slab. */
HAK_INLINE void haki_embed_free_sealed(struct hak_heap *heap, void *p,
                                       uint32_t tag)
{
    haki_tiny_seal_free(&heap->tiny, p, tag);
}

/*
 * The class of the Tiny block p, in a slab with this tag, which may be a packed
 * one. HAK_EMBED_CLASSES or more: no block was given out there.
 */
HAK_INLINE unsigned haki_embed_class_of(const void *p, uint32_t tag)
{
    return haki_tiny_class_at_tag(p, tag);
}

/* haki_tiny_larger_alloc: a block above 1024 B of a packed heap, or NULL. */
HAK_INLINE void *haki_embed_larger_alloc(struct hak_heap *heap, size_t size)
{
    return haki_tiny_larger_alloc(&heap->tiny, size);
}

/*
 * Whether the size of p, in the range, is its own and no class's: it lies in a packed
 * slab (tiny.h), or a profile has sampled it.
 */
HAK_INLINE bool haki_embed_is_packed(const void *p)
{
    unsigned byte = HAK_TAG_CLASS(haki_range_tag_of(p));

    return byte == HAK_TAG_PACKED || byte == HAK_TAG_SAMPLE;
}

/* The size of the Tiny block that p lies in, or 0. */
HAK_INLINE size_t haki_embed_block_bytes(const void *p, uint32_t tag)
{
    return haki_tiny_bytes_of(p, tag);
}

/* Whether a larger block (haki_tag_is_large) is this heap's. */
HAK_INLINE bool haki_embed_has_large(const struct hak_heap *heap, const void *p,
                                     uint32_t tag)
{
    uint32_t owner = HAK_TAG_HEAP(tag);

    if (owner == HAK_ID_SHARED) {
        haki_large_find(p, &owner);
    }
    return owner == heap->tiny.id;
}

/* Whether a Tiny or Pool slab with this tag is this heap's. */
HAK_INLINE bool haki_embed_has_slab(const struct hak_heap *heap, uint32_t tag)
{
    return HAK_TAG_HEAP(tag) == heap->tiny.id;
}

/* ---- Pool's bins --------------------------------------------------------------- */

/* The Pool class for a size from HAK_LANE_POOL_MIN to HAK_LANE_POOL_MAX. */
HAK_INLINE unsigned haki_embed_pool_class(size_t size)
{
    return haki_pool_class_for(size);
}

HAK_INLINE size_t haki_embed_pool_bytes(unsigned class)
{
    return haki_pool_classes[class].block;
}

/*
 * The Pool class of a byte from haki_embed_byte; HAK_EMBED_POOLS or more: it is
 * not Pool's.
 */
#define HAK_EMBED_POOLS HAK_POOL_CLASSES
HAK_INLINE uint32_t haki_embed_pool_at(uint32_t byte)
{
    return byte - HAK_TAG_POOL;
}

/* Whether the heap has these bins: it has had a block above Tiny. */
HAK_INLINE bool haki_embed_has_pool(const struct hak_heap *heap)
{
    return heap->pool != NULL;
}

/* Makes them, if the heap does not have them yet. */
HAK_INLINE void haki_embed_use_pool(struct hak_heap *heap)
{
    haki_heap_use_large(heap);
}

/* The slabs that Pool's bins have; 0 if the heap has no such bins. */
HAK_INLINE size_t haki_embed_pool_slabs(const struct hak_heap *heap)
{
    return heap->pool != NULL ? heap->pool->nslabs : 0;
}

/* As haki_embed_pop, for a heap that has them. */
HAK_INLINE void *haki_embed_pool_pop(struct hak_heap *heap, unsigned class)
{
    return haki_pool_pop(heap->pool, class);
}

/* A block of the class; fills the bin if it is empty. NULL: no memory. */
HAK_INLINE void *haki_embed_pool_alloc(struct hak_heap *heap, unsigned class)
{
    return haki_pool_alloc(heap->pool, class);
}

/*
 * Takes back p, whose byte is that of the class; *looked: a look was due and
 * was done. False: p is not the start of a block; nothing was done.
 */
HAK_INLINE bool haki_embed_pool_push(struct hak_heap *heap, unsigned class,
                                     void *p, bool *looked)
{
    *looked = false;
    if (HAK_UNLIKELY(!haki_pool_is_start(p, class))) {
        return false;
    }
    if (HAK_UNLIKELY(!haki_pool_push(heap->pool, class, p))) {
        haki_pool_look(heap->pool, class);
        *looked = true;
    }
    return true;
}

/* ---- an explicit heap's account ---------------------------------------------- */

/*
 * hak_heap_malloc and hak_heap_free charge the heap's account, and so do these
 * two, which are their hot paths: NULL or false leaves the request to those
 * functions.
 */
HAK_INLINE void *haki_embed_charged_alloc(struct hak_heap *heap, size_t size)
{
    unsigned class;
    void *p;

    if (HAK_UNLIKELY(size > HAK_LANE_TINY_MAX)) {
        return NULL;
    }
    class = haki_tiny_class_16[haki_tiny_index(size)];
    if (HAK_UNLIKELY(!haki_account_fits(heap, haki_tiny_size[class]))) {
        return NULL;
    }
    p = haki_bin_pop(&heap->tiny.bins[class]);
    if (HAK_LIKELY(p != NULL)) {
        haki_account_charge(heap, haki_tiny_size[class]);
    }
    return p;
}

/*
 * The bin of a Tiny block of this heap. NULL: p is not one, or something is
 * wrong with it.
 */
HAK_INLINE struct hak_bin *haki_embed_bin_of(struct hak_heap *heap,
                                             const void *p)
{
    uint32_t tag = haki_range_tag_of(p);
    uint32_t byte = tag ^ heap->tiny.tag;
    struct hak_bin *bin;
    unsigned class;

    if (HAK_LIKELY(byte < HAK_TAG_TINY_END)) {
        bin = haki_tiny_bin(&heap->tiny, byte);
        return haki_tiny_is_start((uintptr_t)p, bin->magic) ? bin : NULL;
    }
    if (byte != HAK_TAG_PACKED) {
        return NULL;
    }
    class = haki_tiny_class_at_tag(p, tag);
    return class < HAK_TINY_CLASSES && haki_tiny_is_block(p, tag, class)
               ? &heap->tiny.bins[class]
               : NULL;
}

HAK_INLINE bool haki_embed_charged_free(struct hak_heap *heap, void *p)
{
    struct hak_bin *bin;

    if (HAK_HARD || HAK_UNLIKELY(!haki_range_covers(p))) {
        return false;
    }
    bin = haki_embed_bin_of(heap, p);
    if (HAK_UNLIKELY(bin == NULL)) {
        return false;
    }
    haki_account_discharge(heap, haki_tiny_size[bin - heap->tiny.bins]);
    if (HAK_UNLIKELY(!haki_bin_push(bin, p))) {
        haki_heap_look(heap, bin);
    }
    return true;
}

/* Sets the limit, in bytes; SIZE_MAX: none. Blocks already in use stay. */
HAK_INLINE void haki_embed_set_limit(struct hak_heap *heap, size_t limit)
{
    haki_account_set_limit(heap, limit);
}

/* How many requests the limit has refused. */
HAK_INLINE uint64_t haki_embed_refusals(const struct hak_heap *heap)
{
    return heap->limit_refusals;
}

/*
 * For the heap's user: gives back what it keeps free. The second also gives
 * back free pages of slabs in use, which causes page faults when they are used
 * again; it returns the bytes of these pages.
 */
HAK_INLINE void haki_embed_trim(struct hak_heap *heap)
{
    haki_heap_trim(heap);
}

HAK_INLINE size_t haki_embed_sweep(struct hak_heap *heap)
{
    return haki_heap_sweep(heap);
}

/* From here on blocks stay in bins: the heap is about to be deleted. */
HAK_INLINE void haki_embed_hold(struct hak_heap *heap)
{
    haki_tiny_hold(&heap->tiny);
}

/* ---- samples: profile/profile.h ------------------------------------------------ */

/*
 * A profile (hak_profile_start) samples all heaps by itself. A sampled block of a size
 * of Tiny's or Pool's lies in no slab of the heap: its tag is one of
 * haki_tag_is_large, and haki_large_find, _free, _resize have it.
 *
 * An adapter adds the runtime's frames: for the process haki_profile_set_frames, whose
 * function finds out which thread runs what; for a heap that is one runtime's (a Lua
 * state) this, NULL: none. By the heap's user. The function fills frames with names
 * that haki_profile_name has interned (keep the numbers where you can: it takes a
 * lock), or with a token, whose line is asked for when the profile is written.
 */
HAK_INLINE void haki_embed_set_frames(struct hak_heap *heap,
                                      haki_frames_fn *frames)
{
    heap->tiny.frames = frames;
    if (heap->pool != NULL) {
        heap->pool->who = haki_tiny_sampler(&heap->tiny);
    }
}

/*
 * The heap takes part in a profile that has just been switched, from its next
 * request on, and not only from its next slow path. For its user.
 */
HAK_INLINE void haki_embed_draw(struct hak_heap *heap)
{
    haki_heap_draw(heap);
}

/* ---- the process --------------------------------------------------------------- */

/* Makes the range, if that has not been done yet. False: there can be none. */
HAK_INLINE bool haki_embed_begin(void)
{
    return haki_range_init();
}

/* HAKMEM_LIMIT in bytes; SIZE_MAX: there is none. */
HAK_INLINE size_t haki_embed_limit(void)
{
    return atomic_load_explicit(&haki_pressure.limit, memory_order_relaxed);
}

/*
 * Where all our blocks lie but those that a profile samples, which come before them:
 * the first address, and how many bytes may become ours. 0 bytes: there is no range,
 * and all requests go to the system. A caller that goes by the address and a size that
 * it knows (sized frees) takes a sample for a larger block, which haki_large_free frees.
 */
HAK_INLINE size_t haki_embed_window(uintptr_t *base)
{
    size_t samples, skip;

    *base = HAK_LOAD(haki_range.base);
    if (HAK_LOAD(haki_range.size) == 0) {
        return 0;
    }
    skip = (size_t)haki_range_samples(&samples) * HAK_EMBED_SLAB + samples;
    *base += skip;
    return haki_range.window - skip;
}

/*
 * Whether other allocators' blocks may lie there: see haki_range_may_overlap.
 */
HAK_INLINE bool haki_embed_is_shared_window(void)
{
    return haki_range_may_overlap || haki_range_limited();
}

/* When free memory is next due to go back, in milliseconds; 0: none waits. */
HAK_INLINE uint32_t haki_embed_due(void)
{
    return atomic_load_explicit(&haki_range_due, memory_order_relaxed);
}

/* Whether any free memory waits: slabs, or ACE's holes. */
HAK_INLINE bool haki_embed_waits(void)
{
    return haki_range_waiting() ||
           atomic_load_explicit(&haki_ace_due, memory_order_relaxed) != 0;
}

#endif /* HAK_EMBED_H */
