/*
 * state.c - states made by hak_lua_newstate and by lua_newstate with
 * hak_lua_alloc: exact figures, panic and warnings, limits too small for a
 * state, leak reports, 20,000 states without growth.
 */
#include <sys/resource.h>

#include "lua_test.h"

TestSuite(state, .timeout = 300);

/* ---- figures of a running state ---------------------------------------- */

/* live() in a script: what the heap counts, to be compared with Lua's count. */
static int live_bytes(lua_State *L)
{
    const hak_lua_heap *heap = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushnumber(L, (lua_Number)lt_live(heap));
    return 1;
}

static const char script_of_points[] =
    "local points = 0\n"
    "local function point()\n"
    "    points = points + 1\n"
    "    assert(live() == collectgarbage('count') * 1024, points)\n"
    "end\n"
    "point()\n"
    "local t = {}\n"
    "for i = 1, 300 do\n"
    "    t[i] = {i, 's' .. i, ('long'):rep(i)}\n"
    "    point()\n"
    "end\n"
    "for i = 1, 50 do\n"
    "    local co = coroutine.wrap(function(n)\n"
    "        local deep\n"
    "        deep = function(k) return k == 0 and 0 or 1 + deep(k - 1) end\n"
    "        coroutine.yield(deep(n))\n"
    "    end)\n"
    "    t[-i] = co\n"
    "    assert(co(i * 20) == i * 20)\n"
    "    point()\n"
    "end\n"
    "for i = 1, 30 do\n"
    "    assert(load('local x = ' .. i .. ' return function() return x end'))\n"
    "    t[i] = nil\n"
    "    collectgarbage('step', 10)\n"
    "    point()\n"
    "end\n"
    "t = nil\n"
    "collectgarbage()\n"
    "point()\n"
    "collectgarbage('generational')\n"
    "for i = 1, 100 do local u = {{}, {}} point() end\n"
    "assert(not pcall(error, {}))\n"
    "point()\n"
    "return points\n";

Test(state, live_is_what_lua_counts)
{
    lt_needs(LT_54);
    lua_State *L = hak_lua_newstate(NULL);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    cr_assert(heap);
    cr_expect_eq(lt_live(heap), lt_counted(L), "in an empty state");
    luaL_openlibs(L);
    cr_expect_eq(lt_live(heap), lt_counted(L), "with the libraries open");
    lua_pushlightuserdata(L, heap);
    lua_pushcclosure(L, live_bytes, 1);
    lua_setglobal(L, "live");
    cr_expect_eq(lt_value(L, script_of_points), 483);
    cr_expect_eq(lt_live(heap), lt_counted(L), "after a script");
    lt_collect(L);
    cr_expect_eq(lt_live(heap), lt_counted(L), "after a collection");
    hak_lua_close(L);
}

Test(state, types_are_counted)
{
    lt_needs(LT_54);
    lua_State *L = lt_open(LT_HEAP);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    hak_lua_stats before = lt_stats(heap);
    lt_run(L, "local t = {}\n"
              "for i = 1, 1000 do t[i] = {} end\n"
              "for i = 1, 500 do t[i] = coroutine.create(print) end\n"
              "for i = 1, 700 do t[i] = 'name' .. i end\n"
              "for i = 1, 300 do t[i] = function() return i, t end end\n");
    hak_lua_stats after = lt_stats(heap);
    static const uint64_t least[HAK_LUA_TYPES] = {
        [HAK_LUA_OTHER] = 1,    [HAK_LUA_STRING] = 700,
        [HAK_LUA_TABLE] = 1000, [HAK_LUA_FUNCTION] = 300,
        [HAK_LUA_THREAD] = 500, [HAK_LUA_UPVALUE] = 300,
        [HAK_LUA_PROTOTYPE] = 2};
    for (int type = 0; type < HAK_LUA_TYPES; type++) {
        uint64_t made = after.type_count[type] - before.type_count[type];
        cr_expect_geq(made, least[type], "%lu of type %d", (unsigned long)made,
                      type);
        if (type != HAK_LUA_OTHER && type != HAK_LUA_STRING)
            cr_expect_leq(made, least[type] + 100, "%lu of type %d",
                          (unsigned long)made, type);
    }
    hak_lua_close(L);
}

