"""python -m hakmem_py: a program runs as under python itself."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile

import hakmem_py

PROBE = '''
import json, sys
import __main__
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv, "path0": sys.path[0], "name": __name__,
    "file": globals().get("__file__"), "package": __package__,
    "main": main.__dict__ is globals(), "doc": __doc__,
    "spec": getattr(__spec__, "name", None),
    "names": sorted(name for name in globals()
                    if name not in ("__cached__", "__annotations__",
                                    "__file__"))}))
'''

# Where the package under test is, whatever directory a test works in.
PLACE = os.path.dirname(os.path.dirname(os.path.abspath(hakmem_py.__file__)))

STATS = "domain"  # the table that -v prints begins with it


# What the caller has set of ours is not the tests' concern.
PLAIN = {name: value for name, value in os.environ.items()
         if not name.startswith("HAKMEM_")}


def python(*arguments, cwd=None, **variables):
    """Runs the interpreter that runs this."""
    env = {**PLAIN, "PYTHONPATH": PLACE, **variables}
    return subprocess.run([sys.executable, *arguments], check=False, cwd=cwd,
                          env=env, capture_output=True, text=True, timeout=300)


def ours(*arguments, **options):
    return python("-m", "hakmem_py", *arguments, **options)


class Folder(unittest.TestCase):
    """A directory of its own for each test."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)


class Same(Folder):
    """What a program sees and how it ends is the same both ways."""

    def both(self, *arguments, strip="", **options):
        plain = python(*arguments, **options)
        run = ours(*arguments, **options)
        self.assertEqual(run.returncode, plain.returncode,
                         plain.stderr + run.stderr)
        self.assertEqual(run.stdout, plain.stdout)
        return plain, run

    def both_and_errors(self, *arguments, **options):
        plain, run = self.both(*arguments, **options)
        self.assertEqual(run.stderr, plain.stderr)

    def test_script(self):
        path = self.write("probe.py", PROBE)
        plain, _ = self.both(path, "a", "-b", "-v")
        self.assertIn("-v", plain.stdout)

    def test_script_of_another_directory(self):
        path = self.write("sub/probe.py", "import beside\n" + PROBE)
        self.write("sub/beside.py", "")
        self.both(os.path.relpath(path, self.folder), cwd=self.folder)

    def test_traceback_of_a_relative_script(self):
        self.write("sub/bad.py", "def f():\n    1 / 0\nf()\n")
        self.both_and_errors("sub/../sub/bad.py", cwd=self.folder)

    def test_linked_script(self):
        self.write("beside.py", "")
        path = self.write("probe.py", "import beside\n" + PROBE)
        (self.folder / "other").mkdir()
        os.symlink(path, self.folder / "other" / "link.py")
        self.both(str(self.folder / "other" / "link.py"))

    def test_script_with_an_encoding(self):
        path = self.folder / "latin.py"
        path.write_bytes(b"# coding: latin-1\nprint(ascii('\xe4'))\n")
        self.both(str(path))

    def test_compiled_script(self):
        path = self.write("probe.py", "print('compiled')\n")
        python("-m", "compileall", "-b", "-q", path)
        os.unlink(path)
        self.both(path + "c")

    def test_directory(self):
        self.write("app/__main__.py", PROBE)
        self.both(str(self.folder / "app"), "x")

    def test_directory_without_a_main(self):
        (self.folder / "app").mkdir()
        run = ours(str(self.folder / "app"))
        self.assertIn("can't find '__main__'", run.stderr)
        self.assertNotEqual(run.returncode, 0)

    def test_archive(self):
        archive = self.folder / "app.pyz"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("__main__.py", PROBE)
        self.both(str(archive), "x")

    def test_module(self):
        self.write("probe.py", PROBE)
        self.both("-m", "probe", "a", "-v", cwd=self.folder)

    def test_module_in_a_package(self):
        self.write("pack/__init__.py", "")
        self.write("pack/inner.py", "from . import __name__ as me\n" + PROBE)
        self.both("-m", "pack.inner", "a", cwd=self.folder)

    def test_package(self):
        self.write("pack/__init__.py", "")
        self.write("pack/__main__.py", PROBE)
        self.both("-m", "pack", "a", cwd=self.folder)

    def test_code(self):
        self.both("-c", PROBE, "a", "b")

    def test_status(self):
        for code in ("pass", "raise SystemExit(7)", "raise SystemExit('no')",
                     "import os; os._exit(3)",
                     "import os, signal; os.kill(os.getpid(), 15)",
                     "import sys; sys.exit(None)"):
            with self.subTest(code):
                self.both_and_errors("-c", code)

    def test_exceptions(self):
        path = self.write("bad.py", "def f():\n    raise KeyError('x')\nf()\n")
        self.both_and_errors(path)
        path = self.write("chained.py", "try:\n    1 / 0\nexcept Exception"
                          " as e:\n    raise ValueError('y') from e\n")
        self.both_and_errors(path)

    def test_syntax_error(self):
        self.both_and_errors(self.write("bad.py", "a = = 1\n"))

    def test_excepthook(self):
        self.both_and_errors("-c", "import sys\nsys.excepthook = lambda t, v,"
                             " b: print('hook', t.__name__, b.tb_lineno)\n"
                             "1 / 0")

    def test_interrupt(self):
        plain, run = self.both("-c", "raise KeyboardInterrupt")
        self.assertIn("KeyboardInterrupt", plain.stderr)
        self.assertIn("KeyboardInterrupt", run.stderr)

    def test_at_exit(self):
        path = self.write("end.py", "import atexit\nvalue = 'kept'\n"
                          "atexit.register(lambda: print(value))\n")
        self.both(path)

    def test_thread_that_outlives_the_main_one(self):
        path = self.write("thread.py", "import threading, time\n"
                          "word = 'still here'\ndef run():\n"
                          "    time.sleep(0.2)\n    print(word)\n"
                          "threading.Thread(target=run).start()\n")
        self.both(path)

    def test_pickle_of_main(self):
        path = self.write("pick.py", "import pickle\nclass A: pass\n"
                          "print(pickle.loads(pickle.dumps(A())).__class__)\n")
        self.both(path)

    def test_multiprocessing(self):
        path = self.write("many.py", """
import multiprocessing, sys
def work(n):
    return n * n
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print(pool.map(work, range(10)))
""")
        for method in ("fork", "spawn", "forkserver"):
            with self.subTest(method):
                self.both(path, method)


