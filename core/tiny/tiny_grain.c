/*
 * tiny_grain.c - packed slabs: a small heap's blocks, of all sizes side by
 * side.
 *
 * A heap that is `packed` (tiny.h) takes its first blocks from up to
 * HAK_PACKED_SLABS slabs, where a block of any size may begin at any grain of 8
 * bytes. Two bits per grain, on the heap's own pages, say what is there:
 *
 *     grain      0  1  2  3  4  5  6  7  8
 *     block      '--- a ---'  '- b -'  '- a block of 8 bytes
 *     used       1  1  1  1  0  1  1  1  0
 *     last       0  0  0  1  0  0  0  1  0       (and of the last: 1, 1)
 *
 * Free grains have no bits, so that free neighbours merge by themselves and any
 * size may use them next; the lowest place that is large enough is taken. So
 * the heap is as large as what is in use, without a page or run for each size,
 * and pages that hold nothing, at the end or in between, can go back.
 *
 * The maps consist of units of 64 grains, those of both slabs in one row; the
 * first `units` of them are in use. `from[c]`: below this unit there is no
 * place for a block of class c. A block of 16 n bytes begins at an even grain.
 *
 * A refill takes, and a flush gives back, what lies in a unit with one write to each
 * of its two words. Questions about a block are tiny_grain_ask.c.
 *
 * Tested by tests/unit/tiny/tiny_packed.c.
 */
#include <string.h>

#include "os/os.h"
#include "range/pages.h"
#include "range/purge.h"
#include "range/slabs.h"
#include "range/slots.h"
#include "tiny/tiny_bin.h"
#include "tiny/tiny_grain_bits.h"
#include "tiny/tiny_slab.h"

#define PAGE_UNITS ((uint32_t)(HAK_PAGE / HAK_UNIT))

/*
 * `units` grows by this many, half a page: the heap's own first page has room
 * for maps of five pages.
 */
#define STEP_UNITS 4u

/* Made resident ahead of need: nothing up to STEP_FROM, then this much. */
#define STEP_FROM (8 * HAK_PAGE)
#define STEP (2 * HAK_PAGE)

/*
 * A fall of this many bytes, or of 1/8 of what is in use, is worth a sweep. A
 * program that takes and frees the same pages in turn would have them go and
 * come each time: so after GRAIN_FALLS_FREE falls no lower than an earlier one,
 * the next must be twice as deep as the deepest of them, but at most
 * GRAIN_PRICE_MOST, as in heap.h.
 */
#define GRAIN_FALL_LEAST ((uint32_t)(HAK_PAGE / 2))
#define GRAIN_FALLS_FREE 32
#define GRAIN_PRICE_MOST ((uint32_t)(64 * HAK_KIB))

/*
 * A refill brings at most 1/FILL_PART of the bytes that would be carved. What a heap
 * does not need of it waits in the bin, and lies between what it keeps.
 */
#define FILL_PART 4
#define FILL_MOST ((size_t)256)
#define FILL_BUSY_MOST (HAK_TINY_CARVE_MOST / FILL_PART)

/* ---- places -------------------------------------------------------------- */

static char *tiny_address_of(const struct hak_tiny *tiny, uint32_t grain)
{
    return haki_range_slab_start(tiny->packed_at[grain / HAK_SLAB_GRAINS]) +
           grain % HAK_SLAB_GRAINS * HAK_GRAIN;
}

/* haki_grain_find over all packed slabs. */
static uint32_t tiny_find(const struct hak_tiny *tiny, uint32_t from,
                          uint32_t n, uint32_t even)
{
    const struct hak_unit *units = haki_tiny_units(tiny);
    uint32_t end = tiny->units * HAK_UNIT_GRAINS;

    while (from < end) {
        uint32_t slab_end = (from / HAK_SLAB_GRAINS + 1) * HAK_SLAB_GRAINS;
        uint32_t grain =
            haki_grain_find(units, from, (uint32_t)haki_min(slab_end, end), n,
                            even);

        if (grain != HAK_GRAIN_NOWHERE) {
            return grain;
        }
        from = slab_end;
    }
    return HAK_GRAIN_NOWHERE;
}

