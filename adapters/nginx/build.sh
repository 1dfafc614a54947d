#!/bin/sh
# build.sh - builds the nginx module against a source tree of nginx.
#
#     build.sh NGINX_SRC WORK LIB [MODULE]
#
# NGINX_SRC is the tree that Debian's nginx-dev installs, whose conf_flags make
# a module that Debian's nginx loads, or any other: then the environment's
# NGX_CONF_FLAGS is what configure gets, quoted as nginx -V prints it. LIB is libhakmem_nginx.a. The tree
# stays as it is: nginx's configure runs in WORK, where links lead to it. The
# module is WORK/objs/ngx_http_hakmem_module.so. MODULE is another one's
# directory, with a file `config` as nginx wants it. CC is the compiler,
# HAKMEM_NGINX_CC_OPT and HAKMEM_NGINX_LD_OPT are options that its compiling and
# linking get.
set -eu

src=$1 work=$2 lib=$(realpath "$3")
module=$(realpath "${4-$(dirname "$0")}")

[ -x "$src/configure" ] || [ -x "$src/auto/configure" ] || {
    echo "build.sh: no nginx source in '$src': install nginx-dev or set" \
        "NGINX_SRC to a source tree" >&2
    exit 1
}

mkdir -p "$work"
for name in auto configure src conf man contrib docs html; do
    [ ! -e "$src/$name" ] || ln -sfn "$(realpath "$src/$name")" "$work/$name"
done
configure=./configure
[ -x "$work/configure" ] || configure=./auto/configure

if [ -z "${NGX_CONF_FLAGS-}" ] && [ -f "$src/conf_flags" ]; then
    # A bash array of options without blanks in them.
    NGX_CONF_FLAGS=$(sed 's/^NGX_CONF_FLAGS=(\(.*\))$/\1/' "$src/conf_flags")
fi

cd "$work"
export HAKMEM_NGINX_LIB="$lib"
# As nginx -V prints it: words, some with blanks in quotes.
eval "set -- ${NGX_CONF_FLAGS-}"
$configure "$@" --builddir="$PWD/objs" --with-cc="${CC:-gcc}" \
    ${HAKMEM_NGINX_CC_OPT:+"--with-cc-opt=$HAKMEM_NGINX_CC_OPT"} \
    ${HAKMEM_NGINX_LD_OPT:+"--with-ld-opt=$HAKMEM_NGINX_LD_OPT"} \
    --add-dynamic-module="$module" >configure.log 2>&1 || {
    tail -n 5 configure.log >&2
    echo "build.sh: nginx's configure failed; all of what it said:" \
        "$PWD/configure.log" >&2
    exit 1
}
make -f objs/Makefile modules >make.log 2>&1 || {
    grep -E 'error|warning|\*\*\*' make.log >&2 || tail -n 5 make.log >&2
    echo "build.sh: nginx's make failed; all of what it said:" \
        "$PWD/make.log" >&2
    exit 1
}
