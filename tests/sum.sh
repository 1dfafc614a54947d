#!/bin/sh
# sum.sh - runs test commands one after the other and adds up what they say.
#
#     tests/sum.sh COMMAND...
#
# Each is a line for the shell; its output is shown. A sum is the last line
# "N passed, N failed", or what Python's unittest says. The last line of all is
# the whole in the same words. The exit status is 1 if anything failed, or if a
# command failed without saying so.
set -u
passed=0
failed=0
log=$(mktemp) || exit 1
trap 'rm -f "$log" "$log.status"' EXIT

# "PASSED FAILED", of the log.
count() {
    awk '
        /^[0-9]+ passed, [0-9]+ failed$/ { good = $1; bad = $3 }
        /^Ran [0-9]+ tests? in / { good = $2; bad = 0 }
        /^FAILED \(/ {
            while (match($0, /(failures|errors)=[0-9]+/)) {
                split(substr($0, RSTART, RLENGTH), part, "=")
                bad += part[2]
                $0 = substr($0, RSTART + RLENGTH)
            }
            good -= bad
        }
        END { print good + 0, bad + 0 }' "$log"
}

for command in "$@"; do
    { sh -c "$command" 2>&1; echo $? >"$log.status"; } | tee "$log"
    # shellcheck disable=SC2046  # two numbers
    set -- $(count)
    passed=$((passed + $1))
    failed=$((failed + $2))
    if [ "$(cat "$log.status")" -ne 0 ] && [ "$2" -eq 0 ]; then
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
