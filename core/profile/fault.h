/*
 * fault.h - a touch of what a guarded block's pages keep out: seen by a handler of
 * SIGSEGV, which reports it and lets the program's own way happen.
 *
 * The handler is there only while guards are on. What it does with any fault, a guarded
 * block's or another, when it has made its report: it puts the program's own action in
 * its place and returns. The instruction faults again and the kernel does what it had
 * done without us: calls the program's handler, on its stack, with its mask and flags,
 * or ends the process by the same signal with a core. A signal that was sent is sent
 * again. So a handler may return, siglongjmp, chain, or put back what was there before
 * (faulthandler does): nothing of ours is on the stack.
 *
 * The program may set its handler after ours. At each guarded block that is given out
 * or freed the handler looks whether it is still the one that is set, and else takes
 * the place of what is: so from the next one on. What a program's handler has found
 * when it was set, and calls or restores, may be ours: a thread that comes here again
 * after it was sent on is given what was there first of all.
 *
 * (Only SIGSEGV: on Linux a page without access is no SIGBUS.)
 */
#ifndef HAK_FAULT_H
#define HAK_FAULT_H

#include "base/base.h"

/* Under the profile's lock: sets the handler; sees that it is set, if it is to be;
 * sets what the program had. */
void haki_fault_begin(void);
void haki_fault_check(void);
void haki_fault_end(void);

#endif /* HAK_FAULT_H */
