/*
 * oom.c - the n-th call to the system fails, n = 1, 2, 3 ... until none does:
 * a script that uses every lane goes on (the fallback helps), its contents are
 * right, its statistics exact, and in the end nothing is lost.
 *
 * Uses core/os/os.h for the failing calls; otherwise as lua_test.h.
 */
#include "lua_test.h"

#include "os/os.h"

TestSuite(oom, .timeout = 300);

static const char script[] =
    "local t, parts = {}, {}\n"
    "for i = 1, 3000 do t[i] = {i, 's' .. i} end\n"
    "for i = 1, 40 do parts[i] = ('p'):rep(i * 1500) end\n"
    "local s = table.concat(parts)\n"
    "local big = {}\n"
    "for i = 1, 140000 do big[i] = i end\n"
    "local huge = s .. s .. s\n"
    "for i = 1, 3000 do assert(t[i][1] == i and t[i][2] == 's' .. i) end\n"
    "for i = 1, 140000, 999 do assert(big[i] == i) end\n"
    "for i = 1, 40 do assert(#parts[i] == i * 1500) end\n"
    "assert(huge:sub(#s + 1, 2 * #s) == s)\n"
    "for i = 140000, 1, -1 do big[i] = nil end\n"
    "big.x = 1\n"
    "return #huge\n";

/*
 * Each n has a process of its own, so that it finds the range not made yet and
 * no memory left over. Criterion's assertions can't be used there.
 */
static void need(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "oom: %s\n", what);
        _exit(1);
    }
}

static size_t process_bytes(void)
{
    hak_stats_t stats = {.size = sizeof stats};
    need(hak_stats(&stats) == 0, "no figures");
    return stats.pool_live_bytes + stats.ace_live_bytes + stats.huge_live_bytes;
}

static lua_State *make_state(lt_mode mode)
{
    return mode == LT_THREAD
               ? lua_newstate(hak_lua_alloc, NULL)
               : lt_state_with(mode == LT_TINY ? HAK_LUA_LANES_TINY
                                               : HAK_LUA_LANES_ALL,
                               0);
}

typedef struct answer {
    unsigned calls; /* that could be refused */
    bool fallback;  /* whether it had to help */
} answer;

/* One state, from its making to its end. */
static answer run(lt_mode mode, unsigned n, bool forever)
{
    answer result = {0};
    hak_lua_stats stats = {.size = sizeof stats};
    haki_os_test_refuse(n, forever);
    lua_State *L = make_state(mode);
    if (L == NULL) { /* no heap: said so, nothing made */
        need(mode != LT_THREAD && n > 0, "no state");
        result.calls = haki_os_test_calls();
        result.fallback = true;
        haki_os_test_refuse(0, false);
        return result;
    }
    luaL_openlibs(L);
    if (luaL_dostring(L, script) != LUA_OK)
        need(false, lua_tostring(L, -1));
    need(lua_tointeger(L, -1) == 3 * 1230000, "a wrong result");
    result.calls = haki_os_test_calls();
    hak_lua_heap *heap = hak_lua_heap_of(L);
    if (heap != NULL) {
        hak_lua_heap_stats(heap, &stats);
        need(stats.live_bytes == lt_counted(L), "wrong figures");
        result.fallback = stats.fallback_memory > 0;
    }
    hak_lua_close(L);
    haki_os_test_refuse(0, false);
    return result;
}

static void child(lt_mode mode, unsigned n, bool forever, int channel)
{
    size_t before = process_bytes();
    answer result = run(mode, n, forever);
    need(process_bytes() == before, "blocks are lost");
    run(mode, 0, false); /* goes on as if nothing was */
    need(process_bytes() == before, "blocks are lost afterwards");
    need(write(channel, &result, sizeof result) == (ssize_t)sizeof result,
         "no pipe");
    _exit(0);
}

static answer in_child(lt_mode mode, unsigned n, bool forever)
{
    answer result = {0};
    int channel[2], status;
    cr_assert_eq(pipe(channel), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        child(mode, n, forever, channel[1]);
    close(channel[1]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0,
              "status %x with call %u refused", (unsigned)status, n);
    cr_assert_eq(read(channel[0], &result, sizeof result),
                 (ssize_t)sizeof result);
    close(channel[0]);
    return result;
}

static void fail_each(lt_mode mode, bool forever, unsigned step)
{
    unsigned last = in_child(mode, 0, false).calls, helped = 0;
    cr_assert_gt(last, 20u, "only %u calls", last);
    for (unsigned n = 1; n <= last; n += step)
        helped += in_child(mode, n, forever).fallback;
    if (mode != LT_THREAD)
        cr_expect_gt(helped, 0u, "no run needed the fallback");
}

static unsigned step(void)
{
    return lt_divisor() > 1 ? 7 : 1;
}

Test(oom, one_call_on_a_heap)
{
    lt_needs(LT_NOT_55);
    fail_each(LT_HEAP, false, step());
}

Test(oom, all_calls_on_a_heap)
{
    lt_needs(LT_NOT_55);
    fail_each(LT_HEAP, true, step());
}

Test(oom, all_calls_with_tiny_alone)
{
    lt_needs(LT_NOT_55);
    fail_each(LT_TINY, true, step());
}

Test(oom, one_call_on_the_thread_heap)
{
    fail_each(LT_THREAD, false, step());
}

Test(oom, all_calls_on_the_thread_heap)
{
    fail_each(LT_THREAD, true, step());
}
