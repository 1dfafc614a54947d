#!/bin/sh
# luarocks.sh - the rockspec: it is of this version, `luarocks make` takes it, Lua
# finds the module, and it is gone when it is removed.
#
# Run by `make check-luarocks`. Nothing is installed but into a folder of its own.
set -u
cd "$(dirname "$0")/../.." || exit 1
command -v luarocks >/dev/null || {
    echo 'make check-luarocks: no luarocks; on Debian: apt install luarocks' >&2
    exit 1
}

# shellcheck source=tests/lib.sh
. tests/lib.sh
version=$(cat VERSION)
tree=$dir/tree

# The project's files, as they are now, in a folder of their own.
rocks() {
    (cd "$dir/source" && env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL luarocks \
        --lua-version 5.4 --tree "$tree" "$@")
}

check 'the archive' .ci/dist "$dir/source.tar.xz"
check 'is unpacked' tar -x -f "$dir/source.tar.xz" -C "$dir"
check 'one rockspec, of this version' says "hakmem-$version-1.rockspec" \
    sh -c "cd '$dir/source' && ls ./*.rockspec | sed 's,^./,,'"
check 'luarocks finds no fault' rocks lint "hakmem-$version-1.rockspec"
check 'luarocks make' rocks make
check 'luarocks knows it' sh -c "ls '$tree/lib/luarocks/rocks-5.4/hakmem/$version-1'"
check 'Lua finds it' says "$version" env LUA_CPATH="$tree/lib/lua/5.4/?.so" \
    lua5.4 -lhakmem -e 'print(hakmem.version)'
check 'and it serves' env LUA_CPATH="$tree/lib/lua/5.4/?.so" lua5.4 -e \
    'local h = require "hakmem"; local t = {}
    for i = 1, 10000 do t[i] = {i} end; assert(h.stats().live_bytes > 100000)'
check 'luarocks removes it' rocks remove hakmem
check 'it is gone' sh -c "! test -e '$tree/lib/lua/5.4/hakmem.so'"
sum
