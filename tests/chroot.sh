# shellcheck shell=sh
# chroot.sh - what tests in chroots of other Debians share.
#
# Read from the top of the tree: `. tests/chroot.sh`. Needs root and debootstrap, and
# a network the first time.

# chroot_needs WHO: ends the script with one line if there can be no chroot here.
chroot_needs() {
    [ "$(id -u)" -eq 0 ] || {
        echo "$1: a chroot needs root; run it with sudo" >&2
        exit 1
    }
    command -v debootstrap >/dev/null || {
        echo "$1: no debootstrap; on Debian: apt install debootstrap" >&2
        exit 1
    }
}

# chroot_mirror: where packages come from: DEBIAN_MIRROR, or where this machine's own
# do; nothing: debootstrap knows one.
chroot_mirror() {
    if [ -n "${DEBIAN_MIRROR-}" ]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    {
        sed -n 's/^URIs: *\([^ ]*\/debian\)\/* *$/\1/p' /etc/apt/sources.list.d/*.sources
        sed -n 's/^deb  *\(\[.*\] *\)\{0,1\}\([^ ]*\/debian\)\/* .*/\2/p' \
            /etc/apt/sources.list /etc/apt/sources.list.d/*.list
    } 2>/dev/null | head -n 1
}

# chroot_make SUITE ROOT PACKAGE...: once; what is said is in ROOT.log.
chroot_make() {
    suite=$1 root=$2
    shift 2
    [ ! -e "$root/ready" ] || return 0
    mkdir -p "$root"
    if [ ! -e "$root/etc/debian_version" ] || [ -d "$root/debootstrap" ]; then
        # shellcheck disable=SC2046  # without a mirror: debootstrap's own
        debootstrap --variant=minbase "$suite" "$root" $(chroot_mirror) \
            >"$root.log" 2>&1 || return 1
    fi
    chroot_run "$root" "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        --no-install-recommends -o Dpkg::Use-Pty=0 install $*" >>"$root.log" 2>&1 &&
        touch "$root/ready"
}

# chroot_run ROOT LINE: a shell's line in there.
chroot_run() {
    chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/ \
        http_proxy="${http_proxy-}" https_proxy="${https_proxy-}" sh -c "$2"
}

chroot_mounted=

# chroot_enter ROOT: what programs expect is mounted, until chroot_leave.
chroot_enter() {
    mount -t proc proc "$1/proc" && chroot_mounted="$1/proc"
    mount -t tmpfs shm "$1/dev/shm" && chroot_mounted="$1/dev/shm $chroot_mounted"
    # Names of terminals, which some programs open.
    mount --bind /dev/pts "$1/dev/pts" && chroot_mounted="$1/dev/pts $chroot_mounted"
}

chroot_leave() {
    for what in $chroot_mounted; do
        umount "$what" || umount -l "$what"
    done
    chroot_mounted=
}

# chroot_sources ROOT: what git knows of, as it is now, as ROOT/src; what was built
# there stays.
chroot_sources() {
    mkdir -p "$1/src"
    find "$1/src" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
    git ls-files -coz --exclude-standard | tar -c --null -T - | tar -x -C "$1/src"
}
