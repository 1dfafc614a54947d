/*
 * range.c - the window and the range's statistics.
 */
#include "range/range.h"

#include "guard/hard.h"
#include "base/msg.h"
#include "settings/options.h"
#include "os/os.h"
#include "range/slabs.h"
#include "range/supers.h"

HAK_OWN_LINE struct hak_range hak_range = {.base = HAK_NO_BASE};

bool hak_range_may_overlap;

/* Under the lock. */
static bool tried; /* init has run */

/* ---- the window ----------------------------------------------------------- */

/* Distances of the parts of a window of `size` bytes; the base is the last. */
struct layout {
    size_t backs, slabs, heaps, base;
};

/* The least that a window may be. */
#define WINDOW_LEAST HAK_GIB

/* The hardened build's window begins in the first such part of its size. */
#define SKIP_PART 4

static uint32_t heaps_of(size_t size)
{
    return (uint32_t)hak_min(size / 8 / HAK_HEAP_SLOT, HAK_HEAP_ID_MAX);
}

static void plan(struct layout *layout, size_t size)
{
    size_t slabs = size / HAK_SLAB_SIZE, supers = size / HAK_SUPER_SIZE;

    layout->backs =
        hak_round_up(supers * sizeof(struct hak_super), HAK_META_STEP);
    layout->slabs = hak_round_up(layout->backs + slabs, HAK_META_STEP);
    layout->heaps =
        hak_round_up(layout->slabs + slabs * sizeof(struct hak_slab),
                     HAK_META_STEP);
    layout->base = hak_round_up(layout->heaps + heaps_of(size) * HAK_HEAP_SLOT,
                                HAK_SUPER_SIZE);
}

/* Points all variables but base and size to the parts after `start`. */
static void lay_out(char *start, const struct layout *layout, size_t size)
{
    struct hak_part *parts = hak_supers.parts;

    parts[HAK_PART_SUPERS] =
        (struct hak_part){.at = start, .unit = sizeof(struct hak_super)};
    parts[HAK_PART_BACKS] =
        (struct hak_part){.at = start + layout->backs, .unit = HAK_SUPER_SLABS};
    parts[HAK_PART_TAGS] = (struct hak_part){
        .at = start + layout->base, .unit = HAK_SUPER_SLABS * sizeof(uint32_t)};
    hak_supers.at = (struct hak_super *)(void *)start;
    hak_supers.most = (uint32_t)(size / HAK_SUPER_SIZE);
    hak_supers.limit = 0;
    hak_supers.tags =
        hak_supers_for(hak_supers.most * parts[HAK_PART_TAGS].unit);
    hak_range.backs = (uint8_t *)parts[HAK_PART_BACKS].at;
    hak_range.slabs = (struct hak_slab *)(void *)(start + layout->slabs);
    hak_range.heap_slots = start + layout->heaps;
    hak_slots_limit(heaps_of(size));
}

/* Searches begin behind the tags' own superslabs, which are never free. */
static void pass_over_tags(void)
{
    hak_supers.low = hak_supers.tags;
    for (uint32_t n = 0; n <= HAK_SPAN_MOST; n++) {
        hak_supers.warm_start[n] = hak_supers.limit;
        hak_supers.part_start[n] = hak_supers.limit;
    }
}

/*
 * The descriptors of the tags' superslabs, of which slab 0's stands for "no
 * slab" on hot paths, and of the first one behind them.
 */
static size_t first_meta(void)
{
    return hak_round_up((hak_supers.tags + 1) * HAK_SUPER_META, HAK_META_STEP);
}

static bool map_first_meta(void)
{
    if (hak_os_claim(hak_range.slabs, first_meta()) != HAK_OS_CLAIMED) {
        return false;
    }
    for (uint32_t i = 0; i < first_meta() / HAK_META_STEP; i++) {
        hak_map_set(HAK_MAP_META, i, true);
    }
    return true;
}

/* What was mapped of a window that is not to be. */
static void undo(void)
{
    for (int i = 0; i < HAK_PARTS; i++) {
        if (hak_supers.parts[i].mapped > 0) {
            hak_os_unmap(hak_supers.parts[i].at, hak_supers.parts[i].mapped);
        }
    }
    if (hak_map_get(HAK_MAP_META, 0)) {
        hak_os_unmap(hak_range.slabs, first_meta());
        *hak_map_word(HAK_MAP_META, 0) = 0;
    }
    hak_supers.tags = 0;
    hak_supers.limit = 0;
}

