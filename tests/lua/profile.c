/*
 * profile.c - samples of Lua states: the lines that a profile names, whatever runs,
 * and that a state is none the worse for it.
 *
 * At rate 1 every block is a sample, so numbers are exact.
 */
#include "lua_test.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

TestSuite(profile, .timeout = 300);

/* ---- profiles as text ----------------------------------------------------- */

/* The profile as collapsed stacks; the caller frees it. */
static char *collapsed(unsigned flags)
{
    lt_text text = {0};
    FILE *file = tmpfile();
    cr_assert(file, "no temporary file");
    cr_assert_eq(hak_profile_write_fd(fileno(file), HAK_PROFILE_COLLAPSED,
                                      flags),
                 0, "%s", strerror(errno));
    lt_read_all(file, &text);
    fclose(file);
    lt_text_add(&text, "", 0);
    return text.data;
}

/* The sum of the values of all stacks with `part` in them. */
static double told(const char *text, const char *part)
{
    double sum = 0;
    while (*text) {
        size_t n = strcspn(text, "\n");
        char line[8192];
        snprintf(line, sizeof line, "%.*s", (int)n, text);
        if (strstr(line, part))
            sum += strtod(strrchr(line, ' '), NULL);
        text += n + (text[n] == '\n');
    }
    return sum;
}

#define EXPECT_TOLD(text, part, value)                                         \
    cr_expect_eq(told(text, part), value, "%s: %.0f, not %.0f in\n%s", part,   \
                 told(text, part), (double)(value), text)

static void load(lua_State *L, const char *code, const char *name)
{
    cr_assert_eq(luaL_loadbuffer(L, code, strlen(code), name), LUA_OK, "%s",
                 lua_tostring(L, -1));
}

static void run_named(lua_State *L, const char *code)
{
    load(L, code, "@x.lua");
    if (lua_pcall(L, 0, 0, 0) != LUA_OK)
        cr_assert_fail("%s", lua_tostring(L, -1));
}

/* ---- which line -------------------------------------------------------------- */

static const char constructors[] = "local function some(n, t)\n"  /* 1 */
                                   "    local a = {}\n"           /* 2 */
                                   "    local b = { n,\n"         /* 3 */
                                   "        { n },\n"             /* 4 */
                                   "        { x = n,\n"           /* 5 */
                                   "          y = { n } } }\n"    /* 6 */
                                   "    if n > 1 then\n"          /* 7 */
                                   "        return { n }\n"       /* 8 */
                                   "    elseif t then\n"          /* 9 */
                                   "        t = n + 1\n"          /* 10 */
                                   "        for i = 1, 3 do\n"    /* 11 */
                                   "            a = { i, i }\n"   /* 12 */
                                   "        end\n"                /* 13 */
                                   "        while t > 0 do\n"     /* 14 */
                                   "            t = t - 1\n"      /* 15 */
                                   "            a = not t and\n"  /* 16 */
                                   "               { 1 } or {}\n" /* 17 */
                                   "        end\n"                /* 18 */
                                   "    end\n"                    /* 19 */
                                   "    return function()\n"      /* 20 */
                                   "        return a\n"           /* 21 */
                                   "    end\n"                    /* 22 */
                                   "end\n"                        /* 23 */
                                   "for i = 1, 100 do\n"          /* 24 */
                                   "    some(1) some(2)\n"        /* 25 */
                                   "    some(1, 1)\n"             /* 26 */
                                   "end\n";

Test(profile, each_constructor_has_its_line)
{
    cr_assert_eq(hak_profile_start(1), 0);
    lua_State *L = lt_open(LT_HEAP);
    lua_gc(L, LUA_GCSTOP);
    load(L, constructors, "@x.lua");
    cr_assert_eq(lua_pcall(L, 0, 0, 0), LUA_OK);
    hak_profile_stop();
    char *text = collapsed(HAK_PROFILE_ALLOCATED | HAK_PROFILE_BLOCKS);
    /* A table and its array. Lua's line of one that begins a line is that of the
     * word before. */
    EXPECT_TOLD(text, "some (x.lua:2) ", 300);
    EXPECT_TOLD(text, "some (x.lua:3) ", 1200);
    EXPECT_TOLD(text, "some (x.lua:4) ", 600);
    EXPECT_TOLD(text, "some (x.lua:6) ", 600);
    EXPECT_TOLD(text, "some (x.lua:8) ", 200);
    EXPECT_TOLD(text, "some (x.lua:12) ", 600);
    EXPECT_TOLD(text, "some (x.lua:16) ", 200);
    EXPECT_TOLD(text, "some (x.lua:22) ", 400); /* closures and upvalues */
    EXPECT_TOLD(text, ";some (x.lua:", 4100);
    free(text);
    hak_lua_close(L);
}

