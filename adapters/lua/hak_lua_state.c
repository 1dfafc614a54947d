/*
 * hak_lua_state.c - making, switching, closing heaps and states.
 *
 * Tested by tests/lua/state.c and tests/lua/switch.c.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hak_lua_heap.h"

HAK_STATS_AT_END(state);

/* ---- HAKMEM_LUA_LANES --------------------------------------------------- */

enum {
#define HAK_OPTION(type, name, ...) OPTION_##name,
#include "hak_lua_options.def"
#undef HAK_OPTION
    OPTIONS
};

static const struct hak_option_row rows[OPTIONS] = {
#define HAK_OPTION HAK_OPTION_ROW
#include "hak_lua_options.def"
#undef HAK_OPTION
};

HAK_OPTIONS_TABLE(options, rows);

size_t hak_lua_most(hak_lua_lanes lanes)
{
    size_t asked = lanes != HAK_LUA_LANES_DEFAULT
                       ? lanes
                       : haki_options_get(&options, OPTION_lanes);

    return asked == HAK_LUA_LANES_TINY ? HAK_LANE_TINY_MAX : HAK_LANE_HUGE_MAX;
}

/* ---- heaps -------------------------------------------------------------- */

/* The first version's config ended where the reserve begins. */
#define CONFIG_FIRST offsetof(hak_lua_config, reserve)

/* Copies *from, or the defaults if that is NULL; false: an unknown version. */
static bool read_config(hak_lua_config *config, const hak_lua_config *from)
{
    memset(config, 0, sizeof(*config));
    if (from == NULL) {
        return true;
    }
    if (from->size != sizeof(*config) && from->size != CONFIG_FIRST) {
        return false;
    }
    memcpy(config, from, from->size);
    return config->lanes <= HAK_LUA_LANES_ALL;
}

static struct hak_lua_heap *new_heap(const hak_lua_config *config)
{
    struct hak_heap *heap = haki_embed_new(HAK_EMBED_STATE, config->name);
    struct hak_lua_heap *lua;

    if (heap == NULL) {
        return NULL;
    }
    lua = haki_embed_extra(heap);
    lua->size = haki_embed_window(&lua->base);
    /*
     * Without a range Tiny's bins stay empty, and the other lanes must not be
     * used.
     */
    lua->most =
        lua->size != 0 ? hak_lua_most(config->lanes) : HAK_LANE_TINY_MAX;
    lua->fallback = hak_lua_system_alloc;
    hak_lua_heap_limit(lua, config->limit);
    hak_lua_list_add(lua);
    return lua;
}

/* Ends a heap without reporting what is left in it. */
static void end(struct hak_lua_heap *lua)
{
    hak_lua_list_drop(lua);
    if (lua->arena && lua->gone) {
        hak_lua_end_arena(lua->fallback, lua->fallback_ud);
    }
    free(lua->bounds);
    haki_inside_heap_delete(hak_lua_core(lua));
}

hak_lua_heap *hak_lua_heap_new(const hak_lua_config *from)
{
    hak_lua_config config;
    struct hak_lua_heap *lua;

    if (!read_config(&config, from)) {
        errno = EINVAL;
        return NULL;
    }
    lua = new_heap(&config);
    if (lua != NULL && config.reserve != 0 &&
        hak_lua_heap_reserve(lua, config.reserve) != 0) {
        end(lua);
        lua = NULL;
    }
    return lua;
}

/*
 * Bytes that nobody will free any more: hak_lua_heap.h explains numbers below
 * 0.
 */
static size_t leaked(const struct hak_lua_heap *lua)
{
    ptrdiff_t live = (ptrdiff_t)hak_lua_live(lua);

    return live > 0 ? (size_t)live : 0;
}

static void say_leak(const struct hak_lua_heap *lua, const char *when)
{
    if (leaked(lua) != 0) {
        haki_warn("Lua heap \"%s\": %zu bytes were still in use when %s",
                  haki_embed_name(hak_lua_core(lua)), leaked(lua), when);
    }
}

static const char when_closed[] =
    "its state was closed; C code has taken them by lua_getallocf";

