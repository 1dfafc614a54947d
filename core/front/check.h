/*
 * check.h - what is wrong with a pointer that is not a block, in the words of a
 * fatal message.
 */
#ifndef HAK_CHECK_H
#define HAK_CHECK_H

#include "base/base.h"

/*
 * Ends the program, naming `caller`, p and the reason, unless p (which is in
 * the range) is the start of a block in use, as far as we can tell.
 */
void haki_lane_check(const void *p, const char *caller);

/* Ends the program: p, in the range, was not recognised as a block in use. */
void haki_lane_misuse(const void *p, const char *caller);

#endif /* HAK_CHECK_H */