Test(state, heap_of)
{
    lua_State *L = lt_bare(LT_HEAP);
    cr_expect(hak_lua_heap_of(L));
    lua_State *thread = lua_newthread(L);
    cr_expect_eq(hak_lua_heap_of(thread), hak_lua_heap_of(L));
    lua_State *other = lt_bare(LT_HEAP);
    cr_expect_neq(hak_lua_heap_of(other), hak_lua_heap_of(L));
    lua_State *stock = lt_bare(LT_STOCK), *plain = lt_bare(LT_THREAD);
    cr_expect_null(hak_lua_heap_of(stock));
    cr_expect_null(hak_lua_heap_of(plain));
    hak_lua_close(L);
    hak_lua_close(other);
    hak_lua_close(stock);
    hak_lua_close(plain);
}

/* A heap made first, handed to lua_newstate, deleted last. */
Test(state, heap_of_the_caller)
{
    lt_needs(LT_NOT_55);
    hak_lua_heap *heap = hak_lua_heap_new(NULL);
    for (int i = 0; i < 20; i++) {
        lua_State *L = lua_newstate(hak_lua_alloc, heap);
        cr_assert(L);
        luaL_openlibs(L);
        lt_run(L, "t = {} for i = 1, 5000 do t[i] = ('x'):rep(i) end");
        cr_expect_eq(lt_live(heap), lt_counted(L));
        lua_close(L);
        cr_assert_eq(lt_live(heap), (size_t)0, "%zu live after lua_close",
                     lt_live(heap));
    }
    hak_lua_heap_delete(heap);
}

/* ---- panic and warnings, as luaL_newstate's ---------------------------- */

/* What a child that calls run(mode) writes to stderr; *status as waitpid. */
static void in_child(void (*run)(lt_mode), lt_mode mode, lt_text *text,
                     int *status)
{
    FILE *file = tmpfile();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(fileno(file), STDERR_FILENO);
        run(mode);
        _exit(0);
    }
    cr_assert_gt(child, 0);
    cr_assert_eq(waitpid(child, status, 0), child);
    lt_read_all(file, text);
    fclose(file);
}

static void panic_string(lt_mode mode)
{
    lua_State *L = lt_bare(mode);
    lua_pushstring(L, "boom at the top");
    lua_error(L);
}

static void panic_table(lt_mode mode)
{
    lua_State *L = lt_bare(mode);
    lua_newtable(L);
    lua_error(L);
}

static void expect_same_panic(void (*run)(lt_mode), const char *part)
{
    lt_text ours = {0}, stock = {0};
    int our_status, stock_status;
    in_child(run, LT_HEAP, &ours, &our_status);
    in_child(run, LT_STOCK, &stock, &stock_status);
    cr_expect(WIFSIGNALED(our_status) && WTERMSIG(our_status) == SIGABRT,
              "ended with status %d", our_status);
    cr_expect(strstr(lt_text_get(&ours), part), "stderr: %s",
              lt_text_get(&ours));
    cr_expect_str_eq(lt_text_get(&ours), lt_text_get(&stock));
    lt_text_free(&ours);
    lt_text_free(&stock);
}

Test(state, panic)
{
    lt_needs(LT_54);
    expect_same_panic(panic_string, "boom at the top");
    expect_same_panic(panic_table, "error object is not a string");
}

static void warnings(lt_mode mode, lt_text *text)
{
    lua_State *L = lt_open(mode);
    lt_stderr capture = lt_stderr_begin();
    lt_run(L, "warn('too early')\n"
              "warn('@on')\n"
              "warn('first')\n"
              "warn('in ', 'three ', 'parts')\n"
              "warn('@off')\n"
              "warn('silent')\n"
              "warn('@unknown')\n"
              "warn('@on')\n"
              "warn('@on', ' is no control in parts')\n"
              "warn('', '@off')\n"
              "warn('last')\n"
              "setmetatable({}, {__gc = function() error('in gc') end})\n"
              "collectgarbage()\n");
    hak_lua_close(L);
    lt_stderr_end(&capture, text);
}