void hak_lua_heap_freed(struct hak_lua_heap *lua, const void *ptr, size_t osize)
{
    if (!lua->gone) {
        if (lua->main == HAK_LUA_NOT_TOLD
                ? hak_lua_live(lua) != 0
                : (uintptr_t)lua->main - (uintptr_t)ptr >= osize) {
            return;
        }
        lua->gone = true;
        lua->size = 0; /* the slow path frees what is left, and so comes here */
        if (!lua->closing) {
            say_leak(lua, when_closed);
        }
    }
    if (leaked(lua) == 0 && !lua->closing) {
        end(lua);
    }
}

void hak_lua_heap_delete(hak_lua_heap *lua)
{
    if (lua == NULL) {
        return;
    }
    if (lua->closing) {
        say_leak(lua, when_closed);
    } else if (!lua->gone) {
        say_leak(lua, "it was deleted; was its state closed?");
    }
    end(lua);
}

size_t hak_lua_heap_limit(hak_lua_heap *lua, size_t limit)
{
    size_t before = lua->limit == SIZE_MAX ? 0 : lua->limit;

    lua->limit = limit == 0 ? SIZE_MAX : limit;
    hak_lua_bounds_set(lua);
    return before;
}

size_t hak_lua_heap_trim(hak_lua_heap *lua)
{
    return haki_inside_heap_trim(hak_lua_core(lua));
}

/* ---- states ------------------------------------------------------------- */

/* An error outside any protected call: prints it, then Lua aborts. */
static int panic(lua_State *L)
{
    const char *text = lua_tostring(L, -1);

    fprintf(stderr, "PANIC: unprotected error in call to Lua API (%s)\n",
            text != NULL ? text : "error object is not a string");
    fflush(stderr);
    return 0;
}

#if HAK_LUA_WARNS
/*
 * warn() as luaL_newstate sets it up: off at first, switched by "@on" and
 * "@off"; a message in pieces (`more`) is one line. The userdata is the state;
 * which function is installed says whether warnings are on and a line is open.
 */
static void warn_off(void *ud, const char *text, int more);
static void warn_on(void *ud, const char *text, int more);
static void warn_more(void *ud, const char *text, int more);

/* Obeys a control message; false: it is a message to print. */
static bool warn_control(lua_State *L, const char *text, int more)
{
    if (more || text[0] != '@') {
        return false;
    }
    if (strcmp(text, "@on") == 0) {
        lua_setwarnf(L, warn_on, L);
    } else if (strcmp(text, "@off") == 0) {
        lua_setwarnf(L, warn_off, L);
    }
    return true;
}

static void warn_off(void *ud, const char *text, int more)
{
    warn_control(ud, text, more);
}

static void warn_more(void *ud, const char *text, int more)
{
    fprintf(stderr, "%s%s", text, more ? "" : "\n");
    fflush(stderr);
    lua_setwarnf(ud, more ? warn_more : warn_on, ud);
}

static void warn_on(void *ud, const char *text, int more)
{
    if (!warn_control(ud, text, more)) {
        fprintf(stderr, "Lua warning: ");
        warn_more(ud, text, more);
    }
}

static void set_warnings(lua_State *L)
{
    lua_setwarnf(L, HAK_LUA_WARNS > 1 ? warn_on : warn_off, L);
}
#else
static void set_warnings(lua_State *L)
{
    (void)L;
}
#endif

/* A state on the heap. LuaJIT crashes where that is refused in the middle of it. */
static lua_State *make_state(struct hak_lua_heap *lua)
{
    size_t limit = lua->limit;
    lua_State *L;

    if (hak_lua_is_jit()) {
        hak_lua_heap_limit(lua, 0);
    }
    L = hak_lua_make(hak_lua_alloc, lua);
    if (L != NULL && hak_lua_live(lua) > limit) {
        lua_close(L);
        L = NULL;
    }
    if (hak_lua_is_jit()) {
        hak_lua_heap_limit(lua, limit == SIZE_MAX ? 0 : limit);
    }
    return L;
}

