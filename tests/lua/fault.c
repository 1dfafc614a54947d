/*
 * fault.c - the n-th growing call fails, n = 1, 2, 3 ... until the script
 * succeeds: once (Lua collects and asks again), twice in a row, and from the
 * n-th on. On heaps (all lanes, Tiny alone) and on the thread's heap; nothing
 * leaks, nothing crashes.
 */
#include "lua_test.h"

TestSuite(fault, .timeout = 600);

/* hak_lua_alloc, except that growing calls first .. last fail. */
typedef struct faulty {
    void *ud;
    long count, first, last;
    long failed;
    size_t live;
} faulty;

static void *faulty_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    faulty *f = ud;
    size_t old = ptr ? osize : 0;
    if (nsize > old) {
        f->count++;
        if (f->count >= f->first && f->count <= f->last) {
            f->failed++;
            return NULL;
        }
    }
    void *result = hak_lua_alloc(f->ud, ptr, osize, nsize);
    cr_assert(result || !nsize, "no memory for %zu bytes", nsize);
    f->live += nsize - old;
    return result;
}

static const char script[] =
    "local t = {}\n"
    "for i = 1, 30 do t[i] = {i, k = 'v' .. i} end\n"
    "local co = coroutine.wrap(function(n)\n"
    "    local function deep(k) return k == 0 and 0 or 1 + deep(k - 1) end\n"
    "    coroutine.yield(deep(n))\n"
    "end)\n"
    "assert(co(60) == 60)\n"
    "local s = ('ab'):rep(800):gsub('a', 'xyz')\n"
    "assert(#s == 3200)\n"
    "local f = assert(load('local a, b = 1, {} return function() return b "
    "end'))\n"
    "assert(f()())\n"
    "table.sort(t, function(a, b) return a.k .. 'x' < b.k .. 'x' end)\n"
    "assert(#table.concat({s, s}, ',') == 6401)\n"
    "local big = ('z'):rep(60000) .. s\n"
    "assert(#(big:rep(40)) == 40 * 63200)\n"
    "return #string.format('%s%d', s, 1)\n";

static int run_all(lua_State *L)
{
    luaL_openlibs(L);
    if (luaL_loadstring(L, script) != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 1);
    return 1;
}

/* Only these may come out of a run in which an allocation failed. */
static bool known_error(const char *message)
{
    static const char *const known[] = {"not enough memory", "stack overflow",
                                        "too many"};
    for (int i = 0; message && i < 3; i++)
        if (strstr(message, known[i]))
            return true;
    return false;
}

/* One run; true if the script got to its end with the right result. */
static bool run_once(faulty *f)
{
    lua_State *L = lua_newstate(faulty_alloc, f);
    bool good = false;
    if (!L) {
        cr_assert_gt(f->failed, 0, "no state, though no call failed");
        cr_assert_eq(f->live, (size_t)0);
        return false;
    }
    lua_pushcfunction(L, run_all);
    if (lua_pcall(L, 0, 1, 0) == LUA_OK) {
        cr_assert_eq(lua_tointeger(L, -1), 3201);
        good = true;
    } else {
        cr_assert_gt(f->failed, 0, "%s, though no call failed",
                     lua_tostring(L, -1));
        cr_assert(known_error(lua_tostring(L, -1)), "%s", lua_tostring(L, -1));
    }
    lua_settop(L, 0);
    f->first = f->last = 0;
    lt_collect(L); /* also the box of a luaL_Buffer, which Lua doesn't count */
    cr_assert_eq(f->live, lt_counted(L), "%zu live, Lua counts %zu", f->live,
                 lt_counted(L));
    lua_close(L);
    cr_assert_eq(f->live, (size_t)0, "%zu live after lua_close", f->live);
    return good;
}

/* How many calls in a row fail decides what Lua can do about it. */
static void fail_each(lt_mode mode, long in_a_row, bool retried)
{
    hak_lua_config config = {.size = sizeof config,
                             .lanes = mode == LT_TINY ? HAK_LUA_LANES_TINY
                                                      : HAK_LUA_LANES_ALL};
    long step = lt_divisor() > 1 ? 17 : 1, errors = 0;
    hak_lua_heap *heap = mode == LT_THREAD ? NULL : hak_lua_heap_new(&config);
    for (long n = 1;; n += step) {
        faulty f = {.ud = heap, .first = n, .last = n + in_a_row - 1};
        bool good = run_once(&f);
        if (heap)
            cr_assert_eq(lt_live(heap), (size_t)0, "failing call %ld", n);
        errors += !good;
        if (good && !f.failed)
            break;
    }
    if (!retried)
        cr_expect_gt(errors, 20L);
    hak_lua_heap_delete(heap);
}

Test(fault, one_call_on_a_heap)
{
    fail_each(LT_HEAP, 1, true);
}

Test(fault, two_calls_on_a_heap)
{
    fail_each(LT_HEAP, 2, false);
}

Test(fault, all_calls_on_a_heap)
{
    fail_each(LT_HEAP, 1 << 20, false);
}

Test(fault, one_call_with_tiny_alone)
{
    fail_each(LT_TINY, 1, true);
}

Test(fault, all_calls_with_tiny_alone)
{
    fail_each(LT_TINY, 1 << 20, false);
}

Test(fault, one_call_on_the_thread_heap)
{
    fail_each(LT_THREAD, 1, true);
}

Test(fault, two_calls_on_the_thread_heap)
{
    fail_each(LT_THREAD, 2, false);
}

Test(fault, all_calls_on_the_thread_heap)
{
    fail_each(LT_THREAD, 1 << 20, false);
}
