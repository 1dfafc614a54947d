#!/bin/bash
# node - node.js: worker threads, each doing real work.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

under node "$ROOT/tests/preload/node.js" >output
expect 'the last line' "$(tail -n 1 output)" 'done 12'
cat output
