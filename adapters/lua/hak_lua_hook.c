/*
 * hak_lua_hook.c - the module's soft limit, whose callback is a Lua function,
 * its reserve, and the module of a state that got no heap.
 *
 * No Lua code may run inside lua_Alloc, so hakmem.on_limit's function runs a
 * little later. Requests beyond the soft limit are admitted, up to the hard
 * one, and two things are arranged that are allowed there:
 *   - a count hook for the next instruction of the main thread. lua_sethook may
 *     be called at any time, even from a signal handler;
 *   - for the case that a coroutine is running (lua_Alloc can't know which),
 *     the collector is made due and fast (lua_gc's LUA_GCRESTART and
 *     LUA_GCSETSTEPMUL only set numbers), so that it finishes a cycle within a
 *     few KB. There it calls the finalizer of our sentinel, an unreferenced
 *     object, on the running thread, and the finalizer sets the hook on that
 *     thread (an error raised in a finalizer itself would not propagate). It
 *     leaves a new sentinel for the next cycle.
 * The hook calls the function, which may do what any function may; its errors
 * are raised in the code that was running. A collector that was stopped stays
 * stopped; then only the main thread is interrupted.
 *
 * Tested by tests/lua/on_limit.c and tests/lua/module.c.
 */
#include <errno.h>
#include <string.h>

#include "hak_lua_heap.h"

/*
 * The collector's step multiplier while a call is due: nearly a whole cycle per
 * step.
 */
#define QUICK 1000

/* A thread's former hook, to be restored. */
struct saved {
    lua_State *L; /* NULL: none */
    lua_Hook hook;
    int mask, count;
};

/* A full userdata. */
struct watch {
    hak_lua_heap *heap;
    lua_State *main;       /* NULL: not told */
    size_t soft;           /* 0: none is set */
    struct saved saved[2]; /* the main thread's, a coroutine's */
    int stepmul;           /* the collector's former one; -1: not changed */
    bool due;
    bool running;  /* the function is running */
    bool refused;  /* it refused; stays set until live bytes are below `soft` */
    bool sentinel; /* a sentinel exists */
};

/* Their addresses are keys in the registry: the watch's, the function's. */
static const char key, function_key;

static struct watch *watch_of(lua_State *L)
{
    struct watch *watch;

    lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
    watch = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return watch;
}

/* ---- the hook -------------------------------------------------------------- */

static void call_due(lua_State *L, lua_Debug *event);

static void set_hook(lua_State *L, struct saved *saved)
{
    if (lua_gethook(L) != call_due) {
        saved->L = L;
        saved->hook = lua_gethook(L);
        saved->mask = lua_gethookmask(L);
        saved->count = lua_gethookcount(L);
        lua_sethook(L, call_due, LUA_MASKCOUNT, 1);
    }
}

static void put_back(struct saved *saved)
{
    if (saved->L != NULL && lua_gethook(saved->L) == call_due) {
        lua_sethook(saved->L, saved->hook, saved->mask, saved->count);
    }
    saved->L = NULL;
}

/* L's hook was called; a coroutine that has ended since is not touched. */
static void put_all_back(lua_State *L, struct watch *watch)
{
    if (watch->saved[1].L != L) {
        watch->saved[1].L = NULL;
    }
    put_back(&watch->saved[0]);
    put_back(&watch->saved[1]);
    if (lua_gethook(L) == call_due) { /* inherited by a new coroutine */
        lua_sethook(L, NULL, 0, 0);
    }
    if (watch->stepmul >= 0) {
        hak_lua_collector_speed(L, watch->stepmul);
        watch->stepmul = -1;
    }
}

/* ---- inside lua_Alloc ---------------------------------------------------- */

/* The collector is due now, and does nearly a whole cycle at once. */
static void hurry(struct watch *watch)
{
    int before;

    if (hak_lua_collector_runs(watch->main)) {
        before = hak_lua_collector_speed(watch->main, QUICK);
        watch->stepmul = watch->stepmul >= 0 ? watch->stepmul : before;
        lua_gc(watch->main, LUA_GCRESTART, 0);
    }
}

static size_t soft_limit_met(void *arg, hak_lua_heap *heap,
                             const hak_lua_need *need)
{
    struct watch *watch = arg;

    (void)heap;
    (void)need;
    watch->due = true;
    if (watch->main != NULL) {
        set_hook(watch->main, &watch->saved[0]);
        hurry(watch);
    }
    return HAK_LUA_NO_LIMIT; /* until the function has been called */
}

