/*
 * claims.c - the mappings of superslabs: claimed when they are needed, unmapped
 * when they are free; and the extent of the window, for which there are arrays.
 *
 * Nothing is ever mapped over anything else (os.h), so a mapping that a claim
 * meets belongs to somebody else and is passed over from then on.
 */
#include "base/msg.h"
#include "os/os.h"
#include "range/supers.h"
#include "range/superslabs.h"

/* ---- whose an address is ------------------------------------------------- */

/* Without the lock: nothing changes around a live block. */
static HAK_RACY_READER bool claims_is_claimed(size_t offset)
{
    uint32_t i = (uint32_t)(offset / HAK_SUPER_SIZE);
    const volatile uint16_t *claimed = &haki_supers.at[i].claimed;

    return offset % HAK_SUPER_SIZE < *claimed * HAK_PAGE;
}

bool haki_range_is_foreign(const void *p)
{
    size_t offset = haki_range_offset(p);

    if (offset < HAK_LOAD(haki_range.size) / HAK_SLAB_SIZE * sizeof(uint32_t)) {
        return false; /* the tags */
    }
    return !claims_is_claimed(offset) && haki_os_is_mapped(p);
}

atomic_bool haki_range_is_limited;

static void claims_ask_limit(void)
{
    atomic_store_explicit(&haki_range_is_limited,
                          haki_os_address_limit() != SIZE_MAX,
                          memory_order_relaxed);
}

void haki_range_ask_limit(uint32_t now)
{
    static _Atomic(uint32_t) asked;

    if (now != atomic_load_explicit(&asked, memory_order_relaxed)) {
        atomic_store_explicit(&asked, now, memory_order_relaxed);
        claims_ask_limit();
    }
}

/* ---- the extent ---------------------------------------------------------- */

static HAK_COLD void claims_say_full(void)
{
    static bool said;

    /* 0: the guessed window turned out to be taken, and others are tried. */
    if (!said && haki_range.window != 0) {
        said = true;
        haki_warn(
            "the address window of %zu MB is used up, %zu MB of it by "
            "other mappings (a larger HAKMEM_RANGE?); further requests go "
            "to the system allocator",
            haki_range.window / HAK_MIB,
            haki_supers.foreign * HAK_SUPER_SIZE / HAK_MIB);
    }
}

enum hak_os_claim haki_claim_noted(struct hak_intent *intent, char *at,
                                   size_t size)
{
    enum hak_os_claim claim;

    if (intent->at == at) { /* a ghost was mapping it; what it got is ours */
        if (haki_os_claim(at, intent->size) == HAK_OS_REFUSED) {
            return HAK_OS_REFUSED;
        }
        if (size <= intent->size) {
            return HAK_OS_CLAIMED;
        }
        at += intent->size;
        size -= intent->size;
    }
    if (haki_os_is_mapped(at)) {
        return HAK_OS_TAKEN;
    }
    intent->size = size;
    haki_lock_step();
    intent->at = at;
    haki_lock_step();
    claim = haki_os_claim(at, size);
    if (claim != HAK_OS_CLAIMED) {
        intent->at = NULL;
    }
    return claim;
}

static enum hak_os_claim claims_extend_part(struct hak_part *part,
                                            uint32_t supers)
{
    size_t bytes = haki_whole_pages(supers * part->unit);
    enum hak_os_claim claim = HAK_OS_CLAIMED;

    if (bytes > part->mapped) {
        claim = haki_claim_noted(&part->intent, part->at + part->mapped,
                                 bytes - part->mapped);
        if (claim == HAK_OS_CLAIMED) {
            part->mapped = bytes;
            haki_lock_step();
            part->intent.at = NULL;
        }
    }
    return claim;
}

static enum hak_os_claim claims_extend_to(uint32_t limit)
{
    enum hak_os_claim claim = HAK_OS_CLAIMED;

