/*
 * hak_lua_types.c - what fills a state: its live objects, by type.
 *
 * A lua_Alloc gets a block's type when the block is made and its size when it
 * is freed, never both, so it can't know live bytes by type without storing a
 * word for each block. The collector can: every object is in one of four lists
 * and contains its type and the sizes of its parts. Walking the lists costs the
 * allocator nothing; the walk only reads, and allocates nothing.
 *
 * The structs below are the beginnings of those in lobject.h and lstate.h,
 * which are the same in Lua 5.4.1 to 5.4.8 with the default configuration.
 * Whether this process's Lua matches is tested once, on a state with objects of
 * every kind: what the walk finds there must equal what Lua counts, to the
 * byte.
 *
 * Tested by tests/lua/types.c.
 */
#include <errno.h>
#include <lauxlib.h>
#include <string.h>

#include "hak_lua_heap.h"

/* ---- Lua's objects ------------------------------------------------------ */

struct object {
    struct object *next;
    uint8_t tag, marked;
};

/* Tags: Lua's type, and 16 times a variant. */
enum {
    TAG_SHORT_STRING = LUA_TSTRING,
    TAG_LONG_STRING = LUA_TSTRING | 16,
    TAG_TABLE = LUA_TTABLE,
    TAG_LUA_FUNCTION = LUA_TFUNCTION,
    TAG_C_FUNCTION = LUA_TFUNCTION | 32,
    TAG_USERDATA = LUA_TUSERDATA,
    TAG_THREAD = LUA_TTHREAD,
    TAG_UPVALUE,
    TAG_PROTOTYPE
};

struct string {
    struct object *next;
    uint8_t tag, marked, extra, short_length;
    uint32_t hash;
    size_t length; /* of long ones */
    char text[];
};

#define GUESSED_LIMIT 128 /* the array has room for the next power of two */

struct table {
    struct object *next;
    uint8_t tag, marked, flags, log_nodes;
    uint32_t limit;
    void *array, *nodes, *last_free, *metatable, *gray;
};

struct userdata {
    struct object *next;
    uint8_t tag, marked;
    uint16_t values;
    size_t length;
    void *metatable, *gray; /* without values it ends before `gray` */
    char value[];
};

struct closure {
    struct object *next;
    uint8_t tag, marked, upvalues;
    void *gray, *code;
    char upvalue[];
};

struct upvalue {
    struct object *next;
    uint8_t tag, marked, to_be_closed;
    void *value, *own[2];
};

struct prototype {
    struct object *next;
    uint8_t tag, marked, parameters, is_vararg, registers;
    uint32_t upvalues, constants, code, lines, inner, locals, absolute_lines;
    uint32_t first_line, last_line;
    void *parts[9];
};

/* An entry in a thread's list of calls; `previous` of the first is NULL. */
struct call {
    void *function, *top;
    struct call *previous, *next;
    void *rest[4];
};

struct thread {
    struct object *next;
    uint8_t tag, marked, status, allow_hook;
    uint16_t calls; /* it may overflow */
    void *top;
    struct global *global;
    struct call *call;
    char *stack_last, *stack;
};

struct global {
    lua_Alloc alloc;
    void *ud;
    ptrdiff_t total, debt; /* their sum is what is live */
    size_t estimate, atomic;
    struct object **strings;
    int32_t nstrings, string_places;
    char values[32], settings[16];
    struct object *all, **sweep, *to_finalize;
    struct object *gray[5];
    struct object *finalizing, *fixed;
};

enum {
    VALUE = 16,
    NODE = 24,
    INSTRUCTION = 4,
    UPVALUE_NAME = 16,
    LOCAL = 16,
    ABSOLUTE_LINE = 8,
    STACK_EXTRA = 5 * VALUE
};

/* ---- counting one object ------------------------------------------------ */

/* Sizes that lua_newstate and lua_newthread asked for, see look_at_lua. */
struct told {
    size_t main;    /* the block of the main thread and the global state */
    size_t main_at; /* from the main thread to the global state */
    size_t thread;  /* the block of another thread */
};

struct count {
    const struct told *told;
    const void *main; /* the main thread */
    hak_lua_type type[HAK_LUA_TYPES];
};

static void add(struct count *count, unsigned type, size_t own, size_t parts)
{
    count->type[type].live_count++;
    count->type[type].live_bytes += own + parts;
    count->type[type].part_bytes += parts;
}

static void add_string(struct count *count, const struct string *string)
{
    size_t length =
        string->tag == TAG_LONG_STRING ? string->length : string->short_length;

    add(count, HAK_LUA_STRING, offsetof(struct string, text) + length + 1, 0);
}

static void add_table(struct count *count, const struct table *table)
{
    size_t places = table->limit, parts;

    if ((table->flags & GUESSED_LIMIT) != 0 && places > 1) {
        places = (size_t)2 << (31 - __builtin_clz((uint32_t)places - 1));
    }
    parts = places * VALUE;
    if (table->last_free !=
        NULL) { /* otherwise the nodes are a constant in Lua */
        parts += (size_t)NODE << table->log_nodes;
    }
    add(count, HAK_LUA_TABLE, sizeof(*table), parts);
}

