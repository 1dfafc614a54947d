/*
 * ace_gone.c - pages of ACE's holes that are not mapped.
 *
 * Under a limit on address space (RLIMIT_AS) a long hole is unmapped as soon as
 * it is made, so that its address space can be used by others; a bit of `gone`
 * says so for each page. A run that is cut from it is mapped first. Without
 * such a limit no page is ever gone.
 *
 * The bits are set before pages are unmapped and cleared after they are mapped:
 * a child forked in between takes pages for gone that are not, finds them
 * mapped and leaves them alone.
 */
#include "ace/ace_bits.h"
#include "os/lock.h"
#include "os/os.h"

atomic_bool haki_ace_were_gone;

size_t haki_ace_fresh(uint32_t page, uint32_t pages)
{
    return haki_bits_lacking(haki_ace_super(page)->resident, haki_ace_at(page),
                             pages) *
           HAK_PAGE;
}

void haki_ace_clean(uint32_t page, uint32_t pages)
{
    size_t resident = pages * HAK_PAGE - haki_ace_fresh(page, pages);

    HAK_ASSERT(haki_ace_at(page) + pages <= HAK_ACE_PAGES);
    haki_bits_set(haki_ace_super(page)->resident, haki_ace_at(page), pages,
                  false);
    haki_limit_uncharge(HAK_ACE_CHARGED, resident);
}

/* How many pages from `page` on, up to `end`, are as gone as the first one. */
static uint32_t ace_alike(uint32_t page, uint32_t end)
{
    const struct hak_ace_super *super = haki_ace_super(page);
    bool gone = haki_bits_get(super->gone, haki_ace_at(page));
    uint32_t next = page + 1;

    while (next < end &&
           haki_bits_get(super->gone, haki_ace_at(next)) == gone) {
        next++;
    }
    return next - page;
}

enum hak_os_claim haki_ace_claim(uint32_t page, uint32_t pages)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t end = page + pages, n;

    if (HAK_LIKELY(!haki_ace_any_gone(page, pages))) {
        return HAK_OS_CLAIMED;
    }
    for (; page < end; page += n) {
        enum hak_os_claim claim;

        n = ace_alike(page, end);
        if (!haki_bits_get(super->gone, haki_ace_at(page))) {
            continue;
        }
        claim = haki_os_claim(haki_ace_address(page), n * HAK_PAGE);
        if (claim != HAK_OS_CLAIMED) {
            return claim;
        }
        haki_lock_step();
        haki_bits_set(super->gone, haki_ace_at(page), n, false);
    }
    return HAK_OS_CLAIMED;
}

size_t haki_ace_unmap(uint32_t page, uint32_t pages)
{
    struct hak_ace_super *super = haki_ace_super(page);
    uint32_t end = page + pages, n;
    size_t bytes = 0;

    HAK_CHECK(haki_bits_get(super->holes, haki_ace_at(page)) &&
              pages <= haki_ace_length(page));
    for (; page < end; page += n) {
        n = ace_alike(page, end);
        if (haki_bits_get(super->gone, haki_ace_at(page))) {
            continue;
        }
        atomic_store_explicit(&haki_ace_were_gone, true, memory_order_relaxed);
        haki_bits_set(super->gone, haki_ace_at(page), n, true);
        haki_lock_step();
        if (haki_os_unmap(haki_ace_address(page), n * HAK_PAGE)) {
            haki_ace_clean(page, n);
            bytes += n * HAK_PAGE;
        } else {
            haki_bits_set(super->gone, haki_ace_at(page), n, false);
        }
    }
    return bytes;
}
