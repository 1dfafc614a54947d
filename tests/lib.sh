# shellcheck shell=sh
# lib.sh - what tests in shell share: a folder for the run, checks and their sum.
#
# Read from the top of the tree: `. tests/lib.sh`. $dir is gone when the test ends;
# `about` may hold words for failed checks to begin with; `sum` comes last.
passed=0
failed=0
about=
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# check WHAT COMMAND...: one check; what a failed one said is shown.
check() {
    what=$1
    shift
    if "$@" >"$dir/said" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: ${about:+$about: }$what"
        tail -n 40 "$dir/said" | sed 's/^/    /'
        return 1
    fi
}

# same ONE OTHER: two texts.
same() {
    [ "$1" = "$2" ] || {
        echo "'$1' is not '$2'"
        return 1
    }
}

# says TEXT COMMAND...: what it prints.
says() {
    text=$1
    shift
    same "$("$@" 2>&1)" "$text"
}

# says_nothing COMMAND...: it succeeds and prints nothing.
says_nothing() {
    if ! "$@" >"$dir/printed" 2>&1 || [ -s "$dir/printed" ]; then
        cat "$dir/printed"
        return 1
    fi
}

# The last line, which tests/sum.sh reads, and the status.
sum() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
