"""Runs a program in this process as `python` itself would.

Part of `python -m hakmem_py`; imports nothing from the package, as it is also
started by its path:

    _program.py FD on|off script.py|-m module|-c code [arguments]

which is how --compare runs a program on HAKMEM and without it. When the
process ends what it used is written to the file descriptor FD.
"""
import builtins
import io
import os
import sys
import types


class Missing(Exception):
    """There is no such program; the text is for the user."""


def _new_main():
    """A fresh __main__, for good: what runs at exit needs it too."""
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    return module


def _compiled(path):
    """The code of a file; of a .pyc file too."""
    if path.endswith(".pyc"):
        import importlib.machinery
        return importlib.machinery.SourcelessFileLoader(
            "__main__", path).get_code("__main__")
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _script(path):
    """A file, or a directory or archive that has a __main__.py."""
    import importlib.machinery
    inner = importlib.machinery.PathFinder.find_spec("__main__", [path]) \
        if not path.endswith((".py", ".pyc")) else None
    if inner is not None:
        sys.path[0] = path
        return inner.loader.get_code("__main__"), inner, inner.origin
    if os.path.isdir(path):
        raise Missing(f"can't find '__main__' module in '{path}'")
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    full = os.path.join(os.getcwd(), path)
    try:
        return _compiled(full), None, full
    except OSError as error:
        raise Missing(f"can't open file '{path}': [Errno {error.errno}] "
                      f"{error.strerror}") from None


def _module(name):
    """A module, or a package that has a __main__."""
    import importlib.util
    sys.path[0] = os.getcwd()
    try:
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations is not None:
            name += ".__main__"
            found = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise Missing(f"can't run module {name}: {error}") from None
    if found is None:
        raise Missing(f"No module named {name}")
    code = getattr(found.loader, "get_code", lambda _: None)(name)
    if code is None:
        raise Missing(f"No code object available for {name}")
    return code, found, found.origin


def load(arguments):
    """(code, spec, path) of a program; sets sys.path[0]. Missing: none."""
    kind, rest = arguments[0], arguments[1:]
    if kind == "-m":
        return _module(rest[0])
    if kind == "-c":
        sys.path[0] = ""
        return compile(rest[0], "<string>", "exec", dont_inherit=True), \
            None, None
    return _script(kind)


def _without_ours(trace):
    """A traceback that begins in the program."""
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def run(arguments):
    """Runs a program; ends in the way in which the program ends."""
    kind = arguments[0]
    sys.argv = [kind] + arguments[1 if kind not in ("-m", "-c") else 2:]
    main = _new_main()
    try:
        code, spec, path = load(arguments)
        main.__spec__ = spec
        if spec is not None:
            main.__loader__, main.__package__ = spec.loader, spec.parent
        if path is not None:
            main.__file__ = path
        if kind == "-m":
            sys.argv[0] = path
        exec(code, main.__dict__)
    except (SystemExit, KeyboardInterrupt, Missing):
        raise
    except BaseException as error:
        error.__traceback__ = _without_ours(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


def main(name, arguments):
    """run(), with a line and the status 2 (no file) or 1 (no module)."""
    try:
        run(arguments)
    except Missing as missing:
        print(f"{name}: {missing}", file=sys.stderr)
        sys.exit(1 if arguments[0] == "-m" else 2)


def _report(out):
    """What the process took, at its end."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM"):
                os.write(out, line.split()[1].encode())


if __name__ == "__main__":
    import atexit
    atexit.register(_report, int(sys.argv[1]))
    if sys.argv[2] == "on":
        sys.path[0] = os.path.dirname(os.path.dirname(
            os.path.abspath(__file__)))
        import hakmem_py
        if not hakmem_py.enabled:
            sys.exit(f"hakmem_py is not on: {hakmem_py.reason}")
    main(sys.executable, sys.argv[3:])
