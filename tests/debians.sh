#!/bin/sh
# debians.sh - the core, libhakmem.so and the Lua adapter on other Debians, with each
# one's own gcc and clang: built without a warning, `make check`, and lua5.4 -lhakmem.
#
#     tests/debians.sh DIRECTORY [SUITE...]
#
# SUITE is bullseye (Debian 11: gcc 10, clang 11), bookworm (12: 12, 14) or trixie (13:
# 14, 19); without one: all. The chroots are made in DIRECTORY the first time (some
# minutes and 1.5 GB each, root, a network) and kept; see tests/chroot.sh for where
# packages come from. COMPILERS: some ("gcc"). TESTS: some of the test programs, by
# their names ("unit/tiny/tiny lua/limit"), and no programs of tests/wrap.
#
# Debian 11 has no Criterion: the same tests run on tests/support/plain. It and
# 12 run on this machine's kernel, of course. Run by `make check-debians`.
set -u
cd "$(dirname "$0")/.." || exit 1

# shellcheck source=tests/lib.sh
. tests/lib.sh
# shellcheck source=tests/chroot.sh
. tests/chroot.sh
[ $# -ge 1 ] || {
    echo 'usage: debians.sh DIRECTORY [SUITE...]' >&2
    exit 2
}
into=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- bullseye bookworm trixie
for suite in "$@"; do
    case $suite in
    bullseye | bookworm | trixie) ;;
    *)
        echo "make check-debians: no Debian '$suite'; use some of: bullseye bookworm" \
            'trixie' >&2
        exit 2
        ;;
    esac
done
chroot_needs 'make check-debians'
packages='make gcc g++ clang libc6-dev pkg-config lua5.4 liblua5.4-dev python3 binutils
xz-utils procps valgrind libzstd-dev systemtap-sdt-dev'
trap 'chroot_leave; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

# quiet COMMAND...: and no warning among what it says.
quiet() {
    "$@" >"$dir/built" 2>&1 || {
        grep -aE 'error|warning|\*\*\*' "$dir/built" || tail -n 20 "$dir/built"
        return 1
    }
    ! grep -a 'warning' "$dir/built"
}

# logged FILE COMMAND...: what it says is kept there.
logged() {
    log=$1
    shift
    "$@" >"$log" 2>&1 || {
        grep -aE '^ *\[FAIL\]|assertion failed|FAILED' "$log"
        return 1
    }
}

# on WHAT COMPILER: the checks with one compiler of the chroot $root.
on() {
    from=$failed
    version=$(chroot_run "$root" "$2 --version" | grep -o '[0-9]*\.[0-9.]*' | head -n 1)
    about="$1, $2 $version"
    tests=
    for name in ${TESTS-}; do
        tests="$tests build/$2/tests/$name"
    done
    [ -z "$tests" ] || tests="TESTS='$tests' TEST_NEEDS="
    make="make -C /src -j2 WERROR=1 CC=$2 BUILD=build/$2"
    check 'it builds without a warning' quiet chroot_run "$root" "$make build-tests $tests" &&
        check "its tests: $into/$suite-$2.log" \
            logged "$into/$suite-$2.log" chroot_run "$root" "$make check $tests"
    said=$(grep -a '^[0-9]* passed, [0-9]* failed$' "$into/$suite-$2.log" | tail -n 1)
    check 'a script on the Lua module' says '1000' chroot_run "$root" \
        "cd /src && LUA_CPATH='build/$2/lua/?.so;;' lua5.4 -lhakmem -e 'local t = {}
        for i = 1, 1000 do t[i] = {i} end assert(hakmem.stats().live_bytes > 0) print(#t)'"
    check 'a program on libhakmem.so' chroot_run "$root" \
        "cd /src && LD_PRELOAD=build/$2/libhakmem.so HAKMEM_SHOW_STATS=1 ls 2>&1 |
        grep -q 'in libhakmem.so'"
    if [ "$from" -eq "$failed" ]; then
        echo "row: $about | passed: ${said%%,*}$own"
    else
        echo "row: $about | FAILED: $said"
    fi
}

for suite in "$@"; do
    root=$into/$suite
    own=
    wanted=$packages
    if [ "$suite" = bullseye ]; then
        own=', on tests/support/plain: it has no Criterion'
    else
        wanted="$packages libcriterion-dev"
    fi
    about=$suite
    # shellcheck disable=SC2086  # a list of words
    check 'the chroot' chroot_make "$suite" "$root" $wanted || {
        tail -n 5 "$root.log"
        echo "row: Debian, $suite | not here: no chroot could be made, see $root.log"
        continue
    }
    chroot_sources "$root"
    chroot_enter "$root"
    name="Debian $(cut -d. -f1 "$root/etc/debian_version"), glibc \
$(chroot_run "$root" 'getconf GNU_LIBC_VERSION' | cut -d' ' -f2)"
    for compiler in ${COMPILERS:-gcc clang}; do
        on "$name" "$compiler"
    done
    chroot_leave
done
sum
