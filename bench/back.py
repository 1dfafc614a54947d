#!/usr/bin/env python3
"""How much of the memory that they have freed processes keep, side by side.

    bench/back.py [--build DIR] [--peer NAME=LIBRARY]... [--sets SET,...]
                  [--only NAME,...] [--jobs N] [--rounds N] [--quick]
                  [--ours FILE] [--check]
    bench/back.py --draw CSV

Runs bench_back (its head says what it does) under LD_PRELOAD on HAKMEM, its
hardened build, glibc, jemalloc (with a background thread and a decay of 1 s) and
mimalloc, Debian's or those that --peer names, and looks from outside at the
resident size of each process while it sleeps. Prints a table for each set:

    peak    300 MB of blocks, seven sizes, freed in order and at random, by one
            thread, by eight, by a worker while their maker sleeps
    turns   20 and 200 threads take turns with 60 MB
    ended   2,000 and 5,000 threads have ended
    sparse  2M small objects, 90 % freed
    redis   redis-server after FLUSHALL
    again   peak and sleep 3 s, 20 times: faults and processor time, beside
            HAKMEM that keeps everything (HAKMEM_PURGE_DELAY)
    curve   resident memory over 20 s, the picture

Writes all measurements to DIR/bench/back.csv, the curve to back-curve.csv and its
picture to back.svg beside it; --draw makes the picture again. What HAKMEM is
meant to stay below is marked where it does not; --check makes that a failure.
The whole takes 20 to 30 minutes, most of them asleep.
"""
import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import back_report
import bench

JEMALLOC = "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0"
KEPT = "hakmem, kept"
KEEP = {"HAKMEM_PURGE_DELAY": "3600000"}  # the most it takes
SETS = ["peak", "turns", "ended", "sparse", "redis", "again", "curve"]
SIZES = [16, 64, 200, 2000, 20000, 100000, 3000000]
AGAIN_SIZES = [64, 2000, 100000]
QUICK_SIZES = [64, 2000, 100000]
SECONDS_MAX = 300
REDIS_KEYS = 600_000
STEP = 0.05  # seconds between two looks at a curve
FIGURE = re.compile(r"(\w+)=(\d+)")


@dataclasses.dataclass(frozen=True)
class Allocator:
    """A library to preload, and the environment it wants."""
    name: str
    preload: str
    settings: tuple = ()

    def environment(self, **more):
        """What a program on it sees."""
        return bench.environment(self.preload) | dict(self.settings) | more


@dataclasses.dataclass(frozen=True)
class Case:
    """A row: bench_back's arguments, when to look, the MB to stay below then,
    and how many threads are the program's own."""
    group: str
    name: str
    command: tuple
    at: tuple
    aims: tuple = ()
    threads: int = 0
    first: str = "freed_kb"  # what stands before those


def cases(quick):
    """All rows of processes that fall asleep."""
    who = {"one": 1, "eight": 9, "worker": 2}
    for size in QUICK_SIZES if quick else SIZES:
        for name, threads in who.items():
            for order in ["order"] if quick else ["order", "random"]:
                yield Case("peak", f"{size:,} B, {name}, {order}",
                           ("peak", str(size), name, order), (2, 4),
                           (None, 20, 10), threads)
    for threads in [20] if quick else [20, 200]:
        for most in 160, 8192:
            for whose in "own", "other":
                yield Case("turns", f"{threads} threads, to {most:,} B, {whose}",
                           ("turns", str(threads), str(most), whose), (3,),
                           (100, 15), threads + 1, "most_kb")
    for threads in [2000] if quick else [2000, 5000]:
        yield Case("ended", f"{threads:,} threads", ("ended", str(threads)),
                   (1, 2), (), 1)
    for which in "runs", "random":
        yield Case("sparse", f"90 % freed, {which}", ("sparse", which), (2, 4),
                   (), 1)


# ---- a process, seen from outside --------------------------------------------


