/*
 * lua_test.h - what the Lua tests share: states on each allocator, running
 * code and scripts with captured output, figures, scaling.
 *
 * Who uses it: every file in tests/lua. Black box: it knows hakmem_lua.h and
 * stock Lua only (what is not as in 5.4 is in compat.h).
 *
 * Obeys: HAKMEM_TEST_SCALE (a divisor for the amount of work; unset: 1, under
 * a sanitizer 20), HAKMEM_TEST_DIR (where the scripts are; unset: tests/lua).
 */
#ifndef HAKMEM_LUA_TEST_H
#define HAKMEM_LUA_TEST_H

#include <criterion/criterion.h>
#include <errno.h>
#include <hakmem_lua.h>
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compat.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||     \
    __has_feature(memory_sanitizer) ||                                         \
    __has_feature(undefined_behavior_sanitizer)
#define LT_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LT_SANITIZED 1
#endif
#ifndef LT_SANITIZED
#define LT_SANITIZED 0
#endif

/* ---- amount of work ---------------------------------------------------- */

/* What the work is divided by; 1: a native run. */
static inline long lt_divisor(void)
{
    const char *text = getenv("HAKMEM_TEST_SCALE");
    long divisor = text ? strtol(text, NULL, 10) : LT_SANITIZED ? 20 : 1;
    return divisor < 1 ? 1 : divisor;
}

static inline long lt_scaled(long full)
{
    long part = full / lt_divisor();
    return part < 1 ? 1 : part;
}

/* True if memory figures of the process mean something. */
static inline bool lt_native(void)
{
    return lt_divisor() == 1 && !LT_SANITIZED;
}

/* Resident memory of this process in KB. */
static inline long lt_resident(void)
{
    char line[256];
    long kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    cr_assert(file, "/proc/self/status can't be read");
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1)
            break;
    fclose(file);
    return kb;
}

/* A small generator of its own: the same numbers on every system. */
static inline uint32_t lt_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* ---- states ------------------------------------------------------------ */

/* LT_HEAP has the lanes of the default, LT_TINY has lanes = tiny. */
typedef enum lt_mode {
    LT_STOCK,
    LT_HEAP,
    LT_THREAD,
    LT_TINY,
    LT_MODES
} lt_mode;

static inline const char *lt_mode_name(lt_mode mode)
{
    static const char *const names[] = {"stock", "heap", "thread", "tiny"};
    return names[mode];
}

/* A state on a heap of its own. */
static inline lua_State *lt_state_with(hak_lua_lanes lanes, size_t limit)
{
    hak_lua_config config = {
        .size = sizeof config, .limit = limit, .lanes = lanes};
    return hak_lua_newstate(&config);
}

/* A state without libraries. */
static inline lua_State *lt_bare(lt_mode mode)
{
    lua_State *L = mode == LT_STOCK  ? luaL_newstate()
                   : mode == LT_HEAP ? hak_lua_newstate(NULL)
                   : mode == LT_TINY ? lt_state_with(HAK_LUA_LANES_TINY, 0)
                                     : lua_newstate(hak_lua_alloc, NULL);
    cr_assert(L, "no state on the %s allocator", lt_mode_name(mode));
    return L;
}

static inline lua_State *lt_open(lt_mode mode)
{
    lua_State *L = lt_bare(mode);
    luaL_openlibs(L);
    return L;
}

/* Runs code; on an error shows it and fails the test. */
static inline void lt_run(lua_State *L, const char *code)
{
    if (luaL_dostring(L, code) != LUA_OK)
        cr_assert_fail("%s\nin: %.200s", lua_tostring(L, -1), code);
    lua_settop(L, 0);
}

/* The integer that code returns. */
static inline lua_Integer lt_value(lua_State *L, const char *code)
{
    if (luaL_dostring(L, code) != LUA_OK)
        cr_assert_fail("%s\nin: %.200s", lua_tostring(L, -1), code);
    lua_Integer value = lua_tointeger(L, -1);
    lua_settop(L, 0);
    return value;
}

