#!/usr/bin/env python3
"""Runs the examples: each on the C library, on HAKMEM, and into a limit.

    examples/run.py [--insn] [--left-out NAME]... PROGRAM...

The last line is "N passed, N failed". With --insn it then prints a table:
instructions under callgrind and the most memory that was resident, on the C
library and on HAKMEM, programs in turn.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

MODES = ("libc", "hakmem", "limit")
SECONDS = 120  # for a run; under callgrind ten times that


def run(program, mode, work):
    """(exit status, what it said) of one run."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([program, mode], cwd=work, stdout=said,
                                 stderr=subprocess.STDOUT)
        try:
            child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        said.seek(0)
        return child.returncode, said.read().decode(errors="replace")


def peak_mb(program, mode, work):
    """The most of one run that was resident, in MB."""
    return int(re.search(r"resident=(\d+)", run(program, mode, work)[1])[1]) / 1024


def instructions(program, mode, work):
    said = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
         program, mode], cwd=work, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, timeout=10 * SECONDS, text=True,
        check=True).stderr
    return int(re.search(r"Collected : (\d+)", said)[1])


def problem(mode, status, said):
    """What is wrong with a run, or None."""
    if status is None or status < 0:
        return f"ended by signal {-status}" if status else "did not end"
    if status != 0:
        return f"exit status {status}"
    if mode == "limit" and "refus" in said and not re.search(
            r"refus\w+=[1-9]", said):
        return "the limit refused nothing"
    if mode == "hakmem" and "blocks=0" in said:
        return "HAKMEM served nothing"
    return None


def check(programs, left_out, work):
    passed, failed = 0, 0
    for name in left_out:
        print(f"{name}: left out, its library's header is not installed")
    for program in programs:
        for mode in MODES:
            status, said = run(program, mode, work)
            wrong = problem(mode, status, said)
            passed += wrong is None
            failed += wrong is not None
            if wrong is not None:
                print(f"{program.name} {mode}: {wrong}; it said:\n{said}")
    print(f"{passed} passed, {failed} failed", flush=True)
    return failed == 0


def table(programs, work):
    print("\n| program | instructions, millions: C library | HAKMEM | ratio |"
          " peak MB: C library | HAKMEM |\n|---|---|---|---|---|---|")
    for program in programs:
        libc, ours = (instructions(program, mode, work) / 1e6
                      for mode in MODES[:2])
        peaks = [peak_mb(program, mode, work) for mode in MODES[:2]]
        print(f"| {program.name} | {libc:,.0f} | {ours:,.0f} |"
              f" {ours / libc:.2f} | {peaks[0]:.1f} | {peaks[1]:.1f} |",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--insn", action="store_true")
    parser.add_argument("--left-out", action="append", default=[])
    parser.add_argument("programs", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    programs = [path.resolve() for path in args.programs]
    with tempfile.TemporaryDirectory() as work:
        good = check(programs, args.left_out, work)
        if args.insn and good:
            table(programs, work)
    return 0 if good else 1


sys.exit(main())
