#!/usr/bin/env python3
"""Replays the traces of `make traces` on several allocators: `make bench-traces`.

    bench/traces_report.py [--build DIR] [--rounds N] [--programs REGEX]
                           [--peer NAME=FILE]...

For each trace every allocator has its turn in each round, in changing order.
Prints a table of median times and peaks, and geometric means of the ratios;
writes every run to DIR/bench/traces.csv. Peers are Debian's; --peer takes another
library for one of them, or one more.
"""
import argparse
import csv
import json
import pathlib
import re
import statistics
import subprocess
import sys

import bench
from bench_report import geometric_mean, text

PEERS = ("glibc", "mimalloc", "jemalloc", "tcmalloc")
FIGURES = ("time_us", "cpu_us", "faults", "peak_kb", "end_kb")


def label_of(library):
    """What `hakmem replay` calls the library of that path."""
    return pathlib.Path(library).name.split(".so")[0]


def replay(build, trace, libraries, rounds):
    """{name: runs} of one trace."""
    command = [str(build / "hakmem"), "replay", "--json", "--runs",
               str(rounds), "--with", ",".join(libraries.values()), str(trace)]
    done = subprocess.run(command, env=bench.environment(""),
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"traces_report.py: {trace.name}: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    return said["trace"], {
        name: said["runs"][label_of(library) if "/" in library else library]
        for name, library in libraries.items()}


def write_csv(path, rows, head):
    with path.open("w", newline="") as file:
        for line in head:
            file.write(f"# {line}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trace", "round", "allocator", "operations",
                         *FIGURES])
        writer.writerows(rows)


def median(runs, figure):
    return statistics.median(run[figure] for run in runs)


def ratios(found, name, other, figure):
    """Of each trace, the median of the rounds' ratios."""
    return [statistics.median(
        ours[figure] / max(theirs[figure], 1)
        for ours, theirs in zip(runs[name], runs[other]))
            for _, runs in found.values()]


def table(found, names):
    """Markdown: ms and MB."""
    lines = ["| trace | operations | " + " | ".join(names) + " | peak MB: "
             + " / ".join(names) + " |", "|" + "---|" * (len(names) + 3)]
    for trace, (totals, runs) in found.items():
        times = " | ".join(f"{median(runs[name], 'time_us') / 1e3:.1f}"
                           for name in names)
        peaks = " / ".join(f"{median(runs[name], 'peak_kb') / 1024:.1f}"
                           for name in names)
        lines.append(f"| {trace} | {totals['operations']:,} | {times} |"
                     f" {peaks} |")
    return "\n".join(lines)


def means(found, names):
    """HAKMEM's geometric means to each other allocator."""
    lines = ["| HAKMEM's mean to | " + " | ".join(names[1:]) + " |",
             "|" + "---|" * len(names)]
    for title, figure in (("time", "time_us"), ("CPU time", "cpu_us"),
                          ("peak", "peak_kb")):
        cells = [text(geometric_mean([max(ratio, 1e-6) for ratio in ratios(
            found, "hakmem", other, figure)])) for other in names[1:]]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def peer(word):
    name, equals, library = word.partition("=")
    if not equals or not pathlib.Path(library).is_file():
        raise argparse.ArgumentTypeError(f"'{word}' is not NAME=FILE")
    return name, str(pathlib.Path(library).resolve())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path,
                        default=bench.ROOT / "build" / "release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--programs", default=".", metavar="REGEX")
    parser.add_argument("--peer", type=peer, action="append", default=[])
    chosen = parser.parse_args()
    build = chosen.build.resolve()
    libraries = {"hakmem": "hakmem", **{name: name for name in PEERS},
                 **dict(chosen.peer)}
    traces = [path for path in sorted((build / "traces").glob("*.trace"))
              if re.search(chosen.programs, path.stem)]
    if not traces:
        sys.exit(f"traces_report.py: no trace in {build / 'traces'} is"
                 f" '{chosen.programs}'; run 'make traces'")
    found, rows = {}, []
    for trace in traces:
        totals, runs = replay(build, trace, libraries, chosen.rounds)
        found[trace.stem] = totals, runs
        rows += [[trace.stem, turn, name, totals["operations"],
                  *(run[figure] for figure in FIGURES)]
                 for name, of_it in runs.items()
                 for turn, run in enumerate(of_it)]
        print(f"  {trace.stem}", file=sys.stderr, flush=True)
    names = list(libraries)
    head = [bench.machine(), f"commit {bench.commit()}",
            *(f"{name}: {library}" for name, library in libraries.items()
              if "/" in library)]
    path = build / "bench" / "traces.csv"
    path.parent.mkdir(exist_ok=True)
    write_csv(path, rows, head)
    print(f"{head[0]}, {head[1]}; ms, medians of {chosen.rounds} rounds\n")
    print(table(found, names) + "\n\n" + means(found, names))
    print(f"\nevery run: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
