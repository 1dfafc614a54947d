#!/usr/bin/env python3
"""lua_report.py - times bench_lua under several allocators, side by side.

One live process per allocator, and a second one of stock realloc/free as the
A/A row, all pinned to one processor. In every round each runs one unit of
the program, in rotated order; a round gives one ratio to stock per process,
a restart the median of its rounds, the table the median of the restarts.
Within a restart all processes have the same Lua hash seed, the next restart
has another. `grow` runs as whole processes, interleaved.

    lua_report.py              the full table (about 4 minutes)
    lua_report.py --quick      stock and hakmem only (about 20 seconds)
    lua_report.py --insn       instructions per allocator call (callgrind)

Uses nothing but Python's own library, bench_lua and, for --insn, valgrind.
"""

import argparse
import concurrent.futures
import csv
import datetime
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

LIVE = ["binary_trees", "strings", "table_churn", "json", "closures", "ray",
        "lru", "wordfreq", "states", "quiet"]
WHOLE = ["grow"]
INSN = ["binary_trees", "strings", "table_churn", "json", "closures", "lru",
        "wordfreq", "states"]

# A row's name -> the driver's name of the allocator.
ROWS = {"stock": "stock", "hakmem": "hakmem", "tiny": "hakmem-tiny",
        "thread": "hakmem-thread", "mimalloc": "mimalloc", "stock-2": "stock"}
FUNCTIONS = {"stock": "stock_alloc", "mimalloc": "mimalloc_alloc",
             "hakmem": "hak_lua_alloc", "tiny": "hak_lua_alloc",
             "thread": "hak_lua_alloc"}

# Milliseconds until free memory goes back, where callgrind makes everything
# but the clock 50 times as slow.
SLOW_DELAY = "50000"


class Failed(Exception):
    """Something went wrong; the text is for the reader."""


# ---- one process ---------------------------------------------------------

def fields(line):
    """'a=1 b=x' as a dictionary."""
    return dict(part.split("=", 1) for part in line.split() if "=" in part)


def program_argument(program):
    if program == "states":
        return program
    return os.path.join(HERE, "lua", program + ".lua")


