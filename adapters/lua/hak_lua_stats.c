/*
 * hak_lua_stats.c - a heap's statistics, and all heaps of the process.
 *
 * A heap is found by its slot in the core and recognised as Lua's by its mark,
 * the address of the lock below, which nobody else writes there. The mark is
 * removed under the lock when a heap ends, so whoever holds the lock may read
 * any heap with the mark. Only read, and its user may be changing it meanwhile:
 * statistics are read as haki_embed_tiny_counts does it.
 *
 * Tested by tests/lua/each.c and tests/lua/figures.c.
 */
#include <errno.h>
#include <string.h>

#include "hak_lua_heap.h"

static hak_lock lock = HAK_LOCK_INIT(NULL);

/* Whether it is a Lua heap in use; caller holds the lock. */
static bool is_listed(const struct hak_lua_heap *lua)
{
    return atomic_load_explicit(&lua->mark, memory_order_acquire) == &lock;
}

/* ---- one heap ----------------------------------------------------------- */

/* Of one of Lua's tags, which may be one that is not an object's. */
static unsigned type_of_tag(int tag)
{
    if (tag == HAK_LUA_TAG_UPVALUE) {
        return HAK_LUA_UPVALUE;
    }
    if (tag == HAK_LUA_TAG_PROTOTYPE) {
        return HAK_LUA_PROTOTYPE;
    }
    return tag >= HAK_LUA_TAG_FIRST && tag <= LUA_TTHREAD
               ? (unsigned)(tag - LUA_TSTRING) + HAK_LUA_STRING
               : HAK_LUA_OTHER;
}

/*
 * Reads live bytes from two words that belong together, until both were read
 * the same twice.
 */
static HAK_RACY_READER void read_account(const struct hak_lua_heap *lua,
                                         hak_lua_stats *stats)
{
    const volatile int64_t *headroom = &lua->headroom;
    const volatile size_t *gate = &lua->gate;
    int64_t live = 0;

    for (int tries = 0; tries < 1000; tries++) {
        size_t now = *gate;

        live = (int64_t)now - *headroom;
        if (live >= 0 && *gate == now && (int64_t)now - *headroom == live) {
            break;
        }
    }
    stats->live_bytes = live > 0 ? (size_t)live : 0;
    stats->peak_bytes = haki_max(lua->peak, *gate);
    stats->limit = lua->limit == SIZE_MAX ? 0 : lua->limit;
}

static HAK_RACY_READER void read_counters(const struct hak_lua_heap *lua,
                                          hak_lua_stats *stats)
{
    haki_embed_tiny_counts(hak_lua_core(lua), &stats->tiny_allocs,
                           &stats->tiny_frees);
    stats->larger_allocs = lua->larger_allocs;
    stats->larger_frees = lua->larger_frees;
    stats->tiny = stats->tiny_allocs + stats->tiny_frees;
    stats->large = stats->larger_allocs + stats->larger_frees;
    stats->fallback_large = lua->fallback_large;
    stats->fallback_memory = lua->fallback_memory;
    stats->foreign_frees = lua->foreign;
    stats->limit_refusals = lua->refused;
    stats->calls = stats->tiny + stats->large + stats->fallback_large +
                   stats->fallback_memory + stats->foreign_frees;
    for (int tag = 0; tag < HAK_LUA_TAGS; tag++) {
        stats->type_count[type_of_tag(tag)] += lua->type_count[tag];
        stats->type_bytes[type_of_tag(tag)] += lua->type_bytes[tag];
    }
}

static void read_memory(const struct hak_heap *core, hak_lua_stats *stats)
{
    struct hak_embed_held held;

    haki_embed_held(core, &held);
    stats->slabs = held.slabs;
    stats->held_bytes =
        (held.slabs + held.sealed) * HAK_EMBED_SLAB + held.other;
}

int hak_lua_heap_stats(const hak_lua_heap *lua, hak_lua_stats *stats)
{
    size_t size = haki_min(stats->size, sizeof(*stats));
    hak_lua_stats all;

    if (size < offsetof(hak_lua_stats, tiny_allocs)) {
        errno = EINVAL;
        return -1;
    }
    memset(&all, 0, sizeof(all));
    read_account(lua, &all);
    read_counters(lua, &all);
    read_memory(hak_lua_core(lua), &all);
    all.size = size;
    memcpy(stats, &all, size);
    return 0;
}

size_t hak_lua_heap_resident(const hak_lua_heap *lua)
{
    size_t bytes = 0;

    haki_lock_take(&lock);
    if (is_listed(lua)) {
        bytes = hak_heap_resident(hak_lua_core(lua));
    }
    haki_lock_drop(&lock);
    return bytes;
}

/* ---- all heaps ---------------------------------------------------------- */

void hak_lua_list_add(struct hak_lua_heap *lua)
{
    atomic_store_explicit(&lua->mark, &lock, memory_order_release);
}

void hak_lua_list_drop(struct hak_lua_heap *lua)
{
    haki_lock_take(&lock);
    atomic_store_explicit(&lua->mark, NULL, memory_order_relaxed);
    haki_lock_drop(&lock);
}

struct seen {
    const hak_lua_heap *lua;
    char name[HAK_EMBED_NAME];
    hak_lua_stats stats;
};

/* The first Lua heap with an id above `id`: its id, or 0. */
static uint32_t see_next(uint32_t id, struct seen *seen)
{
    struct hak_heap *core;
    uint32_t found = 0;

    haki_lock_take(&lock);
    while (found == 0 && (id = haki_embed_next(id, &core)) != 0) {
        seen->lua = haki_embed_extra(core);
        if (is_listed(seen->lua)) {
            memcpy(seen->name, haki_embed_name(core), sizeof(seen->name));
            seen->stats.size = sizeof(seen->stats);
            hak_lua_heap_stats(seen->lua, &seen->stats);
            found = id;
        }
    }
    haki_lock_drop(&lock);
    return found;
}

int hak_lua_each(hak_lua_visit *visit, void *ud)
{
    struct seen seen;
    uint32_t id = 0;
    int end = 0;

    while (end == 0 && (id = see_next(id, &seen)) != 0) {
        end = visit(ud, seen.lua, seen.name, &seen.stats);
    }
    return end;
}
