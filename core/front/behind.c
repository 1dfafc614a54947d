/*
 * behind.c - blocks of the system allocator, for callers that serve from the
 * lanes.
 */
#include "front/behind.h"

#include "base/msg.h"
#include "front/lane.h"
#include "heap/account.h"
#include "system/system.h"

size_t haki_lane_system_usable(const void *p, const char *caller,
                               struct hak_heap **owner)
{
    size_t size;

    if (!haki_system_find(p, owner, &size)) {
        haki_fatal("%s(%p): not a block of HAKMEM", caller, p);
    }
    return size;
}

size_t haki_lane_any_usable(const void *p, const char *caller)
{
    struct hak_heap *owner;

    return haki_range_owns(p) ? haki_lane_usable(p, caller)
                              : haki_lane_system_usable(p, caller, &owner);
}

void haki_lane_free_system(void *p, const char *caller)
{
    struct hak_heap *owner;
    size_t size;

    if (!haki_system_free(p, &owner, &size)) {
        haki_fatal("%s(%p): not a block of HAKMEM", caller, p);
    }
    if (owner != NULL) {
        haki_account_discharge_other(owner, size);
    }
}
