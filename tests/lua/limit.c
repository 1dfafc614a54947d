/*
 * limit.c - a state that hits its limit, in every place: each piece of code
 * runs with a limit that grows in small steps until it succeeds. A failure
 * is a memory error that pcall catches; the state goes on afterwards and
 * has lost nothing.
 */
#include "lua_test.h"

TestSuite(limit, .timeout = 300);

/* What may differ after an error: string table, stack, lengths of caches. */
enum { SLACK = 4096 };

typedef struct tally {
    long runs, failures;
} tally;

static void expect_memory_error(lua_State *L, int status, const char *code)
{
    /* The last two come from lua_checkstack, which has no memory either. */
    static const char *const known[] = {
        "not enough memory", "too many results to unpack", "stack overflow"};
    const char *message = lua_tostring(L, -1);
    bool found = false;
    for (int i = 0; i < 3 && message; i++)
        found = found || strstr(message, known[i]);
    /* luaL_Buffer raises its own error with status LUA_ERRRUN. */
    cr_assert(status == LUA_ERRMEM || status == LUA_ERRRUN, "status %d",
              status);
    cr_assert(found, "failed with: %s\nin: %.100s", message, code);
    if (status == LUA_ERRMEM)
        cr_assert_str_eq(message, known[0]);
}

/* After an error: the state works, and has given back what it had. */
static void expect_recovered(lua_State *L, size_t base, const char *code)
{
    hak_lua_heap *heap = hak_lua_heap_of(L);
    lua_settop(L, 1);
    for (int i = 0; i < 3; i++)
        lt_collect(L); /* each frees half of the idle call frames */
    cr_assert_leq(lt_live(heap), base + SLACK, "%zu live, %zu before: %.100s",
                  lt_live(heap), base, code);
    cr_assert_eq(lt_live(heap), lt_counted(L));
    lua_getglobal(L, "usable");
    lua_call(L, 0, 1);
    cr_assert_eq(lua_tointeger(L, -1), 5050);
    lua_settop(L, 1);
    lt_collect(L);
}

/* The function at index 1, with `room` bytes more than are live. */
static bool run_with(lua_State *L, size_t room, size_t base, const char *code)
{
    hak_lua_heap *heap = hak_lua_heap_of(L);
    uint64_t refused = lt_stats(heap).limit_refusals;
    size_t peak = lt_stats(heap).peak_bytes;
    size_t limit = lt_live(heap) + room;
    lua_pushvalue(L, 1);
    hak_lua_heap_limit(heap, limit);
    int status = lua_pcall(L, 0, 0, 0);
    cr_assert_leq(lt_live(heap), limit);
    cr_assert_leq(lt_stats(heap).peak_bytes, peak > limit ? peak : limit);
    hak_lua_heap_limit(heap, 0);
    if (status == LUA_OK)
        return true;
    cr_assert_gt(lt_stats(heap).limit_refusals, refused);
    expect_memory_error(L, status, code);
    expect_recovered(L, base, code);
    return false;
}

static lua_State *open_for(lt_mode mode, const char *code)
{
    lua_State *L = lt_open(mode);
    lt_run(L, "function usable()\n"
              "    local t, n = {}, 0\n"
              "    for i = 1, 100 do t[i] = {i} end\n"
              "    for _, v in ipairs(t) do n = n + v[1] end\n"
              "    local co = coroutine.wrap(function(s) return #s end)\n"
              "    assert(co(('x'):rep(1500)) == 1500)\n"
              "    return n\n"
              "end\n");
    cr_assert_eq(luaL_loadstring(L, code), LUA_OK, "%s", lua_tostring(L, -1));
    lt_collect(L);
    return L;
}

/* Runs code with ever more room, in steps of `step` bytes. */
static tally squeeze_in(lt_mode mode, const char *code, size_t step)
{
    lua_State *L = open_for(mode, code);
    tally sum = {0, 0};
    size_t base = lt_live(hak_lua_heap_of(L));
    step *= lt_divisor() > 1 ? 16 : 1;
    for (size_t room = 0;; room += step) {
        sum.runs++;
        if (run_with(L, room, base, code))
            break;
        sum.failures++;
        cr_assert_lt(room, (size_t)10 << 20, "never enough: %.100s", code);
    }
    hak_lua_close(L);
    cr_expect_gt(sum.failures, 2, "only %ld failures: %.100s", sum.failures,
                 code);
    return sum;
}

/* With all lanes, and in larger steps with Tiny alone. */
static void squeeze(const char *code, size_t step)
{
    tally all = squeeze_in(LT_HEAP, code, step);
    tally tiny = squeeze_in(LT_TINY, code, step * 3);
    cr_expect_gt(all.failures, tiny.failures);
}

