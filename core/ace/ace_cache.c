/*
 * ace_cache.c - a heap's cache of ACE runs.
 *
 * What is asked about a run is asked without the lane's lock: its owner has
 * it. See ace_bits.h.
 */
#include "ace/ace_bits.h"
#include "base/msg.h"
#include "range/pressure.h"
#include "range/purge.h"

_Static_assert(HAK_PRESSURE_RUNS == HAK_ACE_CACHE_BYTES / HAK_PAGE,
               "what a cache may hold when memory is not short");

/* A longer run is worth the lock. */
#define RUN_MOST (HAK_ACE_CACHE_BYTES / 4 / HAK_PAGE)

void hak_ace_note(const void *run, bool in)
{
    if (HAK_HARD) {
        uint32_t page = (uint32_t)(hak_range_offset(run) / HAK_PAGE);

        atomic_store_explicit(
            &hak_ace_super(page)->cached[hak_ace_at(page) / 8], in,
            memory_order_relaxed);
    }
}

static void drop(struct hak_ace_cache *cache, uint32_t i)
{
    struct hak_ace_run run;

    if (cache->pages[i] != 0) {
        HAK_ASSERT(cache->held >= cache->pages[i]);
        cache->held -= cache->pages[i];
        cache->pages[i] = 0;
        hak_ace_note(cache->run[i], false);
        hak_ace_free(cache->run[i], &run);
    }
}

/* For p. */
static HAK_NOINLINE void make_room(struct hak_ace_cache *cache, uint32_t i,
                                   const void *p)
{
    if (HAK_UNLIKELY(cache->run[i] == p)) {
        hak_fatal("free(%p): a block that is free already", p);
    }
    drop(cache, i);
    hak_range_mind_freed();
}

/* Notes what the cache holds. */
static void note(struct hak_ace_cache *cache)
{
    cache->allow->kept[HAK_KEEPS_RUNS] = cache->held * (int64_t)HAK_PAGE;
}

/* Works out what the cache may hold: whether that is `pages` more. */
static HAK_NOINLINE bool set_bound(struct hak_ace_cache *cache, uint32_t pages)
{
    uint32_t most =
        atomic_load_explicit(&hak_pressure.runs_most, memory_order_relaxed);
    int64_t rest;

    note(cache);
    rest = hak_may_keep(cache->allow) - hak_kept(cache->allow) +
           cache->held * (int64_t)HAK_PAGE;
    rest = rest > 0 ? rest : 0;
    cache->may_hold = (uint32_t)hak_min((size_t)rest / HAK_PAGE, most);
    return cache->held + pages <= cache->may_hold;
}

size_t hak_ace_cache_put(struct hak_ace_cache *cache, void *p, uint32_t owner)
{
    uint32_t page = hak_ace_run_at(p);
    const struct hak_ace_super *super = hak_ace_super(page);
    uint32_t place = hak_ace_at(page) / 8;
    uint32_t pages, i;

    if (page == 0 || super->owner[place] != owner) {
        return 0;
    }
    pages = super->pages[place];
    HAK_ASSERT(pages == hak_ace_length(page));
    i = pages % HAK_ACE_CACHE;
    if (cache->pages[i] != 0) {
        make_room(cache, i, p);
    }
    if (pages > RUN_MOST) {
        return 0;
    }
    if (HAK_UNLIKELY(cache->held + pages > cache->may_hold) &&
        !set_bound(cache, pages)) {
        hak_keep_gave(cache->allow, pages * HAK_PAGE);
        return 0;
    }
    hak_ace_note(p, true);
    cache->run[i] = p;
    /* Last: a fork of another thread may copy the cache at any instruction. */
    __atomic_store_n(&cache->pages[i], pages, __ATOMIC_RELEASE);
    cache->held += pages;
    return pages * HAK_PAGE;
}

void hak_ace_cache_empty(struct hak_ace_cache *cache)
{
    for (uint32_t i = 0; i < HAK_ACE_CACHE; i++) {
        drop(cache, i);
    }
    HAK_ASSERT(cache->held == 0);
    hak_ace_cache_ask(cache);
    note(cache);
}

void hak_ace_cache_shed(struct hak_ace_cache *cache)
{
    note(cache);
    if (hak_kept(cache->allow) > hak_may_keep(cache->allow)) {
        hak_keep_gave(cache->allow, cache->held * HAK_PAGE);
        hak_ace_cache_empty(cache);
    }
}

void hak_ace_cache_tick(struct hak_ace_cache *cache, uint32_t now)
{
    if (cache->held == 0) {
        return;
    }
    if (cache->idle_at == 0) {
        cache->idle_at = hak_some_time(now + hak_idle_delay());
    } else if (hak_tick_reached(now, cache->idle_at)) {
        cache->idle_at = 0;
        hak_ace_cache_empty(cache);
    }
}

/*
 * A run being put into the cache or taken from it is lost if its place is empty.
 */
void hak_ace_cache_mend(struct hak_ace_cache *cache)
{
    cache->held = 0;
    for (uint32_t i = 0; i < HAK_ACE_CACHE; i++) {
        cache->held += cache->pages[i];
    }
}
