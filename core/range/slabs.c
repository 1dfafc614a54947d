/*
 * slabs.c - who has which slab and superslab, and the page-fault ladder.
 */
#include "range/range_walk.h"
#include "range/supers.h"

#include "os/os.h"
#include "range/pages.h"
#include "range/pressure.h"
#include "range/purge.h"
#include "range/superslabs.h"
#include "range/slabs.h"

struct hak_supers haki_supers = {.lock = HAK_LOCK_INIT(haki_range_mend)};

_Atomic(size_t) haki_supers_resident;

/*
 * The ladder's top: from this much resident memory a superslab may come as one
 * huge page, populated at once. That costs 1/4 to 1/8 of populating small pages
 * if the machine has a huge page ready, but 6 times as much was measured where
 * one must first be made (compaction, a hypervisor that backs memory at first
 * touch). So both are timed: after a huge page that costs more than its small
 * pages, the next THP_SKIP superslabs don't try one, then twice as many, and so
 * on.
 */
#define THP_FROM (8 * HAK_MIB)
#define THP_FROM_SEALED (32 * HAK_MIB) /* beyond what the seal found */
#define THP_SKIP 4
#define THP_ROOM (2 * HAK_SUPER_SIZE) /* left to HAKMEM_LIMIT */
#define THP_SKIP_MOST 1024

/* How much is made resident ahead of need while memory is short. */
#define STEP_NEAR (2 * HAK_PAGE)

/*
 * Slabs of which only a few pages will be used are looked for in this many
 * superslabs, and may have this much resident.
 */
#define COOL_LOOK 4
#define COOL_RESIDENT 2
#define COOL_MOST (32 * HAK_KIB)

/* Under the lock. */
static uint32_t slabs_thp_pass; /* superslabs to pass up */
static uint32_t slabs_thp_skip; /* how many after the next expensive one */
static size_t slabs_thp_from = THP_FROM;

/* Any thread: what the last populated small pages cost, ns per superslab. */
static _Atomic(uint64_t) slabs_small_cost;

/* ---- maps ---------------------------------------------------------------- */

uint32_t haki_map_next(enum hak_map map, uint32_t from, uint32_t limit)
{
    uint32_t at = from / 64 * 64;
    uint64_t bits;

    if (from >= limit) {
        return limit;
    }
    bits = *haki_map_word(map, at) & (UINT64_MAX << (from % 64));
    while (bits == 0) {
        at += 64;
        if (at >= limit) {
            return limit;
        }
        bits = *haki_map_word(map, at);
    }
    return (uint32_t)haki_min(at + (uint32_t)__builtin_ctzll(bits), limit);
}

void haki_super_changed(uint32_t i)
{
    const struct hak_super *super = &haki_supers.at[i];
    bool unused =
        haki_map_get(HAK_MAP_RESIDENT, i) && !haki_map_get(HAK_MAP_HELD, i);

    HAK_HELD(&haki_supers.lock);
    HAK_ASSERT((super->used & super->resident) == 0);
    HAK_ASSERT(!unused || haki_supers.unused > 0);
    haki_map_set(HAK_MAP_RESIDENT, i, super->resident != 0);
    haki_map_set(HAK_MAP_PART, i,
                 super->used != 0 && super->used != HAK_ALL_SLABS);
    haki_map_set(HAK_MAP_HELD, i, super->used != 0);
    haki_supers.unused -= unused;
    haki_supers.unused += super->resident != 0 && super->used == 0;
}

void haki_super_may_start(uint32_t i)
{
    const struct hak_super *super = &haki_supers.at[i];

    for (unsigned n = 1; n <= HAK_SPAN_MOST; n++) {
        haki_supers.part_start[n] =
            (uint32_t)haki_min(haki_supers.part_start[n], i);
        if (super->resident != 0) {
            haki_supers.resident_start[n] =
                (uint32_t)haki_min(haki_supers.resident_start[n], i);
        }
    }
    if (super->used == 0) {
        haki_supers.low = (uint32_t)haki_min(haki_supers.low, i);
    }
}

