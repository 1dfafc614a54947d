#!/usr/bin/env python3
"""CPython's own regression tests, with hakmem_py from the start and without.

    tests/python/suite.py --hook DIR [--python PYTHON] [--quick] [--work DIR]
                          [--jobs N] [--again] [--preset VARIABLE=VALUE]
                          [MODULE...]

Passes when exactly those tests fail with the hook that fail without it. DIR
holds the package hakmem_py as `make python` builds it.

Both runs have a virtual environment of their own, so that child interpreters
are the same, those too that are started with -I: a .pth file in one of the
two imports hakmem_py. A module of tests runs as a process of its own,
`python -m test MODULE`. What the run without the hook said is kept in the
work directory and taken from there until --again, or until the interpreter
changes.

Some tests go by the clock. A module that does worse with the hook is run
twice more with it, one after the other, nothing beside it; a test counts as
failed if it fails in all three, as unsteady (which is printed) if it does
not. A crash, a time-out, a test that does not run or is skipped with the hook
alone are failures like any other.

The last line is "N passed, N failed".
"""
import argparse
import collections
import concurrent.futures
import contextlib
import fnmatch
import json
import os
import pathlib
import signal
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# What touches memory, threads and processes. The longest stand first.
FULL = """
    test_concurrent_futures test_multiprocessing_spawn
    test_multiprocessing_forkserver test_multiprocessing_fork test_asyncio
    test_subprocess test_socket test_io test_tracemalloc test_threading
    test_decimal test_ssl test_faulthandler test_capi test_gc test_dict
    test_list test_set test_unicode test_bytes test_long test_struct
    test_memoryview test_array test_buffer test_weakref test_thread
    test_fork1 test_os test_multiprocessing_main_handling test_json
    test_pickle test_re test_sqlite3 test_ctypes test_embed test_sys
    test_atexit test_import test_importlib test_exceptions test_generators
    test_coroutines test_datetime test_xml_etree test_xml_etree_c test_zlib
    test_mmap test_statistics test_copy test_deque test_frame
    test_dictviews test_tuple test_slice test_str test_float test_complex
    test_int test_bool test_descr test_class test_types test_super
    test_functools test_itertools test_collections test_heapq test_bisect
    test_weakset test_userdict test_contextlib test_with test_traceback
    test_threading_local test_queue test_sched
    test_signal test_interpreters test__xxsubinterpreters test__interpreters
    test_code test_compile test_marshal test_csv test_string test_format
    test_fstring test_enum test_dataclasses test_typing test_hashlib
    test_bz2 test_lzma test_zipfile test_tempfile test_resource test_site
    test_runpy test_cmd_line test_repl test_unittest
    test_finalization test_free_threading
""".split()

# Left out of the quick run, which takes less than five minutes with both.
SLOW = """
    test_concurrent_futures test_multiprocessing_* test_asyncio
    test_subprocess test_socket test_io test_ssl test_signal
    test_faulthandler test_zipfile test_lzma test_bz2 test_queue
""".split()

# Tests that ask who the allocator is, or what was imported before them.
DIFFERENT = {
    "test.test_site.StartupImportTests.test_startup_imports":
        "a .pth file has imported hakmem_py",
    "test.test_cmd_line.CmdLineTest.test_pythonmalloc":
        "_testcapi knows the names of Python's own allocators alone",
}

LIMIT = 900  # seconds for a module

# Waits for ever on machines that have vsock and nobody at its other end.
IGNORED = "*VSOCK*"
BAD = {"failed", "missing", "skipped"}


class Failed(Exception):
    """Something went wrong; the text is for the reader."""


# ---- one module -------------------------------------------------------------

