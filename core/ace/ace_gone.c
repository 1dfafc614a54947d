/*
 * ace_gone.c - pages of ACE's holes that are not mapped.
 *
 * Under a limit on address space (RLIMIT_AS) a hole of some length is
 * unmapped as soon as it comes to be, so that others may have its addresses;
 * a bit of `gone` says so for each page. A run that is cut from it is mapped
 * first. Without such a limit no page is ever gone.
 *
 * The bits are set before pages are unmapped and cleared after they are mapped:
 * a child that is forked in between takes pages for gone that are not, finds
 * them taken and leaves them alone.
 */
#include "ace/ace_bits.h"
#include "os/lock.h"
#include "os/os.h"

atomic_bool hak_ace_were_gone;

size_t hak_ace_fresh(uint32_t page, uint32_t pages)
{
    return hak_bits_lacking(hak_ace_super(page)->dirty, hak_ace_at(page),
                            pages) *
           HAK_PAGE;
}

void hak_ace_clean(uint32_t page, uint32_t pages)
{
    size_t dirty = pages * HAK_PAGE - hak_ace_fresh(page, pages);

    HAK_ASSERT(hak_ace_at(page) + pages <= HAK_ACE_PAGES);
    hak_bits_set(hak_ace_super(page)->dirty, hak_ace_at(page), pages, false);
    hak_limit_uncharge(HAK_ACE_CHARGED, dirty);
}

/* How many pages from `page` on, up to `end`, are as gone as the first one. */
static uint32_t alike(uint32_t page, uint32_t end)
{
    const struct hak_ace_super *super = hak_ace_super(page);
    bool gone = hak_bits_get(super->gone, hak_ace_at(page));
    uint32_t next = page + 1;

    while (next < end && hak_bits_get(super->gone, hak_ace_at(next)) == gone) {
        next++;
    }
    return next - page;
}

enum hak_os_claim hak_ace_claim(uint32_t page, uint32_t pages)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t end = page + pages, n;

    if (HAK_LIKELY(!hak_ace_any_gone(page, pages))) {
        return HAK_OS_CLAIMED;
    }
    for (; page < end; page += n) {
        enum hak_os_claim claim;

        n = alike(page, end);
        if (!hak_bits_get(super->gone, hak_ace_at(page))) {
            continue;
        }
        claim = hak_os_claim(hak_ace_address(page), n * HAK_PAGE);
        if (claim != HAK_OS_CLAIMED) {
            return claim;
        }
        hak_lock_step();
        hak_bits_set(super->gone, hak_ace_at(page), n, false);
    }
    return HAK_OS_CLAIMED;
}

size_t hak_ace_unmap(uint32_t page, uint32_t pages)
{
    struct hak_ace_super *super = hak_ace_super(page);
    uint32_t end = page + pages, n;
    size_t bytes = 0;

    HAK_CHECK(hak_bits_get(super->holes, hak_ace_at(page)) &&
              pages <= hak_ace_length(page));
    for (; page < end; page += n) {
        n = alike(page, end);
        if (hak_bits_get(super->gone, hak_ace_at(page))) {
            continue;
        }
        atomic_store_explicit(&hak_ace_were_gone, true, memory_order_relaxed);
        hak_bits_set(super->gone, hak_ace_at(page), n, true);
        hak_lock_step();
        if (hak_os_unmap(hak_ace_address(page), n * HAK_PAGE)) {
            hak_ace_clean(page, n);
            bytes += n * HAK_PAGE;
        } else {
            hak_bits_set(super->gone, hak_ace_at(page), n, false);
        }
    }
    return bytes;
}
