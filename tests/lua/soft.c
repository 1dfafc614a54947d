/*
 * soft.c - the soft limit that calls back, and the reserve above a limit: as C
 * sees them (hak_lua_heap_on_limit, hak_lua_heap_reserve). As Lua sees them
 * they are module.c's.
 */
#include "lua_test.h"

TestSuite(soft, .timeout = 300);

static const char hog[] = "local t = {} for i = 1, 1e7 do t[i] = {i} end";

static lua_State *open_limited(size_t limit, size_t reserve)
{
    hak_lua_config config = {
        .size = sizeof config, .limit = limit, .reserve = reserve};
    lua_State *L = hak_lua_newstate(&config);
    cr_assert(L);
    luaL_openlibs(L);
    return L;
}

/* Runs code in a protected call; its status. */
static int try(lua_State *L, const char *code)
{
    int status = luaL_loadstring(L, code);
    if (status == LUA_OK)
        status = lua_pcall(L, 0, 0, 0);
    return status;
}

/* ---- the reserve ------------------------------------------------------- */

/* What a host does with an error, all of it in need of memory. */
static int report(lua_State *L)
{
    luaL_traceback(L, L, lua_tostring(L, 1), 0);
    for (int i = 0; i < 20; i++)
        lua_pushfstring(L, "%s (%d) %s", lua_tostring(L, -1), i, "limit");
    lua_createtable(L, 100, 10);
    lua_pushcfunction(L, report);
    luaL_checkstack(L, 200, NULL);
    return 0;
}

static int report_after(size_t reserve)
{
    lua_State *L = open_limited(200000, reserve);
    /* The hog's table stays: nothing but the reserve is left. */
    int status = try(L, "local t = {} T = t\n"
                        "collectgarbage('stop')\n"
                        "while true do t = {t} T = t end");
    cr_assert_eq(status, LUA_ERRMEM);
    lua_settop(L, 0);
    lua_pushcfunction(L, report);
    lua_pushliteral(L, "it failed");
    status = lua_pcall(L, 1, 0, 0);
    size_t live = lt_live(hak_lua_heap_of(L));
    cr_expect_leq(live, 200000 + reserve);
    if (reserve)
        cr_expect_gt(lt_stats(hak_lua_heap_of(L)).peak_bytes, (size_t)200000);
    hak_lua_close(L);
    return status;
}

Test(soft, an_error_can_be_reported_from_the_reserve)
{
    lt_needs(LT_53);
    cr_expect_eq(report_after(0), LUA_ERRMEM, "the limit is not tight enough");
    cr_expect_eq(report_after(32 << 10), LUA_OK);
}

/* Nothing goes beyond limit + reserve, whatever a script catches. */
Test(soft, the_reserve_has_an_end)
{
    lt_needs(LT_NOT_55);
    lua_State *L = open_limited(200000, 50000);
    cr_assert_eq(try(L,
                     "K = {}\n"
                     "local function more() while true do\n"
                     "    K[#K + 1] = {#K} end end\n"
                     "for i = 1, 20 do\n"
                     "    local ok, message = pcall(more)\n"
                     "    assert(not ok and message == 'not enough memory')\n"
                     "end"),
                 LUA_OK, "%s", lua_tostring(L, -1));
    hak_lua_stats stats = lt_stats(hak_lua_heap_of(L));
    cr_expect_leq(stats.peak_bytes, (size_t)250000);
    cr_expect_gt(stats.peak_bytes, (size_t)200000);
    hak_lua_close(L);
}

/* A state that has recovered meets its limit, not the reserve's end. */
Test(soft, the_reserve_closes_when_the_state_has_recovered)
{
    lua_State *L = open_limited(200000, 50000);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    for (int round = 0; round < 5; round++) {
        cr_assert_eq(try(L, hog), LUA_ERRMEM);
        lua_settop(L, 0);
        cr_expect_leq(lt_stats(heap).peak_bytes, (size_t)200000, "round %d",
                      round);
        lt_collect(L);
        cr_assert_lt(lt_live(heap), (size_t)100000);
    }
    hak_lua_close(L);
}