/* Adds half a page. False: there are no more slabs, or out of memory. */
static bool tiny_grow(struct hak_tiny *tiny, unsigned class)
{
    uint32_t slab = tiny->units / HAK_SLAB_UNITS;
    uint32_t more = tiny->units % HAK_SLAB_UNITS + STEP_UNITS;
    size_t have = haki_round_up(more * HAK_UNIT, HAK_PAGE);

    if (tiny->units == HAK_UNITS) {
        return false;
    }
    if (tiny->packed_at[slab] == HAK_NO_SLAB) {
        tiny->packed_at[slab] =
            haki_tiny_slab_take(tiny, class, HAK_TAG_PACKED);
    }
    if (tiny->packed_at[slab] == HAK_NO_SLAB ||
        !haki_range_ready(tiny->packed_at[slab], 1, have,
                          have - HAK_PAGE <= STEP_FROM ? HAK_PAGE : STEP)) {
        return false;
    }
    memset(haki_tiny_units(tiny) + tiny->units, 0,
           STEP_UNITS * sizeof(struct hak_unit));
    tiny->units += STEP_UNITS;
    return true;
}

/* n grains have been taken, the block at p: its pages are usable from now on. */
HAK_INLINE void tiny_took(struct hak_tiny *tiny, const void *p, uint32_t n)
{
    uint32_t number = haki_range_number(p);

    if (HAK_UNLIKELY(haki_range_slab(number)->gone != 0)) {
        haki_range_pages_wake(number,
                              haki_slab_pages_of((uintptr_t)p &
                                                     (HAK_SLAB_SIZE - 1),
                                                 n * HAK_GRAIN),
                              false);
    }
    tiny->packed_bytes += n * (uint32_t)HAK_GRAIN;
}

/* n grains are a block from now on; the block. */
static void *tiny_take(struct hak_tiny *tiny, uint32_t grain, uint32_t n)
{
    char *p = tiny_address_of(tiny, grain);

    haki_grain_mark_block(haki_tiny_units(tiny), grain, n, true);
    tiny_took(tiny, p, n);
    return p;
}

/* Makes n grains free. */
static void tiny_put(struct hak_tiny *tiny, uint32_t grain, uint32_t n)
{
    uint32_t unit = grain / HAK_UNIT_GRAINS;

    haki_grain_mark_block(haki_tiny_units(tiny), grain, n, false);
    tiny->packed_bytes -= n * (uint32_t)HAK_GRAIN;
    tiny->freed_from = (uint32_t)haki_min(tiny->freed_from, unit);
}

/* Of a unit these bits are free. */
static void tiny_put_unit(struct hak_tiny *tiny, uint32_t unit, uint64_t used,
                          uint64_t last)
{
    if (used != 0) {
        haki_grain_clear(&haki_tiny_units(tiny)[unit], used, last);
        tiny->freed_from = (uint32_t)haki_min(tiny->freed_from, unit);
    }
}

/*
 * Something from unit freed_from on has become free since searches last knew:
 * there may be room from a little before it on.
 */
static void tiny_look_anew(struct hak_tiny *tiny)
{
    uint32_t most = HAK_TINY_MAX_SIZE / HAK_UNIT;
    uint32_t low = tiny->freed_from;
    uint8_t at = (uint8_t)(low > most ? low - most : 0);

    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        tiny->from[c] = tiny->from[c] < at ? tiny->from[c] : at;
    }
    tiny->freed_from = HAK_UNITS;
}

/* The unit where a search for a class, or for a larger block, begins. */
static uint32_t tiny_search_from(struct hak_tiny *tiny, unsigned class)
{
    if (tiny->freed_from < HAK_UNITS) {
        tiny_look_anew(tiny);
    }
    return tiny->from[class] * HAK_UNIT_GRAINS;
}

