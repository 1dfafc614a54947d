/*
 * hak_lua_compat.h - where Lua 5.1, 5.2, 5.3, 5.5 and LuaJIT differ from 5.4, in one
 * place. The rest of the adapter is written for 5.4 and asks here.
 *
 *               5.1 and LuaJIT    5.2        5.3        5.4        5.5
 *   osize of    0                 a type     a type     a type     a type
 *   an object                     9 proto    9 proto    9 upvalue  9 upvalue
 *                                 10 upvalue            10 proto   10 proto
 *   a refusal   is an error       collects garbage and asks once more
 *   lua_newstate  (f, ud)         (f, ud)    (f, ud)    (f, ud)    (f, ud, seed)
 *   main thread  not to be asked  in the registry
 *   warnings     none             none       none       lua_setwarnf
 *
 * LuaJIT is what 5.1 is, by the same binary interface: one module serves both, and
 * what differs is asked at run time (hak_lua_is_jit). It runs compiled code whose frames
 * nobody sees from outside, so samples there have one frame alone. It crashes where a new
 * state is refused memory, so a limit begins after that. Its own allocator is
 * an arena for each state that ends with the state, if the state still uses it then:
 * hak_lua_end_arena ends it for one that was switched.
 *
 * What reads Lua's own structures is in files of its own, which build.mk chooses:
 * hak_lua_types.c and hak_lua_inside.c for 5.4, those of other/ elsewhere.
 */
#ifndef HAK_LUA_COMPAT_H
#define HAK_LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#if LUA_VERSION_NUM < 501 || LUA_VERSION_NUM > 505
#error "this adapter is for Lua 5.1 to 5.5 and LuaJIT"
#endif

/* ---- facts ---------------------------------------------------------------- */

enum {
    /* Lua answers a refusal with a full collection and the same request. */
    HAK_LUA_COLLECTS = LUA_VERSION_NUM >= 502,
    /* The tags of types that have changed; -1: not told. */
    HAK_LUA_TAG_FIRST = LUA_VERSION_NUM >= 502 ? LUA_TSTRING : 99,
    HAK_LUA_TAG_UPVALUE = LUA_VERSION_NUM >= 504   ? 9
                          : LUA_VERSION_NUM == 502 ? 10
                                                   : -1,
    HAK_LUA_TAG_PROTOTYPE = LUA_VERSION_NUM >= 504   ? 10
                            : LUA_VERSION_NUM >= 502 ? 9
                                                     : -1
};

/* ---- LuaJIT ------------------------------------------------------------------ */

#if LUA_VERSION_NUM == 501
extern int luaJIT_setmode(lua_State *L, int idx, int mode)
    __attribute__((weak));

/* Whether the Lua of this process is LuaJIT. */
static inline bool hak_lua_is_jit(void)
{
    return luaJIT_setmode != NULL;
}
#else
static inline bool hak_lua_is_jit(void)
{
    return false;
}
#endif

/* ---- states ------------------------------------------------------------------- */

#if LUA_VERSION_NUM >= 505
static inline lua_State *hak_lua_make(lua_Alloc f, void *ud)
{
    return lua_newstate(f, ud, luaL_makeseed(NULL));
}
#else
static inline lua_State *hak_lua_make(lua_Alloc f, void *ud)
{
    return lua_newstate(f, ud);
}
#endif

/* The main thread; NULL: L is another one, and this Lua does not tell. */
static inline lua_State *hak_lua_main_thread(lua_State *L)
{
    lua_State *found;

#ifdef LUA_RIDX_MAINTHREAD
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    found = lua_tothread(L, -1);
#else
    found = lua_pushthread(L) ? L : NULL;
#endif
    lua_pop(L, 1);
    return found;
}

/* Whether lua_getstack has found a call: a thread that is being made has none. */
static inline bool hak_lua_has_call(const lua_Debug *call)
{
#if LUA_VERSION_NUM >= 502
    return call->i_ci != NULL;
#else
    return call->i_ci >= 0;
#endif
}

/* lua_resume of 5.4. */
static inline int hak_lua_resume_any(lua_State *L, lua_State *from, int nargs,
                                     int *nresults)
{
#if LUA_VERSION_NUM >= 504
    return lua_resume(L, from, nargs, nresults);
#else
    int status;

    (void)from;
#if LUA_VERSION_NUM >= 502
    status = lua_resume(L, from, nargs);
#else
    status = lua_resume(L, nargs);
#endif
    *nresults = status == 0 || status == LUA_YIELD ? lua_gettop(L) : 0;
    return status;
#endif
}