Test(state, warnings)
{
    lt_needs(LT_54);
    lt_text ours = {0}, stock = {0};
    warnings(LT_HEAP, &ours);
    warnings(LT_STOCK, &stock);
    const char *text = lt_text_get(&ours);
    cr_expect(strstr(text, "Lua warning: first\n"), "stderr: %s", text);
    cr_expect_null(strstr(text, "silent"));
    cr_expect_null(strstr(text, "Lua warning: too early"));
    cr_expect_str_eq(text, lt_text_get(&stock));
    lt_text_free(&ours);
    lt_text_free(&stock);
}

/* ---- a limit while the state is built ---------------------------------- */

static lua_State *limited(size_t limit)
{
    hak_lua_config config = {.size = sizeof config, .limit = limit};
    return hak_lua_newstate(&config);
}

Test(state, limit_below_an_empty_state)
{
    lt_text text = {0};
    lt_stderr capture = lt_stderr_begin();
    size_t limit = 1, step = lt_divisor() > 1 ? 64 : 1;
    lua_State *L;
    long before = 0;
    while (!(L = limited(limit))) {
        limit += step;
        cr_assert_lt(limit, (size_t)100000, "no state in 100 KB");
        if (limit > 500 && !before)
            before = lt_resident();
    }
    long grown = lt_resident() - before;
    lt_stderr_end(&capture, &text);
    cr_expect_str_eq(lt_text_get(&text), "", "wrote: %s", lt_text_get(&text));
    cr_expect_gt(limit, (size_t)1000, "a state in %zu bytes", limit);
    cr_expect_leq(lt_live(hak_lua_heap_of(L)), limit);
    if (lt_native())
        cr_expect_lt(grown, 2048L, "%ld KB lost by failed states", grown);
    hak_lua_close(L);
    for (size_t more = limit; more < limit + 3000; more += 7) {
        L = limited(more);
        cr_assert(L, "limit %zu is enough, %zu isn't", limit, more);
        cr_assert_leq(lt_stats(hak_lua_heap_of(L)).peak_bytes, more);
        hak_lua_close(L);
    }
    lt_text_free(&text);
}

/* The libraries don't fit: an error that can be caught, and a state that
 * goes on as soon as there is room. */
static int open_libraries(lua_State *L)
{
    luaL_openlibs(L);
    return 0;
}

Test(state, limit_below_the_libraries)
{
    int failures = 0;
    for (size_t limit = 4000;; limit += 50 * (lt_divisor() > 1 ? 10 : 1)) {
        lua_State *L = limited(limit);
        if (!L)
            continue;
        lua_pushcfunction(L, open_libraries);
        int status = lua_pcall(L, 0, 0, 0);
        if (status != LUA_OK) {
            failures++;
            cr_assert_eq(status, LUA_ERRMEM, "status %d", status);
            cr_assert_str_eq(lua_tostring(L, -1), "not enough memory");
            hak_lua_heap_limit(hak_lua_heap_of(L), 0);
            luaL_openlibs(L);
        }
        hak_lua_heap_limit(hak_lua_heap_of(L), 0);
        lt_run(L, "assert(#string.rep('x', 2000) == 2000)");
        hak_lua_close(L);
        if (status == LUA_OK)
            break;
    }
    cr_expect_gt(failures, 3);
}

/* ---- ends and leaks ---------------------------------------------------- */

Test(state, thread_heap_state)
{
    for (int i = 0; i < 20; i++) {
        lua_State *L = lua_newstate(hak_lua_alloc, NULL);
        cr_assert(L);
        luaL_openlibs(L);
        lt_run(L, "t = {} for i = 1, 5000 do t[i] = {('x'):rep(i)} end\n"
                  "t = nil collectgarbage()\n"
                  "assert(collectgarbage('count') < 100)");
        if (i % 2)
            lua_close(L);
        else
            hak_lua_close(L);
    }
}

static void leak(size_t small, size_t large, const char *name, lt_text *text)
{
    hak_lua_config config = {.size = sizeof config, .name = name};
    hak_lua_heap *heap = hak_lua_heap_new(&config);
    lt_stderr capture = lt_stderr_begin();
    for (size_t i = 0; i < small; i++)
        cr_assert(hak_lua_alloc(heap, NULL, 0, 1 + i % 1024));
    for (size_t i = 0; i < large; i++)
        cr_assert(hak_lua_alloc(heap, NULL, 0, 2000));
    hak_lua_heap_delete(heap);
    lt_stderr_end(&capture, text);
}

