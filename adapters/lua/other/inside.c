/*
 * inside.c - what a profile reads of the structures of Lua 5.1, 5.2, 5.3 and 5.5: where
 * a call's function is on the stack, which tells whether that stack is being moved.
 * Of 5.1 it is a thread's top and its calls, which are an array there. Table
 * constructors are told by the line of the instruction that Lua noted last; functions in
 * C by what called them.
 *
 * Tested by tests/lua/profile.c.
 */
#include <string.h>

#include "../hak_lua_heap.h"

#if LUA_VERSION_NUM >= 502

/* The beginning of a call; in 5.5 a distance while the stack moves. */
static bool is_in(const lua_Debug *last, lua_State *L, uintptr_t block,
                  size_t size)
{
    uintptr_t function;

    (void)L;
    memcpy(&function, last->i_ci, sizeof(function));
    return function < size || function - block < size;
}

#else

struct thread {
    void *next;
    uint8_t bytes[8];
    uintptr_t top, base;
    void *global;
    uintptr_t call;
};

static bool is_in(const lua_Debug *last, lua_State *L, uintptr_t block,
                  size_t size)
{
    const struct thread *thread = (const void *)L;

    (void)last;
    return thread->top - block < size || thread->call - block < size;
}

#endif

bool hak_lua_inside_is_moving(const struct hak_lua_heap *lua, lua_State *L,
                              const lua_Debug *last)
{
    return lua->asked != NULL &&
           is_in(last, L, (uintptr_t)lua->asked, lua->asked_size);
}

const void *hak_lua_inside_note(const struct hak_lua_heap *lua, lua_State *L,
                                const lua_Debug *last)
{
    (void)lua;
    (void)L;
    (void)last;
    return NULL;
}

void hak_lua_inside_put_back(const lua_Debug *last, const void *noted)
{
    (void)last;
    (void)noted;
}

void *hak_lua_inside_c_function(const lua_Debug *call)
{
    (void)call;
    return NULL;
}