/* What Lua itself counts, in bytes. */
static inline size_t lt_counted(lua_State *L)
{
    return (size_t)lua_gc(L, LUA_GCCOUNT) * 1024 +
           (size_t)lua_gc(L, LUA_GCCOUNTB);
}

/* Collects until nothing more can be: finalizers make garbage too. */
static inline void lt_collect(lua_State *L)
{
    for (int i = 0; i < 3; i++)
        lua_gc(L, LUA_GCCOLLECT);
}

static inline hak_lua_stats lt_stats(const hak_lua_heap *heap)
{
    hak_lua_stats stats = {.size = sizeof stats};
    cr_assert_eq(hak_lua_heap_stats(heap, &stats), 0, "no figures");
    return stats;
}

static inline size_t lt_live(const hak_lua_heap *heap)
{
    return lt_stats(heap).live_bytes;
}

/* ---- captured output --------------------------------------------------- */

/* Text that grows; held by malloc, so that it outlives the states. */
typedef struct lt_text {
    char *data;
    size_t size;
} lt_text;

static inline void lt_text_add(lt_text *text, const char *data, size_t size)
{
    char *grown = realloc(text->data, text->size + size + 1);
    if (!grown)
        abort();
    memcpy(grown + text->size, data, size);
    text->data = grown;
    text->size += size;
    text->data[text->size] = '\0';
}

static inline const char *lt_text_get(const lt_text *text)
{
    return text->data ? text->data : "";
}

static inline void lt_text_free(lt_text *text)
{
    free(text->data);
    *text = (lt_text){0};
}

/* Lua's print into the lt_text that is upvalue 1. */
static inline int lt_print(lua_State *L)
{
    lt_text *text = lua_touserdata(L, lua_upvalueindex(1));
    for (int i = 1, n = lua_gettop(L); i <= n; i++) {
        size_t size;
        const char *data = luaL_tolstring(L, i, &size);
        if (i > 1)
            lt_text_add(text, "\t", 1);
        lt_text_add(text, data, size);
        lua_pop(L, 1);
    }
    lt_text_add(text, "\n", 1);
    return 0;
}

static inline void lt_capture_print(lua_State *L, lt_text *text)
{
    lua_pushlightuserdata(L, text);
    lua_pushcclosure(L, lt_print, 1);
    lua_setglobal(L, "print");
}

/* Standard error into a file, from lt_stderr_begin to lt_stderr_end. */
typedef struct lt_stderr {
    int saved;
    FILE *file;
} lt_stderr;

static inline void lt_read_all(FILE *file, lt_text *text)
{
    char buffer[512];
    size_t size;
    rewind(file);
    while ((size = fread(buffer, 1, sizeof buffer, file)) > 0)
        lt_text_add(text, buffer, size);
}

static inline lt_stderr lt_stderr_begin(void)
{
    lt_stderr capture = {.file = tmpfile()};
    cr_assert(capture.file, "no temporary file");
    fflush(stderr);
    capture.saved = dup(STDERR_FILENO);
    dup2(fileno(capture.file), STDERR_FILENO);
    return capture;
}

/* Standard error as it was; what was written meanwhile goes to *text. */
static inline void lt_stderr_end(lt_stderr *capture, lt_text *text)
{
    fflush(stderr);
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    lt_read_all(capture->file, text);
    fclose(capture->file);
}

/* ---- scripts ----------------------------------------------------------- */

static inline void lt_script_path(char *path, size_t size, const char *name)
{
    const char *directory = getenv("HAKMEM_TEST_DIR");
    int length = snprintf(path, size, "%s/%s",
                          directory ? directory : "tests/lua", name);
    cr_assert_lt((size_t)length, size, "path of %s too long", name);
    cr_assert_eq(access(path, R_OK), 0,
                 "%s not found: run from the repository's root, or set "
                 "HAKMEM_TEST_DIR to the folder of the Lua tests",
                 path);
}

/* Scripts read the scale from the environment: make sure it is there. */
static inline void lt_export_scale(void)
{
    char text[24];
    snprintf(text, sizeof text, "%ld", lt_divisor());
    setenv("HAKMEM_TEST_SCALE", text, 1);
}

#endif /* HAKMEM_LUA_TEST_H */