/* ---- in every place ---------------------------------------------------- */

Test(limit, strings)
{
    squeeze("local t = {}\n"
            "for i = 1, 100 do t[i] = 'string number ' .. i end\n"
            "for i = 1, 40 do t[i] = t[i] .. t[i + 1] .. i end\n"
            "assert(t[1] == 'string number 1string number 21')",
            8);
}

Test(limit, tables)
{
    squeeze("local t = {}\n"
            "for i = 1, 200 do t[i] = {i, k = i} end\n"
            "for i = 1, 200 do t['k' .. i] = i end\n"
            "for i = 200, 1, -1 do t[i] = nil end\n"
            "for i = 1, 20 do t[-i] = {} end\n"
            "assert(t.k200 == 200)",
            16);
}

Test(limit, closures)
{
    squeeze("local t = {}\n"
            "for i = 1, 150 do\n"
            "    local a, b = i, {}\n"
            "    t[i] = function() a = a + 1 return a, b end\n"
            "end\n"
            "assert(t[150]() == 151)",
            8);
}

Test(limit, coroutines)
{
    squeeze("local t = {}\n"
            "for i = 1, 20 do\n"
            "    local co = coroutine.create(function(n)\n"
            "        local d\n"
            "        d = function(k) return k == 0 and 0 or 1 + d(k - 1) end\n"
            "        coroutine.yield(d(n))\n"
            "    end)\n"
            "    t[i] = co\n"
            "    local ok, n = coroutine.resume(co, i * 5)\n"
            "    if not ok then error(n, 0) end\n"
            "    assert(n == i * 5)\n"
            "end\n",
            32);
}

Test(limit, deep_recursion)
{
    squeeze("local function deep(n)\n"
            "    if n == 0 then return 0 end\n"
            "    return 1 + deep(n - 1)\n"
            "end\n"
            "assert(deep(1500) == 1500)",
            64);
}

Test(limit, concat)
{
    squeeze("local s = ''\n"
            "for i = 1, 120 do s = s .. i .. ' and ' end\n"
            "local t = {}\n"
            "for i = 1, 300 do t[i] = i end\n"
            "local c = table.concat(t, ', ')\n"
            "assert(#c == 1390 and #s == 852)",
            8);
}

Test(limit, rep_and_format)
{
    squeeze("for i = 1, 12 do\n"
            "    local s = ('abc'):rep(i * 100, '-')\n"
            "    local f = string.format('%s|%q|%99.9f|%s', s, s, i, s)\n"
            "    assert(#f > 3 * #s)\n"
            "end",
            16);
}

Test(limit, patterns)
{
    squeeze("local s = ('key=value; '):rep(120)\n"
            "local n = 0\n"
            "for k, v in s:gmatch('(%w+)=(%w+)') do n = n + 1 end\n"
            "local g = s:gsub('%w+', function(w) return w .. w end)\n"
            "local u = s:gsub('(%w+)=(%w+)', '%2=%1'):upper():reverse()\n"
            "assert(n == 120 and #g == 120 * 19 and #u == #s)",
            16);
}

Test(limit, load)
{
    lt_needs(LT_52);
    squeeze("local parts = {}\n"
            "for i = 1, 60 do\n"
            "    parts[i] = 'local function f' .. i ..\n"
            "        '(a, b) local t = {a, b, ' .. i ..\n"
            "        '} return function() return t, \"k' .. i .. '\" end end'\n"
            "end\n"
            "local f, message = load(table.concat(parts, '\\n'))\n"
            "if not f then error(message, 0) end\n"
            "f()\n"
            "local d = string.dump(f)\n"
            "f, message = load(d)\n"
            "if not f then error(message, 0) end\n"
            "f()",
            64);
}

Test(limit, sort)
{
    squeeze("local t = {}\n"
            "for i = 1, 150 do t[i] = {i * 7919 % 1009} end\n"
            "table.sort(t, function(a, b)\n"
            "    return 'x' .. a[1] < 'x' .. b[1]\n"
            "end)\n"
            "for i = 2, #t do\n"
            "    assert('x' .. t[i - 1][1] <= 'x' .. t[i][1])\n"
            "end",
            16);
}

Test(limit, metatables_and_closing)
{
    lt_needs(LT_54);
    squeeze("local mt = {}\n"
            "mt.__index = function(t, k) return k .. '!' end\n"
            "mt.__add = function(a, b) return setmetatable({}, mt) end\n"
            "mt.__close = function() local t = {1, 2, 3} end\n"
            "mt.__gc = function() local t = {1, 2, 3} end\n"
            "local s = setmetatable({}, mt)\n"
            "for i = 1, 60 do\n"
            "    local c <close> = s + s\n"
            "    assert(c['k' .. i] == 'k' .. i .. '!')\n"
            "end",
            8);
}