Test(profile, what_grows_strings_and_calls_have_theirs)
{
    lua_State *L = lt_open(LT_HEAP);
    lua_gc(L, LUA_GCSTOP);
    cr_assert_eq(hak_profile_start(1), 0);
    run_named(L, "kept = {}\n"
                 "local function add(i)\n"
                 "    kept[i] = i\n" /* 3 */
                 "end\n"
                 "for i = 1, 100000 do add(i) end\n"
                 "local s = ('long'):rep(100)\n"
                 "for i = 1, 10 do\n"
                 "    s = s .. s\n" /* 8 */
                 "end\n");
    hak_profile_stop();
    char *text = collapsed(0);
    EXPECT_TOLD(text, "main chunk (x.lua:5);add (x.lua:3) ", 2 << 20);
    cr_expect_gt(told(text, "main chunk (x.lua:8) "), 400 * 1024);
    cr_expect_gt(told(text, "main chunk (x.lua:6);rep ([C]) "), 400);
    free(text);
    hak_lua_close(L);
    text = collapsed(0);
    EXPECT_TOLD(text, "x.lua", 0);
    free(text);
}

/* ---- C functions, coroutines ---------------------------------------------------- */

static int host_makes(lua_State *L)
{
    lua_newuserdatauv(L, 10000, 0);
    lua_setglobal(L, "made");
    return 0;
}

Test(profile, a_c_function_has_its_name)
{
    lua_State *L = lt_open(LT_HEAP);
    lua_register(L, "make", host_makes);
    cr_assert_eq(hak_profile_start(1), 0);
    run_named(L, "local function f()\n make()\n end\n f()");
    char *text = collapsed(0);
    cr_expect_geq(told(text, "main chunk (x.lua:4);f (x.lua:2);make ([C]) "),
                  10000, "%s", text);
    free(text);
    lua_pushcfunction(L, host_makes);
    lua_call(L, 0, 0);
    lt_collect(L);
    text = collapsed(0);
    cr_expect_lt(told(text, "make ("), 100, "%s", text); /* a name */
    cr_expect_geq(told(text, "host_makes "), 10000, "%s", text);
    free(text);
    hak_lua_close(L);
}

static int resumes_its_argument(lua_State *L)
{
    int results;
    lua_State *co = lua_tothread(L, 1);
    int status = lua_resume(co, L, 0, &results);
    lua_pop(co, results);
    lua_pushinteger(L, status);
    return 1;
}

static const char coroutines[] =
    "local function deep(n)\n"
    "    if n > 0 then return (deep(n - 1)) end\n"
    "    kept = { n }\n" /* 3 */
    "    coroutine.yield()\n"
    "    kept2 = { n }\n" /* 5 */
    "end\n"
    "local inner = coroutine.create(deep)\n"
    "local outer = coroutine.wrap(function()\n"
    "    coroutine.resume(inner, 2)\n" /* 9 */
    "    coroutine.yield()\n"
    "    kept3 = { 1 }\n" /* 11 */
    "end)\n"
    "outer()\n"                 /* 13 */
    "coroutine.resume(inner)\n" /* 14 */
    "outer()\n"                 /* 15 */
    "other = coroutine.create(function() kept4 = { 1 } end)\n"
    "resumes(other)\n"; /* 17 */

Test(profile, coroutines_are_told_with_who_resumed_them)
{
    static const char *const expected[] = {
        ("main chunk (x.lua:13);outer ([C]);function <x.lua:8> (x.lua:9);"
         "resume ([C]);function <x.lua:1> (x.lua:2);deep (x.lua:2);"
         "deep (x.lua:3) "),
        ("main chunk (x.lua:14);resume ([C]);function <x.lua:1> (x.lua:2);"
         "deep (x.lua:2);deep (x.lua:5) "),
        "main chunk (x.lua:15);outer ([C]);function <x.lua:8> (x.lua:11) ",
        "main chunk (x.lua:17);resumes ([C]);function <x.lua:16> (x.lua:16) "};
    lua_State *L = lt_open(LT_HEAP);
    lua_register(L, "resumes", resumes_its_argument);
    lua_gc(L, LUA_GCSTOP);
    cr_assert_eq(hak_profile_start(1), 0);
    run_named(L, coroutines);
    char *text = collapsed(HAK_PROFILE_BLOCKS);
    for (int i = 0; i < 4; i++) {
        cr_expect_geq(told(text, expected[i]), 2, "%s not in\n%s", expected[i],
                      text);
    }
    free(text);
    hak_lua_close(L);
}

