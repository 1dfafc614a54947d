# Lists the targets of makefiles, those with "## GROUP: text" behind them, by group.
# Without a group it is told by the name.

BEGIN {
    split("use test bench upkeep", order)
}
/\\$/ {
    line = line substr($0, 1, length($0) - 1)
    next
}
{
    line = line $0
}
line ~ /^[a-z][a-z -]*:.*## / {
    names = line
    sub(/:.*/, "", names)
    text = line
    sub(/.*## /, "", text)
    group = names ~ /^check|^test/ ? "test" : names ~ /^bench/ ? "bench" : "use"
    if (text ~ /^(use|test|bench|upkeep): /) {
        group = text
        sub(/:.*/, "", group)
        sub(/^[a-z]+: /, "", text)
    }
    count = split(names, name, " ")
    for (i = 1; i <= count; i++) {
        said[group] = said[group] sprintf("  %-26s %s\n", name[i], text)
    }
}
{
    line = ""
}
END {
    for (i = 1; i in order; i++) {
        printf "\n%s\n%s", order[i], said[order[i]]
    }
}
