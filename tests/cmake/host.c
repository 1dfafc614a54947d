/* host.c - a Lua state on a heap of HAKMEM's. */
#include <hakmem_lua.h>
#include <lauxlib.h>
#include <lualib.h>

int main(void)
{
    lua_State *L = hak_lua_newstate(NULL);
    int bad;

    if (L == NULL) {
        return 1;
    }
    luaL_openlibs(L);
    bad = luaL_dostring(L, "print(#string.rep('x', 5000))");
    hak_lua_close(L);
    return bad;
}
