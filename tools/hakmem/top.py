"""hakmem top: processes on HAKMEM, live."""
import collections
import json
import os
import sys
import time

from hakmem import diagnose, processes, share, words
from hakmem.doctor import total
from hakmem.options import Failed, Help, Option, parse, seconds

HELP = Help(
    "top", "[option...] [PID]", """\
Shows the processes of this user that are on HAKMEM, or one of them by lanes:
how much is in use, kept at hand, due to go back, lost between blocks in use,
and how fast they allocate. Keys: q ends, h helps.""", (
        Option("-d --delay", "SECONDS", "between two looks; default 2",
               check=seconds(0.1, 3600), initial=2.0),
        Option("-s --sort", "COLUMN", "by: res use kept due frag allocs cpu"
               " pid", words=("res", "use", "kept", "due", "frag", "allocs",
                              "cpu", "pid"), initial="res"),
        Option("--once", None, "print once, as text, and end; it takes the"
               " delay, at most a second, for the rates"),
        Option("--json", None, "the same as JSON; sizes are bytes"),
    ), """
  hakmem top
  hakmem top 4711
  hakmem top --json | jq '.processes[0].in_use'""")

# The columns: key, title, width, the key that sorts by it.
COLUMNS = (("pid", "PID", 7, "N"), ("res", "RES", 9, "M"),
           ("use", "IN USE", 9, "U"), ("kept", "KEPT", 9, "K"),
           ("due", "DUE", 9, "D"), ("frag", "FRAG", 9, "F"),
           ("purged", "BACK/s", 9, None), ("allocs", "ALLOCS/s", 10, "A"),
           ("cpu", "%CPU", 6, "P"))

# rates: of every counter, by name, each second; None: this is its first look.
# sizes: diagnose.sizes' with allocs a second; {}: not told.
Row = collections.namedtuple("Row", "pid command rss values cpu rates fresh"
                             " age versions sizes")


SIZES = 8  # that are shown of a process


class Sampler:
    """Looks at all processes, or one, and remembers for the rates."""

    def __init__(self, pid=None, delay=1.0):
        self.pid, self.last, self.delay = pid, {}, delay
        if pid is not None:
            share.pages_of(pid)

    def _row(self, pid, figures):
        resident, cpu = processes.resident_of(pid), processes.ticks_of(pid)
        if resident is None or cpu is None:
            return None
        now, values = time.monotonic(), total(figures)
        before, rates, used = self.last.get(pid), None, 0.0
        if before is not None and now > before[0]:
            took = now - before[0]
            rates = {name: max(0, value - before[1].get(name, 0)) / took
                     for name, value in values.items()}
            used = 100 * max(0.0, cpu - before[2]) / took
        sizes = diagnose.sizes(one for each in figures for one in each.classes)
        self.last[pid] = (now, values, cpu, sizes)
        old = before[3] if before is not None else {}
        sizes = {block: one._replace(allocs=max(0, one.allocs - old[
            block].allocs) / (now - before[0]) if block in old else 0)
                 for block, one in sizes.items()}
        return Row(pid, processes.command_of(pid), resident[0], values, used,
                   rates, all(one.fresh for one in figures),
                   max(one.age for one in figures),
                   sorted({one.version for one in figures}), sizes)

    def look(self):
        """Rows, in the order of their numbers."""
        pages = share.pages(self.pid)
        found = collections.defaultdict(list)
        for figures in share.ask(pages, 0.1, share.WATCHED + 2 * self.delay):
            found[figures.pid].append(figures)
        for page in pages:
            page.close()
        rows = [self._row(pid, found[pid]) for pid in sorted(found)]
        self.last = {pid: value for pid, value in self.last.items()
                     if pid in found}
        return [row for row in rows if row is not None]


# ---- a row ------------------------------------------------------------------------

def value(row, key):
    """What a column shows, as a number."""
    if key in ("pid", "cpu"):
        return getattr(row, key)
    if key == "allocs":
        return sum((row.rates or {}).get(f"{lane}_allocs", 0)
                   for lane in diagnose.LANES)
    if key == "purged":
        return (row.rates or {}).get("purged_bytes", 0)
    return {"res": lambda: row.rss, "use": lambda: diagnose.live(row.values),
            "kept": lambda: diagnose.kept(row.values),
            "due": lambda: diagnose.due(row.values),
            "frag": lambda: diagnose.between(row.values)}[key]()


def cell(row, key):
    number = value(row, key)
    if key == "pid":
        return str(number)
    if key in ("allocs", "purged") and row.rates is None:
        return "-"
    if key == "cpu":
        return f"{number:.1f}"
    if key == "allocs":
        return short(number)
    return words.size(number)


def short(number):
    """A count in few characters."""
    for unit in ("", "k", "M"):
        if number < 10000:
            return f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.0f}G"


def ordered(rows, key, reverse=False):
    rows = sorted(rows, key=lambda row: value(row, key),
                  reverse=key != "pid")
    return rows[::-1] if reverse else rows


def header():
    return "".join(title.rjust(width) for _, title, width, _ in COLUMNS) + \
        "  COMMAND"


def line(row):
    return "".join(cell(row, key).rjust(width)
                   for key, _, width, _ in COLUMNS) + "  " + (
                       "" if row.fresh else f"({row.age:.0f} s ago) ") + \
        row.command


def summary(rows):
    count = len(rows)
    if count == 0:
        return ("no process of this user shows statistics; start one by:"
                " hakmem run -- program")
    return (f"{count} process{'' if count == 1 else 'es'} on HAKMEM:"
            f" {words.size(sum(row.rss for row in rows))} resident,"
            f" {words.size(sum(value(row, 'use') for row in rows))} in use,"
            f" {words.size(sum(value(row, 'due') for row in rows))} due to go"
            " back")


