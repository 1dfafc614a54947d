/*
 * tiny_pages.c - gives single pages of partly used slabs back to the system.
 *
 * Free blocks of a slab are linked, so a page can go back only when those that
 * touch it are in no list. A sweep takes them out ("gone blocks", of which only
 * the number is kept). When the slab is chosen for a refill and its own list
 * has run out, the blocks of some of these pages are linked again
 * (haki_tiny_slab_wake).
 *
 *     free list --sweep, all blocks of a page are free--> gone
 *     gone --wake, the page comes back--> free list
 *
 * A sweep has to walk a slab's list. So a slab is first looked at, and swept at
 * the next look if little has changed (tiny_is_quiet). While the heap is idle
 * looks come every half HAKMEM_PURGE_DELAY, in slices.
 */
#include <string.h>

#include "os/os.h"
#include "range/pages.h"
#include "range/purge.h"
#include "tiny/tiny_slab.h"

/*
 * In a descriptor's `swept`, along with the number of free blocks at the last
 * look.
 */
#define DONE 0x8000u /* it was swept then */

/*
 * The slices of an idle time: how long each is, how many slabs it looks at; ms
 * between slices.
 */
#define TINY_SLICE 1000000 /* ns */
#define SLICE_SEEN 4096
#define TINY_PAUSE 10

#define CACHE_LINE 64

/*
 * A slab of which more than 1/BUSY_PART was freed since the last look is not
 * quiet.
 */
#define BUSY_PART 8

/* ---- blocks and pages ------------------------------------------------------- */

/* The pages that block i touches. */
static uint32_t tiny_pages_of(const struct hak_slab *slab, uint32_t i)
{
    return haki_slab_pages_of((size_t)i * slab->block, slab->block);
}

/* The first block that touches page `page`, and the one behind the last. */
static uint32_t tiny_first_at(const struct hak_slab *slab, uint32_t page)
{
    return (uint32_t)(page * HAK_PAGE / slab->block);
}

static uint32_t tiny_end_at(const struct hak_slab *slab, uint32_t page)
{
    size_t end = ((page + 1) * HAK_PAGE - 1) / slab->block + 1;

    return (uint32_t)haki_min(end, slab->carved);
}

/* The bits from..end-1 of a word of the map that begins with bit `base`. */
static uint64_t tiny_bits_of(uint32_t base, uint32_t from, uint32_t end)
{
    uint32_t low = from > base ? from - base : 0;
    uint32_t high = (uint32_t)haki_min(end - base, 64);

    return UINT64_MAX >> (64 - (high - low)) << low;
}

static bool tiny_all_set(const uint64_t *map, uint32_t from, uint32_t end)
{
    for (uint32_t w = from / 64; w * 64 < end; w++) {
        uint64_t bits = tiny_bits_of(w * 64, from, end);

        if ((map[w] & bits) != bits) {
            return false;
        }
    }
    return from < end;
}

static void tiny_set_all(uint64_t *map, uint32_t from, uint32_t end)
{
    for (uint32_t w = from / 64; from < end && w * 64 < end; w++) {
        map[w] |= tiny_bits_of(w * 64, from, end);
    }
}

/* ---- a slab is swept --------------------------------------------------------- */

/*
 * Reads what is resident of a slab into the cache, in order of address: walking
 * a list through it then takes a fifth of the time.
 */
static void tiny_fetch(uint32_t number)
{
    const struct hak_slab *slab = haki_range_slab(number);
    const char *start = haki_range_slab_start(number);
    size_t end = (size_t)slab->carved * slab->block;

    for (size_t at = 0; at < end; at += CACHE_LINE) {
        if ((slab->gone >> at / HAK_PAGE & 1) == 0) {
            __builtin_prefetch(start + at);
        }
    }
}

/* The slab's resident pages that hold no block in use and can't get one. */
static uint32_t tiny_pages_free_pages(const struct hak_slab *slab,
                                      uint32_t magic)
{
    uint64_t map[HAK_TINY_MAP_WORDS] = {0};
    size_t most = slab->carved == slab->capacity
                      ? HAK_SLAB_SIZE
                      : (size_t)slab->carved * slab->block & ~(HAK_PAGE - 1);
    uint32_t candidates =
        haki_slab_pages_below(haki_min(most, haki_round_up(slab->resident,
                                                           HAK_PAGE)));
    uint32_t found = 0;

    haki_tiny_slab_map(map, slab->free, magic);
    for (uint32_t page = 0; page < HAK_SLAB_PAGES; page++) {
        if ((slab->gone >> page & 1) != 0) {
            tiny_set_all(map, tiny_first_at(slab, page),
                         tiny_end_at(slab, page));
        }
    }
    for (uint32_t page = 0; page < HAK_SLAB_PAGES; page++) {
        if ((candidates & ~(uint32_t)slab->gone) >> page & 1 &&
            tiny_all_set(map, tiny_first_at(slab, page),
                         tiny_end_at(slab, page))) {
            found |= (uint32_t)1 << page;
        }
    }
    return found;
}