Test(profile, a_host_that_resumes_tells_which)
{
    lua_State *L = lt_open(LT_HEAP), *co = lua_newthread(L);
    int results;
    cr_assert_eq(hak_profile_start(1), 0);
    load(co, "kept = { 1 } coroutine.yield()\n kept2 = { 2 }\n", "@x.lua");
    cr_assert_eq(hak_lua_resume(co, NULL, 0, &results), LUA_YIELD);
    cr_assert_eq(hak_lua_resume(co, L, 0, &results), LUA_OK);
    char *text = collapsed(HAK_PROFILE_BLOCKS);
    cr_expect_geq(told(text, "main chunk (x.lua:1) "), 2, "%s", text);
    cr_expect_geq(told(text, "main chunk (x.lua:2) "), 2, "%s", text);
    free(text);
    load(co, "error('no')", "@x.lua");
    cr_assert_eq(hak_lua_resume(co, L, 0, &results), LUA_ERRRUN);
    hak_lua_close(L);
    /* A state that is none of ours. */
    L = lt_open(LT_STOCK);
    co = lua_newthread(L);
    load(co, "return 1", "@x.lua");
    cr_assert_eq(hak_lua_resume(co, L, 0, &results), LUA_OK);
    lua_close(L);
}

/* Stacks that grow and shrink are not read meanwhile, if their Lua's are not whole then:
 * 5.4.3 to 5.4.5 make a new one and copy. */
Test(profile, a_stack_that_moves_is_not_walked)
{
    lua_State *L = lt_open(LT_HEAP);
    long deep = lt_scaled(1000);
    lua_pushinteger(L, deep);
    lua_setglobal(L, "deep");
    cr_assert_eq(hak_profile_start(1), 0);
    run_named(L, "local function f(n, ...)\n"
                 "    if n == 0 then return select('#', ...) end\n"
                 "    return 0 + f(n - 1, n, ...)\n"
                 "end\n"
                 "local function g(n) return n == 0 and 0 or 1 + g(n - 1) end\n"
                 "for round = 1, 3 do\n"
                 "    local co = coroutine.wrap(function()\n"
                 "        g(20 * deep) f(150) coroutine.yield() g(100 * deep)\n"
                 "    end)\n"
                 "    co() collectgarbage() co() collectgarbage()\n"
                 "    g(150 * deep) collectgarbage()\n"
                 "end\n");
    char *text = collapsed(HAK_PROFILE_ALLOCATED);
    cr_expect_gt(told(text, "[stack of a Lua thread]") +
                     told(text, "g (x.lua:5)"),
                 1000 * deep, "%s", text);
    free(text);
    hak_lua_close(L);
}

/* ---- states that end --------------------------------------------------------------- */

Test(profile, a_heap_whose_state_has_gone_serves_another)
{
    lua_State *L = lt_open(LT_HEAP);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    cr_assert_eq(hak_profile_start(1), 0);
    lua_close(L);
    L = lua_newstate(hak_lua_alloc, heap);
    cr_assert(L);
    luaL_openlibs(L);
    run_named(L, "kept = {} for i = 1, 1000 do kept[i] = {i} end");
    lua_close(L);
    hak_lua_heap_delete(heap);
}

Test(profile, a_switched_state_is_told_from_then_on)
{
    lua_State *L = lt_open(LT_STOCK);
    run_named(L, "before = {} for i = 1, 1000 do before[i] = {i} end");
    cr_assert_eq(hak_profile_start(1), 0);
    cr_assert(hak_lua_switch(L, NULL));
    run_named(L, "after = {}\n for i = 1, 1000 do\n after[i] = {i}\n end");
    char *text = collapsed(HAK_PROFILE_BLOCKS);
    cr_expect_geq(told(text, "main chunk (x.lua:3) "), 2000, "%s", text);
    free(text);
    lua_close(L);
    text = collapsed(0);
    EXPECT_TOLD(text, "x.lua", 0);
    free(text);
}