/* ---- the collector --------------------------------------------------------------- */

/* 5.1 does not tell; a collection that was not asked for does no harm. */
static inline bool hak_lua_collector_runs(lua_State *L)
{
#if LUA_VERSION_NUM >= 502
    return lua_gc(L, LUA_GCISRUNNING, 0) == 1;
#else
    (void)L;
    return true;
#endif
}

/* Sets how fast it is, in a hundredth; returns what it was. */
static inline int hak_lua_collector_speed(lua_State *L, int speed)
{
#if LUA_VERSION_NUM >= 505
    return lua_gc(L, LUA_GCPARAM, LUA_GCPSTEPMUL, speed);
#else
    return lua_gc(L, LUA_GCSETSTEPMUL, speed);
#endif
}

/* ---- functions that came later ------------------------------------------------------ */

#ifndef LUA_OK
#define LUA_OK 0
#endif

#if LUA_VERSION_NUM == 501
#define lua_rawlen lua_objlen

#define lua_rawgetp hak_lua_rawgetp
static inline void hak_lua_rawgetp(lua_State *L, int table, const void *key)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)key);
    lua_rawget(L, table); /* a pseudo-index, or what is not relative */
}

#define lua_rawsetp hak_lua_rawsetp
static inline void hak_lua_rawsetp(lua_State *L, int table, const void *key)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)key);
    lua_insert(L, -2);
    lua_rawset(L, table);
}

#undef luaL_setfuncs
#define luaL_setfuncs hak_lua_setfuncs
static inline void hak_lua_setfuncs(lua_State *L, const luaL_Reg *f, int n)
{
    for (; f->name != NULL; f++) {
        for (int i = 0; i < n; i++) {
            lua_pushvalue(L, -n);
        }
        lua_pushcclosure(L, f->func, n);
        lua_setfield(L, -(n + 2), f->name);
    }
    lua_pop(L, n);
}

#undef luaL_newlibtable
#undef luaL_newlib
#define luaL_newlibtable(L, f)                                                 \
    lua_createtable(L, 0, (int)(sizeof(f) / sizeof((f)[0])) - 1)
#define luaL_newlib(L, f) (luaL_newlibtable(L, f), luaL_setfuncs(L, f, 0))

#undef luaL_setmetatable
#define luaL_setmetatable(L, name)                                             \
    (luaL_getmetatable(L, name), lua_setmetatable(L, -2))
#endif

/* Registered by their addresses, in the registry. */
static inline void hak_lua_registry_get(lua_State *L, const void *key)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
}

static inline void hak_lua_registry_set(lua_State *L, const void *key)
{
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

static inline void *hak_lua_userdata(lua_State *L, size_t size)
{
#if LUA_VERSION_NUM >= 504
    return lua_newuserdatauv(L, size, 0);
#else
    return lua_newuserdata(L, size);
#endif
}

/* A number without a fraction. */
static inline lua_Integer hak_lua_whole(lua_State *L, int index, int *whole)
{
#if LUA_VERSION_NUM >= 503
    return lua_tointegerx(L, index, whole);
#else
    lua_Number number = lua_tonumber(L, index);

    *whole = lua_isnumber(L, index) && floor(number) == number &&
             fabs(number) <= 9007199254740992.0;
    return *whole ? (lua_Integer)number : 0;
#endif
}

/* nil, or what stands for it. */
static inline void hak_lua_pushfail(lua_State *L)
{
    lua_pushnil(L);
}

/*
 * A protected call that finishes by `finish`(L, status, 0), also when what is called
 * yields, from 5.3 on; below it can't yield.
 */
#if LUA_VERSION_NUM >= 503
typedef lua_KContext hak_lua_context;
#define HAK_LUA_PCALLK(L, n, finish) lua_pcallk(L, n, LUA_MULTRET, 0, 0, finish)
#else
typedef ptrdiff_t hak_lua_context;
#define HAK_LUA_PCALLK(L, n, finish) lua_pcall(L, n, LUA_MULTRET, 0)
#endif

/* As luaL_newstate has it: warn() writes lines to standard error, "@on" and "@off". */
#if LUA_VERSION_NUM >= 504
/* 2: warnings are on at first. */
#define HAK_LUA_WARNS (1 + (LUA_VERSION_NUM >= 505))
#else
#define HAK_LUA_WARNS 0
#endif

#endif /* HAK_LUA_COMPAT_H */