/* Notes that there is no place for the class below this grain. */
static void tiny_search_ended(struct hak_tiny *tiny, unsigned class,
                              uint32_t grain)
{
    uint32_t most = HAK_UNITS - HAK_TINY_MAX_SIZE / HAK_UNIT - 1;

    if (grain == HAK_GRAIN_NOWHERE) {
        grain = (tiny->units - (uint32_t)(tiny->units != 0)) * HAK_UNIT_GRAINS;
        grain -= (uint32_t)haki_min(grain, HAK_TINY_MAX_SIZE / HAK_GRAIN);
    }
    tiny->from[class] = (uint8_t)haki_min(grain / HAK_UNIT_GRAINS, most);
}

/*
 * A place of n grains for the class, or for a larger block; or
 * HAK_GRAIN_NOWHERE.
 */
static uint32_t tiny_place(struct hak_tiny *tiny, unsigned class, uint32_t n)
{
    uint32_t even = n % 2 == 0, from = tiny_search_from(tiny, class);
    uint32_t grain = tiny_find(tiny, from, n, even);

    while (grain == HAK_GRAIN_NOWHERE) {
        uint32_t end = tiny->units * HAK_UNIT_GRAINS;

        if (!tiny_grow(tiny, class)) {
            return HAK_GRAIN_NOWHERE;
        }
        from = (uint32_t)haki_max(from, end > n ? end - n : 0);
        grain = tiny_find(tiny, from, n, even);
    }
    return grain;
}

/* ---- blocks -------------------------------------------------------------- */

/* The most bytes that a refill brings: more where bins may keep more. */
static size_t tiny_fill_most(const struct hak_tiny *tiny)
{
    return haki_max(FILL_MOST, haki_min(tiny->allow.extra / 8, FILL_BUSY_MOST));
}

/* Whether the class has a size to itself: a block here is told by its size. */
static bool tiny_is_told(unsigned class)
{
    return !HAK_HARD || class > 0; /* there the first two both have 16 B */
}

/* Blocks that a refill takes, linked. */
struct hak_tiny_row {
    struct hak_block *first, *last;
    uint32_t count;
};

HAK_INLINE void tiny_row_add(struct hak_tiny *tiny, struct hak_tiny_row *row,
                             void *p, uint32_t n)
{
    struct hak_block *block = p;

    tiny_took(tiny, p, n);
    if (row->count++ == 0) {
        row->first = block;
    } else {
        haki_link_set(row->last, block);
    }
    row->last = block;
}

/* Blocks of less than a unit, from the class's first place on: a unit at a time. */
static void tiny_fill_units(struct hak_tiny *tiny, unsigned class, uint32_t n,
                            uint32_t most, struct hak_tiny_row *row)
{
    struct hak_unit *units = haki_tiny_units(tiny);
    uint32_t at = tiny_search_from(tiny, class) / HAK_UNIT_GRAINS;
    uint32_t even = n % 2 == 0;

    for (; at < tiny->units; at++) {
        uint64_t first =
            haki_grain_take_in(&units[at], n, even, most - row->count);
        char *start = tiny_address_of(tiny, at * HAK_UNIT_GRAINS);

        for (; first != 0; first &= first - 1) {
            tiny_row_add(tiny, row,
                         start + (size_t)__builtin_ctzll(first) * HAK_GRAIN, n);
        }
        if (row->count < most && (at + 1) % HAK_SLAB_UNITS != 0 &&
            at + 1 < tiny->units) {
            uint32_t grain = haki_grain_take_across(&units[at], n, even);

            if (grain != HAK_UNIT_GRAINS) {
                tiny_row_add(tiny, row, start + grain * HAK_GRAIN, n);
            }
        }
        if (row->count == most) {
            tiny_search_ended(tiny, class, at * HAK_UNIT_GRAINS);
            return;
        }
    }
    tiny_search_ended(tiny, class, HAK_GRAIN_NOWHERE);
}

