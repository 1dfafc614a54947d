/*
 * types.c - hak_lua_count_types: what is live by type, held against a lua_Alloc
 * that keeps a note of every block, and against what scripts make.
 */
#include "lua_test.h"

TestSuite(types, .timeout = 300);

static const char *const names[HAK_LUA_TYPES] = {
    "other",    "string", "table",   "function",
    "userdata", "thread", "upvalue", "prototype"};

static hak_lua_types counted(lua_State *L)
{
    hak_lua_types types = {.size = sizeof types};
    cr_assert_eq(hak_lua_count_types(L, &types), 0, "errno %d", errno);
    return types;
}

static uint64_t sum_of(const hak_lua_types *types)
{
    uint64_t sum = 0;
    for (int i = 0; i < HAK_LUA_TYPES; i++)
        sum += types->type[i].live_bytes;
    return sum;
}

/* ---- an allocator that remembers every block --------------------------- */

/* Open addressing, never shrunk; a block that went leaves its place marked. */
typedef struct note {
    void *block;
    size_t bytes, type;
} note;

typedef struct notes {
    note *at;
    size_t places, used;
} notes;

#define GONE ((void *)1)

static note *place_of(const notes *n, const void *block)
{
    size_t i = ((uintptr_t)block >> 3) * 0x9e3779b97f4a7c15u >> 20;
    while (n->at[i % n->places].block != block &&
           n->at[i % n->places].block != NULL)
        i++;
    return &n->at[i % n->places];
}

static void notes_add(notes *n, void *block, size_t bytes, size_t type)
{
    if (n->used * 2 >= n->places) {
        notes old = *n;
        n->places = old.places ? old.places * 2 : 1024;
        n->used = 0;
        n->at = calloc(n->places, sizeof *n->at);
        for (size_t i = 0; i < old.places; i++)
            if (old.at[i].block != NULL && old.at[i].block != GONE)
                notes_add(n, old.at[i].block, old.at[i].bytes, old.at[i].type);
        free(old.at);
    }
    n->used++;
    *place_of(n, block) = (note){block, bytes, type};
}

static void *noting_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    notes *n = ud;
    size_t type = ptr == NULL ? osize : place_of(n, ptr)->type;
    void *moved = hak_lua_alloc(NULL, ptr, osize, nsize);
    if (ptr != NULL && (moved != NULL || nsize == 0))
        place_of(n, ptr)->block = GONE;
    if (moved != NULL)
        notes_add(n, moved, nsize, type);
    return moved;
}

/* What lua_Alloc was told: objects by type, all else as HAK_LUA_OTHER. */
static void expect_as_noted(lua_State *L, const notes *n, const char *when)
{
    uint64_t count[HAK_LUA_TYPES] = {0}, bytes[HAK_LUA_TYPES] = {0};
    hak_lua_types types = counted(L);
    uint64_t parts = types.type[HAK_LUA_OTHER].live_bytes;
    for (size_t i = 0; i < n->places; i++)
        if (n->at[i].block != NULL && n->at[i].block != GONE) {
            size_t tag = n->at[i].type;
            int type = tag >= LUA_TSTRING && tag < LUA_TSTRING + 7
                           ? (int)(tag - LUA_TSTRING + HAK_LUA_STRING)
                           : HAK_LUA_OTHER;
            count[type]++;
            bytes[type] += n->at[i].bytes;
        }
    for (int i = 0; i < HAK_LUA_TYPES; i++) {
        const hak_lua_type *type = &types.type[i];
        parts += type->part_bytes;
        if (i == HAK_LUA_OTHER)
            continue;
        cr_expect_eq(type->live_count, count[i], "%s: %lu of type %s, not %lu",
                     when, (unsigned long)type->live_count, names[i],
                     (unsigned long)count[i]);
        cr_expect_eq(type->live_bytes - type->part_bytes, bytes[i],
                     "%s: %lu bytes of type %s, not %lu", when,
                     (unsigned long)(type->live_bytes - type->part_bytes),
                     names[i], (unsigned long)bytes[i]);
    }
    cr_expect_eq(parts, bytes[HAK_LUA_OTHER], "%s: parts", when);
    if (lua_gc(L, LUA_GCCOUNT) >= 0) /* in a finalizer it is not told */
        cr_expect_eq(types.live_bytes, lt_counted(L), "%s", when);
    cr_expect_eq(sum_of(&types), types.live_bytes, "%s", when);
}

typedef struct noted_state {
    lua_State *L;
    notes notes;
} noted_state;

