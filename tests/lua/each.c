/*
 * each.c - hak_lua_each and hak_lua_heap_resident: every heap of the process is
 * seen, from any thread, while others make, use and delete theirs.
 */
#include "lua_test.h"

#include <pthread.h>
#include <stdatomic.h>

TestSuite(each, .timeout = 300);

static hak_lua_heap *named(const char *name)
{
    hak_lua_config config = {.size = sizeof config, .name = name};
    hak_lua_heap *heap = hak_lua_heap_new(&config);
    cr_assert(heap);
    return heap;
}

/* ---- what is seen ------------------------------------------------------ */

typedef struct seen {
    int count, found;
    const hak_lua_heap *heap;
    const char *name;
    hak_lua_stats stats;
} seen;

/* Counts heaps, and keeps the figures of the one in question. */
static int note(void *ud, const hak_lua_heap *heap, const char *name,
                const hak_lua_stats *stats)
{
    seen *s = ud;
    s->count++;
    if (heap == s->heap) {
        s->found++;
        s->stats = *stats;
        cr_expect_str_eq(name, s->name);
    }
    return 0;
}

static void expect_seen(const hak_lua_heap *heap, const char *name, int count)
{
    seen s = {.heap = heap, .name = name};
    cr_expect_eq(hak_lua_each(note, &s), 0);
    cr_expect_eq(s.count, count, "%d heaps seen, not %d", s.count, count);
    cr_expect_eq(s.found, 1, "%s was seen %d times", name, s.found);
    hak_lua_stats now = lt_stats(heap);
    cr_expect_eq(memcmp(&s.stats, &now, sizeof now), 0, "figures of %s", name);
}

Test(each, none)
{
    seen s = {0};
    cr_expect_eq(hak_lua_each(note, &s), 0);
    cr_expect_eq(s.count, 0);
    hak_free(hak_malloc(1));
    lua_State *L = lt_open(LT_THREAD);
    hak_heap *not_ours = hak_heap_new(NULL);
    cr_expect_eq(hak_lua_each(note, &s), 0);
    cr_expect_eq(s.count, 0);
    hak_heap_delete(not_ours);
    lua_close(L);
}

/* Made by hand, with a state, switched; heaps that are no more are not seen,
 * nor those of others in their slots. */
Test(each, all_kinds)
{
    hak_lua_heap *a = named("player 17"), *b = named(NULL);
    expect_seen(a, "player 17", 2);
    expect_seen(b, "", 2);
    hak_lua_config config = {.size = sizeof config, .name = "whole"};
    lua_State *L = hak_lua_newstate(&config);
    luaL_openlibs(L);
    expect_seen(hak_lua_heap_of(L), "whole", 3);
    lua_State *S = luaL_newstate();
    config.name = "switched";
    expect_seen(hak_lua_switch(S, &config), "switched", 4);
    hak_lua_heap_delete(a);
    expect_seen(b, "", 3);
    hak_heap *not_ours = hak_heap_new(NULL);
    expect_seen(b, "", 3);
    lua_close(S);
    expect_seen(b, "", 2);
    hak_lua_close(L);
    expect_seen(b, "", 1);
    hak_lua_heap_delete(b);
    hak_heap_delete(not_ours);
    seen s = {0};
    hak_lua_each(note, &s);
    cr_expect_eq(s.count, 0);
}

/* ---- what `visit` may do ----------------------------------------------- */

static int stop_at_third(void *ud, const hak_lua_heap *heap, const char *name,
                         const hak_lua_stats *stats)
{
    (void)heap, (void)name, (void)stats;
    return ++*(int *)ud == 3 ? 42 : 0;
}

/* Deletes the heap it is shown and makes another. */
static int replace(void *ud, const hak_lua_heap *heap, const char *name,
                   const hak_lua_stats *stats)
{
    (void)stats;
    if (strcmp(name, "old") == 0) {
        hak_lua_heap_delete((hak_lua_heap *)(uintptr_t)heap);
        cr_expect_eq(hak_lua_heap_resident(heap), (size_t)0);
        named("new");
        ++*(int *)ud;
    }
    return 0;
}

Test(each, visit_may_stop_and_change)
{
    enum { HEAPS = 10 };
    int n = 0;
    for (int i = 0; i < HEAPS; i++)
        named("old");
    cr_expect_eq(hak_lua_each(stop_at_third, &n), 42);
    cr_expect_eq(n, 3);
    n = 0;
    cr_expect_eq(hak_lua_each(replace, &n), 0);
    cr_expect_eq(n, HEAPS);
    seen s = {0};
    hak_lua_each(note, &s);
    cr_expect_eq(s.count, HEAPS);
}

