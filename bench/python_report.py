#!/usr/bin/env python3
"""python_report.py - Python programs under several allocators, side by side.

Two groups of programs: bench/python/steady, whose memory stays much as it
is, and bench/python/growing, where it grows and shrinks. Every run is a
process of its own, pinned to one processor, with the same hash seed; in each
round every allocator runs the program once, in an order that rotates. A round
gives one ratio to stock (pymalloc) per allocator, the table the median of the
rounds; `again` is stock a second time (A/A: what it is off from 1.00 is
noise). Time is the process's CPU time, from its start to its end. All must
print the same.

    python_report.py            both groups (about 10 minutes)
    python_report.py --quick    stock and hakmem on some (about 20 seconds)
    python_report.py --insn     instructions per round of a program
    python_report.py --memory   memory that goes back, children of a fork

Uses nothing but Python's own library and, for --insn, valgrind.
"""
import argparse
import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time

import bench
import lua_report
from lua_report import Failed, Table, blank, geometric_mean, rotated

HERE = pathlib.Path(__file__).resolve().parent
RUN = HERE / "python" / "run.py"
GROUPS = {"steady": "steady", "growing": "growing and shrinking"}

STOCK = "pymalloc"
# An allocator's name -> what is put into the environment.
ALLOCATORS = {
    STOCK: {},
    "hakmem": {},
    "all": {"HAKMEM_PYTHON_LANES": "all"},
    "unsealed": {"HAKMEM_PYTHON_SEAL": "off"},
    "malloc": {"PYTHONMALLOC": "malloc"},
    "mimalloc": {"PYTHONMALLOC": "malloc", "LD_PRELOAD": "libmimalloc.so.2"},
    "jemalloc": {"PYTHONMALLOC": "malloc", "LD_PRELOAD": "libjemalloc.so.2"},
    "again": {},
}
OURS = ("hakmem", "all", "unsealed")

QUICK = ["deepcopy", "json_small", "objects", "orm", "dicts", "json_big",
         "strings", "trees"]
INSN = ["json_small", "csv_rows", "listcomps", "objects", "trees"]
MEMORY = {
    "give_back": [],
    "fork_children": [],
    "fork_children --freeze": ["--freeze"],
    "fork_children --freeze --idle": ["--freeze", "--idle"],
}
# Milliseconds until free memory goes back, where valgrind makes everything
# but the clock 50 times as slow.
SLOW_DELAY = "50000"
LIMIT = 300  # seconds for a run


# ---- one run ----------------------------------------------------------------

def environment(options, allocator):
    """Ours without what steers an allocator or Python, and what belongs to
    this allocator."""
    env = {name: value for name, value in bench.environment("").items()
           if not name.startswith("PYTHON")}
    env["PYTHONHASHSEED"] = "0"
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    if allocator in OURS:
        env["PYTHONPATH"] = str(options.hook)
    env.update(ALLOCATORS[allocator])
    return env


def command(options, allocator, path, arguments):
    how = "hakmem" if allocator in OURS else "plain"
    return [options.python, str(RUN), how, str(path), *arguments]


def by_hand(options, allocator, path, arguments):
    """The line to type for a run."""
    given = {**ALLOCATORS[allocator], "PYTHONHASHSEED": "0"}
    if allocator in OURS:
        given["PYTHONPATH"] = str(options.hook)
    return " ".join([f"{name}={value}" for name, value in given.items()]
                    + [shlex.join(command(options, allocator, path,
                                          arguments))])


