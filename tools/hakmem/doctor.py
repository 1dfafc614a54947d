"""hakmem doctor: is it a leak, a cache, retention or fragmentation?"""
import json
import random
import time

from hakmem import diagnose, processes, share, words
from hakmem.options import Failed, Help, Option, parse, seconds

LOOKS = 16  # within the time
PATIENCE, LAST_PATIENCE = 0.15, 2.0  # seconds that an answer may take
FINE, FOUND, UNKNOWN = 0, 1, 2

HELP = Help(
    "doctor", "[option...] PID", """\
Looks at a running process several times within some seconds and says what
holds its memory and what to do about it: a leak, a cache, free memory that is
kept (retention), fragmentation. It is neither stopped nor restarted. The exit
status is 0: fine, 1: something was found, 2: it can't be told, as of a process
that sleeps and so shows figures of before.""", (
        Option("-s --seconds", "SECONDS", "for how long; default 8. A slow"
               " leak needs longer", check=seconds(0.5, 86400), initial=8.0),
        Option("--json", None, "print figures and findings as JSON"),
    ), """
  hakmem doctor $(pgrep -o myserver)
  hakmem doctor --seconds 600 4711 || mail -s 'memory' me""")


def gone(pid):
    return Failed(f"doctor: process {pid} has ended meanwhile", UNKNOWN)


def total(found):
    """The sums over a process's copies of HAKMEM."""
    sums = {}
    for figures in found:
        for name, value in figures.values.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def look(pid, pages, patience, pause):
    """A diagnose.Look, the next one in `pause` seconds; Failed: the process has
    gone."""
    found = share.ask(pages, patience, share.WATCHED + 2 * pause)
    resident, cpu = processes.resident_of(pid), processes.ticks_of(pid)
    if resident is None or cpu is None:
        raise gone(pid)
    return diagnose.Look(time.monotonic(), total(found) if found else None,
                         all(one.fresh for one in found), *resident, cpu,
                         [one for figures in found for one in figures.classes])


def looks_of(pid, pages, duration):
    """Looks over the time, a last one at its end.

    Not quite evenly: what goes up and down at the same pace would seem to drift.
    """
    found, began = [], time.monotonic()
    for i in range(LOOKS):
        at = i + random.uniform(-0.4, 0.4) if 0 < i < LOOKS - 1 else i
        wait = began + duration * at / (LOOKS - 1) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        # The last one is what counts: a busy machine may answer late.
        found.append(look(pid, pages, PATIENCE if i < LOOKS - 1 else
                          LAST_PATIENCE, duration / (LOOKS - 1)))
    return found


# ---- words ----------------------------------------------------------------------

def shares(looks):
    """The table of what holds what, on HAKMEM."""
    last = looks[-1]
    rows = [["", "MB", "%"]]
    found = diagnose.parts(last.values, last.rss)
    whole = max(last.rss, sum(part for _, part in found), 1)
    found.append(("resident", last.rss))
    if whole - last.rss > whole // 100:
        found.append(("not in memory: never touched, or swapped",
                      whole - last.rss))
    for title, part in found:
        rows.append([title, f"{part / words.MB:,.1f}",
                     f"{100 * part / whole:.0f}"])
    return words.table(rows)


def shares_without(memory):
    rows = [["", "MB", "%"]]
    whole = max(memory.rss, 1)
    arenas = f"heaps of threads (glibc's arenas: {memory.arenas})"
    for title, part in (
            ("[heap], by brk", memory.heap), (arenas, memory.arena_bytes),
            ("other anonymous memory", memory.mapped + memory.hakmem),
            ("stacks of main threads", memory.stacks),
            ("files and code", memory.files), ("resident", memory.rss)):
        rows.append([title, f"{part / words.MB:,.1f}",
                     f"{100 * part / whole:.0f}"])
    return words.table(rows)


def staleness(pages, looks):
    """A line where the figures are not of now, or None."""
    if looks[-1].fresh:
        return None
    age = max(share.figures(page).age for page in pages)
    idle = looks[-1].cpu - looks[0].cpu < 0.02
    why = "it sleeps" if idle else "it allocates nothing new"
    return f"its figures are {age:.0f} s old: {why}"


def report(pid, looks, memory, findings, remarks):
    lines = [f"process {pid}: {processes.command_of(pid)[:200]}"]
    lines += remarks
    if looks[-1].values is not None:
        lines += ["", shares(looks)]
    elif memory is not None:
        lines += ["", shares_without(memory)]
    for one in findings:
        lines += ["", one.text + "."]
        if one.advice:
            lines.append(f"  -> {one.advice}.")
    return "\n".join(lines)


def as_json(pid, looks, memory, findings):
    first, last = looks[0], looks[-1]
    said = {"pid": pid, "command": processes.command_of(pid),
            "on_hakmem": last.values is not None,
            "seconds": last.at - first.at, "rss": last.rss,
            "anonymous": last.anonymous, "fresh": last.fresh,
            "findings": [one._asdict() for one in findings]}
    if last.values is not None:
        said["parts"] = {
            "in_use": diagnose.live(last.values),
            "kept": diagnose.kept(last.values),
            "due": diagnose.due(last.values),
            "between": diagnose.between(last.values),
            "elsewhere": max(0, last.rss - diagnose.held(last.values))}
        said["growth"] = diagnose.trend(
            [diagnose.live(one.values) for one in looks])
        said["values"] = last.values
    elif memory is not None:
        said["memory"] = memory._asdict()
    return json.dumps(said, indent=1)


# ---- the command ------------------------------------------------------------------

def status_of(findings):
    if any(one.bad for one in findings):
        return FOUND
    return UNKNOWN if any(one.kind in ("unknown", diagnose.STALE)
                          for one in findings) else FINE


def remarks_on(pid, pages, looks):
    """What is to be said before the table."""
    if pages:
        late = staleness(pages, looks)
        return [late] if late else []
    there = share.is_on_hakmem(pid)
    if there:
        return ["it is on HAKMEM but shows no statistics: it is small or has"
                " slept since its start, HAKMEM_SHARE_STATS=0, or it has a"
                " filter of system calls (man hakmem)"]
    return ["it is not on HAKMEM"] if there is not None else []


def examine(pid, duration):
    """(looks, memory, findings, remarks)."""
    pages = share.pages_of(pid)
    looks = looks_of(pid, pages, duration)
    memory = None
    if pages:
        findings = diagnose.on_hakmem(looks, processes.settings_of(pid))
    else:
        memory = processes.memory_of(pid)
        if processes.resident_of(pid) is None:
            raise gone(pid)
        findings = diagnose.without(looks, memory,
                                    share.is_on_hakmem(pid))
    return looks, memory, findings, remarks_on(pid, pages, looks)


def main(arguments):
    parsed = parse(HELP, arguments)
    if parsed is None:
        return 0
    chosen, rest = parsed
    if len(rest) != 1:
        raise Failed("doctor: it takes one process's number; `pgrep NAME`"
                     " finds it", 2)
    pid = share.need_pid("doctor", rest[0])
    if processes.resident_of(pid) is None:
        raise Failed(f"doctor: process {pid} has no memory: it has ended, or"
                     " is the kernel's", UNKNOWN)
    looks, memory, findings, remarks = examine(pid, chosen["seconds"])
    if chosen["json"]:
        print(as_json(pid, looks, memory, findings))
    else:
        print(report(pid, looks, memory, findings, remarks))
    return status_of(findings)
