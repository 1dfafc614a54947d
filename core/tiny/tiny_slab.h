/*
 * tiny_slab.h - slabs of the Tiny lane come and go.
 *
 * For tiny*.c alone; called by the heap's one user.
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
 * (hardened build: in random order); the first of them.
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
 * Takes all that was given back out of a slab: a list, in order of address
 * (hardened build: in any). Objects made one after the other then lie side by
 * side however their predecessors died, which the processor's prefetchers
 * reward: lists of floats in Python took 1.2 of the time without it.
 */
struct hak_block *haki_tiny_slab_empty(uint32_t number);

/* The bits of a slab's blocks, of the smallest class. */
#define HAK_TINY_MAP_WORDS (HAK_SLAB_SIZE / HAK_TINY_STEP / 64)

/* Sets the bits of the blocks of a list, all of one slab, by their numbers. */
void haki_tiny_slab_map(uint64_t *map, const struct hak_block *list,
                        uint32_t magic);

/* ---- samples: tiny_draw.c -------------------------------------------------- */

/* What a refill does first, if haki_tiny_must_draw says so: draws, takes the sample
 * if one was due; if not, or there is no room for it, pops. NULL: the bin is empty. */
void *haki_tiny_pop_drawn(struct hak_tiny *tiny, unsigned class);

/* ---- pages of slabs in use: tiny_pages.c ---------------------------------- */

/* A pass over the slabs of an idle heap begins, unless one is going on; */
void haki_tiny_sweep_begin(struct hak_tiny *tiny, uint32_t now);
/* its next part, if it is time: slabs that seem to be idle are swept. */
void haki_tiny_sweep_slice(struct hak_tiny *tiny, uint32_t now);

/* An open slab with an empty list, of which pages are gone: some come again,
 * and their blocks are its list. */
void haki_tiny_slab_wake(struct hak_tiny *tiny, uint32_t number);

/* ---- packed slabs: tiny_grain.c ------------------------------------------- */

/* Fills the class's empty bin, with `more` pages if need be; false: there is no
 * room, or no memory. */
bool haki_tiny_grain_fill(struct hak_tiny *tiny, unsigned class, bool more);

/* Takes `count` blocks of a class back, linked, all in one packed slab. */
void haki_tiny_grain_put(struct hak_tiny *tiny, struct hak_block *list,
                         uint32_t count);

/* Takes a block above 1024 B back. */
void haki_tiny_larger_put(struct hak_tiny *tiny, void *p);

/* haki_tiny_class_at_tag, _bytes_of and _is_block for packed slabs. */
unsigned haki_tiny_grain_class(const void *p, uint32_t tag);
size_t haki_tiny_grain_bytes(const void *p, uint32_t tag);
bool haki_tiny_grain_is_block(const void *p, uint32_t tag);

/* Gives back packed slabs at the end of the row that hold nothing, and */
void haki_tiny_grain_trim(struct hak_tiny *tiny);
/* pages of the others as well: the bytes of these. */
size_t haki_tiny_grain_sweep(struct hak_tiny *tiny);

/*
 * tiny.c: the class, whose slabs are all sealed, begins anew; its bin becomes
 * stale lists. (The heap may be that of another thread, which a fork stopped
 * between two of its counters: statistics may then be off by a block.)
 */
void haki_tiny_seal_class(struct hak_tiny *tiny, unsigned class);

#endif /* HAK_TINY_SLAB_H */
