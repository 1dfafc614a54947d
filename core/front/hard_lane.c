/*
 * hard_lane.c - the hardened build's guards, when only the pointer is known.
 *
 * Compiled only with HARDENED=1.
 *
 * Tested by tests/unit/guard/hard_guards.c.
 */
#include "front/hard_lane.h"
#include "front/lane.h"
#include "front/large.h"
#include "range/slots.h"

/*
 * The bytes of the block p, 0 if there is none, and whether it has a guard.
 * Ends the program if it is known to be free.
 */
static size_t hard_find(const void *p, bool *guarded, const char *caller)
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
    *guarded = size != 0;
    if (*guarded && owner != HAK_ID_SHARED) {
        heap = haki_range_heap(owner);
        *guarded = !heap->tiny.accounted;
    }
    return size;
}

size_t haki_lane_guard_check_slow(const void *p, const char *caller)
{
    bool guarded;
    size_t size = hard_find(p, &guarded, caller);

    return guarded ? haki_guard_check(p, size, caller) : size;
}

void haki_lane_guard_set_slow(void *p, size_t size)
{
    bool guarded;
    size_t block = hard_find(p, &guarded, "malloc");

    if (guarded) {
        haki_guard_set(p, block, size);
    }
}
