/*
 * superslabs.h - superslabs taken whole: one by ACE, runs of them by Huge.
 *
 * A run that grows wants room behind it: see rooms.h.
 */
#ifndef HAK_SUPERSLABS_H
#define HAK_SUPERSLABS_H

#include "range/range.h"

/* A bit for each slab of a superslab. */
#define HAK_ALL_SLABS UINT32_MAX

/*
 * Takes one superslab, the lowest free one. *resident: a bit for each of its slabs
 * that may have contents; the others are zero. HAK_NO_SUPER: out of memory.
 */
uint32_t haki_range_super_take(enum hak_lane lane, uint32_t *resident);

/*
 * Takes superslabs side by side for `bytes` bytes, the first one's address a
 * multiple of `align` times their size (a power of two). *zero: all of it is
 * zero. *room: so many superslabs behind them are wished to be kept free for
 * the run to grow into, and were; they are given back by haki_range_room_give.
 */
uint32_t haki_range_run_take(size_t bytes, uint32_t align, enum hak_lane lane,
                             uint32_t *room, bool *zero);

/* The same without room, `count` superslabs. */
uint32_t haki_range_supers_take(uint32_t count, uint32_t align,
                                enum hak_lane lane, bool *zero);

/*
 * Makes the run of `count` superslabs, with *room behind it, one of `bytes`
 * bytes, more than it has, where it is. False: it can't.
 */
bool haki_range_run_grow(uint32_t first, uint32_t count, uint32_t *room,
                         size_t bytes, enum hak_lane lane, bool *zero);

/*
 * A new run for `bytes` bytes, with *room as above, that has the contents of
 * the run `from` of `count` superslabs: their pages have moved, or where the
 * kernel can't they were copied. `from` is still to be dropped. HAK_NO_SUPER:
 * out of memory; `from` is as it was.
 */
uint32_t haki_range_run_move(uint32_t from, uint32_t count, size_t bytes,
                             enum hak_lane lane, uint32_t *room);

/*
 * Gives superslabs back; `resident` as above holds for each of them. Those without
 * contents are unmapped.
 */
void haki_range_supers_give(uint32_t first, uint32_t count, enum hak_lane lane,
                            uint32_t resident);

/* Gives back a superslab that its lane has unmapped. */
void haki_range_super_gone(uint32_t super, enum hak_lane lane);

/* Gives superslabs back and their contents to the system. */
void haki_range_supers_drop(uint32_t first, uint32_t count, enum hak_lane lane);

/*
 * The first of the superslabs that were taken together with `super`, or
 * HAK_NO_SUPER if it is not taken whole.
 */
uint32_t haki_range_super_head(uint32_t super);

/* Whole superslabs that are free and have resident pages, in bytes. */
size_t haki_range_unused(void);

#endif /* HAK_SUPERSLABS_H */
