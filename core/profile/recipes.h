/*
 * recipes.h - from a C frame to its caller's, without libgcc.
 *
 * The tables that exceptions need (.eh_frame) say for each address of code where its
 * frame ends (the CFA: a constant above rsp, or above rbp) and where the caller's rbp
 * was saved. libgcc works that out anew for each frame of each walk, 2,000 instructions
 * a frame. Here what came of it is kept, a recipe for each return address.
 *
 * A walk by recipes is the one that libgcc would do, or none:
 *   - recipes are read from the same tables, never guessed from what a stack looks
 *     like (a frame with a variable array is as large as that, and old return addresses
 *     lie about). What is not a constant above rsp or rbp has none: signal frames,
 *     realigned stacks, tables registered by hand. Then libgcc walks instead;
 *   - whenever one is used, the object that has its code is asked for again, and must
 *     have the same bytes of table in the same place, unless it can't be unloaded: other
 *     code may be there after a dlclose;
 *   - of the stack only words between a frame's stack pointer and its end are read, and
 *     ends only go up, no higher than what lies above all frames of the thread (its
 *     thread pointer; of the main thread what the kernel put there), whatever tables and
 *     rbp say. A word on another page than the one before is read if the kernel says
 *     that it can be: that holds on any stack, a coroutine's or a signal's too. A frame
 *     that fails this is damaged or its table lies: the walk is lost and ends there,
 *     and libgcc, which would believe it, is not asked (but it is where a frame before has
 *     no recipe, and then believes all tables, as exceptions do);
 *   - of tables nothing outside of their object is read.
 * Builds with HAK_DEBUG compare each walk with libgcc's.
 *
 * No lock, no allocation; any thread, also in signal handlers. The table is of a fixed
 * size, and an entry may be overwritten at any time: its three words are a recipe only
 * if they belong together.
 *
 * x86-64 alone, and where the C library finds an object's tables without a lock; else
 * each step fails.
 */
#ifndef HAK_RECIPES_H
#define HAK_RECIPES_H

#include "base/base.h"

/* A frame: where its code goes on, its stack pointer then, its rbp. */
struct hak_walk {
    uintptr_t pc, sp, bp;
    /* recipes.c's: the object that the frame before was in; of it the sorted table of
     * .eh_frame_hdr, and the last CIE with what its bytes come to */
    uintptr_t from, bytes;
    const unsigned char *index;
    uint32_t count; /* 0: it can't be used */
    bool stays;     /* it is loaded as long as our code is */
    const unsigned char *cie;
    uint64_t cie_check;
    uintptr_t page; /* of the stack: one that was read, its first address */
    bool lost;      /* the frame's end can't be where its table says */
};

/* `find` is _dl_find_object. */
void haki_recipes_begin(void *find);

/* The frame becomes its caller's; pc == 0: there is none. False: that is not known, or
 * the walk is lost. */
bool haki_recipes_step(struct hak_walk *walk);

/* The frame of the function that has this. */
#if defined(__x86_64__) && defined(__LP64__)
#define HAK_RECIPES 1
#define HAK_WALK_HERE(walk)                                                    \
    __asm__ volatile("leaq 0(%%rip), %0\n\t"                                   \
                     "movq %%rsp, %1\n\t"                                      \
                     "movq %%rbp, %2"                                          \
                     : "=&r"((walk)->pc), "=&r"((walk)->sp),                   \
                       "=&r"((walk)->bp))
#else
#define HAK_RECIPES 0
#define HAK_WALK_HERE(walk) ((void)(walk))
#endif

#endif /* HAK_RECIPES_H */
