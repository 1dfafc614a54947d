#!/bin/sh
# run.sh - tests what other projects use: the release archive, which must build
# and pass a test by itself, and CMake's ways to HAKMEM: find_package after an
# install by make and by cmake, add_subdirectory, FetchContent.
#
# Run by `make check-dist`, which passes MAKE, CC and ARCHIVE. What needs cmake is
# left out, with a line, where there is none.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${MAKE:=make}" "${CC:=gcc}" "${ARCHIVE:?}"

# shellcheck source=tests/lib.sh
. tests/lib.sh
version=$(cat VERSION)
archive=$(realpath "$ARCHIVE")
top=$dir/$(basename "$archive" .tar.xz)
export CC

# make, in the archive, with nothing from the makefile that called us.
archived() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "$MAKE" -C "$top" CC="$CC" \
        -j2 CFLAGS=-O0 "$@"
}

# The version and the tests' lists hold; nothing lies outside the folder.
check 'the archive is unpacked' tar xf "$archive" -C "$dir"
check 'it has one folder' says "$(basename "$top")" sh -c "cd '$dir' && ls -d hakmem*"
check 'it is built' archived PREFIX="$dir/made" install
check 'it passes tests' archived check TESTS=build/release/tests/unit/tiny/tiny_class
check 'it packs itself' archived BUILD=build/again dist
check 'with the same files' says "$(tar tf "$archive" | LC_ALL=C sort)" \
    sh -c "tar tf '$top/build/again/$(basename "$archive")' | LC_ALL=C sort"

# use HOW HAKMEM PROGRAM...: these programs of the consumer's are built and run.
use() {
    how=$1 from=$2
    shift 2
    work=$dir/use-$how-$#
    check "$how: configured" cmake -S tests/cmake -B "$work" -DHOW="$how" \
        -DHAKMEM="$from" -DCMAKE_BUILD_TYPE=Debug
    check "$how: built" cmake --build "$work" -j 2 --target "$@"
    for program in "$@"; do
        case $program in
        core) check "$how: core" says "$version" "$work/core" ;;
        host) check "$how: host" says 5000 "$work/host" ;;
        with_*) check "$how: $program" sh -c "HAKMEM_SHOW_STATS=1 \
            '$work/$program' 2>&1 | grep -q '^tiny  *[1-9]'" ;;
        esac
    done
}

if command -v cmake >/dev/null; then
    use package "$dir/made" core host with_hakmem with_static
    check 'cmake: configured' cmake -S "$top" -B "$dir/build" \
        -DCMAKE_INSTALL_PREFIX="$dir/cmade" -DCMAKE_BUILD_TYPE=Debug
    check 'cmake: built' cmake --build "$dir/build" -j 2
    check 'cmake: installed' cmake --install "$dir/build"
    use package "$dir/cmade" core host with_hakmem
    use subdirectory "$top" core host with_hakmem
    use fetch "$archive" core
else
    echo 'cmake is not there (Debian: apt install cmake): its tests are left out'
fi

sum
