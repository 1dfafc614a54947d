/*
 * slabs.h - free slabs: taken, made resident, given back.
 */
#ifndef HAK_SLABS_H
#define HAK_SLABS_H

#include "range/range.h"

#define HAK_SPAN_MOST 8 /* slabs in a span */

/* What the taker of slabs will write to. */
enum hak_slabs_use {
    HAK_SLABS_SOME, /* that is not known */
    HAK_SLABS_ALL,  /* all of them: above 8 MB a huge page may be made of it */
    HAK_SLABS_SPARSE, /* few pages: those with little resident come first */
};

/*
 * Takes `count` free slabs side by side, resident ones first, then the lowest
 * address, claiming a superslab if need be; see `use`. Of the resident
 * ones those come first that were last of `class`, a descriptor's class or
 * HAK_CLASS_ANY: heaps that are made again, to do the same, find the pages they
 * need. Of the descriptors only `resident` is set. HAK_NO_SLAB: out of memory.
 */
uint32_t haki_range_slabs_take(uint32_t count, enum hak_lane lane,
                               uint8_t class, enum hak_slabs_use use);
#define HAK_CLASS_ANY 0xfeu /* no descriptor's */

/*
 * Makes the first `need` bytes of a span of `slabs` slabs usable, and `step`
 * bytes beyond what is resident if that is more, all with one call to the
 * system; a step of 0, or a single page, is left to page faults. Called by
 * the owner. False: out of memory.
 */
bool haki_range_ready(uint32_t number, uint32_t slabs, size_t need,
                      size_t step);

/* Bytes from the start of a span that have been made resident. */
size_t haki_range_resident(uint32_t number, uint32_t slabs);

/* Gives a span back; its tags become 0. */
void haki_range_slabs_give(uint32_t number, uint32_t count, enum hak_lane lane);

/* Gives back a list of spans linked by all_next, each `slabs` long. */
void haki_range_list_give(uint32_t first, enum hak_lane lane);

/* The size of the process as far as slabs go: bytes made resident. */
size_t haki_range_resident_bytes(void);

/*
 * After a seal: the ladder's top, huge pages, begins only when the process has
 * grown by a good deal more, so that a worker that needs little gets little.
 */
void haki_range_start_small(void);

#endif /* HAK_SLABS_H */
