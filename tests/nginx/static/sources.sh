#!/bin/sh
# sources.sh - fetches what a static nginx is built of, from Debian's archive, or
# other sources.
#
#     sources.sh FOLDER [PACKAGE]
#
# With a PACKAGE that one is fetched, as FOLDER/PACKAGE, and nothing else. Without:
# FOLDER/nginx is then Debian's nginx with its patches, FOLDER/MODULE each
# module that is compiled into it, under the name that its .so has in Debian. The
# machine's own repositories are asked for their sources: deb-src lines need
# not be there, and nothing of the system's apt is changed, so no root is
# needed. An archive may lack files of its newest version (a mirror that has not
# caught up): then the version before is taken. FOLDER/versions lists what was,
# and is written last.
# Needs dpkg-dev.
set -eu

mkdir -p "$1"
cd "$1"
folder=$PWD
[ ! -f versions ] || mv versions taken
key=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$key" ] && key="[signed-by=$key] " || key=

# mine TOOL...: apt's tools on the repositories in $state/list alone.
mine() {
    tool=$1
    shift
    "$tool" -q -o Dir::Etc::SourceList="$state/list" \
        -o Dir::Etc::SourceParts="$state/none" \
        -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache" \
        -o APT::Sandbox::User=root "$@"
}

# ask_of STATE LIST: FOLDER/STATE is where apt finds what to ask; LIST has the
# repositories, a line each: URI RELEASE.
ask_of() {
    state=$folder/$1
    mkdir -p "$state/none" "$state/lists/partial" \
        "$state/cache/archives/partial"
    sed "s,.*,deb-src $key& main," "$2" >"$state/list"
    mine apt-get update >>"$folder/log" 2>&1
}

# take PACKAGE MODULE: unpacks the newest version that can be had as MODULE.
take() {
    [ ! -d "$folder/$2" ] || return 0
    for version in $(mine apt-cache showsrc "$1" 2>>"$folder/log" |
        sed -n 's/^Version: //p' | sort -ruV); do
        rm -rf "$folder/fetched"
        mkdir "$folder/fetched"
        if (cd "$folder/fetched" &&
            mine apt-get source --download-only "$1=$version" &&
            dpkg-source -x ./*.dsc part) >>"$folder/log" 2>&1; then
            mv "$folder/fetched/part" "$folder/$2"
            echo "$2: $1 $version" >>"$folder/taken"
            return
        fi
    done
    return 1
}

# The module was a part of nginx's package until Debian 12.
pam_of_old() {
    sed -n 's,\(.*/debian/*\) [a-z]*$,\1 bullseye,p' ours |
        head -n 1 >theirs
    ask_of old theirs && take nginx old_nginx &&
        mv old_nginx/debian/modules/http-auth-pam ngx_http_auth_pam_module &&
        sed -i 's/^old_nginx/ngx_http_auth_pam_module/' taken
}

fail() {
    echo "sources.sh: $1; all that apt said: $folder/log" >&2
    exit 1
}

command -v dpkg-source >/dev/null ||
    fail "there is no dpkg-source: install dpkg-dev"
# shellcheck disable=SC2016  # apt fills them in
apt-get indextargets --format '$(REPO_URI) $(RELEASE)' \
    'Created-By: Packages' 'Origin: Debian' 'Component: main' >ours
[ -s ours ] || echo 'http://deb.debian.org/debian bookworm' >ours
ask_of apt ours || fail "no list of sources from $(sed 1q ours)"

finish() {
    rm -rf "$folder/fetched" "$folder/old_nginx" "$folder/apt" "$folder/old"
    mv "$folder/taken" "$folder/versions"
    cat "$folder/versions"
}

if [ $# -eq 2 ]; then
    take "$2" "$2" || fail "no source of $2"
    finish
    exit
fi
while read -r package module; do
    take "$package" "$module" || {
        [ "$module" = ngx_http_auth_pam_module ] && pam_of_old
    } || fail "no source of $package"
done <<'LIST'
nginx nginx
libnginx-mod-http-ndk ndk_http_module
libnginx-mod-http-lua ngx_http_lua_module
libnginx-mod-http-modsecurity ngx_http_modsecurity_module
libnginx-mod-http-auth-pam ngx_http_auth_pam_module
LIST
finish
