/*
 * hak_lua_arena.c - LuaJIT's own allocator, which a switched state had before.
 *
 * luaL_newstate gives each state an arena. lua_close unmaps it, but only if the state
 * still uses that allocator: of a switched one it would free the blocks and leave the
 * arena. Nothing public ends an arena but that. So a state is made in it and closed:
 * with all that was left of the arena it is gone.
 *
 * Elsewhere there is no arena, and none of this is called.
 *
 * Tested by tests/lua/switch.c.
 */
#include "hak_lua_heap.h"

bool hak_lua_is_arena(lua_Alloc f)
{
    /* The allocator of any state that LuaJIT makes; the same at every try. */
    static _Atomic(lua_Alloc) known;
    lua_State *L;
    void *ud;

    if (!hak_lua_is_jit()) {
        return false;
    }
    if (atomic_load(&known) == NULL && (L = luaL_newstate()) != NULL) {
        atomic_store(&known, lua_getallocf(L, &ud));
        lua_close(L);
    }
    return atomic_load(&known) == f;
}

void hak_lua_end_arena(lua_Alloc f, void *ud)
{
    lua_State *L = hak_lua_make(f, ud);

    if (L != NULL) {
        lua_close(L);
    }
}
