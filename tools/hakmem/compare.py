"""hakmem compare: a program on HAKMEM and without it, side by side.

The runs are interleaved, each round in another order, so that what changes with
time (a machine that gets busy, a cache that gets warm) changes all alike. The
table has medians.
"""
import json
import os
import random
import statistics
import time

from hakmem import allocators, measure, picture, programs, words
from hakmem.options import Failed, Help, Option, parse, seconds, whole

ROUNDS = 5  # at most, unless --runs says otherwise
SECONDS = 10.0  # no new round after that

HELP = Help(
    "compare", "[option...] [--] program [argument...]", """\
Runs a program several times with and without HAKMEM, in turn, and prints the
medians of time, CPU time, peak memory and page faults side by side. It gets no
standard input; its output is kept from the terminal and compared. A program
that does not end (a server) needs --rest.""", (
        Option("-n --runs", "N", "runs of each, 1 to 1000; default: up to 5,"
               " as many as begin within 10 seconds", check=whole(1, 1000)),
        Option("--rest", "SECONDS", "for programs that live on: read their"
               " memory when they have used no CPU for so long (also without"
               " SECONDS: 3), then end them", check=seconds(0.2, 3600),
               alone=3.0),
        Option("--with", "NAMES", "other allocators too, with commas between:"
               f" {' '.join(allocators.KNOWN)}, or a library's path"),
        Option("--svg", "FILE", "write a picture of it"),
        Option("--html", "FILE", "write a page: the table and the picture"),
        Option("--json", None, "print every run as JSON instead of the table"),
        Option("--library", "FILE", "another libhakmem.so"),
    ), """
  hakmem compare -- python3 script.py
  hakmem compare --with mimalloc,jemalloc --svg it.svg -- ./parser big.xml
  hakmem compare --rest -- redis-server --port 7777""")

# The rows: title, its key in JSON, decimals, what a unit is.
ROWS = (("time, s", "seconds", 3, 1), ("CPU time, s", "cpu", 3, 1),
        ("peak memory, MB", "peak", 1, words.MB),
        ("at rest, MB", "rest", 1, words.MB),
        ("page faults", "faults", 0, 1))


# ---- running ------------------------------------------------------------------

def orders(names):
    """Orders of the names without end, each unlike the one before."""
    chance, last = random.Random(1), None
    while True:
        order = list(names)
        chance.shuffle(order)
        if order != last or len(names) == 1:
            last = order
            yield order


def _said(run):
    """The last line of a program's complaint, for a message."""
    lines = run.errors.decode(errors="replace").strip().splitlines()
    return f" ({lines[-1][:100]})" if lines else ""


def _check(program, name, run):
    if run.status == 0 or run.rest is not None:
        return
    how = f"status {run.status}" if run.status > 0 else \
        f"signal {-run.status}"
    if name == "glibc":
        raise Failed(f"'{' '.join(program)}' ends with {how} without"
                     f" HAKMEM{_said(run)}: there is nothing to compare")
    raise Failed(f"'{' '.join(program)}' ends with {how} on {name}"
                 f"{_said(run)}; see how it ends without")


def run_all(program, chosen, env):
    """A list of Runs by the allocator's name."""
    others = env.get("LD_PRELOAD", "")
    libraries = {}
    for one in chosen["allocators"]:
        with_it = dict(env)
        if one.library is not None:
            programs.preload(with_it, one.library)
        libraries[one.name] = with_it.get("LD_PRELOAD", others)
    # The helper is not to be preloaded.
    bare = {name: value for name, value in env.items() if name != "LD_PRELOAD"}
    runs = {name: [] for name in libraries}
    began = time.monotonic()
    # A program that fails without HAKMEM is best known by its first run.
    order = list(libraries)
    later = orders(order)
    progress = words.Progress()
    while chosen["runs"] is None or len(runs["glibc"]) < chosen["runs"]:
        for name in order:
            progress.say(f"run {len(runs[name]) + 1}" + (
                f" of {chosen['runs']}" if chosen["runs"] else "") +
                         f" {title_of(name)}")
            try:
                run = measure.run_once(program, libraries[name], bare,
                                       chosen["rest"])
            finally:
                progress.end()
            _check(program, name, run)
            runs[name].append(run)
        order = next(later)
        if chosen["runs"] is None and (
                len(runs["glibc"]) >= ROUNDS or
                time.monotonic() - began > SECONDS):
            break
    return runs


