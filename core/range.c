/*
 * range.c - the reservation, the heap slots and the range's figures.
 */
#include "range.h"

#include "hard.h"
#include "msg.h"
#include "options.h"
#include "os.h"
#include "supers.h"

struct hak_range hak_range = {.base = HAK_NO_BASE};

/* A slot a heap has left holds the id of the next free one. */
struct free_slot {
    uint32_t next;
};

/* Constant after init. */
static uint32_t heap_limit;

/* Under the lock. */
static bool tried;         /* init has run */
static size_t heap_meta;   /* bytes of heap slots committed */
static uint32_t heap_free; /* first free slot, 0: none */

/* Heap slots ever taken; written under the lock, read by any thread. */
static _Atomic(uint32_t) heap_count;

/* ---- the reservation ---------------------------------------------------- */

/* Sizes of the parts for a range of `size` bytes. */
struct layout {
    size_t supers, map, backs, start, slabs, heaps, before_base, tags;
};

#define MAPS 4

/* The hardened build's range begins in the first such part of its size. */
#define SKIP_PART 64

static void plan(struct layout *layout, size_t size)
{
    size_t slab_total = size / HAK_SLAB_SIZE;
    size_t super_total = size / HAK_SUPER_SIZE;
    size_t heap_total = hak_min(size / 8 / HAK_HEAP_SLOT, HAK_HEAP_ID_MAX);

    layout->supers =
        hak_round_up(super_total * sizeof(struct hak_super), HAK_PAGE);
    layout->map = hak_round_up(super_total / 8 + sizeof(uint64_t), 64);
    layout->slabs =
        hak_round_up(slab_total * sizeof(struct hak_slab), HAK_META_STEP);
    layout->heaps = hak_round_up(heap_total * HAK_HEAP_SLOT, HAK_META_STEP);
    layout->backs = layout->supers + MAPS * layout->map;
    layout->start = hak_round_up(layout->backs + slab_total, HAK_META_STEP);
    layout->before_base =
        hak_round_up(layout->start + layout->slabs + layout->heaps,
                     HAK_SUPER_SIZE);
    layout->tags = hak_round_up(slab_total * sizeof(uint32_t), HAK_PAGE);
}

/* Points all variables but base and size at the parts after `start`. */
static void lay_out(char *start, const struct layout *layout, size_t size)
{
    uint64_t *maps = (uint64_t *)(void *)(start + layout->supers);
    size_t words = layout->map / sizeof(uint64_t);
    uint32_t tags =
        (uint32_t)(hak_round_up(layout->tags, HAK_SUPER_SIZE) / HAK_SUPER_SIZE);

    hak_supers.at = (struct hak_super *)(void *)start;
    hak_supers.warm_map = maps;
    hak_supers.part_map = maps + words;
    hak_supers.held_map = maps + 2 * words;
    hak_supers.meta_map = maps + 3 * words;
    hak_supers.limit = (uint32_t)(size / HAK_SUPER_SIZE);
    for (uint32_t n = 0; n <= HAK_SPAN_MOST; n++) {
        hak_supers.warm_start[n] = hak_supers.limit;
        hak_supers.part_start[n] = hak_supers.limit;
    }
    /* The tags' own superslabs are never free. */
    hak_supers.low = tags;
    for (uint32_t i = 0; i < tags; i++) {
        hak_supers.at[i].used = HAK_ALL_SLABS;
        hak_map_set(hak_supers.held_map, i, true);
    }
    hak_range.backs = (uint8_t *)start + layout->backs;
    hak_range.slabs = (struct hak_slab *)(void *)(start + layout->start);
    hak_range.heap_slots = (char *)hak_range.slabs + layout->slabs;
    heap_limit = (uint32_t)(layout->heaps / HAK_HEAP_SLOT);
}

/*
 * Hardened: somewhere inside of what is reserved, so that it makes no
 * difference from which end the kernel looks for a place.
 */
static char *reserve_somewhere(size_t size)
{
    size_t extra = size / SKIP_PART & ~(HAK_SUPER_SIZE - 1);
    size_t skip;
    char *start;

    if (!HAK_HARD) {
        return hak_os_reserve(size, HAK_SUPER_SIZE);
    }
    hak_hard_start();
    start = hak_os_reserve(size + extra, HAK_SUPER_SIZE);
    if (start == NULL) {
        return NULL;
    }
    skip =
        hak_hard_below((uint32_t)(extra / HAK_SUPER_SIZE) + 1) * HAK_SUPER_SIZE;
    if (skip > 0) {
        hak_os_unmap(start, skip);
    }
    if (skip < extra) {
        hak_os_unmap(start + skip + size, extra - skip);
    }
    return start + skip;
}

