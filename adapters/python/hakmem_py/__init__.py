"""HAKMEM under CPython: importing it puts the objects of this process on it.

HAKMEM_PYTHON (default, off, obj, mem, raw, all) says which of the
interpreter's allocator domains, HAKMEM_PYTHON_LANES (default, tiny, all) which
sizes, HAKMEM_PYTHON_LIMIT how much memory the program may have. Whatever HAKMEM
does not serve, and every block from before, stays with the allocator that was
there. `python -m hakmem_py --help` lists every variable.
"""
import atexit
import operator
import os
import sys

from hakmem_py import _hakmem
from hakmem_py._hakmem import (__version__, allocated_blocks, disable, seal,
                               trim)

__all__ = ["__version__", "allocated_blocks", "disable", "enable", "enabled",
           "freeze", "give_back", "give_back_every", "guard", "limit", "limit_memory",
           "limit_served",
           "profile", "reason", "seal", "stats", "trim"]

_DOMAINS = ("raw", "mem", "obj")


def enable(domains=("obj", "mem")):
    """Puts these domains (of "obj", "mem", "raw") on HAKMEM, and no others.

    Returns `enabled`. If it is False nothing was done, and `reason` says why.
    """
    mask = 0
    if isinstance(domains, str):
        domains = (domains,)
    for name in domains:
        if name not in _DOMAINS:
            raise ValueError(f"hakmem_py.enable: no domain {name!r};"
                             " use obj, mem, raw")
        mask |= 1 << _DOMAINS.index(name)
    _hakmem.enable(mask)
    return _hakmem.enabled() != 0


def stats(classes=False):
    """The statistics of the process, as a dict; if asked, of every size class.

    For each domain: enabled, calls (requests), tiny_allocs and larger_allocs
    (those served by Tiny and by the lanes above), fallback_large,
    fallback_memory and fallback_off (those served by the former allocator: too
    large, out of memory, disabled), foreign_frees (its blocks that were freed
    or resized) and limit_refusals. In total: live_bytes and peak_bytes (in
    use), blocks, held_bytes (held by the lanes for blocks), free_bytes (the
    part of it in no block in use), due_bytes (free pages that wait to go back),
    resident_bytes, purged_bytes (given back), give_back, limit, limit_of
    ("memory", "served" or None), lanes, shared, reason. The names tiny, larger,
    fallback, foreign, refused, limit_refused and returned_bytes are old ones,
    kept for one version.
    """
    return _hakmem.stats(classes)


def _checked(name, bytes):
    if bytes is None:
        return None
    try:
        bytes = operator.index(bytes)
    except TypeError:
        raise TypeError(f"hakmem_py.{name}({bytes!r}): must be a whole number"
                        " of bytes, or None") from None
    if bytes < 0:
        raise ValueError(f"hakmem_py.{name}({bytes}): must not be negative")
    return min(bytes, sys.maxsize)


def limit_memory(bytes):
    """Sets the most bytes that this process may have from Python's allocators
    from here on: obj, mem and raw, blocks of every size. None: no limit.

    A request beyond it is a MemoryError, from which a program can recover. Once
    the limit has been reached, requests may exceed it by a reserve, a quarter
    of it (64 KB to 4 MB; a single block by a quarter of that), so that the
    error can be handled; the reserve is available again when as much has been
    freed.

    While it is set all three domains are on and HAKMEM serves every size, so
    that each block is counted, rounded up to what it takes; disable() ends it.
    Not counted: older blocks that don't grow, and what C libraries take from
    malloc and mmap themselves (RLIMIT_AS is for those).

    One limit for the process, forked children and all its interpreters; any
    thread may set it. Replaces limit_served. Returns the previous limit.
    ValueError if more is in use, RuntimeError if it can't be enforced (debug
    hooks, or tracemalloc that HAKMEM can't get beneath).
    """
    return _hakmem.limit_memory(_checked("limit_memory", bytes))


def limit_served(bytes):
    """Sets the most bytes that blocks of HAKMEM may have; None: no limit. What
    HAKMEM does not serve (with HAKMEM_PYTHON_LANES=tiny all above 1024 B) is
    not counted: limit_memory() limits the whole program.

    A request beyond it is a MemoryError; small objects then get 64 KB more, so
    that it can be handled. Replaces limit_memory. Returns the previous limit.
    ValueError if more is in use.
    """
    return _hakmem.limit_served(_checked("limit_served", bytes))


def limit(bytes):
    """The old name of limit_served(), for one version."""
    return _hakmem.limit_served(_checked("limit", bytes))


def give_back(on=True):
    """Whether idle memory also goes back while the program makes no requests,
    as it does unless HAKMEM_PYTHON_GIVE_BACK=0.

    A thread without Python state does it, which is there only while something
    waits to go and never during a fork. One switch for the process and its
    forked children; any thread may set it.
    """
    _hakmem.give_back(bool(on))


def give_back_every(seconds):
    """The old name of give_back(), for one version: None or 0 is off, and every
    other number on."""
    if seconds is not None and not 0 <= seconds < 1e6:
        raise ValueError(f"hakmem_py.give_back_every({seconds}): must be from"
                         " 0 to 1000000 seconds")
    give_back(seconds)