    for (int i = 0; i < HAK_PARTS && claim == HAK_OS_CLAIMED; i++) {
        claim = claims_extend_part(&haki_supers.parts[i], limit);
    }
    if (claim == HAK_OS_CLAIMED) {
        HAK_ASSERT(limit >= haki_supers.limit && limit <= haki_supers.most);
        haki_supers.limit = limit;
        /* Last: the tags below are there. */
        HAK_STORE(haki_range.size, limit * HAK_SUPER_SIZE);
    }
    return claim;
}

bool haki_super_extend(uint32_t more)
{
    size_t need = haki_round_up(haki_supers.limit + (size_t)more, HAK_EXTENT);
    size_t want = haki_min(haki_max(need, 2 * (size_t)haki_supers.limit),
                           haki_supers.most);
    enum hak_os_claim claim;

    if (haki_supers.limit + (size_t)more > haki_supers.most) {
        if (more == 1) { /* a long run may just be too long */
            claims_say_full();
        }
        return false;
    }
    need = haki_min(need, haki_supers.most);
    claim = claims_extend_to((uint32_t)want);
    if (claim == HAK_OS_REFUSED && want > need) {
        claim = claims_extend_to((uint32_t)need);
    }
    if (claim == HAK_OS_TAKEN) {
        haki_supers.most = haki_supers.limit;
        claims_say_full();
    }
    return claim == HAK_OS_CLAIMED;
}

/* ---- claims -------------------------------------------------------------- */

/* Marks a fresh superslab, or one of a run's room, as somebody else's. */
static void claims_pass_over(uint32_t i)
{
    struct hak_super *super = &haki_supers.at[i];

    HAK_ASSERT(super->state == HAK_SUPER_FRESH ||
               super->state == HAK_SUPER_ROOM);
    HAK_ASSERT(super->claimed == 0);
    super->state = HAK_SUPER_FOREIGN;
    super->used = HAK_ALL_SLABS;
    haki_super_changed(i);
    haki_supers.foreign++;
}

enum hak_os_claim haki_super_claim_meta(uint32_t i)
{
    uint32_t per_step = (uint32_t)(HAK_META_STEP / HAK_SUPER_META);
    uint32_t step = i / per_step;
    enum hak_os_claim claim;

    if (haki_map_get(HAK_MAP_META, step)) {
        return HAK_OS_CLAIMED;
    }
    claim = haki_os_claim((char *)haki_range.slabs + step * HAK_META_STEP,
                          HAK_META_STEP);
    if (claim == HAK_OS_CLAIMED) {
        haki_map_set(HAK_MAP_META, step, true);
    } else if (claim == HAK_OS_TAKEN) {
        for (uint32_t n = step * per_step; n < (step + 1) * per_step; n++) {
            if (n < haki_supers.limit &&
                haki_supers.at[n].state == HAK_SUPER_FRESH) {
                claims_pass_over(n);
            }
        }
    }
    return claim;
}

/* Counts what was mapped between two distances from the base. */
static void claims_count_in(size_t from, size_t to)
{
    HAK_ASSERT(from < to && to <= haki_supers.limit * HAK_SUPER_SIZE);
    haki_os_name((char *)HAK_LOAD(haki_range.base) + from, to - from, "hakmem");
    haki_supers.counts.committed += to - from;
    while (from < to) {
        uint32_t i = (uint32_t)(from / HAK_SUPER_SIZE);
        struct hak_super *super = &haki_supers.at[i];
        size_t end = haki_min(to, (i + (size_t)1) * HAK_SUPER_SIZE);

        super->claimed = (uint16_t)((end - i * HAK_SUPER_SIZE) / HAK_PAGE);
        if (super->state == HAK_SUPER_FRESH) {
            super->state = HAK_SUPER_OPEN;
            super->described = false; /* what it says is from an earlier life */
        }
        from = end;
    }
}

/* Maps from..to, two distances, where nothing is ours yet. */
static enum hak_os_claim claims_claim_gap(size_t from, size_t to)
{
    enum hak_os_claim claim =
        haki_os_claim((char *)HAK_LOAD(haki_range.base) + from, to - from);
    uint32_t first = (uint32_t)(from / HAK_SUPER_SIZE);
    uint32_t last = (uint32_t)((to - 1) / HAK_SUPER_SIZE);