class Server:
    """A live bench_lua that runs units when asked to."""

    def __init__(self, options, row, program, seed):
        self.row, self.program = row, program
        self.process = subprocess.Popen(
            [options.bench, "--serve", ROWS[row], program_argument(program),
             str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, bufsize=1)
        os.sched_setaffinity(self.process.pid, {options.cpu})
        self.fingerprint = self.answer()

    def answer(self):
        line = self.process.stdout.readline().strip()
        if not line:
            raise Failed(f"{self.program} under {self.row}: bench_lua ended "
                         "early; its message stands above")
        return line

    def unit(self):
        """Runs a unit; returns its CPU time in ns and its result."""
        self.process.stdin.write("unit 1\n")
        cpu, _, result = self.answer().split(" ", 2)
        return int(cpu), result

    def end(self):
        """Ends the process; returns its summary."""
        self.process.stdin.write("end\n")
        summary = fields(self.answer())
        self.process.stdin.close()
        self.process.wait()
        return summary

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run_whole(options, row, program, seed):
    """Runs one unit in a process of its own: (CPU seconds, summary)."""
    reader, writer = os.pipe()
    arguments = [options.bench, ROWS[row], program_argument(program), "1",
                 str(seed)]
    child = subprocess.Popen(arguments, stdout=writer, preexec_fn=lambda:
                             os.sched_setaffinity(0, {options.cpu}))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise Failed(f"{program} under {row}: bench_lua failed with "
                     f"{child.returncode}; its message stands above")
    summary = fields(text)
    summary["faults"] = usage.ru_minflt
    return usage.ru_utime + usage.ru_stime, summary


# ---- one program ---------------------------------------------------------

def rotated(rows, turn):
    turn %= len(rows)
    return rows[turn:] + rows[:turn]


def agree(program, results):
    """Every allocator must have computed the same."""
    first = next(iter(results.values()))
    for row, result in results.items():
        if result != first:
            raise Failed(f"{program}: {row} computed {result}, others "
                         f"{first}; the allocator or the program is broken")


def live_round(servers, program, turn):
    times, results = {}, {}
    for row in rotated(list(servers), turn):
        times[row], results[row] = servers[row].unit()
    agree(program, results)
    return times


def live_restart(options, program, seed):
    """A list of rounds, the summaries, and whether the seeds were one."""
    servers = {}
    try:
        for row in options.rows:
            servers[row] = Server(options, row, program, seed)
        for _ in range(options.warm):
            live_round(servers, program, 0)
        rounds, end = [], time.monotonic() + options.seconds
        for turn in range(options.rounds):
            rounds.append(live_round(servers, program, turn + seed))
            if time.monotonic() > end and turn >= 2:
                break
        marks = {server.fingerprint for server in servers.values()}
        return rounds, {row: s.end() for row, s in servers.items()}, \
            len(marks) == 1
    finally:
        for server in servers.values():
            server.kill()


def whole_restart(options, program, seed):
    """The same for a program that runs as whole processes: one round."""
    times, ends = {}, {}
    for row in rotated(options.rows, seed):
        seconds, ends[row] = run_whole(options, row, program, seed)
        times[row] = seconds * 1e9
    agree(program, {row: end["digest"] for row, end in ends.items()})
    return [times], ends, True


def median_of(ends, row, key):
    return statistics.median(float(end[row][key]) for end in ends)


def row_figures(row, restarts, ends):
    """Everything one cell of the report needs about one row."""
    ratios = [statistics.median(one[row] / one["stock"] for one in rounds)
              for rounds in restarts]
    figures = {
        "ms": statistics.median(one[row] for rounds in restarts
                                for one in rounds) / 1e6,
        "ratio": statistics.median(ratios),
        "low": min(ratios), "high": max(ratios),
        "peak_kb": median_of(ends, row, "peak_kb"),
        "faults": median_of(ends, row, "faults"),
    }
    if "tiny_calls" in ends[0][row]:
        calls = median_of(ends, row, "calls")
        figures["tiny"] = median_of(ends, row, "tiny_calls") / max(calls, 1)
        figures["large"] = median_of(ends, row, "larger_calls")
        figures["fallbacks"] = (median_of(ends, row, "fallback_large")
                                + median_of(ends, row, "fallback_memory"))
    return figures


def measure(options, program):
    """Runs one program; returns {row: figures}."""
    restart, times = live_restart, options.restarts
    if program in WHOLE:
        restart, times = whole_restart, 2 * options.restarts - 1
    restarts, ends, start = [], [], time.monotonic()
    for seed in range(1, times + 1):
        rounds, summaries, same_seed = restart(options, program, seed)
        restarts.append(rounds)
        ends.append(summaries)
        options.same_seed = options.same_seed and same_seed
        if options.quick and time.monotonic() - start > 4:
            break
    return {row: row_figures(row, restarts, ends) for row in options.rows}


# ---- tables --------------------------------------------------------------

def geometric_mean(values):
    return math.exp(statistics.fmean(math.log(value) for value in values))


def mean_ratio(report, row, key):
    return geometric_mean(
        [program[row][key] / program["stock"][key]
         for program in report.values()])


def mean_time(report, row):
    return geometric_mean([program[row]["ratio"]
                           for program in report.values()])


class Table:
    """A column is (title, width, program's cell, last line's cell)."""

    def __init__(self, columns):
        self.columns = columns

    def head(self):
        print(f"{'program':<13}" + "".join(
            f"{title:>{width}}" for title, width, _, _ in self.columns))

    def line(self, program, figures):
        print(f"{program:<13}" + "".join(
            f"{cell(figures):>{width}}"
            for _, width, cell, _ in self.columns), flush=True)

    def last(self, report):
        print(f"{'geo. mean':<13}" + "".join(
            f"{cell(report):>{width}}"
            for _, width, _, cell in self.columns))


def blank(_):
    return ""


def time_column(title, row):
    return (title, 9, lambda f: f"{f[row]['ratio']:.3f}",
            lambda report: f"{mean_time(report, row):.3f}")


def per_stock_column(title, row, key):
    return (title, 9, lambda f: f"{f[row][key] / f['stock'][key]:.3f}",
            lambda report: f"{mean_ratio(report, row, key):.3f}")


def milliseconds_column(title, row):
    return (title, 10, lambda f: f"{f[row]['ms']:.1f}", blank)


def peak_cell(figures):
    stock = figures["stock"]["peak_kb"] / 1024
    return f"{stock:.1f} / {figures['hakmem']['peak_kb'] / 1024:.1f}"


def lane_columns():
    return [("by Tiny", 9, lambda f: f"{f['hakmem']['tiny']:.2%}", blank),
            ("by others", 11, lambda f: f"{f['hakmem']['large']:.0f}", blank),
            ("fallbacks", 11, lambda f: f"{f['hakmem']['fallbacks']:.0f}",
             blank)]


def quick_table():
    return Table([
        milliseconds_column("stock ms", "stock"),
        milliseconds_column("hakmem ms", "hakmem"),
        time_column("ratio", "hakmem"),
        ("peak MB s / h", 16, peak_cell,
         lambda report: f"{mean_ratio(report, 'hakmem', 'peak_kb'):.3f}"),
    ] + lane_columns())


def full_table(rows):
    columns = [milliseconds_column("stock ms", "stock")]
    others = [row for row in rows if row != "stock"]
    columns += [time_column(row, row) for row in others]
    for row in others:
        if row in ("hakmem", "tiny", "mimalloc"):
            columns.append(per_stock_column("peak " + row[:3], row,
                                            "peak_kb"))
    if "hakmem" in rows:
        columns.append(per_stock_column("flt hak", "hakmem", "faults"))
        columns += lane_columns()
    return Table(columns)


# ---- where it was measured -----------------------------------------------

def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.lower().startswith(("model name", "cpu model")):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def commit():
    def git(*arguments):
        return subprocess.run(["git", "-C", ROOT, *arguments], text=True,
                              capture_output=True, check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"


def machine():
    return {"date": datetime.date.today().isoformat(), "cpu": cpu_model(),
            "kernel": platform.release(), "commit": commit(),
            "command": " ".join([os.path.basename(sys.argv[0])]
                                + sys.argv[1:])}


def save(path, lines):
    """Writes a CSV: each line with the machine's columns behind it."""
    where = machine()
    names = list(dict.fromkeys(key for line in lines for key in line))
    with open(path, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, names + list(where), restval="")
        writer.writeheader()
        for line in lines:
            writer.writerow({**line, **where})


def report_lines(report):
    for program, rows in report.items():
        for row, figures in rows.items():
            yield {"program": program, "allocator": row,
                   **{key: f"{value:.6g}" for key, value in figures.items()}}


# ---- timing --------------------------------------------------------------

def explain(options):
    if options.quick:
        print("Times are CPU time; ratio is hakmem to stock, below 1 is "
              "faster. Peak: resident\nmemory, stock / hakmem; its mean is "
              "the ratio. By Tiny: share of the calls that\nthe Tiny lane "
              "served; by others: calls that the other lanes did.\nFallbacks: calls that the system served.")
    else:
        print("Time columns: CPU time to stock's; stock-2 is a second stock "
              "process (A/A, noise).\nPeak: peak resident memory to stock's. "
              "flt: minor faults of the process to stock's. The row "
              "tiny: lanes = tiny, a\nheap of its own.")
    if not options.same_seed:
        print("Note: Lua's hash seeds could not be fixed (was bench_lua "
              "built with -fno-pie\nand -no-pie?); single programs may be "
              "off by 20 %.")


def timing(options):
    table = quick_table() if options.quick else full_table(options.rows)
    print(f"{cpu_model()}, Linux {platform.release()}, commit {commit()}")
    table.head()
    report = {}
    for program in options.programs:
        report[program] = measure(options, program)
        table.line(program, report[program])
    table.last(report)
    explain(options)
    if options.csv:
        save(options.csv, list(report_lines(report)))


# ---- instructions --------------------------------------------------------

def inclusive(path, function):
    """(calls, instructions) of a function, from a callgrind file."""
    name = re.compile(r"^cfn=\((\d+)\)(?: (.*))?$")
    named = re.compile(r"^c?fn=\((\d+)\) (.*)$")
    names, calls, cost, called, pending = {}, 0, 0, None, 0
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            known = named.match(line)
            if known:
                names[known[1]] = known[2]
            target = name.match(line)
            if target:
                called = names.get(target[1])
            elif line.startswith("calls="):
                pending = int(line[6:].split()[0])
            elif pending:
                if called == function:
                    calls += pending
                    cost += int(line.split()[-1])
                pending = 0
    return calls, cost


def callgrind(options, row, program):
    """(calls, instructions) of the allocator in the run's units."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--toggle-collect=run_units*",
             f"--callgrind-out-file={out}", options.bench, ROWS[row],
             program_argument(program), str(options.rounds)],
            text=True, capture_output=True, check=False,
            env={**os.environ, "HAKMEM_PURGE_DELAY": SLOW_DELAY})
        if done.returncode != 0:
            raise Failed(f"{program} under {row}: valgrind failed: "
                         + done.stderr.strip().splitlines()[-1])
        calls, cost = inclusive(out, FUNCTIONS[row])
    if calls == 0:
        raise Failed(f"{program} under {row}: callgrind saw no call of "
                     f"{FUNCTIONS[row]}; was bench_lua stripped?")
    return calls, cost


def empty_calls(options, program):
    """How many calls of the units ask for nothing and free nothing."""
    counts = []
    for units in (str(options.rounds), "0"):
        done = subprocess.run(
            [options.bench, "count", program_argument(program), units],
            text=True, capture_output=True, check=True)
        counts.append(int(fields(done.stdout.splitlines()[1])["empty"]))
    return counts[0] - counts[1]


def insn_program(options, pool, program):
    """{row: figures}: instructions per call, with and without empty ones."""
    jobs = {row: pool.submit(callgrind, options, row, program)
            for row in options.rows}
    empty = empty_calls(options, program)
    result = {}
    for row, job in jobs.items():
        calls, cost = job.result()
        result[row] = {"calls": calls, "empty": empty, "instructions": cost,
                       "per_call": cost / calls,
                       "per_block_call": cost / max(calls - empty, 1)}
    return result


def insn_column(row, key):
    return (row, 10, lambda f: f"{f[row][key]:.1f}", lambda report:
            f"{geometric_mean([f[row][key] for f in report.values()]):.1f}")


def insn_table(rows):
    def calls(figures):
        return figures["stock"]["calls"]
    columns = [("calls", 10, lambda f: f"{calls(f)}", blank),
               ("empty", 8, lambda f: f"{f['stock']['empty'] / calls(f):.0%}",
                blank)]
    columns += [insn_column(row, "per_call") for row in rows]
    columns.append(("|", 3, lambda _: "|", lambda _: "|"))
    columns += [insn_column(row, "per_block_call") for row in rows]
    return Table(columns)


def instructions(options):
    table = insn_table(options.rows)
    table.head()
    report = {}
    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for program in options.programs:
            report[program] = insn_program(options, pool, program)
            table.line(program, report[program])
    table.last(report)
    print("Instructions of the allocator, all it calls included: left, per "
          "call; right, per\ncall that is not empty (an empty call passes "
          "NULL and 0).")
    if options.csv:
        save(options.csv, list(report_lines(report)))


# ---- the command line ----------------------------------------------------

def parse():
    parser = argparse.ArgumentParser(
        description="Times Lua programs under several allocators.")
    build = os.environ.get("HAKMEM_BUILD",
                           os.path.join(ROOT, "build", "release"))
    parser.add_argument("--bench", help="the driver, if not the one in "
                        "$HAKMEM_BUILD or build/release",
                        default=os.path.join(build, "bench", "bench_lua"))
    parser.add_argument("--quick", action="store_true",
                        help="stock and hakmem only, about 20 seconds")
    parser.add_argument("--insn", action="store_true",
                        help="instructions per call, by callgrind")
    parser.add_argument("--csv", metavar="FILE", help="write the measurements there")
    parser.add_argument("--programs", help="some, separated by commas")
    parser.add_argument("--rows", help="stock and some of: "
                        + ",".join(row for row in ROWS if row != "stock"))
    parser.add_argument("--restarts", type=int, help="of the processes")
    parser.add_argument("--rounds", type=int, help="units per restart")
    parser.add_argument("--cpu", type=int, help="the processor to pin to")
    return parser.parse_args()


def chosen(text, known, standard, what):
    names = text.split(",") if text else standard
    for name in names:
        if name not in known:
            raise Failed(f"no {what} {name}; known: {', '.join(known)}")
    return list(names)


def has_mimalloc(options):
    return subprocess.run([options.bench, "mimalloc", "states", "0"],
                          capture_output=True, check=False).returncode == 0


def choose_rows(options):
    if options.quick:
        standard = ["stock", "hakmem"]
    elif options.insn:
        standard = ["stock", "hakmem", "tiny", "thread", "mimalloc"]
    else:
        standard = ["stock", "hakmem", "tiny", "thread", "mimalloc",
                    "stock-2"]
    rows = chosen(options.rows, ROWS, standard, "row")
    if "stock" not in rows:
        rows.insert(0, "stock")
    if "mimalloc" in rows and not has_mimalloc(options):
        print("Note: no libmimalloc.so.2, its column is left out (install "
              "libmimalloc-dev).")
        rows.remove("mimalloc")
    return rows


def processor(wanted):
    """The processor to pin to: `wanted`, or if that is None the last one."""
    cpus = os.sched_getaffinity(0)
    if wanted is None:
        return max(cpus)
    if wanted not in cpus:
        raise Failed(f"processor {wanted} may not be used; pass one of "
                     + ", ".join(map(str, sorted(cpus))))
    return wanted


def complete(options):
    """Fills in what the command line left open."""
    if not os.access(options.bench, os.X_OK):
        raise Failed(f"no driver {options.bench}: build it first, or name "
                     "it with --bench")
    options.rows = choose_rows(options)
    if options.quick and "hakmem" not in options.rows:
        raise Failed("--quick shows stock and hakmem: leave --rows out")
    options.programs = chosen(options.programs, LIVE + WHOLE,
                              INSN if options.insn else LIVE + WHOLE,
                              "program")
    options.restarts = options.restarts or (2 if options.quick else 5)
    options.rounds = options.rounds or (2 if options.insn else
                                        12 if options.quick else 20)
    options.seconds = 0.6 if options.quick else 6
    options.warm = 1 if options.quick else 2
    options.same_seed = True
    options.cpu = processor(options.cpu)


def main():
    try:
        options = parse()
        complete(options)
        instructions(options) if options.insn else timing(options)
    except Failed as failure:
        sys.exit(f"lua_report: {failure}")
    except FileNotFoundError as missing:
        sys.exit(f"lua_report: {missing.filename} is not installed")


if __name__ == "__main__":
    main()