def environment(preset):
    """What the tests shall see: nothing of ours, nothing of Python's."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("HAKMEM_", "PYTHON", "LD_PRELOAD",
                                   "PIP_", "MAKE", "MFLAGS"))}
    env.update(preset)
    return env


def stop(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_process(command, env, folder, limit):
    """(exit status or None when the time was up, output).

    An interrupt must be one to the tests, in the background too.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output, \
            subprocess.Popen(command, cwd=folder, env=env, stdout=output,
                             stderr=subprocess.STDOUT,
                             stdin=subprocess.DEVNULL,
                             start_new_session=True, preexec_fn=lambda:
                             signal.signal(signal.SIGINT, signal.SIG_DFL)
                             ) as process:
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            stop(process)
        output.seek(0)
        return status, output.read()


def outcome(case):
    if list(case.iter("failure")) or list(case.iter("error")):
        return "failed"
    if list(case.iter("skipped")):
        return "skipped"
    return "passed"


WORST = ["passed", "skipped", "failed"]


def outcomes(path):
    """{test: passed, skipped or failed}; the worst if it ran more often."""
    try:
        root = xml.etree.ElementTree.parse(path).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return {}
    found = {}
    for case in root.iter("testcase"):
        name, what = case.get("name"), outcome(case)
        found[name] = max(found.get(name, what), what, key=WORST.index)
    return found


def how_it_ended(status):
    """A word for the whole module."""
    if status is None:
        return "timeout"
    if status < 0:
        return f"killed by signal {-status}"
    return "ok" if status == 0 else "failed"


def run_module(python, module, preset, limit=LIMIT):
    """{how, tests, seconds, log} of a run of one module."""
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:
        report = os.path.join(folder, "report.xml")
        inside = os.path.join(folder, "cwd")
        os.mkdir(inside)
        began = time.monotonic()
        status, text = run_process(
            [str(python), "-m", "test", "--junit-xml", report, "-W",
             "--timeout", str(limit - 30), "--ignore", IGNORED, module],
            environment({**preset, "TMPDIR": folder}), inside, limit)
        return {"how": how_it_ended(status),
                "tests": outcomes(report),
                "seconds": round(time.monotonic() - began, 1),
                "log": text[-20000:]}


# ---- the two environments ---------------------------------------------------

def ask(python, code, *arguments, flags=()):
    """What a line of Python prints."""
    done = subprocess.run([str(python), *flags, "-c", code, *arguments],
                          check=False, env=environment({}),
                          capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"{python} fails: {last}")
    return done.stdout.strip()


def make_environment(python, folder, identity, hook):
    """A virtual environment, with a .pth file that imports the hook; kept."""
    mark, wanted = folder / "made-for", f"{identity}\n{hook}\n"
    inner = folder / "bin" / "python"
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return inner
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([str(python), "-m", "venv", "--without-pip", "--symlinks",
                    str(folder)], check=True, env=environment({}))
    if hook:
        site = pathlib.Path(ask(
            inner, "import sysconfig; print(sysconfig.get_path('purelib'))"))
        (site / "hakmem-suite.pth").write_text(
            f"{hook}\nimport hakmem_py\n", encoding="utf-8")
    mark.write_text(wanted, encoding="utf-8")
    return inner


CHECK_HOOK = """
import sys
module = sys.modules.get("hakmem_py")
print(module is not None and bool(module.enabled) and module.__file__)
"""


def check_hook(plain, hooked, hook):
    """The hook must be on in one environment, in children with -I too."""
    for flags in ((), ("-I",)):
        where = ask(hooked, CHECK_HOOK, flags=flags)
        if not where.startswith(str(hook)):
            raise Failed(f"hakmem_py of {hook} is not on in {hooked} "
                         f"{' '.join(flags)}: {where}; run 'make python'")
    if ask(plain, CHECK_HOOK) != "False":
        raise Failed(f"{plain} has a hakmem_py of its own: remove it")


PRESENT = """
import importlib.util, json, sys
print(json.dumps([name for name in sys.argv[1:]
                  if importlib.util.find_spec("test." + name)]))
"""

IDENTITY = """
import os, sys
real = os.path.realpath(sys.executable)
print(sys.version.replace(chr(10), " "), real, os.stat(real).st_mtime)
"""


# ---- both runs of a module --------------------------------------------------

