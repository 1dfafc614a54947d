/*
 * versions.c - what every Lua is promised, in a language that every version knows: 5.1 to
 * 5.5 and LuaJIT. On 5.4 the other programs of this folder say more.
 *
 * Obeys: what module.c does.
 */
#include <limits.h>

#include "lua_test.h"

#define MB ((size_t)1 << 20)

TestSuite(versions, .timeout = 120);

/* Opens libraries and the module in a state, which may be any. */
static lua_State *with_module(lua_State *L)
{
    cr_assert(L);
    luaL_openlibs(L);
    lua_pushcfunction(L, luaopen_hakmem);
    lua_call(L, 0, 1);
    lua_setglobal(L, "hakmem");
    return L;
}

static const char *error_of(lua_State *L, const char *code)
{
    return luaL_dostring(L, code) != LUA_OK ? lua_tostring(L, -1) : "no error";
}

Test(versions, live_bytes_are_lua_s_count)
{
    lua_State *L = with_module(hak_lua_newstate(NULL));

    lt_run(L, "t = {} for i = 1, 50000 do t[i] = {tostring(i)} end");
    cr_expect_eq(lt_live(hak_lua_heap_of(L)), lt_counted(L));
    lt_run(L, "t = nil collectgarbage() collectgarbage()");
    cr_expect_eq(lt_live(hak_lua_heap_of(L)), lt_counted(L));
    hak_lua_close(L);
}

static int count_heaps(void *ud, const hak_lua_heap *heap, const char *name,
                       const hak_lua_stats *stats)
{
    (void)heap, (void)name, (void)stats;
    ++*(int *)ud;
    return 0;
}

static int heaps(void)
{
    int count = 0;

    hak_lua_each(count_heaps, &count);
    return count;
}

/* A state that was switched, closed by lua_close, leaves no heap and no memory. */
Test(versions, a_switched_state_leaves_nothing)
{
    long before = 0;

    for (int i = 0; i < 300; i++) {
        lua_State *L = with_module(luaL_newstate());

        lt_run(L, "t = {} for i = 1, 3000 do t[i] = {tostring(i)} end");
        lua_close(L);
        cr_assert_eq(heaps(), 0, "round %d", i);
        if (i == 20) {
            before = lt_resident();
        }
    }
    if (lt_native()) {
        cr_expect_lt(lt_resident(), before + 4096, "KB, was %ld", before);
    }
}

/* Mappings of the process: LuaJIT's arenas are some. */
static int mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    int lines = 0, c;

    cr_assert(file);
    while ((c = getc(file)) != EOF) {
        lines += c == '\n';
    }
    fclose(file);
    return lines;
}

Test(versions, no_arena_is_left_mapped)
{
    int before = 0;

    for (int i = 0; i < 200; i++) {
        lua_State *L = luaL_newstate();

        cr_assert(hak_lua_switch(L, NULL));
        if (i % 2 == 0) {
            lua_close(L);
        } else {
            hak_lua_close(L);
        }
        if (i == 20) {
            before = mappings();
        }
    }
    cr_expect_lt(mappings(), before + 20, "was %d", before);
}

/* 5.1 and LuaJIT don't say which thread is the main one. */
Test(versions, a_coroutine_switches)
{
    for (int i = 0; i < 20; i++) {
        lua_State *L = luaL_newstate();

        luaL_openlibs(L);
        lua_pushcfunction(L, luaopen_hakmem);
        lua_setglobal(L, "open");
        lt_run(L,
               "local co = coroutine.create(function() hakmem = open() end)\n"
               "assert(coroutine.resume(co)) co = nil collectgarbage()\n"
               "t = {} for i = 1, 3000 do t[i] = {tostring(i)} end\n"
               "hakmem.on_limit(3000000, function() return 'collect' end)\n"
               "for i = 1, 100000 do local x = {i} end\n");
        lua_close(L);
        cr_assert_eq(heaps(), 0);
    }
}