/* The same of larger ones, each by itself. */
static void tiny_fill_large(struct hak_tiny *tiny, unsigned class, uint32_t n,
                            uint32_t most, struct hak_tiny_row *row)
{
    uint32_t even = n % 2 == 0;
    uint32_t grain = tiny_find(tiny, tiny_search_from(tiny, class), n, even);

    tiny_search_ended(tiny, class, grain);
    while (grain != HAK_GRAIN_NOWHERE && row->count < most) {
        haki_grain_mark_block(haki_tiny_units(tiny), grain, n, true);
        tiny_row_add(tiny, row, tiny_address_of(tiny, grain), n);
        tiny_search_ended(tiny, class, grain);
        grain = tiny_find(tiny, grain + n, n, even);
    }
}

bool haki_tiny_grain_fill(struct hak_tiny *tiny, unsigned class, bool more)
{
    struct hak_shelf *shelf = &tiny->shelves[class];
    size_t size = haki_tiny_size[class];
    size_t step = haki_min(shelf->step / FILL_PART, tiny_fill_most(tiny));
    uint32_t n = (uint32_t)(size / HAK_GRAIN);
    uint32_t most = (uint32_t)haki_max(step / size, 1);
    struct hak_tiny_row row = {NULL, NULL, 0};

    if (!tiny_is_told(class)) {
        return false;
    }
    if (more && tiny_place(tiny, class, n) == HAK_GRAIN_NOWHERE) {
        tiny_search_ended(tiny, class, HAK_GRAIN_NOWHERE);
        return false;
    }
    if (n < HAK_UNIT_GRAINS) {
        tiny_fill_units(tiny, class, n, most, &row);
    } else {
        tiny_fill_large(tiny, class, n, most, &row);
    }
    if (row.count == 0) {
        return false;
    }
    haki_link_set(row.last, NULL);
    haki_tiny_take(tiny, class, row.count);
    haki_keep_took(&tiny->allow, row.count * size);
    haki_bin_set(tiny, class, row.first, row.count);
    shelf->step =
        (uint16_t)haki_max(shelf->step,
                           haki_min(2 * step * FILL_PART, HAK_TINY_CARVE_MOST));
    return true;
}

void haki_tiny_grain_put(struct hak_tiny *tiny, struct hak_block *list,
                         uint32_t count)
{
    unsigned class = haki_tiny_class_at(list);
    uint32_t n = haki_tiny_size[class] / (uint32_t)HAK_GRAIN;
    uint32_t base =
        haki_grain_of(tiny, haki_range_slab_start(haki_range_number(list)),
                      haki_range_number(list));
    uint32_t at = HAK_UNITS; /* a unit, and what goes of it */
    uint64_t used = 0, last = 0;

    haki_tiny_take(tiny, class, -(int64_t)count);
    tiny->packed_bytes -= count * n * (uint32_t)HAK_GRAIN;
    for (; count > 0; count--) {
        uint32_t grain =
            base + (uint32_t)((uintptr_t)list & (HAK_SLAB_SIZE - 1)) /
                       (uint32_t)HAK_GRAIN;
        uint32_t unit = grain / HAK_UNIT_GRAINS, bit = grain % HAK_UNIT_GRAINS;

        list = haki_link_get(list);
        if (unit != at) {
            tiny_put_unit(tiny, at, used, last);
            at = unit;
            used = last = 0;
        }
        if (bit + n <= HAK_UNIT_GRAINS) {
            used |= haki_grain_bits(bit, n);
            last |= (uint64_t)1 << (bit + n - 1);
        } else {
            haki_grain_mark_block(haki_tiny_units(tiny), grain, n, false);
            tiny->freed_from = (uint32_t)haki_min(tiny->freed_from, unit);
        }
    }
    tiny_put_unit(tiny, at, used, last);
}

/* tiny_place, marked as a slow path. */
static uint32_t tiny_place_busy(struct hak_tiny *tiny, unsigned class,
                                uint32_t n)
{
    uint32_t grain;

    haki_tiny_busy(tiny, true);
    grain = tiny_place(tiny, class, n);
    haki_tiny_busy(tiny, false);
    return grain;
}

