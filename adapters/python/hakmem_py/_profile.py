"""hakmem_py.profile(): which lines of Python hold the memory.

Imported when the first profile is asked for. The core samples and counts; here
are the words around it.
"""
import atexit
import collections
import operator
import os
import sys

from hakmem_py import _hakmem, _program

FORMATS = ("html", "pb.gz", "txt", "json")
WHAT = ("live", "allocated")

Line = collections.namedtuple("Line", "file line function bytes blocks")


def format_of(path, format=None):
    """The format that is asked for, or the one that the path's ending names."""
    if format is None:
        for known in FORMATS:
            if os.fspath(path).endswith("." + known):
                return known
        raise ValueError(f"hakmem_py.profile: {os.fspath(path)!r} ends in none"
                         f" of {' '.join('.' + one for one in FORMATS)}")
    if format not in FORMATS:
        raise ValueError(f"hakmem_py.profile: no format {format!r}; use one of"
                         f" {', '.join(FORMATS)}")
    return format


def _checked_rate(rate):
    if rate is None:
        return _hakmem.profile_rate()
    try:
        rate = operator.index(rate)
    except TypeError:
        raise TypeError(f"hakmem_py.profile: rate={rate!r}: must be a whole"
                        " number of bytes, or None") from None
    if not 1 <= rate <= 1 << 40:
        raise ValueError(f"hakmem_py.profile: rate={rate}: must be from 1 to"
                         " 1099511627776 bytes")
    return rate


def _column(what):
    if what not in WHAT:
        raise ValueError(f"hakmem_py.profile: no {what!r}; use live or"
                         " allocated")
    return 3 if what == "live" else 1


class Profile:
    """What was allocated while it ran, by the line that asked: all of it, and
    what of it is in use. Estimates, from one sample each `rate` bytes.

    Of one process: a forked child that goes on with it has its own, which begins
    with what its parent has in use.
    """

    def __init__(self, path=None, rate=None, format=None):
        if path is not None:
            format = format_of(path, format)
        elif format is not None:
            format_of("", format)
        self.path, self.format = path, format
        self.rate = _checked_rate(rate)
        self._first = self._last = None
        self._runs = False

    # ---- from when to when

    def start(self):
        """Begins; returns itself. While another profile runs its rate holds."""
        if self._runs:
            raise RuntimeError("hakmem_py.profile: it runs already")
        self.rate = _hakmem.profile_start(self.rate, _program.__file__)
        self._runs = True
        self._first, self._last = _hakmem.profile_read(), None
        return self

    def stop(self):
        """Ends: from here on it says what was so at this moment. Blocks that live
        on are followed until they are freed, by other profiles."""
        if self._runs:
            self._last = _hakmem.profile_read()
            self._runs = False
            _hakmem.profile_stop()

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.stop()
        if self.path is not None:
            self.write(self.path, self.format)

    def __del__(self):
        if getattr(self, "_runs", False):
            self.stop()

    # ---- what it says

    def _stacks(self):
        """What it has counted, a capsule of the module's."""
        if self._first is None and self._last is None:
            raise RuntimeError("hakmem_py.profile: it has not begun: use it in"
                               " a with statement, or call start()")
        last = self._last if self._last is not None else \
            _hakmem.profile_read()
        if self._first is None:
            return last
        return _hakmem.profile_grown(last, self._first)

    def __sub__(self, other):
        """What is more in this profile than in an earlier one of this process."""
        if not isinstance(other, Profile):
            return NotImplemented
        grown = Profile(rate=self.rate)
        grown._last = _hakmem.profile_grown(self._stacks(),
                                                 other._stacks())
        return grown

    def snapshot(self):
        """A profile of what this one says now, to be subtracted from a later."""
        now = Profile(rate=self.rate)
        now._last = self._stacks()
        return now

    def collapsed(self, what="live"):
        """Its stacks as text, a line each: the outermost frame first, then its
        bytes, as flamegraph.pl and speedscope read it."""
        column = _column(what)
        sums = collections.Counter()
        for stack in _hakmem.profile_list(self._stacks()):
            frames = stack[0] or (("", "[no Python]", 0),)
            text = ";".join(
                f"{function.replace(';', ':')} ({file.replace(';', ':')}:{line})"
                if file else function
                for file, function, line in reversed(frames))
            sums[text] += stack[column]
        return "".join(f"{text} {number}\n"
                       for text, number in sorted(sums.items()) if number)

    def top(self, n=10, what="live", total=False):
        """The n lines with the most bytes, as tuples (file, line, function, bytes,
        blocks). total: a line has all that was asked for beneath it, not only
        what it asked for itself."""
        column = _column(what)
        sums = {}
        for stack in _hakmem.profile_list(self._stacks()):
            frames = stack[0] or (("", "[no Python]", 0),)
            for file, function, line in set(frames if total else frames[:1]):
                one = sums.setdefault((file, line, function), [0, 0])
                one[0] += stack[column]
                one[1] += stack[column + 1]
        lines = [Line(*key, bytes, round(blocks))
                 for key, (bytes, blocks) in sums.items() if bytes]
        lines.sort(key=lambda line: (-line.bytes, line))
        return lines[:n]

    def write(self, path, format=None):
        """Writes it to a file: .html, a page with a flame graph; .pb.gz, for
        pprof; .txt, collapsed stacks; .json, for speedscope. %p in the name is the
        process's number. Returns the name. OSError: it can't be written."""
        format = format_of(path, format)
        path = os.fspath(path).replace("%p", str(os.getpid()))
        copy = self._stacks()
        with open(path, "wb") as file:
            try:
                _hakmem.profile_write(copy, file.fileno(),
                                      FORMATS.index(format))
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
        return path


# ---- at exit ------------------------------------------------------------------------

class AtExit:
    """A profile of the whole process, which is written when it ends: by a forked
    child too, where the name has a %p."""

    def __init__(self, name, path, loud=False):
        self.name, self.path, self.loud = name, path, loud
        self.owner = os.getpid()
        self.profile = Profile(path).start()
        try:  # a daemon goes elsewhere
            self.path = os.path.abspath(path)
        except OSError:
            pass
        atexit.register(self.write)
        os.register_at_fork(after_in_child=self.in_child)

    def in_child(self):
        """multiprocessing ends its children without atexit."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and "%p" in self.path:
            util.register_after_fork(self, lambda self: util.Finalize(
                None, self.write, exitpriority=-100))

    def write(self):
        if os.getpid() != self.owner and "%p" not in self.path:
            return
        try:
            path = self.profile.write(self.path)
        except OSError as error:
            print(f"hakmem: {self.name}: the profile can't be written:"
                  f" {error.strerror}: {error.filename}", file=sys.stderr)
        else:
            if self.loud:
                print(f"hakmem: the profile is {path}", file=sys.stderr)


def by_environment(path):
    """HAKMEM_PYTHON_PROFILE, whose ending is a known one."""
    try:
        AtExit(f"HAKMEM_PYTHON_PROFILE={path}", path)
    except RuntimeError as error:
        print(f"hakmem: HAKMEM_PYTHON_PROFILE={path}: there is no profile:"
              f" {str(error).partition('be none: ')[2] or error}",
              file=sys.stderr)
