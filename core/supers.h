/*
 * supers.h - what range.c, supers.c, wholes.c and purge.c share; for no other
 * file.
 *
 * Layer 3. A superslab's life:
 *
 *     fresh --commit--> free --a slab taken--> cut --all slabs back--> free
 *                       free --taken whole--> whole --given--> free
 *
 * Invariants, under `lock`:
 *   - tag == 0 exactly for a slab that no lane has (and inside Huge blocks);
 *   - a bit of `used` is set for a slab that a lane has, of `warm` for a free
 *     one that may have resident pages; a fresh superslab has none of either;
 *   - warm_map has a bit for each superslab with warm != 0, part_map for each
 *     with some but not all slabs used, held_map for each with any used;
 *   - if `described`, populated of a free slab's descriptor is true; if not,
 *     a warm slab counts as populated throughout, another one as untouched;
 *   - no superslab below start[MAP][n] has a run of n slabs in that map.
 * The descriptor of a slab in use is its lane's, and the tag is written by the
 * owner: any thread may read it.
 */
#ifndef HAK_SUPERS_H
#define HAK_SUPERS_H

#include "lock.h"
#include "range.h"

enum hak_super_state {
    HAK_SUPER_FRESH,
    HAK_SUPER_COMMITTED,
    HAK_SUPER_WHOLE, /* the first of those taken together */
    HAK_SUPER_BODY   /* the others */
};

struct hak_super {
    uint32_t used;
    uint32_t warm;
    uint32_t stamp; /* hak_os_tick() when something warm last came back */
    uint8_t state;
    bool described;
};

struct hak_supers {
    hak_lock lock;
    /* constant after init */
    struct hak_super *at;
    uint64_t *warm_map, *part_map, *held_map;
    uint64_t *meta_map; /* a bit for each HAK_META_STEP of descriptors */
    uint32_t limit;
    /* under the lock */
    uint32_t warm_start[HAK_SPAN_MOST + 1];
    uint32_t part_start[HAK_SPAN_MOST + 1];
    uint32_t low;   /* no superslab below can be taken whole */
    uint32_t spare; /* superslabs free as a whole and warm */
    struct hak_range_figures figures;
};

extern HAK_HIDDEN struct hak_supers hak_supers;

/* Descriptors and heap slots are committed in steps of this many bytes. */
#define HAK_META_STEP (64 * HAK_KIB)

/* Any thread: bytes resident in slabs, as far as we made them so. */
extern HAK_HIDDEN _Atomic(size_t) hak_supers_populated;

HAK_INLINE bool hak_map_get(const uint64_t *map, uint32_t i)
{
    return (map[i / 64] >> (i % 64) & 1) != 0;
}

HAK_INLINE void hak_map_set(uint64_t *map, uint32_t i, bool on)
{
    uint64_t bit = (uint64_t)1 << (i % 64);

    map[i / 64] = on ? map[i / 64] | bit : map[i / 64] & ~bit;
}

/* The first i at or after `from` whose bit is set, or `limit`. */
uint32_t hak_map_next(const uint64_t *map, uint32_t from, uint32_t limit);

/* Brings the maps up to date with superslab i. Caller holds the lock. */
void hak_super_changed(uint32_t i);

/* Something of superslab i has come back: searches begin there again. */
void hak_super_may_start(uint32_t i);

/* What a lane holds changes by this many bytes. */
void hak_super_account(enum hak_lane lane, int64_t bytes);

/* Makes the descriptors of superslab i usable. */
bool hak_super_commit_meta(uint32_t i);

/* Makes `count` superslabs from i on usable, as far as they are not. */
bool hak_super_commit(uint32_t i, uint32_t count);

/* Bytes of superslab i, all of it free, that count as resident. */
size_t hak_super_resident(uint32_t i);

/* The lowest superslab that is free as a whole, or `limit`. */
uint32_t hak_super_find_whole(void);

/* purge.c: superslab i has got something warm. Caller holds the lock. */
void hak_purge_wanted(uint32_t i);

/* The lock's `mend`, and what supers.c does of it. */
void hak_range_mend(void);
void hak_supers_mend(void);

#endif /* HAK_SUPERS_H */