void *haki_tiny_larger_alloc(struct hak_tiny *tiny, size_t size)
{
    uint32_t n = (uint32_t)(haki_round_up(size, 2 * HAK_GRAIN) / HAK_GRAIN);
    unsigned class = HAK_TINY_CLASSES - 1;
    uint32_t grain;
    void *p;

    if (!tiny->packed || size > HAK_TINY_LARGER_MOST) {
        return NULL;
    }
    grain = tiny_place_busy(tiny, class, n);
    /* Without a place it is another lane's, which counts it. */
    if (grain != HAK_GRAIN_NOWHERE && haki_tiny_is_due(tiny, n * HAK_GRAIN)) {
        struct hak_sampler who = haki_tiny_sampler(tiny);

        p = haki_sample_take(n * HAK_GRAIN, &who);
        if (p != NULL) {
            return p;
        }
        /* That may have waited, and others have been here. */
        grain = tiny_place_busy(tiny, class, n);
    }
    if (grain == HAK_GRAIN_NOWHERE) {
        return NULL;
    }
    haki_tiny_busy(tiny, true);
    p = tiny_take(tiny, grain, n);
    haki_keep_taken(&tiny->allow, n * (int64_t)HAK_GRAIN);
    tiny->larger_bytes += n * (uint32_t)HAK_GRAIN;
    haki_link_wipe(p); /* what was free here before may have left its mark */
    haki_tiny_busy(tiny, false);
    return p;
}

void haki_tiny_larger_free(struct hak_tiny *tiny, void *p)
{
    haki_tiny_refuse(p);
    haki_tiny_busy(tiny, true);
    haki_tiny_larger_put(tiny, p);
    haki_tiny_grain_sweep_sparse(tiny);
    haki_tiny_busy(tiny, false);
}

void haki_tiny_larger_put(struct hak_tiny *tiny, void *p)
{
    size_t size = haki_tiny_bytes_of(p, haki_range_tag_of(p));
    uint32_t n = (uint32_t)(size / HAK_GRAIN);

    HAK_CHECK(size > 0 && tiny->larger_bytes >= size);
    haki_keep_taken(&tiny->allow, -(int64_t)size);
    tiny->larger_bytes -= (uint32_t)size;
    if (tiny->packed) { /* if not, it is sealed: see tiny_seal.c */
        tiny_put(tiny, haki_grain_of(tiny, p, haki_range_number(p)), n);
    }
}

/* ---- pages --------------------------------------------------------------- */

/* Whether units first .. end - 1 hold nothing. */
static bool tiny_is_empty(const struct hak_tiny *tiny, uint32_t first,
                          uint32_t end)
{
    const struct hak_unit *units = haki_tiny_units(tiny);
    uint64_t used = 0;

    for (uint32_t n = first; n < end; n++) {
        used |= haki_grain_used(&units[n]);
    }
    return used == 0;
}

/* The pages of packed slab i that hold nothing, as far as its map reaches. */
static uint32_t tiny_grain_free_pages(const struct hak_tiny *tiny, uint32_t i)
{
    uint32_t first = i * HAK_SLAB_UNITS, at = first, pages = 0;
    uint32_t end = (uint32_t)haki_min(tiny->units, first + HAK_SLAB_UNITS);

    for (; at < end; at += PAGE_UNITS) {
        bool empty =
            tiny_is_empty(tiny, at, (uint32_t)haki_min(at + PAGE_UNITS, end));

        pages |= (uint32_t)empty << (at - first) / PAGE_UNITS;
    }
    return pages;
}

/* Gives back the last packed slab, of which nothing is in use. */
static void tiny_give(struct hak_tiny *tiny, uint32_t i)
{
    uint32_t number = tiny->packed_at[i];

    tiny->units = i * HAK_SLAB_UNITS;
    tiny->packed_at[i] = HAK_NO_SLAB;
    haki_slab_leave(&tiny->all, number);
    tiny->nslabs--;
    haki_range_slabs_give(number, 1, HAK_LANE_TINY);
}

/* How many packed slabs the maps reach into. */
static uint32_t tiny_slabs_of(const struct hak_tiny *tiny)
{
    return (tiny->units + HAK_SLAB_UNITS - 1) / HAK_SLAB_UNITS;
}

