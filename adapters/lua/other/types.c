/*
 * types.c - hak_lua_count_types where the walk of ../hak_lua_types.c does not apply:
 * in every Lua but 5.4.
 *
 * Tested by tests/lua/types.c.
 */
#include <errno.h>

#include "../hak_lua_heap.h"

int hak_lua_count_types(lua_State *L, hak_lua_types *types)
{
    (void)L;
    errno = types->size == sizeof(*types) ? ENOTSUP : EINVAL;
    return -1;
}
