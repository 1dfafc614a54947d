/*
 * readme.c - the examples of the README files and of hakmem_lua.h compile as
 * they are printed there, and do what the text says.
 *
 * Obeys: CC (unset: cc), HAKMEM_BUILD (unset: build/release), and
 * HAKMEM_TEST_FLAGS, for the compiler. Runs in the top directory.
 */
#include "lua_test.h"

TestSuite(readme, .timeout = 300);

/* ---- texts ------------------------------------------------------------- */

static void read_file(const char *path, lt_text *text)
{
    FILE *file = fopen(path, "r");
    cr_assert(file, "%s can't be read: run from the top directory", path);
    lt_read_all(file, text);
    fclose(file);
}

/*
 * The lines of `path` from the one that begins with `first` to the one before
 * `last`, without `prefix`.
 */
static void example(const char *path, const char *prefix, const char *first,
                    const char *last, lt_text *out)
{
    lt_text text = {0};
    size_t skip = strlen(prefix);
    bool inside = false;
    read_file(path, &text);
    for (char *line = text.data, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        cr_assert(end);
        *end = '\0';
        bool ours = strncmp(line, prefix, skip) == 0;
        inside =
            inside || (ours && strncmp(line + skip, first, strlen(first)) == 0);
        if (inside && strncmp(line, last, strlen(last)) == 0)
            break;
        if (inside) {
            lt_text_add(out, line + skip, ours ? strlen(line + skip) : 0);
            lt_text_add(out, "\n", 1);
        }
    }
    cr_assert_gt(out->size, (size_t)100, "no example in %s", path);
    lt_text_free(&text);
}

static const char lua_readme[] = "adapters/lua/README.md";

static void readme_program(lt_text *out)
{
    example(lua_readme, "    ", "#include <hakmem_lua.h>", "Under a limit",
            out);
}

/* ---- compiled and run --------------------------------------------------- */

/* A folder of its own, and what is in it. */
static char folder[512];

static const char *in_folder(const char *name)
{
    static char paths[4][600];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "w");
    cr_assert(file && fputs(text, file) >= 0);
    cr_assert_eq(fclose(file), 0);
}

static void compile(const char *text)
{
    const char *build = getenv("HAKMEM_BUILD"), *cc = getenv("CC");
    const char *flags = getenv("HAKMEM_TEST_FLAGS"), *top = getenv("TMPDIR");
    char command[4096];
#ifdef HAK_SMALL_RANGE /* asan, tsan, valgrind */
    cr_skip_test("the compiler and the example would be watched, too");
#endif
    snprintf(folder, sizeof folder, "%s/hakmem-readme-XXXXXX",
             top ? top : P_tmpdir);
    cr_assert(mkdtemp(folder));
    write_file("example.c", text);
    snprintf(command, sizeof command,
             "%s %s -std=gnu11 -Wall -Wextra -Werror -Iinclude "
             "$(pkg-config --cflags lua5.4) -o %s %s %s/libhakmem_lua.a "
             "$(pkg-config --libs lua5.4) -pthread -lm -ldl",
             cc ? cc : "cc", flags ? flags : "", in_folder("example"),
             in_folder("example.c"), build ? build : "build/release");
    cr_assert_eq(system(command), 0, "does not compile: %s", command);
}

