#!/bin/bash
# clang - compiles this project's core and a C++ program and links the core; the
# files must be the same, byte for byte.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

objects=$PWD
cd "$ROOT"
for source in core/*/*.c; do
    under clang -std=gnu11 -O2 -g -fPIC -pthread -D_GNU_SOURCE= -Iinclude \
        -Icore -DHAK_VERSION_STRING='"0"' -c "$source" \
        -o "$objects/${source##*/}.o"
done
under clang++ -std=c++17 -fsized-deallocation -O2 -g -pthread -c tests/preload/threads.cc \
    -o "$objects/threads.o"
cd "$objects"
# As in libhakmem_core.a: without the C library's names.
mkdir wrap
mv wrap*.o libc_real.c.o wrap
under clang -shared -pthread -o core.so -Wl,-z,defs ./*.c.o
sha256sum ./*.o wrap/*.o core.so
