/*
 * on_limit.c - the module's soft limit, whose callback is a Lua function, and
 * its reserve: in the main chunk, in coroutines, in both modes of the
 * collector, with other hooks.
 */
#include "lua_test.h"

TestSuite(on_limit, .timeout = 300);

static lua_State *open_module(lt_mode mode)
{
    lua_State *L = lt_open(mode);
    luaL_requiref(L, "hakmem", luaopen_hakmem, 1);
    lua_settop(L, 0);
    lt_run(L, "function hog(n)\n"
              "    local t = {}\n"
              "    for i = 1, n or 1e7 do t[i] = {i} end\n"
              "    return #t\n"
              "end\n"
              "function live() return hakmem.stats().live_bytes end\n"
              "calls = {}\n"
              "function note(...) calls[#calls + 1] = {...} end\n"
              "function expect_refused(ok, message)\n"
              "    assert(not ok, 'not refused')\n"
              "    assert(message == 'not enough memory', message)\n"
              "end\n");
    return L;
}

/* Runs code in the main chunk and in a coroutine, made before or after. */
static void everywhere(const char *code)
{
    static const char *const places[] = {
        "f()", "coroutine.wrap(f)()",
        "coroutine.wrap(function() coroutine.wrap(f)() end)()",
        "collectgarbage('generational') f()",
        "collectgarbage('generational') coroutine.wrap(f)()"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (lt_mode mode = LT_STOCK; mode <= LT_HEAP; mode++) {
            lua_State *L = open_module(mode);
            lua_pushfstring(L, "local function f() %s end %s", code, places[i]);
            lt_run(L, lua_tostring(L, -1));
            hak_lua_close(L);
        }
}

/* How far a state may go beyond the soft limit before the function runs. */
#define SLACK " + (64 << 10)"

Test(on_limit, a_larger_limit)
{
    everywhere("local before = live()\n"
               "assert(hakmem.on_limit(1 << 20, function(live, soft, c)\n"
               "    note(live, soft, c)\n"
               "    return soft * 2\n"
               "end) == 0)\n"
               "assert(hog(60000) == 60000)\n" /* 5 MB */
               "assert(#calls == 3, #calls)\n"
               "for i = 1, 3 do\n"
               "    local live, soft, collected = table.unpack(calls[i])\n"
               "    assert(soft == (1 << 20) * 2 ^ (i - 1))\n"
               "    assert(live > soft and live < soft" SLACK ", live)\n"
               "    assert(collected == false)\n"
               "end\n"
               "assert(hakmem.on_limit(0) == 8 << 20)");
}

Test(on_limit, no_limit_any_more)
{
    everywhere("hakmem.on_limit(1 << 20, function() note() return 0 end)\n"
               "assert(hog(100000) == 100000)\n"
               "assert(#calls == 1 and hakmem.on_limit() == 0)\n"
               "hakmem.on_limit(1000000, note)\n"
               "assert(hakmem.on_limit() == 1000000, 'it only asks')\n"
               "assert(hakmem.on_limit(nil) == 1000000)\n"
               "assert(hakmem.on_limit(0, 'no function') == 1000000)\n"
               "hog(100000)\n"
               "assert(#calls == 1 and hakmem.on_limit() == 0)");
}

Test(on_limit, a_refusal)
{
    everywhere("hakmem.on_limit(1 << 20, function(live) note(live) end)\n"
               "for i = 1, 5 do\n"
               "    expect_refused(pcall(hog))\n"
               "    assert(#calls >= i, #calls)\n"
               "    assert(calls[#calls][1] < (5 << 18)" SLACK ")\n"
               "    collectgarbage()\n"
               "end\n"
               "assert(hakmem.stats().peak_bytes < (3 << 19)" SLACK ")\n");
}

/* Who handles the error has a sixteenth, or the reserve, to do it. */
Test(on_limit, room_for_the_handler)
{
    everywhere("hakmem.on_limit(1 << 20, function() note() end)\n"
               "hakmem.reserve(200000)\n"
               "local kept = {}\n"
               "expect_refused(pcall(function()\n"
               "    for i = 1, 1e7 do kept[i] = {i} end end))\n"
               "local n = #calls\n"
               "local report = {}\n"
               "for i = 1, 1000 do report[i] = 'line ' .. i end\n"
               "assert(#table.concat(report) > 7000 and #calls == n)\n"
               "expect_refused(pcall(hog))\n"
               "assert(#calls > n)\n"
               "kept, report = nil\n"
               "collectgarbage() collectgarbage()\n"
               "n = #calls\n"
               "expect_refused(pcall(hog))\n"
               "assert(#calls > n)\n");
}

Test(on_limit, a_collection)
{
    everywhere("cache = {}\n"
               "hakmem.on_limit(1 << 20, function(live, soft, collected)\n"
               "    note(live, soft, collected)\n"
               "    for k in pairs(cache) do cache[k] = nil end\n"
               "    return 'collect'\n"
               "end)\n"
               "for i = 1, 100000 do cache[i % 15000] = {i} end\n"
               "for i = 1, #calls do assert(not calls[i][3]) end\n"
               "assert(#calls > 0)\n"
               "local n = #calls\n"
               "expect_refused(pcall(hog))\n"
               "assert(calls[#calls][3] and #calls >= n + 2)\n");
}

Test(on_limit, errors_are_those_of_the_code)
{
    everywhere("hakmem.on_limit(1 << 20, function() error('my own', 0) end)\n"
               "local ok, message = pcall(hog)\n"
               "assert(not ok and message == 'my own', message)\n"
               "hakmem.on_limit(1 << 20, function() return {} end)\n"
               "collectgarbage()\n"
               "ok, message = pcall(hog)\n"
               "assert(not ok and message:find 'returned a table', message)\n"
               "hakmem.on_limit(1 << 20, function() return 1.5 end)\n"
               "collectgarbage()\n"
               "ok, message = pcall(hog)\n"
               "assert(not ok and message:find 'returned 1.5', message)\n"
               "hakmem.on_limit(1 << 20, function() return 'colect' end)\n"
               "collectgarbage()\n"
               "ok, message = pcall(hog)\n"
               "assert(not ok and message:find '\"collect\"', message)\n");
}

/* The function may use memory, change everything, and be replaced. */
Test(on_limit, the_function_may_do_anything)
{
    everywhere("hakmem.on_limit(1 << 20, function()\n"
               "    hog(50000)\n" /* beyond the limit: it is not called again */
               "    collectgarbage()\n"
               "    assert(hakmem.on_limit(3 << 20, function()\n"
               "        note('second')\n"
               "        hakmem.on_limit(0)\n"
               "    end) == 1 << 20)\n"
               "    note('first')\n"
               "end)\n"
               "assert(hog(100000) == 100000)\n"
               "assert(#calls == 2 and calls[1][1] == 'first')\n"
               "assert(calls[2][1] == 'second')");
}

/* The hard limit holds; the soft one comes first. */
Test(on_limit, below_a_hard_limit)
{
    everywhere("hakmem.limit(2 << 20)\n"
               "hakmem.on_limit(1 << 20, function() note() return 0 end)\n"
               "expect_refused(pcall(hog))\n"
               "assert(#calls == 1)\n"
               "assert(hakmem.stats().peak_bytes <= 2 << 20)");
}

/* What hooks a program has are as before. */
Test(on_limit, other_hooks)
{
    everywhere("local lines = 0\n"
               "local function count() lines = lines + 1 end\n"
               "debug.sethook(count, '', 1000)\n"
               "hakmem.on_limit(1 << 20, function(l, soft)\n"
               "    note() return soft + (1 << 20) end)\n"
               "hog(100000)\n"
               "assert(#calls > 5)\n"
               "local hook, mask, n = debug.gethook()\n"
               "assert(hook == count and mask == '' and n == 1000)\n"
               "assert(lines > 100, lines)");
    everywhere("hakmem.on_limit(1 << 20, function() note() return 0 end)\n"
               "hog(100000)\n"
               "assert(#calls == 1 and debug.gethook() == nil)");
}

/* And so is the collector. */
/* A hook that is set while the call is due only puts it off. */
Test(on_limit, a_hook_that_replaces_ours)
{
    lua_State *L = open_module(LT_HEAP);

    lt_run(L, "local main = coroutine.running()\n"
              "local function other() end\n"
              "hakmem.on_limit(1 << 20, function() note() return 0 end)\n"
              "collectgarbage('stop')\n"
              "coroutine.wrap(function()\n"
              "    hog(20000)\n"
              "    debug.sethook(main, other, '', 1 << 30)\n"
              "end)()\n"
              "collectgarbage('restart')\n"
              "keep = {}\n"
              "for i = 1, 100000 do keep[i] = {i} end\n"
              "assert(#calls == 1, #calls)\n"
              "assert(debug.gethook() == other)");
    hak_lua_close(L);
}

Test(on_limit, the_collector_is_as_before)
{
    lua_State *L = open_module(LT_HEAP);
    lt_run(L,
           "collectgarbage('setstepmul', 240)\n"
           "hakmem.on_limit(1 << 20, function(l, s) note() return s * 2 end)\n"
           "hog(100000)\n"
           "coroutine.wrap(hog)(100000)\n"
           "assert(#calls >= 3)\n"
           "assert(collectgarbage('setstepmul', 240) == 240)\n"
           "collectgarbage('stop')\n"
           "hog(400000)\n"
           "assert(not collectgarbage('isrunning'))\n"
           "assert(#calls >= 5, #calls)");
    hak_lua_close(L);
}

/* Coroutines by the hundred, made and dropped while a call is due. */
Test(on_limit, many_coroutines)
{
    lua_State *L = open_module(LT_STOCK);
    lt_run(L, "hakmem.on_limit(1 << 18, function(l, s)\n"
              "    note() return s + 20000 end)\n"
              "local kept = {}\n"
              "for i = 1, 2000 do\n"
              "    local co = coroutine.wrap(function()\n"
              "        local t = {}\n"
              "        for k = 1, 50 do t[k] = {k} coroutine.yield() end\n"
              "        kept[i % 700] = t\n"
              "    end)\n"
              "    for k = 1, i % 3 == 0 and 51 or 20 do co() end\n"
              "end\n"
              "assert(#calls > 3 and debug.gethook() == nil)");
    lua_close(L);
}

/* A state that ends while a call is due, by every way to close it. */
Test(on_limit, a_call_that_is_due_at_the_end)
{
    for (int i = 0; i < 20; i++) {
        lua_State *L = open_module(i % 2 ? LT_STOCK : LT_HEAP);
        lt_run(L, "hakmem.on_limit(live() + 100000, function() note() end)\n"
                  "setmetatable({}, {__gc = function() hog(50000) end})");
        lua_newuserdatauv(L, 200000, 0);
        if (i % 4 < 2)
            lua_close(L);
        else
            hak_lua_close(L);
    }
}

/* What a host in C has set is what a script finds. */
Test(on_limit, the_reserve_of_the_host)
{
    hak_lua_config config = {.size = sizeof config, .reserve = 12345};
    lua_State *L = hak_lua_newstate(&config);
    luaL_openlibs(L);
    luaL_requiref(L, "hakmem", luaopen_hakmem, 1);
    lt_run(L, "assert(hakmem.reserve() == 12345)\n"
              "hakmem.on_limit(1 << 30, print)\n"
              "assert(hakmem.reserve() == 12345)\n");
    hak_lua_close(L);
}

/* A hook does not disturb what the code that it interrupts has at hand. */
Test(on_limit, registers_and_closing_variables)
{
    everywhere("local closed = false\n"
               "hakmem.on_limit(1 << 20, function(live, soft)\n"
               "    note() return soft + 100000 end)\n"
               "do\n"
               "    local c <close> = setmetatable({}, {__close = function()\n"
               "        closed = true end})\n"
               "    local a, b, d = {1}, {2}, {3}\n"
               "    local t = {}\n"
               "    for i = 1, 30000 do\n"
               "        t[i] = {a[1] + i, b, {d, i}}\n"
               "        assert(not closed and a[1] == 1 and b[1] == 2)\n"
               "    end\n"
               "    for i = 1, 30000 do\n"
               "        assert(t[i][1] == i + 1 and t[i][3][2] == i)\n"
               "    end\n"
               "end\n"
               "assert(closed and #calls > 10, #calls)");
}

Test(on_limit, bad_arguments)
{
    lua_State *L = open_module(LT_HEAP);
    lt_run(
        L,
        "local function bad(f, part, ...)\n"
        "    local ok, message = pcall(f, ...)\n"
        "    assert(not ok and message:find(part, 1, true), message)\n"
        "end\n"
        "bad(hakmem.on_limit, 'a soft limit is 0 (none) or bytes', -1, note)\n"
        "bad(hakmem.on_limit, 'number expected, got string', 'x', note)\n"
        "bad(hakmem.on_limit, 'no integer representation', 1.5, note)\n"
        "bad(hakmem.on_limit, 'function expected', 1000)\n"
        "bad(hakmem.on_limit, 'function expected', 1000, {})\n"
        "bad(hakmem.reserve, 'a reserve is 0 (none) or bytes', -1)\n"
        "bad(hakmem.reserve, 'number expected', {})\n"
        "assert(hakmem.on_limit() == 0 and hakmem.reserve() == 0)\n"
        "assert(hakmem.reserve(1000) == 0 and hakmem.reserve() == 1000)\n"
        "assert(hakmem.reserve(0) == 1000)\n"
        "assert(hog(10000) == 10000)\n");
    hak_lua_close(L);
}