Test(limit, varargs)
{
    lt_needs(LT_52);
    squeeze("local t = {}\n"
            "for i = 1, 600 do t[i] = i end\n"
            "local function f(...) return select('#', ...), {...} end\n"
            "for n = 10, 600, 59 do\n"
            "    local c, u = f(table.unpack(t, 1, n))\n"
            "    assert(c == n and u[n] == n)\n"
            "end",
            32);
}

/* Blocks of every lane: arrays, hashes and strings up to 3 MB. */
Test(limit, large_blocks)
{
    squeeze("local t, h = {}, {}\n"
            "for i = 1, 20000 do t[i] = i end\n"
            "for i = 1, 3000 do h['k' .. i] = i end\n"
            "local s = ('x'):rep(100000)\n"
            "s = s .. s .. s\n"
            "local u = table.concat({s, s, s, s, s, s, s, s}, ',')\n"
            "assert(#u == 2400007 and t[20000] == 20000 and h.k3000 == 3000)\n"
            "for i = #t, 100, -1 do t[i] = nil end\n"
            "t.x = 1",
            16384);
}

Test(limit, require_and_userdata)
{
    lt_needs(LT_52);
    squeeze("local keep = {}\n"
            "for i = 1, 30 do\n"
            "    package.preload['m' .. i] = function(n) return {n} end\n"
            "    keep[i] = require('m' .. i)\n"
            "    package.loaded['m' .. i] = nil\n"
            "    package.preload['m' .. i] = nil\n"
            "end\n"
            "assert(keep[30][1] == 'm30')",
            16);
}

/* ---- compiling under a limit ------------------------------------------- */

Test(limit, loadstring)
{
    lua_State *L = open_for(LT_HEAP, "return 1");
    hak_lua_heap *heap = hak_lua_heap_of(L);
    size_t base = lt_live(heap), step = lt_divisor() > 1 ? 128 : 8;
    const char *code = "local t = {} for i = 1, 10 do t[i] = function()\n"
                       "return i, 'a long string in a function', t end end";
    long failures = 0;
    for (size_t room = 0;; room += step) {
        hak_lua_heap_limit(heap, lt_live(heap) + room);
        int status = luaL_loadstring(L, code);
        hak_lua_heap_limit(heap, 0);
        if (status == LUA_OK)
            break;
        cr_assert_eq(status, LUA_ERRMEM, "status %d", status);
        failures++;
        expect_recovered(L, base, code);
    }
    cr_expect_gt(failures, 5);
    cr_expect_eq(lua_pcall(L, 0, 0, 0), LUA_OK);
    hak_lua_close(L);
}

/* ---- as a script sees it ----------------------------------------------- */

static int set_room(lua_State *L)
{
    hak_lua_heap *heap = hak_lua_heap_of(L);
    lua_Integer room = luaL_checkinteger(L, 1);
    hak_lua_heap_limit(heap, room ? lt_live(heap) + (size_t)room : 0);
    return 0;
}

static lua_State *open_with_room(void)
{
    lua_State *L = lt_open(LT_HEAP);
    lua_register(L, "room", set_room);
    return L;
}

Test(limit, pcall_in_lua)
{
    lt_needs(LT_54);
    lua_State *L = open_with_room();
    lt_run(L, "local function hog()\n"
              "    local t = {}\n"
              "    for i = 1, 1e7 do t[i] = {i} end\n"
              "end\n"
              "for size = 1, 200 do\n"
              "    room(size * 500)\n"
              "    local ok, message = pcall(hog)\n"
              "    assert(not ok and message == 'not enough memory')\n"
              "    ok, message = pcall(string.rep, 'x', 1 << 20)\n"
              "    assert(not ok and message == 'not enough memory')\n"
              "end\n"
              "room(0)\n"
              "collectgarbage()\n"
              "assert(collectgarbage('count') < 100)\n"
              "assert(#string.rep('x', 1 << 20) == 1 << 20)");
    hak_lua_close(L);
}

