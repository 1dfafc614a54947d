/*
 * profile_module.c - hakmem.profile in the stock interpreter, run as a child: what it
 * writes, what it refuses, and HAKMEM_PROFILE.
 *
 * Obeys: TMPDIR, LUA, HAKMEM_LUA_MODULE_DIR, HAKMEM_BUILD as module.c does.
 */
#include "lua_test.h"

#include <limits.h>

TestSuite(profile_module, .timeout = 300);

/* Goes to a directory of its own, in which scripts write. */
static void begin(void)
{
    const char *given = getenv("HAKMEM_LUA_MODULE_DIR");
    const char *build = getenv("HAKMEM_BUILD");
    char path[PATH_MAX], whole[PATH_MAX + 8], pattern[PATH_MAX + 16];

    if (given)
        snprintf(path, sizeof path, "%s", given);
    else
        snprintf(path, sizeof path, "%s/lua", build ? build : "build/release");
    cr_assert(realpath(path, whole), "%s not found: make lua", path);
    snprintf(pattern, sizeof pattern, "%s/?.so", whole);
    setenv("LUA_CPATH", pattern, 1);
    unsetenv("LUA_CPATH_5_4");
    unsetenv("LUA_INIT");
    unsetenv("LUA_INIT_5_4");
    snprintf(path, sizeof path, "%s/hakmem-profile-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
    cr_assert(mkdtemp(path));
    cr_assert_eq(chdir(path), 0);
}

static void end(void)
{
    cr_assert_eq(system("rm -rf \"$PWD\""), 0);
}

/* What `lua -lhakmem s.lua` says on both its outputs; the caller frees it. */
static char *run(const char *environment, const char *code)
{
    const char *lua = getenv("LUA");
    lt_text text = {0};
    char command[PATH_MAX], buffer[512];
    size_t n;
    FILE *file = fopen("s.lua", "w");
    cr_assert(file && fputs(code, file) >= 0 && fclose(file) == 0);
    snprintf(command, sizeof command, "%s %s -lhakmem s.lua 2>&1", environment,
             lua ? lua : "lua5.4");
    file = popen(command, "r");
    cr_assert(file);
    while ((n = fread(buffer, 1, sizeof buffer, file)) > 0)
        lt_text_add(&text, buffer, n);
    pclose(file);
    lt_text_add(&text, "", 0);
    return text.data;
}

#define EXPECT_SAYS(environment, code, text)                                   \
    do {                                                                       \
        char *said = run(environment, code);                                   \
        cr_expect(strstr(said, text), "%s: \"%s\" not in \"%s\"", code, text,  \
                  said);                                                       \
        free(said);                                                            \
    } while (0)

/* ---- what it does ----------------------------------------------------------- */

/* Lua: whether the file has the string. */
#define HAS                                                                    \
    "local function has(path, what)\n"                                         \
    "    local f <close> = assert(io.open(path, 'rb'))\n"                      \
    "    return f:read('a'):find(what, 1, true) ~= nil\n"                      \
    "end\n"

Test(profile_module, a_profile_is_written_in_four_forms)
{
    begin();
    EXPECT_SAYS("",
                HAS
                "local p = hakmem.profile{rate = 1000}\n"
                "local function leaks() local t = {}\n"
                "    for i = 1, 10000 do t[i] = {i} end return t end\n"
                "kept = leaks()\n"
                "for _, e in ipairs{'txt', 'html', 'json', 'pb.gz'} do\n"
                "    assert(p:write('o.' .. e) == true)\n"
                "end\n"
                "p:stop()\n"
                "assert(has('o.txt', 'leaks (s.lua:'))\n"
                "assert(has('o.html', 'leaks') and has('o.json', 'leaks'))\n"
                "assert(has('o.pb.gz', '\\x1f\\x8b'))\n"
                "kept = nil collectgarbage()\n"
                "p:write('o.txt')\n"
                "assert(not has('o.txt', 'leaks'))\n"
                "p:write('o.txt', 'allocated', 'blocks')\n"
                "assert(has('o.txt', 'leaks'))\n"
                "print('fine')",
                "fine");
    end();
}

Test(profile_module, a_call_is_profiled)
{
    begin();
    EXPECT_SAYS("",
                HAS
                "local function f() kept = {}\n"
                "    for i = 1, 1e5 do kept[i] = {} end return 1, nil end\n"
                "local r = table.pack(hakmem.profile(f, 'o.txt'))\n"
                "assert(r.n == 2 and r[1] == 1 and r[2] == nil)\n"
                "assert(has('o.txt', 's.lua:'))\n"
                "local ok, e = pcall(hakmem.profile, error, 'o2.txt')\n"
                "assert(not ok and e == nil and not io.open('o2.txt'))\n"
                /* over a yield, and with options */
                "local co = coroutine.wrap(function()\n"
                "    return hakmem.profile(function()\n"
                "        return coroutine.yield(7) end, 'o3.txt', {rate = 9})\n"
                "end)\n"
                "assert(co() == 7 and co('x') == 'x' and has('o3.txt', ''))\n"
                "print('fine')",
                "fine");
    end();
}

Test(profile_module, what_has_grown_and_a_profile_in_a_profile)
{
    begin();
    EXPECT_SAYS("HAKMEM_PROFILE_RATE=1000",
                HAS "local function old() return {('o'):rep(1e5)} end\n"
                    "local function new() return {('n'):rep(2e5)} end\n"
                    "do\n"
                    "    local p <close> = hakmem.profile{rate = 10}\n"
                    "    a = old() p:mark() b = new()\n"
                    "    p:write('o.txt', 'grown')\n"
                    "end\n"
                    "assert(has('o.txt', 'new') and not has('o.txt', 'old'))\n"
                    /* the one that was there goes on */
                    "c = {('c'):rep(1e5)}\n"
                    "local q = hakmem.profile() q:stop() q:stop()\n"
                    "d = old()\n"
                    "q:write('o.txt') assert(has('o.txt', 'old'))\n"
                    "print('fine')",
                "fine");
    end();
}

/* ---- what it refuses ------------------------------------------------------------ */

Test(profile_module, wrong_uses_are_told)
{
    begin();
    EXPECT_SAYS("", "hakmem.profile{rat = 1}",
                "the only option of a profile is rate");
    EXPECT_SAYS("", "hakmem.profile{rate = 0}",
                "rate is a number of bytes: one sample in so many");
    EXPECT_SAYS("", "hakmem.profile{rate = 'x'}", "rate is a number of bytes");
    EXPECT_SAYS("", "hakmem.profile(1)", "table expected, got number");
    EXPECT_SAYS("", "hakmem.profile(print)",
                "bad argument #2 to 'profile' (string expected, got no value)");
    EXPECT_SAYS(
        "", "hakmem.profile():write('x.out')",
        "a profile's path must end in .html, .pb.gz (for go tool pprof), "
        ".txt (collapsed stacks) or .json (speedscope)");
    EXPECT_SAYS("", "hakmem.profile():write('x.txt', 'alive')",
                "invalid option 'alive'");
    EXPECT_SAYS("", "print(hakmem.profile():write('/nowhere/x.txt'))",
                "nil\t/nowhere/x.txt: No such file or directory\t2");
    EXPECT_SAYS("", "print(hakmem.profile():write('/dev/full/x.txt'))",
                "nil\t/dev/full/x.txt: Not a directory\t20");
    EXPECT_SAYS("", "hakmem.profile(print, '/nowhere/x.txt')",
                "/nowhere/x.txt: No such file or directory");
    EXPECT_SAYS("", "hakmem.profile().write({}, 'x.txt')",
                "hakmem.profile expected, got table");
    end();
}

/* ---- HAKMEM_PROFILE --------------------------------------------------------------- */

/* The script leaves its garbage; the end is by closing the state, or is not. */
static void check_end(const char *how)
{
    char code[500];
    snprintf(code, sizeof code,
             "local function leaks() kept = {}\n"
             "    for i = 1, 30000 do kept[i] = {i} end end\n"
             "leaks()\n"
             "%s",
             how);
    unlink("o.txt");
    free(run("HAKMEM_PROFILE=o.txt HAKMEM_PROFILE_RATE=1000", code));
    EXPECT_SAYS("", HAS "print(has('o.txt', 'leaks (s.lua:2)'))", "true");
}

Test(profile_module, the_environments_is_written_before_all_is_freed)
{
    begin();
    check_end("");
    check_end("os.exit(0, true)");
    check_end("os.exit(3)");
    check_end("error('no')");
    end();
}
