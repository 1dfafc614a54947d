#!/usr/bin/env python3
"""random_mixed on every allocator, interleaved; prints medians of ratios.

    bench/bench.py [--build DIR] [--rounds N] [--scale X]

A round runs every allocator once per setting, in an order that rotates from
round to round; ratios are taken within a round and the median of the rounds
is printed, so that a slow minute of the machine hits both sides. The last row
of each table is HAKMEM beside a second run of itself: what it is off from
1.00 is noise. All runs are pinned to one processor. Every single run goes to
DIR/bench/random_mixed.csv.
"""
import argparse
import csv
import os
import pathlib
import platform
import re
import shlex
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ["system", "mimalloc", "jemalloc", "tcmalloc"]
AGAIN = "hakmem again"
SEED = 42
MODES = ["mixed", "replace"]
# slots: operations a run
SETTINGS = {256: 20_000_000, 4096: 20_000_000, 200_000: 10_000_000}

PEAK = re.compile(r"^Peak = (\d+) KB, minor faults = (\d+)$", re.M)
THROUGHPUT = re.compile(r"^Throughput = (\d+) ops/s$", re.M)
COLUMNS = ["slots", "mode", "round", "allocator", "ops", "seed", "ns_per_op",
           "peak_kb", "minor_faults"]


def machine():
    """Processor, number of them, kernel: one line."""
    model = platform.machine()
    try:
        found = re.search(r"^model name\s*: (.*)$",
                          pathlib.Path("/proc/cpuinfo").read_text(), re.M)
        model = found[1] if found else model
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} processors, {platform.release()}"


def commit():
    """The commit that was built, with + if files have changed since."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, check=True,
            capture_output=True, text=True).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, check=True,
            capture_output=True, text=True).stdout
        return name + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def pin():
    """Runs this process and its children on the last processor it may use."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def program(build, allocator):
    """The program of one allocator."""
    return build / "bench" / f"bench_random_mixed_{allocator.split()[0]}"


def run(build, allocator, ops, slots, mode):
    """One run: (nanoseconds per operation, peak KB, minor faults)."""
    command = [str(program(build, allocator)), str(ops), str(slots),
               str(SEED), mode]
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("HAKMEM_", "MIMALLOC_", "MALLOC_",
                                   "TCMALLOC_", "LD_PRELOAD"))}
    done = subprocess.run(command, env=env, check=False, text=True,
                          stdout=subprocess.PIPE)
    peak = PEAK.search(done.stdout)
    throughput = THROUGHPUT.search(done.stdout)
    if done.returncode or not peak or not throughput:
        sys.exit(f"bench.py: '{shlex.join(command)}' failed (status"
                 f" {done.returncode}); run it by hand to see why")
    return 1e9 / int(throughput[1]), int(peak[1]), int(peak[2])


def measure(args):
    """All runs, as rows in the order of COLUMNS."""
    allocators = ["hakmem", *PEERS, AGAIN]
    rows = []
    for turn in range(args.rounds):
        for slots, ops in SETTINGS.items():
            ops = max(1, int(ops * args.scale))
            for mode in MODES:
                for at in range(len(allocators)):
                    name = allocators[(at + turn) % len(allocators)]
                    figures = run(args.build, name, ops, slots, mode)
                    rows.append([slots, mode, turn, name, ops, SEED, *figures])
        if sys.stderr.isatty():
            print(f"\rround {turn + 1} of {args.rounds}", end="",
                  file=sys.stderr)
    if sys.stderr.isatty():
        print("\r" + " " * 24 + "\r", end="", file=sys.stderr)
    return rows


def column(rows, slots, mode, name, figure):
    """One figure of an allocator in a setting, a value a round."""
    at = COLUMNS.index(figure)
    return [row[at] for row in rows if row[:2] == [slots, mode]
            and row[3] == name]


def print_table(rows, slots, mode):
    """Times, memory and faults of every allocator in one setting."""
    def figures(name, figure):
        return column(rows, slots, mode, name, figure)

    print(f"\n{slots} slots, {mode}")
    print(f"  {'':<13}{'ns/op':>8}{'hakmem/it':>11}{'from..to':>14}"
          f"{'peak KB':>10}{'faults':>9}")
    ours = figures("hakmem", "ns_per_op")
    for name in ["hakmem", *PEERS, AGAIN]:
        times = figures(name, "ns_per_op")
        ratios = [a / b for a, b in zip(ours, times)]
        ratio = f"{statistics.median(ratios):.2f}"
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
        if name == "hakmem":
            ratio = spread = ""
        print(f"  {name:<13}{statistics.median(times):>8.2f}{ratio:>11}"
              f"{spread:>14}"
              f"{statistics.median(figures(name, 'peak_kb')):>10.0f}"
              f"{statistics.median(figures(name, 'minor_faults')):>9.0f}")


def write_csv(path, rows, head):
    """Every run, under comment lines that say where and how."""
    with path.open("w", newline="") as file:
        for line in head:
            file.write(f"# {line}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([*row[:6], f"{row[6]:.4f}", *row[7:]])


def main():
    parser = argparse.ArgumentParser(description="random_mixed, side by side")
    parser.add_argument("--build", type=pathlib.Path,
                        default=ROOT / "build" / "release")
    parser.add_argument("--rounds", type=int, default=7,
                        help="at least 5; default 7")
    parser.add_argument("--scale", type=float, default=1.0,
                        help="multiplies the operations of a run")
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error("--rounds must be 5 or more, or medians mean little")
    for name in ["hakmem", *PEERS]:
        if not program(args.build, name).exists():
            sys.exit(f"bench.py: no {program(args.build, name)}; run"
                     " 'make bench'")
    pin()
    head = [f"machine: {machine()}", f"commit: {commit()}",
            f"command: {shlex.join(sys.argv)}"]
    print("\n".join(head), flush=True)
    rows = measure(args)
    for slots in SETTINGS:
        for mode in MODES:
            print_table(rows, slots, mode)
    path = args.build / "bench" / "random_mixed.csv"
    write_csv(path, rows, head)
    print(f"\nmedians of {args.rounds} rounds; every run: {path}")


if __name__ == "__main__":
    main()