Test(limit, inside_coroutines)
{
    lua_State *L = open_with_room();
    lt_run(L, "local function hog(t)\n"
              "    for i = 1, 1e7 do t[i] = {i} end\n"
              "end\n"
              "local function nest(n)\n"
              "    if n == 0 then hog({}) end\n"
              "    local co = coroutine.create(nest)\n"
              "    local ok, message = coroutine.resume(co, n - 1)\n"
              "    assert(not ok and coroutine.status(co) == 'dead')\n"
              "    error(message, 0)\n"
              "end\n"
              "for depth = 0, 20 do\n"
              "    room(100000)\n"
              "    local ok, message = pcall(nest, depth)\n"
              "    assert(not ok and message == 'not enough memory', message)\n"
              "end\n"
              "room(0)");
    lt_collect(L);
    cr_expect_lt(lt_live(hak_lua_heap_of(L)), (size_t)100000);
    hak_lua_close(L);
}

/*
 * Fifty times the limit in garbage: emergency collections make room for it.
 * No string.rep here: lauxlib's buffers ask once and don't collect.
 */
Test(limit, emergency_collection)
{
    lt_needs(LT_53);
    lua_State *L = open_with_room();
    hak_lua_heap *heap = hak_lua_heap_of(L);
    lt_run(L, "cache = setmetatable({}, {__mode = 'v'})\n"
              "keep = {}\n"
              "for i = 1, 50 do keep[i] = {i} end\n"
              "for i = 1, 50 do cache[i] = {i} end\n"
              "collectgarbage('stop')\n"
              "local long = ('g'):rep(1500)\n"
              "room(64 * 1024)\n"
              "for i = 1, 5000 do\n"
              "    local t = {i, {i}, long:sub(1, i % 1500)}\n"
              "    assert(#t[3] == i % 1500)\n"
              "end\n"
              "room(0)\n"
              "collectgarbage('restart')\n"
              "for i = 1, 50 do assert(keep[i][1] == i) end\n"
              "assert(next(cache) == nil)");
    cr_expect_gt(lt_stats(heap).limit_refusals, (uint64_t)10);
    hak_lua_close(L);
}

/* Finalizers that fail for want of memory are no end of the world. */
Test(limit, in_finalizers)
{
    lt_needs(LT_54);
    lua_State *L = open_with_room();
    lt_run(L, "local tried = 0\n"
              "for i = 1, 50 do\n"
              "    setmetatable({}, {__gc = function()\n"
              "        tried = tried + 1\n"
              "        local s = ('x'):rep(1 << 20)\n"
              "    end})\n"
              "end\n"
              "room(20000)\n"
              "collectgarbage()\n"
              "room(0)\n"
              "assert(tried == 50)");
    hak_lua_close(L);
}

/* A limit below what is live: reading goes on, growing fails, freeing helps. */
Test(limit, below_live)
{
    lt_needs(LT_53);
    lua_State *L = lt_open(LT_HEAP);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    lt_run(L, "t = {} for i = 1, 1000 do t[i] = {i} end\n"
              "function total()\n"
              "    local n = 0\n"
              "    for i = 1, #t do n = n + t[i][1] end\n"
              "    return n\n"
              "end\n"
              "function drop() for i = #t, 1, -1 do t[i] = nil end end");
    lt_collect(L);
    hak_lua_heap_limit(heap, lt_live(heap) / 2);
    lua_getglobal(L, "total");
    cr_assert_eq(lua_pcall(L, 0, 1, 0), LUA_OK);
    cr_expect_eq(lua_tointeger(L, -1), 500500);
    cr_expect_eq(luaL_loadstring(L, "return {}"), LUA_ERRMEM);
    lua_settop(L, 0);
    lua_getglobal(L, "drop");
    cr_assert_eq(lua_pcall(L, 0, 0, 0), LUA_OK);
    lt_collect(L);
    lt_run(L, "assert(#t == 0) t = {1, 2, 3}");
    hak_lua_close(L);
}

/*
 * Closing with the limit hit: finalizers may fail, nothing is lost. They use
 * no luaL_Buffer: stock Lua loses its box if there is no memory to close it.
 */
Test(limit, close_at_the_limit)
{
    lt_needs(LT_NOT_55);
    lt_text text = {0};
    lt_stderr capture = lt_stderr_begin();
    for (size_t room = 0; room < 3000; room += 100) {
        lua_State *L = lt_open(LT_HEAP);
        lt_run(L, "for i = 1, 30 do\n"
                  "    setmetatable({}, {__gc = function(o)\n"
                  "        o.t = {{i}, {i, {}}, coroutine.create(print)}\n"
                  "    end})\n"
                  "end");
        hak_lua_heap *heap = hak_lua_heap_of(L);
        hak_lua_heap_limit(heap, lt_live(heap) + room);
        hak_lua_close(L);
    }
    lt_stderr_end(&capture, &text);
    cr_expect_str_eq(lt_text_get(&text), "", "%s", lt_text_get(&text));
}
