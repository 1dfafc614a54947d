/*
 * hard_lane.c - the hardened build's seals, where only the pointer is known.
 *
 * Compiled only with HARDENED=1.
 */
#include "front/hard_lane.h"
#include "front/lane.h"
#include "front/large.h"
#include "range/slots.h"

/*
 * The bytes of the block p, 0 if there is none, and whether it has a seal.
 * Ends the program if it is known to be free.
 */
static size_t find(const void *p, bool *sealed, const char *caller)
{
    uint32_t tag = hak_range_tag_of(p);
    uint32_t owner = HAK_TAG_HEAP(tag);
    const struct hak_heap *heap;
    size_t size;

    if (hak_tag_is_large(tag)) {
        size = hak_large_find(p, &owner);
    } else {
        if (hak_hard_marked(p)) {
            hak_hard_freed(p, caller);
        }
        hak_tiny_refuse(p);
        size = hak_tiny_bytes_of(p, tag);
    }
    *sealed = size != 0;
    if (*sealed && owner != HAK_ID_SHARED) {
        heap = hak_range_heap(owner);
        *sealed = !heap->tiny.direct;
    }
    return size;
}

size_t hak_lane_guard_check_slow(const void *p, const char *caller)
{
    bool sealed;
    size_t size = find(p, &sealed, caller);

    return sealed ? hak_guard_check(p, size, caller) : size;
}

void hak_lane_guard_set_slow(void *p, size_t size)
{
    bool sealed;
    size_t block = find(p, &sealed, "malloc");

    if (sealed) {
        hak_guard_set(p, block, size);
    }
}
