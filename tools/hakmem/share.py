"""The pages in which processes on HAKMEM show their statistics (core/api/share.h).

A page says by itself which statistics it has, by their names, so that one of another
version can be read. Everything in it may be wrong: it is another process's.
"""
import collections
import errno
import mmap
import os
import re
import struct
import tempfile
import time

from hakmem.options import Failed

MAGIC, VERSION = b"HAKSHARE", 1
CPU_CLOCK = 2  # of a process: the kernel's CPUCLOCK_SCHED
HEAD = struct.Struct("=8sIIIIIIQQQ16s")
ASKED_AT = HEAD.size
# asked, sampling; sequence, answered, written
LIVE = struct.Struct("=IIIIQ")
MOST = 1 << 20  # no page is larger
NAME = re.compile(r"([1-9]\d*)(\.[0-9a-f]+)+$")

# pid; library: the file of the core; values by name; age in seconds; fresh: they are
# of now: the process has answered, or used no processor time since it wrote them.
# classes: Class for each size of the lanes Tiny and Pool, or ().
Figures = collections.namedtuple("Figures", "pid library version values age"
                                 " fresh classes")
# Blocks given out ever, in use, free in bins; slabs of 64 KB; the size in bytes.
Class = collections.namedtuple("Class", "allocs live kept slabs block")
CLASS = struct.Struct("=QQQII")
CLASSES = struct.Struct("=II")
CLASSES_AT = ASKED_AT + LIVE.size + 32  # behind a profile's words (live)
WATCH = struct.Struct("=QQ")  # watch_until, rest_cpu
WATCH_AT = CLASSES_AT + CLASSES.size
WATCHED = 5.0        # seconds that a process goes on answering
WATCHED_MOST = 120.0
AT_REST = 150_000    # nanoseconds: in so much a thread ends, and no program works


def folders():
    """Where processes of this user put them; those that are there."""
    found = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        found.append(os.path.join(runtime, "hakmem"))
    standard = f"/run/user/{os.geteuid()}/hakmem"
    # Not only TMPDIR's: the library goes by the C library's P_tmpdir.
    for parent in (os.path.join(os.sep, "tmp"), tempfile.gettempdir()):
        found.append(os.path.join(parent, f"hakmem-{os.geteuid()}"))
    return [folder for folder in dict.fromkeys([*found, standard])
            if os.path.isdir(folder)]


def _own_namespace():
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


class Page:
    """A page that was opened. ValueError: it is none, or not complete."""

    def __init__(self, path):
        self.path = path
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not HEAD.size + LIVE.size <= status.st_size <= MOST:
                raise ValueError("not a page of statistics")
            self.inode = (status.st_dev, status.st_ino)
            self.map = mmap.mmap(fd, status.st_size)
        finally:
            os.close(fd)
        (magic, version, size, self.pid, self.fields, self.values_at, names_at,
         self.namespace, self.core, self.began, library) = HEAD.unpack_from(
             self.map, 0)
        if magic != MAGIC or size > len(self.map):
            raise ValueError("not a page of statistics")
        if version != VERSION:
            raise ValueError(f"a page of version {version}, and this command"
                             f" reads version {VERSION}")
        end = self.values_at + 8 * self.fields
        if self.fields > MOST or end > size or names_at >= size:
            raise ValueError("a damaged page")
        text = bytes(self.map[names_at:size]).split(b"\0", 1)[0].decode(
            errors="replace")
        self.names = [line.split() for line in text.splitlines()]
        self.version = library.split(b"\0")[0].decode(errors="replace")

    def close(self):
        self.map.close()

    def live(self):
        return LIVE.unpack_from(self.map, ASKED_AT)

    def watch(self, seconds):
        """From its next answer on it also answers while it sleeps, for so long."""
        if self.values_at < WATCH_AT + WATCH.size:
            return
        now = time.monotonic_ns()
        until = now + int(min(seconds, WATCHED_MOST) * 1e9)
        others = WATCH.unpack_from(self.map, WATCH_AT)[0]
        if not until < others <= now + WATCHED_MOST * 1e9:
            self.store("Q", WATCH_AT, until)

    def is_at_rest(self):
        """Whether the process has used no time since it wrote its figures."""
        if self.values_at < WATCH_AT + WATCH.size:
            return False
        rest = WATCH.unpack_from(self.map, WATCH_AT)[1]
        try:
            used = time.clock_gettime_ns(~self.pid << 3 | CPU_CLOCK)
        except (OSError, OverflowError):
            return False
        return rest != 0 and 0 <= used - rest < AT_REST

    def ask(self):
        """Asks for fresh figures; the number to wait for."""
        number = (self.live()[0] + 1) & 0xffffffff
        self.store("I", ASKED_AT, number)
        return number

    def store(self, kind, at, number):
        """A word, at once: struct would write zeros first, byte by byte."""
        size = struct.calcsize(kind)
        with memoryview(self.map) as whole, \
                whole[at:at + size] as part, part.cast(kind) as word:
            word[0] = number

    def wait(self, number, seconds):
        """Whether they have come in that time."""
        until = time.monotonic() + seconds
        while self.live()[3] != number:
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)
        return True

    def classes(self):
        """As of the last answer; an older library tells none."""
        if self.values_at < CLASSES_AT + CLASSES.size:
            return ()
        at, count = CLASSES.unpack_from(self.map, CLASSES_AT)
        if count > 1000 or at + count * CLASS.size > len(self.map):
            return ()
        found = [Class(*CLASS.unpack_from(self.map, at + i * CLASS.size))
                 for i in range(count)]
        return tuple(one for one in found if one.block)

    def read(self):
        """(values by name, when they were written, answered)."""
        for _ in range(1000):
            before = self.live()
            values = struct.unpack_from(f"={self.fields}Q", self.map,
                                        self.values_at)
            after = self.live()
            if before[2] == after[2] and before[2] % 2 == 0:
                return {words[0]: value for words, value in zip(
                    self.names, values) if words}, after[4] / 1e9, after[3]
            time.sleep(0.001)
        # Its writer died in the midst of it, or was stopped there.
        return {words[0]: value for words, value in zip(self.names, values)
                if words}, before[4] / 1e9, before[3]


