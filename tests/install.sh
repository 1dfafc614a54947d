#!/bin/sh
# install.sh - tests `make install` and `make uninstall`: what is there, that
# programs can be built with it and run, that nothing stays behind.
#
# Run by `make check-install`, which passes MAKE, BUILD, CC, LUA_LIBS and the
# lists of what is built: LIBS (archives), SHARED (the shared libraries or
# nothing).
set -u
cd "$(dirname "$0")/.." || exit 1
: "${MAKE:=make}" "${BUILD:=build/release}" "${CC:=gcc}" "${LIBS:?}"
: "${LUA_LIBS:=-llua5.4}" "${SHARED=}"

# shellcheck source=tests/lib.sh
. tests/lib.sh
version=$(cat VERSION)
major=${version%%.*}
stage=$dir/stage
prefix=/opt/hakmem
top=$stage$prefix

# Make's targets, into the stage unless a variable says otherwise.
run_make() {
    "$MAKE" BUILD="$BUILD" CC="$CC" PREFIX="$prefix" DESTDIR="$stage" "$@"
}

# Every file below $1, sorted, from there on.
files_of() {
    (cd "$1" && find . ! -type d | sort)
}

expected() {
    for header in hakmem.h hakmem_lua.h hakmem_ngx.h hakmem_stats.def; do
        echo "./include/$header"
    done
    for library in $LIBS; do
        echo "./lib/$library"
    done
    for library in $SHARED; do
        printf './lib/%s\n' "$library" "$library.$major" "$library.$version"
    done
    echo ./lib/lua/5.4/hakmem.so
    for package in hakmem hakmem_core hakmem_lua; do
        echo "./lib/pkgconfig/$package.pc"
    done
    for file in hakmem-config hakmem-config-version; do
        echo "./lib/cmake/hakmem/$file.cmake"
    done
    echo ./bin/hakmem
    for helper in hakmem-measure hakmem-replay libhakmem_record.so; do
        echo "./lib/hakmem/$helper"
    done
    for module in tools/hakmem/*.py; do
        echo "./share/hakmem/${module##*/}"
    done
    for page in hakmem.1 hakmem.3 hakmem_lua.3 hakmem_ngx.3 hakmem.7 hakmem_py.1 \
        hak_malloc.3 hak_lua_alloc.3 ngx_hak_palloc.3; do
        echo "./share/man/man${page##*.}/$page"
    done
}

cat >"$dir/program.c" <<'END'
#include <hakmem.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    hak_stats_t stats = {.size = sizeof(stats)};
    char *text = hak_malloc(100);

    if (text == NULL || !hak_owns(text) || hak_stats(&stats) != 0 ||
        stats.tiny_allocs == 0) {
        return 1;
    }
    strcpy(text, hak_version());
    puts(text);
    hak_free(text);
    return 0;
}
END

# Nothing in it calls a function of HAKMEM's, and what calls malloc is built in.
cat >"$dir/plain.c" <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    char *text = malloc((size_t)argc + 5000);

    if (text == NULL) {
        return 1;
    }
    strcpy(text, argv[argc - 1]);
    puts(strrchr(text, '/') + 1);
    free(text);
    return 0;
}
END

cat >"$dir/host.c" <<'END'
#include <hakmem_lua.h>
#include <lauxlib.h>
#include <lualib.h>

int main(void)
{
    lua_State *L = hak_lua_newstate(NULL);
    int bad;

    if (L == NULL) {
        return 1;
    }
    luaL_openlibs(L);
    bad = luaL_dostring(L, "print(#string.rep('x', 5000))");
    hak_lua_close(L);
    return bad;
}
END

# As pkg-config tells it, where the package is not where it says it is. What is
# of other packages lies outside the stage.
pkg() {
    PKG_CONFIG_LIBDIR=$top/lib/pkgconfig:$(pkg-config --variable pc_path pkg-config) \
        pkg-config "$@" | sed "s,$prefix,$top,g"
}

# compile OUT SOURCE WORDS...: as a strict user would.
compile() {
    out=$1
    source=$2
    shift 2
    # shellcheck disable=SC2068,SC2086  # words of pkg-config
    "$CC" -std=c11 -Wall -Wextra -Wpedantic -Werror -o "$dir/$out" \
        "$dir/$source" $@
}

# run PROGRAM: with our libraries to be found.
run() {
    LD_LIBRARY_PATH=$top/lib "$@"
}

check 'install' run_make install
for file in $(expected); do
    check "$file is installed" test -s "$top/$file"
