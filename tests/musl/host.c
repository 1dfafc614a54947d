/*
 * host.c - a Lua state on a heap of HAKMEM's, in a program linked with musl.
 *
 * The Lua is Debian's archive, which was compiled for glibc: what it asks glibc
 * for by names that musl has not is here.
 */
#include <hakmem_lua.h>
#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Noreturn void __longjmp_chk(jmp_buf env, int value);
void *__memcpy_chk(void *to, const void *from, size_t size, size_t room);
int __snprintf_chk(char *to, size_t size, int flag, size_t room,
                   const char *format, ...);
int __fprintf_chk(FILE *file, int flag, const char *format, ...);

void __longjmp_chk(jmp_buf env, int value)
{
    longjmp(env, value);
}

void *__memcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    (void)room;
    return memcpy(to, from, size);
}

int __snprintf_chk(char *to, size_t size, int flag, size_t room,
                   const char *format, ...)
{
    va_list list;
    int length;

    (void)flag;
    (void)room;
    va_start(list, format);
    length = vsnprintf(to, size, format, list);
    va_end(list);
    return length;
}

int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
    va_list list;
    int length;

    (void)flag;
    va_start(list, format);
    length = vfprintf(file, format, list);
    va_end(list);
    return length;
}

static const char script[] =
    "local kept = {}\n"
    "for i = 1, 20000 do kept[i] = ('x'):rep(i % 3000) .. i end\n"
    "local ok, why = pcall(function() return ('x'):rep(1 << 30) end)\n"
    "assert(not ok and why:find('not enough memory'), why)\n"
    "for i = 1, 20000 do assert(#kept[i] == i % 3000 + #tostring(i)) end\n"
    "print('works')\n";

int main(void)
{
    hak_lua_config config = {.size = sizeof(config), .limit = 256 << 20};
    lua_State *L = hak_lua_newstate(&config);
    int bad;

    if (L == NULL) {
        return 1;
    }
    luaL_openlibs(L);
    bad = luaL_dostring(L, script);
    if (bad) {
        fprintf(stderr, "host: %s\n", lua_tostring(L, -1));
    }
    hak_lua_close(L);
    return bad;
}
