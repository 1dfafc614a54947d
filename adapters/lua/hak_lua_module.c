/*
 * hak_lua_module.c - require "hakmem" for a stock Lua 5.4.
 *
 * Loading it moves the running state to HAKMEM (hak_lua_switch). Lua unloads C
 * libraries before it frees its last objects, so the shared object must be
 * linked with -z nodelete.
 *
 * Tested by tests/lua/module.c and tests/lua/switch.c.
 */
#include <errno.h>
#include <string.h>

#include "hak_lua_heap.h"

static hak_lua_heap *heap_of(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* hakmem.limit([bytes]) -> the previous limit; 0: none */
static int l_limit(lua_State *L)
{
    hak_lua_stats stats = {.size = sizeof(stats)};

    hak_lua_heap_stats(heap_of(L), &stats);
    if (!lua_isnoneornil(L, 1)) {
        lua_Integer limit = luaL_checkinteger(L, 1);

        luaL_argcheck(L, limit >= 0, 1, "a limit is 0 (none) or bytes");
        hak_lua_heap_limit(heap_of(L), (size_t)limit);
    }
    lua_pushinteger(L, (lua_Integer)stats.limit);
    return 1;
}

/* hakmem.trim() -> bytes given back to the system */
static int l_trim(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)hak_lua_heap_trim(heap_of(L)));
    return 1;
}

int luaopen_hakmem(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"stats", hak_lua_l_stats}, {"types", hak_lua_l_types},
        {"heaps", hak_lua_l_heaps}, {"limit", l_limit},
        {"trim", l_trim},           {NULL, NULL}};
    hak_lua_heap *heap = hak_lua_switch(L, NULL);

    if (heap == NULL) {
        haki_warn("Lua: no heap could be made (%s); the state keeps its "
                  "allocator",
                  strerror(errno));
        hak_lua_hook_without_heap(L);
        return 1;
    }
    luaL_newlibtable(L, functions);
    lua_pushlightuserdata(L, heap);
    luaL_setfuncs(L, functions, 1);
    hak_lua_hook_open(L, heap);
    hak_lua_profile_open(L);
    lua_pushstring(L, hak_version());
    lua_setfield(L, -2, "version");
    return 1;
}
