/*
 * slots.c - the slots that heaps live in, all under the range's lock.
 *
 * A bit for each slot says whether it is used; nothing is written to an unused
 * one, so that its pages can be given back:
 *
 *     never used --take--> used --give--> kept --purge--> cold --take--> used
 *                                         kept --take--> used
 *
 * The slots given back last, at most KEPT of them, are kept as they are for
 * heaps created soon; these are taken first, the one given back last before the
 * others. Other unused slots are cold, and the lowest is taken. Kept slots are
 * purged when they have been idle for HAKMEM_PURGE_DELAY, and by hak_trim; and
 * when one more comes, the older half: by then many are neighbours, which one
 * call to the system can purge.
 *
 * Invariants: a slot above `slots_count` is not used; an id in `slots_kept` is
 * not used and occurs there once; no slot below the word `slots_low` is unused.
 */
#include "os/os.h"
#include "range/purge.h"
#include "range/slots.h"
#include "range/supers.h"

#define KEPT 32u

/* At most this many cold slots between two slots are purged along with them. */
#define BRIDGE 16u

#define SLOTS_MOST (HAK_SUPERS_MOST * HAK_SUPER_SIZE / 8 / HAK_HEAP_SLOT)

/* Written under the lock, read by any thread. */
static _Atomic(uint32_t)
    slots_count; /* slots ever taken: their ids are 1 to this */
static _Atomic(uint64_t)
    slots_used[SLOTS_MOST / 64]; /* id - 1 is the bit's number */

/* Under the lock. */
static size_t slots_mapped;  /* bytes of slots */
static uint32_t slots_limit; /* the most slots there may be */
static uint32_t slots_low;   /* a word of `slots_used` */
static struct hak_intent slots_intent;
static uint32_t slots_kept[KEPT]; /* ids, in the order they were given back */
static uint32_t slots_nkept;
static uint32_t slots_stamp; /* haki_os_tick() when the last one came */

/* ---- which slots are used ------------------------------------------------- */

static uint64_t slots_word_at(uint32_t i)
{
    return atomic_load_explicit(&slots_used[i], memory_order_relaxed);
}

static bool slots_is_used(uint32_t id)
{
    return (slots_word_at((id - 1) / 64) >> ((id - 1) % 64) & 1) != 0;
}

static void slots_set_used(uint32_t id, bool on)
{
    uint64_t bit = (uint64_t)1 << ((id - 1) % 64);
    uint64_t word = slots_word_at((id - 1) / 64);

    atomic_store_explicit(&slots_used[(id - 1) / 64],
                          on ? word | bit : word & ~bit, memory_order_relaxed);
}

uint32_t haki_range_heap_count(void)
{
    return atomic_load(&slots_count);
}

uint32_t haki_range_heap_next(uint32_t id)
{
    uint32_t end = haki_range_heap_count();

    while (id < end) { /* the bit of id + 1 has the number id */
        uint64_t word = slots_word_at(id / 64) >> (id % 64);

        if (word != 0) {
            id += (uint32_t)__builtin_ctzll(word) + 1;
            return id <= end ? id : 0;
        }
        id = (id / 64 + 1) * 64;
    }
    return 0;
}

/* The lowest unused slot that was ever taken, or 0. */
static uint32_t slots_find_cold(void)
{
    uint32_t words = (uint32_t)haki_round_up(slots_count, 64) / 64, id;

    while (slots_low < words && slots_word_at(slots_low) == UINT64_MAX) {
        slots_low++;
    }
    if (slots_low == words) {
        return 0;
    }
    id = slots_low * 64 + (uint32_t)__builtin_ctzll(~slots_word_at(slots_low)) +
         1;
    return id <= slots_count ? id : 0;
}

/* ---- taken --------------------------------------------------------------- */

void haki_slots_limit(uint32_t most)
{
    slots_limit = most;
}

static bool slots_map_slots(uint32_t n)
{
    enum hak_os_claim claim;

    if ((size_t)n * HAK_HEAP_SLOT <= slots_mapped) {
        return true;
    }
    claim =
        haki_claim_noted(&slots_intent, haki_range.heap_slots + slots_mapped,
                         HAK_META_STEP);
    if (claim == HAK_OS_TAKEN) { /* there will be no more */
        slots_limit = slots_count;
    }
    if (claim == HAK_OS_CLAIMED) {
        slots_mapped += HAK_META_STEP;
        haki_lock_step();
        slots_intent.at = NULL;
    }
    return claim == HAK_OS_CLAIMED;
}

