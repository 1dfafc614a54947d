#!/bin/sh
# build.sh - a source archive of hakmem_py, and a wheel that is built from that
# archive and nothing else, without a network.
#
#     build.sh PYTHON DIRECTORY
#
# Both go to DIRECTORY. setuptools and wheel come from PYTHON itself or, where
# it has none (3.12 and later), from Debian's packages python3-setuptools-whl
# and python3-wheel-whl; nothing is installed in PYTHON.
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

# egg-info must not stay in the source tree.
"$python" setup.py -q egg_info --egg-base "$work" \
    sdist --formats gztar --dist-dir "$work/dist" >>"$log" 2>&1 ||
    fail 'the source archive could not be made'
archive=$(ls "$work"/dist/*.tar.gz)
"$python" -m pip wheel --quiet --disable-pip-version-check --no-index \
    --no-deps --no-build-isolation --wheel-dir "$work/dist" "$archive" \
    >>"$log" 2>&1 || fail 'the archive does not build'
wheel=$(basename "$work"/dist/*.whl)
mv "$work"/dist/* "$out"
echo "$out/$(basename "$archive")"
echo "$out/$wheel"
echo "in a virtual environment of $1: pip install $out/$wheel"