/* Exactly one line, with that in it. */
static void expect_report(const lt_text *text, const char *part)
{
    const char *line = lt_text_get(text);
    const char *end = strchr(line, '\n');
    cr_expect(end && end[1] == '\0', "not one line: %s", line);
    cr_expect(strstr(line, part), "no %s in: %s", part, line);
}

Test(state, leak_report)
{
    lt_text text = {0};
    leak(1, 0, "customer 17", &text);
    expect_report(&text, "customer 17");
    lt_text_free(&text);
    leak(5000, 0, NULL, &text);
    expect_report(&text, "");
    lt_text_free(&text);
    leak(1, 0, "0123456789abcdef0123456789abcdefTOO LONG", &text);
    expect_report(&text, "0123456789abcdef0123456789abcde");
    cr_expect_null(strstr(lt_text_get(&text), "TOO LONG"));
    lt_text_free(&text);
    leak(0, 3, "large", &text);
    expect_report(&text, "large");
    lt_text_free(&text);
}

Test(state, no_leak_no_report)
{
    lt_text text = {0};
    leak(0, 0, "nothing", &text);
    cr_expect_str_eq(lt_text_get(&text), "", "%s", lt_text_get(&text));
    lt_stderr capture = lt_stderr_begin();
    for (int i = 0; i < 10; i++) {
        lua_State *L = lt_open(LT_HEAP);
        lt_run(L, "t = setmetatable({}, {__gc = function()\n"
                  "    t = {('x'):rep(3000)} end})\n"
                  "c = coroutine.wrap(function() coroutine.yield() end) c()");
        hak_lua_close(L);
    }
    lt_stderr_end(&capture, &text);
    cr_expect_str_eq(lt_text_get(&text), "", "%s", lt_text_get(&text));
}

/* Thousands of blocks left, heap after heap: their memory comes back. */
Test(state, leaked_slabs_come_back)
{
    long first = 0;
    for (int round = 0; round < 40; round++) {
        lt_text text = {0};
        leak((size_t)lt_scaled(20000), (size_t)lt_scaled(1000), "round", &text);
        lt_text_free(&text);
        if (round == 5)
            first = lt_resident();
    }
    if (lt_native())
        cr_expect_lt(lt_resident(), first + 4096, "%ld KB, then %ld KB", first,
                     lt_resident());
}

/* ---- many states ------------------------------------------------------- */

static void one_of_many(lt_mode mode, long i)
{
    lua_State *L = lt_bare(mode);
    if (i % 10 == 0) {
        luaL_openlibs(L);
        lt_run(L, "local t = {}\n"
                  "for i = 1, 100 do t[i] = {i, 'v' .. i} end\n"
                  "for i = 1, 5 do t[i] = ('s'):rep(i * 500) end\n"
                  "assert(#table.concat({t[1], t[5]}) == 3000)");
    }
    hak_lua_close(L);
}

static void many_states(lt_mode mode)
{
    long count = lt_scaled(20000), first = 0;
    for (long i = 0; i < count; i++) {
        one_of_many(mode, i);
        if (i == 1000)
            first = lt_resident();
    }
    if (lt_native())
        cr_expect_lt(lt_resident(), first + 512,
                     "%ld KB after 1000 states, %ld KB after all", first,
                     lt_resident());
}

Test(state, many_with_heaps)
{
    many_states(LT_HEAP);
}

Test(state, many_with_tiny_alone)
{
    many_states(LT_TINY);
}

Test(state, many_on_the_thread_heap)
{
    many_states(LT_THREAD);
}

/* Many alive at once, closed in another order. */
Test(state, many_at_once)
{
    enum { MOST = 500 };
    static lua_State *states[MOST];
    long count = lt_divisor() > 1 ? 50 : MOST;
    for (long i = 0; i < count; i++) {
        states[i] = lt_open(i % 2 ? LT_HEAP : LT_THREAD);
        lua_pushinteger(states[i], i);
        lua_setglobal(states[i], "id");
        lt_run(states[i], "t = {} for i = 1, 200 do t[i] = {id} end");
    }
    for (long i = 0; i < count; i++) {
        lua_State *L = states[i * 7 % count];
        lt_run(L, "for i = 1, #t do assert(t[i][1] == id) end");
    }
    for (long i = 0; i < count; i++)
        hak_lua_close(states[i * 7 % count]);
}

