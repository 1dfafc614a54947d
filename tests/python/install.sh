#!/bin/sh
# install.sh - tests that hakmem_py installs as a user would install it: the
# source archive builds, pip puts the wheel into a fresh virtual environment
# with no network, it works there, and is gone when it is removed.
#
#     tests/python/install.sh [PYTHON...]
#
# Without names: python3, and every CPython from 3.9 on that PATH or pyenv has.
# Run by `make check-python-install`.
set -u
cd "$(dirname "$0")/../.." || exit 1

# shellcheck source=tests/lib.sh
. tests/lib.sh
version=$(cat VERSION)

# tells TEXT COMMAND...: the command succeeds and prints TEXT somewhere.
tells() {
    text=$1
    shift
    "$@" >"$dir/out" 2>&1 || {
        cat "$dir/out"
        return 1
    }
    grep -qF -- "$text" "$dir/out" || {
        echo "no '$text' in:"
        cat "$dir/out"
        return 1
    }
}

# Not from the source tree, and with nothing of the caller's settings.
clean() {
    (cd "$dir" && env -u PYTHONPATH -u PYTHONHOME -u PYTHONMALLOC \
        -u HAKMEM_PYTHON -u HAKMEM_PYTHON_LANES "$@")
}

pip() {
    clean "$env/bin/python" -m pip --disable-pip-version-check \
        --no-input "$@"
}

python() {
    clean "$env/bin/python" "$@"
}

nothing_left() {
    left=$(find "$env" -iname '*hakmem*' | grep -v '\.pth$')
    [ -z "$left" ] || {
        echo "left behind: $left"
        return 1
    }
}

# The archive holds what it is built from and no file of another place.
archive_is_good() {
    tar tzf "$1" >"$dir/list" || return 1
    for file in core/heap/heap.c core/settings/options.def include/hakmem.h VERSION \
        LICENSE README.md pyproject.toml setup.py src/module.map \
        hakmem_py/__init__.py hakmem_py/__init__.pyi hakmem_py/py.typed; do
        grep -q "^[^/]*/$file\$" "$dir/list" || {
            echo "no $file in it"
            return 1
        }
    done
    ! grep -E '^/|\.\.|\.o$|\.so$|\.pyc$' "$dir/list"
}

# names_glibc PYTHON: the wheel's name has the newest glibc that its object asks for,
# 2.28 at most, whatever it was built with.
names_glibc() {
    rm -rf "$dir/wheel"
    "$1" -m zipfile -e "$wheel" "$dir/wheel" || return 1
    newest=$(objdump -T "$dir"/wheel/hakmem_py/*.so | grep -o 'GLIBC_2\.[0-9]*' |
        sed 's/.*\.//' | sort -n | tail -n 1)
    [ "${newest:-99}" -le 28 ] || {
        objdump -T "$dir"/wheel/hakmem_py/*.so | grep -E 'GLIBC_2\.(29|[3-9].)'
        return 1
    }
    case $wheel in
    *-manylinux_2_"${newest:-none}"_*.whl) ;;
    *)
        echo "$wheel needs glibc 2.$newest"
        return 1
        ;;
    esac
}

# A wheel whose object needs what not every system has keeps its name.
refuses_strange() {
    mkdir -p "$dir/strange"
    echo 'int main;' | "${CC:-gcc}" -x c -shared -o "$dir/strange/libother.so.9" \
        -Wl,-soname,libother.so.9 - || return 1
    echo 'int more;' | "${CC:-gcc}" -x c -shared -fPIC -o "$dir/strange/x.so" - \
        -Wl,--no-as-needed -L"$dir/strange" -l:libother.so.9 || return 1
    strange=$dir/strange/x-1-cp39-cp39-linux_x86_64.whl
    "$1" -m zipfile -c "$strange" "$dir/strange/x.so" || return 1
    says "manylinux.py: x.so needs libother.so.9, which not every system has; it stays\
 a wheel for this system alone" "$1" adapters/python/manylinux.py "$strange" &&
        test -f "$strange"
}

ON='import hakmem_py as h; assert h.enabled, h.reason;
import sys; assert h.__file__.startswith(sys.prefix), h.__file__
x = [str(n) for n in range(100000)]
assert h.stats()["obj"]["tiny_allocs"] > 100000
print("served", h.__version__)'
LOADED='import sys; print("loaded:", "hakmem_py" in sys.modules)'

# try PYTHON: everything, with one interpreter.
try() {
    name=$("$1" -c 'import platform as p
print(p.python_implementation(), p.python_version())') || return
    about=$name
    before=$failed
    dist=$dir/dist-$count
    env=$dir/env-$count
    check 'the archive and the wheel are built' \
        adapters/python/build.sh "$1" "$dist" || return
    archive=$(echo "$dist"/*.tar.gz)
    wheel=$(echo "$dist"/*.whl)
    check "the wheel's name says which glibc" names_glibc "$1"
    check 'or that not every system will do' refuses_strange "$1"
    check 'what is in the archive' archive_is_good "$archive"
    check 'the source tree stays as it was' \
        says_nothing find adapters/python -name '*.egg-info' -o -name build
    check 'a fresh environment' clean "$1" -m venv "$env" || return
    check 'pip installs the wheel, offline' \
        pip install --quiet --no-index "$wheel" || return
    check 'pip finds no fault' pip check
    check 'import puts it on' tells "served $version" python -c "$ON"
    check 'a type checker finds its types' python -c 'import hakmem_py, os
d = os.path.dirname(hakmem_py.__file__)
assert {"py.typed", "__init__.pyi"} <= set(os.listdir(d)), os.listdir(d)'
    echo 'import sys; print("hello", sys.argv[1])' >"$dir/hello.py"
    check 'it runs a program' \
        tells 'hello you' python -m hakmem_py "$dir/hello.py" you
    check 'and says who served' tells tiny_allocs python -m hakmem_py -v -c pass
    check 'and compares' \
        tells 'page faults' python -m hakmem_py --compare -c 'print(1)'
    check 'by itself it stays off' tells 'loaded: False' python -c "$LOADED"
    check 'autostart on' \
        tells 'autostart is on' python -m hakmem_py --autostart on
    check 'it starts by itself' tells 'loaded: True' python -c "$LOADED"
    check 'with -I too' tells 'loaded: True' python -I -c "$LOADED"
    check 'autostart off' \
        tells 'autostart is off' python -m hakmem_py --autostart off
    check 'it no longer starts' tells 'loaded: False' python -c "$LOADED"
    check 'autostart on again' python -m hakmem_py --autostart on
    check 'pip removes it' pip uninstall --quiet --yes hakmem-py
    check 'nothing stays' nothing_left
    check 'a forgotten autostart does no harm' says_nothing python -c pass
    [ "$before" -ne "$failed" ] || echo "$name: installs and works"
}

[ $# -gt 0 ] || {
    # shellcheck disable=SC2046  # a list of words
    set -- $(adapters/python/pythons.sh)
}
count=0
for python in "$@"; do
    count=$((count + 1))
    try "$(command -v "$python" || echo "$python")"
done
if [ "$passed" -eq 0 ]; then
    echo 'install.sh: there is no CPython to test with' >&2
    failed=1
fi
sum
