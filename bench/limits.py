#!/usr/bin/env python3
"""How allocators behave under limits on address space and on locked memory.

    bench/limits.py [--build DIR] [--peer NAME=LIBRARY]... [--limits MB,...]
                    [--full] [--python PYTHON]

Runs bench_limits on HAKMEM and on others (Debian's mimalloc and jemalloc, or
those that --peer names) under LD_PRELOAD: RLIMIT_AS set before the start, and
by the program itself when it has allocated a little. Prints how many MB malloc
gave, beside glibc, and what else failed when all of it was freed again; the
sizes of a small process; mlockall. Then Python programs that run out of memory
(limits_python.py) on HAKMEM and without it. Blocks of 100 B above 2 GB are left
out unless --full: they take minutes. Every run goes to DIR/bench/limits.csv.
"""
import argparse
import os
import pathlib
import resource
import shlex
import subprocess
import sys

import bench

MB = 1 << 20
LIMITS = [64, 128, 192, 256, 512, 1024, 1536, 2048, 4096, 8192]
SIZES = {"100 B": "100", "10 KB": "10240", "100 KB": "102400", "1 MB": "1048576",
         "1.2 MB": "1258291", "10 MB": "10485760", "random": "random"}
SMALL_MOST = 2048  # MB of 100 B
WHEN = ["before", "later"]
AFTERWARDS = ["thread", "popen", "dlopen", "mmap", "stack"]
ENOMEM = "12"
PROGRAMS = ["list", "bytearray", "bytes", "json", "threads", "subprocess"]
PYTHON_LIMITS = [256, 1024, 4096]
SECONDS_MAX = 600


