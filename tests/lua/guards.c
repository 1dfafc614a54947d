/*
 * guards.c - guarded blocks of Lua states: a library in C that misuses its userdata is
 * reported by the lines that made it, dropped it and called the library; and programs
 * whose blocks are all guarded, as far as there is room, run as any.
 */
#include <dlfcn.h>

#include "lua_test.h"

TestSuite(guards, .timeout = 300);

#if LT_SANITIZED
#define NEED_SIGSEGV() cr_skip("the sanitizer has SIGSEGV for itself")
#else
#define NEED_SIGSEGV() ((void)0)
#endif

/* ---- the library ------------------------------------------------------------ */

#define SIZE 96

static char *kept; /* the userdata's memory, as a careless library keeps it */

static int lib_new(lua_State *L)
{
    kept = lua_newuserdatauv(L, SIZE, 0);
    memset(kept, 1, SIZE);
    lua_pushboolean(L, (uintptr_t)(kept + SIZE) % 4096 == 0);
    return 2;
}

static int lib_write(lua_State *L)
{
    *(volatile char *)(kept + luaL_checkinteger(L, 1)) = 2;
    return 0;
}

static int lib_read(lua_State *L)
{
    lua_pushinteger(L, *(volatile char *)(kept + luaL_checkinteger(L, 1)));
    return 1;
}

static const char script[] = "local u, ends\n"                         /* 1 */
                             "local function make()\n"                 /* 2 */
                             "    repeat u, ends = new() until ends\n" /* 3 */
                             "end\n"                                   /* 4 */
                             "local function drop()\n"                 /* 5 */
                             "    u = nil\n"                           /* 6 */
                             "    collectgarbage()\n"                  /* 7 */
                             "end\n"                                   /* 8 */
                             "local function touch()\n"                /* 9 */
                             "    how(at)\n"                           /* 10 */
                             "end\n"                                   /* 11 */
                             "local co = coroutine.wrap(function()\n"  /* 12 */
                             "    make()\n"                            /* 13 */
                             "    if drops then drop() end\n"          /* 14 */
                             "    touch()\n"                           /* 15 */
                             "end)\n"                                  /* 16 */
                             "co()\n";                                 /* 17 */

struct misuse {
    lua_CFunction how;
    int at;
    bool drops;
};

/* In a child; what it says goes to `fd`. */
static void run_misuse(const struct misuse *misuse, int fd)
{
    dup2(fd, STDERR_FILENO);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    setenv("HAKMEM_GUARD_MEMORY", "16M", 1);
    if (hak_guard_start(1) != 0)
        _exit(2);
    lua_State *L = hak_lua_newstate(NULL);
    luaL_openlibs(L);
    lua_register(L, "new", lib_new);
    lua_register(L, "how", misuse->how);
    lua_pushinteger(L, misuse->at);
    lua_setglobal(L, "at");
    lua_pushboolean(L, misuse->drops);
    lua_setglobal(L, "drops");
    if (luaL_loadbuffer(L, script, sizeof script - 1, "@x.lua") ||
        lua_pcall(L, 0, 0, 0))
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    _exit(0);
}

/* The report of it; the caller frees it. It has died by SIGSEGV. */
static char *report_of(const struct misuse *misuse)
{
    lt_text text = {0};
    FILE *file = tmpfile();
    int status;
    pid_t pid;
    cr_assert(file);
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        run_misuse(misuse, fileno(file));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    lt_read_all(file, &text);
    lt_text_add(&text, "", 0);
    fclose(file);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "%#x: %s",
              (unsigned)status, text.data);
    return text.data;
}

/* The line stands in the part of the report that begins with `stack`. */
static void expect_in(const char *report, const char *stack, const char *line)
{
    const char *from = strstr(report, stack), *at, *next;
    cr_assert(from, "no '%s' in %s", stack, report);
    at = strstr(from, line);
    next = strstr(from + 1, " by thread ");
    next = next ? strstr(next + 1, " by thread ") : NULL;
    cr_expect(at && (!next || at < next), "no '%s' under '%s' in %s", line,
              stack, report);
}

Test(guards, a_library_in_c_is_reported_by_lines)
{
    static const struct misuse after[] = {{lib_write, 5, true},
                                          {lib_read, 95, true}};
    static const struct misuse beyond = {lib_write, SIZE, false};

    NEED_SIGSEGV();
    if (dlsym(RTLD_DEFAULT, "_dl_find_object") == NULL) {
        cr_skip("names of C functions need glibc 2.35");
    }
    for (int i = 0; i < 2; i++) {
        char *report = report_of(&after[i]);
        cr_expect(strstr(report, "after free at"), "%s", report);
        expect_in(report, "  allocated by", " x.lua:3 ");
        expect_in(report, "  allocated by", " x.lua:13 ");
        expect_in(report, "  freed by", " x.lua:7 ");
        expect_in(report, "  touched by", " x.lua:10 ");
        expect_in(report, "  touched by", " x.lua:15 ");
        expect_in(report, "  touched by", i ? "lib_read" : "lib_write");
        free(report);
    }
    char *report = report_of(&beyond);
    cr_expect(strstr(report, "write beyond a block"), "%s", report);
    cr_expect(strstr(report, "1 byte past the end"), "%s", report);
    expect_in(report, "  allocated by", " x.lua:3 ");
    expect_in(report, "  touched by", " x.lua:10 ");
    free(report);
}

/* ---- programs ------------------------------------------------------------------ */

static const char program[] =
    "local t = {}\n"
    "for i = 1, 3000 do\n"
    "    t[i % 50] = { tostring(i), { i, i }, function() return i end,\n"
    "                  ('x'):rep(i % 3000), coroutine.wrap(function(a)\n"
    "                      local b = { a, { a } }\n"
    "                      coroutine.yield(b)\n"
    "                      return #b\n"
    "                  end) }\n"
    "    assert(t[i % 50][5](i)[2][1] == i)\n"
    "    assert(#t[i % 50][4] == i % 3000)\n"
    "    assert(t[i % 50][3]() == i)\n"
    "    if i % 100 == 0 then collectgarbage() end\n"
    "end\n"
    "local big = {}\n"
    "for i = 1, 20000 do big[i] = i end\n"
    "for i = 20000, 1, -1 do assert(big[i] == i) big[i] = nil end\n";

Test(guards, programs_run_as_ever)
{
    for (int mode = LT_HEAP; mode <= LT_TINY; mode++) {
        cr_assert_eq(hak_guard_start(1), 0);
        lua_State *L = lt_open(mode);
        if (luaL_dostring(L, program) != LUA_OK)
            cr_assert_fail("%s", lua_tostring(L, -1));
        if (mode == LT_THREAD)
            lua_close(L);
        else
            hak_lua_close(L);
        hak_guard_stop();
    }
}