/* Reserves a range of `size` bytes and lays it out. */
static bool reserve(size_t size)
{
    struct layout layout;
    char *start;

    plan(&layout, size);
    start = reserve_somewhere(layout.before_base + size);
    if (start == NULL) {
        return false;
    }
    if (!hak_os_commit(start, layout.start) ||
        !hak_os_commit(start + layout.before_base, layout.tags)) {
        hak_os_unmap(start, layout.before_base + size);
        return false;
    }
    lay_out(start, &layout, size);
    /* Slab 0's descriptor stands for "no slab" on hot paths. */
    if (!hak_super_commit_meta(0)) {
        hak_supers.limit = 0;
        hak_os_unmap(start, layout.before_base + size);
        return false;
    }
    hak_range.base = (uintptr_t)start + layout.before_base;
    hak_range.backs_of =
        (uintptr_t)hak_range.backs - (hak_range.base >> HAK_SLAB_SHIFT);
    hak_range.tags =
        hak_range.base - (hak_range.base >> HAK_SLAB_SHIFT) * sizeof(uint32_t);
    hak_lock_step(); /* from here on the range is complete */
    hak_range.size = size;
    return true;
}

/* Tries the wished size, then halves it, leaving the program its share. */
static void reserve_some(void)
{
    size_t limit = hak_os_address_limit();
    size_t size = hak_option(HAK_OPT_range) & ~(HAK_SUPER_SIZE - 1);

    HAK_HELD(&hak_supers.lock);
    for (; size >= HAK_GIB; size = (size / 2) & ~(HAK_SUPER_SIZE - 1)) {
        if (size <= limit / 2 && reserve(size)) {
            return;
        }
    }
    hak_warn("no address range of 1 GB or more could be reserved (ulimit -v?); "
             "all requests go to the system allocator");
}

bool hak_range_init(void)
{
    if (HAK_LIKELY(hak_range.size != 0)) {
        return true;
    }
    hak_lock_take(&hak_supers.lock);
    if (!tried) {
        tried = true;
        reserve_some();
    }
    hak_lock_drop(&hak_supers.lock);
    return hak_range.size != 0;
}

/* ---- heap slots --------------------------------------------------------- */

static bool commit_slots(uint32_t count)
{
    HAK_HELD(&hak_supers.lock);
    if ((size_t)count * HAK_HEAP_SLOT > heap_meta) {
        if (!hak_os_commit(hak_range.heap_slots + heap_meta, HAK_META_STEP)) {
            return false;
        }
        heap_meta += HAK_META_STEP;
    }
    return true;
}

static void *heap_take_locked(uint32_t *id)
{
    struct free_slot *slot;

    HAK_HELD(&hak_supers.lock);
    if (heap_free != 0) {
        *id = heap_free;
        slot = hak_range_heap(heap_free);
        heap_free = slot->next;
        return slot;
    }
    if (heap_count == heap_limit || !commit_slots(heap_count + 1)) {
        return NULL;
    }
    *id = atomic_fetch_add(&heap_count, 1) + 1;
    return hak_range_heap(*id);
}

void *hak_range_heap_take(uint32_t *id)
{
    void *slot;

    hak_lock_take(&hak_supers.lock);
    slot = heap_take_locked(id);
    hak_lock_drop(&hak_supers.lock);
    return slot;
}

void hak_range_heap_give(uint32_t id)
{
    struct free_slot *slot = hak_range_heap(id);

    hak_lock_take(&hak_supers.lock);
    HAK_HELD(&hak_supers.lock);
    slot->next = heap_free;
    heap_free = id;
    hak_lock_drop(&hak_supers.lock);
}

uint32_t hak_range_heap_count(void)
{
    return atomic_load(&heap_count);
}

/* ---- figures and fork --------------------------------------------------- */

void hak_range_figures(struct hak_range_figures *out)
{
    hak_lock_take(&hak_supers.lock);
    *out = hak_supers.figures;
    out->populated = hak_range_populated();
    hak_lock_drop(&hak_supers.lock);
}

bool hak_range_forked(void)
{
    return hak_lock_settle(&hak_supers.lock);
}

/*
 * A ghost held the lock. If it was reserving the range, that is done anew (what
 * it had reserved is lost). The list of free slots may be half done and is not
 * made again: a slot that the forking thread has just taken looks like a free
 * one. A slot taken by a ghost and not counted is taken again.
 */
void hak_range_mend(void)
{
    heap_free = 0;
    if (hak_range.size == 0) {
        tried = false;
        return;
    }
    hak_supers_mend();
}
