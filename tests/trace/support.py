"""What the tests of traces share. HAKMEM_BUILD names the build."""
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("HAKMEM_BUILD",
                                       os.path.join(ROOT, "build/release")))
COMMAND = os.path.join(BUILD, "hakmem")
REPLAY = os.path.join(BUILD, "hakmem-replay")
RECORD = os.path.join(BUILD, "libhakmem_record.so")
COUNTER = os.path.join(BUILD, "tests/trace/libcounter.so")
PROGRAMS = os.path.join(BUILD, "tests/trace")
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") \
    else sys.executable
PLAIN = {name: value for name, value in os.environ.items()
         if not name.startswith(("HAKMEM_", "LD_PRELOAD"))}


def run(*command, env=None, timeout=300, **more):
    return subprocess.run(command, env={**PLAIN, **(env or {})},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True,
                          timeout=timeout, check=False, **more)


def program(name):
    return os.path.join(PROGRAMS, name)


def file_limit(size):
    """For preexec_fn: files of the child's are at most that long."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Case(unittest.TestCase):
    """Tests in a folder of their own."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.trace = self.path("a trace")

    def path(self, name):
        return os.path.join(self.folder, name)

    def record(self, *command, status=0, env=None, only=False, **more):
        """Records a program without the command, which is slow to start."""
        for name in os.listdir(self.folder):
            if name.startswith(os.path.basename(self.trace)):
                os.unlink(self.path(name))
        env = dict(env or {}, HAKMEM_RECORD=self.trace)
        env["LD_PRELOAD"] = f"{RECORD} {env.get('LD_PRELOAD', '')}".strip()
        if only:
            env["HAKMEM_RECORD_ONLY"] = "1"
        done = run(*command, env=env, **more)
        self.assertEqual(done.returncode, status, done)
        return done

    def command(self, *command, status=0, options=(), **more):
        """Records a program by `hakmem record`; its result."""
        done = run(COMMAND, "record", "-o", self.trace, *options, "--",
                   *command, **more)
        self.assertEqual(done.returncode, status, done)
        return done

    def info(self, trace=None, partial=False):
        """What a trace holds."""
        done = run(REPLAY, "info", *(["--partial"] if partial else []), "--",
                   trace or self.trace)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def children(self):
        """Names of the children's traces."""
        head = os.path.basename(self.trace) + "."
        return sorted(name for name in os.listdir(self.folder)
                      if name.startswith(head))

    def fails(self, status, pattern, *arguments, **more):
        """The command ends with that status and one line, which is this."""
        done = run(COMMAND, *arguments, **more)
        self.assertEqual(done.returncode, status, done)
        self.assertRegex(done.stderr, pattern)
        self.assertTrue(done.stderr.startswith("hakmem: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done