Test(versions, a_hard_limit_is_an_error_that_pcall_catches)
{
    lua_State *L = with_module(hak_lua_newstate(NULL));

    lt_run(L, "hakmem.limit(8 * 1024 * 1024)");
    for (int i = 0; i < 3; i++) {
        lt_run(L, "local ok, text = pcall(function()\n"
                  "    local t = {} for i = 1, 10000000 do t[i] = {} end end)\n"
                  "assert(not ok and text == 'not enough memory', text)\n"
                  "collectgarbage()");
        cr_expect_leq(lt_stats(hak_lua_heap_of(L)).peak_bytes, 8 * MB);
    }
    cr_expect_gt(lt_stats(hak_lua_heap_of(L)).limit_refusals, 0);
    lt_run(L, "local s = string.rep('x', 1000000) assert(#s == 1000000)");
    hak_lua_close(L);
}

/* Where Lua does not collect at a refusal, the collector's own pace must do. */
Test(versions, garbage_alone_does_not_reach_a_soft_limit_that_collects)
{
    lua_State *L = with_module(hak_lua_newstate(NULL));

    lt_run(L,
           "asked = 0\n"
           "hakmem.on_limit(4 * 1024 * 1024, function(live, soft, collected)\n"
           "    asked = asked + 1\n"
           "    if not collected then return 'collect' end\n"
           "end)\n"
           "hakmem.limit(64 * 1024 * 1024)\n"
           "local keep = {} for i = 1, 20000 do keep[i] = {i} end\n"
           "for i = 1, 2000000 do local x = {i} end\n"
           "assert(collectgarbage('count') < 8 * 1024)");
    hak_lua_close(L);
}

Test(versions, a_soft_limit_s_refusal_is_an_error)
{
    static const char *const codes[] = {
        "local t = {} for i = 1, 3000000 do t[i] = {i} end",
        "coroutine.wrap(function()\n"
        "    local t = {} for i = 1, 3000000 do t[i] = {i} end end)()"};

    for (unsigned i = 0; i < 2; i++) {
        lua_State *L = with_module(hak_lua_newstate(NULL));

        lt_run(L, "hakmem.on_limit(4 * 1024 * 1024, function(_, _, collected)\n"
                  "    if not collected then return 'collect' end end)");
        cr_expect(strstr(error_of(L, codes[i]), "not enough memory"), "%u: %s",
                  i, lua_tostring(L, -1));
        hak_lua_close(L);
    }
}

Test(versions, a_callback_in_c_decides_at_once)
{
    lua_State *L = with_module(hak_lua_newstate(NULL));
    hak_lua_heap *heap = hak_lua_heap_of(L);

    hak_lua_heap_limit(heap, 4 * MB);
    cr_expect_eq(hak_lua_heap_reserve(heap, MB), 0);
    cr_expect(
        strstr(error_of(L, "local t = {} for i = 1, 3000000 do t[i] = {i} end"),
               "not enough memory"));
    lua_settop(L, 0);
    lt_run(L, "collectgarbage() collectgarbage() "
              "assert(collectgarbage('count') < 2048)");
    hak_lua_close(L);
}

Test(versions, types_that_are_made_are_told)
{
    lua_State *L = with_module(hak_lua_newstate(NULL));
    hak_lua_stats before, after;

    lt_needs(LT_TYPES);
    before = lt_stats(hak_lua_heap_of(L));
    lt_run(L,
           "local t = {} for i = 1, 1000 do t[i] = {} end\n"
           "for i = 1, 1000 do t[i] = function() return i, t end end\n"
           "for i = 1, 100 do t[i] = coroutine.create(print) end\n"
           "for i = 1, 10 do t[i] = (loadstring or load)('return ' .. i) end");
    after = lt_stats(hak_lua_heap_of(L));
#define MADE(type) (after.type_count[type] - before.type_count[type])
    cr_expect_geq(MADE(HAK_LUA_TABLE), 1001);
    cr_expect_geq(MADE(HAK_LUA_FUNCTION), 1010);
    cr_expect_eq(MADE(HAK_LUA_THREAD), 100);
    cr_expect_geq(MADE(HAK_LUA_PROTOTYPE), 10);
    cr_expect_lt(MADE(HAK_LUA_PROTOTYPE), 20);
    if (LT_LUA != 503) { /* there an upvalue is no object */
        cr_expect_geq(MADE(HAK_LUA_UPVALUE), 1000);
    }
    hak_lua_close(L);
}

