/*
 * background.h - a thread that gives memory back while the program sleeps.
 *
 * Free memory goes back on the program's own slow paths; a sleeping program has
 * none. So when LEAST bytes or more wait to go back, a thread is started if
 * there is none:
 *
 *     none --wanted, haki_background_check--> running --nothing waits--> none
 *                                              '------a fork comes---> none
 *
 * It sleeps until something is due, gives that back, also trims the heaps of
 * sleeping threads (lend.h), and ends when nothing is left and nobody watches
 * (haki_look_watched: then it is started for that, too). Hot paths know
 * nothing of it: freed bytes are counted on slow paths, and the thread is
 * started there, where no lock of ours is held.
 *
 * Fork: when our prepare handler returns it is gone, from the kernel's list
 * too, unless the handler gave up waiting (the thread that forks may hold a
 * lock that it needs); then the child has its ghost, which lock.h deals with.
 * It is started again when the parent next does something, after a pause:
 * CPython 3.12 warns if it finds other threads in the parent of a fork.
 */
#ifndef HAK_BACKGROUND_H
#define HAK_BACKGROUND_H

#include "range/purge.h"
#include "range/range.h"

/* Starts the thread if enough waits. No lock of ours is held. Keeps errno. */
HAK_COLD void haki_background_start(void);

/*
 * Called at the end of slow paths that free. The call by name makes an archive
 * include this file for every program that frees anything.
 */
HAK_INLINE void haki_background_check(void)
{
    if (HAK_UNLIKELY(haki_range_freed_much())) {
        haki_background_start();
    }
}

/*
 * From here on there is no thread, and other threads' heaps are not trimmed:
 * for an adapter whose host has timers or threads of its own for that, or which
 * keeps pointers to threads' heaps.
 */
void haki_background_close(void);

/*
 * haki_background_pause ends the thread, and none is started until the second
 * function is called. When the first returns the thread is gone, unless it gave
 * up waiting. Calls nest; any thread.
 */
void haki_background_pause(void);
void haki_background_resume(void);

/* The thread's id; 0: there is none at the moment. */
int32_t haki_background_thread(void);

#endif /* HAK_BACKGROUND_H */
