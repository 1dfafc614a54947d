/*
 * module.c - the module "hakmem" in the stock interpreter, run as a child:
 * loading it anywhere, its functions and their errors, every way to end.
 *
 * Obeys: LUA (the interpreter; unset: lua5.4), HAKMEM_LUA_MODULE_DIR (where
 * hakmem.so is; unset: HAKMEM_BUILD/lua, and without that build/release/lua),
 * HAKMEM_VERSION_FILE (unset: VERSION), and what lua_test.h obeys.
 */
#include "lua_test.h"

#include <limits.h>
#include <spawn.h>

extern char **environ;

/* ---- running the interpreter ------------------------------------------- */

typedef struct child {
    int status; /* exit code, or 128 + signal */
    lt_text out, err;
} child;

static void child_free(child *c)
{
    lt_text_free(&c->out);
    lt_text_free(&c->err);
}

static void module_directory(char *path, size_t size)
{
    const char *directory = getenv("HAKMEM_LUA_MODULE_DIR");
    const char *build = getenv("HAKMEM_BUILD");
    int length = directory ? snprintf(path, size, "%s", directory)
                           : snprintf(path, size, "%s/lua",
                                      build ? build : "build/release");
    cr_assert_lt((size_t)length, size, "the module's path is too long");
}

static void use_module_directory(void)
{
    char directory[PATH_MAX], path[PATH_MAX + 16];
    module_directory(directory, sizeof directory);
    snprintf(path, sizeof path, "%s/hakmem.so", directory);
    cr_assert_eq(access(path, R_OK), 0,
                 "%s not found: build it with `make lua`, or set "
                 "HAKMEM_LUA_MODULE_DIR to its folder",
                 path);
    snprintf(path, sizeof path, "%s/?.so", directory);
    setenv("LUA_CPATH", path, 1);
    unsetenv("LUA_CPATH_5_4");
    unsetenv("LUA_INIT");
    unsetenv("LUA_INIT_5_4");
    lt_export_scale();
}

/*
 * A module built with a sanitizer needs its runtime in the interpreter from
 * the start: the shared one of this process, if there is one. Leaks are not
 * looked for there: an interpreter that ends by os.exit leaves its state.
 */
static void preload_sanitizer(void)
{
    char line[PATH_MAX + 128];
    const char *path = NULL;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && !path && fgets(line, sizeof line, maps))
        if (strstr(line, "/libasan.so") || strstr(line, "/libtsan.so"))
            path = strchr(line, '/');
    if (maps)
        fclose(maps);
    if (!path)
        cr_skip_test("the sanitizer has no shared runtime to preload");
    line[strcspn(line, "\n")] = '\0';
    setenv("LD_PRELOAD", path, 1);

    const char *options = getenv("ASAN_OPTIONS");
    char more[1024];
    snprintf(more, sizeof more, "%s:detect_leaks=0", options ? options : "");
    setenv("ASAN_OPTIONS", more, 1);
}

TestSuite(module, .timeout = 300, .init = use_module_directory);

/* Runs lua5.4 with up to four arguments. */
static child lua(const char *a, const char *b, const char *c, const char *d)
{
    const char *program = getenv("LUA") ? getenv("LUA") : "lua5.4";
    const char *arguments[] = {program, a, b, c, d, NULL};
    FILE *out = tmpfile(), *err = tmpfile();
    posix_spawn_file_actions_t files;
    child result = {.status = -1};
    pid_t pid;
    int status;
    if (LT_SANITIZED && !getenv("LD_PRELOAD"))
        preload_sanitizer();
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fileno(out), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, fileno(err), STDERR_FILENO);
    cr_assert_eq(posix_spawnp(&pid, program, &files, NULL, (char **)arguments,
                              environ),
                 0, "%s can't be run; install lua5.4 or set LUA", program);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    result.status =
        WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    posix_spawn_file_actions_destroy(&files);
    lt_read_all(out, &result.out);
    lt_read_all(err, &result.err);
    fclose(out);
    fclose(err);
    return result;
}

static void expect_end(const child *c, int status, const char *code)
{
    cr_expect_eq(c->status, status, "exit %d, not %d\nstderr: %s\nin: %.300s",
                 c->status, status, lt_text_get(&c->err), code);
}