lua_State *hak_lua_newstate(const hak_lua_config *config)
{
    struct hak_lua_heap *lua = hak_lua_heap_new(config);
    lua_State *L;

    if (lua == NULL) {
        return NULL;
    }
    L = make_state(lua);
    if (L == NULL) {
        hak_lua_heap_delete(lua);
        return NULL;
    }
    lua->made = L;
    hak_lua_profile_begin(lua);
    lua_atpanic(L, panic);
    set_warnings(L);
    return L;
}

hak_lua_heap *hak_lua_heap_of(lua_State *L)
{
    void *ud;

    return lua_getallocf(L, &ud) == hak_lua_alloc ? ud : NULL;
}

/* Its address is a key in the registry. */
static char switched_key;

/*
 * The heap of ours that a state had before somebody else replaced its
 * allocator: if a script has loaded the module, whose core is another copy,
 * that copy goes on using this heap for what it does not serve. NULL: there is
 * none.
 */
static HAK_RACY_READER struct hak_lua_heap *heap_beneath(lua_State *L)
{
    const lua_State *of = lua_checkstack(L, 1) ? hak_lua_main_thread(L) : NULL;
    struct hak_heap *heap;

    if (of == NULL) {
        return NULL;
    }
    for (uint32_t id = 0; (id = haki_embed_next(id, &heap)) != 0;) {
        struct hak_lua_heap *lua = haki_embed_extra(heap);

        /* Behind heaps that are not Lua's there are zeros. */
        if (haki_embed_is_explicit(heap) && !lua->gone &&
            (lua->made == of || lua->main == of)) {
            return lua;
        }
    }
    return NULL;
}

/* Notes in the state that it has been switched by this copy of the library. */
static int note_switch(lua_State *L)
{
    lua_pushboolean(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &switched_key);
    return 0;
}

static bool was_switched(lua_State *L)
{
    bool was;

    lua_rawgetp(L, LUA_REGISTRYINDEX, &switched_key);
    was = !lua_isnil(L, -1);
    lua_pop(L, 1);
    return was;
}

/*
 * A state may be switched again if another copy has switched it in between. Its
 * old blocks in the window then belong to another heap, or to another core.
 */
static bool has_others_blocks(lua_State *L)
{
    return was_switched(L) || haki_embed_is_shared_window() ||
           haki_embed_owns(lua_topointer(L, LUA_REGISTRYINDEX));
}

hak_lua_heap *hak_lua_switch(lua_State *L, const hak_lua_config *config)
{
    struct hak_lua_heap *lua = hak_lua_heap_of(L);

    if (lua != NULL) {
        return lua;
    }
    if (!lua_checkstack(L, 2)) {
        errno = ENOMEM;
        return NULL;
    }
    lua = hak_lua_heap_new(config);
    if (lua == NULL) {
        return NULL;
    }
    lua->fallback = lua_getallocf(L, &lua->fallback_ud);
    if (has_others_blocks(L)) {
        lua->size = 0;
    }
    lua_pushcfunction(L, note_switch);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
        lua_pop(L, 1);
        end(lua);
        errno = ENOMEM;
        return NULL;
    }
    lua->main = hak_lua_main_thread(L);
    if (lua->main == NULL) {
        lua->main = HAK_LUA_NOT_TOLD;
    }
    lua->arena = hak_lua_is_arena(lua->fallback);
    /* Counts what the state already has and leaves no headroom. */
    lua->peak = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 +
                (size_t)lua_gc(L, LUA_GCCOUNTB, 0);
    lua->headroom -= (int64_t)lua->peak;
    hak_lua_set_gate(lua);
    lua_setallocf(L, hak_lua_alloc, lua);
    hak_lua_profile_begin(lua);
    return lua;
}

void hak_lua_close(lua_State *L)
{
    struct hak_lua_heap *lua = hak_lua_heap_of(L);

    if (lua == NULL) {
        lua = heap_beneath(L);
    }
    if (lua != NULL) {
        haki_embed_hold(hak_lua_core(lua));
        lua->closing = true;
        hak_lua_bounds_open(lua);
        hak_lua_profile_end();
    }
    lua_close(L);
    if (lua != NULL) {
        lua->gone = true;
    }
    hak_lua_heap_delete(lua);
}
