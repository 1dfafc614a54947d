/*
 * samples.h - where sampled blocks of up to 52 KB lie.
 *
 * The first superslabs of the window, behind the tags' own, are for samples and
 * no lane takes them. Their slabs' tags are HAK_TAG_SHARED(HAK_TAG_SAMPLE), from
 * the slab's first use on, for good: no heap's, so that a hot path that frees such a
 * block leaves it to the slow one, and frees of other blocks never look. (What goes
 * by the address alone, a Lua state's sized frees, is told a window that begins
 * behind them: haki_embed_window.)
 *
 *     never used --claim--> of a size --its last block is freed--> empty, its pages
 *                           gone --a block of any size--> of a size
 *
 * A slab is cut into places of a power of two from 64 B on; so a block is aligned
 * to what its size is a multiple of. Which places are taken says a map, outside.
 *
 * Invariants, under the profile's lock (profile.h):
 *   - a bit of `bits` is set exactly if a record has that address;
 *   - a slab with some but not all of its places taken, and one without any that is
 *     kept, is in the list of its size; an empty one is in the list of empty ones;
 *   - a slab below `high` has the tag, unless it is somebody else's; from there on
 *     none was ever used.
 * All but the slabs' sizes is made anew from the records after a fork that caught a
 * thread in here: haki_samples_mend.
 */
#ifndef HAK_SAMPLES_H
#define HAK_SAMPLES_H

#include "range/range.h"

/* Blocks of so many bytes and less may be samples here. */
#define HAK_SAMPLES_MOST HAK_SLAB_SIZE

/* Where the memory of what follows may be; haki_samples_bytes bytes, zeros. */
size_t haki_samples_bytes(void);
void haki_samples_begin(void *memory);

/* A place for `bytes` bytes. NULL: there is none. Under the profile's lock, as are
 * the next five. */
void *haki_samples_take(size_t bytes);

/* Gives it back. */
void haki_samples_give(const void *p);

/* The beginning of the place that p, which haki_samples_covers, lies in; NULL: its
 * slab is empty. */
const void *haki_samples_place(const void *p);

/* After a fork: all places are free, and then each that a record has is taken. */
void haki_samples_mend_begin(void);
void haki_samples_mend_take(const void *p);
void haki_samples_mend_end(void);

/*
 * The last quarter is kept for guarded blocks (guarded.h): where, and its bytes, a
 * multiple of HAK_SLAB_SIZE. Claims the first `bytes` of it, which nobody can touch then,
 * once; false: refused, or something is mapped there.
 */
char *haki_samples_guarded(size_t *bytes);
bool haki_samples_claim_guarded(size_t bytes);

/* Whether p lies where samples do: any thread, any value. */
bool haki_samples_covers(const void *p);

/* Bytes of slabs that are in use. */
size_t haki_samples_held(void);

#endif /* HAK_SAMPLES_H */
