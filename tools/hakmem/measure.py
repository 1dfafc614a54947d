"""A run of a program, measured: time, CPU, peak, faults, what rests.

The helper hakmem-measure (measure.c) starts it and waits for it.

A program that does not end is *at rest* when all its processes together have
used next to no CPU for a while: it waits for requests, or sleeps. Then its resident
memory is read, and it is told to end (SIGTERM, and SIGKILL when it takes long).
"""
import collections
import os
import select
import signal
import subprocess
import tempfile
import time

from hakmem import places
from hakmem.options import Failed

LOOK_EVERY = 0.1
PATIENCE = 5.0  # for a program that was told to end
BUSY = 0.02  # of the time that is CPU: less than that is rest

# status: as os.waitstatus_to_exitcode; rest: bytes, or None: it has ended.
Run = collections.namedtuple(
    "Run", "status output errors seconds cpu peak faults rest")


# ---- a group of processes -----------------------------------------------------

def group(leader):
    """The processes of a process group: (pid, CPU ticks)."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != b"Z":
            found.append((int(name), int(fields[11]) + int(fields[12])))
    return found


def _kilobytes(path, name):
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1])
    except OSError:
        pass
    return None


def resident(pids):
    """Bytes: of one process its VmRSS; of several what each has its share in."""
    total = 0
    for pid in pids:
        share = _kilobytes(f"/proc/{pid}/smaps_rollup", b"Pss:") \
            if len(pids) > 1 else None
        if share is None:
            share = _kilobytes(f"/proc/{pid}/status", b"VmRSS:")
        total += share or 0
    return total * 1024


class _Rest:
    """Whether a group has been at rest for so many seconds."""

    def __init__(self, seconds):
        self.seconds, self.since, self.ticks = seconds, time.monotonic(), None
        self.per_second = os.sysconf("SC_CLK_TCK")

    def reached(self, processes):
        now = time.monotonic()
        ticks = sum(used for _, used in processes)
        allowed = max(1, BUSY * (now - self.since) * self.per_second)
        if self.ticks is None or abs(ticks - self.ticks) > allowed:
            self.ticks, self.since = ticks, now
        return processes and now - self.since >= self.seconds


# ---- a run --------------------------------------------------------------------

class _Lines:
    """What the helper says, as it comes."""

    def __init__(self, fd):
        self.fd, self.text, self.over = fd, b"", False

    def wait(self, seconds):
        """Reads what comes in that time; no longer once it is over."""
        if not self.over and select.select([self.fd], [], [], seconds)[0]:
            more = os.read(self.fd, 4096)
            self.over = not more
            self.text += more

    def find(self, name):
        """The words behind the line's name, or None."""
        for line in self.text.split(b"\n")[:-1]:
            words = line.split()
            if words and words[0] == name:
                return words[1:]
        return None


def _end(leader, lines):
    """Tells the program to end, and makes it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(leader, number)
        except ProcessLookupError:
            pass
        until = time.monotonic() + PATIENCE
        while not lines.over and time.monotonic() < until:
            lines.wait(LOOK_EVERY)
            if lines.find(b"end") is not None:
                break
        if lines.find(b"end") is not None:
            break
    try:
        os.killpg(leader, signal.SIGKILL)  # what it has left behind
    except (ProcessLookupError, PermissionError):
        pass


def _watch(lines, rest):
    """Waits for the end, or for rest; (leader, bytes at rest or None)."""
    leader, quiet, found = None, None, None
    while not lines.over:
        lines.wait(LOOK_EVERY if rest is not None else None)
        if lines.find(b"end") is not None or lines.find(b"exec") is not None:
            break
        if leader is None and lines.find(b"pid") is not None:
            leader = int(lines.find(b"pid")[0])
            quiet = _Rest(rest) if rest is not None else None
        if quiet is not None:
            processes = group(leader)
            if quiet.reached(processes):
                found = resident([pid for pid, _ in processes])
                break
    return leader, found


def run_once(program, preload, env, rest=None):
    """A Run. `preload`: a library or ""; `rest`: seconds, None: until it ends."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output, \
            tempfile.TemporaryFile() as errors:
        helper = subprocess.Popen(
            [places.helper("measure"), str(writer), preload, *program],
            stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            pass_fds=[writer], env=env)
        os.close(writer)
        lines = _Lines(reader)
        leader, found = None, None
        try:
            leader, found = _watch(lines, rest)
        finally:
            pid = lines.find(b"pid")
            if pid is not None and lines.find(b"end") is None:
                _end(int(pid[0]), lines)
            os.close(reader)
            helper.wait()
        failed = lines.find(b"exec")
        if failed is not None:
            raise Failed(f"{program[0]}: can't be executed:"
                         f" {os.strerror(int(failed[0]))}",
                         127 if int(failed[0]) == 2 else 126)
        end = lines.find(b"end")
        if end is None:
            raise Failed("the helper hakmem-measure ended before the program")
        output.seek(0)
        errors.seek(0)
        return Run(os.waitstatus_to_exitcode(int(end[0])), output.read(),
                   errors.read(), float(end[1]),
                   float(end[2]) + float(end[3]), int(end[4]) * 1024,
                   int(end[5]), found)