def run(options, allocator, path, arguments=()):
    """(what it printed, {cpu, faults, peak_kb, ...})."""
    child = subprocess.Popen(
        command(options, allocator, path, arguments), text=True,
        env=environment(options, allocator), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    os.sched_setaffinity(child.pid, {options.cpu})
    text = child.stdout.read()
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    said, _, last = text.rstrip("\n").rpartition("\n")
    if child.returncode != 0 or not last.startswith("peak_kb="):
        raise Failed(f"{path.stem} on {allocator} ended with "
                     f"{child.returncode}: {text.strip()[-300:]}\nby hand: "
                     + by_hand(options, allocator, path, arguments))
    figures = {name: float(value)
               for name, value in lua_report.fields(last).items()}
    figures["cpu"] = usage.ru_utime + usage.ru_stime
    figures["faults"] = usage.ru_minflt
    return said, figures


# ---- one program ------------------------------------------------------------

def one_round(options, path, turn):
    """{allocator: figures}; all must have printed the same."""
    said, figures = {}, {}
    for allocator in rotated(options.allocators, turn):
        said[allocator], figures[allocator] = run(options, allocator, path)
    lua_report.agree(path.stem, said)
    return figures


def row(allocator, rounds):
    """What the tables need of one allocator."""
    mine = [figures[allocator] for figures in rounds]
    ratios = [figures[allocator]["cpu"] / figures[STOCK]["cpu"]
              for figures in rounds]
    found = {key: statistics.median(figures[key] for figures in mine)
             for key in mine[0]}
    found["ms"] = 1000 * found.pop("cpu")
    found.update(ratio=statistics.median(ratios), low=min(ratios),
                 high=max(ratios))
    return found


def measure(options, path):
    rounds, began = [], time.monotonic()
    for turn in range(options.rounds):
        rounds.append(one_round(options, path, turn))
        if options.quick and time.monotonic() - began > 6:
            break
    return {name: row(name, rounds) for name in options.allocators}


# ---- tables -----------------------------------------------------------------

def per_stock(name, key):
    def cell(figures):
        return f"{figures[name][key] / figures[STOCK][key]:.3f}"

    def mean(report):
        return f"""{geometric_mean([f[name][key] / f[STOCK][key]
                                    for f in report.values()]):.3f}"""
    return cell, mean


def time_column(name):
    return (name, 10, lambda f: f"{f[name]['ratio']:.3f}",
            lambda report: f"""{geometric_mean(
                [f[name]['ratio'] for f in report.values()]):.3f}""")


def share(figures, key):
    ours = figures["hakmem"]
    return f"{ours[key] / ours['calls']:.2%}"


def quick_table():
    def peak(figures):
        stock, ours = figures[STOCK], figures["hakmem"]
        return f"{stock['peak_kb'] / 1024:.0f} / {ours['peak_kb'] / 1024:.0f}"
    return Table([
        ("stock ms", 10, lambda f: f"{f[STOCK]['ms']:.0f}", blank),
        ("hakmem ms", 11, lambda f: f"{f['hakmem']['ms']:.0f}", blank),
        ("ratio", 8, *time_column("hakmem")[2:]),
        ("peak MB s / h", 15, peak, per_stock("hakmem", "peak_kb")[1]),
        ("faults", 9, *per_stock("hakmem", "faults")),
        ("by Tiny", 9, lambda f: share(f, "tiny"), blank),
        ("by others", 11, lambda f: share(f, "larger"), blank),
        ("fallback", 10, lambda f: f"{f['hakmem']['fallback']:.0f}", blank),
    ])


def full_table(allocators):
    others = [name for name in allocators if name != STOCK]
    columns = [("stock ms", 10, lambda f: f"{f[STOCK]['ms']:.0f}", blank)]
    columns += [time_column(name) for name in others]
    columns += [("peak " + name[:3], 9, *per_stock(name, "peak_kb"))
                for name in others if name != "again"]
    columns += [("flt " + name[:3], 8, *per_stock(name, "faults"))
                for name in others if name in OURS]
    return Table(columns)


def lines(report, group):
    for name, rows in report.items():
        for allocator, figures in rows.items():
            yield {"group": group, "program": name, "allocator": allocator,
                   **{key: f"{value:.6g}" for key, value in figures.items()}}


def where(options):
    print(f"{bench.machine()}, commit {bench.commit()}, Python "
          f"{options.version}")


def timing(options):
    where(options)
    table = quick_table() if options.quick else full_table(options.allocators)
    written = []
    for group, title in GROUPS.items():
        paths = [path for path in programs(group)
                 if path.stem in options.programs]
        if not paths:
            continue
        print(f"\n{title}:")
        table.head()
        report = {}
        for path in paths:
            report[path.stem] = measure(options, path)
            table.line(path.stem, report[path.stem])
        table.last(report)
        written += lines(report, group)
    print("\nTimes are CPU time; ratios are to stock (pymalloc), below 1 is"
          " faster or less.\nPeak: resident memory; faults (flt): minor page"
          " faults.")
    if options.quick:
        print("By Tiny, by others: share of the requests that HAKMEM's lanes"
              " served;\nfallback: requests that the system served.")
    return written


# ---- instructions -----------------------------------------------------------

COLLECTED = re.compile(r"Collected : (\d+)")


def instructions_of(options, allocator, path, rounds):
    """Of a whole run, by callgrind."""
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
         *command(options, allocator, path, [str(rounds)])],
        env={**environment(options, allocator),
             "HAKMEM_PURGE_DELAY": SLOW_DELAY}, text=True,
        capture_output=True, check=False)
    found = COLLECTED.search(done.stderr)
    if done.returncode != 0 or not found:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"{path.stem} on {allocator}: valgrind failed: {last}")
    return int(found[1])


def insn_program(options, path):
    """Instructions of a round of the program: three rounds less one."""
    return {name: {"instructions":
                   (instructions_of(options, name, path, 3)
                    - instructions_of(options, name, path, 1)) / 2}
            for name in options.allocators}


