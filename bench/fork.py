#!/usr/bin/env python3
"""How much memory the workers of a prefork server take, by allocator.

    bench/fork.py [--build DIR] [--mb N] [--children N]

Runs bench_fork under LD_PRELOAD: a parent of N MB (318) of small objects with
holes, and N children (4) that free some of them and allocate; see
bench_fork.c. HAKMEM runs three times: as it is, with HAKMEM_SEAL_FORK=1, and
with hak_seal called in the parent as well. Prints a table, of the child that
needed most, and writes DIR/bench/fork.csv.
"""
import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys

import bench

REPORT = re.compile(r"^idle_kb=(\d+) private_kb=(\d+) kept_kb=(\d+)"
                    r" faults=(\d+) fork_us=(\d+)$", re.M)


def run(args, preload, settings):
    """The figures of a run; None: the library is not there."""
    command = [str(args.build / "bench" / "bench_fork"), str(args.mb),
               str(args.children)]
    try:
        done = subprocess.run(command, check=False, text=True,
                              env=bench.environment(preload) | settings,
                              capture_output=True)
    except OSError as error:
        sys.exit(f"fork.py: '{shlex.join(command)}' can't be run: {error};"
                 " run 'make bench-fork'")
    found = REPORT.search(done.stdout)
    if done.returncode or not found:
        sys.exit(f"fork.py: '{shlex.join(command)}' failed"
                 f" (LD_PRELOAD={preload}, status {done.returncode}):\n"
                 f"{done.stdout}{done.stderr}")
    if "cannot be preloaded" in done.stderr:
        return None
    return [int(value) for value in found.groups()]


def contestants(args):
    """(name, library to preload, environment)."""
    ours = args.build / "libhakmem.so"
    if not ours.exists():
        sys.exit(f"fork.py: no {ours}; run 'make bench-fork'")
    ours = str(ours.resolve())
    seal = {"HAKMEM_SEAL_FORK": "1"}
    return [(peer.name, peer.preload, {}) for peer in bench.PEERS] + [
        ("hakmem", ours, {}), ("hakmem, SEAL_FORK", ours, seal),
        ("hakmem, hak_seal", ours, seal | {"BENCH_SEAL": "1"})]


def main():
    parser = argparse.ArgumentParser(description="memory of forked workers")
    parser.add_argument("--build", type=pathlib.Path,
                        default=bench.ROOT / "build" / "release")
    parser.add_argument("--mb", type=int, default=318)
    parser.add_argument("--children", type=int, default=4)
    args = parser.parse_args()
    if not 1 <= args.mb <= 10000 or not 1 <= args.children <= 100:
        parser.error("--mb is 1 to 10000, --children 1 to 100")

    head = [f"machine: {bench.machine()}", f"commit: {bench.commit()}",
            f"command: {' '.join(sys.argv)}"]
    print("\n".join(head))
    print(f"\na parent of {args.mb} MB with a tenth of its objects freed,"
          f" {args.children} children; MB that a child has to itself\n")
    print(f"  {'':<18}{'idle':>8}{'after work':>12}{'faults':>9}"
          f"{'fork, ms':>10}", flush=True)
    lines = ["allocator,idle_kb,private_kb,kept_kb,faults,fork_us"]
    for name, preload, settings in contestants(args):
        figures = run(args, preload, settings)
        if figures is None:
            print(f"  {name:<18}    (not installed)")
            continue
        idle, private, _kept, faults, fork = figures
        print(f"  {name:<18}{idle / 1024:>8.2f}{private / 1024:>12.1f}"
              f"{faults:>9}{fork / 1000:>10.1f}", flush=True)
        lines.append(",".join([name.replace(",", ":"), *map(str, figures)]))
    print(f"\n  (of it kept by the child: {figures[2] / 1024:.1f})")

    path = args.build / "bench" / "fork.csv"
    os.makedirs(path.parent, exist_ok=True)
    path.write_text("".join(f"# {line}\n" for line in head)
                    + "".join(f"{line}\n" for line in lines))
    print(f"\n{path}")


if __name__ == "__main__":
    main()
