#!/bin/sh
# pythons.sh - `make check-python` under several CPythons: those named, else every one
# that adapters/python/pythons.sh finds, one of each version.
#
#     tests/python/pythons.sh [PYTHON...]
#
# One without headers, or a free-threaded one, is named with the reason. MAKE is make,
# PYTHON_TESTS one test file's name ("test_api"). Run by `make
# check-pythons`.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${MAKE:=make}"

# shellcheck source=tests/lib.sh
. tests/lib.sh
# shellcheck disable=SC2046  # a list of words
[ $# -gt 0 ] || set -- $(adapters/python/pythons.sh)

ASKS='import os, platform, sys, sysconfig as s
print(platform.python_version() + ("t" if s.get_config_var("Py_GIL_DISABLED") else ""),
      os.path.exists(s.get_path("include") + "/Python.h"))'
had=
for python in "$@"; do
    said=$("$python" -c "$ASKS" 2>/dev/null) || {
        check "a Python: $python" false
        continue
    }
    version=${said% *}
    case " $had " in
    *" $version "*) continue ;;
    esac
    had="$had $version"
    about="CPython $version"
    case $said in
    *False)
        echo "row: $about | not here: no Python.h for $python"
        continue
        ;;
    *t\ True)
        echo "row: $about | refused: a free-threaded build"
        continue
        ;;
    esac
    if check 'its tests' "$MAKE" check-python PYTHON="$python" \
        PYTHON_TESTS="${PYTHON_TESTS-}"; then
        echo "row: $about | passed: $(sed -n 's/^Ran \([0-9]* tests*\).*/\1/p' "$dir/said")"
    else
        echo "row: $about | FAILED"
    fi
done
sum