/* Code that must end well, with nothing on stderr, printing `output`. */
static void good(const char *code, const char *output)
{
    child c = lua("-lhakmem", "-e", code, NULL);
    expect_end(&c, 0, code);
    cr_expect_str_eq(lt_text_get(&c.err), "", "stderr: %s\nin: %.300s",
                     lt_text_get(&c.err), code);
    cr_expect_str_eq(lt_text_get(&c.out), output, "stdout: %s\nin: %.300s",
                     lt_text_get(&c.out), code);
    child_free(&c);
}

/* ---- scripts ----------------------------------------------------------- */

static void script(const char *name)
{
    char path[512];
    lt_script_path(path, sizeof path, name);
    child stock = lua(path, NULL, NULL, NULL);
    child ours = lua("-lhakmem", path, NULL, NULL);
    expect_end(&stock, 0, name);
    expect_end(&ours, 0, name);
    cr_expect_gt(stock.out.size, (size_t)0);
    cr_expect_str_eq(lt_text_get(&ours.out), lt_text_get(&stock.out),
                     "%s printed: %s", name, lt_text_get(&ours.out));
    cr_expect_str_eq(lt_text_get(&ours.err), "", "%s: %s", name,
                     lt_text_get(&ours.err));
    child_free(&stock);
    child_free(&ours);
}

