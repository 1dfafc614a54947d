"""What the tests of the command share. HAKMEM_BUILD names the build."""
import os
import shutil
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("HAKMEM_BUILD",
                                       os.path.join(ROOT, "build/release")))
COMMAND = os.path.join(BUILD, "hakmem")
LIBRARY = os.path.join(BUILD, "libhakmem.so")
PLAIN = {name: value for name, value in os.environ.items()
         if not name.startswith(("HAKMEM_", "LD_PRELOAD"))}


def hakmem(*arguments, env=None, timeout=300, **more):
    """Runs the command; its result, with texts."""
    return subprocess.run([COMMAND, *arguments], env={**PLAIN, **(env or {})},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True,
                          timeout=timeout, check=False, **more)


class Case(unittest.TestCase):
    """Tests in a folder of their own."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    def file(self, name, content, mode=0o644):
        path = self.path(name)
        with open(path, "wb" if isinstance(content, bytes) else "w") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    @classmethod
    def compiled(cls, name, source, *flags):
        """A C program."""
        path = cls.path(name)
        subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-pthread", "-o",
                        path, "-x", "c", "-", *flags], input=source, text=True,
                       check=True)
        return path

    def fails(self, status, pattern, *arguments, **more):
        """The command ends with that status and one line, which is this."""
        done = hakmem(*arguments, **more)
        self.assertEqual(done.returncode, status, done)
        self.assertRegex(done.stderr, pattern)
        self.assertTrue(done.stderr.startswith("hakmem: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done