/* ---- under load ------------------------------------------------------------------------ */

static const char load_code[] =
    "local n = ...\n"
    "local count = 0\n"
    "local function hook() count = count + #{count} end\n"
    "debug.sethook(hook, '', 500)\n"
    "for i = 1, n do\n"
    "    local t = setmetatable({}, {__gc = function(t) last = {t} end})\n"
    "    local ok, e = pcall(function() error({i, ('e'):rep(i)}) end)\n"
    "    assert(not ok and e[1] == i and #e[2] == i)\n"
    "    local co = coroutine.wrap(function(a)\n"
    "        local u <close> = setmetatable({}, {__close = function() end})\n"
    "        for k = 1, 20 do a = coroutine.yield({a, k}) end\n"
    "        error('at the end')\n"
    "    end)\n"
    "    for k = 1, 20 do assert(co(k)[1] == k) end\n"
    "    assert(not pcall(co))\n"
    "    load('return function() return {' .. i .. '} end')()()\n"
    "end\n"
    "local f, mask, every = debug.gethook()\n"
    "assert(f == hook and mask == '' and every == 500 and count > 0)\n";

static atomic_int working;

static void *work(void *arg)
{
    long n = *(long *)arg;
    for (int round = 0; round < 3; round++) {
        lua_State *L = lt_open(LT_HEAP);
        load(L, load_code, "@x.lua");
        lua_pushinteger(L, n);
        if (lua_pcall(L, 1, 0, 0) != LUA_OK)
            cr_assert_fail("%s", lua_tostring(L, -1));
        if (round == 2) /* without finalizers */
            hak_lua_heap_delete(hak_lua_heap_of(L));
        else
            hak_lua_close(L);
    }
    atomic_fetch_sub(&working, 1);
    return NULL;
}

Test(profile, threads_with_states_of_their_own)
{
    enum { THREADS = 3 };
    static const size_t rates[] = {1, 64, 4096};
    pthread_t threads[THREADS];
    long n = lt_scaled(300) + 20;
    lt_stderr capture = lt_stderr_begin(); /* leak reports */
    lt_text errors = {0};
    atomic_store(&working, THREADS);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &n), 0);
    for (int i = 0; atomic_load(&working) > 0; i++) {
        cr_assert_eq(hak_profile_start(rates[i % 3]), 0);
        free(collapsed(i % 8));
        if (i % 5 == 4)
            hak_profile_stop();
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    lt_stderr_end(&capture, &errors);
    char *text = collapsed(0);
    EXPECT_TOLD(text, "x.lua", 0);
    free(text);
    lt_text_free(&errors);
}

/* ---- without bias -------------------------------------------------------------------------- */

Test(profile, each_size_is_told_once_on_the_average)
{
    static const size_t sizes[] = {40, 700, 1500, 6000, 20000, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i], rate = size < 4096 ? 4096 : size;
        size_t n = (size_t)lt_scaled(40 << 20) / size;
        hak_lua_heap *heap = hak_lua_heap_new(NULL);
        double chance = 1 - exp(-(double)size / (double)rate);
        double sigma = sqrt((1 - chance) / chance / (double)n);
        void **blocks = malloc(n * sizeof *blocks);
        cr_assert_eq(hak_profile_start(rate), 0);
        for (size_t k = 0; k < n; k++) {
            blocks[k] = hak_lua_alloc(heap, NULL, 0, size);
            if (k % 16 != 0)
                hak_lua_alloc(heap, blocks[k], size, 0);
        }
        char *text = collapsed(HAK_PROFILE_ALLOCATED);
        double share = told(text, "") / ((double)size * (double)n);
        cr_expect_lt(fabs(share - 1), 6 * sigma + 0.18, "%zu: %.3f", size,
                     share);
        free(text);
        hak_profile_stop();
        for (size_t k = 0; k < n; k += 16)
            hak_lua_alloc(heap, blocks[k], size, 0);
        free(blocks);
        hak_lua_heap_delete(heap);
    }
}

/* ---- a program with a leak, a cache, and holes ------------------------------------------ */

/* HAKMEM_TEST_SEED: another course of chance, 1 GB instead of 128 MB, and numbers. */

