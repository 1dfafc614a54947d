/*
 * large.c - the lanes above Tiny, on a given heap.
 *
 * A slab's tag says which lane a block belongs to; see range.h.
 *
 * Tested by tests/unit/front/lane.c and tests/unit/front/large_misuse.c.
 */
#include <string.h>

#include "upkeep/background.h"
#include "front/lane.h"
#include "front/large.h"
#include "heap/account.h"
#include "heap/outspan.h"
#include "os/os.h"
#include "upkeep/relief.h"
#include "heap/thread.h"
#include "range/purge.h"
#include "range/slots.h"
#include "upkeep/look.h"

/* From this size on, fresh pages that are about to be written are populated. */
#define POPULATE_LEAST (32 * HAK_KIB)

/* The Pool class whose blocks fit and are aligned, or HAK_POOL_CLASSES. */
static unsigned large_pool_class(size_t alignment, size_t size)
{
    unsigned class = haki_pool_class_for(haki_max(size, HAK_LANE_POOL_MIN));

    while (class < HAK_POOL_CLASSES &&
           haki_pool_classes[class].block % alignment != 0) {
        class += 1;
    }
    return class;
}

/* Charges an explicit heap for a block that is found by its owner only. */
static void *large_owned(struct hak_heap *heap, void *p, size_t bytes)
{
    if (p != NULL && heap->tiny.accounted) {
        haki_account_charge_other(heap, bytes);
    }
    return p;
}

/* ---- samples of ACE's and Huge's ---------------------------------------------- */

static void large_mark(const void *p, bool sampled)
{
    if (HAK_TAG_CLASS(haki_range_tag_of(p)) == HAK_TAG_ACE) {
        haki_ace_mark(p, sampled);
    } else {
        haki_huge_mark(p, sampled);
    }
}

static void large_note(void *p, size_t bytes, const struct hak_sampler *who)
{
    large_mark(p, true);
    if (!haki_sample_note(p, bytes, who)) {
        large_mark(p, false);
    }
}

/* p, of these lanes, was given out by the heap: it may be a sample. */
static void *large_sample(struct hak_heap *heap, void *p, size_t bytes)
{
    struct hak_sampler who;

    if (p != NULL && haki_tiny_is_due(&heap->tiny, bytes)) {
        who = haki_tiny_sampler(&heap->tiny);
        large_note(p, bytes, &who);
    }
    return p;
}

/* The same of a block that has another size now. The calling thread's heap counts, as
 * anybody may resize it; but a heap with a runtime of its own counts itself, since its
 * user alone does that, and it knows the frames. */
static void large_sample_again(void *p, size_t bytes, uint32_t owner)
{
    struct hak_heap *made =
        owner != HAK_ID_SHARED ? haki_range_heap(owner) : NULL;
    struct hak_heap *heap = haki_thread_own();
    struct hak_sampler who;

    if (heap == NULL || (made != NULL && made->tiny.frames != NULL)) {
        heap = made;
    }
    if (heap != NULL && haki_tiny_is_due(&heap->tiny, bytes)) {
        who = haki_tiny_sampler(&heap->tiny);
        who.owner = owner;
        who.live =
            made != NULL ? &haki_tiny_sampling(&made->tiny)->samples : NULL;
        large_note(p, bytes, &who);
    }
}

/* Whether there may be records at all. */
static bool large_was_profile(void)
{
    return atomic_load_explicit(&haki_profile.round, memory_order_relaxed) != 0;
}

/* The heap of an explicit heap's block has a sample less. */
static void large_count_sample(uint32_t owner)
{
    struct hak_heap *heap;

    if (owner != HAK_ID_SHARED) {
        heap = haki_range_heap(owner);
        atomic_fetch_sub_explicit(&haki_tiny_sampling(&heap->tiny)->samples, 1,
                                  memory_order_relaxed);
    }
}

/* A block of these lanes with such an owner is freed: its record, if any, goes. */
static void large_forget(void *p, uint32_t owner)
{
    struct hak_sampled sampled;

    if (HAK_UNLIKELY((owner & HAK_OWNER_SAMPLED) != 0) &&
        haki_sample_free(p, &sampled)) {
        large_count_sample(sampled.owner);
    }
}

