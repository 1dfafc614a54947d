/*
 * resident.c - how much of one heap is in memory.
 *
 * Any thread may ask, while the heap's user changes it: what comes or goes meanwhile
 * may or may not be counted. Slabs are found by the heap's own lists, so that asking
 * about each of many heaps does not look at all slabs of the process each time. A
 * list that changes meanwhile is noticed: each slab must have the heap's tag, and the
 * sum must be what the heap says it has. After a few attempts, and for a heap that
 * has a good part of the process's slabs, where it is faster, slabs are found by
 * their tags. Blocks of ACE and Huge are found by their owner, until all bytes that
 * the heap has been charged for are found.
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

/* So often the lists are tried; with 1/TAGS_FROM of all slabs they are not. */
#define TRIES 3
#define TAGS_FROM 16

static bool resident_is_of(uint32_t number, uint32_t id)
{
    return HAK_TAG_HEAP(haki_range_tag((size_t)number << HAK_SLAB_SHIFT)) == id;
}

/*
 * Resident bytes in slabs of Tiny and Pool; the kernel is asked about
 * neighbours together.
 */
static size_t resident_by_tags(uint32_t id)
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

/*
 * Resident bytes of the `slabs` slabs in a list of the heap, whose first is `number`,
 * added to *sum. False: the list has changed meanwhile.
 */
static HAK_RACY_READER bool resident_in_list(uint32_t id, uint32_t number,
                                             uint32_t slabs, size_t *sum)
{
    uint32_t end = (uint32_t)(HAK_LOAD(haki_range.size) >> HAK_SLAB_SHIFT);

    while (number != HAK_NO_SLAB && number < end &&
           resident_is_of(number, id)) {
        const struct hak_slab *slab = haki_range_slab(number);
        uint32_t count = slab->slabs;

        if (count == 0 || count > slabs || number + count > end) {
            return false;
        }
        *sum += resident_resident(haki_range_slab_start(number),
                                  count * HAK_SLAB_SIZE);
        slabs -= count;
        number = slab->all_next;
    }
    return number == HAK_NO_SLAB && slabs == 0;
}

/* Resident bytes in slabs of Tiny and Pool. */
static HAK_RACY_READER size_t resident_in_slabs(const struct hak_heap *heap)
{
    const struct hak_tiny *tiny = &heap->tiny;
    uint32_t all = (uint32_t)(HAK_LOAD(haki_range.size) >> HAK_SLAB_SHIFT);

    for (int tries = 0; tries < TRIES; tries++) {
        const struct hak_pool *pool =
            __atomic_load_n(&heap->pool, __ATOMIC_ACQUIRE);
        uint32_t ours = tiny->nslabs + tiny->nsealed;
        uint32_t pools = pool != NULL ? pool->nslabs + pool->nsealed : 0;
        size_t sum = 0;

        if (ours + pools >= all / TAGS_FROM) {
            break;
        }
        if (resident_in_list(tiny->id, tiny->all, ours, &sum) &&
            (pool == NULL ||
             resident_in_list(tiny->id, pool->all, pools, &sum))) {
            return sum;
        }
    }
    return resident_by_tags(tiny->id);
}

/* Resident bytes in the heap's blocks of ACE and Huge. */
static size_t resident_in_blocks(const struct hak_heap *heap)
{
    size_t found = 0, bytes, sum = 0;
    uint32_t id = heap->tiny.id;
    char *at = NULL;

    while (found < haki_account_other(heap) &&
           (at = haki_ace_next(id, at, &bytes)) != NULL) {
        sum += resident_resident(at, bytes);
        found += bytes;
    }
    at = NULL;
    while (found < haki_account_other(heap) &&
           (at = haki_huge_next(id, at, &bytes)) != NULL) {
        sum += resident_resident(at, bytes);
        found += bytes;
    }
    return sum;
}

size_t hak_heap_resident(const struct hak_heap *heap)
{
    uint32_t id = heap->tiny.id;
    size_t sum = resident_resident((char *)(uintptr_t)heap, HAK_HEAP_SLOT);

    if (id != 0) { /* there is a range */
        sum += resident_in_slabs(heap);
        sum += resident_in_blocks(heap);
    }
    return sum;
}
