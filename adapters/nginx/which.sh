#!/bin/sh
# which.sh - which nginx a source tree is: "nginx 1.22.1", "Angie 1.12.1 (nginx 1.31.2)".
#
#     which.sh NGINX_SRC
set -u
core=${1-}/src/core

# defined NAME FILE: the text that a header defines it as, without quotes.
defined() {
    sed -n "s/^#define $1  *\"\([^\"]*\)\".*/\1/p" "$core/$2" 2>/dev/null
}

version=$(defined NGINX_VERSION nginx.h)
[ -n "$version" ] || {
    echo "which.sh: no nginx source in '${1-}'" >&2
    exit 1
}
angie=$(defined ANGIE_VERSION angie.h)
name=$(defined NGINX_NAME nginx.h)
if [ -n "$angie" ]; then
    echo "Angie $angie (nginx $version)"
else
    echo "${name:-nginx} $version"
fi