/* look(when) in a script. */
static int look(lua_State *L)
{
    noted_state *state = lua_touserdata(L, lua_upvalueindex(1));
    expect_as_noted(L, &state->notes, luaL_checkstring(L, 1));
    return 0;
}

static void noted_open(noted_state *state)
{
    state->notes = (notes){0};
    state->L = lua_newstate(noting_alloc, &state->notes);
    cr_assert(state->L);
    expect_as_noted(state->L, &state->notes, "empty");
    luaL_openlibs(state->L);
    expect_as_noted(state->L, &state->notes, "with libraries");
    lua_pushlightuserdata(state->L, state);
    lua_pushcclosure(state->L, look, 1);
    lua_setglobal(state->L, "look");
}

static void noted_close(noted_state *state)
{
    lua_close(state->L);
    for (size_t i = 0; i < state->notes.places; i++)
        cr_assert(state->notes.at[i].block == NULL ||
                  state->notes.at[i].block == GONE);
    free(state->notes.at);
}

static void run_noted(const char *code)
{
    noted_state state;
    noted_open(&state);
    lt_run(state.L, code);
    expect_as_noted(state.L, &state.notes, "at the end");
    noted_close(&state);
}

Test(types, objects_of_every_kind)
{
    run_noted(
        "local t = {}\n"
        "for i = 1, 300 do\n"
        "    t[i] = {i, x = i, 's' .. i, ('long'):rep(i)}\n"
        "    t[i .. ''] = function() return i, t end\n"
        "    if i % 50 == 0 then look('tables ' .. i) end\n"
        "end\n"
        "for i = 1, 20 do\n"
        "    t[-i] = coroutine.create(function(...) look(...) end)\n"
        "    assert(coroutine.resume(t[-i], 'in a coroutine'))\n"
        "    t[i + 0.5] = coroutine.wrap(function()\n"
        "        local function deep(k)\n"
        "            if k == 0 then coroutine.yield() return 0 end\n"
        "            return 1 + deep(k - 1)\n"
        "        end\n"
        "        deep(i * 10)\n"
        "    end)\n"
        "    t[i + 0.5]()\n"
        "end\n"
        "look 'coroutines'\n"
        "for i = 1, 40 do\n"
        "    t[i] = load('local x <const>, y = ' .. i .. ', {...}\\n' ..\n"
        "        ('x = y\\n'):rep(i):gsub('x', 'y') ..\n"
        "        'return function() return y, \"text ' .. i .. '\" end')\n"
        "    t[i + 1000] = load(string.dump(t[i], true))\n"
        "end\n"
        "look 'functions'\n"
        "for i = 1, 30 do t[i] = io.tmpfile() end\n"
        "look 'files'\n"
        "t = nil\n"
        "look 'garbage'\n"
        "collectgarbage()\n"
        "look 'collected'\n");
}

/* Arrays whose size Lua keeps as a guess, and ones of any other size. */
Test(types, arrays)
{
    run_noted("local keep = {}\n"
              "for n = 0, 70 do\n"
              "    local t = table.pack(table.unpack({}, 1, n))\n"
              "    local u = {}\n"
              "    for i = 1, n do t[i], u[i] = i, i end\n"
              "    for i = n, n - n // 4, -1 do\n"
              "        t[i], u[i] = nil, nil\n"
              "        keep[#keep + 1] = {t, u, #t, #u}\n"
              "        look('size ' .. n .. ' to ' .. i)\n"
              "    end\n"
              "    u[#u + 1] = 1\n"
              "    look('size ' .. n)\n"
              "end\n");
}

/* At any moment of a collection, in both modes. */
Test(types, collections)
{
    run_noted("local function fill(n)\n"
              "    local t = {}\n"
              "    for i = 1, n do\n"
              "        t[i % 100] = setmetatable({{}, 'x' .. i},\n"
              "            {__gc = i % 3 == 0 and function() end or nil})\n"
              "        if i % 37 == 0 then look 'in between' end\n"
              "    end\n"
              "end\n"
              "collectgarbage('incremental', 100, 100, 8)\n"
              "fill(2000)\n"
              "for i = 1, 50 do collectgarbage('step', 0) look 'step' end\n"
              "collectgarbage('generational')\n"
              "fill(2000)\n"
              "collectgarbage('incremental')\n"
              "fill(500)\n");
}