def resident_kb(pid):
    """Its resident size."""
    text = pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def look(pid, began, at):
    """The resident size at each of these seconds."""
    found = []
    for second in at:
        time.sleep(max(0, began + second - time.monotonic()))
        found.append(resident_kb(pid))
    return found


def start(command, who, **more):
    """The process; whoever starts it ends it, or a timer does."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=who.environment(**more))
    except OSError as error:
        sys.exit(f"back.py: '{shlex.join(command)}' can't be run: {error};"
                 " run 'make bench-back'")
    timer = threading.Timer(SECONDS_MAX, process.kill)
    timer.daemon = True
    timer.start()
    return process, timer


def fails(command, who, why):
    """The program ends with a line that tells how to see it again."""
    raise RuntimeError(f"{why}; by hand: LD_PRELOAD={who.preload}"
                       f" {shlex.join(command)}")


def asleep(args, case, who):
    """The row's figures on an allocator: {name: value}."""
    command = [str(args.program), *case.command]
    process, timer = start(command, who)
    with process:
        line = process.stdout.readline()
        began = time.monotonic()
        found = {name: int(value) for name, value in FIGURE.findall(line)}
        if case.first in found:
            kb = look(process.pid, began, case.at)
            found |= {f"kb_{at}s": value for at, value in zip(case.at, kb)}
            tasks = len(os.listdir(f"/proc/{process.pid}/task"))
            found["threads"] = tasks - case.threads
        process.stdin.close()
    timer.cancel()
    if process.returncode or "threads" not in found:
        fails(command, who, f"status {process.returncode}, '{line.strip()}'")
    return found


def to_its_end(args, what, who, **more):
    """What a run prints at its end."""
    command = [str(args.program), *what]
    process, timer = start(command, who, **more)
    with process:
        said = process.stdout.read()
    timer.cancel()
    found = {name: int(value) for name, value in FIGURE.findall(said)}
    if process.returncode or not found:
        fails(command, who, f"status {process.returncode}, '{said.strip()}'")
    return found


def curve(args, who):
    """[(second, KB)] over the run."""
    command = [str(args.program), "curve"]
    process, timer = start(command, who)
    began, points = time.monotonic(), []
    with process:
        while process.poll() is None:
            try:
                points.append((time.monotonic() - began,
                               resident_kb(process.pid)))
            except (OSError, IndexError):
                break
            time.sleep(STEP)
    timer.cancel()
    if process.returncode:
        fails(command, who, f"status {process.returncode}")
    return [point for point in points if point[1] > 0]


# ---- redis -----------------------------------------------------------------------


def ask(connection, count, commands):
    """Sends commands and waits for as many answers, which are a line each."""
    threading.Thread(target=connection.sendall, args=(commands,),
                     daemon=True).start()
    while count > 0:
        said = connection.recv(1 << 16)
        if not said or b"-ERR" in said:
            raise RuntimeError(f"redis-server said {said[:80]!r}")
        count -= said.count(b"\n")


def connect(path, process):
    """To the server, when it is there."""
    for _ in range(100):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(path)
                return connection.detach()
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.1)
    raise RuntimeError("redis-server did not start")


def redis(who):
    """Resident KB of a server, full and after FLUSHALL."""
    # Debian's is linked with jemalloc: glibc's malloc must be put before it.
    if not who.preload:
        who = dataclasses.replace(who, preload="libc.so.6")
    with tempfile.TemporaryDirectory() as work:
        path = f"{work}/socket"
        process, timer = start(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", "",
             "--dir", work, "--logfile", f"{work}/log"], who)
        with process:
            try:
                with socket.socket(fileno=connect(path, process)) as connection:
                    value = "v" * 100
                    ask(connection, REDIS_KEYS, "".join(
                        f"SET key:{i:08} {value}\r\n"
                        for i in range(REDIS_KEYS)).encode())
                    found = {"full_kb": resident_kb(process.pid)}
                    ask(connection, 1, b"FLUSHALL\r\n")
                    began = time.monotonic()
                    found["freed_kb"] = resident_kb(process.pid)
                    kb = look(process.pid, began, (2, 4))
                    return found | {"kb_2s": kb[0], "kb_4s": kb[1]}
            finally:
                process.kill()
                timer.cancel()