/* luaL_Buffer does not ask twice: the next request says that it gave up. */
Test(soft, a_request_that_is_not_repeated_opens_the_reserve)
{
    lua_State *L = open_limited(200000, 50000);
    /* Fill up to less than 2 KB below the limit, then a buffer fails. */
    lua_gc(L, LUA_GCSTOP);
    while (lt_live(hak_lua_heap_of(L)) < 198500)
        lua_newuserdatauv(L, 200, 0), luaL_ref(L, LUA_REGISTRYINDEX);
    cr_assert_neq(try(L, "return ('x'):rep(3000)"), LUA_OK);
    lua_settop(L, 0);
    cr_expect_eq(try(L, "local t = {} for i = 1, 200 do t[i] = {} end"), LUA_OK,
                 "%s", lua_tostring(L, -1));
    hak_lua_close(L);
}

/* Finalizers at the end have the reserve from the start. */
static int written;

static int count_writes(lua_State *L)
{
    (void)L;
    written++;
    return 0;
}

static int finalized(size_t room, size_t reserve)
{
    lua_State *L = open_limited(300000, reserve);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    written = 0;
    lua_register(L, "written", count_writes);
    lt_run(L, "objects = {}\n"
              "for i = 1, 50 do\n"
              "    objects[i] = setmetatable({}, {__gc = function()\n"
              "        local t = {} for k = 1, 100 do t[k] = {k} end\n"
              "        K = {K, t}\n"
              "        written() end})\n"
              "end\n");
    hak_lua_heap_limit(heap, lt_live(heap) + room);
    hak_lua_close(L);
    return written;
}

Test(soft, finalizers_of_a_close_have_the_reserve)
{
    lt_needs(LT_53);
    cr_expect_lt(finalized(0, 0), 50);
    cr_expect_eq(finalized(0, 1 << 20), 50);
    cr_expect_lt(finalized(100000, 0), 50);
    cr_expect_eq(finalized(100000, 1 << 20), 50);
}

/* ---- the soft limit ---------------------------------------------------- */

typedef struct script {
    size_t answers[8]; /* in turn; the last one for ever */
    int calls, collected;
    hak_lua_need last;
} script;

static size_t answer(void *arg, hak_lua_heap *heap, const hak_lua_need *need)
{
    script *s = arg;
    int i = s->calls < 7 ? s->calls : 7;
    while (i > 0 && s->answers[i] == 0)
        i--;
    s->last = *need;
    s->calls++;
    s->collected += need->collected;
    cr_assert_eq(need->size, sizeof *need);
    cr_assert_gt(need->live_bytes + need->bytes, need->soft_limit);
    cr_assert_leq(need->live_bytes, lt_live(heap));
    return s->answers[i];
}

static lua_State *open_soft(script *s, size_t soft, size_t limit)
{
    lua_State *L = open_limited(limit, 0);
    cr_assert_eq(hak_lua_heap_on_limit(hak_lua_heap_of(L), soft, answer, s), 0);
    return L;
}

Test(soft, a_callback_may_raise_the_limit)
{
    lt_needs(LT_COLLECTS);
    script s = {.answers = {200000, 400000, HAK_LUA_NO_LIMIT}};
    lua_State *L = open_soft(&s, 100000, 0);
    lt_run(L, "T = {} for i = 1, 20000 do T[i] = {i} end");
    cr_expect_eq(s.calls, 3);
    cr_expect_eq(s.collected, 0);
    cr_expect_eq(s.last.soft_limit, (size_t)400000);
    cr_expect_eq(s.last.limit, (size_t)0);
    cr_expect_gt(lt_live(hak_lua_heap_of(L)), (size_t)1000000);
    cr_expect_eq(lt_stats(hak_lua_heap_of(L)).refused, (uint64_t)0);
    hak_lua_close(L);
}

