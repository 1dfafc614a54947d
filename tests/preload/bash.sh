#!/bin/bash
# bash - strings, arrays, recursion, pipes, subshells and here documents.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program <<'END'
declare -A count
sieve() {
    local -a composite
    local i j
    for ((i = 2; i <= $1; i++)); do
        [[ -n ${composite[i]:-} ]] && continue
        echo "$i"
        for ((j = i * i; j <= $1; j += i)); do composite[j]=1; done
    done
}
quicksort() {
    (($# < 2)) && { printf '%s\n' "$@"; return; }
    local pivot=$1 low=() high=() x
    shift
    for x; do
        if ((x < pivot)); then low+=("$x"); else high+=("$x"); fi
    done
    sorted=$(
        ((${#low[@]})) && quicksort "${low[@]}"
        echo "$pivot"
        ((${#high[@]})) && quicksort "${high[@]}"
    )
    echo "$sorted"
}
mapfile -t primes < <(sieve 20000)
echo "primes: ${#primes[@]}, last ${primes[-1]}"
seed=42
for ((i = 0; i < 20000; i++)); do
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    key=k$((seed / 65536 % 500))
    count[$key]=$((${count[$key]:-0} + 1))
done
for key in "${!count[@]}"; do echo "$key ${count[$key]}"; done | sort | md5sum
numbers=()
for ((i = 0; i < 60; i++)); do
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    numbers+=($((seed / 65536)))
done
quicksort "${numbers[@]}" | paste -sd ' '
text=
for ((i = 0; i < 3000; i++)); do
    printf -v piece '%05d:%x;' "$i" $((i * 2654435761))
    text+=$piece
done
echo "${#text} ${text//0/zero}" | md5sum
left=$text fields=0
while [[ $left =~ ^([0-9]+):([0-9a-f]+)\; ]]; do
    ((fields += 1))
    left=${left#"${BASH_REMATCH[0]}"}
    ((fields < 500)) || break
done
echo "fields: $fields, left ${#left}"
for i in 1 2 3 4; do (sieve 3000 | md5sum) & done
wait
tr a-z A-Z <<<"${text:100:200}" | rev
END
under bash program >output
expect 'the first line' "$(head -n 1 output)" 'primes: 2262, last 19997'
cat output
