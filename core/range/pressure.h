/*
 * pressure.h - how near this process is to a limit on memory, and HAKMEM_LIMIT.
 *
 * There are two kinds of limits:
 *
 *   others'     the container's (cgroup.h), RLIMIT_AS, RLIMIT_DATA: the
 *               kernel kills or refuses a process that exceeds them
 *   our own     HAKMEM_LIMIT, bytes or a percentage of the container's: what
 *               the core holds (haki_limit_used) never exceeds it
 *
 * Near any of them (85 %; or when memory.pressure says that the group's
 * processes wait for memory) the process is under pressure, until it is below
 * 75 % again:
 *
 *   - HAKMEM_PURGE_DELAY counts as 0; freed superslabs, ACE's larger holes and
 *     runs in the heaps' caches are not kept at all;
 *   - only a few pages are populated ahead of need;
 *   - no huge page is taken;
 *   - each look that finds pressure begins a new *round*: free memory of all
 *     lanes goes back, and every heap that comes into a slow path empties its
 *     bins and caches once per round (relief.h).
 *
 * A look reads some ten files. Slow paths that take memory ask for one when
 * LOOK_TIME has passed since the last, or more has been charged than the last
 * one found safe; never before a few MB are held. One thread looks, the others
 * don't wait.
 *
 * What counts is what is or may become resident: the bytes of slabs that were
 * made ready, and of free slabs that still are (haki_supers_resident), ACE's
 * pages that may have contents, Huge blocks in full. It is charged before it is
 * taken, and checked after it was charged, so that two threads can't both get
 * the last of it. Not counted: our own tables, less than 1 %; stacks, files,
 * other allocators' memory.
 *
 * With HAKMEM_LIMIT nothing goes to the system allocator when memory is short,
 * because it would not be counted there. Code that falls back asks
 * haki_limit_refuses first.
 */
#ifndef HAK_PRESSURE_H
#define HAK_PRESSURE_H

#include "base/assert.h"
#include "settings/options.h"
#include "range/range.h"

#define HAK_PRESSURE_RUNS ((uint32_t)(4 * HAK_MIB / HAK_PAGE))

/* What is held besides slabs. */
enum hak_charged { HAK_CHARGED_ACE, HAK_CHARGED_HUGE, HAK_CHARGES };

struct hak_pressure {
    _Atomic(size_t) limit;     /* HAKMEM_LIMIT in bytes; SIZE_MAX: none */
    _Atomic(size_t) look_at;   /* this much held triggers a look */
    _Atomic(size_t) relief_at; /* the same; 0 under pressure: see relief.h */
    atomic_bool near;          /* under pressure */
    /* pages that a heap's cache of runs may hold: none under pressure */
    _Atomic(uint32_t) runs_most;
    _Atomic(uint32_t) round; /* see above; 0: there never was pressure */
    /*
     * What changes all the time is kept apart from what all threads' slow paths
     * read.
     */
    HAK_OWN_LINE _Atomic(size_t) charged[HAK_CHARGES];
};

extern HAK_HIDDEN struct hak_pressure haki_pressure;

/* Bytes resident in slabs, see supers.h. */
extern HAK_HIDDEN _Atomic(size_t) haki_supers_resident;

/* ---- the soft side --------------------------------------------------------- */

HAK_INLINE bool haki_pressure_near(void)
{
    return HAK_UNLIKELY(atomic_load_explicit(&haki_pressure.near,
                                             memory_order_relaxed));
}

/* The round in which heaps and lanes should have done their part. */
HAK_INLINE uint32_t haki_pressure_round(void)
{
    return atomic_load_explicit(&haki_pressure.round, memory_order_relaxed);
}

/* How long free memory is kept, in milliseconds. */
HAK_INLINE uint32_t haki_purge_delay(void)
{
    return haki_pressure_near() ? 0
                                : (uint32_t)haki_option(HAK_OPT_purge_delay);
}

/*
 * How long idle blocks stay in bins and caches. Under pressure it is this short
 * but not 0, since taking them out means looking through all bins.
 */
#define HAK_IDLE_LEAST 10