/* However many were open at once, nothing of them stays in memory. */
static void leave_nothing(bool in_use)
{
    enum { MOST = 4000 };
    static hak_lua_heap *heaps[MOST];
    static lua_State *states[MOST];
    long count = lt_scaled(MOST);
    hak_lua_close(lt_open(LT_HEAP));
    hak_trim();
    long before = lt_resident();
    for (long i = 0; i < count; i++) {
        if (in_use)
            states[i] = lt_open(LT_HEAP);
        else
            heaps[i] = hak_lua_heap_new(NULL);
    }
    long most = lt_resident() - before;
    for (long i = 0; i < count; i++) {
        if (in_use)
            hak_lua_close(states[i * 7919 % count]);
        else
            hak_lua_heap_delete(heaps[i * 7919 % count]);
    }
    hak_trim();
    if (lt_native()) {
        cr_expect_gt(most, 4 * count, "only %ld KB for %ld heaps", most, count);
        cr_expect_lt(lt_resident(), before + 1024, "%ld KB, then %ld KB",
                     before, lt_resident());
    }
}

Test(state, closed_ones_leave_nothing)
{
    leave_nothing(true);
}

Test(state, deleted_heaps_leave_nothing)
{
    leave_nothing(false);
}

/* ---- many that come, fill, err and go ------------------------------------- */

enum { MANY = 60 };

static const char hog[] =
    "local t = {} while true do t[#t + 1] = string.rep('x', 100 + #t % 3000) "
    "end";

static lua_State *small_state(size_t limit)
{
    hak_lua_config config = {.size = sizeof(config), .limit = limit};
    lua_State *L = hak_lua_newstate(&config);

    cr_assert(L != NULL);
    luaL_requiref(L, "_G", luaopen_base, 1);
    luaL_requiref(L, "string", luaopen_string, 1);
    lua_settop(L, 0);
    return L;
}

/* Whether what the process holds is a checker's as well: asan, tsan, valgrind. */
#ifdef HAK_SMALL_RANGE
enum { WATCHED = true };
#else
enum { WATCHED = LT_SANITIZED };
#endif

static long resident_kb(void)
{
    long all = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    cr_assert(file != NULL && fscanf(file, "%ld %ld", &all, &resident) == 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A state that filled up to its limit and dropped all is as small as a new one. */
Test(state, one_that_was_full_and_collected_is_small_again)
{
    lua_State *states[MANY];
    long made, after;

    if (WATCHED) {
        return;
    }
    hak_lua_close(small_state(256 << 10)); /* what the first one brings */
    made = resident_kb();
    for (int i = 0; i < MANY; i++) {
        states[i] = small_state(256 << 10);
        cr_assert_eq(luaL_loadstring(states[i], hog), LUA_OK);
        cr_assert_eq(lua_pcall(states[i], 0, 0, 0), LUA_ERRMEM);
        lua_settop(states[i], 0);
        lua_gc(states[i], LUA_GCCOLLECT);
    }
    after = resident_kb();
    /* Some 32 KB each; 95 without sweeps. */
    cr_expect_leq(after - made, MANY * 48 + 512, "%ld KB each",
                  (after - made) / MANY);
    for (int i = 0; i < MANY; i++) {
        hak_lua_close(states[i]);
    }
}

static long faults(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

/* States that are closed and made again find the pages of those before. */
Test(state, those_made_again_find_warm_pages)
{
    lua_State *states[MANY];
    long before = 0;

    if (WATCHED) {
        return;
    }
    for (int round = 0; round < 4; round++) {
        before = round == 1 ? faults() : before;
        for (int i = 0; i < MANY; i++) {
            states[i] = small_state(4 << 20);
            cr_assert_eq(luaL_dostring(states[i],
                                       "t = {} for i = 1, 100 do "
                                       "t[i] = {name = 'x' .. i, i} end"),
                         LUA_OK);
        }
        for (int i = 0; i < MANY; i++) {
            hak_lua_close(states[i]);
        }
    }
    cr_expect_leq((faults() - before) / (3 * MANY), 5, "%ld faults",
                  faults() - before);
}