void haki_super_account(enum hak_lane lane, int64_t bytes)
{
    struct hak_range_counts *counts = &haki_supers.counts;

    HAK_HELD(&haki_supers.lock);
    HAK_ASSERT(bytes >= 0 || counts->held[lane] >= (size_t)-bytes);
    counts->held[lane] += (size_t)bytes;
    counts->held_peak[lane] =
        haki_max(counts->held_peak[lane], counts->held[lane]);
}

/* ---- the top of the ladder ------------------------------------------------ */

/* Whether the next superslab should come as a huge page. */
static bool slabs_thp_wanted(void)
{
    size_t mode = haki_option(HAK_OPT_huge_pages);
    size_t resident = atomic_load(&haki_supers_resident);

    slabs_thp_from = haki_min(slabs_thp_from, resident + THP_FROM_SEALED);
    if (mode == HAK_THP_NEVER || resident < slabs_thp_from ||
        haki_pressure_near() || haki_limit_room() < THP_ROOM) {
        return false;
    }
    if (mode == HAK_THP_AUTO && slabs_thp_pass > 0) {
        slabs_thp_pass--;
        return false;
    }
    return true;
}

/* Learns from what a huge page cost. */
static void slabs_thp_learn(uint64_t cost)
{
    if (cost <= atomic_load(&slabs_small_cost)) {
        slabs_thp_skip = 0;
        return;
    }
    slabs_thp_skip = slabs_thp_skip == 0 ? THP_SKIP : 2 * slabs_thp_skip;
    slabs_thp_skip = (uint32_t)haki_min(slabs_thp_skip, THP_SKIP_MOST);
    slabs_thp_pass = slabs_thp_skip;
}

/* Makes `resident` true in the descriptors of superslab i. */
static void slabs_describe(uint32_t i)
{
    struct hak_super *super = &haki_supers.at[i];

    if (super->described) {
        return;
    }
    for (uint32_t n = 0; n < HAK_SUPER_SLABS; n++) {
        struct hak_slab *slab = haki_range_slab(i * HAK_SUPER_SLABS + n);

        slab->resident =
            (super->resident >> n & 1) != 0 ? (uint32_t)HAK_SLAB_SIZE : 0;
        slab->gone = 0;
    }
    super->described = true;
}

size_t haki_super_resident(uint32_t i)
{
    const struct hak_super *super = &haki_supers.at[i];
    size_t bytes = 0;

    if (super->resident == HAK_ALL_SLABS && !super->described) {
        return HAK_SUPER_SIZE;
    }
    if (!super->described) {
        return (size_t)__builtin_popcount(super->resident) * HAK_SLAB_SIZE;
    }
    for (uint32_t resident = super->resident; resident != 0;
         resident &= resident - 1) {
        bytes += haki_range_slab(i * HAK_SUPER_SLABS +
                                 (uint32_t)__builtin_ctz(resident))
                     ->resident;
    }
    return bytes;
}

/*
 * Populates a superslab as a huge page, or with small pages if that is refused.
 */
static void slabs_populate_thp(uint32_t i)
{
    char *start = haki_range_super_start(i);
    uint64_t began = haki_os_clock();

    haki_os_want_huge(start, HAK_SUPER_SIZE);
    if (!haki_os_populate(start, HAK_SUPER_SIZE)) {
        return;
    }
    haki_os_want_small(start, HAK_SUPER_SIZE);
    slabs_thp_learn(haki_os_clock() - began);
    haki_supers.at[i].resident = HAK_ALL_SLABS;
    haki_supers.at[i].described = false;
    atomic_fetch_add(&haki_supers_resident, HAK_SUPER_SIZE);
}

/* ---- slabs --------------------------------------------------------------- */

