#!/bin/sh
# deb.sh - Debian's source and binary packages of a release archive.
#
#     deb.sh ARCHIVE DIRECTORY
#
# The archive is unpacked and built in DIRECTORY/build, with dpkg-buildpackage and
# Debian's own programs (no others that PATH may name); what it makes is then in
# DIRECTORY. lintian looks through it, if it is installed; an error ends this.
set -eu
[ $# -eq 2 ] || {
    echo 'usage: deb.sh ARCHIVE DIRECTORY' >&2
    exit 2
}

# fail WHAT [FILE]: one line, behind the end of a log.
fail() {
    [ $# -lt 2 ] || tail -n 20 "$2" >&2
    echo "make deb: $1" >&2
    exit 1
}

umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin
command -v dpkg-buildpackage >/dev/null ||
    fail 'no dpkg-buildpackage; on Debian: apt install dpkg-dev'
archive=$(realpath "$1")
name=$(basename "$archive" .tar.xz)
version=${name#hakmem-}
rm -rf "$2/build"
mkdir -p "$2/build"
out=$(realpath "$2")
log=$out/build.log
cd "$out/build"
tar -x -f "$archive"
cp "$archive" "hakmem_$version.orig.tar.xz"
cd "$name"

case $(dpkg-parsechangelog -S Version) in
"$version"-*) ;;
*) fail "debian/changelog begins with another version than $version" ;;
esac
missing=$(dpkg-checkbuilddeps 2>&1 |
    sed -n 's/ ([^)]*)//g; s/.*[Uu]nmet build dependencies: //p')
[ -z "$missing" ] || fail "missing; on Debian: apt install $missing"

# No settings of the caller's, nor make's.
if ! env -i PATH="$PATH" HOME="$out" LC_ALL=C.UTF-8 TERM=dumb \
    DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS-}" \
    dpkg-buildpackage -us -uc >"$log" 2>&1; then
    fail "dpkg-buildpackage failed; all of what it said: $log" "$log"
fi
cd ..
rm -f "$out"/*.deb
mv -f hakmem_* "$out"
mv -f ./*.deb "$out"
cd "$out"
rm -rf build
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error --tag-display-limit 0 \
        hakmem_"$version"-*_*.changes || fail 'lintian finds errors'
else
    echo 'lintian is not there (Debian: apt install lintian): not looked through'
fi
for file in *.deb; do
    echo "$out/$file"
done