static void add_userdata(struct count *count, const struct userdata *userdata)
{
    size_t head = userdata->values == 0 ? offsetof(struct userdata, gray)
                                        : offsetof(struct userdata, value);

    add(count, HAK_LUA_USERDATA,
        head + userdata->values * (size_t)VALUE + userdata->length, 0);
}

static void add_prototype(struct count *count, const struct prototype *p)
{
    add(count, HAK_LUA_PROTOTYPE, sizeof(*p),
        p->upvalues * (size_t)UPVALUE_NAME + p->constants * (size_t)VALUE +
            p->code * (size_t)INSTRUCTION + p->lines +
            p->inner * sizeof(void *) + p->locals * (size_t)LOCAL +
            p->absolute_lines * (size_t)ABSOLUTE_LINE);
}

static void add_thread(struct count *count, const struct thread *thread)
{
    size_t own =
        thread == count->main ? count->told->main : count->told->thread;
    size_t parts;

    if (thread->stack == NULL) { /* it is being made */
        add(count, HAK_LUA_THREAD, own, 0);
        return;
    }
    parts = (size_t)(thread->stack_last - thread->stack) + STACK_EXTRA;
    /* The first entry is part of the thread itself. */
    for (const struct call *c = thread->call; c->next != NULL; c = c->next) {
        parts += sizeof(*c);
    }
    for (const struct call *c = thread->call; c->previous != NULL;
         c = c->previous) {
        parts += sizeof(*c);
    }
    add(count, HAK_LUA_THREAD, own, parts);
}

/* False: that is not an object of Lua 5.4. */
static bool add_object(struct count *count, const struct object *object)
{
    const void *p = object;
    const struct closure *closure = p;
    size_t n = closure->upvalues;

    switch (object->tag) {
    case TAG_SHORT_STRING:
    case TAG_LONG_STRING: add_string(count, p); break;
    case TAG_TABLE: add_table(count, p); break;
    case TAG_LUA_FUNCTION:
        add(count, HAK_LUA_FUNCTION, sizeof(*closure) + n * sizeof(void *), 0);
        break;
    case TAG_C_FUNCTION:
        add(count, HAK_LUA_FUNCTION, sizeof(*closure) + n * VALUE, 0);
        break;
    case TAG_USERDATA: add_userdata(count, p); break;
    case TAG_THREAD: add_thread(count, p); break;
    case TAG_UPVALUE:
        add(count, HAK_LUA_UPVALUE, sizeof(struct upvalue), 0);
        break;
    case TAG_PROTOTYPE: add_prototype(count, p); break;
    default: return false;
    }
    return true;
}

/* ---- counting a state --------------------------------------------------- */

static const struct global *global_of(lua_State *L)
{
    return ((const struct thread *)(const void *)L)->global;
}

static bool add_list(struct count *count, const struct object *object)
{
    while (object != NULL && add_object(count, object)) {
        object = object->next;
    }
    return object == NULL;
}

/*
 * Counts all of a state's objects, and the rest of the live bytes as "other".
 * False: the state is not laid out as this file expects.
 */
static bool count_state(const struct global *global, struct count *count)
{
    hak_lua_type *strings = &count->type[HAK_LUA_STRING];
    size_t table = (size_t)global->string_places * sizeof(void *);
    size_t live = (size_t)(global->total + global->debt), known = 0;

    count->main = (const char *)global - count->told->main_at;
    if (!add_list(count, global->all) ||
        !add_list(count, global->to_finalize) ||
        !add_list(count, global->finalizing) ||
        !add_list(count, global->fixed)) {
        return false;
    }
    strings->live_bytes += table;
    strings->part_bytes += table;
    for (int type = 0; type < HAK_LUA_TYPES; type++) {
        known += (size_t)count->type[type].live_bytes;
    }
    count->type[HAK_LUA_OTHER].live_bytes = live - known;
    return known <= live;
}

/* ---- is it such a Lua? -------------------------------------------------- */

static void *listening_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct told *told = ud;

    if (ptr == NULL && osize == LUA_TTHREAD) {
        *(told->main == 0 ? &told->main : &told->thread) = nsize;
    }
    return hak_lua_system_alloc(NULL, ptr, osize, nsize);
}

static int nothing(lua_State *L)
{
    (void)L;
    return 0;
}

/*
 * Makes objects of every kind, with parts of every kind, all still referenced.
 */