/* p, guarded or nothing, is freed by who works on `heap`. */
static void large_guarded_freeing(struct hak_heap *heap, void *p)
{
    struct hak_sampler who = {.heap = NULL};

    if (heap != NULL) {
        who = haki_tiny_sampler(&heap->tiny);
    }
    haki_guarded_freeing(p, &who);
}

/* A block in the samples' slabs. The account of an explicit heap is who has it and
 * frees it there; other threads leave it a note. */
static bool large_sample_free(struct hak_heap *heap, void *p)
{
    struct hak_sampled sampled;
    struct hak_heap *owner;

    if (HAK_UNLIKELY(haki_guarded_covers(p))) {
        large_guarded_freeing(heap, p);
    }
    if (!haki_sample_free(p, &sampled)) {
        return false;
    }
    large_count_sample(sampled.owner);
    if (sampled.owner != HAK_ID_SHARED &&
        (heap == NULL || heap->tiny.id != sampled.owner)) {
        owner = haki_range_heap(sampled.owner);
        atomic_fetch_add_explicit(
            &haki_tiny_sampling(&owner->tiny)->samples_freed, sampled.bytes,
            memory_order_relaxed);
    }
    return true;
}

/* ---- taking and freeing ---------------------------------------------------------- */

/*
 * Called before `bytes` bytes are taken from a lane that all heaps share. True: much
 * is held by then, and whoever watches is to be shown so (large_taken).
 */
static bool large_before_taking(struct hak_heap *heap, size_t bytes)
{
    bool wanted = HAK_UNLIKELY(haki_relief_wanted(bytes));

    if (wanted) {
        haki_relief_round(heap, haki_os_tick(), bytes);
    }
    return wanted;
}

static void large_taken(bool show)
{
    if (HAK_UNLIKELY(show)) {
        haki_look_show(haki_os_tick(), false);
    }
}

static void *large_ace_alloc(struct hak_heap *heap, size_t alignment,
                             size_t size, bool *zero)
{
    size_t bytes = haki_whole_pages(haki_max(size, HAK_LANE_ACE_LEAST));
    uint32_t pages = (uint32_t)(bytes / HAK_PAGE);
    void *p = NULL;
    bool show;

    if (alignment <= haki_range.page &&
        !haki_is_frugal(&heap->tiny.allow)) { /* see large_ace_free */
        p = haki_ace_cache_take(heap->runs, pages);
    }
    if (p == NULL || heap->runs->takes % HAK_LOOK_EVERY == 0) {
        haki_heap_tick_all(heap);
    }
    if (p == NULL) {
        show = large_before_taking(heap, bytes);
        p = haki_ace_alloc(pages,
                           alignment <= haki_range.page ? HAK_PAGE : alignment,
                           haki_heap_owner(heap), zero);
        haki_keep_took(&heap->tiny.allow, bytes);
        large_taken(show);
    }
    return large_sample(heap, large_owned(heap, p, bytes), bytes);
}

static void *large_huge_alloc(struct hak_heap *heap, size_t alignment,
                              size_t size, bool *zero, enum hak_reason *reason)
{
    /*
     * Not less, whatever the alignment: smaller blocks are charged as Pool's.
     */
    size_t bytes = haki_whole_pages(haki_max(size, HAK_LANE_ACE_LEAST));
    bool show;
    void *p;

    if (bytes > haki_range.window) {
        *reason = HAK_REASON_LARGE;
    } else if (alignment > haki_range.window) {
        *reason = HAK_REASON_ALIGNED;
    }
    haki_heap_tick_all(heap);
    show = large_before_taking(heap, bytes);
    p = haki_huge_alloc(bytes, alignment, haki_heap_owner(heap), zero);
    large_taken(show);
    return large_sample(heap, large_owned(heap, p, bytes), bytes);
}

