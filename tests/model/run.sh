#!/bin/sh
# run.sh - checks the models beside it with spin.
#
#     tests/model/run.sh BUILD
#
# Each must hold; without any one of the things that it rests on it must fail. The
# last line is the sum: "N passed, N failed".
set -u
models=$(realpath "$(dirname "$0")")
passed=0
failed=0

# look OPTION...: what spin finds: "holds", a claim that is false, or nothing if
# it can't be run. Whom a broken model leaves waiting is of no interest.
look() {
    rm -rf "$work" && mkdir -p "$work" && (
        cd "$work" && spin -a "$@" "$model" >&2 &&
            ${CC:-gcc} -O2 -DSAFETY -DNOREDUCE -o pan pan.c &&
            ./pan -m10000 -w24 ${1:+-E} >said && ! grep -q 'too small' said &&
            sed -n -e 's/.*, errors: 0$/holds/p' \
                -e 's/^pan:1: \(.*\) (at depth.*/\1/p' said
    )
}

# report WHAT FOUND GOOD: counts it, says so.
report() {
    if [ "$3" = true ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    echo "$1: ${2:-no end}$([ "$3" = true ] || echo ' (FAILED)')"
}

command -v spin >/dev/null || {
    echo "run.sh: spin is not installed; run '.ci/install-deps model'" >&2
    exit 1
}
mkdir -p "$1" && work=$(realpath "$1")/model || exit 1
for model in "$models"/*.pml; do
    name=$(basename "$model")
    without=$(sed -n 's/^ \*     \([A-Z_]*\)  .*/\1/p' "$model")
    found=$(look)
    report "$name" "$found" "$([ "$found" = holds ] && echo true)"
    [ -n "$without" ] || failed=$((failed + 1))
    for macro in $without; do
        found=$(look "-D$macro")
        case $found in
        assertion*) report "$name with $macro" "$found" true ;;
        *) report "$name with $macro" "$found" false ;;
        esac
    done
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
