#!/usr/bin/env python3
"""Every benchmark row on every allocator, side by side.

    bench/bench.py [--build DIR] [--rows REGEX] [--rounds N] [--quick]
                   [--peers DIR] [--peer NAME=LIBRARY]...

The rows are those of bench_malloc and random_mixed's, run under LD_PRELOAD.
Peers are Debian's, or what bench/peers has built in --peers, or what --peer
names; a line says which. The machine's memory is touched first. A round runs
every row once on every allocator, in random order. Ratios are taken within a
round and the median of the rounds is printed, so that a slow minute of the
machine hits both sides. "again" is HAKMEM a second time: what it is off from
1.00 is noise. Rows of one thread are pinned to one processor. Prints tables
and what follows from them: means, rows won and lost; writes every run to
DIR/bench/bench.csv, the table in Markdown to DIR/bench/bench.md and a picture
to DIR/bench/bench.svg.
"""
import argparse
import dataclasses
import os
import pathlib
import platform
import random
import re
import shlex
import subprocess
import sys
import time

import bench_report

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEED = 42
MODES = ["mixed", "replace"]
# random_mixed, slots: operations a run
SETTINGS = {256: 20_000_000, 4096: 20_000_000, 200_000: 10_000_000}
QUICK = 5  # --quick divides the work by this
SECONDS_MAX = 120  # a run that takes longer has failed

REPORT = re.compile(r"^ops=\d+ ns_per_op=([\d.]+) peak_kb=(\d+)"
                    r" minor_faults=(\d+)(?: p99_ns=(\d+) p999_ns=(\d+))?$",
                    re.M)
PEAK = re.compile(r"^Peak = (\d+) KB, minor faults = (\d+)$", re.M)
THROUGHPUT = re.compile(r"^Throughput = (\d+) ops/s$", re.M)


@dataclasses.dataclass(frozen=True)
class Allocator:
    """A library to preload; none: glibc itself.

    built: where bench/peers leaves it, below a folder of the peer's name; a peer
    without a Debian library is there only if it was built.
    """
    name: str
    preload: str
    built: str = ""


PEERS = [Allocator("glibc", ""),
         Allocator("mimalloc", "libmimalloc.so.2", "out/libmimalloc.so"),
         Allocator("jemalloc", "libjemalloc.so.2", "lib/libjemalloc.so.2"),
         Allocator("tcmalloc", "libtcmalloc_minimal.so.4",
                   ".libs/libtcmalloc_minimal.so"),
         Allocator("snmalloc", "", "out/libsnmallocshim.so"),
         Allocator("rpmalloc", "", "out/librpmalloc.so")]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of bench_malloc or, with slots, of random_mixed."""
    name: str
    threads: int = 1
    slots: int = 0
    mode: str = ""

    def command(self, build, divisor):
        """What to run, with the allocator preloaded."""
        if self.slots:
            return [program(build, "system"),
                    str(SETTINGS[self.slots] // divisor), str(self.slots),
                    str(SEED), self.mode]
        return [str(build / "bench" / "bench_malloc"), self.name, str(divisor)]

    def figures(self, output):
        """What a run printed, as Run has it. None: not the lines."""
        if not self.slots:
            found = REPORT.search(output)
            return found and (float(found[1]), *map(int, found.group(2, 3)),
                              *(int(p or 0) for p in found.group(4, 5)))
        peak, speed = PEAK.search(output), THROUGHPUT.search(output)
        return peak and speed and (1e9 / int(speed[1]), int(peak[1]),
                                   int(peak[2]), 0, 0)


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


def program(build, allocator):
    """random_mixed, linked to one allocator."""
    return str(build / "bench" / f"bench_random_mixed_{allocator}")


def environment(preload):
    """Ours without what steers an allocator."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("HAKMEM_", "MIMALLOC_", "MALLOC_",
                                   "TCMALLOC_", "GLIBC_TUNABLES",
                                   "LD_PRELOAD"))}
    if preload:
        env["LD_PRELOAD"] = preload
    return env


