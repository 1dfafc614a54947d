"""Guards: an extension, guarded.c, that misuses its blocks is reported by lines."""
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import textwrap
import unittest

from support import HERE, Case, python

CC = os.environ.get("CC") or "cc"

# Lines of this are looked for by what stands at their ends.
VICTIM = """
    import sys
    import guarded
    import hakmem_py
    kind = sys.argv[1]

    def make():
        return guarded.new(112)  # MAKES

    def drop(p):
        guarded.free(p)  # DROPS

    def touch(p, at, how=guarded.write):
        return how(p, at)  # TOUCHES

    def at_end(p):
        return p % 4096 != 0

    def wanted(end):
        while True:
            p = make()
            if at_end(p) == end:
                return p
            drop(p)

    def main():
        p = wanted(kind != "under")
        if kind in ("read", "write", "twice", "handler"):
            drop(p)
        if kind == "handler":
            import faulthandler
            faulthandler.enable()
            q = make()
            drop(q)
        if kind == "read":
            touch(p, 5, guarded.read)
        elif kind == "twice":
            drop(p)
        elif kind == "inside":
            drop(p + 16)
        elif kind == "canary":
            touch(p, -1)
            drop(p)
        else:
            touch(p, {"write": 8, "handler": 8, "over": 112, "under": -1}[kind])

    def on():
        assert hakmem_py.guard(1) == 0
        assert hakmem_py.guard(1) == 1

    on()
    main()
"""


def line_of(mark):
    lines = VICTIM.strip("\n").split("\n")
    return next(i for i, line in enumerate(lines, 1) if line.endswith(mark))


@unittest.skipIf(shutil.which(CC) is None, "there is no compiler")
class Guards(Case):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory()
        subprocess.run(
            [CC, "-O1", "-g", "-fPIC", "-shared", "-w",
             "-I", sysconfig.get_path("include"),
             os.path.join(HERE, "guarded.c"),
             "-o", os.path.join(cls.place.name, "guarded.so")], check=True)
        with open(os.path.join(cls.place.name, "victim.py"), "w") as file:
            file.write(textwrap.dedent(VICTIM.strip("\n")))

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def run_victim(self, kind):
        path = os.path.join(self.place.name, "victim.py")
        return python(
            "import runpy, sys; sys.path.insert(0, %r); sys.argv = ['x', %r]\n"
            "runpy.run_path(%r, run_name='__main__')"
            % (self.place.name, kind, path), check=False)

    def check(self, kind, death, what, *stacks):
        """One report that says `what`, and has the lines of each stack."""
        result = self.run_victim(kind)
        said = result.stderr
        self.assertEqual(result.returncode, -death, said)
        self.assertEqual(said.count("hakmem: guard: "), 1, said)
        self.assertIn(what, said)
        parts = dict(re.findall(r"^  (\w+) by thread \d+:\n((?:     .*\n)*)",
                                said, re.M))
        self.assertEqual(list(parts), [name for name, *_ in stacks], said)
        for name, mark, function in stacks:
            self.assertIn(f"victim.py:{line_of(mark)} {function}", parts[name])
            self.assertIn(" main\n", parts[name])
        return said

    MADE = ("allocated", "# MAKES", "make")
    FREED = ("freed", "# DROPS", "drop")
    TOUCHED = ("touched", "# TOUCHES", "touch")

    def test_after_free(self):
        said = self.check("write", signal.SIGSEGV, "after free", self.MADE,
                          self.FREED, self.TOUCHED)
        self.assertIn("guarded_writes+0x", said)
        self.check("read", signal.SIGSEGV, "after free", self.MADE, self.FREED,
                   self.TOUCHED)

    def test_beside(self):
        self.check("over", signal.SIGSEGV, "1 byte past the end of a block "
                   "of 112 bytes", self.MADE, self.TOUCHED)
        self.check("under", signal.SIGSEGV, "1 byte before a block of 112",
                   self.MADE, self.TOUCHED)
        self.check("canary", signal.SIGABRT, "found at its free", self.MADE,
                   self.FREED)

    def test_freed(self):
        self.check("twice", signal.SIGABRT, "free already", self.MADE,
                   self.FREED, ("used", "# DROPS", "drop"))
        self.check("inside", signal.SIGABRT, "byte 16 of", self.MADE,
                   ("used", "# DROPS", "drop"))

    def test_faulthandler_comes_after(self):
        said = self.check("handler", signal.SIGSEGV, "after free", self.MADE,
                          self.FREED, self.TOUCHED)
        self.assertIn("Fatal Python error: Segmentation fault", said)
        self.assertLess(said.index("hakmem: guard"), said.index("Fatal"))

    def test_arguments_and_environment(self):
        self.says("""
            import hakmem_py
            for bad in None, "x", 1.5, -1:
                try:
                    hakmem_py.guard(bad)
                except (TypeError, ValueError) as error:
                    assert "hakmem_py.guard(" in str(error), error
                else:
                    print(bad)
            assert hakmem_py.guard() == 1000
            assert hakmem_py.guard(0) == 128 * 2**20
            assert hakmem_py.guard(0) == 0
            for i in range(100):
                hakmem_py.guard(1 + i % 2 * 1000)
                found = [str(i) * 50 for i in range(100)]
            del found
            print("fine")
        """, env={"HAKMEM_GUARD_RATE": "1000"})

    def test_the_peak_has_them_too(self):
        """And what is sampled: it is never below what is in use."""
        for env in ({"HAKMEM_GUARD_RATE": "1"},
                    {"HAKMEM_GUARD_RATE": "1", "HAKMEM_GUARD_MEMORY": "8M"},
                    {"HAKMEM_PROFILE": os.path.join(self.place.name, "p.json"),
                     "HAKMEM_PROFILE_RATE": "2000"}):
            self.says("""
                import hakmem_py
                kept = []
                for i in range(300):
                    kept.append(bytes(100 + i))
                    found = hakmem_py.stats()
                    assert found["peak_bytes"] >= found["live_bytes"], found
                most = found["live_bytes"]
                del kept, found
                assert hakmem_py.stats()["peak_bytes"] >= most
                print("fine")
            """, env=env)

    def test_what_found_no_room(self):
        self.says("""
            import hakmem_py
            before = hakmem_py.stats()
            assert before["guards"] == before["guards_missed"] == 0
            hakmem_py.guard(1)
            kept = [bytes(100 + i) for i in range(2000)]
            hakmem_py.guard(0)
            found = hakmem_py.stats()
            assert 50 <= found["guards"] <= 2000, found
            assert found["guards_missed"] >= 1000, found
            print("fine")
        """)

    def test_a_program_with_all_that_fit(self):
        self.says("""
            import json, re, threading
            import hakmem_py
            def work():
                for i in range(30):
                    text = json.dumps([{"a": i, "b": [str(i)] * 20}] * 5)
                    assert json.loads(text)[0]["a"] == i
                    assert re.sub("[0-9]+", "x", text * 2)
            threads = [threading.Thread(target=work) for _ in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            print("fine")
        """, env={"HAKMEM_GUARD_RATE": "1", "HAKMEM_GUARD_MEMORY": "4M"})


if __name__ == "__main__":
    unittest.main()