/* The places in a superslab where `count` free slabs begin. */
static uint32_t slabs_runs(uint32_t i, uint32_t count)
{
    uint32_t free = ~haki_supers.at[i].used;
    uint32_t places = free;

    for (uint32_t n = 1; n < count; n++) {
        places &= free >> n;
    }
    return places;
}

/*
 * The lowest superslab in a map with `count` free slabs side by side, the first
 * of them resident if `resident` is set; `limit` if there is none.
 */
static uint32_t slabs_find(enum hak_map map, uint32_t *start, uint32_t count,
                           bool resident)
{
    uint32_t i = haki_map_next(map, start[count], haki_supers.limit);

    while (i < haki_supers.limit &&
           (slabs_runs(i, count) &
            (resident ? haki_supers.at[i].resident : UINT32_MAX)) == 0) {
        i = haki_map_next(map, i + 1, haki_supers.limit);
    }
    start[count] = i;
    return i;
}

/*
 * Opens a free superslab for slabs, as a huge page if `huge`; or HAK_NO_SUPER.
 */
static uint32_t slabs_open_super(bool huge)
{
    uint32_t i = haki_super_open();

    if (i != HAK_NO_SUPER && huge && haki_supers.at[i].resident == 0 &&
        slabs_thp_wanted()) {
        slabs_populate_thp(i);
    }
    return i;
}

/*
 * Of the places in superslab i, the first whose slab last had this class; if
 * there is none, the one with the most bytes resident. (The class is only a
 * hint: it is arbitrary in a slab that was never used, or that ACE or Huge had
 * in between.)
 */
static uint32_t slabs_best_place(uint32_t i, uint32_t places, uint8_t class)
{
    uint32_t best = (uint32_t)__builtin_ctz(places);
    uint32_t most = 0;

    for (; places != 0; places &= places - 1) {
        uint32_t bit = (uint32_t)__builtin_ctz(places);
        const struct hak_slab *slab =
            haki_range_slab(i * HAK_SUPER_SLABS + bit);

        if (slab->class == class) {
            return bit;
        }
        if (slab->resident > most) {
            most = slab->resident;
            best = bit;
        }
    }
    return best;
}

/* Takes slabs at `bit` of superslab i. */
static uint32_t slabs_take_at(uint32_t i, uint32_t bit, uint32_t count)
{
    struct hak_super *super = &haki_supers.at[i];
    bool first = super->used == 0;

    HAK_ASSERT(super->state == HAK_SUPER_OPEN && super->described);
    HAK_ASSERT((slabs_runs(i, count) >> bit & 1) !=
               0); /* all of them are free */
    super->used |= (((uint32_t)1 << count) - 1) << bit;
    super->resident &= ~super->used;
    haki_super_changed(i);
    if (first) {
        haki_super_may_start(i); /* what is left of it */
    }
    haki_supers.counts.slabs_used += count;
    return i * (uint32_t)HAK_SUPER_SLABS + bit;
}

static uint32_t slabs_take_locked(uint32_t count, uint8_t class, bool huge)
{
    uint32_t i =
        slabs_find(HAK_MAP_RESIDENT, haki_supers.resident_start, count, true);
    uint32_t places, resident;

    HAK_HELD(&haki_supers.lock);
    if (i == haki_supers.limit) {
        i = slabs_find(HAK_MAP_PART, haki_supers.part_start, count, false);
    }
    if (i == haki_supers.limit) {
        i = slabs_open_super(huge);
    }
    if (i == HAK_NO_SUPER || haki_super_claim_meta(i) != HAK_OS_CLAIMED) {
        return HAK_NO_SLAB;
    }
    slabs_describe(i);
    places = slabs_runs(i, count);
    resident = places & haki_supers.at[i].resident;
    return slabs_take_at(i,
                         resident != 0 ? slabs_best_place(i, resident, class)
                                       : (uint32_t)__builtin_ctz(places),
                         count);
}

/* Bytes resident in `count` free slabs. */
static size_t slabs_resident(uint32_t number, uint32_t count)
{
    size_t bytes = 0;

    for (uint32_t n = number; n < number + count; n++) {
        bytes += haki_range_slab(n)->resident;
    }
    return bytes;
}

