/*
 * lane.h - from a size to a lane, and from a pointer to what it is.
 *
 * Layer 6. The lanes' bounds stand here once. Today the Tiny lane exists;
 * what is larger goes to the system (system.h).
 */
#ifndef HAK_LANE_H
#define HAK_LANE_H

#include <hakmem.h>

#include "base.h"
#include "tiny_class.h"

#define HAK_LANE_TINY_MAX HAK_TINY_MAX_SIZE
#define HAK_LANE_POOL_MIN (HAK_LANE_TINY_MAX + 1)

_Static_assert(HAK_LANE_TINY_MAX == HAK_TINY_MAX, "the public bound");

/*
 * Ends the program, naming `caller`, p and the reason, unless p (which is in
 * the range) is the start of a block of a slab in use.
 */
void hak_lane_check(const void *p, const char *caller);

/* Frees p outside the range; fatal if it is no block of the system's. */
void hak_lane_free_system(void *p, const char *caller);

#endif /* HAK_LANE_H */