static uint32_t slots_take_locked(void)
{
    uint32_t id;

    HAK_HELD(&haki_supers.lock);
    if (slots_nkept > 0) {
        slots_nkept--;
        return slots_kept[slots_nkept];
    }
    id = slots_find_cold();
    if (id == 0 && slots_count < slots_limit &&
        slots_map_slots(slots_count + 1)) {
        id = atomic_fetch_add(&slots_count, 1) + 1;
    }
    return id;
}

void *haki_range_heap_take(uint32_t *id)
{
    void *slot = NULL;

    haki_lock_take(&haki_supers.lock);
    *id = slots_take_locked();
    if (*id != 0) {
        HAK_ASSERT(*id <= slots_count && !slots_is_used(*id));
        slots_set_used(*id, true);
        slot = haki_range_heap(*id);
    }
    haki_lock_drop(&haki_supers.lock);
    return slot;
}

/* ---- given back, kept, purged -------------------------------------------- */

/*
 * The end of the run of unused slots from `id` on that can be purged with it.
 */
static uint32_t slots_run_end(uint32_t id, uint32_t next)
{
    uint32_t end = id + 1;

    while (end < next && end - id <= BRIDGE && !slots_is_used(end)) {
        end++;
    }
    return end == next ? end : id + 1;
}

/* Sorts ids; they are few. */
static void slots_sort(uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t id = ids[i], at = i;

        for (; at > 0 && ids[at - 1] > id; at--) {
            ids[at] = ids[at - 1];
        }
        ids[at] = id;
    }
}

/* Gives back the pages of the n slots that have been kept longest. */
static size_t slots_purge_oldest(uint32_t n)
{
    size_t bytes = n * HAK_HEAP_KEPT * HAK_PAGE;
    uint32_t ids[KEPT + 1];

    HAK_HELD(&haki_supers.lock);
    HAK_ASSERT(n <= slots_nkept && slots_nkept <= KEPT);
    for (uint32_t i = 0; i < slots_nkept; i++) {
        ids[i] = slots_kept[i];
    }
    slots_nkept -= n;
    for (uint32_t i = 0; i < slots_nkept; i++) {
        slots_kept[i] = ids[n + i];
    }
    slots_sort(ids, n);
    ids[n] = 0;
    for (uint32_t i = 0; i < n;) {
        uint32_t first = ids[i], end = first;

        do {
            end = slots_run_end(ids[i], ids[i + 1]);
            i++;
        } while (i < n && end == ids[i]);
        HAK_ASSERT(!slots_is_used(first) && !slots_is_used(end - 1));
        haki_os_purge(haki_range_heap(first),
                      (size_t)(end - first) * HAK_HEAP_SLOT);
        haki_supers.counts.purges++;
    }
    haki_supers.counts.purged += bytes;
    return bytes;
}

size_t haki_slots_purge(void)
{
    return slots_nkept > 0 ? slots_purge_oldest(slots_nkept) : 0;
}

uint32_t haki_slots_tick(uint32_t now, uint32_t delay)
{
    if (slots_nkept > 0 && haki_tick_reached(now, slots_stamp + delay)) {
        slots_purge_oldest(slots_nkept);
    }
    return slots_nkept > 0 ? haki_some_time(slots_stamp + delay) : 0;
}

size_t haki_slots_kept(void)
{
    return slots_nkept * HAK_HEAP_KEPT * HAK_PAGE;
}

void haki_range_heap_give(uint32_t id)
{
    haki_lock_take(&haki_supers.lock);
    HAK_HELD(&haki_supers.lock);
    HAK_CHECK(slots_is_used(id));
    slots_set_used(id, false);
    slots_low = (uint32_t)haki_min(slots_low, (id - 1) / 64);
    if (slots_nkept == KEPT) {
        slots_purge_oldest(KEPT / 2);
    }
    slots_kept[slots_nkept] = id;
    slots_nkept++;
    slots_stamp = haki_os_tick();
    haki_purge_at(slots_stamp);
    haki_lock_drop(&haki_supers.lock);
}

/* The list of kept slots may be half changed: all of them count as cold. */
void haki_slots_mend(void)
{
    slots_nkept = 0;
    slots_low = 0;
}
