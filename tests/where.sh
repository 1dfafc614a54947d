#!/bin/sh
# where.sh - tests what tells of machines and versions: which nginx a source tree is,
# the table of check-everywhere, what the checks of several versions say when they
# can't begin.
#
# Run by `make check-install`, which passes MAKE.
set -u
cd "$(dirname "$0")/.." || exit 1
: "${MAKE:=make}"

# shellcheck source=tests/lib.sh
. tests/lib.sh

# refuses TEXT COMMAND...: it fails, and the text is a line of what it says.
refuses() {
    text=$1
    shift
    if "$@" >"$dir/printed" 2>&1 || ! grep -qxF -- "$text" "$dir/printed"; then
        cat "$dir/printed"
        return 1
    fi
}

# tree LINE...: a source tree's nginx.h, and of Angie's the other header.
tree() {
    mkdir -p "$dir/src/core"
    printf '%s\n' "$@" >"$dir/src/core/nginx.h"
}

tree '#define nginx_version      1018000' '#define NGINX_VERSION      "1.18.0"' \
    '#define NGINX_VER          "nginx/" NGINX_VERSION'
check 'nginx' says 'nginx 1.18.0' adapters/nginx/which.sh "$dir"
tree '#define NGINX_VERSION      "1.27.2"' '#define NGINX_NAME         "freenginx"'
check 'freenginx' says 'freenginx 1.27.2' adapters/nginx/which.sh "$dir"
tree '#define NGINX_VERSION      "1.31.2"'
echo '#define ANGIE_VERSION      "1.12.1"' >"$dir/src/core/angie.h"
check 'Angie' says 'Angie 1.12.1 (nginx 1.31.2)' adapters/nginx/which.sh "$dir"
check 'no nginx' refuses "which.sh: no nginx source in '/none'" \
    adapters/nginx/which.sh /none

check 'no row' refuses 'tests/everywhere.py: no row has '\''bogus'\''; goals: '"$(sed -n \
    's/^    ("\(check[a-z0-9-]*\)",.*/\1/p' tests/everywhere.py | tr '\n' ' ' |
    sed 's/ $//')" tests/everywhere.py bogus
# A make that knows one goal, which says what a check of versions says.
cat >"$dir/make" <<'END2'
#!/bin/sh
case "$*" in
"-s help") echo '  check-pages  one' ;;
*) printf 'row: one | passed: 1\nrow: other | FAILED\n1 passed, 1 failed\n' && false ;;
esac
END2
chmod +x "$dir/make"
table() {
    MAKE=$dir/make tests/everywhere.py "$@" | sed 's/  *|/ |/'
}
rows() {
    table check-pages check-riscv64 | sed 1,2d
}
check 'its rows' says 'one | passed: 1
other | FAILED
    what it said: build/everywhere/check-pages.log
riscv64, emulated | not here: this tree has no goal check-riscv64
0 passed, 1 failed' rows
rm -f build/everywhere/check-pages.log

check 'no sources' refuses 'make check-nginxes: NGINX_SRC="DIRECTORY..." names source trees of nginx, Angie or freenginx, such as NGINX_SRC="../nginx-1.18.0 ../angie-1.12.1"' \
    tests/nginx/nginxes.sh "$dir/work"
check 'no such Debian' refuses "make check-debians: no Debian 'lenny'; use some of: bullseye bookworm trixie" \
    tests/debians.sh "$dir/work" lenny
sum
