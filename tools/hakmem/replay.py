"""hakmem replay: a recorded program's allocations on one allocator or several."""
import json
import os
import statistics
import subprocess
import tempfile

from hakmem import allocators, curves, places, record, words
from hakmem.compare import orders
from hakmem.options import Failed, Help, Option, parse, whole

SAMPLES = 400

HELP = Help(
    "replay", "[option...] TRACE", """\
Does again what a trace of `hakmem record` holds, with the allocators that are
named, in turn: the same operations by as many threads, in the recorded order,
as fast as possible. Prints time, CPU time, page faults and memory, medians of
the runs. What the program did with its memory is not done again, but for
writing the first bytes of a block and each page of it once.""", (
        Option("--with", "NAMES", "allocators, with commas between: glibc,"
               f" hakmem, {', '.join(allocators.KNOWN)}, or a library's path;"
               " default: glibc,hakmem", initial="glibc,hakmem"),
        Option("-n --runs", "N", "runs of each, 1 to 1000; default: 5",
               check=whole(1, 1000), initial=5),
        Option("--svg", "FILE", "write a picture: resident memory over the"
               " trace"),
        Option("--json", None, "print every run as JSON instead of the table"),
        Option("--pace", None, "wait as the program did: nothing happens"
               " earlier than it was recorded"),
        Option("--partial", None, "of a damaged trace take what is before the"
               " damage"),
        Option("--info", None, "say what the trace holds, and replay nothing"),
        Option("--library", "FILE", "another libhakmem.so"),
    ), """
  hakmem record -o json.trace -- python3 script.py
  hakmem replay json.trace --with glibc,hakmem,mimalloc --svg json.svg
  hakmem replay --info json.trace""")

# Titles of --info, and their keys.
ABOUT = (("operations", "operations"), ("allocations", "allocs"),
         ("resizes", "resizes"), ("frees", "frees"), ("threads", "threads"),
         ("failed allocations", "failed"),
         ("frees of blocks from before or elsewhere", "foreign_frees"),
         ("frees that were not seen", "lost_frees"),
         ("calls that could not be recorded", "missed_calls"))


# ---- hakmem-replay ------------------------------------------------------------

def helper(arguments, preload=None):
    """What it says; Failed with its one line."""
    env = {name: value for name, value in os.environ.items()
           if name not in ("LD_PRELOAD", "HAKMEM_RECORD")}
    if preload:
        env["LD_PRELOAD"] = preload
    done = subprocess.run([places.helper("replay"), *arguments],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, env=env, check=False)
    if done.returncode == 0:
        return done.stdout.decode(errors="replace")
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    said = lines[-1].replace("hakmem-replay: ", "", 1) if lines else \
        f"hakmem-replay ended with {done.returncode}"
    if done.returncode < 0:
        said = f"hakmem-replay was ended by signal {-done.returncode}" \
            + (f" ({lines[-1]})" if lines else "")
    status = {1: 1, 2: 2, 3: 125}.get(done.returncode, 1)
    raise Failed(f"replay: {said}", status)


def plan_of(trace, partial, folder):
    """The file that runs read."""
    plan = os.path.join(folder, "plan")
    helper(["plan", *(["--partial"] if partial else []), "--", trace, plan])
    return plan


def run_once(plan, allocator, samples=0, pace=False):
    words_ = ["run", "--samples", str(samples)]
    if pace:
        words_.append("--pace")
    if allocator.library is not None:
        words_ += ["--served-by", allocator.library]
    try:
        return json.loads(helper([*words_, "--", plan], allocator.library))
    except Failed as failed:
        raise Failed(f"{failed} (on {allocator.name})",
                     failed.status) from None


def run_all(plan, chosen):
    """({name: runs}, {name: samples}); one more run each for the samples."""
    found = {one.name: one for one in chosen["allocators"]}
    runs = {name: [] for name in found}
    curve = {}
    turns = orders(found)
    for _ in range(chosen["runs"]):
        for name in next(turns):
            runs[name].append(run_once(plan, found[name],
                                       pace=chosen["pace"]))
    if chosen["svg"] is not None or chosen["json"]:
        for name, one in found.items():
            curve[name] = run_once(plan, one, SAMPLES,
                                   chosen["pace"])
    return runs, curve


