#!/bin/bash
# gcc - compiles this project's core and a C++ program; the objects must be the
# same, byte for byte.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

objects=$PWD
cd "$ROOT"
for source in core/*/*.c; do
    under gcc -std=gnu11 -O2 -g -fPIC -pthread -D_GNU_SOURCE= -Iinclude -Icore \
        -DHAK_VERSION_STRING='"0"' -c "$source" -o "$objects/${source##*/}.o"
done
under g++ -std=c++17 -O2 -g -pthread -c tests/preload/threads.cc \
    -o "$objects/threads.o"
cd "$objects"
sha256sum ./*.o