def instructions(options):
    where(options)
    others = [name for name in options.allocators if name != STOCK]
    table = Table(
        [("stock, millions", 17,
          lambda f: f"{f[STOCK]['instructions'] / 1e6:.3f}", blank)]
        + [(name, 10, *per_stock(name, "instructions")) for name in others])
    table.head()
    report = {}
    for path in programs("steady") + programs("growing"):
        if path.stem in options.programs:
            report[path.stem] = insn_program(options, path)
            table.line(path.stem, report[path.stem])
    table.last(report)
    print("Instructions of one round of the program, all of Python included;"
          " ratios to stock.")
    return list(lines(report, "instructions"))


# ---- memory -----------------------------------------------------------------

def memory(options):
    """The programs of bench/python/memory, each once per allocator."""
    where(options)
    written = []
    for title, arguments in MEMORY.items():
        path = HERE / "python" / "memory" / (title.split()[0] + ".py")
        print(f"\n{title}:")
        for allocator in options.allocators:
            said, _ = run(options, allocator, path, arguments)
            figures = lua_report.fields(said.replace("\n", " "))
            print(f"  {allocator:<10}" + "  ".join(
                f"{name} {value}" for name, value in figures.items()),
                flush=True)
            written.append({"group": "memory", "program": title,
                            "allocator": allocator, **figures})
    print("\nMB resident: full, the least within 3 s after nine tenths were"
          " deleted (tenth)\nand after all were (none). Of a fork: private MB"
          " and page faults, the mean of\nfour children.")
    return written


# ---- the command line -------------------------------------------------------

def programs(group):
    return sorted((HERE / "python" / group).glob("*.py"))


def arguments():
    parser = argparse.ArgumentParser(
        description="Python programs under several allocators")
    parser.add_argument("--hook", type=pathlib.Path, required=True,
                        help="the directory that holds hakmem_py")
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--quick", action="store_true",
                        help="stock and hakmem on some programs")
    parser.add_argument("--insn", action="store_true",
                        help="instructions, by callgrind")
    parser.add_argument("--memory", action="store_true",
                        help="memory that goes back, children of a fork")
    parser.add_argument("--csv", metavar="FILE", help="write the measurements there")
    parser.add_argument("--programs", help="some, separated by commas")
    parser.add_argument("--allocators", help=STOCK + " and some of: "
                        + ",".join(name for name in ALLOCATORS
                                   if name != STOCK))
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--cpu", type=int, help="the processor to pin to")
    return parser.parse_args()


def there(options, allocator):
    """Whether the library that it preloads is."""
    library = ALLOCATORS[allocator].get("LD_PRELOAD")
    if library is None:
        return True
    maps = subprocess.run(
        [options.python, "-c", "print(open('/proc/self/maps').read())"],
        env=environment(options, allocator), text=True, capture_output=True,
        check=False).stdout
    return library.removesuffix(".2") in maps


def choose_allocators(options):
    if options.quick:
        standard = [STOCK, "hakmem"]
    elif options.insn:
        standard = [STOCK, "hakmem", "all"]
    elif options.memory:
        standard = [STOCK, "hakmem", "unsealed", "all", "malloc", "mimalloc",
                    "jemalloc"]
    else:
        standard = [STOCK, "hakmem", "all", "malloc", "mimalloc",
                    "jemalloc", "again"]
    names = lua_report.chosen(options.allocators, ALLOCATORS, standard,
                              "allocator")
    if STOCK not in names:
        names.insert(0, STOCK)
    for name in list(names):
        if not there(options, name):
            print(f"Note: no {ALLOCATORS[name]['LD_PRELOAD']}, its column is"
                  " left out (make install-deps).")
            names.remove(name)
    return names


def complete(options):
    """Fills in what the command line left open."""
    options.hook = options.hook.resolve()
    if not (options.hook / "hakmem_py").is_dir():
        raise Failed(f"there is no hakmem_py in {options.hook}: run 'make"
                     " python', or name another with --hook")
    if not shutil.which(options.python):
        raise Failed(f"there is no {options.python}: name one with --python")
    options.version = subprocess.run(
        [options.python, "-c",
         "import platform; print(platform.python_version())"],
        check=True, text=True, capture_output=True).stdout.strip()
    options.allocators = choose_allocators(options)
    if options.quick and options.allocators != [STOCK, "hakmem"]:
        raise Failed("--quick shows stock and hakmem: leave --allocators out")
    known = [path.stem for group in GROUPS for path in programs(group)]
    options.programs = lua_report.chosen(
        options.programs, known, QUICK if options.quick else
        INSN if options.insn else known, "program")
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.cpu = lua_report.processor(options.cpu)


def main():
    try:
        options = arguments()
        complete(options)
        work = instructions if options.insn else \
            memory if options.memory else timing
        written = work(options)
        if options.csv:
            lua_report.save(options.csv, written)
            print(f"figures: {options.csv}")
    except Failed as failure:
        sys.exit(f"python_report: {failure}")
    except FileNotFoundError as missing:
        sys.exit(f"python_report: {missing.filename} is not installed")


if __name__ == "__main__":
    main()
