#!/bin/sh
# run.sh - tests the libraries as `make MUSL=1` has built them: programs linked with
# musl's C library on each of them, a Lua state, the names they show.
#
#     run.sh BUILD LUA_CFLAGS LUA_LIBS
#
# The module for a stock Lua is built but not loaded: musl refuses its thread-local
# variables (docs/PORTING.md).
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(realpath "$1") lua_cflags=$2 lua_libs=$3

# shellcheck source=tests/lib.sh
. tests/lib.sh

# works COMMAND...: it says so, and nothing else.
works() {
    says works timeout 60 "$@"
}

# build PROGRAM SOURCE WORDS...: what the compiler says is shown.
build() {
    program=$dir/$1
    source=tests/musl/$2
    shift 2
    musl-gcc -std=gnu11 -O1 -g -Wall -Wextra -Werror -fno-builtin -pthread \
        -Iinclude -o "$program" "$source" "$@"
}

works_static_host() {
    # shellcheck disable=SC2086  # words
    build static_host host.c -static $lua_cflags "$build/libhakmem_lua.a" \
        "$build/stock/liblua.a" -lm &&
        works "$dir/static_host"
}

private_names() {
    for library in libhakmem.so libhakmem_core.so; do
        nm -D "$build/$library" | grep -E ' [A-Z] (__libc_|_dl_|.*@GLIBC|.*_chk$)' || :
    done
}

rpath=-Wl,-rpath,$build
build plain works.c
check 'a program by itself' works "$dir/plain"
check 'preloaded' works env LD_PRELOAD="$build/libhakmem.so" "$dir/plain" ours
check 'preloaded, and all handed on' works env LD_PRELOAD="$build/libhakmem.so" \
    HAKMEM_FORCE_LIBC_ALLOC=1 "$dir/plain"
build shared works.c -L"$build" -lhakmem "$rpath"
check 'libhakmem.so' works "$dir/shared" ours
build archive works.c "$build/libhakmem.a" -Wl,-u,hak_owns
check 'libhakmem.a' works "$dir/archive" ours
build static works.c -static "$build/libhakmem.a" -Wl,-u,hak_owns
check 'libhakmem.a in a static program' works "$dir/static" ours
build core works.c -DCORE "$build/libhakmem_core.a"
check 'libhakmem_core.a' works "$dir/core"
build core_shared works.c -DCORE -L"$build" -lhakmem_core "$rpath"
check 'libhakmem_core.so' works "$dir/core_shared"
if [ -f "$build/stock/liblua.a" ]; then
    # shellcheck disable=SC2086  # words
    build host host.c $lua_cflags "$build/libhakmem_lua.a" $lua_libs -lm
    check 'a Lua state' works "$dir/host"
    check 'a Lua state in a static program' works_static_host
fi

# What only glibc has is neither needed nor taken.
check 'none of glibc'\''s private names' says_nothing private_names

sum