void haki_tiny_grain_trim(struct hak_tiny *tiny)
{
    while (tiny->packed && tiny->units > 0) {
        uint32_t i = tiny_slabs_of(tiny) - 1;

        if (!tiny_is_empty(tiny, i * HAK_SLAB_UNITS, tiny->units)) {
            break;
        }
        tiny_give(tiny, i);
    }
}

size_t haki_tiny_grain_resident(const struct hak_tiny *tiny)
{
    size_t bytes = haki_round_up(tiny->units * HAK_UNIT, HAK_PAGE);

    for (uint32_t i = 0; i < tiny_slabs_of(tiny); i++) {
        const struct hak_slab *slab = haki_range_slab(tiny->packed_at[i]);

        bytes -= (size_t)__builtin_popcount(slab->gone) * HAK_PAGE;
    }
    return bytes;
}

/* A sweep comes after a fall of `fell`: sets how deep the next fall must be. */
static void tiny_count_fall(struct hak_tiny *tiny, uint32_t used, uint32_t fell)
{
    uint32_t grains = used / (uint32_t)HAK_GRAIN;

    if (grains + GRAIN_FALL_LEAST / HAK_GRAIN <= tiny->packed_low) {
        tiny->packed_falls = 0;
        tiny->packed_price = 0;
    } else {
        tiny->packed_falls += tiny->packed_falls < GRAIN_FALLS_FREE;
        fell = (uint32_t)(haki_min(2 * fell, GRAIN_PRICE_MOST) / HAK_GRAIN);
        tiny->packed_price = (uint16_t)haki_max(tiny->packed_price, fell);
    }
    tiny->packed_low = (uint16_t)haki_min(tiny->packed_low, grains);
}

/* How much must have been freed for a sweep. */
static uint32_t tiny_price_of(const struct hak_tiny *tiny, uint32_t used)
{
    uint32_t least = (uint32_t)haki_max(GRAIN_FALL_LEAST, used / 8);

    return tiny->packed_falls < GRAIN_FALLS_FREE
               ? least
               : (uint32_t)haki_max(least,
                                    tiny->packed_price * (uint32_t)HAK_GRAIN);
}

void haki_tiny_grain_sweep_sparse(struct hak_tiny *tiny)
{
    uint32_t used = tiny->packed_bytes;

    if (used > tiny->packed_seen) {
        tiny->packed_seen = used;
    } else if (used + tiny_price_of(tiny, used) <= tiny->packed_seen &&
               haki_tiny_grain_resident(tiny) > used + used / 4 + HAK_PAGE) {
        HAK_TEST_SWEEP();
        tiny_count_fall(tiny, used, tiny->packed_seen - used);
        haki_tiny_bins_flush(tiny);
        haki_range_purged(haki_tiny_grain_sweep(tiny));
    }
}

size_t haki_tiny_grain_sweep(struct hak_tiny *tiny)
{
    uint32_t before = tiny->units;
    size_t bytes = 0;

    if (!tiny->packed) {
        return 0;
    }
    tiny->packed_seen = tiny->packed_bytes;
    haki_tiny_grain_trim(tiny);
    for (uint32_t i = 0; i < tiny_slabs_of(tiny); i++) {
        uint32_t number = tiny->packed_at[i];

        if (i == tiny_slabs_of(tiny) - 1) { /* it ends at its last block */
            while (tiny_is_empty(tiny, tiny->units - STEP_UNITS, tiny->units)) {
                tiny->units -= STEP_UNITS;
            }
            bytes += haki_range_pages_cut(number, 1,
                                          (tiny->units - i * HAK_SLAB_UNITS) *
                                              HAK_UNIT);
        }
        bytes += haki_range_pages_drop(number, tiny_grain_free_pages(tiny, i));
    }
    if (before > HAK_UNITS_NEAR && tiny->units <= HAK_UNITS_NEAR) {
        haki_os_purge((char *)tiny + HAK_PAGE,
                      HAK_PAGE); /* that page holds only maps */
    }
    return bytes;
}
