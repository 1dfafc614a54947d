/*
 * huge_check.h - compiles the Huge lane in, with its walk; for tests/unit/huge.
 *
 * Call it while no other thread uses the lane. The first broken promise ends
 * the process with a line naming it.
 */
#ifndef HUGE_CHECK_H
#define HUGE_CHECK_H

#include "../../core/huge/huge.c"

#include "unit.h"

UNIT struct hak_huge_sums huge_check(void)
{
    return haki_huge_walk(true);
}

#endif /* HUGE_CHECK_H */
