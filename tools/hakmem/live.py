"""A profile of a process that runs, asked for by its page (core/api/live.h).

An order in the page makes the process sample; every second, and at the next order, it
writes what it has sampled beside the page, as numbers. Whose functions these are is
found out here: symbols. The process stops by itself when nobody renews the lease.
"""
import fcntl
import os
import struct
import time

from hakmem import share, symbols
from hakmem.profiles import Profile

# sample_rate, sample_until; sampled, sample_state, sample_error, sample_files
ORDER = struct.Struct("=QQIIII")
ORDER_AT = share.ASKED_AT + share.LIVE.size
SAMPLING_AT = share.ASKED_AT + 4
NONE, ON, OTHERS, FAILED = range(4)
LEASE = 5.0      # seconds that an order holds without being renewed
PAUSE = 0.05     # between two questions

# magic, version, head, size, pid, state, rate, began, written, core, samples,
# dropped, stacks, words, names, bytes, and where each is
FILE = struct.Struct("=8sIIQIIQQQQQQIIIIIIII")
STACK = struct.Struct("=IHHQQQQ")
MAGIC, VERSION = b"HAKSTACK", 1
MOST = 1 << 30
OF_C = 0xffffffff  # `file` of a frame that is a function in C
WHOLE = 1024       # in which blocks are counted
DEEPEST = 64       # C frames that a stack has at most
INSIDE = 24        # of which so many may be HAKMEM's own


class Busy(Exception):
    """Another command has asked already."""


class Older(Exception):
    """The library in the process knows no such order; its version."""


class Asker:
    """A page, of which the orders are ours. OSError: it is gone; Busy; Older."""

    def __init__(self, page):
        self.page, self.number, self.files, self.data = page, None, None, None
        self.path = page.path + ".profile"
        if page.values_at < ORDER_AT + ORDER.size:
            raise Older(page.version)
        self.fd = os.open(page.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.fd)
            raise Busy() from None
        self._forget()

    def _forget(self):
        try:
            os.unlink(self.path)
        except OSError:
            pass

    def _answer(self):
        """(sampled, state, error, files)."""
        return ORDER.unpack_from(self.page.map, ORDER_AT)[2:]

    def renew(self, seconds=LEASE):
        """It goes on for so long from now."""
        until = time.monotonic_ns() + int(seconds * 1e9) if seconds else 0
        self.page.store("Q", ORDER_AT + 8, until)

    def order(self, rate=None):
        """To sample, and to write what there is now."""
        if rate is not None:
            self.page.store("Q", ORDER_AT, rate)
        self.renew()
        self.number = (self.page.live()[1] + 1) & 0xffffffff
        self.page.store("I", SAMPLING_AT, self.number)
        self.page.ask()

    def is_answered(self):
        """Whether the last order was seen; asks again if not."""
        if self._answer()[0] == self.number:
            return True
        self.page.ask()
        return False

    def state(self):
        return self._answer()[1]

    def error(self):
        return self._answer()[2]

    def look(self):
        """It goes on, and is asked to see to itself."""
        self.renew()
        self.page.ask()
        return self.keep()

    def keep(self):
        """Reads the file, if there is a new one; whether there is any."""
        files = self._answer()[3]
        if files != self.files:
            try:
                with open(self.path, "rb") as file:
                    self.data = file.read(MOST)
                self.files = files
            except OSError:
                pass
        return self.data is not None

    def end(self):
        """It samples no more; the page is anybody's."""
        self.renew(0)
        self.number = (self.page.live()[1] + 1) & 0xffffffff
        self.page.store("I", SAMPLING_AT, self.number)
        self.page.ask()
        self._forget()
        os.close(self.fd)


# ---- what is in a file ----------------------------------------------------------