HAK_INLINE uint32_t haki_idle_delay(void)
{
    return haki_pressure_near()
               ? HAK_IDLE_LEAST
               : (uint32_t)haki_option(HAK_OPT_purge_delay) / 2;
}

/* Bytes that count against HAKMEM_LIMIT. */
HAK_INLINE size_t haki_limit_used(void)
{
    size_t used =
        atomic_load_explicit(&haki_supers_resident, memory_order_relaxed);

    for (int i = 0; i < HAK_CHARGES; i++) {
        used += atomic_load_explicit(&haki_pressure.charged[i],
                                     memory_order_relaxed);
    }
    return used;
}

/*
 * Looks if it is time to, at the time `now` (haki_os_tick), before `want` bytes
 * are taken; taking most of what is left counts as pressure. The range's lock
 * is not held.
 */
void haki_pressure_tick(uint32_t now, size_t want);

/*
 * Registers what a round asks of the lanes, which are above this layer. `lanes`
 * is called after the look that began the round, by the thread that looked,
 * perhaps inside a slow path of its heap: no lock is held, but that heap must
 * not be touched.
 */
void haki_pressure_on_round(void (*lanes)(void));

/*
 * What a look is told to, which stands above as well: after each, as before. NULL:
 * nobody. Set before there are threads.
 */
extern HAK_HIDDEN void (*haki_pressure_on_look)(void);

/* ---- the hard side --------------------------------------------------------- */

/* Reads HAKMEM_LIMIT; when the range is made. */
void haki_limit_start(void);

HAK_INLINE bool haki_limit_is_set(void)
{
    return HAK_UNLIKELY(atomic_load_explicit(&haki_pressure.limit,
                                             memory_order_relaxed) != SIZE_MAX);
}

/* Bytes that HAKMEM_LIMIT leaves; SIZE_MAX: there is no limit. */
HAK_INLINE size_t haki_limit_room(void)
{
    size_t limit =
        atomic_load_explicit(&haki_pressure.limit, memory_order_relaxed);
    size_t used = limit != SIZE_MAX ? haki_limit_used() : 0;

    return limit - haki_min(used, limit);
}

bool haki_limit_charge_slow(_Atomic(size_t) *counter, size_t bytes);

/*
 * Adds bytes to a counter of held bytes. False: the limit does not allow it,
 * even after free slabs went back; nothing is added. The caller may hold ACE's
 * lock but not the range's.
 */
HAK_INLINE bool haki_limit_charge(_Atomic(size_t) *counter, size_t bytes)
{
    if (bytes == 0) {
        return true;
    }
    atomic_fetch_add_explicit(counter, bytes, memory_order_seq_cst);
    return HAK_LIKELY(!haki_limit_is_set()) ||
           haki_limit_charge_slow(counter, bytes);
}

HAK_INLINE void haki_limit_uncharge(_Atomic(size_t) *counter, size_t bytes)
{
    if (bytes > 0) {
        size_t before =
            atomic_fetch_sub_explicit(counter, bytes, memory_order_relaxed);

        HAK_ASSERT(before >= bytes);
        (void)before;
    }
}

bool haki_limit_refuses_slow(size_t size);

/*
 * Whether a request for `size` bytes that the lanes had no memory for must
 * fail, because there is a HAKMEM_LIMIT, and the system allocator's memory
 * would not be counted. Counts the refusal, and reports the first one. The
 * caller then returns NULL with ENOMEM.
 */
HAK_INLINE bool haki_limit_refuses(size_t size)
{
    return haki_limit_is_set() && haki_limit_refuses_slow(size);
}

/* Notes that all free memory went back for the sake of a limit. */
void haki_limit_purged(void);

/* ---- statistics -------------------------------------------------------------- */

struct hak_pressure_counts {
    size_t limit;      /* HAKMEM_LIMIT, or the container's; 0: none is known */
    uint64_t events;   /* times that pressure began */
    uint64_t purges;   /* times that all free memory went back for a limit */
    uint64_t refusals; /* requests refused by HAKMEM_LIMIT */
};
void haki_pressure_counts(struct hak_pressure_counts *counts);

#ifdef HAK_TESTING
/* Tests only: looks now. */
void haki_pressure_test_look(void);
#endif

#endif /* HAK_PRESSURE_H */
