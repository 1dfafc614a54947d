/*
 * compat.h - what the Lua tests use of Lua 5.4 that other versions lack or say
 * otherwise, and which tests a version can't pass.
 *
 * Who uses it: lua_test.h. A test that is about something a version does not have begins
 * with lt_needs(...), which skips it and says what is missing.
 */
#ifndef HAKMEM_LUA_COMPAT_H
#define HAKMEM_LUA_COMPAT_H

#include <criterion/criterion.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdlib.h>

/* ---- what a version has --------------------------------------------------- */

#define LT_LUA LUA_VERSION_NUM

#if LT_LUA == 501
extern int luaJIT_setmode(lua_State *L, int idx, int mode)
    __attribute__((weak));
static inline bool lt_is_jit(void)
{
    return luaJIT_setmode != NULL;
}
#else
static inline bool lt_is_jit(void)
{
    return false;
}
#endif

enum {
    LT_LAYOUT,
    LT_TYPES,
    LT_COLLECTS,
    LT_FRAMES,
    LT_54,
    LT_53,
    LT_52,
    LT_NOT_55
};

/* Skips the test if this Lua lacks it. */
#define lt_needs(what)                                                         \
    do {                                                                       \
        const char *why = lt_lacks(what);                                      \
        if (why != NULL) {                                                     \
            cr_skip_test("%s", why);                                           \
        }                                                                      \
    } while (0)

static inline const char *lt_lacks(int what)
{
    switch (what) {
    case LT_LAYOUT:
        return LT_LUA != 504 ? "its structures are known of Lua 5.4 alone"
                             : NULL;
    case LT_TYPES:
        return LT_LUA < 502
                   ? "Lua 5.1 and LuaJIT don't say of what type a block is"
                   : NULL;
    case LT_COLLECTS:
        return LT_LUA < 502
                   ? "Lua 5.1 and LuaJIT don't collect when memory is refused"
                   : NULL;
    case LT_FRAMES:
        return lt_is_jit() ? "LuaJIT's calls can't be followed from within"
                           : NULL;
    case LT_54: return LT_LUA != 504 ? "what Lua 5.4 alone has so" : NULL;
    case LT_53:
        return LT_LUA < 503 ? "Lua 5.2 does not collect while the collector is "
                              "stopped, and lua_close crashes at a limit"
                            : NULL;
    case LT_NOT_55:
        return LT_LUA == 505 ? "Lua 5.5 counts no external strings, and warns"
                             : NULL;
    default: return LT_LUA < 502 ? "a feature of Lua 5.2" : NULL;
    }
}

/* ---- functions ------------------------------------------------------------ */

#ifndef LUA_OK
#define LUA_OK 0
#endif

#ifndef LUA_NUMTYPES
#define LUA_NUMTYPES 9
#endif

#if LT_LUA == 505
static inline lua_State *lt_newstate(lua_Alloc f, void *ud)
{
    return lua_newstate(f, ud, luaL_makeseed(NULL));
}
#define lua_newstate lt_newstate
#endif

#if LT_LUA < 504
static inline int lt_gc(lua_State *L, int what, int data, ...)
{
    return lua_gc(L, what, data);
}
#define lua_gc(L, ...) lt_gc(L, __VA_ARGS__, 0, 0)

static inline int lt_resume(lua_State *L, lua_State *from, int nargs,
                            int *nresults)
{
#if LT_LUA >= 502
    int status = lua_resume(L, from, nargs);
#else
    int status = lua_resume(L, nargs);
    (void)from;
#endif
    *nresults = lua_gettop(L);
    return status;
}
#define lua_resume lt_resume

/* Modes of the collector: there is one, or what 5.2 called so. */
#undef LUA_GCINC
#undef LUA_GCGEN
#define LUA_GCINC LUA_GCRESTART
#define LUA_GCGEN LUA_GCRESTART

static inline void *lt_userdata(lua_State *L, size_t size, int values)
{
    (void)values;
    return lua_newuserdata(L, size);
}
#define lua_newuserdatauv lt_userdata

typedef void (*lua_WarnFunction)(void *ud, const char *text, int more);
#define lua_setwarnf(L, f, ud) ((void)(L), (void)(f), (void)(ud))
#define lua_warning(L, text, more) ((void)(L), (void)(text), (void)(more))
#endif

#if LT_LUA < 502
#define lua_rawlen lua_objlen

#undef luaL_tolstring
static inline const char *lt_tolstring(lua_State *L, int index, size_t *size)
{
    lua_getglobal(L, "tostring");
    lua_pushvalue(L, index < 0 ? index - 1 : index);
    lua_call(L, 1, 1);
    return lua_tolstring(L, -1, size);
}
#define luaL_tolstring lt_tolstring

static inline void lt_rawgetp(lua_State *L, int table, const void *key)
{
    lua_pushlightuserdata(L, (void *)(size_t)key);
    lua_rawget(L, table);
}
#define lua_rawgetp lt_rawgetp

static inline void lt_rawsetp(lua_State *L, int table, const void *key)
{
    lua_pushlightuserdata(L, (void *)(size_t)key);
    lua_insert(L, -2);
    lua_rawset(L, table);
}
#define lua_rawsetp lt_rawsetp

static inline void lt_traceback(lua_State *L, lua_State *of, const char *text,
                                int level)
{
    (void)of;
    (void)level;
    lua_pushfstring(L, "%s\nstack traceback:", text);
}
#undef luaL_traceback
#define luaL_traceback lt_traceback

static inline void lt_requiref(lua_State *L, const char *name,
                               lua_CFunction open, int global)
{
    (void)global;
    lua_pushcfunction(L, open);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
    lua_pushvalue(L, -1);
    lua_setglobal(L, name);
}
#undef luaL_requiref
#define luaL_requiref lt_requiref

#undef luaL_setfuncs
static inline void lt_setfuncs(lua_State *L, const luaL_Reg *f, int n)
{
    (void)n;
    for (; f->name != NULL; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
}
#define luaL_setfuncs lt_setfuncs
#undef luaL_newlib
#define luaL_newlib(L, f) (lua_newtable(L), luaL_setfuncs(L, f, 0))
#endif

#endif /* HAKMEM_LUA_COMPAT_H */