/* In a finalizer some of the dying wait for theirs. */
Test(types, finalizers)
{
    run_noted("local n = 0\n"
              "local mt = {__gc = function() n = n + 1\n"
              "    if n % 10 == 0 then look 'finalizer' end end}\n"
              "for i = 1, 100 do setmetatable({}, mt) end\n"
              "collectgarbage() collectgarbage()\n"
              "assert(n == 100)\n"
              "for i = 1, 100 do setmetatable({}, mt) end\n");
}

/* More calls than the number fits that Lua keeps of them. */
Test(types, deep_calls)
{
    run_noted("local function deep(k)\n"
              "    if k == 0 then look 'deep' return 0 end\n"
              "    return 1 + deep(k - 1)\n"
              "end\n"
              "assert(deep(70000) == 70000)\n"
              "assert(coroutine.wrap(deep)(100) == 100)\n");
}

/* other() in a script. */
static int other(lua_State *L)
{
    hak_lua_types types = counted(L);
    lua_pushinteger(L, (lua_Integer)types.type[HAK_LUA_OTHER].live_bytes);
    return 1;
}

/* What the parser holds is nobody's part, and counted all the same. */
Test(types, while_parsing)
{
    noted_state state;
    noted_open(&state);
    lua_register(state.L, "other", other);
    lt_run(state.L,
           "local n = 0\n"
           "assert(other() == 0, other())\n"
           "assert(load(function()\n"
           "    n = n + 1\n"
           "    look 'parsing'\n"
           "    assert(n < 3 or other() > 0)\n"
           "    return n < 100 and 'local x' .. n .. ' = {\"a\"}\\n' or nil\n"
           "end))\n"
           "assert(other() == 0, other())\n");
    noted_close(&state);
}

/* ---- every kind of state ----------------------------------------------- */

static void expect_made(lt_mode mode)
{
    lua_State *L = lt_open(mode);
    lt_collect(L);
    hak_lua_types before = counted(L);
    long n = lt_scaled(10000);
    lua_pushinteger(L, n);
    lua_setglobal(L, "n");
    lt_run(L, "t = {}\n"
              "for i = 1, n do t[i] = {i, i} end\n"
              "for i = 1, n // 10 do t[i].co = coroutine.create(print) end\n"
              "for i = 1, n // 5 do local x = i\n"
              "    t[i].f = function() return x end end\n"
              "for i = 1, n do t[i].s = 'string ' .. i end\n");
    lt_collect(L);
    hak_lua_types after = counted(L);
    uint64_t made[HAK_LUA_TYPES] = {0};
    made[HAK_LUA_STRING] = (uint64_t)n;
    made[HAK_LUA_TABLE] = (uint64_t)n + 1;
    made[HAK_LUA_THREAD] = (uint64_t)n / 10;
    made[HAK_LUA_FUNCTION] = made[HAK_LUA_UPVALUE] = (uint64_t)n / 5;
    for (int i = 1; i < HAK_LUA_TYPES; i++) {
        uint64_t more = after.type[i].live_count - before.type[i].live_count;
        cr_expect_leq(more, made[i] + 12, "%s: %lu of type %s",
                      lt_mode_name(mode), (unsigned long)more, names[i]);
        cr_expect_geq(more, made[i], "%s: %lu of type %s", lt_mode_name(mode),
                      (unsigned long)more, names[i]);
    }
    /* Two places of 16 B each, a node or more of 24 B, the array of all. */
    uint64_t parts = after.type[HAK_LUA_TABLE].part_bytes -
                     before.type[HAK_LUA_TABLE].part_bytes;
    cr_expect_geq(parts, (uint64_t)n * (2 * 16 + 24 + 16));
    cr_expect_eq(sum_of(&after), lt_counted(L));
    if (hak_lua_heap_of(L) != NULL) {
        cr_expect_eq(after.live_bytes, lt_live(hak_lua_heap_of(L)));
        cr_expect_geq(after.type[HAK_LUA_TABLE].made_count,
                      after.type[HAK_LUA_TABLE].live_count);
    } else {
        cr_expect_eq(after.type[HAK_LUA_TABLE].made_count, 0u);
    }
    hak_lua_close(L);
}

Test(types, every_allocator)
{
    for (lt_mode mode = 0; mode < LT_MODES; mode++)
        expect_made(mode);
}

/* Objects from before and after a switch alike. */
Test(types, switched)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lt_run(L, "a = {} for i = 1, 1000 do a[i] = {} end");
    hak_lua_types before = counted(L);
    hak_lua_heap *heap = hak_lua_switch(L, NULL);
    lt_run(L, "b = {} for i = 1, 1000 do b[i] = {} end");
    hak_lua_types after = counted(L);
    cr_expect_geq(after.type[HAK_LUA_TABLE].live_count,
                  before.type[HAK_LUA_TABLE].live_count + 1001);
    cr_expect_eq(sum_of(&after), lt_live(heap));
    lua_close(L);
}

