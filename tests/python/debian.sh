#!/bin/sh
# debian.sh - hakmem_py under the Python of another Debian, in a chroot.
#
#     tests/python/debian.sh SUITE DIRECTORY [MAKE-TARGET...]
#
# SUITE is trixie (Debian 13: Python 3.13) or testing (3.14). Builds the chroot
# in DIRECTORY the first time (debootstrap: some minutes, a network, 1 GB),
# copies the source tree into it and runs the targets there, check-python and
# check-python-suite-quick unless others are named. Needs root. DEBIAN_MIRROR
# names another mirror than the one this machine uses. The directory may be
# removed afterwards.
set -eu
usage() {
    echo 'usage: debian.sh trixie|testing DIRECTORY [MAKE-TARGET...]' >&2
    exit 2
}

[ $# -ge 2 ] || usage
suite=$1
case $suite in
trixie) python=python3.13 ;;
testing) python=python3.14 ;;
*) usage ;;
esac
mkdir -p "$2"
root=$(cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- check-python check-python-suite-quick
cd "$(dirname "$0")/../.."

fail() {
    echo "debian.sh: $1" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail 'a chroot needs root; run it with sudo'
command -v debootstrap >/dev/null || fail 'install debootstrap'

packages=make,gcc,libc6-dev,pkg-config,lua5.4,liblua5.4-dev
packages=$packages,$python,$python-dev,$python-venv,lib$python-testsuite
if [ ! -e "$root/ready" ]; then
    mirror=${DEBIAN_MIRROR:-$(sed -n 's/^URIs: *\(.*\/debian\)\/*$/\1/p' \
        /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)}
    # shellcheck disable=SC2086  # without a mirror: debootstrap's own
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" \
        $mirror >"$root.log" 2>&1 || {
        tail -n 5 "$root.log" >&2
        fail "the chroot could not be built, see $root.log; remove $root"
    }
    touch "$root/ready"
fi

mounted=
leave() {
    for what in $mounted; do
        umount "$root/$what" || true
    done
}
trap leave EXIT
trap 'exit 130' INT TERM
mount -t proc proc "$root/proc" && mounted=proc
mount -t tmpfs shm "$root/dev/shm" && mounted="dev/shm $mounted"

# What git knows of, as it is now.
rm -rf "$root/src"
mkdir "$root/src"
git ls-files -coz --exclude-standard |
    tar -c --exclude=tests/fuzz/corpus --null -T - | tar -x -C "$root/src"
chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
    HOME=/ make -C /src PYTHON="$python" CC=gcc "$@"
