/*
 * pages.c - single pages of slabs in use: given to the system and brought back.
 *
 * Called by the slab's owner, who knows that no block in use and no link lies
 * in these pages. No lock: what happens to neighbouring slabs does not matter.
 *
 * Tested by tests/unit/tiny/tiny_pages.c and tests/unit/pool/pool_pages.c.
 */
#include "range/pages.h"

#include "base/assert.h"
#include "os/os.h"
#include "range/supers.h"

/*
 * Calls work(start, size) for each run of pages in the mask; returns the
 * refused.
 */
static uint32_t pages_each_run(uint32_t number, uint32_t pages,
                               bool (*work)(void *start, size_t size))
{
    char *start = haki_range_slab_start(number);
    uint32_t refused = 0;

    while (pages != 0) {
        uint32_t first = (uint32_t)__builtin_ctz(pages);
        uint32_t count = (uint32_t)__builtin_ctz(~(pages >> first));
        uint32_t run = (((uint32_t)1 << count) - 1) << first;

        if (!work(start + first * HAK_PAGE, count * HAK_PAGE)) {
            refused |= run;
        }
        pages &= ~run;
    }
    return refused;
}

/* How many of HAK_PAGE make up one of the machine's. */
static uint32_t pages_per(void)
{
    return (uint32_t)(haki_range.page / HAK_PAGE);
}

/* Every page that shares one of the machine's with a page of the mask. */
static uint32_t pages_groups(uint32_t pages)
{
    uint32_t groups = 0;

    for (uint32_t at = 0; at < HAK_SLAB_PAGES; at += pages_per()) {
        uint32_t group = (((uint32_t)1 << pages_per()) - 1) << at;

        groups |= (pages & group) != 0 ? group : 0;
    }
    return groups;
}

uint32_t haki_range_pages_whole(uint32_t number, uint32_t pages)
{
    const struct hak_slab *slab = haki_range_slab(number);
    uint32_t below = haki_slab_pages_below(slab->resident);
    uint32_t free = pages | slab->gone | ~below;

    return pages & below & ~(uint32_t)slab->gone & ~pages_groups(~free);
}

static size_t pages_bytes_of(uint32_t pages)
{
    return (size_t)__builtin_popcount(pages) * HAK_PAGE;
}

size_t haki_range_pages_drop(uint32_t number, uint32_t pages)
{
    struct hak_slab *slab = haki_range_slab(number);
    size_t bytes;

    pages = haki_range_pages_whole(number, pages);
    if (pages == 0) {
        return 0;
    }
    HAK_ASSERT(haki_range_tag((size_t)number << HAK_SLAB_SHIFT) != 0);
    pages &= ~pages_each_run(number, pages_groups(pages), haki_os_purge);
    slab->gone = (uint16_t)(slab->gone | pages);
    bytes = pages_bytes_of(pages);
    atomic_fetch_sub(&haki_supers_resident, bytes);
    return bytes;
}

void haki_range_pages_wake(uint32_t number, uint32_t pages, bool populate)
{
    struct hak_slab *slab = haki_range_slab(number);

    pages &= slab->gone;
    if (pages == 0) {
        return;
    }
    if (populate && (pages & (pages - 1)) != 0) {
        pages_each_run(number, pages,
                       haki_os_populate); /* otherwise page faults do it */
    }
    HAK_ASSERT((pages & ~haki_slab_pages_below(slab->resident)) == 0);
    slab->gone = (uint16_t)(slab->gone & ~pages);
    atomic_fetch_add(&haki_supers_resident, pages_bytes_of(pages));
}

size_t haki_range_pages_cut(uint32_t number, uint32_t slabs, size_t keep)
{
    size_t bytes = 0;

    for (uint32_t n = number; n < number + slabs; n++) {
        struct hak_slab *slab = haki_range_slab(n);
        size_t most = haki_min(keep, HAK_SLAB_SIZE);
        size_t from = haki_whole_pages(most);

        keep -= most;
        if (slab->resident > from &&
            haki_os_purge(haki_range_slab_start(n) + from,
                          haki_whole_pages(slab->resident - from))) {
            size_t before = haki_slab_resident(slab);

            slab->resident = (uint32_t)from;
            slab->gone = (uint16_t)(slab->gone & haki_slab_pages_below(from));
            bytes += before - haki_slab_resident(slab);
        }
    }
    atomic_fetch_sub(&haki_supers_resident, bytes);
    return bytes;
}

void haki_range_pages_forget(struct hak_slab *slab)
{
    uint32_t pages = haki_slab_pages_below(slab->resident) & ~slab->gone;
    size_t before = haki_slab_resident(slab);

    HAK_ASSERT(slab->resident <= HAK_SLAB_SIZE);
    if (HAK_LIKELY(slab->gone == 0)) {
        return;
    }
    slab->resident =
        pages != 0 ? (uint32_t)HAK_PAGE * (uint32_t)(32 - __builtin_clz(pages))
                   : 0;
    slab->gone = 0;
    atomic_fetch_add(&haki_supers_resident, slab->resident - before);
}
