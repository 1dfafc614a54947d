/*
 * lua.c - as much of Lua's own program as the tests use, for a Lua that has none here:
 * lua [-lNAME | -e CODE]... [SCRIPT [ARGUMENT...]].
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

static int fail(lua_State *L, const char *name)
{
    fprintf(stderr, "%s: %s\n", name, lua_tostring(L, -1));
    lua_close(L);
    return 1;
}

/* -lNAME */
static int require(lua_State *L, const char *name)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, name);
    if (lua_pcall(L, 1, 1, 0) != 0) {
        return 1;
    }
    lua_setglobal(L, name);
    return 0;
}

int main(int argc, char **argv)
{
    lua_State *L = luaL_newstate();
    int i = 1;

    luaL_openlibs(L);
    for (; i < argc && argv[i][0] == '-'; i++) {
        const char *word = argv[i][2] != '\0' ? argv[i] + 2 : argv[++i];

        if (argv[i - (word == argv[i])][1] == 'l' ? require(L, word)
                                                  : luaL_dostring(L, word)) {
            return fail(L, argv[0]);
        }
    }
    lua_newtable(L);
    for (int n = i; n < argc; n++) {
        lua_pushstring(L, argv[n]);
        lua_rawseti(L, -2, n - i);
    }
    lua_setglobal(L, "arg");
    if (i < argc &&
        (luaL_loadfile(L, argv[i]) != 0 || lua_pcall(L, 0, 0, 0) != 0)) {
        return fail(L, argv[0]);
    }
    lua_close(L);
    return 0;
}