/* ---- the function ----------------------------------------------------------- */

static size_t live_of(const struct watch *watch)
{
    return hak_lua_live(watch->heap);
}

/*
 * Makes the next call come at `soft`, or, after a refusal, when the reserve or
 * a sixteenth more is used up, so that the error's handler can work. Returns 0,
 * or -1 with errno, which happens only the first time.
 */
static int arm(struct watch *watch)
{
    size_t at = watch->soft;

    watch->refused = watch->refused && live_of(watch) > at;
    if (watch->refused) {
        at = live_of(watch) +
             haki_max(hak_lua_bounds_reserve(watch->heap), at / 16);
    }
    return hak_lua_heap_on_limit(watch->heap, at,
                                 at != 0 ? soft_limit_met : NULL, watch);
}

/*
 * Does what the function's result says (see README): a new soft limit, or
 * collect garbage first; anything else is an error.
 */
static void obey(lua_State *L, struct watch *watch, bool collected)
{
    if (lua_type(L, -1) == LUA_TNUMBER) {
        int whole;
        lua_Integer limit = hak_lua_whole(L, -1, &whole);

        if (!whole || limit < 0) {
            luaL_error(L,
                       "hakmem.on_limit: the function returned %s, which is "
                       "no number of bytes",
                       lua_tostring(L, -1));
        }
        if (limit == 0 || (size_t)limit > watch->soft) {
            watch->soft = (size_t)limit;
            return;
        }
    } else if (lua_type(L, -1) == LUA_TSTRING &&
               strcmp(lua_tostring(L, -1), "collect") == 0) {
        if (!collected) {
            return;
        }
    } else if (lua_toboolean(L, -1)) {
        luaL_error(L,
                   "hakmem.on_limit: the function returned a %s; it may "
                   "return a larger limit in bytes (0: none), \"collect\", "
                   "or nil to refuse",
                   luaL_typename(L, -1));
    }
    lua_pushliteral(L, "not enough memory");
    lua_error(L);
}

/*
 * Calls the function with live bytes, soft limit, and whether Lua has
 * collected.
 */
static int ask(lua_State *L)
{
    struct watch *watch = lua_touserdata(L, 1);
    bool collected = false;

    while (watch->soft != 0 && live_of(watch) > watch->soft) {
        size_t soft = watch->soft;

        lua_settop(L, 1);
        lua_rawgetp(L, LUA_REGISTRYINDEX, &function_key);
        lua_pushinteger(L, (lua_Integer)live_of(watch));
        lua_pushinteger(L, (lua_Integer)soft);
        lua_pushboolean(L, collected);
        lua_call(L, 3, 1);
        if (watch->soft == soft) { /* otherwise it has called on_limit */
            obey(L, watch, collected);
        }
        if (watch->soft == soft) {
            lua_gc(L, LUA_GCCOLLECT, 0);
            collected = true;
        }
    }
    return 0;
}

static int at_cycle(lua_State *L);

/* Makes a new object that is garbage at once. */
static int make_sentinel(lua_State *L)
{
    struct watch *watch = watch_of(L);

    hak_lua_userdata(L, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, at_cycle);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    watch->sentinel = true;
    return 0;
}

/* The sentinel's finalizer, on the running thread, at the end of a cycle. */
static int at_cycle(lua_State *L)
{
    struct watch *watch = watch_of(L);

    watch->sentinel = false;
    if (watch->soft == 0) {
        return 0;
    }
    if (watch->refused && !watch->running) {
        arm(watch);
    }
    if (watch->due && L != watch->main) {
        watch->saved[1].L = NULL;
        set_hook(L, &watch->saved[1]);
    } else if (watch->due) { /* somebody may have set another hook */
        set_hook(L, &watch->saved[0]);
    }
    lua_pushcfunction(L, make_sentinel); /* no memory: the next hook does it */
    lua_pcall(L, 0, 0, 0);
    return 0;
}

static void call_due(lua_State *L, lua_Debug *event)
{
    struct watch *watch = watch_of(L);
    int status;

    (void)event;
    put_all_back(L, watch);
    if (!watch->due || watch->running) {
        return;
    }
    watch->due = false;
    watch->running = true;
    lua_pushcfunction(L, ask);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
    status = lua_pcall(L, 1, 0, 0);
    watch->running = false;
    watch->refused = status != LUA_OK;
    arm(watch);
    if (status != LUA_OK) {
        lua_error(L);
    }
    if (!watch->sentinel) {
        lua_pushcfunction(L, make_sentinel);
        lua_call(L, 0, 0);
    }
}

