/*
 * ace_check.h - compiles the ACE lane in, with
 * core/ace/ace_walk.c's walk; for tests/unit/ace.
 *
 * Call it while no other thread uses the lane. The first broken promise ends
 * the process with a line naming it.
 */
#ifndef ACE_CHECK_H
#define ACE_CHECK_H

#include "../../core/ace/ace.c"
#include "../../core/ace/ace_holes.c"

#include "ace/ace_walk.h"
#include "unit.h"

UNIT struct hak_ace_sums ace_check(void)
{
    return haki_ace_walk(true);
}

#endif /* ACE_CHECK_H */