Test(module, scripts)
{
    static const char *const names[] = {"gc.lua",      "coroutines.lua",
                                        "strings.lua", "tables.lua",
                                        "errors.lua",  "closures.lua"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        script(names[i]);
}

/* ---- loading ----------------------------------------------------------- */

Test(module, global_and_required_are_one)
{
    good("local h = require 'hakmem'\n"
         "assert(h == hakmem and h == require 'hakmem')\n"
         "package.loaded.hakmem = nil\n"
         "local again = require 'hakmem'\n"
         "assert(again.stats().live_bytes > 0)\n"
         "assert(again.limit() == 0)\n"
         "print 'one'",
         "one\n");
}

/* Without -l: the state has run, and has data of every kind, before. */
Test(module, required_late)
{
    const char *code =
        "local t, names = {}, {}\n"
        "for i = 1, 20000 do t[i] = {i, 's' .. i} end\n"
        "for i = 1, 2000 do names[i] = ('n'):rep(i) end\n"
        "local co = coroutine.wrap(function() coroutine.yield(1) return 2 "
        "end)\n"
        "assert(co() == 1)\n"
        "local h = require 'hakmem'\n"
        "for i = 1, 20000 do\n"
        "    assert(t[i][1] == i and t[i][2] == 's' .. i)\n"
        "    t[i][3], t[i][4] = {}, {}\n"
        "end\n"
        "for i = 1, 2000 do assert(#names[i] == i) names[i] = nil end\n"
        "assert(co() == 2)\n"
        "for i = 1, 20000, 2 do t[i] = nil end\n"
        "collectgarbage() collectgarbage()\n"
        "local s = h.stats()\n"
        "assert(s.foreign_frees > 2000, s.foreign_frees)\n"
        "assert(s.tiny_allocs > 20000, s.tiny_allocs)\n"
        "print 'late'";
    child c = lua("-e", code, NULL, NULL);
    expect_end(&c, 0, code);
    cr_expect_str_eq(lt_text_get(&c.out), "late\n");
    cr_expect_str_eq(lt_text_get(&c.err), "", "%s", lt_text_get(&c.err));
    child_free(&c);
}

Test(module, required_in_a_coroutine)
{
    const char *code =
        "local h\n"
        "local co = coroutine.create(function()\n"
        "    coroutine.wrap(function() h = require 'hakmem' end)()\n"
        "    coroutine.yield()\n"
        "end)\n"
        "coroutine.resume(co)\n"
        "co = nil\n"
        "collectgarbage() collectgarbage()\n"
        "local t = {}\n"
        "for i = 1, 10000 do t[i] = {i} end\n"
        "assert(h.stats().tiny_allocs > 10000)\n"
        "print 'inside'";
    child c = lua("-e", code, NULL, NULL);
    expect_end(&c, 0, code);
    cr_expect_str_eq(lt_text_get(&c.out), "inside\n");
    cr_expect_str_eq(lt_text_get(&c.err), "", "%s", lt_text_get(&c.err));
    child_free(&c);
}

/* ---- its functions ----------------------------------------------------- */

Test(module, stats)
{
    good(
        "local s = hakmem.stats()\n"
        "for _, name in ipairs {'live_bytes', 'peak_bytes', 'limit',\n"
        "    'held_bytes', 'resident_bytes', 'calls', 'tiny_allocs',\n"
        "    'tiny_frees', 'larger_allocs', 'larger_frees', 'fallback_large',\n"
        "    'fallback_memory', 'foreign_frees', 'limit_refusals', 'slabs',\n"
        "    'tiny', 'large', 'foreign', 'refused'} do\n"
        "    assert(math.type(s[name]) == 'integer', name)\n"
        "    assert(s[name] >= 0, name)\n"
        "end\n"
        "local n = 0\n"
        "for _, name in ipairs {'string', 'table', 'function', 'userdata',\n"
        "    'thread', 'upvalue', 'prototype', 'other'} do\n"
        "    local t = s.types[name]\n"
        "    assert(math.type(t.made_count) == 'integer', name)\n"
        "    assert(math.type(t.made_bytes) == 'integer', name)\n"
        "    assert((t.made_count == 0) == (t.made_bytes == 0), name)\n"
        "    assert(t.count == t.made_count and t.bytes == t.made_bytes)\n"
        "    n = n + 1\n"
        "end\n"
        "for _ in pairs(s.types) do n = n - 1 end\n"
        "assert(n == 0)\n"
        "assert(s.tiny == s.tiny_allocs + s.tiny_frees)\n"
        "assert(s.large == s.larger_allocs + s.larger_frees)\n"
        "assert(s.foreign == s.foreign_frees)\n"
        "assert(s.refused == s.limit_refusals)\n"
        "assert(s.limit_refused == s.limit_refusals)\n"
        "assert(s.resident_bytes > 0 and s.held_bytes > 0)\n"
        "print 'stats'",
        "stats\n");
}

Test(module, stats_move)
{
    good("local a = hakmem.stats()\n"
         "local t = {}\n"
         "for i = 1, 5000 do t[i] = {i} end\n"
         "t.big = ('x'):rep(100000) .. 'y'\n"
         "local b = hakmem.stats()\n"
         "assert(b.live_bytes >= a.live_bytes + 5000 * 56 + 100000)\n"
         "assert(b.peak_bytes >= b.live_bytes)\n"
         "assert(b.calls >= a.calls + 10000)\n"
         "assert(b.tiny_allocs >= a.tiny_allocs + 10000)\n"
         "assert(b.larger_allocs > a.larger_allocs)\n"
         "assert(b.fallback_large == 0)\n"
         "assert(b.fallback_memory == 0 and b.limit_refusals == 0)\n"
         "assert(b.slabs > 0)\n"
         "assert(b.types.table.made_count >= a.types.table.made_count + 5000)\n"
         "assert(b.types.table.made_count < a.types.table.made_count + 5100)\n"
         "assert(b.types.table.made_bytes >= a.types.table.made_bytes + 5000 * "
         "56)\n"
         "t = nil\n"
         "collectgarbage() collectgarbage()\n"
         "local c = hakmem.stats()\n"
         "assert(c.live_bytes < a.live_bytes + 20000)\n"
         "assert(c.peak_bytes >= b.live_bytes)\n"
         "print 'moved'",
         "moved\n");
}

/* What is live is there to the byte, before and after a table of tables. */
Test(module, types)
{
    good("local function all(types)\n"
         "    local sum = 0\n"
         "    for _, t in pairs(types) do\n"
         "        assert(t.part_bytes <= t.live_bytes)\n"
         "        sum = sum + t.live_bytes\n"
         "    end\n"
         "    return sum\n"
         "end\n"
         "hakmem.types()\n"
         "collectgarbage() collectgarbage() collectgarbage 'stop'\n"
         "local a, count = hakmem.types(), collectgarbage 'count' * 1024\n"
         "assert(all(a) <= count and all(a) > count - 4000)\n"
         "local t = {}\n"
         "for i = 1, 5000 do t[i] = {i} end\n"
         "collectgarbage()\n"
         "local b = hakmem.types()\n"
         "local more = b.table.live_count - a.table.live_count\n"
         "assert(more >= 5001 and more < 5020, more)\n"
         "more = b.table.live_bytes - a.table.live_bytes\n"
         "assert(more > 5000 * (56 + 16) + 5000 * 16, more)\n"
         "assert(b.table.made_count >= a.table.made_count + 5001)\n"
         "t = nil\n"
         "collectgarbage() collectgarbage()\n"
         "local c = hakmem.types()\n"
         "assert(c.table.live_count < a.table.live_count + 30)\n"
         "assert(c.table.made_count >= b.table.made_count)\n"
         "print 'types'",
         "types\n");
}

Test(module, heaps)
{
    good("local heaps = hakmem.heaps()\n"
         "assert(#heaps == 1)\n"
         "local h, s = heaps[1], hakmem.stats()\n"
         "assert(h.current == true and h.name == '')\n"
         "for key, value in pairs(s) do\n"
         "    if math.type(value) == 'integer' and key ~= 'tiny' and\n"
         "        key ~= 'large' and key ~= 'foreign' and key ~= 'refused'\n"
         "    then assert(math.type(h[key]) == 'integer', key) end\n"
         "end\n"
         "assert(h.live_bytes <= s.live_bytes and h.live_bytes > 10000)\n"
         "print 'heaps'",
         "heaps\n");
}

Test(module, limit)
{
    good("assert(hakmem.limit() == 0)\n"
         "local room = hakmem.stats().live_bytes + 200000\n"
         "assert(hakmem.limit(room) == 0)\n"
         "assert(hakmem.limit() == room and hakmem.stats().limit == room)\n"
         "for i = 1, 20 do\n"
         "    local ok, message = pcall(function()\n"
         "        local t = {}\n"
         "        for i = 1, 1e7 do t[i] = {i} end\n"
         "    end)\n"
         "    assert(not ok and message == 'not enough memory', message)\n"
         "    ok, message = pcall(string.rep, 'x', 1 << 20)\n"
         "    assert(not ok and message == 'not enough memory', message)\n"
         "end\n"
         "local s = hakmem.stats()\n"
         "assert(s.limit_refusals >= 40 and s.peak_bytes <= room)\n"
         "assert(hakmem.limit(0) == room)\n"
         "assert(#string.rep('x', 1 << 20) == 1 << 20)\n"
         "assert(hakmem.limit(1e6) == 0 and hakmem.limit(0) == 1000000)\n"
         "print 'limited'",
         "limited\n");
}

/* The variable decides, a bad value is said once and the default counts. */
Test(module, lanes_by_environment)
{
    static const char code[] =
        "local s = ('x'):rep(100000)\n"
        "local h = hakmem.stats()\n"
        "print(h.larger_allocs > 0, h.fallback_large > 0)";
    good(code, "true\tfalse\n");
    setenv("HAKMEM_LUA_LANES", "tiny", 1);
    good(code, "false\ttrue\n");
    setenv("HAKMEM_LUA_LANES", "all", 1);
    good(code, "true\tfalse\n");
    setenv("HAKMEM_LUA_LANES", "everything", 1);
    child c = lua("-lhakmem", "-e", code, NULL);
    expect_end(&c, 0, code);
    cr_expect_str_eq(lt_text_get(&c.out), "true\tfalse\n");
    cr_expect_str_eq(lt_text_get(&c.err),
                     "hakmem: HAKMEM_LUA_LANES=everything: not one of default "
                     "tiny all; using default\n");
    child_free(&c);
}

/* The scripts once more, with Tiny alone. */
Test(module, scripts_with_tiny_alone)
{
    setenv("HAKMEM_LUA_LANES", "tiny", 1);
    script("gc.lua");
    script("tables.lua");
    script("strings.lua");
}

Test(module, limit_bad_arguments)
{
    good(
        "local bad = {-1, math.mininteger, -0.5, 1.5, 0/0, 1/0, -1/0,\n"
        "    2^63, 'much', '', true, {}, print, coroutine.create(print)}\n"
        "for i, v in ipairs(bad) do\n"
        "    local ok, message = pcall(hakmem.limit, v)\n"
        "    assert(not ok, 'accepted ' .. tostring(v))\n"
        "    assert(message:find(\"bad argument #1 to '\", 1, true), message)\n"
        "    assert(message:find('limit', 1, true), message)\n"
        "    assert(hakmem.limit() == 0)\n"
        "end\n"
        "local t = {}\n"
        "for i = 1, 10000 do t[i] = {} end\n"
        "print 'refused'",
        "refused\n");
}

Test(module, trim)
{
    good("local t = {}\n"
         "for i = 1, 100000 do t[i] = {i} end\n"
         "t = nil\n"
         "collectgarbage() collectgarbage()\n"
         "local bytes = hakmem.trim()\n"
         "assert(math.type(bytes) == 'integer' and bytes > 1 << 20, bytes)\n"
         "assert(hakmem.stats().slabs <= 16)\n" /* of some 170 */
         "assert(hakmem.trim() < bytes)\n"
         "local u = {}\n"
         "for i = 1, 100000 do u[i] = {i} end\n"
         "for i = 1, 100000 do assert(u[i][1] == i) end\n"
         "print 'trimmed'",
         "trimmed\n");
}

Test(module, version)
{
    const char *path = getenv("HAKMEM_VERSION_FILE");
    FILE *file = fopen(path ? path : "VERSION", "r");
    char line[64] = "";
    cr_assert(file && fgets(line, sizeof line, file), "VERSION can't be read");
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    strcat(line, "\n");
    good("print(hakmem.version)", line);
}

/* A limit in a program that goes on: finalizers, coroutines, the end. */
Test(module, ends_at_the_limit)
{
    good("for i = 1, 100 do\n"
         "    keep = {keep, setmetatable({}, {__gc = function()\n"
         "        local t = {{}, {}, {}} end})}\n"
         "end\n"
         "hakmem.limit(1)\n",
         "");
}

/* ---- every way to end -------------------------------------------------- */

typedef struct ending {
    const char *code;
    int status;
    const char *error; /* part of stderr, or NULL: nothing */
} ending;

static const char data[] =
    "local t = {} for i = 1, 5000 do t[i] = {i, 'v' .. i} end\n"
    "big = ('x'):rep(5000)\n"
    "fin = setmetatable({}, {__gc = function() local u = {{}, {}} end})\n"
    "co = coroutine.wrap(function() coroutine.yield() end) co()\n";

static const ending endings[] = {
    {"", 0, NULL},
    {"os.exit()", 0, NULL},
    {"os.exit(true)", 0, NULL},
    {"os.exit(true, true)", 0, NULL},
    {"os.exit(false)", 1, NULL},
    {"os.exit(false, true)", 1, NULL},
    {"os.exit(3)", 3, NULL},
    {"os.exit(7, true)", 7, NULL},
    {"coroutine.wrap(function() os.exit(5) end)()", 5, NULL},
    {"coroutine.wrap(function() os.exit(6, true) end)()", 6, NULL},
    {"error('the end')", 1, "the end"},
    {"error({})", 1, "error object is a table value"},
    {"local x <close> = setmetatable({}, {__close = function()\n"
     "os.exit(9, true) end})",
     9, NULL},
    {"setmetatable({}, {__gc = function() os.exit(4) end})\n"
     "collectgarbage()",
     4, NULL},
};

/* `first` loads the module or not; the rest of the code is the same. */
static void end_each(const char *load, const char *between)
{
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const ending *e = &endings[i];
        char code[1024];
        snprintf(code, sizeof code, "%s%s%s%s", load, data, between, e->code);
        child c = lua("-e", code, NULL, NULL);
        expect_end(&c, e->status, code);
        if (e->error)
            cr_expect(strstr(lt_text_get(&c.err), e->error), "stderr: %s",
                      lt_text_get(&c.err));
        else
            cr_expect_str_eq(lt_text_get(&c.err), "", "stderr: %s\nin: %s",
                             lt_text_get(&c.err), code);
        cr_expect_null(strstr(lt_text_get(&c.err), "hakmem:"), "stderr: %s",
                       lt_text_get(&c.err));
        child_free(&c);
    }
}

Test(module, ends_loaded_first)
{
    end_each("require 'hakmem'\n", "");
}

Test(module, ends_loaded_last)
{
    end_each("", "require 'hakmem'\n");
}

/* What the endings are held against: the stock interpreter itself. */
Test(module, ends_not_loaded)
{
    if (!lt_native())
        cr_skip_test("nothing of ours to check");
    end_each("", "");
}

/* A script given as file and as standard input, with other -l and -W. */
Test(module, interpreter_options)
{
    child c =
        lua("-W", "-lhakmem", "-e", "print(hakmem.stats().tiny_allocs > 0)");
    expect_end(&c, 0, "-W");
    cr_expect_str_eq(lt_text_get(&c.out), "true\n");
    cr_expect_str_eq(lt_text_get(&c.err), "", "%s", lt_text_get(&c.err));
    child_free(&c);
    c = lua("-E", "-e", "print(pcall(require, 'hakmem'))", NULL);
    expect_end(&c, 0, "-E");
    cr_expect_eq(strncmp(lt_text_get(&c.out), "false", 5), 0);
    child_free(&c);
}
