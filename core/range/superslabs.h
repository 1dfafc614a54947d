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
 * Takes superslabs side by side for `bytes` bytes; the address of the first is
 * a multiple of `align` (a power of two) superslabs. *zero: all of it is zero.
 * *room: how many superslabs behind them should be kept free for the run to
 * grow into; returns how many were. haki_range_room_give gives these back.
 */
uint32_t haki_range_run_take(size_t bytes, uint32_t align, enum hak_lane lane,
                             uint32_t *room, bool *zero);

/* The same without room, `count` superslabs. */
uint32_t haki_range_supers_take(uint32_t count, uint32_t align,
                                enum hak_lane lane, bool *zero);

/*
 * Grows the run of `count` superslabs, with *room behind it, to `bytes` bytes
 * without moving it. False: it can't.
 */
bool haki_range_run_grow(uint32_t first, uint32_t count, uint32_t *room,
                         size_t bytes, enum hak_lane lane, bool *zero);

/*
 * Makes a new run for `bytes` bytes, with *room as above, with the contents of
 * the run `from` of `count` superslabs: their pages are moved, or copied where
 * the kernel can't move them. The caller then drops `from`. HAK_NO_SUPER: out
 * of memory; `from` is unchanged.
 */
uint32_t haki_range_run_move(uint32_t from, uint32_t count, size_t bytes,
                             enum hak_lane lane, uint32_t *room);

/*
 * Gives superslabs back; `resident`, as above, applies to each of them. Those
 * without contents are unmapped.
 */
void haki_range_supers_give(uint32_t first, uint32_t count, enum hak_lane lane,
                            uint32_t resident);

/* Gives back a superslab that its lane has unmapped. */
void haki_range_super_gone(uint32_t super, enum hak_lane lane);

/* Gives superslabs back, and their contents to the system. */
void haki_range_supers_drop(uint32_t first, uint32_t count, enum hak_lane lane);

/*
 * The first of the superslabs that were taken together with `super`, or
 * HAK_NO_SUPER if it is not taken whole.
 */
uint32_t haki_range_super_head(uint32_t super);

/* Bytes of superslabs that are wholly free and have resident pages. */
size_t haki_range_unused(void);

#endif /* HAK_SUPERSLABS_H */
