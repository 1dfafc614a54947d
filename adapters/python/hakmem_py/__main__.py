"""python -m hakmem_py: runs a program on HAKMEM, compares, switches."""
import atexit
import os
import sys

import hakmem_py
from hakmem_py import _program

NAME = "python -m hakmem_py"
USAGE = f"""\
usage: {NAME} [-v] script.py [argument...]
       {NAME} [-v] -m module [argument...]
       {NAME} [-v] -c code [argument...]
       {NAME} --compare script.py|-m module|-c code [argument...]
       {NAME} --autostart on|off
       {NAME} --version

Runs a Python program with its objects on HAKMEM.
  -v           say at exit, on standard error, who served what
  --compare    run it with and without HAKMEM: time, memory, page faults
  --autostart  on: every start of this Python environment is on HAKMEM
               (a .pth file in its site-packages); off: no longer

Settings: HAKMEM_PYTHON=off|obj|mem|raw|all|default, which of Python's
allocator domains; HAKMEM_PYTHON_LANES=tiny|all|default, which sizes."""


def fail(text, status=2):
    print(f"{NAME}: {text}", file=sys.stderr)
    sys.exit(status)


def print_stats():
    """The figures, at exit."""
    found = hakmem_py.stats()
    lines = [f"hakmem_py {hakmem_py.__version__}: "
             + (found["reason"] or "on") + f"; lanes: {found['lanes']}",
             f"{'domain':<8}{'requests':>12}{'Tiny':>12}{'larger':>10}"
             f"{'fallback':>10}{'foreign':>10}"]
    for name in ("obj", "mem", "raw"):
        domain = found[name]
        lines.append(f"{name:<8}{domain['calls']:>12}{domain['tiny']:>12}"
                     f"{domain['larger']:>10}"
                     f"{sum(domain['fallback'].values()):>10}"
                     f"{domain['foreign']:>10}")
    lines.append(f"live {found['live_bytes'] / 2**20:.2f} MB, peak"
                 f" {found['peak_bytes'] / 2**20:.2f} MB, resident"
                 f" {found['resident_bytes'] / 2**20:.1f} MB, given back"
                 f" {found['returned_bytes'] / 2**20:.1f} MB")
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


def main(arguments):
    verbose = False
    while arguments and arguments[0] in ("-v", "--verbose"):
        verbose, arguments = True, arguments[1:]
    first = arguments[0] if arguments else None
    if first in ("-h", "--help"):
        print(USAGE)
        return
    if first == "--version":
        print(f"hakmem_py {hakmem_py.__version__}")
        return
    if first == "--autostart":
        autostart(arguments[1:])
        return
    check_program(arguments[1:] if first == "--compare" else arguments)
    if first == "--compare":
        compare(arguments[1:])
    if not hakmem_py.enabled and os.environ.get("HAKMEM_PYTHON") != "off":
        print(f"{NAME}: not on HAKMEM: {hakmem_py.reason}", file=sys.stderr)
    if verbose:
        atexit.register(print_stats)
    _program.main(NAME, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