done
check 'the version of the package' same "$(pkg --modversion hakmem)" "$version"
check 'a program is built with pkg-config' \
    compile program program.c "$(pkg --cflags --libs hakmem)"
check 'it runs' says "$version" run "$dir/program"
check 'a program is built with the archive' compile static program.c \
    "$(pkg --cflags hakmem) $top/lib/libhakmem.a -pthread"
check 'it runs' says "$version" run "$dir/static"
check 'a program is built with the core' \
    compile core program.c "$(pkg --cflags --libs hakmem_core)"
check 'it runs' says "$version" run "$dir/core"
check 'its malloc is not ours' sh -c "! nm '$dir/core' | grep -q ' [TW] malloc$'"
check 'a program is built with the archive of the core' compile core_static \
    program.c "$(pkg --cflags hakmem_core) $top/lib/libhakmem_core.a -pthread"
check 'it runs' says "$version" run "$dir/core_static"
check 'a host of Lua is built' compile host host.c \
    "$(pkg --cflags --libs hakmem_lua)" "$LUA_LIBS -lm -ldl"
check 'it runs' says 5000 run "$dir/host"

# A program that takes malloc alone, by LTO and without, linked in every way.
for how in '' -flto '-static -O2' '-static -flto -O2' '-static-pie -flto'; do
    case $how in
    *-static*) libs=$(pkg --static --libs hakmem) ;;
    *) libs=$(pkg --libs hakmem) ;;
    esac
    check "a program is built with '$how'" compile plain plain.c "$how $libs"
    check 'it runs' says plain run "$dir/plain"
    check 'HAKMEM is in it' sh -c "HAKMEM_SHOW_STATS=1 \
        LD_LIBRARY_PATH='$top/lib' '$dir/plain' 2>&1 | grep -q '^tiny  *[0-9]'"
    check "a program is built with the archive and '$how'" \
        compile plain plain.c "$how $top/lib/libhakmem.a -pthread"
    check 'HAKMEM is in it' sh -c \
        "HAKMEM_SHOW_STATS=1 '$dir/plain' 2>&1 | grep -q '^tiny  *[0-9]'"
done
check 'the command runs a program' sh -c "'$top/bin/hakmem' run --stats -- \
    ls / 2>&1 >'$dir/out' | grep -q '^tiny  *[1-9]'"
check 'the command compares' sh -c "'$top/bin/hakmem' compare -n 1 -- \
    ls / | grep -q 'run once each'"
check 'the command knows its version' says "hakmem $version" \
    "$top/bin/hakmem" --version
check 'lua5.4 finds the module' env LUA_CPATH="$top/lib/lua/5.4/?.so" \
    lua5.4 -e "assert(require('hakmem').version == '$version')"
# needs PROGRAM LIBRARY: a library's name in itself, and in a program of it.
needs() {
    name=$(readelf -d "$top/lib/$2" | sed -n 's/.*SONAME.*\[\(.*\)\].*/\1/p')
    same "$name" "$2.$major" &&
        readelf -d "$dir/$1" | grep "NEEDED.*\[$name\]"
}

if [ -n "$SHARED" ]; then
    check 'the program needs the shared library' needs program libhakmem.so
    check 'and the other one the core' needs core libhakmem_core.so
    check 'preloaded it serves malloc' sh -c \
        "LD_PRELOAD='$top/lib/libhakmem.so' HAKMEM_SHOW_STATS=1 \
            ls / 2>&1 >/dev/null | grep -q '^tiny  *[1-9]'"
fi

# Again over it, then away; what others put there stays.
check 'install over an installation' run_make install
echo mine >"$top/include/mine.h"
check 'uninstall' run_make uninstall
check 'only what is not ours stays' same "$(files_of "$stage")" \
    ".$prefix/include/mine.h"
check 'uninstall where nothing is' run_make uninstall

# Straight into a prefix, with no stage; directories of one's own.
check 'install without DESTDIR' run_make DESTDIR= PREFIX="$dir/direct" \
    LIBDIR="$dir/direct/lib64" install
check 'LIBDIR is obeyed' test -s "$dir/direct/lib64/pkgconfig/hakmem.pc"
check 'the package knows it' same "$(PKG_CONFIG_LIBDIR=$dir/direct/lib64/pkgconfig \
    pkg-config --variable=libdir hakmem)" "$dir/direct/lib64"
check 'uninstall it' run_make DESTDIR= PREFIX="$dir/direct" \
    LIBDIR="$dir/direct/lib64" uninstall
check 'nothing stays' same "$(files_of "$dir/direct")" ''

sum