# ---- the sets ---------------------------------------------------------------------


class Bench:
    """The runs: figures[case name, allocator name] = {name: value}."""

    def __init__(self, args, whom):
        self.args = args
        self.whom = whom
        self.report = back_report.Report([who.name for who in whom])
        self.failed = []

    def every(self, group, jobs, job):
        """Runs job(row, allocator) for all, some at a time; keeps figures."""
        # Thousands of threads may take 10 GB.
        at_once = 1 if group == "ended" else self.args.jobs
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            runs = [(row, who, pool.submit(job, row, who)) for row, who in jobs]
            for row, who, run in runs:
                try:
                    self.report.add(group, row, who.name, run.result())
                except (RuntimeError, OSError) as error:
                    self.failed.append(f"{row.name} on {who.name}: {error}")

    def run_asleep(self, group):
        """Rows of processes that fall asleep."""
        rows = [case for case in cases(self.args.quick) if case.group == group]
        self.every(group, [(row, who) for row in rows for who in self.whom],
                   lambda row, who: asleep(self.args, row, who))

    def run_redis(self):
        """One row."""
        if shutil.which("redis-server") is None:
            print("\nredis: left out, there is no redis-server; run 'make"
                  " install-deps'")
            return
        row = Case("redis", f"{REDIS_KEYS:,} keys, FLUSHALL", (), (2, 4),
                   (None, 20, 20))
        self.every("redis", [(row, who) for who in self.whom],
                   lambda row, who: redis(who))

    def run_again(self):
        """At once, but one at work at a time; HAKMEM that keeps all as well."""
        rounds = str(self.args.rounds)
        whom = self.whom + [Allocator(KEPT, who.preload, tuple(KEEP.items()))
                            for who in self.whom if who.name == "hakmem"]
        page = to_its_end(self.args, ("faults", rounds), Allocator("", ""))
        self.report.page_us = page["cpu_us"] / page["faults"]
        self.report.rounds = self.args.rounds
        for size in AGAIN_SIZES:
            row = Case("again", f"{size:,} B", (), ())
            with tempfile.NamedTemporaryFile() as lock, \
                    concurrent.futures.ThreadPoolExecutor(len(whom)) as pool:
                runs = [(who, pool.submit(
                    to_its_end, self.args, ("again", str(size), rounds), who,
                    BENCH_LOCK=lock.name)) for who in whom]
                for who, run in runs:
                    try:
                        self.report.add("again", row, who.name, run.result())
                    except RuntimeError as error:
                        self.failed.append(f"{row.name} on {who.name}: {error}")

    def run_curve(self, head):
        """The picture."""
        row = Case("curve", "curve", (), ())
        points = {}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = [(who, pool.submit(curve, self.args, who))
                    for who in self.whom if who.name != "hardened"]
            for who, run in runs:
                try:
                    points[who.name] = run.result()
                except RuntimeError as error:
                    self.failed.append(f"{row.name} on {who.name}: {error}")
        path = self.args.build / "bench" / "back-curve.csv"
        back_report.write_curve(path, points, head)
        back_report.draw(path, self.args.build / "bench" / "back.svg")

    def run(self, name, head):
        """A set, by name."""
        if name == "curve":
            self.run_curve(head)
        elif name in ("redis", "again"):
            getattr(self, f"run_{name}")()
        else:
            self.run_asleep(name)
        self.report.print(name)


# ---- the command line --------------------------------------------------------------


