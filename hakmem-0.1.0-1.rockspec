-- `luarocks --lua-version 5.4 make` in the project's folder builds and installs the
-- Lua module. Needs make and a C compiler. `make check-luarocks` tests it.
rockspec_format = "3.0"
package = "hakmem"
version = "0.1.0-1"
source = {
   -- What `make dist` packs; `luarocks make` takes the folder as it is.
   url = "file://hakmem-0.1.0.tar.xz",
}
description = {
   summary = "A memory allocator for Lua states: limits, statistics, heap profiles",
   detailed = [[
require "hakmem", or lua -lhakmem script.lua, puts a running Lua state on HAKMEM:
less time, memory that goes back to the system, a limit, statistics by type of
object, and heap profiles by line.]],
   license = "MIT",
}
supported_platforms = { "linux" }
dependencies = { "lua >= 5.4, < 5.5" }
build = {
   type = "make",
   build_target = "lua",
   build_variables = {
      BUILD = "build/luarocks",
      CC = "$(CC)",
      CFLAGS = "$(CFLAGS)",
      LUA_CFLAGS = "-I$(LUA_INCDIR)",
   },
   install_pass = false,
   install = { lib = { hakmem = "build/luarocks/lua/hakmem.so" } },
}
