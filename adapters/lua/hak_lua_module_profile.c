/*
 * hak_lua_module_profile.c - hakmem.profile: who holds the memory, by lines of Lua.
 *
 *     local p = hakmem.profile{rate = 512 << 10}    samples from here on
 *     p:write("out.html")                           what is live now
 *     p:stop()                                      also `local p <close>`
 *     hakmem.profile(f, "out.html", nil, ...)       all of it around a call of f(...)
 *
 * The profile is that of the module's core, and so of all states that the module
 * serves (hak_profile_start). What stops one puts the rate back that was there when it
 * began: HAKMEM_PROFILE's goes on.
 *
 * HAKMEM_PROFILE's file is written at the end of the process, and lua_close has then
 * freed everything. So a finalizer writes it before, when the last state with a heap is
 * closed: lua_close runs all finalizers first.
 *
 * Tested by tests/lua/profile_module.c.
 */
#include <errno.h>
#include <string.h>

#include "hak_lua_heap.h"

#define TYPE "hakmem.profile"

struct profile {
    size_t before; /* the rate to be put back; 0: off */
    bool on;
};

/* ---- one profile ------------------------------------------------------------ */

static struct profile *check_profile(lua_State *L)
{
    return luaL_checkudata(L, 1, TYPE);
}

static void stop(struct profile *profile)
{
    if (profile->on && profile->before != 0) {
        hak_profile_start(profile->before);
    } else if (profile->on) {
        hak_profile_stop();
    }
    profile->on = false;
}

/* p:stop(), and __close */
static int l_stop(lua_State *L)
{
    stop(check_profile(L));
    return 0;
}

/* p:mark(): "grown" tells what has come since */
static int l_mark(lua_State *L)
{
    check_profile(L);
    hak_profile_mark();
    return 0;
}

/* The words from argument `arg` on. */
static unsigned check_flags(lua_State *L, int arg)
{
    static const char *const words[] = {"live", "allocated", "blocks", "grown",
                                        NULL};
    static const unsigned flags[] = {0, HAK_PROFILE_ALLOCATED,
                                     HAK_PROFILE_BLOCKS, HAK_PROFILE_GROWN};
    unsigned all = 0;

    for (; arg <= lua_gettop(L); arg++) {
        all |= flags[luaL_checkoption(L, arg, NULL, words)];
    }
    return all;
}

/* Writes to the path, or raises an error that says how it must end. */
static bool write_to(lua_State *L, int arg, unsigned flags)
{
    const char *path = luaL_checkstring(L, arg);

    if (hak_profile_write(path, HAK_PROFILE_BY_NAME, flags) == 0) {
        return true;
    }
    if (errno == EINVAL) {
        luaL_argerror(L, arg,
                      "a profile's path must end in .html, .pb.gz (for go tool "
                      "pprof), .txt (collapsed stacks) or .json (speedscope)");
    }
    return false;
}

/* As luaL_fileresult. */
static int push_failure(lua_State *L, int error, const char *path)
{
    hak_lua_pushfail(L);
    lua_pushfstring(L, "%s: %s", path, strerror(error));
    lua_pushinteger(L, error);
    return 3;
}

/* p:write(path, ["allocated"], ["blocks"], ["grown"]) -> true; nil, message, errno */
static int l_write(lua_State *L)
{
    unsigned flags = check_flags(L, 3);

    check_profile(L);
    if (write_to(L, 2, flags)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    return push_failure(L, errno, lua_tostring(L, 2));
}

/* ---- hakmem.profile ---------------------------------------------------------- */

/* The rate in the table at `arg`, or 0: the default's. */
static size_t check_rate(lua_State *L, int arg)
{
    lua_Integer rate;
    int whole;

    if (lua_isnoneornil(L, arg)) {
        return 0;
    }
    luaL_checktype(L, arg, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, arg) != 0) { /* a word with a slip says nothing else */
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING ||
            strcmp(lua_tostring(L, -1), "rate") != 0) {
            luaL_argerror(L, arg, "the only option of a profile is rate");
        }
    }
    lua_getfield(L, arg, "rate");
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return 0;
    }
    rate = hak_lua_whole(L, -1, &whole);
    lua_pop(L, 1);
    luaL_argcheck(L, whole && rate > 0, arg,
                  "rate is a number of bytes: one sample in so many");
    return (size_t)rate;
}

/* Pushes a profile that has begun. */
static struct profile *push_profile(lua_State *L, size_t rate)
{
    struct profile *profile = hak_lua_userdata(L, sizeof(*profile));

    profile->on = false;
    luaL_setmetatable(L, TYPE);
    profile->before = hak_profile_rate();
    if (hak_profile_start(rate) != 0) {
        luaL_error(L, "hakmem.profile: %s", strerror(errno));
    }
    profile->on = true;
    return profile;
}

/* What follows the call of f: 1 its profile, 2 f's path, and what f returned. */
static int finish_call(lua_State *L, int status, hak_lua_context context)
{
    (void)context;
    stop(lua_touserdata(L, 1));
    if (status != LUA_OK && status != LUA_YIELD) {
        return lua_error(L);
    }
    if (!write_to(L, 2, 0)) {
        return luaL_error(L, "%s: %s", lua_tostring(L, 2), strerror(errno));
    }
    return lua_gettop(L) - 2;
}

/* hakmem.profile(f, path, [options, ...]) -> what f(...) returns */
static int profile_call(lua_State *L)
{
    size_t rate = check_rate(L, 3);
    int given = lua_gettop(L) > 3 ? lua_gettop(L) - 3 : 0;

    luaL_checkstring(L, 2);
    if (given == 0) {
        lua_settop(L, 3);
    }
    push_profile(L, rate);
    lua_replace(L, 3);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    lua_replace(L, 1);
    lua_replace(L, 3); /* profile, path, f, its arguments */
    return finish_call(L, HAK_LUA_PCALLK(L, given, finish_call), 0);
}

/* hakmem.profile([options]) -> a profile */
static int l_profile(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TFUNCTION) {
        return profile_call(L);
    }
    push_profile(L, check_rate(L, 1));
    return 1;
}

/* ---- the end ------------------------------------------------------------------- */

static int count_heap(void *ud, const hak_lua_heap *heap, const char *name,
                      const hak_lua_stats *stats)
{
    (void)heap;
    (void)name;
    (void)stats;
    return ++*(int *)ud > 1;
}

void hak_lua_profile_end(void)
{
    int heaps = 0;

    if (hak_profile_rate() != 0 && hak_lua_each(count_heap, &heaps) == 0) {
        haki_profiling_write_now();
    }
}

static int l_end(lua_State *L)
{
    (void)L;
    hak_lua_profile_end();
    return 0;
}

/* Leaves an object in the registry whose finalizer is called when L is closed. */
static void push_end(lua_State *L)
{
    static const char end_key;

    hak_lua_userdata(L, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, l_end);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &end_key);
}

void hak_lua_profile_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"write", l_write}, {"mark", l_mark}, {"stop", l_stop}, {NULL, NULL}};

    if (luaL_newmetatable(L, TYPE)) {
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, l_stop);
        lua_setfield(L, -2, "__close");
        push_end(L);
    }
    lua_pop(L, 1);
    lua_pushcfunction(L, l_profile);
    lua_setfield(L, -2, "profile");
}