/* It counts what each of its lines has made and what of it lives: strings of up to
 * 1000 B, which string.rep makes without a buffer, by the sizes of their blocks. */
static int good_size(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)hak_good_size((size_t)lua_tointeger(L, 1)));
    return 1;
}

static const char planted[] =
    "local all, leak, cache, holes = ..., {}, {}, {}\n"
    "local made = { leak = 0, cache = 0, holes = 0, spent = 0 }\n"
    "local live = { cache = 0 , holes = 0 }\n"
    "local function text(kind, n)\n" /* 4 */
    "    local size = good(25 + n)\n"
    "    made[kind] = made[kind] + size\n"
    "    return size\n"
    "end\n"
    "local rep = string.rep\n"
    "local function leaks(i, n)\n"
    "    text('leak', n)\n"
    "    leak[#leak + 1] = rep('l', n)\n" /* 12 */
    "end\n"
    "local sizes = {}\n"
    "local function caches(i, n)\n"
    "    local k = i * 7919 % 20000\n"
    "    live.cache = live.cache - (sizes[k] or 0)\n"
    "    sizes[k] = text('cache', n)\n"
    "    live.cache = live.cache + sizes[k]\n"
    "    cache[k] = rep('c', n)\n" /* 20 */
    "end\n"
    "local function fragments(i, n)\n"
    "    local keep = i % 16 == 0\n"
    "    local size = text('holes', n)\n"
    "    if keep then live.holes = live.holes + size end\n"
    "    local s = rep('f', n)\n" /* 26 */
    "    if keep then holes[#holes + 1] = s end\n"
    "end\n"
    "local function spends(i, n)\n"
    "    text('spent', n)\n"
    "    return rep('s', n)\n" /* 31 */
    "end\n"
    "local co = coroutine.wrap(function()\n"
    "    for i = 1, math.maxinteger do\n"
    "        local n = 100 + i * 31 % 900\n"
    "        local kind = i * 13 % 20\n"
    "        if kind == 0 then leaks(i, n)\n"
    "        elseif kind < 6 then caches(i, n)\n"
    "        elseif kind < 10 then fragments(i, n)\n"
    "        else spends(i, n) end\n"
    "        if i % 100 == 0 then coroutine.yield() end\n"
    "    end\n"
    "end)\n"
    "while made.leak + made.cache + made.holes + made.spent < all do co() end\n"
    "keep = {leak, cache, holes}\n"
    "collectgarbage() collectgarbage()\n"
    "return made.leak, made.cache, made.holes, made.spent,\n"
    "       made.leak, live.cache, live.holes, 0\n";

extern void haki_profile_test_seed(uint64_t seed);

Test(profile, a_leak_a_cache_and_holes_are_told_apart)
{
    static const char *const sites[] = {
        "leaks (x.lua:12);rep ([C]) ", "caches (x.lua:20);rep ([C]) ",
        "fragments (x.lua:26);rep ([C]) ", "spends (x.lua:31);rep ([C]) "};
    double truth[8];
    lua_State *L = lt_open(LT_HEAP);
    const char *seed = getenv("HAKMEM_TEST_SEED");
    lua_register(L, "good", good_size);
    haki_profile_test_seed(seed ? strtoull(seed, NULL, 10) : 3);
    cr_assert_eq(hak_profile_start(0), 0);
    load(L, planted, "@x.lua");
    lua_pushinteger(L, lt_scaled(seed ? 1 << 30 : 128 << 20));
    cr_assert_eq(lua_pcall(L, 1, 8, 0), LUA_OK, "%s", lua_tostring(L, -1));
    for (int i = 0; i < 8; i++)
        truth[i] = lua_tonumber(L, i + 1);
    for (int kind = 0; kind < 2; kind++) {
        char *text = collapsed(kind == 0 ? HAK_PROFILE_ALLOCATED : 0);
        for (int i = 0; i < 4; i++) {
            double found = told(text, sites[i]), of = truth[4 * kind + i];
            if (seed)
                fprintf(stderr, "%s%.0f of %.0f: %.3f\n", sites[i], found, of,
                        found / of);
            /* Each sample stands for 512 KB: five standard deviations, so that
             * another Lua's order of things doesn't fail. */
            cr_expect_leq(fabs(found - of), 5 * sqrt(of * (512 << 10)),
                          "%s: %.0f not %.0f", sites[i], found, of);
        }
        free(text);
    }
    hak_lua_close(L);
}