void *haki_large_alloc(struct hak_heap *heap, size_t alignment, size_t size,
                       bool *zero, enum hak_reason *reason)
{
    unsigned class = HAK_POOL_CLASSES;

    *zero = false;
    *reason = HAK_REASON_MEMORY;
    if (HAK_UNLIKELY(size > PTRDIFF_MAX || heap->tiny.id == 0)) {
        *reason = size > PTRDIFF_MAX ? HAK_REASON_LARGE : HAK_REASON_MEMORY;
        return NULL;
    }
    if (HAK_UNLIKELY(heap->pool == NULL)) {
        haki_heap_use_large(heap);
    }
    if (size <= HAK_LANE_POOL_MAX) {
        class = large_pool_class(alignment, size);
    }
    if (HAK_LIKELY(class < HAK_POOL_CLASSES)) {
        large_before_taking(heap, 0);
        return haki_pool_alloc(heap->pool, class);
    }
    if (size <= HAK_LANE_ACE_MAX && alignment <= HAK_SUPER_SIZE) {
        return large_ace_alloc(heap, alignment, size, zero);
    }
    return large_huge_alloc(heap, alignment, size, zero, reason);
}

/* Discharges an ACE or Huge block from its explicit heap's account. */
static void large_disown(uint32_t owner, size_t bytes)
{
    if (HAK_OWNER(owner) != HAK_ID_SHARED) {
        haki_account_discharge_other(haki_range_heap(HAK_OWNER(owner)), bytes);
    }
}

/* The owner of the ACE or Huge block p, marked if it is a sample; 0: p is none. */
static uint32_t large_owner(const void *p)
{
    struct hak_huge_block block;
    struct hak_ace_run run;

    if (HAK_LIKELY(!large_was_profile())) {
        return 0;
    }
    if (HAK_TAG_CLASS(haki_range_tag_of(p)) == HAK_TAG_ACE) {
        return haki_ace_find(p, &run) ? run.owner : 0;
    }
    return haki_huge_find(p, &block) ? block.owner : 0;
}

static bool large_ace_free(struct hak_heap *heap, void *p)
{
    struct hak_ace_run run;

    /* A frugal heap is one of many: it keeps no runs. */
    if (heap != NULL && heap->runs != NULL &&
        !haki_is_frugal(&heap->tiny.allow)) {
        size_t bytes = haki_ace_cache_put(heap->runs, p, haki_heap_owner(heap));

        if (bytes != 0) {
            large_disown(haki_heap_owner(heap), bytes);
            return true;
        }
    }
    /* First, that nobody who gets it next is taken for what it was. */
    large_forget(p, large_owner(p));
    if (!haki_ace_free(p, &run)) {
        return false;
    }
    large_disown(run.owner, run.bytes);
    return true;
}

static bool large_huge_free(void *p)
{
    struct hak_huge_block block;

    large_forget(p, large_owner(p));
    if (!haki_huge_free(p, &block)) {
        return false;
    }
    large_disown(block.owner, block.size);
    return true;
}

/* Frees a Pool block of this heap. */
static bool large_pool_free(struct hak_heap *heap, void *p)
{
    unsigned class = haki_pool_class_at(p);

    if (HAK_UNLIKELY(!haki_pool_is_start(p, class))) {
        return false;
    }
    if (HAK_UNLIKELY(!haki_pool_push(heap->pool, class, p))) {
        haki_heap_look_pool(heap, class);
    }
    return true;
}

/* Frees a block of more than 1024 B in a packed slab. */
static bool large_packed_free(struct hak_heap *heap, void *p, uint32_t tag)
{
    struct hak_tiny *self = heap != NULL ? &heap->tiny : NULL;

    if (haki_tiny_class_at_tag(p, tag) != HAK_TINY_LARGER ||
        !haki_tiny_is_block(p, tag, HAK_TINY_LARGER)) {
        return false;
    }
    if (self == NULL || HAK_TAG_HEAP(tag) != self->id) {
        haki_heap_sent(haki_remote_free(self, p, tag));
    } else if ((tag & HAK_TAG_SEALED) != 0) {
        haki_heap_sent(haki_tiny_seal_free(self, p, tag));
    } else {
        haki_tiny_larger_free(self, p);
    }
    return true;
}

