/*
 * ace.h - the ACE lane: requests above 52 KB and below 2 MB.
 *
 * Runs of pages inside superslabs, cut to the page, that split and coalesce:
 * less than a page per run is wasted. A free run is a hole. A request takes the
 * smallest hole that fits, and among equals the one with the lowest address; a
 * freed run is joined with the holes on both sides. All threads and heaps share
 * the lane under one lock: work on blocks of these sizes dwarfs its cost.
 *
 * What is known about a superslab is kept in the space of its descriptors:
 *   - starts has a bit for each page where a run or a hole begins (page 0 has
 *     it always), holes for each page where a hole begins; a run or hole ends
 *     where the next begins;
 *   - no two holes are neighbours, and a run has at least HAK_ACE_LEAST
 *     pages, so two runs (or two holes) begin more than 8 pages apart, and
 *     start / 8 is a unique index for what is kept about each;
 *   - resident has a bit for each page that may have contents, gone for each
 *     page that is not mapped (ace_gone.c).
 * The holes of all superslabs are in treaps by address, one for each length.
 *
 * In front of the lane every heap has a cache of runs that it has freed, with a
 * place for each length modulo HAK_ACE_CACHE: a program that frees and
 * allocates blocks of one size takes no lock. To the lane a run in a cache is
 * in use.
 */
#ifndef HAK_ACE_H
#define HAK_ACE_H

#include "range/allowance.h"
#include "base/assert.h"
#include "base/base.h"
#include "guard/hard.h"
#include "profile/profile.h"
#include "range/range.h"

#define HAK_ACE_LEAST 14 /* pages: 52 KB and more */
#define HAK_ACE_PAGES (HAK_SUPER_SIZE / HAK_PAGE)

/*
 * `pages` pages (HAK_ACE_LEAST to HAK_ACE_PAGES) aligned to `align` bytes (a
 * power of two, a page to a superslab) for the heap with this id, HAK_ID_SHARED
 * for threads. *zero: their contents are zero. NULL: out of memory.
 */
void *haki_ace_alloc(size_t pages, size_t align, uint32_t owner, bool *zero);

#define HAK_ACE_CACHE 16
#define HAK_ACE_CACHE_BYTES (4 * HAK_MIB) /* at most, together */

/* One thread at a time uses it. */
struct hak_ace_cache {
    void *run[HAK_ACE_CACHE];
    uint32_t pages[HAK_ACE_CACHE]; /* 0: no run */
    uint32_t held;                 /* pages in all */
    uint32_t idle_at;              /* when it is next emptied; 0: not set */
    uint64_t takes;                /* runs given out, ever */
    struct hak_allowance *allow;   /* the heap's */
    uint32_t may_hold;             /* pages, as last computed */
};

/*
 * What it may hold is computed again when the next run is put there. Called
 * once in a while.
 */
HAK_INLINE void haki_ace_cache_ask(struct hak_ace_cache *cache)
{
    cache->may_hold = 0;
}

/* Hardened build: notes that a run goes into a cache or leaves it. */
void haki_ace_note(const void *run, bool in);

/* A run from the cache, or NULL. */
HAK_INLINE void *haki_ace_cache_take(struct hak_ace_cache *cache,
                                     uint32_t pages)
{
    uint32_t i = pages % HAK_ACE_CACHE;

    if (cache->pages[i] != pages) {
        return NULL;
    }
    HAK_ASSERT(cache->held >= pages);
    cache->pages[i] = 0;
    cache->held -= pages;
    cache->takes++;
    if (HAK_HARD) {
        haki_ace_note(cache->run[i], false);
    }
    return cache->run[i];
}

/*
 * Puts p, a run of the heap with the id `owner`, into the cache and frees what
 * was in its place. Returns its bytes; 0: it is not such a run, or too long for
 * the cache, and was not put there.
 */
HAK_HOT size_t haki_ace_cache_put(struct hak_ace_cache *cache, void *p,
                                  uint32_t owner);

/* The same, only if the heap keeps too much in all. */
void haki_ace_cache_shed(struct hak_ace_cache *cache);

/* Frees the runs in the cache. */
void haki_ace_cache_flush(struct hak_ace_cache *cache);

/* The same, when a while has passed since the last time. */
void haki_ace_cache_tick(struct hak_ace_cache *cache, uint32_t now);

/* The run that begins at p, an address in an ACE superslab. */
struct hak_ace_run {
    size_t bytes;
    uint32_t owner; /* with HAK_OWNER_SAMPLED if that is so */
};

/* Frees p and fills in what it was. False: no run begins there. */
bool haki_ace_free(void *p, struct hak_ace_run *run);

/* Describes p, a run that the caller has. False: no run begins there. */
bool haki_ace_find(const void *p, struct hak_ace_run *run);

/* Describes the run that p lies in. False: p lies in a hole. */
bool haki_ace_around(const void *p, struct hak_ace_run *run);

/*
 * Gives back the pages of the run p, which stays in use but loses its contents.
 * For a run that is about to be freed and so large that its hole would waste
 * memory.
 */
void haki_ace_purge_run(void *p);

/* Makes the run p `pages` long, in place. False: there is no room. */
bool haki_ace_resize(void *p, size_t pages);

/* The run p is a sample, or none any more; by who has it. */
void haki_ace_mark(const void *p, bool sampled);

/* Frees every run of a heap. */
void haki_ace_free_owner(uint32_t owner);

/*
 * The first run of a heap that begins above the address `at`, and its length;
 * NULL: there is none. It may have been freed by the time the caller uses the
 * answer.
 */
char *haki_ace_next(uint32_t owner, const char *at, size_t *bytes);

/*
 * The time when holes will have been idle for long enough, see haki_range_due.
 */
extern HAK_HIDDEN _Atomic(uint32_t) haki_ace_due;

/* Gives back what has been idle for HAKMEM_PURGE_DELAY. */
void haki_ace_tick(uint32_t now);

/* Gives back every hole's pages, including holes that fill a superslab. */
size_t haki_ace_trim(void);

/* Bytes of holes that may have contents: what is still to go back. */
size_t haki_ace_due_bytes(void);

void haki_ace_counts(struct hak_lane_counts *counts);

/* In a forked child: see haki_lock_settle. */
bool haki_ace_forked(void);

/*
 * Repairs, in a forked child, a cache that a ghost has left at any instruction.
 */
void haki_ace_cache_mend(struct hak_ace_cache *cache);

#endif /* HAK_ACE_H */
