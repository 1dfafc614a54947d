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

HAK_OWN_LINE struct hak_range haki_range = {.base = HAK_NO_BASE,
                                            .page = HAK_PAGE};

bool haki_range_may_overlap;

/* Under the lock. */
static bool range_tried; /* init has run */

/* ---- the window ----------------------------------------------------------- */

/* Distances of the parts of a window of `size` bytes; the base is the last. */
struct layout {
    size_t backs, slabs, heaps, base;
};

/* The least that a window may be. */
#define WINDOW_LEAST HAK_GIB

/* So much of it is set aside for sampled blocks, and no more than that. */
#define SAMPLES_PART 32
#define SAMPLES_MOST (512 * HAK_MIB)

/* The hardened build's window begins in the first such part of its size. */
#define SKIP_PART 4

static uint32_t range_heaps_of(size_t size)
{
    return (uint32_t)haki_min(size / 8 / HAK_HEAP_SLOT, HAK_HEAP_ID_MAX);
}

static void range_plan(struct layout *layout, size_t size)
{
    size_t slabs = size / HAK_SLAB_SIZE, supers = size / HAK_SUPER_SIZE;

    layout->backs =
        haki_round_up(supers * sizeof(struct hak_super), HAK_META_STEP);
    layout->slabs = haki_round_up(layout->backs + slabs, HAK_META_STEP);
    layout->heaps =
        haki_round_up(layout->slabs + slabs * sizeof(struct hak_slab),
                      HAK_META_STEP);
    layout->base =
        haki_round_up(layout->heaps + range_heaps_of(size) * HAK_HEAP_SLOT,
                      HAK_SUPER_SIZE);
}

/* Points all variables except base and size to the parts after `start`. */
static void range_lay_out(char *start, const struct layout *layout, size_t size)
{
    struct hak_part *parts = haki_supers.parts;

    parts[HAK_PART_SUPERS] =
        (struct hak_part){.at = start, .unit = sizeof(struct hak_super)};
    parts[HAK_PART_BACKS] =
        (struct hak_part){.at = start + layout->backs, .unit = HAK_SUPER_SLABS};
    parts[HAK_PART_TAGS] = (struct hak_part){
        .at = start + layout->base, .unit = HAK_SUPER_SLABS * sizeof(uint32_t)};
    haki_supers.at = (struct hak_super *)(void *)start;
    haki_supers.most = (uint32_t)(size / HAK_SUPER_SIZE);
    haki_supers.limit = 0;
    haki_supers.samples =
        haki_supers_for(haki_min(size / SAMPLES_PART, SAMPLES_MOST));
    haki_supers.tags =
        haki_supers_for(haki_supers.most * parts[HAK_PART_TAGS].unit) +
        haki_supers.samples;
    haki_range.backs = (uint8_t *)parts[HAK_PART_BACKS].at;
    haki_range.slabs = (struct hak_slab *)(void *)(start + layout->slabs);
    haki_range.heap_slots = start + layout->heaps;
    haki_slots_limit(range_heaps_of(size));
}

/* Lets searches begin behind the tags' and samples' superslabs, never free. */
static void range_pass_over_tags(void)
{
    haki_supers.low = haki_supers.tags;
    for (uint32_t n = 0; n <= HAK_SPAN_MOST; n++) {
        haki_supers.resident_start[n] = haki_supers.limit;
        haki_supers.part_start[n] = haki_supers.limit;
    }
}

/*
 * Bytes of descriptors for the tags' superslabs and the first one behind them.
 * On hot paths slab 0's descriptor stands for "no slab".
 */
static size_t range_first_meta(void)
{
    return haki_round_up((haki_supers.tags + 1) * HAK_SUPER_META,
                         HAK_META_STEP);
}

static bool range_map_first_meta(void)
{
    if (haki_os_claim(haki_range.slabs, range_first_meta()) != HAK_OS_CLAIMED) {
        return false;
    }
    for (uint32_t i = 0; i < range_first_meta() / HAK_META_STEP; i++) {
        haki_map_set(HAK_MAP_META, i, true);
    }
    return true;
}

/* Unmaps what was mapped of a window that is given up. */
static void range_undo(void)
{
    for (int i = 0; i < HAK_PARTS; i++) {
        if (haki_supers.parts[i].mapped > 0) {
            haki_os_unmap(haki_supers.parts[i].at, haki_supers.parts[i].mapped);
        }
    }
    if (haki_map_get(HAK_MAP_META, 0)) {
        haki_os_unmap(haki_range.slabs, range_first_meta());
        *haki_map_word(HAK_MAP_META, 0) = 0;
    }
    haki_supers.tags = 0;
    haki_supers.limit = 0;
}

/*
 * A place for a window. Hardened: somewhere inside the free part, so that it
 * doesn't matter from which end the kernel looks for a place.
 */