def bench_malloc(build, what, preload=""):
    """What bench_malloc prints when asked for `what`."""
    command = [str(build / "bench" / "bench_malloc"), what]
    try:
        return subprocess.run(command, env=environment(preload), check=True,
                              capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench.py: '{shlex.join(command)}' failed"
                 f" (LD_PRELOAD={preload}): {error}; run 'make bench'")


def all_rows(build):
    """The rows of bench_malloc, then random_mixed's."""
    rows = []
    for line in bench_malloc(build, "list").splitlines():
        name, threads = line.split()
        rows.append(Row(name, int(threads)))
    for slots in SETTINGS:
        for mode in MODES:
            rows.append(Row(f"random-{mode}-{slots}", 1, slots, mode))
    return rows


def check_preload(build, allocator):
    """Ends the program unless malloc comes from where it should."""
    if allocator.preload:
        found = bench_malloc(build, "who", allocator.preload).strip()
        wanted = os.path.basename(allocator.preload)
        if os.path.basename(found) != wanted:
            sys.exit(f"bench.py: {allocator.preload} was preloaded, but"
                     f" malloc comes from {found}; run 'make install-deps',"
                     " or build the library anew")


def peers(args):
    """The peers to run: of --peer, of --peers, Debian's; in this order."""
    given, found = dict(args.peer), []
    for peer in PEERS:
        built = args.peers and args.peers / peer.name / peer.built
        if peer.name in given:
            preload = given[peer.name]
        elif peer.built and built and built.exists():
            preload = str(built.resolve())
        else:
            preload = peer.preload
        if preload or peer.name == "glibc":
            found.append(dataclasses.replace(peer, preload=preload))
    return found


def provenance(peer):
    """Which build of a peer runs: its library, and its folder's commit."""
    if not peer.preload:
        return f"{peer.name}: {' '.join(platform.libc_ver())}"
    if "/" not in peer.preload:
        return f"{peer.name}: {peer.preload}, the system's"
    folder = pathlib.Path(peer.preload).parent
    try:
        tag = subprocess.run(["git", "describe", "--tags", "--always"],
                             cwd=folder, check=True, capture_output=True,
                             text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        tag = "no git"
    return f"{peer.name}: {peer.preload} ({tag})"


def peer_library(text):
    """NAME=LIBRARY of the command line."""
    name, _, library = text.partition("=")
    known = [peer.name for peer in PEERS if peer.built]
    if name not in known:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not NAME=LIBRARY with NAME one of"
            f" {', '.join(known)}")
    if not os.path.isfile(library):
        raise argparse.ArgumentTypeError(f"there is no file '{library}'")
    return name, os.path.abspath(library)


def peers_folder(text):
    """The folder of --peers."""
    folder = pathlib.Path(text)
    if not any((folder / peer.name / peer.built).exists()
               for peer in PEERS if peer.built):
        raise argparse.ArgumentTypeError(
            f"no peer is built in '{text}'; run 'bench/peers {text}'")
    return folder.resolve()


def allocators(args):
    """Whom to run: ours, the peers, ours again, ours hardened."""
    ours = args.ours or args.build / "libhakmem.so"
    if not ours.exists():
        sys.exit(f"bench.py: there is no {ours}; run 'make bench'")
    preload = str(ours.resolve())
    found = [Allocator("hakmem", preload), *peers(args),
             Allocator("again", preload)]
    hardened = args.hardened or args.build.with_name(
        args.build.name + "-hardened") / "libhakmem.so"
    if hardened.exists():
        found.append(Allocator("hardened", str(hardened.resolve())))
    else:
        print(f"there is no {hardened}: no hardened hakmem")
    for allocator in found:
        check_preload(args.build, allocator)
    return found


def pin(processors, threads):
    """Runs what is started from now on on one processor, or on all."""
    os.sched_setaffinity(0, {max(processors)} if threads == 1 else processors)


