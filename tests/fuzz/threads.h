/*
 * threads.h - operations of the fuzzer that other threads do.
 */
#ifndef FUZZ_THREADS_H
#define FUZZ_THREADS_H

/* A thread that runs some operations and ends. */
void do_thread(void);

/* A thread that stays runs some operations. */
void do_worker(void);

/* It ends. */
void do_worker_end(void);

/* This thread and one that stays free blocks and allocate, at once. */
void do_at_once(void);

/* This thread, but not the main one, runs some operations when it ends. */
void do_late(void);

/* All that stay end. */
void threads_end(void);

#endif
