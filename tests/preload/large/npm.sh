#!/bin/bash
# npm - node's package manager, with no network: packs a package, installs it and
# another into a third, runs its scripts.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

mkdir one two app
cat >one/package.json <<'CODE'
{"name": "one", "version": "1.2.3", "main": "index.js", "license": "MIT",
 "dependencies": {"two": "^2.0.0"}}
CODE
cat >two/package.json <<'CODE'
{"name": "two", "version": "2.0.0", "main": "index.js", "license": "MIT"}
CODE
echo "module.exports = (n) => 'two ' + n;" >two/index.js
echo "const two = require('two'); module.exports = (n) => two(n * 2);" >one/index.js
cat >app/package.json <<'CODE'
{"name": "app", "version": "0.0.1", "private": true,
 "scripts": {"pretest": "node -e 'console.log(1)'", "test": "node test.js"},
 "dependencies": {"two": "file:../two-2.0.0.tgz", "one": "file:../one-1.2.3.tgz"}}
CODE
echo "console.log(require('one')(21), require('two')(1));" >app/test.js
export npm_config_offline=true npm_config_audit=false npm_config_fund=false \
    npm_config_update_notifier=false npm_config_cache=$PWD/cache \
    npm_config_loglevel=error NO_COLOR=1
AS=pack under npm pack --silent ./two ./one
tar -tzf two-2.0.0.tgz | sort
(
    cd app
    AS=install under npm install >install.log
    AS=list under npm ls --all --parseable --long | sed "s,$HOME,,g"
    AS=tests under npm test --silent
    rm -r node_modules
    AS=ci under npm ci >>install.log
    AS=tests-again under npm test --silent
    sha256sum package-lock.json
)
# What is not there can't be had.
AS=none under npm view some-package version --silent || echo "status $?"