static char *range_find_window(size_t size, size_t all, unsigned guess)
{
    size_t extra = HAK_HARD ? size / SKIP_PART : 0;
    char *start = haki_os_place(all + extra, HAK_SUPER_SIZE, guess);

    if (HAK_HARD && start != NULL) {
        start += haki_hard_below((uint32_t)(extra / HAK_SUPER_SIZE) + 1) *
                 HAK_SUPER_SIZE;
    }
    return start;
}

static void range_set_base(uintptr_t base)
{
    uintptr_t number = base >> HAK_SLAB_SHIFT;

    HAK_ASSERT(base % HAK_SUPER_SIZE == 0 && base < HAK_NO_BASE);
    HAK_STORE(haki_range.base, base);
    HAK_STORE(haki_range.backs_of, (uintptr_t)haki_range.backs - number);
    HAK_STORE(haki_range.tags, base - number * sizeof(uint32_t));
}

/* Chooses a window of `size` bytes and maps the arrays of its first extent. */
static bool range_open_window(size_t size, unsigned guess)
{
    struct layout layout;
    char *start;

    range_plan(&layout, size);
    start = range_find_window(size, layout.base + size, guess);
    if (start == NULL) {
        return false;
    }
    range_lay_out(start, &layout, size);
    range_set_base((uintptr_t)start + layout.base);
    if (!range_map_first_meta() || !haki_super_extend(haki_supers.tags + 1)) {
        range_undo();
        HAK_STORE(haki_range.base, HAK_NO_BASE);
        return false;
    }
    range_pass_over_tags();
    haki_lock_step(); /* from here on the range is complete */
    haki_range.window = size;
    haki_limit_start();
    return true;
}

/*
 * Tries the wanted size and halves it until a window is free of other mappings.
 * Before halving, a wrong guess is followed by other guesses.
 */
static bool range_open_some_window(void)
{
    size_t size = haki_option(HAK_OPT_range) & ~(HAK_SUPER_SIZE - 1);
    unsigned seed;

    HAK_HELD(&haki_supers.lock);
    if (HAK_HARD) {
        haki_hard_start();
    }
    haki_os_random(&seed, sizeof(seed));
    haki_range_may_overlap = haki_os_address_limit() != SIZE_MAX;
    for (; size >= WINDOW_LEAST; size = (size / 2) & ~(HAK_SUPER_SIZE - 1)) {
        if (range_open_window(size, seed++)) {
            return true;
        }
        haki_range_may_overlap = true;
    }
    return false;
}

static HAK_COLD void range_open_range(void)
{
    size_t page = haki_os_page_size();

    if (page != HAK_PAGE && page != 4 * HAK_PAGE && page != 16 * HAK_PAGE) {
        haki_warn("this machine's pages are %zu KB, which is not supported (4, "
                  "16 and 64 are); all requests go to the system allocator",
                  page / HAK_KIB);
        return;
    }
    haki_range.page = page;
    if (!range_open_some_window()) {
        haki_warn(
            "out of memory at the start (ulimit -v?); all requests go to the "
            "system allocator");
    }
}

bool haki_range_init(void)
{
    if (HAK_LIKELY(HAK_LOAD(haki_range.size) != 0)) {
        return true;
    }
    haki_lock_take(&haki_supers.lock);
    if (!range_tried) {
        range_tried = true;
        range_open_range();
    }
    haki_lock_drop(&haki_supers.lock);
    return HAK_LOAD(haki_range.size) != 0;
}

uint32_t haki_range_samples(size_t *bytes)
{
    /* Set by whoever opened the range, before its first size. */
    (void)__atomic_load_n(&haki_range.size, __ATOMIC_ACQUIRE);
    *bytes = haki_supers.samples * HAK_SUPER_SIZE;
    return (haki_supers.tags - haki_supers.samples) * (uint32_t)HAK_SUPER_SLABS;
}

/* ---- statistics and fork ------------------------------------------------ */

void haki_range_counts(struct hak_range_counts *out)
{
    haki_lock_take(&haki_supers.lock);
    *out = haki_supers.counts;
    out->resident = haki_range_resident_bytes();
    out->heaps_kept = haki_slots_kept();
    haki_lock_drop(&haki_supers.lock);
}

bool haki_range_forked(void)
{
    return haki_lock_settle(&haki_supers.lock);
}

/*
 * A ghost held the lock. If it was choosing the window, that is done again
 * (what it had mapped is lost). A superslab that it had mapped but not noted
 * will be taken for somebody else's.
 */
void haki_range_mend(void)
{
    haki_slots_mend();
    if (haki_range.window == 0) {
        range_tried = false;
        HAK_STORE(haki_range.size, 0);
        *haki_map_word(HAK_MAP_META, 0) = 0;
        return;
    }
    haki_supers_mend();
}