def freeze(immortal=None):
    """For the parent of a prefork server, once everything is loaded and before
    it forks: collects garbage, hides all objects from the collector (gc.freeze)
    and seals their memory. Children then allocate from fresh memory, and
    neither they nor the parent write to the pages that they share, except to
    change an object or its reference count.

    immortal=True, on CPython 3.12 and later: reference counts are not written
    either. Live objects get an immortal reference count (PEP 683) and are never
    freed, in the parent and its children: dropped data stays.
    sys.getrefcount() of them is a constant, and code that checks for a count of
    one copies them. Objects whose end has a meaning stay mortal: those with
    __del__ or with a weak reference to them, open files and whatever else other
    C code made. None: as HAKMEM_PYTHON_FREEZE says.

    At exit finalizers run as usual (after gc.freeze alone they do not), except
    those of objects that can't have a weak reference.

    Call it in the main interpreter (immortal: RuntimeError in another one);
    other threads may run. It may be called again. NotImplementedError: immortal
    before 3.12, or in a debug build.
    """
    from hakmem_py import _freeze
    _freeze.freeze(immortal)


def guard(rate=128 * 2**20):
    """Guards a sample of HAKMEM's blocks from here on, one in `rate` bytes on the
    average, 1: each for which there is room; 0: none. As HAKMEM_GUARD_RATE does.

    A guarded block lies alone beside a page without access, and so does its memory
    for a while after it is freed. When C code, an extension's, touches what is not its
    own, a report on standard error tells where that was and where the block was
    allocated and freed, by lines of Python too; then what faulthandler or the process
    do about SIGSEGV. A block that is freed twice, and what was written around one,
    end the process in the same way by abort(). For all of the process; any thread may
    call it. stats() has `guards`, blocks that were guarded, and `guards_missed`, those
    that were due and for which there was no room (HAKMEM_GUARD_MEMORY). Returns the
    rate that was. ValueError, TypeError: a bad rate; MemoryError.
    """
    if rate is None:
        raise TypeError("hakmem_py.guard(None): must be a whole number of bytes")
    return _hakmem.guard(_checked("guard", rate))


def profile(path=None, rate=None, format=None):
    """Which lines of Python hold the memory, and made it:

        with hakmem_py.profile("out.html") as p:
            work()
        print(p.top(5))

    One sample each `rate` bytes (default 512 KB) that obj, mem and raw are asked
    for, with the stack that asks; all that is said are estimates from those. At
    the end of the with statement it is written to `path`, if given: a page with a
    flame graph (html), pprof's format (pb.gz), collapsed stacks (txt) or
    speedscope's (json), as `format` or the path's ending says; %p in it is the
    process's number. p.top(n), p.collapsed(), p.write(path) tell what is so now
    or, later, at its end; p.start() and p.stop() are for elsewhere than in a with
    statement. Of two, later - earlier is what grew.

    While one runs, all domains and all sizes are HAKMEM's, in all threads. Any
    thread may begin and end one, and several may run, at the first one's rate. A
    forked child has its own. ValueError, TypeError: bad arguments; RuntimeError:
    there can be none (debug hooks, tracemalloc that can't be looked beneath).
    """
    from hakmem_py import _profile
    return _profile.Profile(path, rate, format)


def _in_child():
    """After a fork: what HAKMEM_PYTHON_SEAL asks of the collector."""
    global _pid
    parent, _pid = _pid, os.getpid()
    if _hakmem.freezes_forks():
        from hakmem_py import _freeze
        _freeze.in_child(parent)


def _debugmallocstats():
    """sys._debugmallocstats() with HAKMEM's size classes in front, as the
    function itself is silent about objects once pymalloc has none."""
    found = stats(classes=True)["classes"]
    lines = [f"Small block threshold = {found[-1]['size']}, in {len(found)}"
             " size classes (HAKMEM).", "", " size      blocks tiny_allocs"]
    lines += [f"{entry['size']:>5}{entry['blocks']:>12}"
              f"{entry['tiny_allocs']:>12}"
              for entry in found if entry["tiny_allocs"]]
    print(*lines, "", sep="\n", file=sys.__stderr__, flush=True)
    _debugmallocstats.before()


def __getattr__(name):
    if name == "enabled":
        return _hakmem.enabled() != 0
    if name == "reason":
        return _hakmem.reason()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_hakmem.start()
_pid = os.getpid()
os.register_at_fork(before=_hakmem.before_fork,
                    after_in_parent=_hakmem.after_fork,
                    after_in_child=_in_child)
if _hakmem.is_main():
    atexit.register(_hakmem.at_exit)
    _path = _hakmem.profile_path()
    if _path is not None and _hakmem.reason() == "HAKMEM_PYTHON=off":
        print("hakmem: HAKMEM_PYTHON=off: HAKMEM_PYTHON_PROFILE writes nothing",
              file=sys.stderr)
    elif _path is not None:
        from hakmem_py import _profile
        _profile.by_environment(_path)
if _hakmem.enabled() != 0:
    _debugmallocstats.before = getattr(sys._debugmallocstats, "before",
                                       sys._debugmallocstats)
    sys._debugmallocstats = _debugmallocstats