# ---- whose it is --------------------------------------------------------------

def _maps(pid):
    """The lines of a process's mappings; None: they may not be read."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8",
                  errors="replace") as file:
            return file.read().splitlines()
    except (PermissionError, ProcessLookupError):
        return None
    except FileNotFoundError:
        return []


def _is_mapped(page, maps):
    return any(line.split(None, 5)[4] == str(page.inode[1]) and
               os.path.basename(page.path) in line
               for line in maps if len(line.split(None, 5)) == 6)


def _library(page, maps):
    """The file that the core is in."""
    for line in maps or ():
        words = line.split(None, 5)
        first, last = (int(part, 16) for part in words[0].split("-"))
        if first <= page.core < last:
            return words[5] if len(words) == 6 else ""
    return ""


def _is_alive(page):
    """Whether the process lives that has made it; None: that can't be told."""
    if page.namespace not in (0, _own_namespace()):
        return None
    if not os.path.isdir(f"/proc/{page.pid}"):
        return False
    maps = _maps(page.pid)
    if maps is not None:
        # One that has ended and waits for its parent has none.
        return _is_mapped(page, maps)
    return True


def _open(folder, name):
    """A Page of a living process, or None; removes those of dead ones."""
    path = os.path.join(folder, name)
    try:
        page = Page(path)
    except (OSError, ValueError):
        return None
    alive = _is_alive(page)
    if alive:
        return page
    page.close()
    if alive is False:
        try:
            os.unlink(path)
        except OSError:
            pass
    return None


def pages(pid=None):
    """Pages of living processes of this user, or of one."""
    found = []
    for folder in folders():
        try:
            names = sorted(os.listdir(folder))
            if os.stat(folder).st_uid != os.geteuid():
                continue
        except OSError:
            continue
        for name in names:
            match = NAME.match(name)
            if match and (pid is None or int(match[1]) == pid):
                page = _open(folder, name)
                if page is not None:
                    found.append(page)
    return found


# ---- figures ----------------------------------------------------------------------

def figures(page, number=None):
    """A page's Figures; they are fresh if they answer that question."""
    values, written, answered = page.read()
    fresh = (number is not None and answered == number) or page.is_at_rest()
    return Figures(page.pid, _library(page, _maps(page.pid)), page.version,
                   values, max(0.0, time.monotonic() - written),
                   fresh,
                   page.classes() if number is not None else ())


def ask(opened, seconds=0.25, watched=WATCHED):
    """Asks all pages and waits for answers; Figures, in their order. What comes after
    that is answered as well for `watched` seconds, if this is."""
    for page in opened:
        page.watch(watched)
    numbers = [page.ask() for page in opened]
    until = time.monotonic() + seconds
    for page, number in zip(opened, numbers):
        if not page.is_at_rest():
            page.wait(number, max(0.0, until - time.monotonic()))
    return [figures(page, number) for page, number in zip(opened, numbers)]


# ---- processes ----------------------------------------------------------------------

def need_pid(command, text):
    """A process of this user as a number; Failed says what it is instead."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise Failed(f"{command}: {text}: not a process's number; `pgrep NAME`"
                     " finds it", 2)
    pid = int(text)
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            raise Failed(f"{command}: there is no process {pid}", 2) from None
        raise Failed(f"{command}: process {pid}: {error.strerror}",
                     2) from None
    try:
        with open(f"/proc/{pid}/status", encoding="ascii",
                  errors="replace") as file:
            for line in file:
                if line.startswith("Uid:"):
                    owner = int(line.split()[2])
    except OSError:
        pass
    if owner != os.geteuid():
        raise Failed(f"{command}: process {pid} is user {owner}'s; run this"
                     " as that user (sudo -u)", 2)
    return pid


def is_on_hakmem(pid):
    """Whether a copy of HAKMEM seems to be in it: None: that can't be told."""
    maps = _maps(pid)
    if maps is None:
        return None
    return any(re.search(r"libhakmem[\w.]*so|\[anon:hakmem|/hakmem\.so$"
                         r"|_hakmem\.|ngx_http_hakmem", line)
               for line in maps)


def pages_of(pid, seconds=2.0):
    """The pages of a process, which may be so young that they come in a moment."""
    found = pages(pid)
    until = time.monotonic() + seconds
    while not found and time.monotonic() < until and is_on_hakmem(pid):
        time.sleep(0.1)
        found = pages(pid)
    return found