/*
 * Takes slabs that waste little if only a few of their pages will be used: with
 * little or nothing resident, in superslabs that are already in use.
 * HAK_NO_SLAB: there are none.
 */
static uint32_t slabs_take_cool(uint32_t count)
{
    uint32_t i = haki_map_next(HAK_MAP_PART, 0, haki_supers.limit);

    HAK_HELD(&haki_supers.lock);
    for (uint32_t n = 0; n < COOL_LOOK && i < haki_supers.limit; n++) {
        uint32_t places = slabs_runs(i, count);

        if (__builtin_popcount(haki_supers.at[i].resident) > COOL_RESIDENT) {
            break; /* there is plenty of resident memory */
        }
        slabs_describe(i);
        for (; places != 0; places &= places - 1) {
            uint32_t bit = (uint32_t)__builtin_ctz(places);
            uint32_t number = i * (uint32_t)HAK_SUPER_SLABS + bit;

            if (haki_range_slab(number)->resident <= COOL_MOST &&
                slabs_resident(number, count) <= COOL_MOST) {
                return slabs_take_at(i, bit, count);
            }
        }
        i = haki_map_next(HAK_MAP_PART, i + 1, haki_supers.limit);
    }
    return HAK_NO_SLAB;
}

uint32_t haki_range_slabs_take(uint32_t count, enum hak_lane lane,
                               uint8_t class, enum hak_slabs_use use)
{
    uint32_t number = HAK_NO_SLAB;

    if (HAK_LOAD(haki_range.size) == 0) {
        return HAK_NO_SLAB;
    }
    haki_pressure_tick(haki_os_tick(), count * HAK_SLAB_SIZE);
    haki_lock_take(&haki_supers.lock);
    if (use == HAK_SLABS_SPARSE) {
        number = slabs_take_cool(count);
    }
    if (number == HAK_NO_SLAB) {
        number = slabs_take_locked(count, class, use == HAK_SLABS_ALL);
    }
    if (number != HAK_NO_SLAB) {
        haki_super_account(lane, (int64_t)(count * HAK_SLAB_SIZE));
    }
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
    return number;
}

static void slabs_give_locked(uint32_t number, uint32_t count,
                              enum hak_lane lane)
{
    uint32_t i = number / HAK_SUPER_SLABS;
    struct hak_super *super = &haki_supers.at[i];

    HAK_HELD(&haki_supers.lock);
    HAK_ASSERT(super->state == HAK_SUPER_OPEN);
    HAK_ASSERT(number % HAK_SUPER_SLABS + count <= HAK_SUPER_SLABS);
    HAK_ASSERT(haki_supers.counts.slabs_used >= count);
    for (uint32_t n = number; n < number + count; n++) {
        uint32_t bit = (uint32_t)1 << (n % HAK_SUPER_SLABS);

        HAK_CHECK((super->used & bit) != 0);
        haki_range_set_tag(n, 0);
        super->used &= ~bit;
        haki_range_pages_forget(haki_range_slab(n));
        if (haki_range_slab(n)->resident > 0) {
            super->resident |= bit;
        }
    }
    haki_super_changed(i);
    haki_super_may_start(i);
    if (super->used == 0 && haki_supers.unused > HAK_UNUSED_LIMITED &&
        haki_range_limited()) {
        haki_super_unmap(i, 1);
    }
    if (super->resident != 0) {
        haki_purge_wanted(i);
    }
    haki_supers.counts.slabs_used -= count;
    haki_super_account(lane, -(int64_t)(count * HAK_SLAB_SIZE));
    haki_range_count_freed(&haki_range_freed.slabs, count * HAK_SLAB_SIZE);
}

void haki_range_slabs_give(uint32_t number, uint32_t count, enum hak_lane lane)
{
    haki_lock_take(&haki_supers.lock);
    slabs_give_locked(number, count, lane);
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
}

