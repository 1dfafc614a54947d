#!/bin/sh
# wheels.sh - a wheel for each of several Pythons, of the same source archive.
#
#     wheels.sh DIRECTORY [PYTHON...]
#
# Without names: every CPython that pythons.sh finds, one for each version. Those
# without headers or setuptools are named and left out; the exit status is 1 if there
# was no wheel at all.
set -u
here=$(dirname "$0")
[ $# -gt 0 ] || {
    echo 'usage: wheels.sh DIRECTORY [PYTHON...]' >&2
    exit 2
}
out=$1
shift
# shellcheck disable=SC2046  # a list of words
[ $# -gt 0 ] || set -- $("$here/pythons.sh")

made=
done=
for python in "$@"; do
    tag=$("$python" -c 'import sys, sysconfig as s
print("cp%d%d" % sys.version_info[:2], s.get_config_var("Py_GIL_DISABLED") and "t" or "",
      sep="")') || continue
    case " $done " in
    *" $tag "*) continue ;;
    esac
    if said=$("$here/build.sh" "$python" "$out" 2>&1); then
        done="$done $tag"
        made=$(printf '%s\n' "$said" | sed -n '/\.whl$/{p;q;}')
        echo "$made"
    else
        echo "left out: $python: $(printf '%s\n' "$said" | tail -n 1)"
    fi
done
[ -n "$made" ]