static int fail_at_once(void *ud, const hak_lua_heap *heap, const char *name,
                        const hak_lua_stats *stats)
{
    (void)heap, (void)name, (void)stats;
    return luaL_error(ud, "no more");
}

static int each_and_raise(lua_State *L)
{
    return hak_lua_each(fail_at_once, L);
}

Test(each, visit_may_leave_by_an_error)
{
    lua_State *L = lt_open(LT_HEAP);
    for (int i = 0; i < 3; i++) {
        lua_pushcfunction(L, each_and_raise);
        cr_expect_eq(lua_pcall(L, 0, 0, 0), LUA_ERRRUN);
        lua_settop(L, 0);
    }
    hak_lua_close(L); /* would wait for a lock that was left */
}

/* ---- threads ----------------------------------------------------------- */

enum { WORKERS = 3 };

static atomic_bool stop;
static atomic_long rounds;

/* States that live, work and end, with the same shape each. */
static void *work(void *arg)
{
    char name[16];
    snprintf(name, sizeof name, "worker %ld", (long)(intptr_t)arg);
    hak_lua_config config = {
        .size = sizeof config, .name = name, .limit = 8 << 20};
    while (!atomic_load(&stop)) {
        lua_State *L = hak_lua_newstate(&config);
        luaL_openlibs(L);
        if (luaL_dostring(L, "local t = {} for i = 1, 1000 do\n"
                             "t[i % 50] = {i, ('x'):rep(i)} end") != LUA_OK)
            abort();
        hak_lua_close(L);
        atomic_fetch_add(&rounds, 1);
    }
    return NULL;
}

/* Figures that can't be are not seen, nor a name that is none. */
static int check(void *ud, const hak_lua_heap *heap, const char *name,
                 const hak_lua_stats *stats)
{
    ++*(long *)ud;
    cr_assert_eq(strncmp(name, "worker ", 7), 0, "named \"%s\"", name);
    cr_assert_leq(stats->live_bytes, (size_t)8 << 20);
    cr_assert_leq(stats->peak_bytes, (size_t)8 << 20);
    /* LuaJIT's begins when the state is made. */
    if (!lt_is_jit() || stats->limit != 0)
        cr_assert_eq(stats->limit, (size_t)8 << 20);
    cr_assert_leq(hak_lua_heap_resident(heap), (size_t)64 << 20);
    return 0;
}

Test(each, while_others_make_and_delete)
{
    pthread_t threads[WORKERS];
    long seen_in_all = 0, least = lt_scaled(150);
    for (int i = 0; i < WORKERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, work,
                                    (void *)(intptr_t)i),
                     0);
    while (atomic_load(&rounds) < least || seen_in_all < 10)
        hak_lua_each(check, &seen_in_all);
    atomic_store(&stop, true);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    seen s = {0};
    hak_lua_each(note, &s);
    cr_expect_eq(s.count, 0);
}

/* A child goes on with what it has, though others were at it. */
Test(each, after_a_fork)
{
    pthread_t thread;
    hak_lua_heap *heap = named("worker of the parent");
    cr_assert_eq(pthread_create(&thread, NULL, work, NULL), 0);
    while (atomic_load(&rounds) < 1)
        sched_yield();
    for (int i = 0; i < 10; i++) {
        pid_t child = fork();
        if (child == 0) {
            seen s = {.heap = heap, .name = "worker of the parent"};
            alarm(250);
            hak_lua_each(note, &s);
            hak_lua_heap_delete(heap);
            _exit(s.found == 1 ? 0 : 1);
        }
        int status;
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", status);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    hak_lua_heap_delete(heap);
}

/* ---- resident ---------------------------------------------------------- */

Test(each, resident)
{
    lua_State *L = lt_open(LT_HEAP);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    size_t empty = hak_lua_heap_resident(heap);
    cr_expect_gt(empty, lt_live(heap) / 2);
    lt_run(L, "t = {} for i = 1, 100 do t[i] = ('x'):rep(100000) .. i end\n"
              "for i = 101, 20000 do t[i] = {} end");
    lt_collect(L);
    size_t full = hak_lua_heap_resident(heap), live = lt_live(heap);
    hak_lua_stats stats = lt_stats(heap);
    cr_expect_geq(full, live - live / 10, "%zu of %zu", full, live);
    cr_expect_leq(full, stats.held_bytes + (64 << 10), "%zu of %zu", full,
                  (size_t)stats.held_bytes);
    lt_run(L, "t = nil");
    lt_collect(L);
    hak_lua_heap_trim(heap);
    cr_expect_lt(hak_lua_heap_resident(heap), empty + (512 << 10));
    hak_lua_close(L);
    cr_expect_eq(hak_lua_heap_resident(heap), (size_t)0);
}