class File:
    """A file that was read. ValueError: it is none."""

    def __init__(self, data):
        if len(data) < FILE.size:
            raise ValueError("it is cut off")
        (magic, version, head, size, self.pid, self.state, self.rate,
         self.began, self.written, self.core, self.samples, self.dropped,
         stacks, words, names, text, stacks_at, words_at, names_at,
         text_at) = FILE.unpack_from(data)
        if magic != MAGIC or version != VERSION or head < FILE.size:
            raise ValueError("it is of another version")
        parts = ((stacks_at, stacks * STACK.size), (words_at, words * 8),
                 (names_at, names * 4), (text_at, text))
        if size > len(data) or any(at < head or at + length > size
                                   for at, length in parts):
            raise ValueError("it is damaged")
        self.text = data[text_at:text_at + text]
        self.names = struct.unpack_from(f"={names}I", data, names_at)
        self.words = struct.unpack_from(f"={words}Q", data, words_at)
        self.stacks = list(STACK.iter_unpack(
            data[stacks_at:stacks_at + stacks * STACK.size]))

    def name(self, number):
        if not 0 < number < len(self.names):
            return None
        at = self.names[number]
        return self.text[at:].split(b"\0", 1)[0].decode(errors="replace") \
            if at < len(self.text) else None

    def frames(self, at, pcs, frames):
        """(program counters, runtime's frames as four numbers), leaf first."""
        if at + pcs + 2 * frames > len(self.words):
            return (), ()
        words = self.words[at:at + pcs + 2 * frames]
        return words[:pcs], [
            (first & OF_C, first >> 32, second & OF_C, second >> 32)
            for first, second in zip(words[pcs::2], words[pcs + 1::2])]


def _runtime(file, profile, frame, of_c):
    """The number of a runtime's frame."""
    name, function, line, _ = frame
    if name == OF_C:
        return of_c((function << 32 | line) + 1)
    return profile.frame(file.name(function) or "[unknown]", file.name(name),
                         line)


def _add_stack(profile, file, stack, of_c, is_inside):
    at, pcs, frames, made, live, made_count, live_count = stack
    counters, told = file.frames(at, pcs, frames)
    found = [_runtime(file, profile, frame, of_c) for frame in reversed(told)]
    if len(counters) == DEEPEST:
        found.append(profile.frame("[deeper than is told]"))
    inside = 0
    for i, counter in enumerate(counters[:INSIDE]):
        if is_inside(counter - 1):
            inside = i + 1
    found += [of_c(counter) for counter in reversed(counters[inside:])]
    if not found:
        found = [profile.frame("[unknown]")]
    profile.add(found, (live, (live_count + WHOLE // 2) // WHOLE, made,
                        (made_count + WHOLE // 2) // WHOLE))


def profile_of(pid, command, data, code):
    """A Profile of some files' contents; `code`: symbols.Code of the process."""
    files = [File(one) for one in data]
    profile = Profile(pid, command, files[0].rate if files else 0)
    for file in files:
        code.core(file.core)

        def of_c(counter):
            # What returns there was called by the instruction before.
            symbol = code.find(counter - 1)
            return profile.frame(symbol.name, counter=counter,
                                 module=symbol.module)

        for stack in file.stacks:
            _add_stack(profile, file, stack, of_c, code.is_inside)
        if file.began:
            profile.seconds = max(profile.seconds, (
                file.written - file.began) / 1e9)
    profile.modules = code.modules()
    return profile


# ---- watching ----------------------------------------------------------------------

class Watch:
    """All pages of a process, over some time."""

    def __init__(self, pid, rate):
        self.pid, self.rate = pid, rate
        self.askers, self.problems = [], []
        self.code = symbols.Code(pid)
        self.looked = 0.0

    def find(self):
        """Pages that have come; True: there is one."""
        known = {asker.page.path for asker in self.askers}
        for page in share.pages(self.pid):
            if page.path in known:
                page.close()
                continue
            try:
                asker = Asker(page)
                asker.order(self.rate)
                self.askers.append(asker)
            except (Busy, Older, OSError) as problem:
                self.problems.append(problem)
                page.close()
        return bool(self.askers)

    def look(self):
        """What is to be done ten times a second or so."""
        for asker in self.askers:
            asker.look()
        if time.monotonic() - self.looked > 0.5:
            self.looked = time.monotonic()
            self.code.look()

    def answered(self, seconds, some=any):
        """Whether some, or all, have seen the last order within that time."""
        until = time.monotonic() + seconds
        while True:
            seen = [asker.is_answered() for asker in self.askers]
            if some(seen) and seen:
                return True
            if time.monotonic() >= until or not os.path.exists(
                    f"/proc/{self.pid}"):
                return False
            time.sleep(PAUSE)

    def finish(self, seconds=2.0):
        """What there is now; the files' contents."""
        for asker in self.askers:
            asker.order()
        self.answered(seconds, all)
        return self.kept()

    def kept(self):
        self.look()
        return [asker.data for asker in self.askers if asker.data is not None]

    def close(self):
        for asker in self.askers:
            asker.end()
            asker.page.close()
        self.askers = []
