#!/bin/sh
# run.sh - hakmem.c, the core as one file, compiled by gcc and clang, with -O2 and
# -O3, plain and hardened, with the names of malloc and without; program.c runs on
# each. And no source of the core is missing in it.
#
# Run by `make check-onefile`. COMPILERS: others than gcc and clang.
set -u
cd "$(dirname "$0")/../.." || exit 1

# shellcheck source=tests/lib.sh
. tests/lib.sh

# works CC FLAG...: compiles, links and runs.
works() {
    cc=$1
    shift
    "$cc" -std=gnu11 -g -Wall -Wextra -Werror -Iinclude -Icore "$@" -fexceptions \
        -fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc \
        -fno-builtin-free hakmem.c tests/onefile/program.c -pthread \
        -o "$dir/program" && [ "$("$dir/program")" = ok ]
}

# complete: all sources but wrap_need.c, which is for archives.
complete() {
    sed -n 's/^#include "\(core\/.*\.c\)"$/\1/p' hakmem.c | sort >"$dir/included"
    printf '%s\n' core/*/*.c | grep -v '/wrap_need\.c$' | sort >"$dir/there"
    diff "$dir/there" "$dir/included"
}

# hidden: a shared library of it shows hak_* names alone.
hidden() {
    gcc -O1 -fvisibility=hidden -fPIC -shared -Iinclude -Icore hakmem.c -pthread \
        -o "$dir/lib.so" && nm -D --defined-only "$dir/lib.so" |
        awk '{ print $3 }' >"$dir/shown" && grep -q '^hak_malloc$' "$dir/shown" &&
        ! grep -v '^hak_' "$dir/shown"
}

check 'every source of the core is in hakmem.c, once' complete
check 'its version is VERSION' grep -qF "\"$(cat VERSION) (one file)\"" hakmem.c
check 'a shared library shows hak_* alone' hidden
for cc in ${COMPILERS:-gcc clang}; do
    for level in -O2 -O3; do
        for malloc in -DHAK_ONE=1 -DHAKMEM_MALLOC=1; do
            check "$cc $level $malloc" works "$cc" "$level" "$malloc"
        done
    done
    check "$cc, hardened" works "$cc" -O2 -DHAK_HARDENED=1 -DHAKMEM_MALLOC=1
done
sum