Test(soft, the_hard_limit_holds_whatever_a_callback_says)
{
    script s = {.answers = {HAK_LUA_NO_LIMIT}};
    lua_State *L = open_soft(&s, 100000, 300000);
    cr_expect_eq(try(L, hog), LUA_ERRMEM);
    cr_expect_eq(s.calls, 1);
    cr_expect_eq(s.last.limit, (size_t)300000);
    hak_lua_stats stats = lt_stats(hak_lua_heap_of(L));
    cr_expect_leq(stats.peak_bytes, (size_t)300000);
    cr_expect_gt(stats.peak_bytes, (size_t)200000);
    hak_lua_close(L);
}

Test(soft, a_callback_may_ask_for_a_collection)
{
    lt_needs(LT_53);
    script s = {.answers = {HAK_LUA_COLLECT}};
    lua_State *L = open_soft(&s, 100000, 0);
    lua_gc(L, LUA_GCSTOP);
    lt_run(L, "for i = 1, 20000 do local t = {i} end"); /* all of it garbage */
    cr_expect_gt(s.calls, 10);
    cr_expect_eq(s.collected, 0, "asked again though it fitted");
    cr_expect_leq(lt_stats(hak_lua_heap_of(L)).peak_bytes, (size_t)100000);
    int before = s.calls;
    cr_expect_eq(try(L, hog), LUA_ERRMEM);
    cr_expect_geq(s.calls, before + 2);
    cr_expect_eq(s.collected, 1);
    hak_lua_close(L);
}

Test(soft, a_callback_may_refuse)
{
    script s = {.answers = {HAK_LUA_REFUSE}};
    lua_State *L = open_soft(&s, 100000, 300000);
    for (int i = 1; i <= 5; i++) {
        cr_expect_eq(try(L, hog), LUA_ERRMEM);
        lua_settop(L, 0);
        lt_collect(L);
        cr_expect_leq(s.calls, 40 * i, "%d calls", s.calls);
        cr_expect_geq(s.calls, i);
    }
    cr_expect_leq(lt_stats(hak_lua_heap_of(L)).peak_bytes, (size_t)100000);
    hak_lua_close(L);
}

/* No larger is a refusal. */
Test(soft, a_smaller_answer_refuses)
{
    script s = {.answers = {99999}};
    lua_State *L = open_soft(&s, 100000, 0);
    cr_expect_eq(try(L, hog), LUA_ERRMEM);
    hak_lua_close(L);
}

Test(soft, the_reserve_is_above_a_soft_limit_that_refuses)
{
    script s = {.answers = {HAK_LUA_REFUSE}};
    lua_State *L = open_soft(&s, 100000, 300000);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    cr_assert_eq(hak_lua_heap_reserve(heap, 20000), 0);
    cr_expect_eq(try(L, "local t = {} T = t while true do t = {t} T = t end"),
                 LUA_ERRMEM);
    lua_settop(L, 0);
    int before = s.calls;
    lua_pushcfunction(L, report);
    lua_pushliteral(L, "it failed");
    cr_expect_eq(lua_pcall(L, 1, 0, 0), LUA_OK);
    cr_expect_eq(s.calls, before, "not asked while the reserve is open");
    cr_expect_leq(lt_stats(heap).peak_bytes, (size_t)120000);
    hak_lua_close(L);
}

static size_t change(void *arg, hak_lua_heap *heap, const hak_lua_need *need)
{
    (void)need;
    ++*(int *)arg;
    hak_lua_heap_limit(heap, 150000);
    cr_assert_eq(hak_lua_heap_on_limit(heap, 0, NULL, NULL), 0);
    cr_assert_gt(lt_live(heap), (size_t)0);
    return HAK_LUA_REFUSE;
}