bool haki_large_free(struct hak_heap *heap, void *p)
{
    uint32_t tag = haki_range_tag_of(p);

    haki_background_check();
    switch (HAK_TAG_CLASS(tag)) {
    case HAK_TAG_PACKED: return large_packed_free(heap, p, tag);
    case HAK_TAG_ACE: return large_ace_free(heap, p);
    case HAK_TAG_HUGE: return large_huge_free(p);
    case HAK_TAG_SAMPLE: return large_sample_free(heap, p);
    default: break;
    }
    if (heap != NULL && HAK_TAG_HEAP(tag) == heap->tiny.id) {
        if ((tag & HAK_TAG_SEALED) != 0) {
            return haki_pool_seal_free(heap->pool, p);
        }
        return large_pool_free(heap, p);
    }
    return haki_outspan_free(heap, HAK_TAG_HEAP(tag), p);
}

size_t haki_large_charged(const void *p, size_t usable)
{
    struct hak_sampled sampled;

    return HAK_UNLIKELY(haki_guarded_covers(p)) && haki_sample_find(p, &sampled)
               ? sampled.bytes
               : usable;
}

size_t haki_large_find(const void *p, uint32_t *owner)
{
    uint32_t tag = haki_range_tag_of(p);
    struct hak_huge_block block = {0, 0};
    struct hak_ace_run run = {0, 0};
    struct hak_sampled sampled = {0, 0, 0};

    switch (HAK_TAG_CLASS(tag)) {
    case HAK_TAG_ACE:
        haki_ace_find(p, &run);
        *owner = HAK_OWNER(run.owner);
        return run.bytes;
    case HAK_TAG_HUGE:
        haki_huge_find(p, &block);
        *owner = HAK_OWNER(block.owner);
        return block.size;
    case HAK_TAG_SAMPLE:
        haki_sample_find(p, &sampled);
        *owner = sampled.owner;
        return sampled.usable;
    case HAK_TAG_PACKED:
        *owner = HAK_TAG_HEAP(tag);
        return haki_tiny_is_block(p, tag, HAK_TINY_LARGER)
                   ? haki_tiny_bytes_of(p, tag)
                   : 0;
    default:
        *owner = HAK_TAG_HEAP(tag);
        return haki_pool_state(p) == HAK_POOL_USED
                   ? haki_pool_classes[haki_pool_class_at(p)].block
                   : 0;
    }
}

/* Tells an ACE or Huge block's owner of its new size. */
static void large_resized(const void *p, size_t before)
{
    uint32_t owner;
    size_t now = haki_large_find(p, &owner);

    if (owner != HAK_ID_SHARED) {
        haki_account_resize_other(haki_range_heap(owner), before, now);
    }
}

/* haki_large_resize of a block of ACE's or Huge's. */
static void *large_resize_whole(void *p, size_t size, size_t before)
{
    size_t bytes = haki_whole_pages(size);

    if (HAK_TAG_CLASS(haki_range_tag_of(p)) == HAK_TAG_ACE) {
        large_before_taking(NULL, bytes - haki_min(before, bytes));
        return size > HAK_LANE_POOL_MAX && size <= HAK_LANE_ACE_MAX &&
                       haki_ace_resize(p, bytes / HAK_PAGE)
                   ? p
                   : NULL;
    }
    return size < HAK_LANE_HUGE_MIN ? NULL : haki_huge_resize(p, size);
}

/*
 * The same while there is or was a profile: what has another size is a sample or not
 * as if it had been freed and asked for. Its record is away meanwhile, since the
 * pages may move and who gets the old place may make one there.
 */
static HAK_NOINLINE void *large_resize_watched(void *p, size_t size,
                                               size_t before)
{
    struct hak_record kept;
    bool sampled =
        (large_owner(p) & HAK_OWNER_SAMPLED) != 0 && haki_sample_lift(p, &kept);
    void *moved = large_resize_whole(p, size, before);
    void *at = moved != NULL ? moved : p;
    uint32_t owner;
    size_t now = haki_large_find(at, &owner);

    if (sampled && now == before && haki_sample_put_back(at, &kept)) {
        return moved;
    }
    if (sampled) {
        large_mark(at, false);
        large_count_sample(owner);
    }
    if (now != before) {
        large_sample_again(at, now, owner);
    }
    return moved;
}

