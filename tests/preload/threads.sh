#!/bin/bash
# threads - threads.cc, a C++ program with threads and exceptions.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

under "$BUILD/tests/preload/threads" >output
expect 'the last line' "$(tail -n 1 output)" 'all is well'
cat output
