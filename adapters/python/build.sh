#!/bin/sh
# build.sh - a source archive of hakmem_py, and a wheel that is built from that
# archive and nothing else, without a network.
#
#     build.sh PYTHON DIRECTORY
#
# Both go to DIRECTORY. setuptools and wheel come from PYTHON itself or, where
# it has none (3.12 and later), from Debian's packages python3-setuptools-whl
# and python3-wheel-whl; nothing is installed in PYTHON. The wheel's name says which
# glibc it needs (manylinux.py). Both are the same bytes whenever they are made of
# the same files: SOURCE_DATE_EPOCH is the last commit's date, or VERSION's file's.
set -eu
[ $# -eq 2 ] || {
    echo 'usage: build.sh PYTHON DIRECTORY' >&2
    exit 2
}
python=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
wheels=/usr/share/python-wheels
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

fail() {
    tail -n 20 "$log" >&2
    echo "build.sh: $1" >&2
    exit 1
}

: >"$log"
"$python" -m venv --system-site-packages "$work/env" >>"$log" 2>&1 ||
    fail "$python can't make a virtual environment; on Debian install\
 python3-venv"
python=$work/env/bin/python
"$python" -c 'import setuptools, wheel' 2>>"$log" ||
    "$python" -m pip install --quiet --no-index --find-links "$wheels" \
        setuptools wheel >>"$log" 2>&1 ||
    fail "there is no setuptools or no wheel for $1; install them, or on\
 Debian python3-setuptools-whl python3-wheel-whl"

if [ -z "${SOURCE_DATE_EPOCH-}" ]; then
    if [ -e ../../.git ]; then
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    else
        SOURCE_DATE_EPOCH=$(stat -c %Y setup.py)
    fi
fi
export SOURCE_DATE_EPOCH
umask 022

# egg-info must not stay in the source tree.
"$python" setup.py -q egg_info --egg-base "$work" \
    sdist --formats gztar --dist-dir "$work/dist" >>"$log" 2>&1 ||
    fail 'the source archive could not be made'
archive=$(ls "$work"/dist/*.tar.gz)
# As setuptools packs it, it has today's date and this user's name.
tar -x -z -f "$archive" -C "$work"
tar -c -C "$work" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner \
    --mode=a+rX,u+w,go-w --mtime="@$SOURCE_DATE_EPOCH" \
    "$(basename "$archive" .tar.gz)" | gzip -9n >"$work/packed"
mv "$work/packed" "$archive"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-index \
    --no-deps --no-build-isolation --wheel-dir "$work/dist" "$archive" \
    >>"$log" 2>&1 || fail 'the archive does not build'
if named=$("$python" manylinux.py "$work"/dist/*.whl 2>"$log"); then
    wheel=$(basename "$named")
else
    tail -n 1 "$log" >&2
    wheel=$(basename "$work"/dist/*.whl)
fi
mv "$work"/dist/* "$out"
echo "$out/$(basename "$archive")"
echo "$out/$wheel"
echo "in a virtual environment of $1: pip install $out/$wheel"
