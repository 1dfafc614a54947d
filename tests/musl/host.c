/*
 * host.c - a Lua state on a heap of HAKMEM's, in a program linked with musl.
 */
#include <hakmem_lua.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>

static const char script[] =
    "local kept = {}\n"
    "for i = 1, 20000 do kept[i] = ('x'):rep(i % 3000) .. i end\n"
    "local ok, why = pcall(function() return ('x'):rep(1 << 30) end)\n"
    "assert(not ok and why:find('not enough memory'), why)\n"
    "for i = 1, 20000 do assert(#kept[i] == i % 3000 + #tostring(i)) end\n"
    "print('works')\n";

int main(void)
{
    hak_lua_config config = {.size = sizeof(config), .limit = 256 << 20};
    lua_State *L = hak_lua_newstate(&config);
    int bad;

    if (L == NULL) {
        return 1;
    }
    luaL_openlibs(L);
    bad = luaL_dostring(L, script);
    if (bad) {
        fprintf(stderr, "host: %s\n", lua_tostring(L, -1));
    }
    hak_lua_close(L);
    return bad;
}