/*
 * A place for a window. Hardened: somewhere inside of what is free, so that it
 * makes no difference from which end the kernel looks for a place.
 */
static char *find_window(size_t size, size_t all, unsigned guess)
{
    size_t extra = HAK_HARD ? size / SKIP_PART : 0;
    char *start = hak_os_place(all + extra, HAK_SUPER_SIZE, guess);

    if (HAK_HARD && start != NULL) {
        start += hak_hard_below((uint32_t)(extra / HAK_SUPER_SIZE) + 1) *
                 HAK_SUPER_SIZE;
    }
    return start;
}

static void set_base(uintptr_t base)
{
    uintptr_t number = base >> HAK_SLAB_SHIFT;

    HAK_ASSERT(base % HAK_SUPER_SIZE == 0 && base < HAK_NO_BASE);
    HAK_STORE(hak_range.base, base);
    HAK_STORE(hak_range.backs_of, (uintptr_t)hak_range.backs - number);
    HAK_STORE(hak_range.tags, base - number * sizeof(uint32_t));
}

/* Chooses a window of `size` bytes and maps the arrays of its first extent. */
static bool open_window(size_t size, unsigned guess)
{
    struct layout layout;
    char *start;

    plan(&layout, size);
    start = find_window(size, layout.base + size, guess);
    if (start == NULL) {
        return false;
    }
    lay_out(start, &layout, size);
    set_base((uintptr_t)start + layout.base);
    if (!map_first_meta() || !hak_super_extend(hak_supers.tags + 1)) {
        undo();
        HAK_STORE(hak_range.base, HAK_NO_BASE);
        return false;
    }
    pass_over_tags();
    hak_lock_step(); /* from here on the range is complete */
    hak_range.window = size;
    hak_limit_start();
    return true;
}

/*
 * Tries the wished size, then halves it: until a window is free of others. A
 * guess that proves wrong is followed by others before.
 */
static bool open_some_window(void)
{
    size_t size = hak_option(HAK_OPT_range) & ~(HAK_SUPER_SIZE - 1);
    unsigned seed;

    HAK_HELD(&hak_supers.lock);
    if (HAK_HARD) {
        hak_hard_start();
    }
    hak_os_random(&seed, sizeof(seed));
    hak_range_may_overlap = hak_os_address_limit() != SIZE_MAX;
    for (; size >= WINDOW_LEAST; size = (size / 2) & ~(HAK_SUPER_SIZE - 1)) {
        if (open_window(size, seed++)) {
            return true;
        }
        hak_range_may_overlap = true;
    }
    return false;
}

static void open_range(void)
{
    size_t page = hak_os_page_size();

    if (page != HAK_PAGE) {
        hak_warn("this machine's pages are %zu KB, which is not supported yet; "
                 "all requests go to the system allocator",
                 page / HAK_KIB);
    } else if (!open_some_window()) {
        hak_warn(
            "out of memory at the start (ulimit -v?); all requests go to the "
            "system allocator");
    }
}

bool hak_range_init(void)
{
    if (HAK_LIKELY(HAK_LOAD(hak_range.size) != 0)) {
        return true;
    }
    hak_lock_take(&hak_supers.lock);
    if (!tried) {
        tried = true;
        open_range();
    }
    hak_lock_drop(&hak_supers.lock);
    return HAK_LOAD(hak_range.size) != 0;
}

/* ---- statistics and fork ------------------------------------------------ */

void hak_range_counts(struct hak_range_counts *out)
{
    hak_lock_take(&hak_supers.lock);
    *out = hak_supers.counts;
    out->resident = hak_range_resident_bytes();
    out->heaps_kept = hak_slots_kept();
    hak_lock_drop(&hak_supers.lock);
}

bool hak_range_forked(void)
{
    return hak_lock_settle(&hak_supers.lock);
}

/*
 * A ghost held the lock. If it was choosing the window, that is done anew (what
 * it had mapped is lost). A superslab that it had mapped and not noted is met
 * as somebody else's.
 */
void hak_range_mend(void)
{
    hak_slots_mend();
    if (hak_range.window == 0) {
        tried = false;
        HAK_STORE(hak_range.size, 0);
        *hak_map_word(HAK_MAP_META, 0) = 0;
        return;
    }
    hak_supers_mend();
}
