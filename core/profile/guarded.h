/*
 * guarded.h - guarded blocks: each alone on its pages, beside one that nobody can
 * touch, and out of reach for a while once it is freed.
 *
 * Of the bytes given out one in HAKMEM_GUARD_RATE begins a guarded block, by a chance
 * of its own: a profile that is on as well keeps its own (haki_profile_drawn). Blocks
 * of more than HAK_GUARDED_MOST bytes are not guarded, nor is one for which there is no
 * room. Guarded blocks lie at the end of what samples.h has, under its slabs' tag: so
 * hot paths leave their frees to the slow ones. Each has a record (profile.h), which
 * stands for no bytes of a profile unless it is a sample of that as well.
 *
 *     slot:  |  gap, 16 KB  |  data, 16 KB  |  gap of the next one ...
 *     data:  |  no access   |  canary, block to the end  |    or
 *            |  block from the beginning, canary  |  no access  |
 *
 *     never used --take--> live --give--> freed, no access --the oldest first--> live
 *
 * The side is drawn; a touch beyond it is a fault (fault.h), one on the other side is
 * seen by the canary when the block is freed. A live one has whole pages of the machine's,
 * and on those of 64 KB gap and data are as large. A block's size is what was asked for,
 * where whoever serves the request tells that (haki_guarded_fit), else its class's.
 *
 * Bounds: HAKMEM_GUARD_MEMORY for the pages of live ones and the slots' own memory. A
 * freed one keeps no page: where the program has locked its memory (mlockall) they are
 * unlocked for that, and locked again with the next block. (The names of a runtime's functions come on top, profile.h.)
 *
 * Invariants, under the profile's lock:
 *   - a slot is live exactly if a live record has its block, and then `record` is that;
 *   - slots that were used and are not live are in the list, the oldest first, but for
 *     those that a report was made of: these stay as they are, for good;
 *   - `pages` is the sum of live slots' pages, at most `pages_most`;
 *   - of a slot that is not live nothing can be touched, unless it is `untidy`.
 * A fault reads a slot without the lock: what it has does not change but by misuse.
 */
#ifndef HAK_GUARDED_H
#define HAK_GUARDED_H

#include "guard/hard.h"
#include "profile/profile.h"

#define HAK_GUARDED_MOST (16 * HAK_KIB)
#define HAK_GUARDED_PCS 24u
#define HAK_GUARDED_FRAMES 16u

enum hak_guarded_state {
    HAK_GUARDED_NEVER,
    HAK_GUARDED_LIVE,
    HAK_GUARDED_FREED
};

/* A stack as it is kept: the leaf's end of it. */
struct hak_guarded_stack {
    int32_t thread; /* 0: there is none */
    uint16_t pcs, frames;
    uintptr_t pc[HAK_GUARDED_PCS];
    struct hak_frame frame[HAK_GUARDED_FRAMES];
};

struct hak_guarded {
    uintptr_t p;
    size_t size;     /* what the program may use */
    uint32_t bytes;  /* of its class */
    uint32_t record; /* of the live one */
    uint32_t next;   /* of the freed ones; HAK_GUARDED_NONE: the last */
    uint8_t state;
    uint8_t pages;
    bool at_end;           /* of the data */
    bool untidy;           /* some of it may be touched, or have contents */
    atomic_bool reported;  /* a report was made of it */
    struct hak_heap *heap; /* whose runtime's frames `runs` tells, or NULL */
    haki_frames_fn *runs;
    struct hak_guarded_stack allocated, freed;
};

#define HAK_GUARDED_NONE UINT32_MAX

/* ---- records.c's, under the lock -------------------------------------------- */

/* Slots of so much memory, once; false: there is no room for them. */
bool haki_guarded_begin(size_t memory);

/* Whether there may be room for so many bytes: without the lock as well. */
bool haki_guarded_has_room(size_t bytes);

/* A place for a block, whose record this will be. NULL: there is none. */
void *haki_guarded_take(size_t bytes, uint32_t record, bool at_end,
                        const struct hak_sampler *who,
                        const struct hak_stack_words *words);

/* Gives it back. `words`: who frees it; NULL: that is known already. */
void haki_guarded_give(const void *p, const struct hak_stack_words *words);

/* The live block that p lies in, or NULL; its record and what may be used of it. */
const void *haki_guarded_around(const void *p, uint32_t *record, size_t *size);

/* After a fork: none is live, and then each that a record has is. */
void haki_guarded_mend_begin(void);
void haki_guarded_mend_take(const void *p, uint32_t record);
void haki_guarded_mend_end(void);

/* Since the start: blocks that were guarded; that were due and had no room. */
struct hak_guarded_count {
    _Atomic(uint64_t) made, missed;
};
extern HAK_HIDDEN struct hak_guarded_count haki_guarded_count;

/* Bytes of pages of live ones. */
size_t haki_guarded_held(void);

/* ---- anybody's --------------------------------------------------------------- */

/* Where guarded blocks may lie; both 0 until there were any. */
struct hak_guarded_area {
    _Atomic(uintptr_t) at;
    _Atomic(size_t) bytes;
};
extern HAK_HIDDEN struct hak_guarded_area haki_guarded_area;

/* Whether p lies there: any thread, any value. */
HAK_INLINE bool haki_guarded_covers(const void *p)
{
    return (uintptr_t)p - atomic_load_explicit(&haki_guarded_area.at,
                                               memory_order_relaxed) <
           atomic_load_explicit(&haki_guarded_area.bytes, memory_order_relaxed);
}

/*
 * p was given out just now, for `size` bytes with this alignment: if it is guarded its
 * size becomes that, and it may have another address. What it contains is zero.
 */
void *haki_guarded_fit_slow(void *p, size_t alignment, size_t size);
HAK_INLINE void *haki_guarded_fit(void *p, size_t alignment, size_t size)
{
    /* The hardened build has a guard of its own at the end of the class's bytes. */
    return HAK_UNLIKELY(!HAK_HARD && haki_guarded_covers(p))
               ? haki_guarded_fit_slow(p, alignment, size)
               : p;
}

/* p is about to be freed by `who`, who may be nobody's heap: notes the stack, and ends
 * the program with a report if bytes around the block were changed. */
void haki_guarded_freeing(void *p, const struct hak_sampler *who);

/* p, in the area, was given to a function that takes a block, and is none: ends the
 * program with a report if it is or was in one. */
void haki_guarded_misuse(const void *p, const char *caller);

/* The slot that p, an address of the area, is to be told of, or NULL. */
struct hak_guarded *haki_guarded_near(const void *p);

#endif /* HAK_GUARDED_H */
