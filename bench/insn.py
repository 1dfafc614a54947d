#!/usr/bin/env python3
"""Instructions per operation of random_mixed, without those of the loop.

    bench/insn.py [--build DIR] [--ops N] [--slots N]

Callgrind counts a run of N operations and one of 2N; the difference over N is
free of start and end. The count of the program "none" is subtracted: the same
loop, the same bytes written, calls of two functions that do nothing (three
instructions a pair). Prints a table and writes DIR/bench/insn.csv.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys

import bench

COLLECTED = re.compile(r"Collected : (\d+)")
ALLOCATORS = ["hakmem", "mimalloc", "system", "jemalloc", "tcmalloc"]


def count(args, allocator, ops, mode):
    """Instructions of one whole run."""
    command = ["valgrind", "--tool=callgrind",
               "--callgrind-out-file=/dev/null",
               bench.program(args.build, allocator), str(ops),
               str(args.slots), str(bench.SEED), mode]
    try:
        done = subprocess.run(command, check=False, text=True,
                              stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
    except FileNotFoundError:
        sys.exit("insn.py: valgrind is not installed; run 'make"
                 " install-deps'")
    found = COLLECTED.search(done.stderr)
    if done.returncode or not found:
        sys.exit(f"insn.py: '{' '.join(command)}' failed (status"
                 f" {done.returncode}):\n{done.stderr}")
    return int(found[1])


def per_op(args, allocator, mode):
    """Instructions that one more operation takes, the loop's included."""
    return (count(args, allocator, 2 * args.ops, mode)
            - count(args, allocator, args.ops, mode)) / args.ops


def main():
    parser = argparse.ArgumentParser(description="instructions an operation")
    parser.add_argument("--build", type=pathlib.Path,
                        default=bench.ROOT / "build" / "release")
    parser.add_argument("--ops", type=int, default=300_000)
    parser.add_argument("--slots", type=int, default=256)
    args = parser.parse_args()
    if args.ops < 1 or args.slots < 1:
        parser.error("--ops and --slots must be 1 or more")
    for name in [*ALLOCATORS, "none"]:
        if not os.path.exists(bench.program(args.build, name)):
            sys.exit(f"insn.py: no {bench.program(args.build, name)}; run"
                     " 'make bench-insn'")

    head = [f"machine: {bench.machine()}", f"commit: {bench.commit()}",
            f"command: {' '.join(sys.argv)}"]
    print("\n".join(head))
    print(f"\ninstructions an operation, {args.slots} slots, loop taken off\n"
          "(mixed: a malloc or a free; replace: a free and a malloc)\n")
    print(f"  {'':<10}{'mixed':>9}{'replace':>9}", flush=True)
    loop = {mode: per_op(args, "none", mode) for mode in bench.MODES}
    lines = []
    for name in ALLOCATORS:
        own = [per_op(args, name, mode) - loop[mode] for mode in bench.MODES]
        print(f"  {name:<10}" + "".join(f"{value:>9.1f}" for value in own),
              flush=True)
        lines.append(",".join([name, *(f"{value:.2f}" for value in own)]))
    print(f"  {'(loop)':<10}"
          + "".join(f"{loop[mode]:>9.1f}" for mode in bench.MODES))

    path = args.build / "bench" / "insn.csv"
    path.write_text("\n".join([*("# " + line for line in head),
                               f"# slots: {args.slots}, ops: {args.ops}",
                               ",".join(["allocator", *bench.MODES]),
                               *lines]) + "\n")
    print(f"\n{path}")


if __name__ == "__main__":
    main()
