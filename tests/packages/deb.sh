#!/bin/sh
# deb.sh - Debian's packages installed, used, upgraded, removed and purged in a
# fresh chroot of Debian 12.
#
#     tests/packages/deb.sh DEBS BASE.tar
#
# DEBS is where `make deb` has put them. BASE.tar is the chroot as debootstrap makes
# it, made the first time (some minutes, a network) and then kept; DEBIAN_MIRROR
# names another mirror than the one this machine uses. Needs root. What is used is
# debian/tests, before the upgrade and after it. Run by `make check-deb`.
set -u
cd "$(dirname "$0")/../.." || exit 1

# shellcheck source=tests/lib.sh
. tests/lib.sh
[ $# -eq 2 ] || {
    echo 'usage: deb.sh DEBS BASE.tar' >&2
    exit 2
}
debs=$(realpath "$1")
base=$2
version=$(cat VERSION)
root=$dir/root

give_up() {
    echo "make check-deb: $1" >&2
    exit 1
}
[ "$(id -u)" -eq 0 ] || give_up 'a chroot needs root; run it with sudo'
command -v debootstrap >/dev/null ||
    give_up 'no debootstrap; on Debian: apt install debootstrap'

mirror=${DEBIAN_MIRROR:-$(sed -n 's/^URIs: *\(.*\/debian\)\/*$/\1/p' \
    /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)}