def limiter(mb):
    """Sets the limit in a child before it becomes the program."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (mb * MB,) * 2)


def run(command, preload, extra=None, limit=None):
    """(status, last line as a dictionary, standard error)."""
    try:
        done = subprocess.run(
            command, env=bench.environment(preload) | (extra or {}), text=True,
            capture_output=True, check=False, timeout=SECONDS_MAX,
            preexec_fn=limiter(limit) if limit else None)
    except subprocess.TimeoutExpired:
        return "timeout", [], ""
    except OSError as error:
        sys.exit(f"limits.py: '{shlex.join(command)}' can't be run: {error};"
                 " run 'make bench-limits'")
    lines = [dict(word.split("=", 1) for word in line.split() if "=" in word)
             for line in done.stdout.splitlines()]
    return done.returncode, lines, done.stderr


class Table:
    """The runs of "fill": how much, and what went wrong."""

    def __init__(self, program, whom):
        self.program = program
        self.whom = whom
        self.got = {}
        self.wrong = {}

    def measure(self, limits, full):
        """Every limit, size, time and allocator."""
        for when in WHEN:
            for limit in limits:
                for name, size in SIZES.items():
                    if name != "100 B" or limit <= SMALL_MOST or full:
                        for peer in self.whom:
                            self.one(when, limit, name, size, peer)

    def one(self, when, limit, name, size, peer):
        """One run."""
        before = when == "before"
        command = [self.program, "fill", "0" if before else str(limit), size]
        status, lines, said = run(command, peer.preload,
                                  limit=limit if before else None)
        key = when, limit, name, peer.name
        found = lines[-1] if lines else {}
        wrong = [what for what in AFTERWARDS if found.get(what) != "ok"]
        if "mb" in found and found.get("errno") != ENOMEM:
            wrong.append("errno " + found["errno"])
        if "mb" not in found:
            wrong = ["start"]
        elif status:
            wrong.append(f"status {status}")
        if said:
            wrong.append("said: " + said.strip().splitlines()[0])
        self.got[key] = int(found.get("mb", 0))
        self.wrong[key] = wrong

    def print_got(self):
        """How many MB, a line for each limit and size."""
        for when in WHEN:
            print(f"\nMB that malloc gave; the limit was set {when}"
                  " (*: something failed afterwards)\n")
            print(f"  {'limit':>6} {'size':<8}"
                  + "".join(f"{peer.name:>18}" for peer in self.whom))
            for key in [key for key in self.got
                        if key[0] == when and key[3] == self.whom[0].name]:
                cells = [f"{self.got[*key[:3], peer.name]}"
                         f"{'*' if self.wrong[*key[:3], peer.name] else ' '}"
                         for peer in self.whom]
                print(f"  {key[1]:>6} {key[2]:<8}"
                      + "".join(f"{cell:>18}" for cell in cells))

    def print_short(self):
        """A line for each allocator."""
        print("\nof all of them: MB less than glibc at the worst, below 1 GB"
              " and above (%); runs in which something failed\n")
        print(f"  {'':<18}{'runs':>6}{'worst MB':>10}{'worst %':>9}{'start':>7}"
              + "".join(f"{what:>8}" for what in AFTERWARDS) + f"{'errno':>7}")
        for peer in self.whom:
            keys = [key for key in self.got if key[3] == peer.name]
            less = [(key[1], self.got[*key[:3], "glibc"] - self.got[key])
                    for key in keys if (*key[:3], "glibc") in self.got]
            small = max((n for limit, n in less if limit < 1024), default=0)
            large = max((100 * n / limit for limit, n in less if limit >= 1024),
                        default=0)
            wrong = [self.wrong[key] for key in keys]
            counts = [sum(what in one for one in wrong)
                      for what in ["start", *AFTERWARDS]]
            errno = sum(any(what.startswith("errno") for what in one)
                        for one in wrong)
            print(f"  {peer.name:<18}{len(keys):>6}{small:>10}{large:>9.1f}"
                  f"{counts[0]:>7}"
                  + "".join(f"{count:>8}" for count in counts[1:])
                  + f"{errno:>7}")

    def rows(self):
        """For the CSV file."""
        for key, got in self.got.items():
            yield [*map(str, key), str(got), "; ".join(self.wrong[key])]


def print_small(program, whom):
    """A small process, and mlockall."""
    print("\na small process, and mlockall(MCL_CURRENT | MCL_FUTURE): KB\n")
    print(f"  {'':<18}{'VmSize':>9}{'VmRSS':>8}{'locked: VmRSS':>15}"
          f"{'10 MB more, a thread':>22}{'a user with a limit':>28}")
    for peer in whom:
        idle = (run([program, "idle"], peer.preload)[1] or [{}])[-1]
        root, user = ([line for line in lines if "what" in line]
                      for lines in (run([program, *how], peer.preload)[1]
                                    for how in (["lock"], ["lock", "user"])))
        said = "/".join(line["what"] for line in user) or "not tried"
        print(f"  {peer.name:<18}{idle.get('vm_kb', '?'):>9}"
              f"{idle.get('rss_kb', '?'):>8}"
              f"{root[0]['rss_kb'] if root else '?':>15}"
              f"{root[-1]['rss_kb'] if root else '?':>22}{said:>28}")


def python_runs(args, ours):
    """(name, library, environment, module) of each way to run Python."""
    version = subprocess.run(
        [args.python, "-c", "import platform as p; print(p.python_version())"],
        check=True, capture_output=True, text=True).stdout.strip()
    ways = [("stock", "", {}, []), ("preloaded", ours, {}, [])]
    module = args.build / f"python-{version}"
    if module.exists():
        ways.append(("hakmem_py", "", {"PYTHONPATH": str(module)},
                     ["hakmem_py"]))
    else:
        print(f"\nthere is no {module}: no hakmem_py; run 'make python"
              f" PYTHON={args.python}'")
    return ways


def print_python(args, ours):
    """Python programs: the same outcome, and how much they got."""
    program = str(pathlib.Path(__file__).with_name("limits_python.py"))
    ways = python_runs(args, ours)
    same = True
    print("\nPython programs that run out of memory and go on: MB they had"
          " (!: another outcome than without HAKMEM)\n")
    print(f"  {'':<12}{'limit':>6}" + "".join(f"{way[0]:>12}" for way in ways))
    for name in PROGRAMS:
        for limit in PYTHON_LIMITS:
            outcomes = []
            for _, preload, extra, modules in ways:
                done = subprocess.run(
                    [args.python, program, str(limit), name, *modules],
                    env=bench.environment(preload) | extra, check=False,
                    capture_output=True, text=True, timeout=SECONDS_MAX)
                text, _, mb = done.stdout.partition("# ")
                outcomes.append(((text, done.stderr, done.returncode),
                                 mb.strip() or "?"))
            marks = ["" if outcome == outcomes[0][0] else "!"
                     for outcome, _ in outcomes]
            same = same and not any(marks)
            print(f"  {name:<12}{limit:>6}"
                  + "".join(f"{mb + mark:>12}" for (_, mb), mark
                            in zip(outcomes, marks)), flush=True)
    return same


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="limits, side by side")
    parser.add_argument("--build", type=pathlib.Path,
                        default=bench.ROOT / "build" / "release")
    parser.add_argument("--peer", action="append", metavar="NAME=LIBRARY",
                        help="in the place of Debian's mimalloc and jemalloc")
    parser.add_argument("--limits", default=LIMITS, metavar="MB,...",
                        type=lambda text: [int(mb) for mb in text.split(",")])
    parser.add_argument("--full", action="store_true",
                        help="blocks of 100 B up to the largest limit")
    parser.add_argument("--python", default="/usr/bin/python3")
    args = parser.parse_args()
    args.build = args.build.resolve()
    return args


def contestants(args, ours):
    """glibc, ours, the peers."""
    peers = [peer for peer in bench.PEERS if peer.name in ("mimalloc",
                                                           "jemalloc")]
    if args.peer:
        peers = [bench.Allocator(name, library, None) for name, _, library
                 in (text.partition("=") for text in args.peer)]
    return [bench.PEERS[0], bench.Allocator("hakmem", ours, None), *peers]


def main():
    args = arguments()
    ours = str((args.build / "libhakmem.so").resolve())
    program = str(args.build / "bench" / "bench_limits")
    head = [f"machine: {bench.machine()}", f"commit: {bench.commit()}",
            f"command: {shlex.join(sys.argv)}"]
    print("\n".join(head), flush=True)
    whom = contestants(args, ours)
    table = Table(program, whom)
    table.measure(args.limits, args.full)
    table.print_got()
    table.print_short()
    print_small(program, whom)
    path = args.build / "bench" / "limits.csv"
    os.makedirs(path.parent, exist_ok=True)
    path.write_text("".join(f"# {line}\n" for line in head)
                    + "set,limit_mb,size,allocator,mb,failed\n"
                    + "".join(",".join(word.replace(",", ":") for word in row)
                              + "\n" for row in table.rows()))
    same = print_python(args, ours)
    print(f"\n{path}")
    if not same:
        sys.exit("limits.py: a Python program ended otherwise")


if __name__ == "__main__":
    main()