void *haki_large_resize(void *p, size_t size)
{
    uint32_t tag = haki_range_tag_of(p), owner;
    size_t before;

    if (HAK_TAG_CLASS(tag) < HAK_TAG_ACE) {
        return size > HAK_LANE_TINY_MAX && size <= HAK_LANE_POOL_MAX &&
                       haki_pool_class_for(size) == haki_pool_class_at(p)
                   ? p
                   : NULL;
    }
    before = haki_large_find(p, &owner);
    if (HAK_TAG_CLASS(tag) == HAK_TAG_SAMPLE ||
        HAK_TAG_CLASS(tag) == HAK_TAG_PACKED) {
        return size > HAK_LANE_TINY_MAX && haki_fits_as_is(before, size) ? p
                                                                         : NULL;
    }
    p = HAK_UNLIKELY(large_was_profile())
            ? large_resize_watched(p, size, before)
            : large_resize_whole(p, size, before);
    if (p != NULL) {
        large_resized(p, before);
    }
    return p;
}

/*
 * A new place for a block that has outgrown its own. In ACE it gets room behind
 * it, since a block that grew once is likely to grow again, unless the cache
 * has a run without room.
 */
static void *large_alloc_to_grow(struct hak_heap *heap, size_t size, bool *zero,
                                 enum hak_reason *reason)
{
    size_t most =
        HAK_LANE_ACE_MAX / 5 * 4; /* still ACE's with a quarter more */
    void *p = NULL;

    haki_heap_use_large(heap);
    if (size >= HAK_LANE_ACE_MIN && size <= most && !haki_pressure_near()) {
        p = haki_large_is_watched(heap)
                ? NULL
                : haki_ace_cache_take(heap->runs,
                                      (uint32_t)(haki_whole_pages(size) /
                                                 HAK_PAGE));
        if (p != NULL) {
            *zero = false;
            return p;
        }
        p = haki_large_alloc(heap, HAK_LANE_ALIGN, size + size / 4, zero,
                             reason);
    }
    if (p == NULL) {
        return haki_large_alloc(heap, HAK_LANE_ALIGN, size, zero, reason);
    }
    haki_large_resize(p, size);
    return p;
}

static unsigned large_class_byte(const void *p)
{
    return HAK_TAG_CLASS(haki_range_tag_of(p));
}

void *haki_large_copy(struct hak_heap *heap, void *p, size_t n, size_t size,
                      enum hak_reason *reason)
{
    bool fresh;
    void *to =
        size > n ? large_alloc_to_grow(heap, size, &fresh, reason)
                 : haki_large_alloc(heap, HAK_LANE_ALIGN, size, &fresh, reason);

    if (to == NULL) {
        return NULL;
    }
    to = haki_guarded_fit(to, HAK_LANE_ALIGN, size);
    n = haki_min(n, size);
    if (fresh && n >= POPULATE_LEAST && !haki_os_populate(to, n)) {
        haki_large_free(heap, to);
        *reason = HAK_REASON_MEMORY;
        return NULL;
    }
    memcpy(to, p, n);
    /* A block that has outgrown ACE won't come back: its pages aren't kept. */
    if (large_class_byte(to) == HAK_TAG_HUGE && haki_range_owns(p) &&
        large_class_byte(p) == HAK_TAG_ACE) {
        haki_ace_purge_run(p);
    }
    return to;
}

void haki_large_free_owner(struct hak_heap *heap)
{
    /* Whether or not it took part itself: who resizes its blocks may have. */
    if (large_was_profile() &&
        atomic_load(&haki_tiny_sampling(&heap->tiny)->samples) != 0) {
        haki_sample_free_owner(heap->tiny.id);
        atomic_store(&haki_tiny_sampling(&heap->tiny)->samples, 0);
    }
    if (heap->runs != NULL) {
        haki_ace_cache_flush(heap->runs);
    }
    if (heap->tiny.id != 0 && haki_account_other(heap) != 0) {
        haki_ace_free_owner(heap->tiny.id);
        haki_huge_free_owner(heap->tiny.id);
    }
}
