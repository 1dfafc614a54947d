/*
 * hard_lane.c - the hardened build's seals, when only the pointer is known.
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
static size_t hard_find(const void *p, bool *sealed, const char *caller)
{
    uint32_t tag = haki_range_tag_of(p);
    uint32_t owner = HAK_TAG_HEAP(tag);
    const struct hak_heap *heap;
    size_t size;

    if (haki_tag_is_large(tag)) {
        size = haki_large_find(p, &owner);
    } else {
        if (haki_hard_marked(p)) {
            haki_hard_freed(p, caller);
        }
        haki_tiny_refuse(p);
        size = haki_tiny_bytes_of(p, tag);
    }
    *sealed = size != 0;
    if (*sealed && owner != HAK_ID_SHARED) {
        heap = haki_range_heap(owner);
        *sealed = !heap->tiny.direct;
    }
    return size;
}

size_t haki_lane_guard_check_slow(const void *p, const char *caller)
{
    bool sealed;
    size_t size = hard_find(p, &sealed, caller);

    return sealed ? haki_guard_check(p, size, caller) : size;
}

void haki_lane_guard_set_slow(void *p, size_t size)
{
    bool sealed;
    size_t block = hard_find(p, &sealed, "malloc");

    if (sealed) {
        haki_guard_set(p, block, size);
    }
}