def names(known):
    """A type of argument: some of these."""
    def parse(text):
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"'{name}' is none of: {', '.join(known)}")
        return text.split(",")
    return parse


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="freed memory, side by side")
    parser.add_argument("--build", type=pathlib.Path,
                        default=bench.ROOT / "build" / "release")
    parser.add_argument("--peer", action="append", default=[],
                        metavar="NAME=LIBRARY",
                        help="one more, or in the place of Debian's")
    parser.add_argument("--sets", type=names(SETS), default=SETS)
    parser.add_argument("--only", type=lambda text: text.split(","),
                        metavar="NAME,...", help="only these allocators")
    parser.add_argument("--jobs", type=int, default=4,
                        help="processes at a time; default 4")
    parser.add_argument("--rounds", type=int,
                        help="of the set again; default 20, --quick 5")
    parser.add_argument("--quick", action="store_true",
                        help="fewer rows, a tenth of the time")
    parser.add_argument("--ours", type=pathlib.Path, metavar="FILE",
                        help="the library in HAKMEM's place; then no hardened")
    parser.add_argument("--check", action="store_true",
                        help="fail if HAKMEM is above what is meant")
    parser.add_argument("--draw", type=pathlib.Path, metavar="CSV",
                        help="only make the picture of a curve's CSV file")
    args = parser.parse_args()
    args.rounds = args.rounds or (5 if args.quick else 20)
    if args.jobs < 1 or args.rounds < 2:
        parser.error("--jobs is 1 or more, --rounds 2 or more")
    if any("=" not in peer for peer in args.peer):
        parser.error("--peer is NAME=LIBRARY")
    args.build = args.build.resolve()
    args.program = args.build / "bench" / "bench_back"
    return args


def contestants(args):
    """Ours, hardened if it is there, glibc, the peers."""
    ours = args.ours or args.build / "libhakmem.so"
    hardened = args.build.with_name(args.build.name + "-hardened") / ours.name
    if not ours.exists():
        sys.exit(f"back.py: there is no {ours}; run 'make bench-back'")
    peers = {peer.name: peer.preload for peer in bench.PEERS
             if peer.name in ("glibc", "jemalloc", "mimalloc")}
    for name, _, library in (text.partition("=") for text in args.peer):
        peers[name] = library
    whom = [Allocator("hakmem", str(ours.resolve()))]
    if hardened.exists() and not args.ours:
        whom.append(Allocator("hardened", str(hardened)))
    for name, library in peers.items():
        whom.append(Allocator(name, library, (("MALLOC_CONF", JEMALLOC),)
                              if name.startswith("jemalloc") else ()))
    if args.only:
        names([who.name for who in whom])(",".join(args.only))
        whom = [who for who in whom if who.name in args.only]
    return whom


def check_preload(args, who):
    """Where malloc comes from and its version; ends the program if not there."""
    command = [str(args.program), "who"]
    done = subprocess.run(command, env=who.environment(), check=True,
                          capture_output=True, text=True)
    path, _, version = done.stdout.strip().partition(" ")
    if who.preload and os.path.basename(path) != os.path.basename(who.preload):
        sys.exit(f"back.py: {who.preload} was preloaded, but malloc comes from"
                 f" {path}; run 'make install-deps' or see to --peer")
    return f"{who.name} {version}".strip()


def main():
    args = arguments()
    if args.draw:
        back_report.draw(args.draw, args.draw.with_name("back.svg"))
        return
    try:
        whom = contestants(args)
    except argparse.ArgumentTypeError as error:
        sys.exit(f"back.py: --only: {error}")
    if not args.program.exists():
        sys.exit(f"back.py: there is no {args.program}; run 'make bench-back'")
    head = [f"machine: {bench.machine()}", f"commit: {bench.commit()}",
            "allocators: " + ", ".join(check_preload(args, who)
                                       for who in whom),
            f"command: {shlex.join(sys.argv)}"]
    print("\n".join(head), flush=True)
    runs = Bench(args, whom)
    for name in args.sets:
        began = time.monotonic()
        runs.run(name, head)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    path = args.build / "bench" / "back.csv"
    runs.report.write_csv(path, head)
    print(f"\nall measurements: {path}")
    above = runs.report.above()
    if above:
        print("\nhakmem is above what is meant:\n  " + "\n  ".join(above))
    if runs.failed:
        sys.exit("\nfailed:\n  " + "\n  ".join(runs.failed))
    if above and args.check:
        sys.exit(1)


if __name__ == "__main__":
    main()
