/*
 * background.h - a thread that gives memory back while the program sleeps.
 *
 * Free memory goes back on the program's own slow paths; a program that
 * goes to sleep has none. So when LEAST bytes or more wait to go back a thread
 * is started, if there is none:
 *
 *     none --wanted, haki_background_check--> running --nothing waits--> none
 *                                              '------a fork comes---> none
 *
 * It sleeps until something is due, gives it back, trims the heaps of threads
 * that sleep as well (lend.h), and ends when nothing is left. Hot paths know
 * nothing of it: who frees counts bytes on slow paths, and there it is started,
 * where no lock of ours is held.
 *
 * Fork: it is gone, from the kernel as well, when our prepare handler returns,
 * or that gives up waiting (the thread that forks may hold a lock it needs); the
 * child then has its ghost, which lock.h deals with. It comes again when the
 * parent next does something, after a pause: CPython 3.12 warns in the parent
 * of a fork if it then finds other threads.
 */
#ifndef HAK_BACKGROUND_H
#define HAK_BACKGROUND_H

#include "range/purge.h"
#include "range/range.h"

/* Starts the thread if enough waits; no lock of ours is held. Keeps errno. */
HAK_COLD void haki_background_start(void);

/*
 * To be called at the end of slow paths that free. By its name, so that an
 * archive has this file for who frees anything.
 */
HAK_INLINE void haki_background_check(void)
{
    if (HAK_UNLIKELY(haki_range_freed_much())) {
        haki_background_start();
    }
}

/*
 * From here on there is no thread, and no other thread's heap is trimmed: for
 * an adapter whose host has timers or threads of its own for that, or that
 * keeps pointers to threads' heaps.
 */
void haki_background_close(void);

/*
 * The thread ends, and none is started until the second is called. It is gone when
 * the first returns, or that gave up waiting. They nest; any thread.
 */
void haki_background_pause(void);
void haki_background_resume(void);

/* The thread's id, 0: there is none (now). */
int32_t haki_background_thread(void);

#endif /* HAK_BACKGROUND_H */