def run(row, command, preload):
    """One run: (ns, peak, faults), or why there is none."""
    try:
        done = subprocess.run(command, env=environment(preload), check=False,
                              capture_output=True, text=True,
                              timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return f"took more than {SECONDS_MAX} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"status {done.returncode}, {last}"
    return row.figures(done.stdout) or "did not print its figures"


def measure(args, rows, whom):
    """All runs, and why a row failed on an allocator.

    What failed once is not run again, and its runs are left out.
    """
    runs, failed = [], {}
    bench_malloc(args.build, "warm")
    processors = os.sched_getaffinity(0)
    for turn in range(args.rounds):
        began = time.monotonic()
        for row in rows:
            pin(processors, row.threads)
            # What ran before decides which pages the machine has at hand.
            for allocator in random.sample(whom, len(whom)):
                if (row.name, allocator.name) in failed:
                    continue
                command = row.command(args.build, args.divisor)
                figures = run(row, command, allocator.preload)
                by_hand = f"LD_PRELOAD={allocator.preload} {shlex.join(command)}"
                if isinstance(figures, str):
                    failed[row.name, allocator.name] = (
                        f"{row.name} on {allocator.name}: {figures}; by hand:"
                        f" {by_hand}")
                    continue
                runs.append(bench_report.Run(
                    row.name, turn, allocator.name, *figures,
                    by_hand))
        print(f"round {turn + 1} of {args.rounds}:"
              f" {time.monotonic() - began:.0f} s", file=sys.stderr)
    os.sched_setaffinity(0, processors)
    return [run for run in runs
            if (run.row, run.allocator) not in failed], failed


def pattern(text):
    """A regular expression of the command line."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}': {error}") from error


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="malloc, side by side")
    parser.add_argument("--build", type=pathlib.Path,
                        default=ROOT / "build" / "release")
    parser.add_argument("--rows", type=pattern, default=re.compile(""),
                        metavar="REGEX", help="only rows whose name matches")
    parser.add_argument("--rounds", type=int, default=5,
                        help="default 5; fewer show whether rows run at all")
    parser.add_argument("--quick", dest="divisor", action="store_const",
                        const=QUICK, default=1,
                        help=f"a {QUICK}th of the work; more noise")
    parser.add_argument("--peers", type=peers_folder, metavar="DIR",
                        help="peers that bench/peers has built there")
    parser.add_argument("--peer", action="append", default=[],
                        type=peer_library, metavar="NAME=LIBRARY",
                        help="in the place of Debian's library of that name")
    parser.add_argument("--ours", type=pathlib.Path, metavar="FILE",
                        help="the library in HAKMEM's place; default"
                        " BUILD/libhakmem.so")
    parser.add_argument("--hardened", type=pathlib.Path, metavar="FILE",
                        help="its hardened build; default"
                        " BUILD-hardened/libhakmem.so")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be 1 or more; a table needs 5")
    args.build = args.build.resolve()
    if not os.path.exists(program(args.build, "system")):
        sys.exit(f"bench.py: no {program(args.build, 'system')}; run"
                 " 'make bench'")
    return args


def main():
    args = arguments()
    head = [f"machine: {machine()}", f"commit: {commit()}",
            f"command: {shlex.join(sys.argv)}"]
    print("\n".join(head), flush=True)
    known = all_rows(args.build)
    rows = [row for row in known if args.rows.search(row.name)]
    if not rows:
        sys.exit(f"bench.py: no row matches '{args.rows.pattern}'; there are "
                 + " ".join(row.name for row in known))
    whom = allocators(args)
    named = [peer for peer in whom
             if peer.name not in ("hakmem", "again", "hardened")]
    head += [provenance(peer) for peer in named]
    print("\n".join(head[3:]), flush=True)
    runs, failed = measure(args, rows, whom)
    report = bench_report.Report(runs, [row.name for row in rows],
                                 [peer.name for peer in named])
    report.print_all()
    directory = args.build / "bench"
    bench_report.write_csv(directory / "bench.csv", runs, head)
    report.write_markdown(directory / "bench.md", head)
    report.draw(directory / "bench.svg", head)
    print(f"\nmedians of {args.rounds} rounds; every run:"
          f" {directory / 'bench.csv'}")
    if failed:
        sys.exit("\nfailed:\n  " + "\n  ".join(failed.values()))


if __name__ == "__main__":
    main()