    if (claim == HAK_OS_CLAIMED) {
        claims_count_in(from, to);
    } else if (claim == HAK_OS_TAKEN && first == last) {
        if (haki_supers.at[first].claimed == 0) {
            claims_pass_over(first);
        }
    } else if (claim == HAK_OS_TAKEN) {
        /* At least one is taken: try each by itself. */
        while (from < to) {
            size_t end = haki_min(to, haki_round_up(from + 1, HAK_SUPER_SIZE));

            claims_claim_gap(from, end);
            from = end;
        }
    }
    return claim;
}

/* Where in superslab i, up to the distance `to`, the unmapped part begins. */
static size_t claims_gap_in(uint32_t i, size_t to)
{
    return haki_min(i * HAK_SUPER_SIZE + haki_supers.at[i].claimed * HAK_PAGE,
                    to);
}

void haki_super_check_limit(uint32_t first, uint32_t count)
{
    uint32_t i = first;

    HAK_HELD(&haki_supers.lock);
    while (i < first + count && haki_supers.at[i].claimed != 0) {
        i++;
    }
    if (i < first + count) {
        claims_ask_limit(); /* costs little beside a mapping */
    } else {
        haki_range_ask_limit(haki_os_tick());
    }
    if (haki_range_limited() && !haki_supers.was_limited) {
        haki_super_unmap_unused();
    }
    haki_supers.was_limited = haki_range_limited();
}

enum hak_os_claim haki_super_claim(uint32_t first, size_t bytes)
{
    size_t at = first * HAK_SUPER_SIZE, end = at + bytes;
    enum hak_os_claim claim = HAK_OS_CLAIMED;

    HAK_HELD(&haki_supers.lock);
    for (uint32_t n = first; n < first + haki_supers_for(bytes); n++) {
        claim = haki_super_claim_meta(n);
        if (claim != HAK_OS_CLAIMED) {
            return claim;
        }
    }
    while (at < end && claim == HAK_OS_CLAIMED) {
        uint32_t n = (uint32_t)(at / HAK_SUPER_SIZE);
        size_t from = claims_gap_in(n, end);
        size_t to = haki_min((n + (size_t)1) * HAK_SUPER_SIZE, end);

        at = to;
        if (from >= to) {
            continue;
        }
        while (to < end && haki_supers.at[to / HAK_SUPER_SIZE].claimed == 0) {
            to = haki_min(to + HAK_SUPER_SIZE, end);
        }
        claim = claims_claim_gap(from, to);
        at = to;
    }
    return claim;
}

/* ---- back to the system -------------------------------------------------- */

/*
 * How many superslabs from `first` on, below `end`, are mapped without a gap.
 */
static uint32_t claims_mapped_run(uint32_t first, uint32_t end)
{
    uint32_t i = first;

    while (i < end && haki_supers.at[i].claimed == HAK_SUPER_PAGES) {
        i++;
    }
    return i < end && haki_supers.at[i].claimed != 0 ? i + 1 - first
                                                     : i - first;
}

void haki_super_forget(uint32_t i)
{
    struct hak_super *super = &haki_supers.at[i];

    HAK_ASSERT(haki_supers.counts.committed >= super->claimed * HAK_PAGE);
    atomic_fetch_sub(&haki_supers_resident, haki_super_resident(i));
    haki_supers.counts.committed -= super->claimed * HAK_PAGE;
    super->claimed = 0;
    super->resident = 0;
    super->described = false;
    super->state = HAK_SUPER_FRESH;
    haki_super_changed(i);
}

/* Whether all superslabs whose descriptors make up a step are fresh, and none of
 * them are samples': of these nobody here knows whether they have tags. */
static bool claims_is_fresh_step(uint32_t from, uint32_t to)
{
    if (from < haki_supers.tags) {
        return false;
    }
    while (from < to && haki_supers.at[from].state == HAK_SUPER_FRESH) {
        from++;
    }
    return from == to;
}

