/*
 * blame.h - the report of a guarded block's misuse, on standard error: what, where,
 * and who allocated, freed and touched it.
 *
 * Made in a signal handler or just before abort: nothing is allocated but by the os, no
 * lock of the C library's or the loader's is taken. Functions' names are read from the
 * objects' files; where the C library can't say which object an address is in without a
 * lock (glibc before 2.35, musl) there are addresses alone. One at a time: a second
 * thread waits a moment.
 */
#ifndef HAK_BLAME_H
#define HAK_BLAME_H

#include "profile/guarded.h"

/* Once, outside of any lock: finds what it needs in the C library. */
void haki_blame_begin(void);

/* A fault at `address` by the instruction at pc (0: not known); `access` is "write",
 * "read" or "touch". Reports it unless that was done for the block. */
void haki_blame_touch(struct hak_guarded *slot, const void *address,
                      uintptr_t pc, const char *access);

/* The block is freed, and the byte at `at` is not what was there. */
_Noreturn void haki_blame_canary(struct hak_guarded *slot, const void *at);

/* p, in the block or what was one, was given to `caller`. */
_Noreturn void haki_blame_pointer(struct hak_guarded *slot, const void *p,
                                  const char *caller);

#endif /* HAK_BLAME_H */
