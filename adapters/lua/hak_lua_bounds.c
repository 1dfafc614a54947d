/*
 * hak_lua_bounds.c - what a Lua heap's limits admit: the hard limit, the
 * reserve above it, the soft limit and its callback.
 *
 * Reached by requests that would take live bytes beyond `stop`, so that hot
 * paths compare with a single number. The wall is the lower of the two limits.
 *
 *     CALM      stop = wall. A request beyond it asks the callback, if the wall
 *               is the soft limit, and is refused or admitted.
 *     REFUSED   a request was refused. Lua answers by a full collection and the
 *               same request once more; any other request means that it has
 *               given it up and raised an error (luaL_Buffer does that at
 *               once).
 *               Lua 5.1 and LuaJIT do not collect, and raise an error at once: there
 *               this strain is never entered, and a callback is told that there was
 *               a collection.
 *     OPEN      a request was finally refused: up to wall + reserve is
 *               admitted.
 *
 *     CALM --refused--> REFUSED --the same, and it fits--> CALM
 *                       REFUSED --the same, refused, or another--> OPEN
 *     REFUSED, OPEN --live has been at or below stop--> CALM
 *
 * For the last transition, stop is a little below the wall in REFUSED and OPEN:
 * a state that has recovered crosses it again on its way up, and that request
 * finds live <= stop.
 *
 * Tested by tests/lua/limit.c and tests/lua/soft.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hak_lua_heap.h"

/* For a state to be calm again 1/RECOVERED of the wall must be free. */
#define RECOVERED 16

enum strain { CALM, REFUSED, OPEN };

struct hak_lua_bounds {
    size_t soft; /* SIZE_MAX: none */
    size_t reserve;
    hak_lua_on_limit callback;
    void *arg;
    enum strain strain;
    /* REFUSED: what was refused, and whether the callback said so finally */
    const void *ptr;
    size_t nsize;
    bool final;
    bool asking; /* the callback is running */
};

static size_t wall_of(const struct hak_lua_heap *lua)
{
    return lua->bounds != NULL ? haki_min(lua->limit, lua->bounds->soft)
                               : lua->limit;
}

static void set_strain(struct hak_lua_heap *lua, enum strain strain)
{
    size_t wall = wall_of(lua);

    lua->stop = wall;
    if (lua->bounds != NULL) {
        lua->bounds->strain = strain;
        if (strain != CALM) {
            lua->stop -= wall / RECOVERED;
        }
    }
    hak_lua_set_gate(lua);
}

void hak_lua_bounds_set(struct hak_lua_heap *lua)
{
    set_strain(lua, CALM);
}

size_t hak_lua_bounds_reserve(const struct hak_lua_heap *lua)
{
    return lua->bounds != NULL ? lua->bounds->reserve : 0;
}

/* A request was finally refused. */
static void give_up(struct hak_lua_heap *lua)
{
    set_strain(lua, lua->bounds->reserve != 0 ? OPEN : CALM);
}

void hak_lua_bounds_open(struct hak_lua_heap *lua)
{
    if (lua->bounds != NULL) {
        give_up(lua);
    }
}

/*
 * Asks the callback until its results admit or refuse the request. `again`: Lua
 * has collected garbage for this request.
 */
static bool ask(struct hak_lua_heap *lua, size_t more, bool again)
{
    struct hak_lua_bounds *bounds = lua->bounds;
    size_t live = hak_lua_live(lua), answer, before;

    while (!haki_account_within(live, more, bounds->soft) &&
           bounds->callback != NULL) {
        hak_lua_need need = {.size = sizeof(need),
                             .bytes = more,
                             .live_bytes = live,
                             .soft_limit = bounds->soft,
                             .limit = lua->limit == SIZE_MAX ? 0 : lua->limit,
                             .collected = again};

        before = bounds->soft;
        bounds->asking = true;
        answer = bounds->callback(bounds->arg, lua, &need);
        bounds->asking = false;
        bounds->soft = haki_max(bounds->soft, answer);
        if (bounds->soft <= before) {
            bounds->final = again || answer != HAK_LUA_COLLECT;
            return false;
        }
        hak_lua_bounds_set(lua);
    }
    return haki_account_within(live, more, wall_of(lua));
}

/*
 * Decides about a request beyond the wall, in a state whose reserve is not
 * open.
 */
static bool judge(struct hak_lua_heap *lua, const void *ptr, size_t nsize,
                  size_t more)
{
    struct hak_lua_bounds *bounds = lua->bounds;
    bool again = bounds->strain == REFUSED || !HAK_LUA_COLLECTS;
    /* The callback has refused it. */
    bool told = bounds->strain == REFUSED && bounds->final;

    bounds->final = false;
    if (!told && !bounds->asking && ask(lua, more, again)) {
        return true;
    }
    if (again) {
        give_up(lua);
    } else {
        bounds->ptr = ptr;
        bounds->nsize = nsize;
        set_strain(lua, REFUSED);
    }
    return false;
}

bool hak_lua_bounds_admit(struct hak_lua_heap *lua, const void *ptr,
                          size_t nsize, size_t more)
{
    struct hak_lua_bounds *bounds = lua->bounds;
    size_t live = hak_lua_live(lua), wall = wall_of(lua);

    if (bounds == NULL) {
        return false; /* stop is the limit */
    }
    if (bounds->strain != CALM && live <= lua->stop) {
        bool same = bounds->strain == REFUSED && bounds->ptr == ptr &&
                    bounds->nsize == nsize;

        if (!same) {
            set_strain(lua, CALM);
        }
    } else if (bounds->strain == REFUSED &&
               (bounds->ptr != ptr || bounds->nsize != nsize)) {
        give_up(lua);
    }
    if (haki_account_within(live, more, wall)) {
        if (bounds->strain == REFUSED) {
            set_strain(lua, CALM);
        }
        return true;
    }
    if (bounds->strain == OPEN || lua->closing) {
        return haki_account_within(live, more,
                                   wall + haki_min(bounds->reserve,
                                                   SIZE_MAX - wall));
    }
    return judge(lua, ptr, nsize, more);
}

/* ---- the public functions -------------------------------------------------- */

/* The heap's bounds, made if need be; NULL with errno set. */
static struct hak_lua_bounds *bounds_of(struct hak_lua_heap *lua)
{
    if (lua == NULL) {
        errno = EINVAL;
        return NULL;
    }
    if (lua->bounds == NULL) {
        lua->bounds = calloc(1, sizeof(*lua->bounds));
        if (lua->bounds == NULL) {
            errno = ENOMEM;
            return NULL;
        }
        lua->bounds->soft = SIZE_MAX;
    }
    return lua->bounds;
}

int hak_lua_heap_reserve(hak_lua_heap *lua, size_t bytes)
{
    struct hak_lua_bounds *bounds = bounds_of(lua);

    if (bounds == NULL) {
        return -1;
    }
    bounds->reserve = bytes;
    hak_lua_bounds_set(lua);
    return 0;
}

int hak_lua_heap_on_limit(hak_lua_heap *lua, size_t soft_limit,
                          hak_lua_on_limit callback, void *arg)
{
    struct hak_lua_bounds *bounds;

    if ((soft_limit == 0) != (callback == NULL)) {
        errno = EINVAL;
        return -1;
    }
    bounds = bounds_of(lua);
    if (bounds == NULL) {
        return -1;
    }
    bounds->soft = soft_limit != 0 ? soft_limit : SIZE_MAX;
    bounds->callback = callback;
    bounds->arg = arg;
    hak_lua_bounds_set(lua);
    return 0;
}
