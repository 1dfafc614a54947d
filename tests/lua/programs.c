/*
 * programs.c - the programs of bench/lua, one unit each, on every allocator:
 * the checksums must agree.
 *
 * Obeys: HAKMEM_BENCH_LUA_DIR (where the programs are; unset: bench/lua),
 * HAKMEM_TEST_SLOW (0: leave out what takes long under a checker).
 */
#include "lua_test.h"

#include <dirent.h>

TestSuite(programs, .timeout = 600);

enum { MOST = 64 };

static const char *directory(void)
{
    const char *given = getenv("HAKMEM_BENCH_LUA_DIR");
    return given ? given : "bench/lua";
}

static bool left_out(const char *name)
{
    const char *slow = getenv("HAKMEM_TEST_SLOW");
    bool all = slow ? strcmp(slow, "0") != 0 : lt_native();
    return !all && strncmp(name, "grow", 4) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of the programs, sorted; the caller frees them. */
static int list(char **names)
{
    DIR *dir = opendir(directory());
    int count = 0;
    cr_assert(dir,
              "%s not found: run from the repository's root, or set "
              "HAKMEM_BENCH_LUA_DIR to the folder of the Lua programs",
              directory());
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *end = strrchr(entry->d_name, '.');
        if (!end || strcmp(end, ".lua") != 0)
            continue;
        cr_assert_lt(count, MOST);
        names[count++] = strdup(entry->d_name);
    }
    closedir(dir);
    qsort(names, (size_t)count, sizeof *names, by_name);
    return count;
}

/* Two units in one state: what the first one left is there for the second. */
static void run_program(lt_mode mode, const char *name, int units,
                        lt_text *text)
{
    char path[512];
    lua_State *L = lt_open(mode);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    snprintf(path, sizeof path, "%s/%s", directory(), name);
    if (luaL_loadfile(L, path) != LUA_OK || lua_pcall(L, 0, 1, 0) != LUA_OK)
        cr_assert_fail("%s: %s", name, lua_tostring(L, -1));
    cr_assert(lua_isfunction(L, -1), "%s returns no function", name);
    for (int i = 0; i < units; i++) {
        size_t size;
        lua_pushvalue(L, 1);
        if (lua_pcall(L, 0, 1, 0) != LUA_OK)
            cr_assert_fail("%s, %s allocator: %s", name, lt_mode_name(mode),
                           lua_tostring(L, -1));
        cr_assert(!lua_isnil(L, -1), "%s has no checksum", name);
        const char *sum = luaL_tolstring(L, -1, &size);
        lt_text_add(text, sum, size);
        lt_text_add(text, " ", 1);
        lua_settop(L, 1);
    }
    if (heap)
        cr_expect_eq(lt_live(heap), lt_counted(L),
                     "%s: %zu live, Lua counts "
                     "%zu",
                     name, lt_live(heap), lt_counted(L));
    hak_lua_close(L);
}

static void compare(const char *name)
{
    int units = strncmp(name, "grow", 4) == 0 ? 1 : 2;
    lt_text expected = {0};
    run_program(LT_STOCK, name, units, &expected);
    for (int mode = LT_HEAP; mode < LT_MODES; mode++) {
        lt_text sum = {0};
        run_program((lt_mode)mode, name, units, &sum);
        cr_expect_str_eq(lt_text_get(&sum), lt_text_get(&expected),
                         "%s on the %s allocator: %s, not %s", name,
                         lt_mode_name((lt_mode)mode), lt_text_get(&sum),
                         lt_text_get(&expected));
        lt_text_free(&sum);
    }
    lt_text_free(&expected);
}

/* Every second program, so that two tests share the work. */
static void compare_half(int half)
{
    char *names[MOST];
    int count = list(names);
    cr_assert_geq(count, 2, "no programs in %s", directory());
    for (int i = 0; i < count; i++) {
        if (i % 2 == half && !left_out(names[i]))
            compare(names[i]);
        free(names[i]);
    }
}

Test(programs, first_half)
{
    compare_half(0);
}

Test(programs, second_half)
{
    compare_half(1);
}
