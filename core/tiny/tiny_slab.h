/*
 * tiny_slab.h - taking and giving back slabs of the Tiny lane.
 *
 * For tiny*.c only; called by the heap's user.
 */
#ifndef HAK_TINY_SLAB_H
#define HAK_TINY_SLAB_H

#include "tiny/tiny.h"

/*
 * Takes a slab from the shared pool, for blocks of `class` or as a packed
 * slab: `kind` is what the tag says, the class or HAK_TAG_PACKED. HAK_NO_SLAB:
 * out of memory.
 */
uint32_t haki_tiny_slab_take(struct hak_tiny *tiny, unsigned class,
                             unsigned kind);

/* No more bytes than this are carved at a time. */
#define HAK_TINY_CARVE_MOST (8 * HAK_KIB)

/*
 * Links `count` new blocks of `size` bytes from `start` on, in order of address
 * (hardened build: in random order); returns the first.
 */
struct hak_block *haki_tiny_link_new(char *start, size_t size, uint32_t count);

/* Gives back a slab of which no block is in use. */
void haki_tiny_slab_give(struct hak_tiny *tiny, uint32_t number);

/* Gives back the slabs of a class of which no block is in use. */
void haki_tiny_slab_trim(struct hak_tiny *tiny, unsigned class);

/* Takes one block back into its slab, which is not sealed. */
void haki_tiny_slab_put(struct hak_tiny *tiny, struct hak_block *block);

/* The same for a list of blocks of one class, of any slabs. */
void haki_tiny_slab_put_list(struct hak_tiny *tiny, struct hak_block *list);

/*
 * Takes all free blocks out of a slab, as a list in order of address (hardened
 * build: in any order). Objects made one after the other then lie side by side
 * however their predecessors died, which helps the processor's prefetchers:
 * lists of floats in Python took 1.2 of the time without it.
 */
struct hak_block *haki_tiny_slab_take_free(uint32_t number);

/* The words that hold a bit for each block of a slab of the smallest class. */
#define HAK_TINY_MAP_WORDS (HAK_SLAB_SIZE / HAK_TINY_STEP / 64)

/* Sets the bits of the blocks in a list, all of one slab, by their numbers. */
void haki_tiny_slab_map(uint64_t *map, const struct hak_block *list,
                        uint32_t magic);

/* ---- samples: tiny_draw.c -------------------------------------------------- */

/* What a refill does first, if haki_tiny_must_draw says so: draws, takes the sample
 * if one was due; if not, or there is no room for it, pops. NULL: the bin is empty. */
void *haki_tiny_pop_drawn(struct hak_tiny *tiny, unsigned class);

/* ---- pages of slabs in use: tiny_pages.c ---------------------------------- */

/* Begins a pass over the slabs of an idle heap, unless one is under way; */
void haki_tiny_sweep_begin(struct hak_tiny *tiny, uint32_t now);
/* does its next slice if it is time: sweeps slabs that seem idle. */
void haki_tiny_sweep_slice(struct hak_tiny *tiny, uint32_t now);

/*
 * For an open slab with an empty list and pages that are gone: brings some of
 * them back and makes their blocks its list.
 */
void haki_tiny_slab_wake(struct hak_tiny *tiny, uint32_t number);

/* ---- packed slabs: tiny_grain.c ------------------------------------------- */

/*
 * Fills the class's empty bin, taking more pages if `more`. False: there is no
 * room, or no memory.
 */
bool haki_tiny_grain_fill(struct hak_tiny *tiny, unsigned class, bool more);

/* Takes back a list of `count` blocks of a class, all in one packed slab. */
void haki_tiny_grain_put(struct hak_tiny *tiny, struct hak_block *list,
                         uint32_t count);

/* Takes back a block above 1024 B. */
void haki_tiny_larger_put(struct hak_tiny *tiny, void *p);

/* haki_tiny_class_at_tag, _bytes_of and _is_block for packed slabs. */
unsigned haki_tiny_grain_class(const void *p, uint32_t tag);
size_t haki_tiny_grain_bytes(const void *p, uint32_t tag);
bool haki_tiny_grain_is_block(const void *p, uint32_t tag);

/* Gives back packed slabs at the end of the row that hold nothing, */
void haki_tiny_grain_trim(struct hak_tiny *tiny);
/* and with the second also pages of the others; returns the bytes of these. */
size_t haki_tiny_grain_sweep(struct hak_tiny *tiny);

/*
 * tiny.c: starts the class afresh after all of its slabs were sealed; its bin
 * becomes stale lists. (The heap may be that of another thread, which the fork
 * stopped between two of its counters: statistics may then be off by a block.)
 */
void haki_tiny_seal_class(struct hak_tiny *tiny, unsigned class);

#endif /* HAK_TINY_SLAB_H */
