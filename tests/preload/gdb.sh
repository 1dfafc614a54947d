#!/bin/bash
# gdb - debugs a program that has the library, and has it itself: breakpoints,
# a watchpoint, a backtrace, calls of functions, a core file.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.c <<'CODE'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct node {
    struct node *next;
    char name[40];
    int value;
};
struct node *the_list;
int grand_total;
int walk(int depth, struct node *node)
{
    if (depth > 0)
        return walk(depth - 1, node->next) + node->value;
    grand_total += node->value;
    return node->value;
}
struct node *push_node(int value)
{
    struct node *node = calloc(1, sizeof *node);
    snprintf(node->name, sizeof node->name, "node %d", value);
    node->value = value;
    node->next = the_list;
    return the_list = node;
}
int main(int argc, char **argv)
{
    for (int i = 0; i < 100; i++)
        push_node(i * i);
    printf("%d\n", walk(5, the_list));
    if (argc > 1)
        abort();
    while (the_list) {
        struct node *next = the_list->next;
        free(the_list);
        the_list = next;
    }
    return argv[0] == NULL;
}
CODE
gcc -g -O0 -o program program.c
# The names are such as no library has with its debug information.
cat >commands <<'END_COMMANDS'
set pagination off
set print address off
set confirm off
set debuginfod enabled off
break walk if depth == 0
break push_node if value == 9801
watch grand_total
run
print value
finish
continue
backtrace 3
print *node
print the_list->next->name
python
import json
print(json.dumps({str(i): [i] * 3 for i in range(2000)})[-60:])
# Some machines have registers that this gdb can't write.
for call in "push_node(12345)->name", "(int) strlen(the_list->name)", '"a string"[2]':
    try:
        gdb.execute("print " + call)
    except gdb.error:
        print("no calls on this machine")
end
continue
continue
END_COMMANDS
debug() { # COMMAND...: gdb under it; what it says, less what is of this run
    "$@" gdb -nx -nh -batch -iex 'set auto-load no' "${options[@]}" \
        -x commands --args "$PWD/program" >said
    grep -v -e '^\[' -e '^Using host' -e libc_start said
    grep -q 'exited normally' said || die 'the program did not end well'
}
options=()
echo 'the program has the library, gdb has not'
if [ -n "$LIBRARY" ]; then
    options=(-iex "set exec-wrapper env LD_PRELOAD=$LIBRARY $EVIDENCE"
        -iex "set environment LD_DEBUG_OUTPUT $REPORTS/program")
fi
debug env 2>"$REPORTS/program"
echo 'gdb has it, the program has not'
options=(-iex 'set startup-with-shell off' -iex 'unset environment LD_PRELOAD'
    -iex 'unset environment HAKMEM_SHOW_STATS' -iex 'unset environment LD_DEBUG')
debug under
echo 'both have it'
options=()
debug under

# A core file is of what the program uses: 1 GB would be far too much.
echo 'a core file'
ulimit -f $((1 << 20))
cat >commands <<'END'
break walk if depth == 0
run
generate-core-file core
kill
END
under gdb -nx -nh -batch -x commands --args ./program >said
[ -s core ] || die 'no core file'
[ "$(stat -c %s core)" -lt 100000000 ] || die 'the core file is too large'
under gdb -nx -nh -batch -iex 'set print address off' -ex 'print *the_list' \
    -ex 'backtrace 3' program core | grep -e '^#' -e '^\$'