def need_memory(found):
    """Failed where the replay would not fit: every page is written."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file
                        if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return
    if found["peak_bytes"] > free:
        raise Failed(f"replay: the trace has {words.size(found['peak_bytes'])}"
                     f" at once and a replay writes to all of it; only"
                     f" {words.size(free)} are free", 1)


# ---- what is shown --------------------------------------------------------------

def median(runs, key):
    return statistics.median(run[key] for run in runs)


def lines(runs):
    """The table: an allocator a line; ratios are to the first one's."""
    rows = [["", "time, ms", "ratio", "ns/op", "CPU, ms", "faults",
             "peak, MB", "ratio", "at the end, MB"]]
    first = next(iter(runs.values()))
    for name, of_it in runs.items():
        time, peak = median(of_it, "time_us"), median(of_it, "peak_kb")
        operations = of_it[0]["operations"] or 1
        rows.append([
            name, f"{time / 1e3:,.2f}",
            f"{time / (median(first, 'time_us') or 1):.2f}",
            f"{time * 1e3 / operations:.1f}",
            f"{median(of_it, 'cpu_us') / 1e3:,.2f}",
            words.number(median(of_it, "faults")), f"{peak / 1024:,.1f}",
            f"{peak / (median(first, 'peak_kb') or 1):.2f}",
            f"{median(of_it, 'end_kb') / 1024:,.1f}"])
    return words.table(rows)


def about(trace, found):
    """What --info prints."""
    rows = [[title, words.number(found[key])] for title, key in ABOUT]
    rows += [["asked for, in all", words.size(found["bytes"])],
             ["at most at once", f"{words.size(found['peak_bytes'])} in"
              f" {words.number(found['peak_blocks'])} blocks"],
             ["not freed at the end", f"{words.size(found['live_bytes'])} in"
              f" {words.number(found['live_blocks'])} blocks"],
             ["seconds", f"{found['time_us'] / 1e6:.2f}"]]
    end = "" if found["whole"] else \
        "; its end is missing: the program did not end by itself"
    return (f"{trace}: {words.size(found['file_bytes'])}, of process"
            f" {found['pid']}: {found['command']}{end}\n"
            + words.table(rows, 2))


def picture(title, curve, pace):
    """The SVG of resident memory."""
    drawn = []
    for name, run in curve.items():
        rounds = max(run["rounds"], 1)
        drawn.append((name, False, [
            (time / 1e6 if pace else 100 * done / rounds, kb / 1024)
            for time, done, kb, _ in run["samples"]]))
    if curve:
        run = next(iter(curve.values()))
        rounds = max(run["rounds"], 1)
        drawn.append(("asked for", True, [
            (time / 1e6 if pace else 100 * done / rounds, live / (1 << 20))
            for time, done, _, live in run["samples"]]))
    return curves.chart(title, "seconds" if pace else
                        "percent of the operations", "resident MB", drawn)


# ---- the command ------------------------------------------------------------------

def parse_all(arguments):
    """Options may follow the trace's name, too."""
    parsed = parse(HELP, arguments)
    if parsed is None:
        return None
    chosen, rest = parsed
    if len(rest) > 1 and rest[1].startswith("-"):
        before = arguments[:len(arguments) - len(rest)]
        if "--" not in before:
            return parse_all([*before, *rest[1:], rest[0]])
    return chosen, rest


def main(arguments):
    parsed = parse_all(arguments)
    if parsed is None:
        return 0
    chosen, rest = parsed
    if len(rest) != 1:
        raise Failed("replay: " + ("no trace is given" if not rest else
                     f"one trace at a time, not also {rest[1]}") +
                     "; `hakmem replay --help` has examples", 2)
    trace = rest[0]
    if chosen["info"]:
        print(about(trace, record.totals(trace, chosen["partial"])))
        return 0
    chosen["allocators"] = allocators.find_all(chosen["with"],
                                               chosen["library"])
    if not chosen["allocators"]:
        raise Failed("replay: --with names no allocator; use"
                     f" {' '.join(allocators.words())}", 2)
    if chosen["svg"] is not None:
        words.may_write("--svg", chosen["svg"])
    found = record.totals(trace, chosen["partial"])
    need_memory(found)
    with tempfile.TemporaryDirectory(prefix="hakmem-") as folder:
        plan = plan_of(trace, chosen["partial"], folder)
        runs, curve = run_all(plan, chosen)
    if chosen["json"]:
        print(json.dumps({"trace": found, "runs": runs, "curve": curve}))
    else:
        print(lines(runs))
        count = chosen["runs"]
        print(f"{words.number(found['operations'])} operations of"
              f" {words.number(found['threads'])}"
              f" thread{'' if found['threads'] == 1 else 's'}, "
              + ("one run each" if count == 1 else
                 f"medians of {count} runs each in changing order"))
        if not chosen["pace"]:
            print("the end is just behind the last operation: what an allocator"
                  " gives back after a while is still there; --pace waits as"
                  " the program did")
        if not found["whole"]:
            print("the trace has no end: the program did not end by itself")
        failed = {name: of_it[0]["failed"] for name, of_it in runs.items()
                  if of_it[0]["failed"]}
        for name, count in failed.items():
            print(f"{name} refused {words.number(count)} allocations")
    if chosen["svg"] is not None:
        words.write("--svg", chosen["svg"], picture(
            found["command"], curve, chosen["pace"]))
    return 0
