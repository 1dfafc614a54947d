/*
 * lend.h - lending the heap of a sleeping thread to another thread.
 *
 * What lies in a sleeping thread's bins, and what others have freed
 * for it, can only be given back by somebody who works on its heap. Its own hot
 * paths take no lock and leave no mark, so another thread must know that none
 * of them is under way and that none will begin. It (the borrower)
 *
 *   1. takes the lock here, and puts haki_heap_none into the owner's haki_self:
 *      whatever the owner begins from now on finds no heap and takes the slow
 *      path, which waits for the lock (haki_lend_return);
 *   2. looks whether the owner sleeps in a system call, not in a signal's
 *      handler (haki_os_thread_waits). If so, nothing that began before is still
 *      under way: hot paths make no system calls, and slow ones that sleep
 *      are told by `busy`, and by the counts of who waits for a lock or reads a
 *      file here. If not, it goes to 4;
 *   3. works on the heap;
 *   4. puts the heap back into haki_self and drops the lock.
 *
 * So haki_self may become haki_heap_none at any time while its thread runs: it is
 * read once for each operation (haki_thread_self), and never written but under
 * the lock once the heap may be lent.
 *
 * Fork: a child may be left without its heap, by a borrower that does not exist
 * there. It gets it back, or if the borrower was caught at work on it, a new one.
 * tests/model/borrow.pml is a model of this.
 */
#ifndef HAK_LEND_H
#define HAK_LEND_H

#include "heap/heap.h"

/* The calling thread's heap may be lent from here on, or no longer. */
void haki_lend_begin(struct hak_heap *heap);
void haki_lend_end(struct hak_heap *heap);

/* From here on no heap is lent: the host keeps pointers to threads' heaps. */
void haki_lend_close(void);

/*
 * The calling thread, which owns `heap`, found none: it has it again when this
 * returns true. False: it was lost in a fork.
 */
bool haki_lend_return(struct hak_heap *heap);

/* In a forked child: the heap of the thread that forked, as above. */
bool haki_lend_forked(struct hak_heap *heap);

/*
 * Calls `work` for a heap that another thread owns, if that sleeps. The caller
 * holds no lock; `work` may take the heaps' and all below.
 */
bool haki_lend(struct hak_heap *heap, void (*work)(struct hak_heap *heap));

/* The same for all of them. */
void haki_lend_all(void (*work)(struct hak_heap *heap));

/*
 * The same for those that were used since `trimmed_use` (heap.h) was last set, which
 * is up to `work`; an owner that did not sleep is not asked again for 10 ms.
 */
void haki_lend_used(void (*work)(struct hak_heap *heap));

/*
 * The same for those that have not been used since the last call; to be called
 * once in a while. False: nothing is left to do.
 */
bool haki_lend_idle(void (*work)(struct hak_heap *heap));

#endif /* HAK_LEND_H */
