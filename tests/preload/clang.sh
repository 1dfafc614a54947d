#!/bin/bash
# clang - compiles this project's core and a C++ program and links the core; the
# files must be the same, byte for byte.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

objects=$PWD
cd "$ROOT"
for source in core/*.c; do
    under clang -std=gnu11 -O2 -g -fPIC -pthread -D_GNU_SOURCE= -Iinclude \
        -Icore -DHAK_VERSION_STRING='"0"' -c "$source" \
        -o "$objects/${source##*/}.o"
done
under clang++ -std=c++17 -fsized-deallocation -O2 -g -pthread -c tests/preload/threads.cc \
    -o "$objects/threads.o"
cd "$objects"
# That the core links needs all of its names.
under clang -shared -pthread -o core.so -Wl,-z,defs \
    $(ls ./*.c.o | grep -v -e wrap -e libc_real)
sha256sum ./*.o core.so
