#!/usr/bin/env python3
"""Instructions an operation takes, compared with a checked-in table.

    bench/insn_check.py [--build DIR] [--cc COMPILER] [--write]

Callgrind counts rows of bench_malloc on libhakmem.so, once with N operations
and once with 2N; the difference over N is free of start and end (the row's own
loop is in it). A row that takes more than bench/insn.csv says, by more than half
an instruction (5 % where slow paths are in it), is a slower path: the exit
status is 1. One that takes less asks for the table to be written anew (--write), which a change
that is meant to cost something does as well, and says why. Another compiler
counts differently: then nothing is compared, and a line says so.
"""
import argparse
import concurrent.futures
import csv
import os
import pathlib
import platform
import re
import subprocess
import sys

import bench

TABLE = bench.ROOT / "bench" / "insn.csv"
# Rows that take the hot paths alone are exact; in the others a heap looks around
# more or less often in its first milliseconds.
EXACT = re.compile("hot|trees")
EXACT_MORE, PART = 0.5, 0.05
COLLECTED = re.compile(r"Collected : (\d+)")
# A row: the divisors of its work for 2N operations and for N.
ROWS = {"hot-16": (200, 400), "hot-1024": (200, 400), "hot-4096": (100, 200),
        "hot-32768": (100, 200), "hot-262144": (20, 40), "trees": (100, 200),
        "tiny-4096": (50, 100), "ace-64": (10, 20),
        "huge-8": (10, 20), "skewed": (20, 40), "aligned-64": (40, 80),
        "calloc-small": (40, 80)}
# No clock and no other thread has a say in what is counted.
SETTINGS = {"HAKMEM_BACKGROUND_THREAD": "0", "HAKMEM_PURGE_DELAY": "3600000",
            "HAKMEM_HUGE_PAGES": "never", "HAKMEM_SHARE_STATS": "0"}


def compiler(args):
    """What the table was counted with: compiler and processor."""
    try:
        said = subprocess.run([args.cc, "--version"], check=True,
                              capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"insn_check.py: '{args.cc} --version' failed: {error}")
    return re.sub(r"^\S+ ", "", said.splitlines()[0]) + ", " + (
        platform.machine())


def count(args, row, divisor):
    """Instructions and operations of one run."""
    command = ["valgrind", "--tool=callgrind",
               "--callgrind-out-file=/dev/null",
               str(args.build / "bench" / "bench_malloc"), row, str(divisor)]
    preload = [args.build / "libhakmem.so",
               args.build / "bench" / "still_clock.so"]
    env = bench.environment(" ".join(map(str, preload))) | SETTINGS
    try:
        done = subprocess.run(command, check=False, text=True, env=env,
                              capture_output=True)
    except FileNotFoundError:
        sys.exit("insn_check.py: valgrind is not installed; run"
                 " '.ci/install-deps bench'")
    found = COLLECTED.search(done.stderr)
    ops = re.match(r"ops=(\d+) ", done.stdout)
    if done.returncode or not found or not ops:
        sys.exit(f"insn_check.py: '{' '.join(command)}' failed (status"
                 f" {done.returncode}):\n{done.stderr}")
    return int(found[1]), int(ops[1])


def per_op(args, row):
    """Instructions that one more operation takes."""
    (most, ops), (less, fewer) = (count(args, row, divisor)
                                  for divisor in ROWS[row])
    return (most - less) / (ops - fewer)


def read_table():
    """The checked-in table: (compiler, {row: instructions})."""
    lines = TABLE.read_text().splitlines()
    told = [line[2:] for line in lines if line.startswith("# counted with ")]
    rows = csv.DictReader(line for line in lines if line[:1] != "#")
    return (told[0].removeprefix("counted with ") if told else "unknown",
            {row["row"]: float(row["instructions"]) for row in rows})


def write_table(with_what, found):
    TABLE.write_text("\n".join([
        "# Instructions an operation takes; make check-insn compares with it.",
        f"# counted with {with_what}", "row,instructions",
        *(f"{row},{value:.2f}" for row, value in found.items())]) + "\n")


def compare(wanted, found):
    """Prints the rows; returns how many are slower."""
    slower = 0
    print(f"{'':<18}{'table':>9}{'now':>9}")
    for row, now in found.items():
        was = wanted.get(row)
        more = None if was is None else now - was
        limit = EXACT_MORE if EXACT.match(row) else PART * (was or 0)
        if more is None:
            note = "not in the table: run it with --write"
        elif more > limit:
            note = f"slower by {more:.1f}"
        else:
            note = (f"faster by {-more:.1f}: run it with --write"
                    if -more > limit else "")
        slower += more is None or more > limit
        print(f"{row:<18}{'-' if was is None else f'{was:.1f}':>9}"
              f"{now:>9.1f}  {note}".rstrip())
    return slower


def main():
    parser = argparse.ArgumentParser(
        description="instructions an operation, against the table")
    parser.add_argument("--build", type=pathlib.Path,
                        default=bench.ROOT / "build" / "release")
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--write", action="store_true",
                        help=f"write {TABLE.relative_to(bench.ROOT)} anew")
    args = parser.parse_args()
    args.build = args.build.resolve()
    with_what = compiler(args)
    table_of, wanted = read_table() if TABLE.exists() else (with_what, {})
    if with_what != table_of and not args.write:
        print(f"not compared: bench/insn.csv was counted with {table_of},"
              f" this is {with_what}")
        return
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(ROWS, pool.map(lambda row: per_op(args, row), ROWS)))
    slower = compare(wanted, found)
    if args.write:
        write_table(with_what, found)
    elif slower:
        sys.exit(f"insn_check.py: {slower} rows take more instructions than"
                 " bench/insn.csv says; if that is meant, run 'make check-insn"
                 " BENCH_ARGS=--write' and say why in the commit")


if __name__ == "__main__":
    main()
