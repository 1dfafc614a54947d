/*
 * allowance.h - how much free memory a heap may keep at hand.
 *
 * A heap's bins (Tiny's and Pool's) and its cache of ACE runs are bounded
 * together, in bytes. They may keep the largest of
 *
 *     least       for heaps that have few slabs or use much of them
 *     use         what is in use now, divided by 2^share
 *     extra       what a busy heap has given back and soon needed again
 *
 * So memory that is freed in bulk goes back while it is being freed. Each of a
 * few blocks in bins may hold on to a whole slab. Therefore a heap whose slabs
 * are mostly free (sparse) has no `least`, and if little is in use it keeps
 * nothing except `extra`; a frugal heap must also be falling for that
 * (haki_heap_sweep_sparse).
 *
 *     took, gave, took, gave: TURNS times within TURNS_TIME ms, or QUICK_TURNS
 *     times within QUICK_TIME
 *         --> extra grows by what was given back in the last of them
 *     a small explicit heap: 8 times within TURNS_TIME, up to 64 KB, until
 *     twice that was freed; a packed one's bins may hold a quarter of it each
 *     more than HAK_EXTRA_MOST given back and none needed again, or memory
 *     has been idle --> extra is 0
 *
 * While an explicit heap is falling each bin is looked at whenever a certain
 * part of what is in use of its class was freed, and so also when the last
 * block is: if the heap is then left alone, nobody else gives back what it
 * keeps.
 *
 * The sums are updated on slow paths only: `kept` is what the lanes' bins held
 * when each was last looked at. It is exact for a lane that has just settled
 * all of its bins, which it does when the sum seems too large.
 *
 * Used by one thread at a time, the heap's.
 */
#ifndef HAK_ALLOWANCE_H
#define HAK_ALLOWANCE_H

#include "base/assert.h"
#include "base/base.h"

/* Who keeps free memory: the two lanes' bins, the cache of runs. */
enum hak_keeps { HAK_KEEPS_TINY, HAK_KEEPS_POOL, HAK_KEEPS_RUNS, HAK_KEEPS };

/*
 * A frugal heap is one of many that nobody else gives back for: an explicit one.
 * It keeps less, no cached runs at all, and is swept when it has become sparse
 * (haki_heap_sweep_sparse). What each kind may keep at the least:
 */
#define HAK_KEEP_LEAST ((uint32_t)(64 * HAK_KIB))
#define HAK_KEEP_LEAST_FRUGAL ((uint32_t)(4 * HAK_KIB))

/*
 * A heap with at most this many bytes of slabs is small and may always keep
 * `least`.
 */
#define HAK_KEEP_SMALL ((int64_t)(512 * HAK_KIB))
#define HAK_KEEP_SMALL_FRUGAL ((int64_t)(64 * HAK_KIB))

/*
 * With less than this in use, a heap whose slabs are mostly free keeps nothing.
 */
#define HAK_KEEP_USE_LEAST ((int64_t)HAK_MIB)

#define HAK_EXTRA_MOST (6 * HAK_MIB) /* or half of what is in use */

struct hak_allowance {
    int64_t taken;           /* bytes of blocks out of the lanes' slabs */
    int64_t slabs;           /* bytes of those slabs, without packed ones */
    int64_t kept[HAK_KEEPS]; /* see above */
    int64_t height;          /* explicit heaps: the most in use since a sweep */
    uint32_t least;
    uint32_t extra;
    uint32_t gave;  /* bytes given back since the last turn */
    uint32_t took;  /* bytes taken from slabs since then */
    uint32_t since; /* when the first of `turns` came */
    uint8_t turns;
    uint8_t share; /* see above */
    bool over;     /* another lane has to give back */
    bool falling;  /* explicit heaps: much was freed, and nothing taken since */
};

HAK_INLINE void haki_allowance_init(struct hak_allowance *allow, bool frugal)
{
    allow->least = frugal ? HAK_KEEP_LEAST_FRUGAL : HAK_KEEP_LEAST;
}

/*
 * A frugal heap is tight while it has given out less than HAK_KEEP_TIGHT_MOST bytes, all
 * from packed slabs (tiny.h): a page more or less is much of what it takes. It keeps at
 * the least HAK_KEEP_LEAST_TIGHT bytes, or 1/2^HAK_KEEP_SHARE_TIGHT of what is in use.
 * (With 1 KB, a state that collects every 10 us takes a third more time.)
 */
#define HAK_KEEP_TIGHT_MOST ((int64_t)(32 * HAK_KIB))
#define HAK_KEEP_LEAST_TIGHT ((uint32_t)(3 * HAK_KIB))
#define HAK_KEEP_SHARE_TIGHT 3

/* Of one that is not initialised, as haki_heap_none's: false. */
HAK_INLINE bool haki_is_frugal(const struct hak_allowance *allow)
{
    return allow->least == HAK_KEEP_LEAST_FRUGAL;
}

/* Whether it is tight, see above. */
HAK_INLINE bool haki_is_tight(const struct hak_allowance *allow)
{
    return allow->slabs == 0 && haki_is_frugal(allow) &&
           allow->taken < HAK_KEEP_TIGHT_MOST;
}