mirror=${mirror:-http://deb.debian.org/debian}
if [ ! -e "$base" ]; then
    debootstrap --variant=minbase bookworm "$dir/base" "$mirror" \
        >"$dir/log" 2>&1 || {
        tail -n 5 "$dir/log" >&2
        give_up 'the chroot could not be made (network?)'
    }
    mkdir -p "$(dirname "$base")"
    tar -c -C "$dir/base" . >"$base.new" && mv "$base.new" "$base"
    rm -rf "$dir/base"
fi

mounted=
leave() {
    # Servers of the chroot's that a failed test has left.
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/root")" != "$root" ] ||
            kill -KILL "${process#/proc/}" 2>/dev/null
    done
    for what in $mounted; do
        umount "$root/$what" || umount -l "$root/$what"
    done
    rm -rf --one-file-system "$dir"
}
trap leave EXIT
trap 'exit 130' INT TERM
mkdir "$root"
tar -x -C "$root" -f "$base"
mount -t proc proc "$root/proc" && mounted=proc
mount -t tmpfs shm "$root/dev/shm" && mounted="dev/shm $mounted"
mkdir "$root/debs" "$root/newer" "$root/tests" "$root/try"
cp "$debs"/*.deb "$root/debs"
cp debian/tests/* "$root/tests"
# No package starts its server: it would take this machine's ports.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# inside WORDS...: a shell's line in the chroot.
inside() {
    chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        HOME=/ DEBIAN_FRONTEND=noninteractive AUTOPKGTEST_TMP=/try \
        http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" sh -c "$*"
}
apt='apt-get -q -y --no-install-recommends -o Dpkg::Use-Pty=0'

# newer DEB: the same with a higher version and other objects, as a later build is.
newer() {
    rm -rf "$dir/deb"
    dpkg-deb -R "$1" "$dir/deb" &&
        find "$dir/deb/usr" -name '*.so*' -type f -exec sh -c 'echo >>"$1"' - {} \; &&
        sed -i "s/$version-1/$version-2/" "$dir/deb/DEBIAN/control" &&
        dpkg-deb -b --root-owner-group "$dir/deb" "$root/newer"
}

use() {
    for name in library command lua python nginx; do
        check "$1: $name" inside "/tests/$name"
    done
}

version_is() {
    says "$1" inside "dpkg-query -W -f '\${Version}\n' '*hakmem*' | grep . | sort -u"
}

check 'apt knows its archive' inside "$apt update"
# A newcomer's minute.
check 'the command is installed from its file' \
    inside "cd /debs && $apt install ./hakmem_*.deb"
echo 'print(sum(len(str(n)) for n in range(1000000)))' >"$root/try/x.py"
check 'it compares a program' \
    inside "cd /try && hakmem compare -- python3 x.py | grep '^peak memory'"

check 'the others are installed' inside "cd /debs && $apt install \
    \$(ls ./*.deb | grep -v dbgsym) nginx curl gcc libc6-dev pkg-config lua5.4"
use installed
check 'their pages are found' inside "ls /usr/share/man/man1/hakmem.1.gz \
    /usr/share/man/man7/hakmem.7.gz /usr/share/man/man3/hakmem.3.gz \
    /usr/share/man/man3/hak_malloc.3.gz /usr/share/man/man1/hakmem_py.1.gz"

# An nginx that the module is not for.
mkdir -p "$dir/nginx/DEBIAN"
printf '%s\n' 'Package: nginx' 'Version: 99.0-1' 'Architecture: all' \
    'Maintainer: nobody <nobody@localhost>' 'Provides: nginx-abi-99.0-1' \
    'Description: an nginx with another interface' >"$dir/nginx/DEBIAN/control"
check 'another nginx is packed' \
    dpkg-deb -b --root-owner-group "$dir/nginx" "$root/try/nginx.deb"
check 'with it the module goes' inside "$apt -s install /try/nginx.deb |
    grep '^Remv libnginx-mod-http-hakmem '"

# An upgrade below an nginx that runs.
for deb in "$debs"/*[0-9]_*.deb; do
    case $deb in *dbgsym*) continue ;; esac
    check "$(basename "$deb") as a later build" newer "$deb"
done
cat >"$root/try/live.conf" <<'END'
include /etc/nginx/modules-enabled/*.conf;
pid /try/live.pid;
error_log /try/live.log notice;
events { }
http {
    access_log off;
    server { listen unix:/try/live.socket; location / { hakmem_status; } }
}
END
cat >"$root/try/switch" <<'END'
kill -USR2 "$(cat /try/live.pid)"
for i in $(seq 100); do [ ! -s /try/live.pid.oldbin ] || break; sleep 0.1; done
sleep 1
kill -QUIT "$(cat /try/live.pid.oldbin)"
for i in $(seq 100); do [ -e /try/live.pid.oldbin ] || break; sleep 0.1; done
END
page='curl -sf --unix-socket /try/live.socket http://localhost/'
# By its full path, as its service does: only so can it start a new master.
check 'nginx runs' inside '/usr/sbin/nginx -c /try/live.conf'
check 'and is served' inside "sleep 1; $page | grep '^served_by .* module'"
check 'the upgrade' inside "cd /newer && $apt install ./*.deb"
check 'every package is upgraded' version_is "$version-2"
check 'the running nginx serves on' inside "$page | grep '^served_by .* module'"
check 'its page knows of the new file' inside "$page | grep -i replaced"
check 'a new master takes over' inside "sh /try/switch && $page >/try/page; cat /try/page
    grep '^served_by .* module' /try/page && ! grep -i replaced /try/page"
check 'it stops' inside 'nginx -c /try/live.conf -s quit'
use upgraded

echo 'hakmem_trim 1s;' >"$root/etc/nginx/conf.d/mine.conf"
packages="hakmem libhakmem-dev libhakmem0 libnginx-mod-http-hakmem lua-hakmem \
python3-hakmem"
check 'the removal names the lines that nginx will refuse' inside "$apt remove \
    $packages | grep '^/etc/nginx/conf.d/mine.conf:1:hakmem_trim 1s;'"
rm "$root/etc/nginx/conf.d/mine.conf"
check 'nginx starts without it' inside 'nginx -t -q'
# What dpkg keeps for a package that comes back: the removed link.
left() {
    inside "find / -xdev \( -path /proc -o -path /debs -o -path /newer -o -path /tests \
        -o -path /try -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \) -prune \
        -o -iname '*hakmem*' -print"
}
check 'nothing else stays' says \
    /etc/nginx/modules-enabled/00-mod-http-hakmem.conf.removed left
check 'installed again' inside "cd /newer && $apt install \
    ./libnginx-mod-http-hakmem_*.deb"
check 'it is on again' inside 'nginx -T 2>/dev/null | grep ngx_http_hakmem_module'
check 'purged' inside "dpkg --purge $packages"
check 'nothing stays' says '' left
check 'nothing of it is known to dpkg' says '' \
    inside "dpkg-query -W -f '\${Package} \${db:Status-Status}\n' '*hakmem*' 2>/dev/null |
        grep -v not-installed"
sum