/* Runs the example with this script; standard error is the text. */
static int run_example(const char *script, lt_text *text)
{
    char command[2048];
    write_file("script.lua", script);
    snprintf(command, sizeof command, "%s %s", in_folder("example"),
             in_folder("script.lua"));
    lt_stderr capture = lt_stderr_begin();
    int status = system(command);
    lt_stderr_end(&capture, text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void expect_run(const char *script, int status, const char *error)
{
    lt_text text = {0};
    int got = run_example(script, &text);
    cr_expect_eq(got, status, "exit %d: %s\nin: %s", got, lt_text_get(&text),
                 script);
    cr_expect_str_eq(lt_text_get(&text), error);
    lt_text_free(&text);
}

static void clean_up(void)
{
    unlink(in_folder("example"));
    unlink(in_folder("example.c"));
    unlink(in_folder("script.lua"));
    rmdir(folder);
}

static const char hog[] = "local t = {} for i = 1, 1e8 do t[i] = {i} end";

/* ---- the examples -------------------------------------------------------- */

Test(readme, the_program)
{
    lt_text text = {0};
    readme_program(&text);
    compile(lt_text_get(&text));
    expect_run("assert(#string.rep('x', 1000) == 1000)", 0, "");
    expect_run("error('my own', 0)", 1, "my own\n");
    expect_run(hog, 1, "not enough memory\n");
    expect_run("setmetatable({}, {__gc = function()\n"
               "    local t = {} for i = 1, 100 do t[i] = {} end end})\n"
               "kept = {} while true do kept = {kept} end",
               1, "not enough memory\n");
    clean_up();
    lt_text_free(&text);
}

/* The libraries do not fit: an error like any other, no panic. */
Test(readme, the_program_with_every_small_limit)
{
    lt_text text = {0};
    readme_program(&text);
    char *limit = strstr(text.data, "8 << 20");
    cr_assert(limit);
    memcpy(limit, "strtoul", 7);
    lt_text more = {0};
    lt_text_add(&more, "#include <stdlib.h>\n", 20);
    lt_text_add(&more, text.data, (size_t)(limit - text.data));
    static const char number[] = "strtoul(getenv(\"LIMIT\"), NULL, 10)";
    lt_text_add(&more, number, sizeof number - 1);
    lt_text_add(&more, limit + 7, strlen(limit + 7));
    compile(lt_text_get(&more));
    long refused = 0;
    for (long bytes = 1000; bytes < 40000; bytes += 1000) {
        char value[24];
        lt_text err = {0};
        snprintf(value, sizeof value, "%ld", bytes);
        setenv("LIMIT", value, 1);
        int status = run_example("local x = 1", &err);
        cr_expect_leq(status, 2, "limit %ld: %d, %s", bytes, status,
                      lt_text_get(&err));
        if (status == 1)
            cr_expect_str_eq(lt_text_get(&err), "not enough memory\n");
        else
            cr_expect_str_eq(lt_text_get(&err), "");
        refused += status == 1;
        lt_text_free(&err);
    }
    cr_expect_gt(refused, 3L);
    unsetenv("LIMIT");
    clean_up();
    lt_text_free(&text);
    lt_text_free(&more);
}

/* The man page is made from the header's. */
Test(readme, the_header_has_the_same_program)
{
    lt_text readme = {0}, header = {0};
    readme_program(&readme);
    example("include/hakmem_lua.h", " *     ", "#include <hakmem_lua.h>",
            " * Under a limit", &header);
    for (char *at = readme.data; (at = strstr(at, "/* ")); at++) {
        char *end = strstr(at, " */"); /* comments do not nest */
        cr_assert(end);
        memcpy(at, "// ", 3);
        memmove(end, end + 3, strlen(end + 3) + 1);
    }
    cr_expect_str_eq(readme.data, header.data);
    lt_text_free(&readme);
    lt_text_free(&header);
}

Test(readme, the_short_one_of_the_top_readme)
{
    lt_text text = {0}, whole = {0};
    static const char before[] =
        "#include <hakmem_lua.h>\n#include <lauxlib.h>\n#include <lualib.h>\n"
        "#include <stdio.h>\n"
        "static int run(lua_State *L)\n{\n"
        "    luaL_openlibs(L);\n"
        "    return luaL_dostring(L, \"local t = {} while true do t = {t} \"\n"
        "                            \"end\") ? lua_error(L) : 0;\n}\n"
        "int main(void)\n{\n";
    example("README.md", "    ", "hak_lua_config config", "All sizes come from",
            &text);
    lt_text_add(&whole, before, sizeof before - 1);
    lt_text_add(&whole, text.data, text.size);
    lt_text_add(&whole, "return 0;\n}\n", 12);
    compile(lt_text_get(&whole));
    expect_run("", 0, "not enough memory\n");
    clean_up();
    lt_text_free(&text);
    lt_text_free(&whole);
}

/* A cache that is dropped, then more, then an end. */
Test(readme, the_soft_limit_in_lua)
{
    lua_State *L = lt_open(LT_STOCK);
    lt_text text = {0};
    luaL_requiref(L, "hakmem", luaopen_hakmem, 1);
    lua_settop(L, 0);
    example(lua_readme, "    ", "hakmem.on_limit(", "The function returns",
            &text);
    lt_run(L, lt_text_get(&text));
    lt_run(L, "cache = {} for i = 1, 100000 do cache[i] = {i} end\n"
              "assert(cache[1] == nil)\n"
              "cache = nil\n"
              "local ok, message = pcall(function()\n"
              "    local t = {} for i = 1, 1e7 do t[i] = {i} end end)\n"
              "assert(not ok and message == 'not enough memory', message)\n"
              "assert(hakmem.stats().peak_bytes > 19 << 20)\n"
              "assert(hakmem.stats().peak_bytes < 24 << 20)\n");
    lua_close(L);
    lt_text_free(&text);
}
