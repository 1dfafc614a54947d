"""python -m hakmem_py: runs a program on HAKMEM, compares, switches."""
import atexit
import os
import sys
import textwrap

import hakmem_py
from hakmem_py import _program

NAME = "python -m hakmem_py"
USAGE = f"""\
usage: {NAME} [option...] script.py [argument...]
       {NAME} [option...] -m module [argument...]
       {NAME} [option...] -c code [argument...]
       {NAME} --compare script.py|-m module|-c code [argument...]
       {NAME} --autostart on|off
       {NAME} --version

Runs a Python program with its objects on HAKMEM.
  -v           say at exit, on standard error, which allocator served what
  --profile F  write to the file F, at exit, which lines hold the memory: a
               page (.html), for pprof (.pb.gz), collapsed stacks (.txt), for
               speedscope (.json); %p in it is the process's number
  --compare    run it with and without HAKMEM: time, memory, page faults
  --autostart  on: every start of this Python environment is on HAKMEM
               (a .pth file in its site-packages); off: no longer
  --help       this, and every variable that it reads"""


def fail(text, status=2):
    print(f"{NAME}: {text}", file=sys.stderr)
    sys.exit(status)


def in_units(size):
    """A size, as it can be written in a variable."""
    for shift, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def settings():
    """Every variable, as the tables of the adapter and the core have it."""
    lines = ["Variables, read once when hakmem_py is imported:"]
    for name, values, initial, text in hakmem_py._hakmem.options():
        words = values.split()
        if "percent" in values or "path" in values:
            initial = "none"
        elif "bytes" in values:
            initial = in_units(initial)
        elif len(words) > 1:
            initial = words[initial]
            values = "|".join(words)
        lines += ["", f"  {name}={values} (default: {initial})"]
        lines += textwrap.wrap(text, 72, initial_indent="      ",
                               subsequent_indent="      ")
    return "\n".join(lines)


def print_stats():
    """Prints the statistics, at exit."""
    found = hakmem_py.stats()
    lines = [f"hakmem_py {hakmem_py.__version__}: "
             + (found["reason"] or "on") + f"; lanes: {found['lanes']}",
             f"{'domain':<6}{'calls':>12}{'tiny_allocs':>13}"
             f"{'larger_allocs':>14}{'fallback':>10}{'foreign_frees':>14}"
             f"{'limit_refusals':>15}"]
    for name in ("obj", "mem", "raw"):
        domain = found[name]
        fallback = sum(domain["fallback_" + reason]
                       for reason in ("large", "memory", "off"))
        lines.append(f"{name:<6}{domain['calls']:>12}"
                     f"{domain['tiny_allocs']:>13}"
                     f"{domain['larger_allocs']:>14}{fallback:>10}"
                     f"{domain['foreign_frees']:>14}"
                     f"{domain['limit_refusals']:>15}")
    lines.append(f"MB: live {found['live_bytes'] / 2**20:.2f}, peak"
                 f" {found['peak_bytes'] / 2**20:.2f}, held"
                 f" {found['held_bytes'] / 2**20:.1f}, resident"
                 f" {found['resident_bytes'] / 2**20:.1f}, purged"
                 f" {found['purged_bytes'] / 2**20:.1f}")
    if found["guards"] or found["guards_missed"]:
        lines.append(f"guards: {found['guards']} blocks guarded,"
                     f" {found['guards_missed']} missed: no room")
    if found["limit"] is not None:
        lines.append(f"limit of {found['limit_of']}:"
                     f" {found['limit'] / 2**20:.1f} MB")
    print("\n".join(lines), file=sys.stderr, flush=True)


def autostart(arguments):
    from hakmem_py import _autostart
    if arguments not in (["on"], ["off"]):
        fail("--autostart takes one word, on or off")
    try:
        getattr(_autostart, arguments[0])()
    except _autostart.Failed as failed:
        fail(failed, 1)


def compare(program):
    from hakmem_py import _compare
    try:
        sys.exit(_compare.compare(program))
    except _compare.Failed as failed:
        fail(failed, 1)


def check_program(arguments):
    """Ends the process unless these name a program."""
    if not arguments:
        fail(f"no program given\n{USAGE}")
    if arguments[0] in ("-m", "-c"):
        if len(arguments) < 2:
            fail(f"{arguments[0]} needs an argument")
    elif arguments[0].startswith("-"):
        fail(f"unknown option {arguments[0]}\n{USAGE}")


def options_of(arguments):
    """(whether -v is given, --profile's file or None, the rest)."""
    verbose = path = None
    while arguments:
        if arguments[0] in ("-v", "--verbose"):
            verbose, arguments = True, arguments[1:]
        elif arguments[0] == "--profile":
            if len(arguments) < 2:
                fail("--profile needs the name of a file")
            path, arguments = arguments[1], arguments[2:]
        elif arguments[0].startswith("--profile="):
            path, arguments = arguments[0][len("--profile="):], arguments[1:]
        else:
            break
    return verbose, path, arguments


def _profile_is_off():
    """Whether HAKMEM is to have no part in this run."""
    return not hakmem_py.enabled and \
        hakmem_py.reason.startswith("HAKMEM_PYTHON=off")


def profile(path):
    """A profile of all of the program."""
    from hakmem_py import _profile
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        fail(f"--profile {path}: there is no folder {folder}")
    try:
        _profile.AtExit("--profile", path, loud=True)
    except (ValueError, RuntimeError) as error:
        fail(f"--profile {path}: {str(error).partition('profile: ')[2]}")


def main(arguments):
    verbose, path, arguments = options_of(arguments)
    first = arguments[0] if arguments else None
    if first in ("-h", "--help"):
        print(USAGE, settings(), sep="\n\n")
        return
    if first == "--version":
        print(f"hakmem_py {hakmem_py.__version__}")
        return
    if first == "--autostart":
        autostart(arguments[1:])
        return
    check_program(arguments[1:] if first == "--compare" else arguments)
    if first == "--compare":
        if path is not None:
            fail("--profile and --compare: only one of them")
        compare(arguments[1:])
    if not hakmem_py.enabled and os.environ.get("HAKMEM_PYTHON") != "off":
        print(f"{NAME}: not on HAKMEM: {hakmem_py.reason}", file=sys.stderr)
    if verbose:
        atexit.register(print_stats)
    if path is not None and _profile_is_off():
        print(f"{NAME}: HAKMEM_PYTHON=off: there will be no profile",
              file=sys.stderr)
    elif path is not None:
        profile(path)
    _program.main(NAME, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