Test(soft, a_callback_may_change_the_limits)
{
    int calls = 0;
    lua_State *L = open_limited(0, 0);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    cr_assert_eq(hak_lua_heap_on_limit(heap, 100000, change, &calls), 0);
    cr_expect_eq(try(L, hog), LUA_ERRMEM);
    cr_expect_eq(calls, 1);
    hak_lua_stats stats = lt_stats(heap);
    cr_expect_leq(stats.peak_bytes, (size_t)150000);
    cr_expect_gt(stats.peak_bytes, (size_t)100000);
    hak_lua_close(L);
}

/* Every lane's sizes, and growth in place, come to the callback. */
Test(soft, large_blocks_too)
{
    lt_needs(LT_53);
    script s = {.answers = {HAK_LUA_NO_LIMIT}};
    lua_State *L = open_soft(&s, 1 << 20, 0);
    lt_run(L, "assert(#('x'):rep(3 << 20) == 3 << 20)");
    cr_expect_eq(s.calls, 1);
    cr_expect_gt(s.last.bytes, (size_t)1 << 20);
    hak_lua_close(L);
    s = (script){.answers = {HAK_LUA_NO_LIMIT}};
    L = open_soft(&s, 1 << 20, 0);
    lt_run(L, "local t = {} for i = 1, 200000 do t[i] = i end");
    cr_expect_eq(s.calls, 1);
    hak_lua_close(L);
}

/* ---- bad input --------------------------------------------------------- */

Test(soft, bad_arguments)
{
    lt_needs(LT_COLLECTS);
    int calls = 0;
    hak_lua_heap *heap = hak_lua_heap_new(NULL);
    errno = 0;
    cr_expect_eq(hak_lua_heap_on_limit(NULL, 1, change, NULL), -1);
    cr_expect_eq(errno, EINVAL);
    errno = 0;
    cr_expect_eq(hak_lua_heap_on_limit(heap, 1, NULL, NULL), -1);
    cr_expect_eq(errno, EINVAL);
    errno = 0;
    cr_expect_eq(hak_lua_heap_on_limit(heap, 0, change, &calls), -1);
    cr_expect_eq(errno, EINVAL);
    errno = 0;
    cr_expect_eq(hak_lua_heap_reserve(NULL, 1), -1);
    cr_expect_eq(errno, EINVAL);
    cr_expect_eq(hak_lua_heap_reserve(heap, SIZE_MAX), 0);
    cr_expect_eq(hak_lua_heap_on_limit(heap, SIZE_MAX, change, &calls), 0);
    hak_lua_heap_limit(heap, 1000);
    void *full = hak_lua_alloc(heap, NULL, 0, 990), *p;
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 11));
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, 11));
    p = hak_lua_alloc(heap, NULL, 0, 5000);
    cr_expect(p, "the whole reserve is open");
    cr_expect_null(hak_lua_alloc(heap, NULL, 0, SIZE_MAX - 4000));
    hak_lua_alloc(heap, p, 5000, 0);
    hak_lua_alloc(heap, full, 990, 0);
    hak_lua_heap_delete(heap);
    cr_expect_eq(calls, 0);
}

/* A program that was compiled with the first version's config. */
Test(soft, configs_of_both_versions)
{
    hak_lua_config config = {.size = offsetof(hak_lua_config, reserve),
                             .limit = 1000,
                             .reserve = (size_t)-1};
    hak_lua_heap *heap = hak_lua_heap_new(&config);
    cr_assert(heap);
    void *full = hak_lua_alloc(heap, NULL, 0, 990);
    for (int i = 0; i < 4; i++)
        cr_expect_null(hak_lua_alloc(heap, NULL, 0, 11), "it has a reserve");
    hak_lua_alloc(heap, full, 990, 0);
    hak_lua_heap_delete(heap);
    static const size_t bad[] = {0, 1, sizeof config - 1, sizeof config + 8};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config.size = bad[i];
        errno = 0;
        cr_expect_null(hak_lua_heap_new(&config));
        cr_expect_eq(errno, EINVAL);
    }
}
