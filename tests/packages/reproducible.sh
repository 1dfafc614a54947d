#!/bin/sh
# reproducible.sh - what is shipped is built twice, in folders of different names, at
# different times, under another umask, locale and time zone: the same bytes.
#
#     tests/packages/reproducible.sh [PYTHON]
#
# The release archive, Debian's packages (where what they need is installed), the
# source archive and wheel of hakmem_py, the SBOM. Run by `make check-reproducible`.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${MAKE:=make}"
python=${1:-python3}

# shellcheck source=tests/lib.sh
. tests/lib.sh
version=$(cat VERSION)
one=$dir/one
other=$dir/another-folder
mkdir "$one" "$other"

# differently WORDS...: the command in other circumstances.
differently() {
    (umask 027 && TZ=Asia/Tokyo LC_ALL=C.UTF-8 LANG=C.UTF-8 "$@")
}

# alike PATTERN...: there are such files, the same in both folders.
alike() {
    # shellcheck disable=SC2068  # patterns
    (cd "$one" && ls -d $@) >"$dir/names" || return 1
    while read -r name; do
        cmp "$one/$name" "$other/$name" || return 1
    done <"$dir/names"
}

archive=hakmem-$version.tar.xz
check 'the archive' .ci/dist "$one/$archive"
check 'the archive again' differently .ci/dist "$other/$archive"
check 'the archives are alike' alike "$archive"

# From here on from the archive, unpacked twice; what is built has its date.
for folder in "$one" "$other"; do
    tar -x -f "$folder/$archive" -C "$folder"
done
tree=hakmem-$version
check 'the wheel' "$one/$tree/adapters/python/build.sh" "$python" "$one"
check 'the wheel again' differently \
    "$other/$tree/adapters/python/build.sh" "$python" "$other"
check 'the wheels are alike' alike '*.whl'
check 'their source archives too' alike 'hakmem*py-*.tar.gz'

# sbom FOLDER: by a make of its own.
sbom() {
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "$MAKE" -C "$1/$tree" -j2 \
        CFLAGS="-ffile-prefix-map=$1/$tree=." sbom
}
check 'the SBOM' sbom "$one"
check 'the SBOM again' differently sbom "$other"
built=$tree/build/release
check 'the libraries are alike' alike "$built/*.so" "$built/*.a" "$built/lua/*.so"
check 'the SBOMs are alike' alike "$built/*.spdx.json"
check 'every file it names is what it says' "$python" tests/packages/sbom_check.py \
    "$one/$built/hakmem-$version.spdx.json" "$one/$built"

if dpkg-buildpackage --version >/dev/null 2>&1; then
    check 'the packages' packaging/deb.sh "$one/$archive" "$one/deb"
    check 'the packages again' differently \
        packaging/deb.sh "$other/$archive" "$other/longer/deb"
    [ ! -d "$other/longer" ] || mv "$other/longer/deb" "$other/deb"
    check 'the packages are alike' alike 'deb/*.deb' 'deb/*.dsc' 'deb/*.tar.*'
else
    echo 'no dpkg-buildpackage: packages are left out'
fi
sum