# ---- the table ------------------------------------------------------------------

def median(runs, key):
    """The median of a row, None: it has none (the program has ended)."""
    values = [getattr(run, key) for run in runs]
    if any(value is None for value in values):
        return None
    return statistics.median(values)


def cells(runs, rest):
    """The table: a list of (title, decimals, {name: value or None})."""
    rows = []
    for title, key, decimals, unit in ROWS:
        if key == "rest" and rest is None:
            continue
        values = {name: median(of_it, key) for name, of_it in runs.items()}
        rows.append((title, decimals, {
            name: None if value is None else value / unit
            for name, value in values.items()}))
    return rows


def title_of(name):
    return "without" if name == "glibc" else \
        "on HAKMEM" if name == "hakmem" else f"on {name}"


def _cell(value, base, decimals, name):
    if value is None:
        return "ended"
    text = f"{value:,.{decimals}f}"
    if name == "glibc":
        return text
    return f"{text} {value / base:>7.2f}" if base else f"{text} {'-':>7}"


def lines(runs, rest):
    """The table's lines: each allocator's value and its ratio to without."""
    names = list(runs)
    rows = [["", "without", *(f"{title_of(name)}   ratio"
                              for name in names[1:])]]
    for title, decimals, values in cells(runs, rest):
        rows.append([title, *(_cell(values[name], values["glibc"], decimals,
                                    name) for name in names)])
    return words.table(rows)


def spread(runs):
    """How far the times without HAKMEM lie apart, in percent."""
    times = [run.seconds for run in runs]
    return 100 * (max(times) - min(times)) / max(statistics.median(times), 1e-9)


def remarks(runs):
    """Lines below the table."""
    count = len(runs["glibc"])
    said = "run once each" if count == 1 else \
        f"run {count} times each, in changing order: medians"
    outputs = {run.output for of_it in runs.values() for run in of_it}
    same = "the same" if len(outputs) == 1 else "not the same in every run"
    found = [f"{said}; their output was {same}"]
    if count > 1 and spread(runs["glibc"]) > 5:
        found.append("the runs without HAKMEM differ by"
                     f" {spread(runs['glibc']):.0f} % in time among themselves:"
                     " a smaller difference means nothing")
    if all(run.status == 0 and run.rest is None and run.seconds < 0.05
           for of_it in runs.values() for run in of_it):
        found.append("it is short: this is mostly the start of a process")
    return found


def as_json(program, runs):
    return json.dumps({
        "program": program,
        "allocators": {name: {
            "median": {key: median(of_it, key) for _, key, _, _ in ROWS},
            "runs": [{"status": run.status, **{
                key: getattr(run, key) for _, key, _, _ in ROWS}}
                     for run in of_it]} for name, of_it in runs.items()},
        "same_output": len({run.output for of_it in runs.values()
                            for run in of_it}) == 1}, indent=1)


# ---- the command ------------------------------------------------------------------

def prepare(chosen, program):
    """What must be so before the first run; completes `chosen`."""
    if not program:
        raise Failed("compare: no program is given; `hakmem compare --help`"
                     " has examples", 2)
    programs.need_preload(program[0])
    found = [allocators.find("glibc"),
             allocators.find("hakmem", chosen["library"])]
    if chosen["with"] is not None:
        found += allocators.find_all(chosen["with"], chosen["library"])
    chosen["allocators"] = list({one.name: one for one in found}.values())
    for option in ("svg", "html"):
        if chosen[option] is not None:
            words.may_write(f"--{option}", chosen[option])


def main(arguments):
    parsed = parse(HELP, arguments)
    if parsed is None:
        return 0
    chosen, program = parsed
    prepare(chosen, program)
    runs = run_all(program, chosen, dict(os.environ))
    if chosen["json"]:
        print(as_json(program, runs))
    else:
        print(lines(runs, chosen["rest"]))
        print("\n".join(remarks(runs)))
    groups = cells(runs, chosen["rest"])
    title = " ".join(program)
    if chosen["svg"] is not None:
        words.write("--svg", chosen["svg"], picture.bars(title, groups))
    if chosen["html"] is not None:
        words.write("--html", chosen["html"], picture.page(
            title, groups, lines(runs, chosen["rest"]), remarks(runs)))
    return 0
