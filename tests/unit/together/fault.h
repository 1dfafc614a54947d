/*
 * fault.h - the n-th call to the operating system fails, once or from then on, for
 * n = 1, 2, 3 ... until the work is done without a refusal: for fault.c and
 * fault_lanes.c, which do the work (work_with_fault).
 */
#ifndef FAULT_H
#define FAULT_H

#include "unit.h"

struct fault {
    unsigned n;
    bool forever;
};

/* Exits with 3 if the n-th call was never reached. */
static void work_with_fault(void *fault);

/* How many calls there are to refuse; one of `step` where memory is watched. */
UNIT unsigned run_all(bool forever, unsigned step)
{
    struct unit_child child;
    struct fault fault = {1, forever};

    for (;; fault.n += UNIT_WATCHED ? step : 1) {
        unit_child(&child, work_with_fault, &fault);
        if (WIFEXITED(child.status) && WEXITSTATUS(child.status) == 3) {
            return fault.n - 1;
        }
        cr_assert_eq(child.status, 0, "call %u refused%s: status %#x: %s",
                     fault.n, forever ? " and all later ones" : "",
                     (unsigned)child.status, child.said);
        cr_assert(child.said[0] == '\0' ||
                      strncmp(child.said, "hakmem: out of memory at", 24) == 0,
                  "call %u: %s", fault.n, child.said);
    }
}

#endif
