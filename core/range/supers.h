/*
 * supers.h - what the files of range/ share about superslabs; not for other
 * folders.
 *
 * A superslab's life:
 *
 *     fresh --claim--> free --a slab taken--> cut --all slabs back--> free
 *                      free --taken whole--> whole --given--> free
 *     fresh <--unmap-- free                  whole --given, without contents--> fresh
 *     fresh --kept for the run before it--> room --the run grows--> body of it
 *     fresh --claim meets a mapping of somebody else's--> foreign, for good
 *
 * Invariants, under `lock`:
 *   - tag == 0 exactly for a slab that no lane has (and inside Huge blocks);
 *   - a bit of `used` is set for a slab that a lane has, of `resident` for a free
 *     one that may have resident pages; a fresh superslab has neither, room and
 *     foreign ones have all bits of `used`;
 *   - the first `claimed` pages are mapped and ours: none of a fresh, foreign
 *     or room one, all of a free or cut one, and all of a whole one unless it
 *     is the last of a run;
 *   - the map RESIDENT has a bit for each superslab with resident != 0, PART for each
 *     with some but not all slabs used, HELD for each with any used;
 *   - if `described`, the `resident` of a free slab's descriptor is true; if
 *     not, a resident slab counts as fully resident, any other as untouched;
 *   - no superslab below start[MAP][n] has a run of n slabs in that map.
 * The descriptor of a slab in use belongs to its lane. The tag is written by
 * the owner and may be read by any thread.
 */
#ifndef HAK_SUPERS_H
#define HAK_SUPERS_H

#include "base/assert.h"
#include "os/lock.h"
#include "os/os.h"
#include "range/pressure.h"
#include "range/range.h"
#include "range/slabs.h"

enum hak_super_state {
    HAK_SUPER_FRESH,   /* nothing of ours is mapped */
    HAK_SUPER_OPEN,    /* mapped: free, or cut into slabs */
    HAK_SUPER_ROOM,    /* nothing is mapped: a run may grow into it */
    HAK_SUPER_FOREIGN, /* something else is mapped there, or memory of ours that
                        * we can neither unmap nor map in full */
    HAK_SUPER_WHOLE,   /* the first of those taken together */
    HAK_SUPER_BODY     /* the others */
};

struct hak_super {
    uint32_t used;
    uint32_t resident;
    uint32_t stamp; /* haki_os_tick() when something resident last came back */
    uint8_t state;
    bool described;
    uint16_t claimed; /* pages from its start that are mapped */
};

/* Under a limit on address space this many stay mapped while they are free. */
#define HAK_UNUSED_LIMITED 4

#define HAK_SUPER_PAGES (HAK_SUPER_SIZE / HAK_PAGE)

/* The largest window, in superslabs. */
#define HAK_SUPERS_MOST (1024 * HAK_GIB / HAK_SUPER_SIZE)

/* The extent grows by multiples of this: its arrays then fill whole pages. */
#define HAK_EXTENT ((uint32_t)(HAK_GIB / HAK_SUPER_SIZE))

/* Descriptors and heap slots are claimed in steps of this many bytes. */
#define HAK_META_STEP (64 * HAK_KIB)

#define HAK_META_STEPS (HAK_SUPERS_MOST * HAK_SUPER_META / HAK_META_STEP)

/*
 * What is being mapped for an array. If a ghost (lock.h) has mapped it but not
 * noted so, a child that finds it there knows from `at` that it is ours.
 */
struct hak_intent {
    char *at;
    size_t size;
};

/* An array with `unit` bytes a superslab, mapped as far as the extent goes. */
struct hak_part {
    char *at;
    size_t unit;
    size_t mapped;
    struct hak_intent intent;
};

enum { HAK_PART_SUPERS, HAK_PART_BACKS, HAK_PART_TAGS, HAK_PARTS };

/* Maps with a bit for each superslab, META for each step of descriptors. */
enum hak_map {
    HAK_MAP_RESIDENT,
    HAK_MAP_PART,
    HAK_MAP_HELD,
    HAK_MAP_META,
    HAK_MAPS
};

struct hak_supers {
    hak_lock lock;
    /* constant after init */
    struct hak_super *at;
    uint32_t tags;    /* superslabs at the base that no lane has: the tags' */
    uint32_t samples; /* own, and the last so many of them samples' */
    /* under the lock */
    struct hak_part parts[HAK_PARTS];
    uint32_t limit; /* superslabs of the extent */
    uint32_t most;  /* what that may become */
    uint32_t resident_start[HAK_SPAN_MOST + 1];
    uint32_t part_start[HAK_SPAN_MOST + 1];
    uint32_t low;     /* no superslab below can be taken whole */
    uint32_t unused;  /* superslabs free as a whole and resident */
    uint32_t foreign; /* superslabs that somebody else has */
    uint32_t rooms;   /* superslabs kept for runs to grow into */
    uint32_t unmap_first, unmap_end; /* about to be unmapped, or just were */
    bool was_limited;                /* haki_range_limited at the last claim */
    struct hak_range_counts counts;
    /* Interleaved: a small process uses the first words of each. */
    uint64_t maps[HAK_SUPERS_MOST / 64][HAK_MAPS];
};

extern HAK_HIDDEN struct hak_supers haki_supers;

/*
 * haki_supers_resident, in pressure.h: bytes of slabs that we have made
 * resident; any thread may change it.
 */