Test(versions, what_is_not_told_is_said)
{
    lua_State *L = with_module(hak_lua_newstate(NULL));

    if (LT_LUA == 504) {
        cr_skip_test("told, see types.c");
    }
    lt_run(L, "local t, why = hakmem.types() assert(t == nil and "
              "why:find('5.4', 1, true))");
    hak_lua_close(L);
}

/* Reads a file whole. */
static void read_file(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "r");

    cr_assert(file, "%s", path);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

Test(versions, a_profile_has_lines_of_lua)
{
    static const char code[] = "keep = {}\n"
                               "local function inner() for i = 1, 30000 do\n"
                               "    keep[#keep + 1] = tostring(i) .. 'x'\n"
                               "end end\n"
                               "function outer() inner() return 1 end\n"
                               "coroutine.wrap(function() outer() end)()\n";
    lua_State *L = with_module(hak_lua_newstate(NULL));
    static char text[1 << 20];
    const char *folder = getenv("TMPDIR");
    char path[PATH_MAX];

    lt_needs(LT_FRAMES);
    snprintf(path, sizeof path, "%s/hakmem-versions-XXXXXX.txt",
             folder != NULL ? folder : P_tmpdir);
    cr_assert(close(mkstemps(path, 4)) == 0);
    lua_pushstring(L, path);
    lua_setglobal(L, "path");
    lt_run(L, "p = hakmem.profile{rate = 1024}");
    cr_assert_eq(luaL_loadbuffer(L, code, strlen(code), "@some.lua"), 0);
    cr_assert_eq(lua_pcall(L, 0, 0, 0), 0, "%s", lua_tostring(L, -1));
    lt_run(L, "assert(p:write(path)) p:stop()");
    read_file(path, text, sizeof text);
    unlink(path);
    cr_expect(strstr(text, "inner (some.lua:3)"), "%.2000s", text);
    cr_expect(strstr(text, "main chunk (some.lua:6)"), "%.2000s", text);
    hak_lua_close(L);
}

/* Every block a sample, so that each kind of allocation is walked from within. */
Test(versions, every_block_is_a_sample)
{
    lua_State *L = with_module(luaL_newstate());

    lt_run(
        L,
        "p = hakmem.profile{rate = 1}\n"
        "local function deep(n) if n > 0 then return 1 + deep(n - 1) end "
        "return 0 end\n"
        "for i = 1, 20 do coroutine.wrap(function() deep(i * 300) end)() end\n"
        "deep(15000) collectgarbage()\n"
        "local t = {} for i = 1, 3000 do t[i] = {i, x = {}} end\n"
        "local s = {} for i = 1, 300 do s[i] = ('y'):rep(i * 10) end\n"
        "table.concat(s) string.gsub(table.concat(s), 'y', 'zz')\n"
        "for i = 1, 30 do assert(not pcall(error, {})) end\n"
        "assert((loadstring or load)('local a = {} return function() return a "
        "end'))()\n"
        "setmetatable(t, {__index = function(_, k) return {k} end})\n"
        "for i = 1, 100 do local x = t[-i] end\n"
        "local big = {} for i = 1, 600000 do big[i] = i end\n"
        "p:stop()");
    lua_close(L);
}

/* The interpreter that people have loads the module by itself. */
Test(versions, require_in_a_stock_interpreter)
{
    const char *program = getenv("LUA"),
               *folder = getenv("HAKMEM_TEST_LUA_MODULE_DIR");
    char command[1024];

    snprintf(command, sizeof command,
             "LUA_CPATH='%s/?.so' %s -lhakmem -e \"hakmem = require 'hakmem' "
             "local t = {} for i = 1, 1000 do t[i] = {} end "
             "assert(hakmem.stats().tiny_allocs > 1000)\"",
             folder != NULL ? folder : "build/release/lua",
             program != NULL ? program : "lua5.4");
    if (LT_SANITIZED ||
        (folder == NULL && access("build/release/lua/hakmem.so", R_OK) != 0)) {
        cr_skip_test("the stock interpreter has no sanitizer");
    }
    cr_expect_eq(system(command), 0, "%s", command);
}
