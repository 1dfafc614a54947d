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
 * address, claiming a superslab if need be. `whole`: all of it will be written
 * to, so above 8 MB it may come populated, as a huge page; otherwise Pool gets
 * slabs with little resident first. Among the resident ones those that last had
 * this `class` (a descriptor's class, or HAK_CLASS_ANY) come first: heaps that
 * are created again to do the same work find the pages they need. In the
 * descriptors only `resident` is set. HAK_NO_SLAB: out of memory.
 */
uint32_t haki_range_slabs_take(uint32_t count, enum hak_lane lane,
                               uint8_t class, enum hak_slabs_use use);
#define HAK_CLASS_ANY 0xfeu /* no descriptor's */

/*
 * Makes the first `need` bytes of a span of `slabs` slabs usable, and `step`
 * bytes beyond what is resident if that is more, with a single call to the
 * system; a step of 0, or a single page, is left to page faults. Called by the
 * owner. False: out of memory.
 */
bool haki_range_ready(uint32_t number, uint32_t slabs, size_t need,
                      size_t step);

/* Bytes from the start of a span that have been made resident. */
size_t haki_range_resident(uint32_t number, uint32_t slabs);

/* Gives a span back; its tags become 0. */
void haki_range_slabs_give(uint32_t number, uint32_t count, enum hak_lane lane);

/* Gives back a list of spans linked by all_next, each `slabs` long. */
void haki_range_list_give(uint32_t first, enum hak_lane lane);

/* The bytes of slabs in the process that were made resident. */
size_t haki_range_resident_bytes(void);

/*
 * Called after a seal: huge pages are used only once the process has grown a
 * good deal more, so that a worker that needs little gets little.
 */
void haki_range_start_small(void);

#endif /* HAK_SLABS_H */
