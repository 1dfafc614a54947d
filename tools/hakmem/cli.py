"""Which subcommand was asked for, and how each of them ends.

The status is the subcommand's; 2 for a command line that can't be understood,
125 where a program was to be started and we could not.
"""
import importlib
import os
import signal
import sys

import hakmem
from hakmem.options import Failed

# In the order of --help: the name, what it does. Each is a module that has
# main(arguments), which returns the status, and HELP.
COMMANDS = (
    ("run", "run a program on HAKMEM"),
    ("compare", "run a program with and without HAKMEM: time, memory, faults"),
    ("top", "watch processes on HAKMEM: who holds what"),
    ("doctor", "is it a leak, a cache, retention or fragmentation?"),
    ("profile", "which functions or lines hold the memory of a process?"),
    ("record", "write down every allocation of a program"),
    ("replay", "do the same allocations again, on any allocator"),
)

START = """\
usage: hakmem COMMAND [option...] [argument...]

HAKMEM serves a program's memory without recompiling it. Commands:

"""
END = """
Try:
  hakmem run --stats -- ls -l          statistics at its exit
  hakmem compare -- python3 script.py  is it worth it?
  hakmem top                           what is on HAKMEM now
  hakmem doctor PID                    why is it so large?
  hakmem profile PID                   which functions hold its memory?
  hakmem record -- ./program           then: hakmem replay hakmem.trace

`hakmem COMMAND --help` lists a command's options, `man hakmem` says what each
figure means. `hakmem --version` prints the version."""


def usage():
    lines = [f"  {name:<9} {text}" for name, text in COMMANDS]
    return START + "\n".join(lines) + "\n" + END


def closest(name):
    """What was perhaps meant, as the end of a message."""
    import difflib
    names = [row[0] for row in COMMANDS]
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else \
        f"use one of: {' '.join(names)}"


def dispatch(arguments):
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        if rest and rest[0] in [row[0] for row in COMMANDS]:
            return dispatch([rest[0], "--help"])
        print(usage())
        return 0
    if name in ("-V", "--version"):
        print(f"hakmem {hakmem.VERSION}")
        return 0
    if name not in [row[0] for row in COMMANDS]:
        raise Failed(f"there is no command '{name}'; {closest(name)}", 2)
    return importlib.import_module(f"hakmem.{name}").main(rest)


def main(arguments):
    """The exit status."""
    try:
        status = dispatch(arguments)
        sys.stdout.flush()
        return status
    except Failed as failed:
        print(f"hakmem: {failed}", file=sys.stderr)
        return failed.status
    except BrokenPipeError:
        # Whoever reads has enough; nothing is to be said at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
