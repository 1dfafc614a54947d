/*
 * hak_lua_module_stats.c - the module's functions stats, types and heaps.
 *
 * Tested by tests/lua/module.c and tests/lua/types.c.
 */
#include <errno.h>
#include <string.h>

#include "hak_lua_heap.h"

static const char *const type_names[HAK_LUA_TYPES] = {
    "other",    "string", "table",   "function",
    "userdata", "thread", "upvalue", "prototype"};

static hak_lua_heap *heap_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static void set_number(lua_State *L, const char *key, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, key);
}

/* Fields of the table on top: a heap's statistics, without the types. */
static void set_figures(lua_State *L, const hak_lua_heap *heap,
                        const hak_lua_stats *stats)
{
    set_number(L, "limit", stats->limit);
    set_number(L, "live_bytes", stats->live_bytes);
    set_number(L, "peak_bytes", stats->peak_bytes);
    set_number(L, "held_bytes", stats->held_bytes);
    set_number(L, "resident_bytes", hak_lua_heap_resident(heap));
    set_number(L, "calls", stats->calls);
    set_number(L, "tiny_allocs", stats->tiny_allocs);
    set_number(L, "tiny_frees", stats->tiny_frees);
    set_number(L, "larger_allocs", stats->larger_allocs);
    set_number(L, "larger_frees", stats->larger_frees);
    set_number(L, "fallback_large", stats->fallback_large);
    set_number(L, "fallback_memory", stats->fallback_memory);
    set_number(L, "foreign_frees", stats->foreign_frees);
    set_number(L, "limit_refusals", stats->limit_refusals);
    set_number(L, "limit_refused", stats->limit_refusals); /* its old name */
    set_number(L, "slabs", stats->slabs);
}

/* Deprecated, to be removed in the next version. */
static void set_old_figures(lua_State *L, const hak_lua_stats *stats)
{
    set_number(L, "tiny", stats->tiny);
    set_number(L, "large", stats->large);
    set_number(L, "foreign", stats->foreign);
    set_number(L, "refused", stats->refused);
}

static void push_made(lua_State *L, const hak_lua_stats *stats)
{
    lua_createtable(L, 0, HAK_LUA_TYPES);
    for (int i = 0; i < HAK_LUA_TYPES; i++) {
        lua_createtable(L, 0, 4);
        set_number(L, "made_count", stats->type_count[i]);
        set_number(L, "made_bytes", stats->type_bytes[i]);
        set_number(L, "count", stats->type_count[i]); /* deprecated */
        set_number(L, "bytes", stats->type_bytes[i]); /* deprecated */
        lua_setfield(L, -2, type_names[i]);
    }
}

/* hakmem.stats() -> table */
int hak_lua_l_stats(lua_State *L)
{
    hak_lua_stats stats = {.size = sizeof(stats)};

    hak_lua_heap_stats(heap_of(L), &stats);
    lua_createtable(L, 0, 21);
    set_figures(L, heap_of(L), &stats);
    set_old_figures(L, &stats);
    push_made(L, &stats);
    lua_setfield(L, -2, "types");
    return 1;
}

/* hakmem.types() -> a table for each type, or nil and why not */
int hak_lua_l_types(lua_State *L)
{
    hak_lua_types types = {.size = sizeof(types)};

    if (hak_lua_count_types(L, &types) != 0) {
        hak_lua_pushfail(L);
        lua_pushfstring(L, "hakmem.types: %s",
                        errno == ENOTSUP
                            ? "this build of Lua is not laid out as 5.4.1 to "
                              "5.4.8 are; stats().types says what was made"
                            : strerror(errno));
        return 2;
    }
    lua_createtable(L, 0, HAK_LUA_TYPES);
    for (int i = 0; i < HAK_LUA_TYPES; i++) {
        lua_createtable(L, 0, 5);
        set_number(L, "live_count", types.type[i].live_count);
        set_number(L, "live_bytes", types.type[i].live_bytes);
        set_number(L, "part_bytes", types.type[i].part_bytes);
        set_number(L, "made_count", types.type[i].made_count);
        set_number(L, "made_bytes", types.type[i].made_bytes);
        lua_setfield(L, -2, type_names[i]);
    }
    return 1;
}

/* Appends a heap's table to the table on top. */
static int add_heap(void *ud, const hak_lua_heap *heap, const char *name,
                    const hak_lua_stats *stats)
{
    lua_State *L = ud;

    lua_createtable(L, 0, 18);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "name");
    lua_pushboolean(L, heap == heap_of(L));
    lua_setfield(L, -2, "current");
    set_figures(L, heap, stats);
    lua_rawseti(L, -2, (int)lua_rawlen(L, -2) + 1);
    return 0;
}

/* hakmem.heaps() -> an array of tables */
int hak_lua_l_heaps(lua_State *L)
{
    lua_newtable(L);
    hak_lua_each(add_heap, L);
    return 1;
}