HAK_INLINE uint64_t *haki_map_word(enum hak_map map, uint32_t i)
{
    return &haki_supers.maps[i / 64][map];
}

HAK_INLINE bool haki_map_get(enum hak_map map, uint32_t i)
{
    return (*haki_map_word(map, i) >> (i % 64) & 1) != 0;
}

HAK_INLINE void haki_map_set(enum hak_map map, uint32_t i, bool on)
{
    uint64_t bit = (uint64_t)1 << (i % 64);
    uint64_t *word = haki_map_word(map, i);

    *word = on ? *word | bit : *word & ~bit;
}

/* The first i at or after `from` whose bit is set, or `limit`. */
uint32_t haki_map_next(enum hak_map map, uint32_t from, uint32_t limit);

/* Brings the maps up to date with superslab i. Caller holds the lock. */
void haki_super_changed(uint32_t i);

/*
 * Something in superslab i has come back: searches start at or below it again.
 */
void haki_super_may_start(uint32_t i);

/* What a lane holds changes by this many bytes. */
void haki_super_account(enum hak_lane lane, int64_t bytes);

/* Superslabs that `bytes` bytes take. */
HAK_INLINE uint32_t haki_supers_for(size_t bytes)
{
    return (uint32_t)(haki_round_up(bytes, HAK_SUPER_SIZE) / HAK_SUPER_SIZE);
}

/* ---- claims.c; the caller holds the lock --------------------------------- */

/*
 * haki_os_claim with a note, which the caller erases when it has counted what
 * is mapped.
 */
enum hak_os_claim haki_claim_noted(struct hak_intent *intent, char *at,
                                   size_t size);

/* Extends the extent by at least `more` superslabs. False: it can't. */
bool haki_super_extend(uint32_t more);

/*
 * Makes the descriptors of superslab i usable; results as haki_super_claim's.
 */
enum hak_os_claim haki_super_claim_meta(uint32_t i);

/*
 * Called before superslabs are claimed: asks for the limit on address space,
 * always if something has to be mapped. When there is a limit that was not
 * there before, free superslabs are unmapped.
 */
void haki_super_check_limit(uint32_t first, uint32_t count);

/*
 * Maps `bytes` bytes from superslab `first` on, where they are not mapped yet.
 * If not all can be claimed, those that were count as free. TAKEN: superslabs
 * with somebody else's mappings were marked as foreign; look for another place.
 */
enum hak_os_claim haki_super_claim(uint32_t first, size_t bytes);

/*
 * Unmaps those of `count` superslabs that are mapped; each is free, or will be
 * marked as fresh next. They are fresh then. False: some could not be unmapped.
 */
bool haki_super_unmap(uint32_t first, uint32_t count);

/* Superslab i is not mapped any more. */
void haki_super_forget(uint32_t i);

/*
 * Unmaps all superslabs that are wholly free; returns the bytes of address
 * space.
 */
size_t haki_super_unmap_unused(void);

/*
 * A wholly free superslab, claimed; the lowest, if there is memory for it.
 * HAK_NO_SUPER: out of memory.
 */
uint32_t haki_super_open(void);

/*
 * Superslabs first..first+count-1 may be fresh. Where a whole step of
 * descriptors (HAK_META_STEP) belongs to fresh ones, it goes back to the system
 * along with their tags: a claim doesn't read the descriptors of fresh ones,
 * and their tags are 0 anyway.
 */
void haki_super_drop_meta(uint32_t first, uint32_t count);

/* ---- rooms.c; the caller holds the lock ---------------------------------- */

/* Whether superslabs first .. first + count - 1 are all wholly free. */
bool haki_super_all_free(uint32_t first, uint32_t count);

/*
 * The highest place for `count` superslabs, with *room more behind them if
 * there are as many free; if not, *room becomes 0. HAK_NO_SUPER: there is none.
 */
uint32_t haki_super_place(uint32_t count, uint32_t align, uint32_t *room);

/*
 * Keeps `count` free superslabs for the run before them; returns how many it
 * could.
 */
uint32_t haki_super_keep_room(uint32_t first, uint32_t count);
void haki_super_give_room(uint32_t first, uint32_t count);

/* ---- slots.c; the caller holds the lock ---------------------------------- */

/* Sets how many heap slots there may be. */
void haki_slots_limit(uint32_t most);

/*
 * Gives back the pages of the kept slots; returns an upper bound of the bytes.
 */
size_t haki_slots_purge(void);

/*
 * The same if they have been idle for `delay` ms at the time `now`. Returns
 * when to call again; 0: nothing is kept.
 */
uint32_t haki_slots_tick(uint32_t now, uint32_t delay);

/* Bytes of the kept slots' pages, an upper bound. */
size_t haki_slots_kept(void);

/* Repairs what a ghost (lock.h) has left. */
void haki_slots_mend(void);

/* ---- slabs.c ------------------------------------------------------------ */

/*
 * Repairs what a ghost (lock.h) has left: the lock's mend; and the superslabs'
 * part, supers_mend.c.
 */
void haki_range_mend(void);
void haki_supers_mend(void);

/* Bytes of the free slabs of superslab i that count as resident. */
size_t haki_super_resident(uint32_t i);

/* purge.c: superslab i has got something resident. Caller holds the lock. */
void haki_purge_wanted(uint32_t i);

/* purge.c: something else came back at the time `now`. Caller holds the lock. */
void haki_purge_at(uint32_t now);

#endif /* HAK_SUPERS_H */
