#!/bin/bash
# xz - two threads there and back; the archive must be the same, and what comes
# out what went in, for an xz without the library too.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

# xz closes standard error before the report at exit: the loader must tell.
[ -z "$LIBRARY" ] || EVIDENCE=LD_DEBUG=bindings

awk 'BEGIN {
    for (i = 0; i < 300000; i++) print i, i * 7919 % 65537, i * i % 1000003
}' >data
under xz -T2 -3 --block-size=1MiB -k -c data >data.xz
under xz -T2 -d -c data.xz | cmp - data
xz -d -c data.xz | cmp - data
under xz -T2 -t data.xz
sha256sum data.xz
