"""Programs with a Python in them: embed.c, compiled and run."""
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest

from support import HERE, PATH

CC = os.environ.get("CC") or "cc"


def library():
    """The directory of this Python's shared library, or None."""
    name = "libpython%s.so" % sysconfig.get_config_var("LDVERSION")
    for key in ("LIBDIR", "LIBPL"):
        place = sysconfig.get_config_var(key) or ""
        for directory in (place, os.path.join(
                place, sysconfig.get_config_var("MULTIARCH") or "")):
            if os.path.exists(os.path.join(directory, name)):
                return directory
    return None


@unittest.skipIf(shutil.which(CC) is None, "there is no compiler")
@unittest.skipIf(library() is None, "there is no shared libpython")
class Embedded(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory()
        cls.program = os.path.join(cls.place.name, "embed")
        subprocess.run(
            [CC, "-O1", "-I", sysconfig.get_path("include"),
             os.path.join(HERE, "embed.c"), "-o", cls.program,
             "-L", library(), "-Wl,-rpath," + library(),
             "-lpython" + sysconfig.get_config_var("LDVERSION")], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def says(self, what, domains="default"):
        environment = dict(os.environ, HAKMEM_PYTHON=domains,
                           PYTHONHOME=sys.base_prefix,
                           PYTHONPATH=PATH + os.pathsep + HERE)
        result = subprocess.run(
            [self.program, what], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, universal_newlines=True, timeout=120)
        self.assertEqual(result.stdout.strip(), "fine")
        self.assertEqual(result.returncode, 0)

    def test_debug_hooks(self):
        self.says("debug")

    def test_begin_and_end_again(self):
        for domains in ("default", "all"):
            self.says("twice", domains)
            self.says("frozen", domains)

    def test_interpreters_of_old(self):
        for domains in ("default", "all"):
            self.says("legacy", domains)


if __name__ == "__main__":
    unittest.main()