class Suite:
    """Runs modules in both environments and keeps what came out."""

    def __init__(self, args):
        self.args = args
        self.identity = ask(args.python, IDENTITY)
        name = "python-" + ask(args.python, "import sys; print('%d.%d'"
                               " % sys.version_info[:2])")
        self.work = args.work.resolve() / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.plain = make_environment(args.python, self.work / "plain",
                                      self.identity, None)
        self.hooked = None
        if not args.baseline:
            self.hooked = make_environment(args.python, self.work / "hooked",
                                           self.identity, args.hook)
            check_hook(self.plain, self.hooked, args.hook)
        self.lock = threading.Lock()
        self.cache = self.work / "without.json"
        self.known = self.load()

    def load(self):
        try:
            kept = json.loads(self.cache.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = {}
        if kept.get("identity") != self.identity:
            return {}
        return kept["modules"]

    def without(self, module):
        """The run without the hook; kept."""
        with self.lock:
            found = None if self.args.again else self.known.get(module)
        if found:
            return found
        found = run_module(self.plain, module, {})
        with self.lock:
            self.known[module] = found
            scratch = self.cache.with_suffix(".new")
            scratch.write_text(json.dumps(
                {"identity": self.identity, "modules": self.known},
                indent=0), encoding="utf-8")
            scratch.replace(self.cache)
        return found

    def run(self, module):
        """(without, with) of a module."""
        plain = self.without(module)
        if self.args.baseline:
            return plain, plain
        return plain, run_module(self.hooked, module, self.args.preset)


def is_different(name):
    """Whether it is one of DIFFERENT, or a part (subTest) of one."""
    return name.partition(" ")[0] in DIFFERENT


def worse(plain, hooked):
    """{test: why} of what is worse with the hook. The module itself, under
    the name "", if it did not end as it did without the hook."""
    bad = {}
    for name, before in plain["tests"].items():
        after = hooked["tests"].get(name, "missing")
        if after == "missing" or (after in BAD and before not in BAD):
            bad[name] = after
    for name, after in hooked["tests"].items():
        if after == "failed" and plain["tests"].get(name) != "failed":
            bad[name] = after
    if hooked["how"] not in ("ok", plain["how"]) and not bad:
        bad[""] = hooked["how"]
    return {name: why for name, why in bad.items() if not is_different(name)}


def judge(suite, module, plain, hooked):
    """({test: why} that fail in three runs, {test: why} unsteady ones)."""
    bad = worse(plain, hooked)
    unsteady = {}
    for _ in range(2):
        if not bad:
            break
        again = worse(plain, run_module(suite.hooked, module,
                                        suite.args.preset))
        unsteady.update({name: why for name, why in bad.items()
                         if name not in again})
        bad = {name: why for name, why in bad.items() if name in again}
    return bad, unsteady


# ---- the report -------------------------------------------------------------

def describe(module, plain, hooked):
    counts = collections.Counter(hooked["tests"].values())
    text = (f"{module:<36} {len(hooked['tests']):>6} tests, "
            f"{counts['failed']} failed ({hooked['seconds']:.0f} s)")
    before = collections.Counter(plain["tests"].values())["failed"]
    if before or plain["how"] != "ok":
        text += f"; without the hook: {before} failed, {plain['how']}"
    if hooked["how"] != "ok":
        text += f"; ended: {hooked['how']}"
    return text


def reasons(text, lines=60):
    """What a log says of failures: from the first bar on, or its end."""
    _, bar, rest = text.partition("=" * 70)
    return "".join(f"        {line[:300]}\n"
                   for line in (bar + rest or text).splitlines()[-lines:])


class Report:
    """Counts, and the modules to look at again."""

    def __init__(self, absent):
        self.passed = self.failed = 0
        self.unsteady = []
        self.absent = absent

    def add(self, suite, module, plain, hooked, bad, unsteady):
        self.passed += sum(1 for name, what in hooked["tests"].items()
                           if what == "passed" and name not in bad)
        self.failed += len(bad)
        for name, why in sorted(bad.items()):
            print(f"    WORSE: {name or module}: {why}")
        for name, why in sorted(unsteady.items()):
            print(f"    unsteady: {name or module}: {why} in one run of three"
                  " or two")
            self.unsteady.append(name or module)
        if bad:
            log = suite.work / f"{module}.log"
            log.write_text(hooked["log"], encoding="utf-8")
            print(f"    from its log, {log}:")
            print(reasons(hooked["log"]), end="")
        sys.stdout.flush()

    def last(self):
        if self.absent:
            print("not in this Python: " + " ".join(self.absent))
        if self.unsteady:
            print(f"{len(self.unsteady)} unsteady, see above")
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0


def run_all(suite, modules):
    """Every module, several at a time; those that did worse again, alone."""
    there = set(json.loads(ask(suite.args.python, PRESENT, *modules)))
    report = Report([name for name in modules if name not in there])
    modules = [name for name in modules if name in there]
    later = []
    with concurrent.futures.ThreadPoolExecutor(suite.args.jobs) as pool:
        for module, (plain, hooked) in zip(modules,
                                           pool.map(suite.run, modules)):
            print(describe(module, plain, hooked), flush=True)
            if worse(plain, hooked):
                print("    does worse with the hook: to be tried again")
                later.append((module, plain, hooked))
            else:
                report.add(suite, module, plain, hooked, {}, {})
    for module, plain, hooked in later:
        print(f"{module}, tried again:", flush=True)
        bad, unsteady = judge(suite, module, plain, hooked)
        report.add(suite, module, plain, hooked, bad, unsteady)
    return report.last()


# ---- the command line -------------------------------------------------------

def setting(text):
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not VARIABLE=VALUE")
    return name, value


def arguments():
    parser = argparse.ArgumentParser(
        description="CPython's own tests with and without hakmem_py")
    parser.add_argument("--hook", type=pathlib.Path, required=True,
                        help="the directory that holds hakmem_py")
    parser.add_argument("--python", default="python3")
    parser.add_argument("--work", type=pathlib.Path,
                        default=ROOT / "build" / "python-suite",
                        help="for the environments and what is kept")
    parser.add_argument("--quick", action="store_true",
                        help="the modules of make test")
    parser.add_argument("--jobs", type=int,
                        default=min(4, len(os.sched_getaffinity(0))))
    parser.add_argument("--again", action="store_true",
                        help="run without the hook again too")
    parser.add_argument("--baseline", action="store_true",
                        help="the run without the hook alone, to keep it")
    parser.add_argument("--preset", type=setting, action="append", default=[],
                        metavar="VARIABLE=VALUE", help="for the run with the"
                        " hook: HAKMEM_PYTHON=all, say")
    parser.add_argument("modules", nargs="*", metavar="MODULE",
                        help="these alone; * and ? are wild cards")
    args = parser.parse_args()
    args.hook = args.hook.resolve()
    args.preset = dict(args.preset)
    found = shutil.which(args.python)
    if not found:
        raise Failed(f"there is no {args.python}: name one with --python")
    args.python = found
    return args


def chosen(args):
    if args.quick:
        return [name for name in FULL if not any(
            fnmatch.fnmatch(name, pattern) for pattern in SLOW)]
    if not args.modules:
        return FULL
    names = []
    for pattern in args.modules:
        names += [name for name in FULL if fnmatch.fnmatch(name, pattern)] \
            or [pattern]
    return list(dict.fromkeys(names))


def main():
    try:
        args = arguments()
        if not args.baseline and not (args.hook / "hakmem_py").is_dir():
            raise Failed(f"there is no hakmem_py in {args.hook}: run"
                         " 'make python'")
        if ask(args.python, "import importlib.util as u;"
               "print(u.find_spec('test.test_dict') is not None)") != "True":
            raise Failed(f"{args.python} has no tests of its own: on Debian"
                         " install libpython3-testsuite")
        return run_all(Suite(args), chosen(args))
    except Failed as failure:
        sys.exit(f"suite.py: {failure}")


if __name__ == "__main__":
    sys.exit(main())
