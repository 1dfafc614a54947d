#!/bin/sh
# lints.sh - tests the lint of the tests: each thing that it is for is found, and said
# in one line that names the file and what to do.
#
# Run by `make check-install`.
set -u
cd "$(dirname "$0")/.." || exit 1

# shellcheck source=tests/lib.sh
. tests/lib.sh

# tree: a small project that is as it should be, in $dir/tree.
tree() {
    rm -rf "$dir/tree"
    mkdir -p "$dir/tree/core/tiny" "$dir/tree/tests/unit/tiny" \
        "$dir/tree/tests/unit/together" "$dir/tree/tests/lua" \
        "$dir/tree/adapters/lua"
    cd "$dir/tree" || exit 1
    echo '/* a.c - has a test of its name. */' >core/tiny/a.c
    printf '/*\n * b.c - has none.\n *\n * Tested by %s and\n * %s. No more.\n */\n' \
        tests/unit/tiny/a.c tests/unit/together/c.c >core/tiny/b.c
    echo '/* hak_lua.c - Tested by tests/lua/l.c */' >adapters/lua/hak_lua.c
    touch tests/unit/tiny/a.c tests/unit/together/c.c tests/unit/unit.h \
        tests/lua/l.c
    yes | head -n 700 >tests/lua/long.lua
    cd - >/dev/null || exit 1
}

# says WHAT TEXT: what the lint says of the tree is this, and only without text it is
# content.
says() {
    said=$(.ci/lint-tests "$dir/tree" 2>&1)
    status=$?
    want=$([ -z "$2" ] && echo 0 || echo 1)
    if [ "$said" = "$2" ] && [ $status -eq "$want" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s: status %s, said:\n%s\n' "$1" "$status" "$said"
    fi
}

none='and no sentence "Tested by tests/..." in the comment at its head: write one of them'

tree
says 'all is well' ''
rm "$dir/tree/tests/unit/tiny/a.c"
says 'a test is gone' "core/tiny/a.c: no tests/unit/tiny/a.c, $none
core/tiny/b.c: its head says \"Tested by tests/unit/tiny/a.c\", which is no file"
tree
sed -i 's/Tested by/It is tested by/' "$dir/tree/core/tiny/b.c"
says 'other words' "core/tiny/b.c: no tests/unit/tiny/b.c, $none"
tree
printf '/* b.c */\n/* Tested by tests/unit/tiny/a.c. */\n' >"$dir/tree/core/tiny/b.c"
says 'not in the head' "core/tiny/b.c: no tests/unit/tiny/b.c, $none"
: >"$dir/tree/core/tiny/b.c"
says 'an empty file' "core/tiny/b.c: no tests/unit/tiny/b.c, $none"
echo '/* Tested by whoever uses it. tests/unit/tiny/a.c */' >"$dir/tree/core/tiny/b.c"
says 'it names none' 'core/tiny/b.c: its head says "Tested by" and names no file of tests/'
echo '/* Tested by tests/unit/tiny. */' >"$dir/tree/core/tiny/b.c"
says 'a folder' 'core/tiny/b.c: its head says "Tested by tests/unit/tiny", which is no file'
tree
rm "$dir/tree/tests/lua/l.c"
says 'an adapter' \
    'adapters/lua/hak_lua.c: its head says "Tested by tests/lua/l.c", which is no file'
tree
touch "$dir/tree/tests/unit/stray.c"
says 'in no folder' \
    "tests/unit/stray.c: a test lies in a folder of tests/unit: its layer's, or together/"
tree
mkdir "$dir/tree/tests/unit/small"
touch "$dir/tree/tests/unit/small/a.c"
says 'a folder that core does not have' 'tests/unit/small/a.c: core has no folder small;'\
' what concerns several is in together/'
tree
echo more >>"$dir/tree/tests/lua/long.lua"
says 'too long' 'tests/lua/long.lua: 701 lines, at most 700; split it by theme'
rm -r "$dir/tree"
mkdir "$dir/tree"
says 'nothing at all' "lint-tests: $dir/tree has no core/*/*.c"

sum
