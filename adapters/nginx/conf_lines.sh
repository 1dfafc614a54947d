#!/bin/sh
# conf_lines.sh - the lines of nginx's configuration that need our module.
#
#     conf_lines.sh [NGINX [OPTION...]]
#
# Prints FILE:LINE: TEXT for each line that nginx refuses once the module is
# gone: a load_module of ours or of a module that calls ngx_hak_*, a directive
# hakmem..., the variable $hakmem_request_bytes. NGINX is the program, `nginx`
# if not given, OPTION what it is run with (-p, -c). The configuration is what
# `nginx -T` shows, so run this while the module is still there; if nginx
# refuses it already, the files below the configuration's directory are read.
# Lines of the file that `make uninstall-nginx` removes are left out:
# HAKMEM_SKIP, a path. Nothing is changed; the exit status is 0.
set -u

nginx=${1-nginx}
[ $# -eq 0 ] || shift
skip=${HAKMEM_SKIP-}

# Reads FILE<tab>LINE<tab>TEXT, prints those of interest.
of_interest() {
    awk -F '\t' -v skip="$skip" -v modules="$modules" '
    function needs_us(path,   found) {
        if (path !~ /^\//) path = modules "/" path
        # The shell gets it in single quotes, and it has none: nothing of it is run.
        gsub(/["\047]/, "", path)
        return system("grep -q ngx_hak_ -- \047" path "\047 2>/dev/null") == 0
    }
    {
        file = $1; line = $2; text = $3
        for (i = 4; i <= NF; i++) text = text "\t" $i
        code = text
        sub(/^[ \t]*#.*/, "", code)
        sub(/[ \t]#.*/, "", code)
        if (file == skip) next
        hit = code ~ /(^|[ \t;{}])hakmem(_[a-z]+)?([ \t;]|$)/ ||
            code ~ /\$\{?hakmem_request_bytes/
        if (!hit && match(code, /(^|[ \t;{}])load_module[ \t]+[^;]+/)) {
            path = substr(code, RSTART, RLENGTH)
            sub(/.*load_module[ \t]+/, "", path)
            hit = path ~ /ngx_http_hakmem_module/ || needs_us(path)
        }
        if (hit) {
            sub(/^[ \t]+/, "", text)
            print file ":" line ": " text
        }
    }'
}

option() {
    "$nginx" -V 2>&1 | tr ' ' '\n' | sed -n "s/^--$1=//p" | tail -n 1
}

# load_module's relative names are below the prefix.
modules=$(option prefix)
modules=${modules:-/usr/local/nginx}
conf=$(option conf-path)
conf=${conf:-$modules/conf/nginx.conf}

shown=$("$nginx" "$@" -T -q 2>/dev/null) && {
    printf '%s\n' "$shown" | awk '
    /^# configuration file .*:$/ {
        file = substr($0, 22, length($0) - 22); line = 0; next
    }
    { print file "\t" ++line "\t" $0 }' | of_interest
    exit 0
}

# Not to be had from nginx.
while [ $# -gt 1 ]; do
    case $1 in
    -p) modules=$2 ;;
    -c) conf=$2 ;;
    esac
    shift
done
case $conf in
/*) ;;
*) conf=$modules/$conf ;;
esac
find -L "$(dirname "$conf")" -type f 2>/dev/null | sort |
    while read -r file; do
        # Text alone: there may be sockets, keys, sites' files.
        ! grep -qI '' "$file" 2>/dev/null ||
            awk '{ print FILENAME "\t" FNR "\t" $0 }' "$file"
    done | of_interest
exit 0