/* Nothing is asked for: the walk itself changes no figure. */
Test(types, a_full_state_can_be_asked)
{
    lua_State *L = lt_state_with(HAK_LUA_LANES_DEFAULT, 1 << 20);
    luaL_openlibs(L);
    lua_gc(L, LUA_GCSTOP);
    counted(L);
    cr_expect_neq(luaL_dostring(L, "t = {} while true do t[#t + 1] = {} end"),
                  LUA_OK);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    hak_lua_heap_limit(heap, lt_live(heap));
    hak_lua_stats before = lt_stats(heap);
    hak_lua_types types = counted(L);
    hak_lua_stats after = lt_stats(heap);
    cr_expect_eq(before.calls, after.calls);
    cr_expect_eq(before.limit_refusals, after.limit_refusals);
    cr_expect_eq(before.live_bytes, after.live_bytes);
    /* Nearly all of it is tables, the array included. */
    cr_expect_gt(types.type[HAK_LUA_TABLE].live_bytes,
                 types.live_bytes - types.live_bytes / 10);
    cr_expect_gt(types.type[HAK_LUA_TABLE].part_bytes, 100000u);
    hak_lua_close(L);
}

typedef struct asking {
    lua_State *L;
    int times;
} asking;

/* Asks in the middle of whatever Lua is at, and lets it go on. */
static size_t ask_and_raise(void *arg, hak_lua_heap *heap,
                            const hak_lua_need *need)
{
    asking *a = arg;
    hak_lua_types types = counted(a->L);
    cr_assert_eq(sum_of(&types), lt_live(heap));
    a->times++;
    return need->soft_limit + 500;
}

Test(types, in_the_callback_of_a_limit)
{
    asking a = {.L = lt_open(LT_HEAP)};
    hak_lua_heap *heap = hak_lua_heap_of(a.L);
    cr_assert_eq(hak_lua_heap_on_limit(heap, lt_live(heap), ask_and_raise, &a),
                 0);
    lt_run(a.L, "local t, s = {}, ''\n"
                "for i = 1, 300 do\n"
                "    t[i] = {i, x = i} t['s' .. i] = i\n"
                "    s = s .. i\n"
                "end\n"
                "local function deep(k)\n"
                "    if k > 0 then return 1 + deep(k - 1) end return 0\n"
                "end\n"
                "deep(1000)\n"
                "t.co = coroutine.wrap(deep)\n"
                "t.co(500)\n"
                "assert(load('return {' .. ('1,'):rep(500) .. '}'))\n"
                "table.concat(t, '', 1, 0)\n"
                "for i = 1, 300 do t[i] = nil end\n"
                "for i = 1, 600 do t['n' .. i] = i end\n");
    cr_expect_gt(a.times, 100, "asked %d times", a.times);
    hak_lua_close(a.L);
}

/* Lua's own, and for what is called from here ours: another Lua. */
static bool another_lua;

lua_Number lua_version(lua_State *L)
{
    (void)L;
    return another_lua ? 503 : LUA_VERSION_NUM;
}

/* What is not laid out as we know is not walked, and is said so. */
Test(types, another_lua)
{
    lua_State *L = lt_open(LT_HEAP);
    hak_lua_types types = {.size = sizeof types};
    luaL_requiref(L, "hakmem", luaopen_hakmem, 1);
    another_lua = true;
    errno = 0;
    cr_expect_eq(hak_lua_count_types(L, &types), -1);
    cr_expect_eq(errno, ENOTSUP);
    lt_run(L,
           "local types, why = hakmem.types()\n"
           "assert(types == nil)\n"
           "assert(why == 'hakmem.types: this build of Lua is not laid out '\n"
           "    .. 'as 5.4.1 to 5.4.8 are; stats().types says what was '\n"
           "    .. 'made', why)\n"
           "assert(hakmem.stats().types.table.made_count > 0)\n");
    another_lua = false;
    cr_expect_eq(hak_lua_count_types(L, &types), -1, "it is tried once");
    hak_lua_close(L);
}

Test(types, wrong_size)
{
    lua_State *L = lt_bare(LT_HEAP);
    hak_lua_types types = {.size = 7};
    errno = 0;
    cr_expect_eq(hak_lua_count_types(L, &types), -1);
    cr_expect_eq(errno, EINVAL);
    hak_lua_close(L);
}
