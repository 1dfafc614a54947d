/*
 * allowance.c - the extra that a busy heap may keep.
 */
#include "range/allowance.h"

#include "os/os.h"

#define TURNS 4
#define TURNS_TIME 100 /* milliseconds */

/* This many turns are enough if they come within QUICK_TIME. */
#define QUICK_TURNS 2
#define QUICK_TIME 10

/*
 * An explicit heap with fewer bytes of slabs is probably one of many: it gets
 * what a single Pool block needs, and only after SMALL_TURNS turns.
 */
#define EXTRA_FROM ((int64_t)(2 * HAK_MIB))
#define SMALL_TURNS 8
#define ALLOWANCE_SMALL_MOST (64 * HAK_KIB)

#ifdef HAK_TESTING
_Atomic(uint64_t) haki_test_sweeps;
#endif

static bool allowance_is_small(const struct hak_allowance *allow)
{
    return haki_is_frugal(allow) && allow->slabs < EXTRA_FROM;
}

static size_t allowance_extra_most(const struct hak_allowance *allow)
{
    if (allowance_is_small(allow)) {
        return ALLOWANCE_SMALL_MOST;
    }
    return haki_max(HAK_EXTRA_MOST,
                    haki_min((size_t)haki_in_use(allow) / 2, HAK_GIB));
}

/*
 * Memory given back earlier had to be taken again, and is now given back again.
 */
static void allowance_turn(struct hak_allowance *allow)
{
    uint8_t turns = allowance_is_small(allow) ? SMALL_TURNS : TURNS;
    uint8_t quick = allowance_is_small(allow) ? SMALL_TURNS : QUICK_TURNS;
    uint32_t now = haki_os_tick();

    if (allow->turns == 0) {
        allow->since = now;
    }
    allow->turns++;
    if ((allow->turns >= quick && now - allow->since <= QUICK_TIME) ||
        (allow->turns >= turns && now - allow->since <= TURNS_TIME)) {
        allow->extra =
            (uint32_t)haki_min(allow->extra + allow->gave + allow->gave / 4,
                               allowance_extra_most(allow));
        allow->turns = 0;
    } else if (allow->turns >= turns) {
        allow->turns = 0;
    }
    allow->gave = allow->took = 0;
}

void haki_keep_gave(struct hak_allowance *allow, size_t bytes)
{
    if (allow->took > 0 && allow->gave > 0) {
        allowance_turn(allow);
    }
    allow->took = 0;
    allow->gave = (uint32_t)haki_min(allow->gave + bytes, HAK_GIB);
    if (allow->gave > allowance_extra_most(allow)) {
        allow->extra = 0;
        allow->turns = 0;
    }
}
