#!/bin/sh
# nginxes.sh - the module built for, and tested in, each nginx whose sources are at hand.
#
#     nginxes.sh WORK NGINX_SRC...
#
# Each NGINX_SRC is a source tree of nginx, Angie or freenginx; it stays as it is. Of
# each WORK/NAME/nginx is made, and kept, with nginx's usual modules; then `make
# check-nginx` runs NGINX_TESTS in it (a list of tests' files), those that ask for no
# module of Debian's if there is none. Debian's own nginx is not built. CC is the
# compiler, MAKE make, BUILD where the rest of HAKMEM is built. Run by `make check-nginxes`.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
: "${CC:=gcc}" "${MAKE:=make}" "${BUILD:=build/release}"
[ $# -ge 2 ] || {
    echo 'make check-nginxes: NGINX_SRC="DIRECTORY..." names source trees of nginx,' \
        'Angie or freenginx, such as NGINX_SRC="../nginx-1.18.0 ../angie-1.12.1"' >&2
    exit 2
}
work=$(mkdir -p "$1" && cd "$1" && pwd)
shift

# shellcheck source=tests/lib.sh
. "$top/tests/lib.sh"
cd "$top" || exit 1

tests="test_serving test_life test_master test_status test_trim test_refusal"
# What Debian's nginx has and the tests ask for. OpenSSL 3 deprecates what nginx of
# before 2021 calls.
flags="--with-cc-opt='-O2 -g1 -Wno-deprecated-declarations' --with-pcre-jit \
--with-http_ssl_module --with-http_v2_module --with-http_gunzip_module \
--with-http_gzip_static_module --with-http_dav_module --with-http_sub_module \
--with-http_addition_module --with-http_realip_module --with-threads --with-file-aio \
--with-stream --with-stream_ssl_module"

# program SRC DIRECTORY: nginx itself.
program() {
    # logs: what nginx before 1.19.5 says at first goes there.
    mkdir -p "$2/tree" "$2/prefix/logs"
    for name in auto configure src conf man contrib docs html misc; do
        [ ! -e "$1/$name" ] || ln -sfn "$1/$name" "$2/tree/$name"
    done
    (
        cd "$2/tree" || exit
        configure=./configure
        [ -x "$configure" ] || configure=./auto/configure
        into=$2
        eval "set -- $flags"
        "$configure" "$@" --builddir="$into/tree/objs" --with-cc="$CC" \
            --prefix="$into/prefix" &&
            make -f objs/Makefile -j2 binary && cp objs/nginx "$into/nginx.made"
    ) && mv "$2/nginx.made" "$2/nginx"
}

# try SRC: the nginx of one tree.
try() {
    name=$(adapters/nginx/which.sh "$1" 2>&1) || {
        check "a source tree: $1" sh -c "echo '$name'; false"
        return
    }
    into=$work/$(echo "$name" | tr -c 'A-Za-z0-9.\n' - | sed 's/-*$//')
    about=$name
    if [ ! -x "$into/nginx" ]; then
        check 'it builds' program "$(cd "$1" && pwd)" "$into" || return
    fi
    check 'the module, and its tests in it' env HAKMEM_NGINX="$into/nginx" \
        NGX_CONF_FLAGS="$flags --prefix=$into/prefix" "$MAKE" check-nginx \
        CC="$CC" BUILD="$BUILD" NGINX_SRC="$1" NGINX_DIR="$into/module" NGINX_SAMPLE= \
        NGINX_TESTS="${NGINX_TESTS:-$tests}" || return
    echo "row: $name | passed: $(sed -n 's/^Ran \([0-9]* tests*\).*/\1/p' "$dir/said")\
$(sed -n 's/^OK (\(.*\))$/, \1/p' "$dir/said")"
}

for source in "$@"; do
    before=$failed
    try "$source"
    [ "$before" -eq "$failed" ] || echo "row: ${about:-$source} | FAILED"
done
sum