# ---- one process ------------------------------------------------------------------

def _rate(row, name):
    return "-" if row.rates is None else short(row.rates.get(name, 0))


def lanes(row):
    """A table of the lanes."""
    rows = [["lane", "sizes", "in use", "held", "peak", "blocks", "allocs/s",
             "frees/s"]]
    for lane in diagnose.LANES:
        rows.append([lane, diagnose.SIZES[lane], *(
            words.size(row.values.get(f"{lane}_{key}_bytes", 0))
            for key in ("live", "held", "peak")), words.number(
                row.values.get(f"{lane}_allocs", 0) -
                row.values.get(f"{lane}_frees", 0)),
                     _rate(row, f"{lane}_allocs"), _rate(row,
                                                         f"{lane}_frees")])
    return words.table(rows, left=2).splitlines()


def classes(row):
    """A table of the sizes that matter most."""
    most = sorted(row.sizes.values(), key=lambda one: max(
        one.live + one.kept + one.between, one.allocs), reverse=True)[:SIZES]
    rows = [["lane", "block", "in use", "kept", "between", "allocs/s"]]
    for one in sorted(most, key=lambda one: one.block):
        rows.append([one.lane, words.number(one.block), words.size(one.live),
                     words.size(one.kept), words.size(one.between),
                     short(one.allocs)])
    return words.table(rows).splitlines() + [""] if most else []


def details(row):
    """The lines of one process."""
    values = row.values
    parts = [["resident", words.size(row.rss), ""]]
    found = diagnose.parts(values, row.rss)
    whole = max(row.rss, sum(part for _, part in found), 1)
    for title, part in found:
        parts.append([f"  {title}", words.size(part),
                      f"{100 * part / whole:.0f} %"])
    limit = values.get("limit_bytes", 0)
    said = [f"process {row.pid}, HAKMEM {', '.join(row.versions)}:"
            f" {row.command}", "", *words.table(parts).splitlines(), "",
            *lanes(row), "", *classes(row)]
    said.append(f"heaps {values.get('heaps', 0)}, parked"
                f" {values.get('heaps_parked', 0)}; refills/s"
                f" {_rate(row, 'refills')}, flushes/s {_rate(row, 'flushes')},"
                f" frees by other threads/s {_rate(row, 'remote_frees')}")
    said.append(f"given back {words.size(values.get('purged_bytes', 0))} in"
                f" {words.number(values.get('purges', 0))} purges; limit"
                f" {words.size(limit) if limit else 'none'}, near it"
                f" {values.get('pressure_events', 0)} times, refused"
                f" {values.get('limit_refused', 0)}")
    if values.get("guards", 0) or values.get("guards_missed", 0):
        said.append(f"guards {words.number(values['guards'])} blocks, missed"
                    f" {words.number(values['guards_missed'])} for want of"
                    " room (HAKMEM_GUARD_MEMORY)")
    if not row.fresh:
        said.append(f"figures of {row.age:.0f} s ago: it sleeps, or allocates"
                    " nothing new")
    return said


# ---- once ---------------------------------------------------------------------------

def as_dict(row):
    return {"pid": row.pid, "command": row.command, "resident": row.rss,
            "in_use": value(row, "use"), "kept": value(row, "kept"),
            "due": value(row, "due"), "fragmented": value(row, "frag"),
            "cpu_percent": round(row.cpu, 1), "fresh": row.fresh,
            "age_seconds": round(row.age, 3), "versions": row.versions,
            "allocs_per_second": value(row, "allocs"),
            "rates": {name: rate for name, rate in (row.rates or {}).items()
                      if not name.endswith("_bytes") or
                      name == "purged_bytes"}, "values": row.values,
            "sizes": [one._asdict() for one in row.sizes.values()]}


def need_page(sampler, rows):
    """Failed unless the one process that was asked for is among them."""
    pid = sampler.pid
    if pid is None or rows:
        return
    if processes.resident_of(pid) is None:
        raise Failed(f"top: process {pid} has ended", 1)
    if share.is_on_hakmem(pid):
        raise Failed(f"top: process {pid} is on HAKMEM but shows no"
                     " statistics: it is small or has slept since its start,"
                     " or HAKMEM_SHARE_STATS=0", 1)
    raise Failed(f"top: process {pid} is not on HAKMEM; `hakmem doctor {pid}`"
                 " says what can be seen, `hakmem run` starts it so", 1)


def once(sampler, chosen):
    need_page(sampler, sampler.look())
    time.sleep(min(chosen["delay"], 1.0))
    rows = ordered(sampler.look(), chosen["sort"])
    need_page(sampler, rows)
    if chosen["json"]:
        print(json.dumps({"processes": [as_dict(row) for row in rows]},
                         indent=1))
    elif sampler.pid is not None:
        print("\n".join(details(rows[0])))
    else:
        print(summary(rows))
        if rows:
            print("\n".join([header(), *map(line, rows)]))
    return 0


def main(arguments):
    parsed = parse(HELP, arguments)
    if parsed is None:
        return 0
    chosen, rest = parsed
    if len(rest) > 1:
        raise Failed("top: it takes one process's number, or none", 2)
    sampler = Sampler(share.need_pid("top", rest[0]) if rest else None,
                      chosen["delay"])
    if chosen["once"] or chosen["json"]:
        return once(sampler, chosen)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failed("top: this is no terminal; --once or --json prints it"
                     " once", 2)
    need_page(sampler, sampler.look())
    os.environ.setdefault("ESCDELAY", "25")
    from hakmem import screen
    return screen.run(sampler, chosen)