class Options(Folder):
    """The command line of its own."""

    def test_it_is_on(self):
        run = ours("-c", "import hakmem_py; print(hakmem_py.enabled)")
        self.assertEqual(run.stdout, "True\n")
        self.assertEqual(run.stderr, "")

    def test_verbose(self):
        run = ours("-v", "-c", "x = [str(n) for n in range(1000)]")
        self.assertEqual(run.returncode, 0)
        self.assertEqual(run.stdout, "")
        lines = run.stderr.splitlines()
        self.assertIn(": on; lanes: ", lines[0])
        self.assertTrue(lines[1].startswith(STATS))
        self.assertEqual(lines[1].split(), [
            "domain", "calls", "tiny_allocs", "larger_allocs", "fallback",
            "foreign_frees", "limit_refusals"])
        self.assertRegex(lines[5], "^MB: live .*peak .*held .*resident"
                         " .*purged")
        obj = lines[2].split()
        self.assertEqual(obj[0], "obj")
        self.assertGreater(int(obj[1]), 1000)
        self.assertGreater(int(obj[2]), 1000)

    def test_verbose_after_a_failure(self):
        run = ours("-v", "-c", "1 / 0")
        self.assertEqual(run.returncode, 1)
        self.assertIn("ZeroDivisionError", run.stderr)
        self.assertIn(STATS, run.stderr)

    def test_off(self):
        run = ours("-v", "-c", "print(1)", HAKMEM_PYTHON="off")
        self.assertEqual(run.stdout, "1\n")
        self.assertIn("HAKMEM_PYTHON=off", run.stderr)

    def test_debug_hooks(self):
        run = ours("-c", "print(1)", PYTHONMALLOC="debug")
        self.assertEqual(run.stdout, "1\n")
        self.assertIn("not on HAKMEM: ", run.stderr)

    def test_no_file(self):
        run = ours(str(self.folder / "none.py"))
        self.assertEqual(run.returncode, 2)
        self.assertIn("can't open file", run.stderr)
        self.assertIn("none.py", run.stderr)
        self.assertEqual(run.stderr.count("\n"), 1)

    def test_no_module(self):
        run = ours("-m", "there_is_no_such_module")
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stderr, "python -m hakmem_py: No module named"
                         " there_is_no_such_module\n")

    def test_no_parent_of_a_module(self):
        run = ours("-m", "there_is_none.inner")
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stderr.count("\n"), 1)

    def test_module_without_code(self):
        run = ours("-m", "sys")
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stderr.count("\n"), 1)

    def test_bad_command_lines(self):
        for arguments, word in (((), "no program"), (("-v",), "no program"),
                                (("-m",), "needs an argument"),
                                (("-c",), "needs an argument"),
                                (("-z", "x"), "unknown option -z"),
                                (("--compare",), "no program"),
                                (("--autostart",), "on or off"),
                                (("--autostart", "maybe"), "on or off")):
            with self.subTest(arguments):
                run = ours(*arguments)
                self.assertEqual(run.returncode, 2)
                self.assertIn(word, run.stderr)

    def test_help_lists_every_variable(self):
        """Those of the adapter's table, and of the core's that hold here."""
        text = ours("--help").stdout
        top = pathlib.Path(__file__).resolve().parent.parent.parent
        tables = {}
        for table in ("adapters/python/hak_py_options.def",
                      "core/settings/options.def"):
            tables[table] = re.findall(r'"(HAKMEM_\w+)"',
                                       (top / table).read_text())
        own, core = tables.values()
        self.assertGreaterEqual(len(own), 5)
        listed = re.findall(r"^  (HAKMEM_\w+)=", text, re.M)
        self.assertEqual(listed[:len(own)], own)
        self.assertEqual(set(core) - set(listed),
                         {"HAKMEM_BACKGROUND_THREAD",
                          "HAKMEM_FORCE_LIBC_ALLOC", "HAKMEM_DEEPBIND",
                          "HAKMEM_BENCH_FAST_MODE", "HAKMEM_WRAP_DIAG"})
        self.assertIn("HAKMEM_PYTHON=default|off|obj|mem|raw|all (default: "
                      "default)", text)
        for line in ("HAKMEM_PURGE_DELAY=milliseconds (default: 1000)",
                     "HAKMEM_PYTHON_GIVE_BACK=0|1 (default: 1)",
                     "HAKMEM_RANGE=bytes, with K, M, G or T (default: 1T)",
                     "HAKMEM_LIMIT=bytes, with K, M, G or T, or percent "
                     "(default: none)",
                     "HAKMEM_CGROUP=an absolute path (default: none)",
                     "HAKMEM_HUGE_PAGES=auto|always|never (default: auto)",
                     "HAKMEM_SHOW_STATS=0|1|json|prometheus (default: 0)"):
            self.assertIn(f"  {line}\n", text)
        self.assertTrue(all(len(line) < 80 for line in text.splitlines()))

    def test_help_and_version(self):
        self.assertIn("usage: ", ours("--help").stdout)
        self.assertRegex(ours("--version").stdout, r"^hakmem_py \d+\.\d+\.\d+")


