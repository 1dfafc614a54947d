#!/bin/sh
# build.sh - tests the makefiles: that nothing is built twice, that a header's
# users are built anew, that what can't be built here is left out with a line, and
# that `make help` is complete.
#
# Run by `make check-install`, which passes MAKE, BUILD and CC; the libraries of
# BUILD are made.
set -u
cd "$(dirname "$0")/.." || exit 1
: "${MAKE:=make}" "${BUILD:=build/release}" "${CC:=gcc}"

# shellcheck source=tests/lib.sh
. tests/lib.sh

run_make() {
    "$MAKE" BUILD="$BUILD" CC="$CC" "$@"
}

# With neither Lua nor Python, as far as make can see; all objects of its own.
bare_make() {
    "$MAKE" BUILD="$dir/bare" CC="$CC" CFLAGS=-O0 LUA_CFLAGS=-I. \
        PYTHON=no-python PREFIX="$dir/prefix" "$@"
}

# prints TEXT COMMAND...: the text is a line of what it says.
prints() {
    text=$1
    shift
    "$@" >"$dir/printed" 2>&1
    cat "$dir/printed"
    grep -qxF -- "$text" "$dir/printed"
}

# refuses TEXT COMMAND...: the same of a command that fails.
refuses() {
    prints "$@" && shift && ! "$@" >/dev/null 2>&1
}

works() {
    printf '#include <hakmem.h>\nint main(void)\n{\n%s\n}\n' \
        'void *p = hak_malloc(1); return hak_owns(p) ? 0 : 1;' >"$dir/program.c"
    "$CC" "$dir/program.c" -o "$dir/program" -I"$dir/prefix/include" \
        -L"$dir/prefix/lib" -lhakmem -Wl,-rpath,"$dir/prefix/lib" &&
        "$dir/program"
}

header=$(find core -name ace_holes.h)
source=$(find core -name ace_tree.c)
check 'what is made is not made again' says_nothing run_make lib
check 'what includes a header is' prints "  CC    $(find core -name ace_holes.c)" \
    sh -c "'$MAKE' BUILD='$BUILD' CC='$CC' -n -W '$header' lib |
        sed -n 's/^printf .* CC //p' | sed 's/^/  CC    /'"
check 'what does not is not' sh -c "! '$MAKE' BUILD='$BUILD' CC='$CC' -n \
    -W '$header' lib | grep -q 'CC $source'"

left='  left out: the Lua adapter: no lua.h (Debian: apt install liblua5.4-dev)'
check 'without Lua it is left out' prints "$left" bare_make -j2
check 'without Python the command is' prints \
    '  left out: the command hakmem: no no-python (Debian: apt install python3)' \
    bare_make lib
check 'without Python the man pages are' prints \
    '  left out: man pages: no no-python (Debian: apt install python3)' \
    bare_make install
check 'the rest is installed' works
check 'nothing of Lua is' says_nothing find "$dir/prefix" -name '*lua*'
check 'uninstalled it is gone' bare_make uninstall
check 'to the last file' says_nothing find "$dir/prefix" ! -type d
check 'asked for, Lua is missed' refuses \
    'make: the Lua module: no lua.h; on Debian: apt install liblua5.4-dev' \
    bare_make lua
check 'and Python' refuses \
    'make: hakmem_py: no no-python; on Debian: apt install python3-dev' \
    bare_make python

# Goals that others make use of, and those that `make help` names in one.
hidden='force lint-.* .*-run test-.* demo-.* docs-if python-headers fuzz-merge
preload-libs lua-other'
helped() {
    run_make help >"$dir/help" || return 1
    # shellcheck disable=SC2086  # words
    cat Makefile core/*.mk tools/*.mk tools/*/*.mk adapters/*/*.mk tests/*.mk tests/*/*.mk bench/*.mk \
        docs/*.mk examples/*.mk .ci/*.mk packaging/*.mk | sed -n 's/^\([a-z][a-z -]*\):.*/\1/p' | tr ' ' '\n' |
        sort -u | grep -vxE "$(printf '%s|' $hidden)-" >"$dir/goals"
    while read -r goal; do
        grep -q "^  $goal " "$dir/help" || echo "make help has no $goal"
    done <"$dir/goals"
}
check 'make help names every goal' says_nothing helped
for group in use test bench upkeep; do
    check "and has the group $group" grep -qx "$group" "$dir/help"
done

sum
