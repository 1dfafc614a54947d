#!/bin/bash
# lib.sh - what the checks of tests/preload share; run.py sets the variables.
#
#   LIBRARY   the library to load, empty in the run without it
#   EVIDENCE  a variable's setting that makes a served process say so
#   REPORTS   a directory for what the commands say on standard error
set -euo pipefail

# What starts the commands of `under`, without the library: another user's.
before=()

# under COMMAND...: runs a command under the library, or without it; what it
# says on standard error goes to a file of its own in REPORTS, $AS or a new one.
under() {
    local report
    if [ -n "${AS:-}" ]; then
        report=$REPORTS/$AS
    else
        report=$(mktemp "$REPORTS/${1##*/}-XXXXXX")
    fi
    if [ -z "$LIBRARY" ]; then
        "${before[@]}" "$@" 2>"$report"
    else
        "${before[@]}" env LD_PRELOAD="$LIBRARY" LD_DEBUG_OUTPUT="$report" \
            "$EVIDENCE" "$@" 2>"$report"
    fi
}

# unserved COMMAND...: the same for a command that no library can serve (it
# takes none, or has an allocator of its own) and that must not be harmed.
unserved() {
    if [ -z "$LIBRARY" ]; then
        "$@"
    else
        env LD_PRELOAD="$LIBRARY" "$@"
    fi
}

# processes NAME: those of this run whose program is called that, not yet ended.
processes() {
    local session stat rest
    read -r session < <(sed 's/.*) //' /proc/$$/stat | cut -d ' ' -f 4)
    for stat in /proc/[0-9]*/stat; do
        rest=$(cat "$stat" 2>/dev/null) || continue
        [[ $rest == *"($1)"* ]] || continue
        read -r -a rest <<<"${rest##*) }"
        [ "${rest[0]}" = Z ] || [ "${rest[3]}" != "$session" ] ||
            cut -d / -f 3 <<<"$stat"
    done
}

# mapped PID: whether the library is in the process; the run without has none.
mapped() {
    [ -z "$LIBRARY" ] || grep -qF "/${LIBRARY##*/}" "/proc/$1/maps"
}

die() {
    echo "$*" >&2
    exit 1
}

# expect WHAT IS WANTED: two texts must be equal.
expect() {
    [ "$2" = "$3" ] || die "$1 is '$2', but must be '$3'"
}

# until_true SECONDS WHAT COMMAND...: waits until a command succeeds.
until_true() {
    local tries=$(($1 * 20)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "waited in vain until $what"
        sleep 0.05
    done
}