class Compare(Folder):
    """--compare."""

    def test_table(self):
        path = self.write("grow.py", "import sys\n"
                          "x = [str(n) for n in range(300000)]\n"
                          "print(len(x), sys.argv[1:])\n")
        run = ours("--compare", path, "a")
        self.assertEqual(run.returncode, 0, run.stderr)
        rows = {line[:18].strip(): line[18:].split()
                for line in run.stdout.splitlines()[1:]}
        for name in ("CPU time, s", "time, s", "peak memory, MB",
                     "page faults"):
            with self.subTest(name):
                before, after, ratio = map(float, rows[name])
                self.assertGreater(before, 0)
                self.assertGreater(after, 0)
                self.assertAlmostEqual(ratio, after / before, delta=0.2)
        # The peak is the program's own: the list takes some 20 MB.
        before, after, _ = map(float, rows["peak memory, MB"])
        self.assertTrue(20 < before < 80 and 20 < after < 80, run.stdout)
        self.assertIn("was the same", run.stdout)

    def test_both_ways(self):
        path = self.write("say.py", "import sys\nm = sys.modules.get("
                          "'hakmem_py')\nprint(m is not None and m.enabled)\n")
        run = ours("--compare", path)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("not the same", run.stdout)

    def test_module(self):
        self.assertEqual(ours("--compare", "-m", "json.tool",
                              "--help").returncode, 0)

    def test_no_program(self):
        run = ours("--compare", str(self.folder / "none.py"))
        self.assertEqual(run.returncode, 1)
        self.assertIn("can't open file", run.stderr)
        self.assertIn("nothing to compare", run.stderr)

    def test_program_that_fails(self):
        run = ours("--compare", "-c", "import sys; sys.exit(3)")
        self.assertEqual(run.returncode, 1)
        self.assertIn("ends with status 3", run.stderr)

    def test_program_that_fails_on_hakmem_alone(self):
        run = ours("--compare", "-c", "import sys;"
                   " sys.exit(5 if 'hakmem_py' in sys.modules else 0)")
        self.assertEqual(run.returncode, 1)
        self.assertIn("status 5 on HAKMEM", run.stderr)


