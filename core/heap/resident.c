/*
 * resident.c - how much of one heap is in memory.
 *
 * Any thread may ask: slabs are found by their tags, blocks of ACE and Huge by
 * their owner, nothing by the heap's own lists, which its user may be changing.
 * What comes or goes meanwhile may or may not be counted.
 */
#include "heap/account.h"
#include "huge/huge.h"
#include "os/os.h"

#define ASK_MOST (128 * HAK_PAGE) /* see haki_os_resident */

static size_t resident_resident(char *at, size_t size)
{
    size_t sum = 0;

    for (size_t done = 0; done < size; done += ASK_MOST) {
        sum += haki_os_resident(at + done, haki_min(size - done, ASK_MOST));
    }
    return sum;
}

static bool resident_is_of(uint32_t number, uint32_t id)
{
    return HAK_TAG_HEAP(haki_range_tag((size_t)number << HAK_SLAB_SHIFT)) == id;
}

/*
 * Resident bytes in slabs of Tiny and Pool; the kernel is asked about
 * neighbours together.
 */
static size_t resident_in_slabs(uint32_t id)
{
    uint32_t end = (uint32_t)(HAK_LOAD(haki_range.size) >> HAK_SLAB_SHIFT);
    size_t sum = 0;

    for (uint32_t first = 1; first < end; first++) {
        uint32_t next = first;

        while (next < end && resident_is_of(next, id)) {
            next++;
        }
        if (next > first) {
            sum += resident_resident(haki_range_slab_start(first),
                                     (next - first) * HAK_SLAB_SIZE);
            first = next;
        }
    }
    return sum;
}

static size_t resident_in_blocks(uint32_t id)
{
    size_t bytes, sum = 0;
    char *at = NULL;

    while ((at = haki_ace_next(id, at, &bytes)) != NULL) {
        sum += resident_resident(at, bytes);
    }
    while ((at = haki_huge_next(id, at, &bytes)) != NULL) {
        sum += resident_resident(at, bytes);
    }
    return sum;
}

size_t hak_heap_resident(const struct hak_heap *heap)
{
    uint32_t id = heap->tiny.id;
    size_t sum = resident_resident((char *)(uintptr_t)heap, HAK_HEAP_SLOT);

    if (id != 0) { /* there is a range */
        sum += resident_in_slabs(id);
        if (haki_account_other(heap) != 0) {
            sum += resident_in_blocks(id);
        }
    }
    return sum;
}