/* What it may keep in any case. */
HAK_INLINE uint32_t haki_keep_least(const struct hak_allowance *allow)
{
    return HAK_UNLIKELY(haki_is_tight(allow)) ? HAK_KEEP_LEAST_TIGHT
                                              : allow->least;
}

/* What all bins held when they were last looked at. */
HAK_INLINE int64_t haki_kept(const struct hak_allowance *allow)
{
    return allow->kept[HAK_KEEPS_TINY] + allow->kept[HAK_KEEPS_POOL] +
           allow->kept[HAK_KEEPS_RUNS];
}

/* Bytes in use, according to the sums. */
HAK_INLINE int64_t haki_in_use(const struct hak_allowance *allow)
{
    int64_t bytes = allow->taken - allow->kept[HAK_KEEPS_TINY] -
                    allow->kept[HAK_KEEPS_POOL];

    return bytes > 0 ? bytes : 0;
}

/* Notes how much is in use; called where it may have grown. */
HAK_INLINE void haki_keep_height(struct hak_allowance *allow)
{
    int64_t use = haki_in_use(allow);

    allow->height = use > allow->height ? use : allow->height;
}

HAK_INLINE int64_t haki_keep_small(const struct hak_allowance *allow)
{
    return haki_is_frugal(allow) ? HAK_KEEP_SMALL_FRUGAL : HAK_KEEP_SMALL;
}

/* Whether the heap has many slabs and most of their bytes are free. */
HAK_INLINE bool haki_is_sparse(const struct hak_allowance *allow)
{
    return haki_in_use(allow) < allow->slabs / 4 && allow->extra == 0 &&
           allow->slabs > haki_keep_small(allow);
}

/* Whether each bin is looked at whenever a part of what is in use was freed. */
HAK_INLINE bool haki_is_watched(const struct hak_allowance *allow)
{
    return allow->falling || (!haki_is_frugal(allow) && haki_is_sparse(allow));
}

/* What all bins together may keep. */
HAK_INLINE int64_t haki_may_keep(const struct hak_allowance *allow)
{
    int64_t use = haki_in_use(allow);
    int64_t bytes =
        use >> (HAK_UNLIKELY(haki_is_tight(allow)) ? HAK_KEEP_SHARE_TIGHT
                                                   : allow->share);

    if (HAK_UNLIKELY(haki_is_watched(allow)) && haki_is_sparse(allow)) {
        return use < HAK_KEEP_USE_LEAST ? 0 : bytes;
    }
    return (int64_t)haki_max((size_t)bytes,
                             haki_max(allow->extra, haki_keep_least(allow)));
}

/*
 * How large the sum may get before all bins are settled: a quarter more, so
 * that enough has come in since the last time to pay for the walk.
 */
HAK_INLINE int64_t haki_keep_most(const struct hak_allowance *allow)
{
    int64_t bytes = haki_may_keep(allow);

    return bytes + bytes / 4;
}

/*
 * Bytes that a bin may take in before it is looked at again; sparse heaps have
 * other rules.
 */
HAK_INLINE size_t haki_keep_step(const struct hak_allowance *allow)
{
    int64_t room = haki_keep_most(allow) - haki_kept(allow);

    uint32_t least = haki_keep_least(allow);

    return room > (int64_t)least ? (size_t)room / 4 : least / 4;
}

/*
 * How many of a lane's `slabs` may be kept without a block in use: one in 16,
 * and for a thread one more, which it usually needs again soon.
 */
HAK_INLINE uint32_t haki_may_keep_empty(const struct hak_allowance *allow,
                                        uint32_t slabs)
{
    return slabs / 16 + !haki_is_frugal(allow);
}

/* A lane notes that its bins hold `more` bytes more than it noted before. */
HAK_INLINE void haki_keep_note(struct hak_allowance *allow,
                               enum hak_keeps whose, int64_t more)
{
    allow->kept[whose] += more;
    HAK_ASSERT(allow->kept[whose] >= 0);
}

/*
 * Blocks of `bytes` in total come out of slabs, or, if it is negative, go back.
 */
HAK_INLINE void haki_keep_taken(struct hak_allowance *allow, int64_t bytes)
{
    allow->taken += bytes;
    HAK_ASSERT(allow->taken >= 0);
}

/* A bin had to be filled with `bytes` from slabs. */
HAK_INLINE void haki_keep_took(struct hak_allowance *allow, size_t bytes)
{
    allow->took = (uint32_t)haki_min(allow->took + bytes, HAK_GIB);
    allow->falling = false;
}

/* Bins gave `bytes` back because they held too much. */
void haki_keep_gave(struct hak_allowance *allow, size_t bytes);

#ifdef HAK_TESTING
extern _Atomic(uint64_t)
    haki_test_sweeps; /* of sparse heaps and of packed slabs */
#define HAK_TEST_SWEEP()                                                       \
    ((void)atomic_fetch_add_explicit(&haki_test_sweeps, 1,                     \
                                     memory_order_relaxed))
#else
#define HAK_TEST_SWEEP() ((void)0)
#endif

/* The heap has been idle: it loses its extra. */
HAK_INLINE void haki_keep_idle(struct hak_allowance *allow)
{
    allow->extra = allow->gave = allow->took = 0;
    allow->turns = 0;
}

#endif /* HAK_ALLOWANCE_H */
