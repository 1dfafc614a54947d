"""What /proc says of a process: its memory by kind, its time, its name."""
import collections
import os
import re

MB64 = 64 << 20

# Bytes resident. arenas: how many of glibc's heaps for threads there are.
Memory = collections.namedtuple(
    "Memory", "rss anonymous heap arenas arena_bytes mapped stacks files"
    " hakmem swapped")


def _read(pid, name):
    """The text of a file of the process; OSError as it comes."""
    with open(f"/proc/{pid}/{name}", encoding="utf-8",
              errors="replace") as file:
        return file.read()


def shown(text):
    """A text of somebody else's for a line of ours: nothing that steers."""
    return "".join(char if char.isprintable() else "?" for char in text)


def name_of(pid):
    try:
        return shown(_read(pid, "comm").rstrip("\n"))
    except OSError:
        return "?"


def command_of(pid):
    try:
        words = _read(pid, "cmdline").rstrip("\0").split("\0")
    except OSError:
        words = []
    return shown(" ".join(words)) or f"[{name_of(pid)}]"


def ticks_of(pid):
    """Processor time so far, in seconds; None: it has gone."""
    try:
        fields = _read(pid, "stat").rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_of(pid):
    """(resident, of it anonymous) bytes; None: it has gone."""
    try:
        text = _read(pid, "status")
    except OSError:
        return None
    found = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", text, re.M))
    if "VmRSS" not in found:
        return None
    return (int(found["VmRSS"]) * 1024,
            int(found.get("RssAnon", found["VmRSS"])) * 1024)


def settings_of(pid):
    """HAKMEM's variables that it was started with; None: not to be read."""
    try:
        text = _read(pid, "environ")
    except OSError:
        return None
    return dict(part.split("=", 1) for part in text.split("\0")
                if part.startswith("HAKMEM_") and "=" in part)


# ---- mappings -----------------------------------------------------------------

Mapping = collections.namedtuple("Mapping", "first last rights name rss anon"
                                 " swap")
HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$")


def mappings(pid):
    """Every mapping; None: they may not be read."""
    try:
        text = _read(pid, "smaps")
    except OSError:
        return None
    found = []
    for line in text.splitlines():
        head = HEAD.match(line)
        if head:
            found.append([int(head[1], 16), int(head[2], 16), head[3], head[4],
                          0, 0, 0])
            continue
        name, _, value = line.partition(":")
        at = {"Rss": 4, "Anonymous": 5, "Swap": 6}.get(name)
        if at is not None and found:
            found[-1][at] = int(value.split()[0]) * 1024
    return [Mapping(*one) for one in found]


def _is_arena(one, following):
    """Whether it looks like one of glibc's heaps for threads: 64 MB, aligned,
    of which the first part can be written to."""
    return (one.first % MB64 == 0 and one.rights.startswith("rw") and
            not one.name and one.last - one.first <= MB64 and
            (one.last - one.first == MB64 or following is not None and
             following.first == one.last and
             following.last == one.first + MB64 and
             following.rights.startswith("---")))


def memory_of(pid):
    """A Memory; None: its mappings may not be read."""
    found = mappings(pid)
    if found is None:
        return None
    sums = collections.Counter()
    arenas = 0
    for one, following in zip(found, [*found[1:], None]):
        kind = "mapped"
        if "hakmem" in one.name and not one.name.startswith("/"):
            kind = "hakmem"
        elif one.name == "[heap]":
            kind = "heap"
        elif one.name.startswith("[stack"):
            kind = "stacks"
        elif one.name.startswith("/"):
            kind = "files"
        elif _is_arena(one, following):
            kind = "arena_bytes"
            arenas += 1
        sums[kind] += one.rss if kind == "files" else one.anon
        sums["rss"] += one.rss
        sums["anonymous"] += one.anon
        sums["swapped"] += one.swap
    return Memory(sums["rss"], sums["anonymous"], sums["heap"], arenas,
                  sums["arena_bytes"], sums["mapped"], sums["stacks"],
                  sums["files"], sums["hakmem"], sums["swapped"])