void haki_range_list_give(uint32_t first, enum hak_lane lane)
{
    haki_lock_take(&haki_supers.lock);
    while (first != HAK_NO_SLAB) {
        uint32_t next = haki_range_slab(first)->all_next;

        slabs_give_locked(first, haki_range_slab(first)->slabs, lane);
        first = next;
    }
    HAK_WALK(haki_range_walk(false));
    haki_lock_drop(&haki_supers.lock);
}

/* ---- the ladder below huge pages ------------------------------------------ */

/* Populates, and remembers what it cost. */
static bool slabs_populate_small(char *start, size_t size)
{
    uint64_t began = haki_os_clock();

    if (!haki_os_populate(start, size)) {
        return false;
    }
    atomic_store_explicit(&slabs_small_cost,
                          (haki_os_clock() - began) * HAK_SUPER_SIZE / size,
                          memory_order_relaxed);
    return true;
}

size_t haki_range_resident(uint32_t number, uint32_t slabs)
{
    size_t have = 0;

    for (uint32_t n = number; n < number + slabs; n++) {
        have += haki_range_slab(n)->resident;
        if (haki_range_slab(n)->resident < HAK_SLAB_SIZE) {
            break;
        }
    }
    return have;
}

/*
 * How many bytes from `have` to `want` of a span are not resident; with `mark`
 * they count as resident from now on. A slab behind the first gap may have been
 * resident already.
 */
static size_t slabs_make_resident(uint32_t number, size_t have, size_t want,
                                  bool mark)
{
    size_t more = 0;

    if (HAK_LIKELY(want <= HAK_SLAB_SIZE)) { /* no other slab is touched */
        haki_range_slab(number)->resident = (uint32_t)(mark ? want : have);
        return want - have;
    }
    for (size_t at = have & ~(HAK_SLAB_SIZE - 1); at < want;
         at += HAK_SLAB_SIZE) {
        uint32_t *resident =
            &haki_range_slab(number + (uint32_t)(at / HAK_SLAB_SIZE))->resident;
        uint32_t now = (uint32_t)haki_min(want - at, HAK_SLAB_SIZE);

        if (now > *resident) {
            more += now - *resident;
            *resident = mark ? now : *resident;
        }
    }
    return more;
}

bool haki_range_ready(uint32_t number, uint32_t slabs, size_t need, size_t step)
{
    size_t have = haki_range_resident(number, slabs);
    size_t more, want;

    if (HAK_LIKELY(need <= have)) {
        return true;
    }
    step = haki_pressure_near() ? haki_min(step, STEP_NEAR) : step;
    want = haki_max(haki_round_up(need, HAK_PAGE), have + step);
    want = haki_min(want, slabs * HAK_SLAB_SIZE);
    HAK_ASSERT(need <= want && want <= slabs * HAK_SLAB_SIZE);
    more = slabs_make_resident(number, have, want, false);
    if (!haki_limit_charge(&haki_supers_resident, more)) {
        want = haki_round_up(need, HAK_PAGE); /* nothing ahead of need */
        more = slabs_make_resident(number, have, want, false);
        if (!haki_limit_charge(&haki_supers_resident, more)) {
            return false;
        }
    }
    /* A fault is the cheapest way to get a single page. */
    if (step > 0 && want - have > HAK_PAGE &&
        !slabs_populate_small(haki_range_slab_start(number) + have,
                              want - have)) {
        haki_limit_uncharge(&haki_supers_resident, more);
        return false;
    }
    slabs_make_resident(number, have, want, true);
    return true;
}

size_t haki_range_resident_bytes(void)
{
    return atomic_load_explicit(&haki_supers_resident, memory_order_relaxed);
}

void haki_range_start_small(void)
{
    haki_lock_take(&haki_supers.lock);
    slabs_thp_from = haki_range_resident_bytes() + THP_FROM_SEALED;
    haki_lock_drop(&haki_supers.lock);
}