/* Makes `next` follow `last`, or come first if that is NULL. */
static void tiny_link_after(struct hak_slab *slab, struct hak_block *last,
                            struct hak_block *next)
{
    if (last == NULL) {
        slab->free = next;
    } else {
        haki_link_set(last, next);
    }
}

/* Takes the blocks that touch one of `pages` out of the slab's list. */
static void tiny_unlink_blocks(struct hak_slab *slab, uint32_t pages)
{
    struct hak_block *last = NULL; /* the last one that stays */
    bool linked = true;            /* whether it links to `block` */

    for (struct hak_block *block = slab->free; block != NULL;) {
        struct hak_block *next = haki_link_get(block);
        size_t at = (uintptr_t)block & (HAK_SLAB_SIZE - 1);

        if ((haki_slab_pages_of(at, slab->block) & pages) != 0) {
            HAK_ASSERT(slab->nfree > 0);
            slab->nfree--;
            slab->ngone++;
            linked = false;
        } else {
            if (!linked) {
                tiny_link_after(slab, last, block);
            }
            last = block;
            linked = true;
        }
        block = next;
    }
    if (!linked) {
        tiny_link_after(slab, last, NULL);
    }
}

/* Links the blocks that touch one of `pages` but no page that is gone. */
static void tiny_link_blocks(uint32_t number, uint32_t pages)
{
    struct hak_slab *slab = haki_range_slab(number);
    uint32_t low = (uint32_t)__builtin_ctz(pages);
    uint32_t high = 31 - (uint32_t)__builtin_clz(pages);
    uint32_t first = tiny_first_at(slab, low);

    for (uint32_t i = tiny_end_at(slab, high); i > first; i--) {
        uint32_t of = tiny_pages_of(slab, i - 1);
        struct hak_block *block;

        if ((of & pages) == 0 || (of & slab->gone) != 0) {
            continue;
        }
        block = (void *)(haki_range_slab_start(number) +
                         (size_t)(i - 1) * slab->block);
        if (HAK_HARD && slab->free != NULL && haki_hard_below(2) == 0) {
            /* In any order: behind the first. */
            haki_link_set(block, haki_link_get(slab->free));
            haki_link_set(slab->free, block);
        } else {
            haki_link_set(block, slab->free);
            slab->free = block;
        }
        HAK_ASSERT(slab->ngone > 0);
        slab->nfree++;
        slab->ngone--;
    }
}

/* Puts an open slab in its place: behind all others if its list is empty. */
static void tiny_settle(struct hak_tiny *tiny, uint32_t number)
{
    const struct hak_slab *slab = haki_range_slab(number);
    uint32_t *open = &tiny->shelves[slab->class].open;

    HAK_ASSERT(slab->nfree + slab->ngone > 0);
    HAK_ASSERT(slab->nfree + slab->ngone <= slab->carved);
    if (slab->nfree == 0) {
        haki_slab_close(open, number);
        haki_slab_open_last(open, number);
    }
}

static size_t tiny_sweep_slab(struct hak_tiny *tiny, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    size_t bytes = 0;
    uint32_t pages;

    HAK_ASSERT(!haki_range_sealed((size_t)number << HAK_SLAB_SHIFT));
    tiny_fetch(number);
    pages = haki_range_pages_whole(
        number, tiny_pages_free_pages(slab, haki_tiny_magic[slab->class]));
    if (pages != 0) {
        tiny_unlink_blocks(slab, pages);
        bytes = haki_range_pages_drop(number, pages);
        pages &= ~(uint32_t)slab->gone;
        if (HAK_UNLIKELY(pages != 0)) {
            tiny_link_blocks(number, pages); /* refused: they may be locked */
        }
        tiny_settle(tiny, number);
    }
    slab->swept = (uint16_t)(slab->nfree | DONE);
    HAK_WALK(haki_tiny_walk_due());
    return bytes;
}

/* ---- which slabs ------------------------------------------------------------- */

/*
 * Whether an open slab is worth a sweep: it may have a page to give, and if not
 * `all` then little has changed since it was last looked at.
 */
static bool tiny_is_quiet(struct hak_slab *slab, bool all)
{
    uint32_t before = slab->swept & ~DONE;
    bool done = (slab->swept & DONE) != 0;
    uint32_t more = slab->nfree - before; /* wraps around if there are fewer */

    if (slab->nfree * slab->block < HAK_PAGE ||
        slab->nfree + slab->ngone == slab->carved) {
        return false; /* a wholly free slab is given back elsewhere */
    }
    if (all) {
        return !done || more != 0;
    }
    if ((before == 0 && !done) || more > slab->capacity / BUSY_PART) {
        slab->swept = (uint16_t)slab->nfree;
        return false;
    }
    return !done || more * slab->block >= HAK_PAGE;
}