_Static_assert(HAK_META_STEP / sizeof(struct hak_slab) * sizeof(uint32_t) %
                       HAK_PAGE ==
                   0,
               "the tags of a step of descriptors are whole pages");

void haki_super_drop_meta(uint32_t first, uint32_t count)
{
    uint32_t per_step = (uint32_t)(HAK_META_STEP / HAK_SUPER_META);
    uint32_t end = first + count;

    HAK_HELD(&haki_supers.lock);
    for (uint32_t step = first / per_step; step * per_step < end; step++) {
        uint32_t from = step * per_step;
        uint32_t to = (uint32_t)haki_min(from + per_step, haki_supers.limit);

        if (haki_map_get(HAK_MAP_META, step) &&
            claims_is_fresh_step(from, to)) {
            haki_os_purge(haki_range_super_meta(from), HAK_META_STEP);
            haki_os_purge((void *)(haki_range_tags() + from * HAK_SUPER_SLABS),
                          per_step * HAK_SUPER_SLABS * sizeof(uint32_t));
        }
    }
}

bool haki_super_unmap(uint32_t first, uint32_t count)
{
    uint32_t end = first + count, begin = first;
    bool all = true;

    HAK_HELD(&haki_supers.lock);
    while (first < end) {
        uint32_t run = claims_mapped_run(first, end);
        uint32_t last = first + (run > 0 ? run - 1 : 0);
        size_t bytes = (last - first) * HAK_SUPER_SIZE +
                       haki_supers.at[last].claimed * HAK_PAGE;

        HAK_CHECK(run == 0 || haki_super_all_free(first, run));
        /*
         * If a fork comes in between, the child can't know whether they are
         * mapped.
         */
        haki_supers.unmap_first = first;
        haki_supers.unmap_end = first + run;
        haki_lock_step();
        if (run > 0 && haki_os_unmap(haki_range_super_start(first), bytes)) {
            for (uint32_t i = first; i <= last; i++) {
                haki_super_forget(i);
            }
        } else if (run > 0) {
            all = false;
        }
        haki_lock_step();
        haki_supers.unmap_end = 0;
        first = last + 1;
    }
    haki_super_drop_meta(begin, count);
    return all;
}

size_t haki_super_unmap_unused(void)
{
    size_t before = haki_supers.counts.committed;
    uint32_t i = 0, end;

    while (i < haki_supers.limit) {
        for (end = i; end < haki_supers.limit &&
                      haki_supers.at[end].used == 0 &&
                      haki_supers.at[end].claimed != 0;) {
            end++;
        }
        if (end > i) {
            haki_super_unmap(i, end - i);
        }
        i = end + 1;
    }
    return before - haki_supers.counts.committed;
}

/* ---- a superslab by itself ----------------------------------------------- */

/* The lowest superslab from `low` on that is wholly free. */
static uint32_t claims_find_free(void)
{
    uint32_t i = haki_supers.low;

    while (i < haki_supers.limit && haki_supers.at[i].used != 0) {
        i++;
    }
    haki_supers.low = i;
    return i;
}

/* A superslab that is free and mapped, or HAK_NO_SUPER. */
static uint32_t claims_find_mapped(void)
{
    for (uint32_t i = haki_supers.low; i < haki_supers.limit; i++) {
        if (haki_supers.at[i].used == 0 && haki_supers.at[i].claimed != 0 &&
            haki_super_claim_meta(i) == HAK_OS_CLAIMED) {
            return i;
        }
    }
    return HAK_NO_SUPER;
}

uint32_t haki_super_open(void)
{
    for (;;) {
        uint32_t i = claims_find_free();

        if (i == haki_supers.limit) {
            if (!haki_super_extend(1)) {
                return HAK_NO_SUPER;
            }
            continue;
        }
        haki_super_check_limit(i, 1);
        switch (haki_super_claim(i, HAK_SUPER_SIZE)) {
        case HAK_OS_CLAIMED: return i;
        case HAK_OS_REFUSED: return claims_find_mapped();
        case HAK_OS_TAKEN: break; /* next time it is passed over */
        }
    }
}
