"""freeze(), what it owes at exit, and the collector in a forked child.

CPython does not finalize at exit what the collector has put aside (gc.freeze):
a buffered file would lose its end. So freeze() remembers which objects have a
finalizer, and those that are left are finalized here, without writing to any
other object; letting the collector find them would write to all objects.

A forked child that collects writes into the head of every object of its parent.
So its collector skips them while the parent, which shares their pages, lives;
after that, or at exit, the child is a process like any other.
"""
import _io
import gc
import os
import sys
from _weakref import ref

from hakmem_py import _hakmem

_AT_END = "hakmem_py._at_end"
# More objects than 3.12 itself puts aside, and fewer than any program has.
_FEW = 2000

# Whether the program has put objects aside, and whom a child was forked by.
_asked = False
_parent = None
# Of objects that freeze() has put aside.
_remembered = []


def _with_all(call, *arguments):
    """A call while the collector knows what was put aside, too, and does not
    collect."""
    enabled = gc.isenabled()
    gc.disable()
    gc.unfreeze()
    try:
        return call(*arguments)
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _depth(one):
    """How deep in a stack of files it is, from 0, what is no file."""
    if isinstance(one, _io._TextIOBase):
        return 1
    if isinstance(one, _io._BufferedIOBase):
        return 3 if type(one).__module__ == "_io" else 2
    return 4 if isinstance(one, _io._RawIOBase) else 0


class _AtEnd(type(sys)):
    """In sys.modules, and nowhere else: it ends when the interpreter lets go of
    its modules, after all that atexit calls and while they are still whole."""

    def __del__(self):
        kept = set()
        for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
            while stream is not None:
                kept.add(id(stream))
                stream = getattr(stream, "buffer",
                                 getattr(stream, "raw", None))
        left = [known() for known in _remembered] + _unfinished()
        # A file before what it writes to.
        for one in sorted(left, key=_depth):
            if id(one) not in kept and one is not self and one is not None:
                _hakmem.finish(one)


def _unfinished():
    """What has a finalizer, of what is not put aside."""
    return _hakmem.unfinished(gc.get_objects())


def _remember():
    """Before gc.freeze."""
    for one in _unfinished():
        try:
            _remembered.append(ref(one))
        except TypeError:
            pass  # no weak reference can be made


def _finalize_at_exit():
    if _AT_END not in sys.modules:
        sys.modules[_AT_END] = _AtEnd(_AT_END)


# ---- freeze ------------------------------------------------------------------

# Types whose objects may become immortal, beside the built-in ones: of modules
# that are loaded. Their ends mean nothing, and no C code wants to be the only
# one that holds them.
_KNOWN = {"collections": ("OrderedDict", "defaultdict", "deque"),
          "datetime": ("date", "datetime", "time", "timedelta", "timezone",
                       "tzinfo"),
          "decimal": ("Decimal",),
          "functools": ("partial", "_lru_cache_wrapper"),
          "operator": ("attrgetter", "itemgetter", "methodcaller"),
          "re": ("Pattern",),
          "weakref": ("ReferenceType",)}
_KNOWN_OF_TYPES = (
    "BuiltinFunctionType", "CellType", "ClassMethodDescriptorType", "CodeType",
    "FunctionType", "GenericAlias", "GetSetDescriptorType", "MappingProxyType",
    "MemberDescriptorType", "MethodDescriptorType", "MethodType",
    "MethodWrapperType", "ModuleType", "SimpleNamespace", "UnionType",
    "WrapperDescriptorType")
_BUILT_IN = (bytearray, bytes, classmethod, complex, dict, float, frozenset, int,
             list, object, property, range, set, slice, staticmethod, str,
             tuple, type)


def _known():
    import types
    found = list(_BUILT_IN)
    found += [getattr(types, name) for name in _KNOWN_OF_TYPES]
    for module, names in _KNOWN.items():
        for name in names:
            one = getattr(sys.modules.get(module), name, None)
            if isinstance(one, type):
                found.append(one)
    return tuple(found)


def why_not():
    """Why there can't be immortal objects, or None."""
    if hasattr(_hakmem, "immortal"):
        return None
    if sys.version_info >= (3, 12):
        return "this is a debug build of Python, which checks its counts"
    version = ".".join(map(str, sys.version_info[:3]))
    return f"that needs CPython 3.12 or later, this is {version}"


def _is_wanted(immortal):
    """Whether to make objects immortal; NotImplementedError: impossible."""
    reason = why_not()
    if immortal is None:
        immortal = _hakmem.freezes_immortal()
        if immortal and reason is not None:
            print(f"hakmem_py: HAKMEM_PYTHON_FREEZE=immortal: {reason};"
                  " freeze() does the rest", file=sys.stderr)
            return False
    if immortal and reason is not None:
        raise NotImplementedError(f"hakmem_py.freeze(immortal=True): {reason};"
                                  " freeze() without it does the rest")
    return bool(immortal)


def freeze(immortal):
    """See hakmem_py.freeze."""
    global _asked
    immortal = _is_wanted(immortal)
    gc.collect()
    _remember()
    _finalize_at_exit()
    if immortal:
        _with_all(_hakmem.immortal, _known(), _AtEnd)
    gc.freeze()
    _asked = True
    _hakmem.seal()


def freeze_server(say):
    """For hakmem_py.gunicorn and its like: immortal, if that is possible and
    HAKMEM_PYTHON_FREEZE does not say plain; says what was done in one line."""
    immortal = why_not() is None and not _hakmem.freezes_plain()
    freeze(immortal)
    say("hakmem_py: what is loaded is frozen" +
        (", and immortal" if immortal else ""))


# ---- a forked child ------------------------------------------------------------

def _collecting(phase, info):
    """In gc.callbacks: before a collection of more than the youngest objects,
    in a child that outlived its parent, those of its parent are put back."""
    if phase == "start" and info["generation"] != 0 and \
            os.getppid() != _parent:
        gc.callbacks.remove(_collecting)
        gc.unfreeze()


def in_child(parent):
    """After a fork: puts all objects aside, which writes to a handful."""
    global _asked, _parent
    if _parent is None:
        _asked = _asked or gc.get_freeze_count() > _FEW
    if _asked:
        _remember()
    elif _collecting not in gc.callbacks:
        gc.callbacks.append(_collecting)
        if _parent is None:
            import atexit
            atexit.register(gc.unfreeze)
    _parent = parent
    gc.freeze()