/* Sweeps packed slabs, by the same rule. */
static size_t tiny_sweep_packed(struct hak_tiny *tiny, bool all)
{
    struct hak_slab *slab = haki_range_slab(tiny->packed_at[0]);
    uint32_t used = tiny->packed_bytes / 16;
    size_t bytes = 0;

    if (tiny->packed_at[0] == HAK_NO_SLAB || !tiny->packed) {
        return 0;
    }
    if (all ? slab->swept != (used | DONE) : slab->swept == used) {
        bytes = haki_tiny_grain_sweep(tiny);
        if (tiny->packed_at[0] !=
            HAK_NO_SLAB) { /* it may have been given back */
            slab->swept = (uint16_t)(used | DONE);
        }
    } else if (slab->swept != (used | DONE)) {
        slab->swept = (uint16_t)used;
    }
    return bytes;
}

size_t haki_tiny_sweep(struct hak_tiny *tiny)
{
    size_t bytes = tiny_sweep_packed(tiny, true);

    HAK_ASSERT(atomic_load(&tiny->busy));
    for (unsigned c = 0; c < HAK_TINY_CLASSES; c++) {
        const struct hak_shelf *shelf = &tiny->shelves[c];
        uint32_t number = shelf->open;

        while (number != HAK_NO_SLAB && haki_range_slab(number)->nfree > 0) {
            uint32_t next = haki_range_slab(number)->open_next;

            if (tiny_is_quiet(haki_range_slab(number), true)) {
                bytes += tiny_sweep_slab(tiny, number);
            }
            number = next;
        }
        if (shelf->fresh != HAK_NO_SLAB) {
            const struct hak_slab *slab = haki_range_slab(shelf->fresh);

            bytes += haki_range_pages_cut(shelf->fresh, 1,
                                          (size_t)slab->carved * slab->block);
        }
    }
    haki_range_purged(bytes);
    return bytes;
}

/*
 * The slab where the pass over a class resumes; the first if that one is gone.
 */
static uint32_t tiny_resume(struct hak_tiny *tiny, unsigned class)
{
    uint32_t number = tiny->sweep_slab;

    tiny->sweep_slab = HAK_NO_SLAB;
    if (number != HAK_NO_SLAB &&
        haki_range_tag((size_t)number << HAK_SLAB_SHIFT) ==
            (tiny->tag | class * HAK_TAG_TINY) &&
        haki_range_slab(number)->nfree > 0) {
        return number;
    }
    return tiny->shelves[class].open;
}

void haki_tiny_sweep_begin(struct hak_tiny *tiny, uint32_t now)
{
    if (tiny->sweep_at == 0) {
        tiny->sweep_at = haki_some_time(now);
        tiny->sweep_class = 0;
        tiny->sweep_slab = HAK_NO_SLAB;
    }
}

void haki_tiny_sweep_slice(struct hak_tiny *tiny, uint32_t now)
{
    uint32_t seen = 0;
    uint64_t began;
    size_t bytes = 0;

    if (tiny->sweep_at == 0 || !haki_tick_reached(now, tiny->sweep_at)) {
        return;
    }
    began = haki_os_clock();
    if (tiny->sweep_class == 0 && tiny->sweep_slab == HAK_NO_SLAB) {
        bytes = tiny_sweep_packed(tiny, false);
    }
    while (tiny->sweep_class < HAK_TINY_CLASSES) {
        uint32_t number = tiny_resume(tiny, tiny->sweep_class);

        while (number != HAK_NO_SLAB && haki_range_slab(number)->nfree > 0) {
            uint32_t next = haki_range_slab(number)->open_next;

            if (seen >= SLICE_SEEN) {
                tiny->sweep_slab = number;
                tiny->sweep_at = haki_some_time(now + TINY_PAUSE);
                haki_range_purged(bytes);
                return;
            }
            seen++;
            if (tiny_is_quiet(haki_range_slab(number), false)) {
                bytes += tiny_sweep_slab(tiny, number);
                seen = haki_os_clock() - began < TINY_SLICE ? seen : SLICE_SEEN;
            }
            number = next;
        }
        tiny->sweep_class++;
    }
    tiny->sweep_at = 0;
    haki_range_purged(bytes);
}

/*
 * ---- pages come back
 * ----------------------------------------------------------
 */

/*
 * How many pages to bring back: one in a small heap, a slab's in a large one.
 */
static uint32_t tiny_pages_to_wake(const struct hak_tiny *tiny)
{
    return (uint32_t)haki_min(haki_max(tiny->nslabs / 4, 1), HAK_SLAB_PAGES);
}

void haki_tiny_slab_wake(struct hak_tiny *tiny, uint32_t number)
{
    struct hak_slab *slab = haki_range_slab(number);
    uint32_t rest = slab->gone;
    uint32_t pages;

    HAK_ASSERT(slab->free == NULL && slab->nfree == 0 && slab->ngone > 0);
    for (uint32_t n = tiny_pages_to_wake(tiny); n > 0; n--) {
        rest &= rest - 1; /* the lowest first */
    }
    pages = slab->gone & ~rest;
    haki_range_pages_wake(number, pages, true);
    tiny_link_blocks(number, pages);
}
