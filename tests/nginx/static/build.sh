#!/bin/sh
# build.sh - builds an nginx that has other people's modules compiled in, as
# OpenResty and Kong do.
#
#     build.sh SOURCES WORK [KIND]
#
# SOURCES is what sources.sh made. The program is WORK/KIND/nginx; WORK/KIND/flags
# is what our module for it is built with, as nginx -V would print it: the same,
# but for what makes its KIND. KIND is how it is compiled and linked; the last
# three are plain's objects, linked otherwise:
#
#     plain     as the compiler does it: position independent, lazily bound
#     debug     --with-debug, not optimized
#     noplt     -fno-plt: calls through the slots, no jumps to them
#     nopie     not position independent: slots at fixed addresses
#     now       bound at start, the slots read-only afterwards
#     archives  OpenSSL, PCRE, zlib and LuaJIT are in the program
#     jemalloc  linked with jemalloc, whose blocks all are then
#
# CC is the compiler. NGINX_SRC has Debian's conf_flags.
set -eu

mkdir -p "$2"
sources=$(realpath "$1") work=$(realpath "$2") kind=${3:-plain}
: "${NGINX_SRC:=/usr/share/nginx/src}" "${CC:=gcc}"
objects=plain compile='-O2 -g1' link='' debug=''
case $kind in
plain) ;;
debug) objects=debug compile='-O0 -g1' debug=--with-debug ;;
noplt) objects=noplt compile="$compile -fno-plt" ;;
nopie) objects=nopie compile="$compile -fno-pie" link='-no-pie' ;;
now) link='-Wl,-z,now -Wl,-z,relro' ;;
archives) link="-L$work/archives/lib" ;;
jemalloc) link='-Wl,--push-state,--no-as-needed -ljemalloc -Wl,--pop-state' ;;
*)
    echo "build.sh: no kind '$kind'; use one of: plain debug noplt nopie now" \
        "archives jemalloc" >&2
    exit 1
    ;;
esac
libs=$(dirname "$($CC -print-file-name=libpcre2-8.so)")

# failed WHAT LOG: says so, and ends.
failed() {
    grep -E 'error|undefined|\*\*\*' "$2" >&2 || tail -n 5 "$2" >&2
    echo "build.sh: $1 failed; all of what it said: $2" >&2
    exit 1
}

# Debian's LuaJIT; and PCRE for Lua, beside nginx's PCRE2.
configure() {
    rm -rf "$work/$objects.tree"
    mkdir -p "$work/$objects.tree"
    cd "$work/$objects.tree"
    for name in auto configure src conf man html; do
        ln -s "$sources/nginx/$name" "$name"
    done
    # shellcheck disable=SC2086  # lists of words
    LUAJIT_INC=/usr/include/luajit-2.1 LUAJIT_LIB=$libs ./configure $flags \
        --builddir="$PWD/objs" --with-cc="$CC" --with-cc-opt="$compile" \
        --with-ld-opt="$([ $objects = plain ] || echo "$link")" \
        --add-module="$sources/ndk_http_module" \
        --add-module="$sources/ngx_http_lua_module" \
        --add-module="$sources/ngx_http_auth_pam_module" \
        --add-module="$sources/ngx_http_modsecurity_module" \
        >configure.log 2>&1 || failed configure "$PWD/configure.log"
    sed -i 's/-lluajit-5.1/& -lpcre/' objs/Makefile
    touch configured
}

# A bash array of options without blanks in them.
flags=$(sed -e 's/^NGX_CONF_FLAGS=(\(.*\))$/\1/' -e 's/--with-debug//' \
    "$NGINX_SRC/conf_flags")
flags="$flags $debug --with-http_sub_module --with-http_gunzip_module \
--with-http_gzip_static_module --with-http_addition_module --with-stream \
--with-stream_ssl_module"

[ -f "$work/$objects.tree/configured" ] || configure
mkdir -p "$work/$kind/lib"
for name in ssl crypto pcre pcre2-8 z luajit-5.1; do
    ln -sf "$libs/lib$name.a" "$work/$kind/lib"
done
cd "$work/$objects.tree"
rm -f objs/nginx
log=$work/$kind/make.log
make -f objs/Makefile "-j$(nproc)" LINK="$CC $link" binary >"$log" 2>&1 ||
    failed make "$log"
cp objs/nginx "$work/$kind/nginx.made"
echo "$flags --with-cc-opt='-O2 -g1'" >"$work/$kind/flags"
mv "$work/$kind/nginx.made" "$work/$kind/nginx"
