/*
 * scripts.c - the scripts of this folder, each on stock Lua's allocator, on a
 * heap of its own and on the thread's heap, in both modes of the collector:
 * they check themselves and must print the same lines.
 */
#include "lua_test.h"

TestSuite(scripts, .timeout = 600);

static void run_script(lt_mode mode, int collector, const char *path,
                       lt_text *output)
{
    lua_State *L = lt_open(mode);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    lt_capture_print(L, output);
    lua_gc(L, collector, 0, 0, 0);
    if (luaL_dofile(L, path) != LUA_OK)
        cr_assert_fail("%s allocator: %s", lt_mode_name(mode),
                       lua_tostring(L, -1));
    if (heap)
        cr_expect_eq(lt_live(heap), lt_counted(L), "%zu live, Lua counts %zu",
                     lt_live(heap), lt_counted(L));
    hak_lua_close(L);
}

static void compare(const char *name)
{
    static const int collectors[] = {LUA_GCINC, LUA_GCGEN};
    char path[512];
    lt_text expected = {0}, text = {0};
    lt_export_scale();
    lt_script_path(path, sizeof path, name);
    run_script(LT_STOCK, LUA_GCINC, path, &expected);
    cr_assert_gt(expected.size, (size_t)0, "%s printed nothing", name);
    lt_stderr capture = lt_stderr_begin();
    for (int mode = LT_HEAP; mode < LT_MODES; mode++)
        for (int c = 0; c < 2; c++) {
            lt_text output = {0};
            run_script((lt_mode)mode, collectors[c], path, &output);
            cr_expect_str_eq(lt_text_get(&output), lt_text_get(&expected),
                             "%s on the %s allocator printed:\n%sand not:\n%s",
                             name, lt_mode_name((lt_mode)mode),
                             lt_text_get(&output), lt_text_get(&expected));
            lt_text_free(&output);
        }
    lt_stderr_end(&capture, &text);
    cr_expect_str_eq(lt_text_get(&text), "", "on stderr: %s",
                     lt_text_get(&text));
    lt_text_free(&text);
    lt_text_free(&expected);
}

Test(scripts, gc)
{
    compare("gc.lua");
}

Test(scripts, coroutines)
{
    compare("coroutines.lua");
}

Test(scripts, strings)
{
    compare("strings.lua");
}

Test(scripts, tables)
{
    compare("tables.lua");
}

Test(scripts, errors)
{
    compare("errors.lua");
}

Test(scripts, closures)
{
    compare("closures.lua");
}
