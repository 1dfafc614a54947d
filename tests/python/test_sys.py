"""What hakmem_py changes in the module sys."""
import importlib
import os
import subprocess
import sys
import unittest

import hakmem_py


def run(code, **variables):
    return subprocess.run([sys.executable, "-c", code], check=False,
                          env={**os.environ, **variables}, text=True,
                          capture_output=True, timeout=300)


class DebugMallocStats(unittest.TestCase):
    CODE = ("import sys, hakmem_py\nkeep = [str(n) for n in range(5000)]\n"
            "sys._debugmallocstats()")

    def test_classes_and_the_free_lists(self):
        done = run(self.CODE)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stderr.splitlines()
        self.assertRegex(lines[0], r"^Small block threshold = 1024, in \d+ ")
        rows = {int(line.split()[0]): line.split()[1:] for line in lines[3:]
                if len(line.split()) == 3 and line.split()[0].isdigit()}
        self.assertGreaterEqual(int(rows[64][0]) + int(rows[48][0]), 5000)
        self.assertIn("PyTupleObjects", done.stderr)

    def test_off(self):
        done = run(self.CODE, HAKMEM_PYTHON="off")
        self.assertNotIn("HAKMEM", done.stderr)
        self.assertIn("Small block threshold", done.stderr)

    def test_no_arguments(self):
        with self.assertRaises(TypeError):
            sys._debugmallocstats(True)

    def test_reload(self):
        importlib.reload(hakmem_py)
        before = sys._debugmallocstats.before
        importlib.reload(hakmem_py)
        self.assertIs(sys._debugmallocstats.before, before)
        self.assertEqual(before.__module__, "sys")


if __name__ == "__main__":
    unittest.main()
