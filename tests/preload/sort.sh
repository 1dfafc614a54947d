#!/bin/bash
# sort - two threads, in memory and by way of files; by text, number and key.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

# sort closes standard error before the report at exit: the loader must tell.
[ -z "$LIBRARY" ] || EVIDENCE=LD_DEBUG=bindings

awk 'BEGIN {
    for (x = i = 1; i <= 250000; i++) {
        x = (x * 48271) % 2147483647
        printf "%d\t%x\t%s\n", x % 1000003, x, substr("abcdefghijkl", x % 9 + 1)
    }
}' >data
for options in '-S100M' '-S2M' '-S100M -n' '-S2M -k3,3 -k2,2r' '-u -k3,3'; do
    # shellcheck disable=SC2086  # several words
    under sort --parallel=2 $options data >sorted
    sha256sum <sorted
done
under sort --parallel=2 -S2M data | cmp - <(sort --parallel=1 data)
under sort --parallel=2 -S100M -n data | sort -n -c