static int make_objects(lua_State *L)
{
    static const char code[] =
        "local userdata, finalized, metatable = ...\n"
        "local t, n = {1, 2, 3, x = 1, y = {}, [userdata] = finalized}, 0\n"
        "local function deep(k)\n"
        "    if k > 0 then return 1 + deep(k - 1) end\n"
        "    return 0\n"
        "end\n"
        "local guess = {}\n"
        "for i = 1, 200 do t[i], guess[i] = i .. '', i end\n"
        "for i = 150, 200 do guess[i] = nil end\n"
        "t[0], n = guess, #guess + deep(20)\n"
        "t.long = 'a string that is longer than forty characters: ' .. n\n"
        "for i = 1, 3 do t[-i] = function() return i, t, n end end\n"
        "return t, function(...) return deep, ... end, metatable\n";

    luaL_checkstack(L, 12, NULL);
    lua_settop(L, 0);
    lua_newuserdatauv(L, 100, 0);
    lua_newuserdatauv(L, 7, 3);
    lua_pushvalue(L, -1);
    lua_pushinteger(L, 1);
    lua_pushcclosure(L, nothing, 2);
    lua_newtable(L);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "__gc");
    lua_pushvalue(L, -1);
    lua_setmetatable(L, -4);
    lua_checkstack(lua_newthread(L), 100);
    if (luaL_loadstring(L, code) != LUA_OK) {
        return lua_error(L);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 4);
    lua_call(L, 3, 3);
    return 0;
}

static bool is_global(lua_State *L, const struct global *global)
{
    void *ud;
    lua_Alloc alloc = lua_getallocf(L, &ud);

    return global->alloc == alloc && global->ud == ud;
}

/*
 * Finds where in their common block a new state's main thread and global state
 * are.
 */
static bool find_main(lua_State *L, struct told *told)
{
    size_t rest = told->main - LUA_EXTRASPACE;
    uintptr_t main = (uintptr_t)L, global = (uintptr_t)global_of(L);

    told->main_at = global - main;
    return lua_version(L) == LUA_VERSION_NUM && global > main &&
           told->main_at + sizeof(struct global) <= rest &&
           is_global(L, global_of(L));
}

/* Returns whether the lists begin with what was made, or fixed, last. */
static int check_lists(lua_State *L)
{
    const struct global *global = global_of(L);
    bool found;

    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, nothing);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    found = global->to_finalize == lua_topointer(L, -1);
    lua_pushliteral(L, "while");
    found &= global->fixed == lua_topointer(L, -1);
    lua_newtable(L);
    found &= global->all == lua_topointer(L, -1);
    lua_pushboolean(L, found && global->finalizing == NULL);
    return 1;
}

/* Tests a state made for the purpose: 0, ENOMEM or ENOTSUP. */
static int look_at_lua(struct told *told)
{
    lua_State *L = lua_newstate(listening_alloc, told);
    struct count count = {.told = told};
    int error = ENOTSUP;

    if (L == NULL) {
        return ENOMEM;
    }
    lua_gc(L, LUA_GCSTOP);
    lua_pushcfunction(L, make_objects);
    lua_pushcfunction(L, check_lists);
    if (find_main(L, told)) {
        error = lua_pcall(L, 0, 1, 0) != LUA_OK   ? ENOMEM
                : !lua_toboolean(L, -1)           ? ENOTSUP
                : lua_pcall(L, 1, 0, 0) != LUA_OK ? ENOMEM
                                                  : 0;
    }
    if (error == 0 && (!count_state(global_of(L), &count) ||
                       count.type[HAK_LUA_OTHER].live_bytes != 0 ||
                       count.type[HAK_LUA_USERDATA].live_count != 2 ||
                       count.type[HAK_LUA_THREAD].live_count != 2)) {
        error = ENOTSUP;
    }
    lua_close(L);
    return error;
}

/*
 * What look_at_lua found; -1: not called yet. Several threads may call it at
 * once.
 */
static _Atomic(int) found = -1;
static _Atomic(size_t) found_main, found_main_at, found_thread;

static int ask_once(struct told *told)
{
    struct told fresh = {0, 0, 0};
    int error = atomic_load(&found);

    if (error < 0) {
        error = look_at_lua(&fresh);
        if (error !=
            ENOMEM) { /* otherwise it may be half of another thread's result */
            atomic_store(&found_main, fresh.main);
            atomic_store(&found_main_at, fresh.main_at);
            atomic_store(&found_thread, fresh.thread);
            atomic_store(&found, error);
        }
    }
    told->main = atomic_load(&found_main);
    told->main_at = atomic_load(&found_main_at);
    told->thread = atomic_load(&found_thread);
    return error;
}

/* ---- public ------------------------------------------------------------- */

static void add_made(hak_lua_types *types, const hak_lua_heap *lua)
{
    hak_lua_stats stats = {.size = sizeof(stats)};

    hak_lua_heap_stats(lua, &stats);
    for (int type = 0; type < HAK_LUA_TYPES; type++) {
        types->type[type].made_count = stats.type_count[type];
        types->type[type].made_bytes = stats.type_bytes[type];
    }
}

int hak_lua_count_types(lua_State *L, hak_lua_types *types)
{
    struct told told;
    struct count count = {.told = &told};
    int error = types->size == sizeof(*types) ? ask_once(&told) : EINVAL;

    if (error == 0 &&
        (!is_global(L, global_of(L)) || !count_state(global_of(L), &count))) {
        error = ENOTSUP;
    }
    if (error != 0) {
        errno = error;
        return -1;
    }
    memcpy(types->type, count.type, sizeof(types->type));
    types->live_bytes = (size_t)(global_of(L)->total + global_of(L)->debt);
    if (hak_lua_heap_of(L) != NULL) {
        add_made(types, hak_lua_heap_of(L));
    }
    return 0;
}