/* ---- the module's functions -------------------------------------------------- */

static size_t check_bytes(lua_State *L, int arg, const char *what)
{
    lua_Integer bytes = luaL_checkinteger(L, arg);

    luaL_argcheck(L, bytes >= 0, arg, what);
    return (size_t)bytes;
}

/* hakmem.on_limit([bytes, function]) -> the previous soft limit; 0: none */
static int l_on_limit(lua_State *L)
{
    struct watch *watch = lua_touserdata(L, lua_upvalueindex(1));
    size_t before = watch->soft, soft;

    if (lua_isnoneornil(L, 1)) {
        lua_pushinteger(L, (lua_Integer)before);
        return 1;
    }
    soft = check_bytes(L, 1, "a soft limit is 0 (none) or bytes");
    if (soft != 0) {
        luaL_checktype(L, 2, LUA_TFUNCTION);
    }
    if (soft != 0 && !watch->sentinel) {
        lua_pushcfunction(L, make_sentinel);
        lua_call(L, 0, 0);
    }
    watch->soft = soft;
    watch->refused = false;
    if (!watch->running &&
        arm(watch) != 0) { /* otherwise that happens at the end */
        watch->soft = 0;
        return luaL_error(L, "hakmem.on_limit: %s", strerror(errno));
    }
    lua_settop(L, 2); /* the function, or whatever stands for none */
    lua_rawsetp(L, LUA_REGISTRYINDEX, &function_key);
    lua_pushinteger(L, (lua_Integer)before);
    return 1;
}

/* hakmem.reserve([bytes]) -> the previous reserve */
static int l_reserve(lua_State *L)
{
    struct watch *watch = lua_touserdata(L, lua_upvalueindex(1));
    size_t before = hak_lua_bounds_reserve(watch->heap);

    if (!lua_isnoneornil(L, 1)) {
        size_t bytes = check_bytes(L, 1, "a reserve is 0 (none) or bytes");

        if (hak_lua_heap_reserve(watch->heap, bytes) != 0) {
            return luaL_error(L, "hakmem.reserve: %s", strerror(errno));
        }
    }
    lua_pushinteger(L, (lua_Integer)before);
    return 1;
}

static void push_watch(lua_State *L, hak_lua_heap *heap)
{
    struct watch *watch;

    lua_rawgetp(L, LUA_REGISTRYINDEX, &key);
    if (lua_touserdata(L, -1) != NULL) {
        return;
    }
    lua_pop(L, 1);
    watch = hak_lua_userdata(L, sizeof(*watch));
    memset(watch, 0, sizeof(*watch));
    watch->heap = heap;
    watch->stepmul = -1;
    watch->main = hak_lua_main_thread(L);
}

void hak_lua_hook_open(lua_State *L, hak_lua_heap *heap)
{
    static const luaL_Reg functions[] = {
        {"on_limit", l_on_limit}, {"reserve", l_reserve}, {NULL, NULL}};

    push_watch(L, heap);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
    luaL_setfuncs(L, functions, 1);
}

/* ---- a state without a heap --------------------------------------------------- */

static int l_zero(lua_State *L)
{
    lua_pushinteger(L, 0);
    return 1;
}

static int l_refuse(lua_State *L)
{
    lua_Integer bytes = luaL_optinteger(L, 1, 0);

    if (bytes != 0) {
        return luaL_error(L, "hakmem: this state has no heap, so nothing can "
                             "be limited");
    }
    return l_zero(L);
}

/* Makes `index` answer for keys that the table on top lacks. */
static void set_index(lua_State *L, lua_CFunction index)
{
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, index);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
}

static int l_zeros(lua_State *L)
{
    lua_createtable(L, 0, 0);
    set_index(L, l_zero);
    return 1;
}

/* stats() -> a table in which every number is 0, types.string.count too */
static int l_no_stats(lua_State *L)
{
    l_zeros(L);
    lua_createtable(L, 0, 0);
    set_index(L, l_zeros);
    lua_setfield(L, -2, "types");
    return 1;
}

void hak_lua_hook_without_heap(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"stats", l_no_stats},      {"types", hak_lua_l_types},
        {"heaps", hak_lua_l_heaps}, {"limit", l_refuse},
        {"trim", l_zero},           {"on_limit", l_refuse},
        {"reserve", l_refuse},      {NULL, NULL}};

    luaL_newlib(L, functions);
    hak_lua_profile_open(L);
    lua_pushstring(L, hak_version());
    lua_setfield(L, -2, "version");
}
