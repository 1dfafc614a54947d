/*
 * ace_cache.c - a heap's cache of ACE runs.
 *
 * Reads about a run without the lane's lock, since the caller owns the run: see
 * ace_bits.h.
 *
 * Tested by tests/unit/ace/ace.c and tests/unit/ace/ace_back.c.
 */
#include "ace/ace_bits.h"
#include "base/msg.h"
#include "range/pressure.h"
#include "range/purge.h"

_Static_assert(HAK_PRESSURE_RUNS == HAK_ACE_CACHE_BYTES / HAK_PAGE,
               "what a cache may hold when memory is not short");

/* A longer run is worth taking the lock. */
#define RUN_MOST (HAK_ACE_CACHE_BYTES / 4 / HAK_PAGE)

void haki_ace_note(const void *run, bool in)
{
    if (HAK_HARD) {
        uint32_t page = (uint32_t)(haki_range_offset(run) / HAK_PAGE);

        atomic_store_explicit(
            &haki_ace_super(page)->cached[haki_ace_at(page) / 8], in,
            memory_order_relaxed);
    }
}

static void ace_drop(struct hak_ace_cache *cache, uint32_t i)
{
    struct hak_ace_run run;

    if (cache->pages[i] != 0) {
        HAK_ASSERT(cache->held >= cache->pages[i]);
        cache->held -= cache->pages[i];
        cache->pages[i] = 0;
        haki_ace_note(cache->run[i], false);
        haki_ace_free(cache->run[i], &run);
    }
}

/* Makes room in the cache for p. */
static HAK_NOINLINE void ace_make_room(struct hak_ace_cache *cache, uint32_t i,
                                       const void *p)
{
    if (HAK_UNLIKELY(cache->run[i] == p)) {
        haki_fatal("free(%p): a block that is free already", p);
    }
    ace_drop(cache, i);
    haki_range_check_freed();
}

/* Notes what the cache holds. */
static void ace_note(struct hak_ace_cache *cache)
{
    cache->allow->kept[HAK_KEEPS_RUNS] = cache->held * (int64_t)HAK_PAGE;
}

/* Computes what the cache may hold; returns whether `pages` more fit. */
static HAK_NOINLINE bool ace_set_bound(struct hak_ace_cache *cache,
                                       uint32_t pages)
{
    uint32_t most =
        atomic_load_explicit(&haki_pressure.runs_most, memory_order_relaxed);
    int64_t rest;

    ace_note(cache);
    rest = haki_may_keep(cache->allow) - haki_kept(cache->allow) +
           cache->held * (int64_t)HAK_PAGE;
    rest = rest > 0 ? rest : 0;
    cache->may_hold = (uint32_t)haki_min((size_t)rest / HAK_PAGE, most);
    return cache->held + pages <= cache->may_hold;
}

size_t haki_ace_cache_put(struct hak_ace_cache *cache, void *p, uint32_t owner)
{
    uint32_t page = haki_ace_run_at(p);
    const struct hak_ace_super *super = haki_ace_super(page);
    uint32_t place = haki_ace_at(page) / 8;
    uint32_t pages, i;

    if (page == 0 || super->owner[place] != owner) {
        return 0;
    }
    pages = super->pages[place];
    HAK_ASSERT(pages == haki_ace_length(page));
    i = pages % HAK_ACE_CACHE;
    if (cache->pages[i] != 0) {
        ace_make_room(cache, i, p);
    }
    if (pages > RUN_MOST) {
        return 0;
    }
    if (HAK_UNLIKELY(cache->held + pages > cache->may_hold) &&
        !ace_set_bound(cache, pages)) {
        haki_keep_gave(cache->allow, pages * HAK_PAGE);
        return 0;
    }
    haki_ace_note(p, true);
    cache->run[i] = p;
    /* Last: another thread may fork, and copy the cache, at any instruction. */
    __atomic_store_n(&cache->pages[i], pages, __ATOMIC_RELEASE);
    cache->held += pages;
    return pages * HAK_PAGE;
}

void haki_ace_cache_flush(struct hak_ace_cache *cache)
{
    for (uint32_t i = 0; i < HAK_ACE_CACHE; i++) {
        ace_drop(cache, i);
    }
    HAK_ASSERT(cache->held == 0);
    haki_ace_cache_ask(cache);
    ace_note(cache);
}

void haki_ace_cache_shed(struct hak_ace_cache *cache)
{
    ace_note(cache);
    if (haki_kept(cache->allow) > haki_may_keep(cache->allow)) {
        haki_keep_gave(cache->allow, cache->held * HAK_PAGE);
        haki_ace_cache_flush(cache);
    }
}

void haki_ace_cache_tick(struct hak_ace_cache *cache, uint32_t now)
{
    if (cache->held == 0) {
        return;
    }
    if (cache->idle_at == 0) {
        cache->idle_at = haki_some_time(now + haki_idle_delay());
    } else if (haki_tick_reached(now, cache->idle_at)) {
        cache->idle_at = 0;
        haki_ace_cache_flush(cache);
    }
}

/*
 * A run that was being put into the cache or taken from it is lost if its place
 * is empty.
 */
void haki_ace_cache_mend(struct hak_ace_cache *cache)
{
    cache->held = 0;
    for (uint32_t i = 0; i < HAK_ACE_CACHE; i++) {
        cache->held += cache->pages[i];
    }
}