class Autostart(Folder):
    """--autostart, in a virtual environment of its own."""

    def setUp(self):
        super().setUp()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip",
                        str(self.folder / "env")], check=True)
        self.inner = str(self.folder / "env" / "bin" / "python")

    def run_inner(self, *arguments, **variables):
        return subprocess.run([self.inner, *arguments], check=False,
                              env={**PLAIN, "PYTHONPATH": PLACE,
                                   **variables}, text=True,
                              capture_output=True, timeout=300)

    def switch(self, word):
        return self.run_inner("-m", "hakmem_py", "--autostart", word)

    CODE = ("import sys; m = sys.modules.get('hakmem_py');"
            " print(m is not None and m.enabled)")

    def is_on(self, *flags, **variables):
        run = self.run_inner(*flags, "-c", self.CODE, **variables)
        self.assertEqual(run.stderr, "")
        return run.stdout.strip()

    def test_on_and_off(self):
        self.assertEqual(self.is_on(), "False")
        run = self.switch("on")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("autostart is on", run.stdout)
        # Without PYTHONPATH too, which the build directory is on here.
        self.assertEqual(self.is_on(), "True")
        self.assertEqual(self.is_on("-I"), "True")
        self.assertEqual(self.is_on(HAKMEM_PYTHON="off"), "False")
        self.assertEqual(self.is_on("-S"), "False")
        self.assertEqual(self.switch("on").returncode, 0)
        run = self.switch("off")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("autostart is off", run.stdout)
        self.assertEqual(self.is_on(), "False")
        run = self.switch("off")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("was not on", run.stdout)

    def pth(self):
        found = list((self.folder / "env").rglob("hakmem_py-autostart.pth"))
        self.assertEqual(len(found), 1)
        return found[0]

    def test_the_package_is_gone(self):
        self.switch("on")
        path = self.pth()
        path.write_text(path.read_text().splitlines()[-1] + "\n")
        self.assertEqual(self.is_on("-I"), "False")

    def test_it_has_no_effect(self):
        site = subprocess.run([self.inner, "-c", "import sysconfig;"
                               "print(sysconfig.get_path('purelib'))"],
                              check=True, capture_output=True,
                              text=True).stdout.strip()
        # Comes first and hides the package.
        pathlib.Path(site, "a.pth").write_text(
            "import sys; sys.modules['hakmem_py'] = None\n")
        run = self.run_inner("-S", "-m", "hakmem_py", "--autostart", "on")
        self.assertEqual(run.returncode, 1)
        self.assertIn("has no effect", run.stderr)
        self.assertFalse(pathlib.Path(
            site, "hakmem_py-autostart.pth").exists())

    def test_not_writable(self):
        # A file where the directory should be: root may write everywhere.
        code = ("import sysconfig, sys; from hakmem_py import _autostart;"
                "sysconfig.get_path = lambda name: sys.executable;"
                "_autostart.on()")
        run = self.run_inner("-c", code)
        self.assertIn("can't write", run.stderr)
        self.assertIn("use a virtual environment", run.stderr)


if __name__ == "__main__":
    unittest.main()
