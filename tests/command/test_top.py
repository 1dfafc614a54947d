"""hakmem top: once, as JSON, and in a terminal."""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import subprocess
import termios
import time
import unittest

try:
    import pyte
except ImportError:
    pyte = None

from planted import Planted
from support import COMMAND, PLAIN, hakmem


class Once(Planted):
    """Without a terminal."""

    def test_none(self):
        done = hakmem("top", "--once", "-d", "0.1", env=self.env)
        if " on HAKMEM:" not in done.stdout:  # others of this user may be there
            self.assertIn("no process of this user shows statistics; start",
                          done.stdout)
        self.assertEqual(done.returncode, 0)

    def test_list(self):
        child, other = self.planted("cache"), self.planted("fragment")
        done = hakmem("top", "--once", "-d", "0.3", "--sort", "frag",
                      env=self.env)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"^\d+ processes on HAKMEM: .* resident")
        self.assertRegex(lines[1], "^ +PID +RES +IN USE +KEPT +DUE +FRAG")
        rows = [int(line.split()[0]) for line in lines[2:]]
        self.assertLess(rows.index(other.pid), rows.index(child.pid))
        done = hakmem("top", "--once", "-d", "0.1", "--sort", "pid",
                      env=self.env)
        rows = [int(line.split()[0]) for line in done.stdout.splitlines()[2:]]
        self.assertEqual(rows, sorted(rows))

    def test_words_that_steer(self):
        """A command's line ends and escapes don't break the table."""
        child = self.program([sys.executable, "-c", "kept = ['x' * 100 + str(n)"
                              " for n in range(400000)]\nprint('up',"
                              " flush=True)\nimport time # \x1b[2J\n"
                              "time.sleep(100)"], PYTHONMALLOC="malloc")
        done = hakmem("top", "--once", "-d", "0.1", env=self.env)
        found = [line for line in done.stdout.splitlines()
                 if f" {child.pid} " in line]
        self.assertEqual(len(found), 1, done.stdout)
        self.assertIn("?print('up', flush=True)?import time # ?[2J?", found[0])

    def test_one(self):
        child = self.planted("cache")
        done = hakmem("top", "--once", "-d", "0.3", str(child.pid),
                      env=self.env)
        self.assertRegex(done.stdout, r"(?m)^tiny +up to 1 KB +\d")
        self.assertRegex(done.stdout, r"(?m)^  free, due to go back +\d")

    def test_json(self):
        child = self.planted("leak")
        done = hakmem("top", "--json", "-d", "0.5", str(child.pid),
                      env=self.env)
        row = json.loads(done.stdout)["processes"][0]
        self.assertEqual(row["pid"], child.pid)
        self.assertTrue(row["fresh"])
        self.assertGreater(row["allocs_per_second"], 1000)
        self.assertGreater(row["in_use"], 20e6)
        self.assertGreater(row["values"]["tiny_allocs"], 20000)

    def test_refused(self):
        self.fails(2, "this is no terminal; --once or --json", "top")
        self.fails(2, "there is no process 99999999", "top", "99999999")
        self.fails(2, "banana: not a process's number", "top", "banana")
        self.fails(2, "--sort=size: not one of res use", "top", "--sort",
                   "size")
        self.fails(2, "--delay=0: must be from 0.1", "top", "-d", "0")
        with subprocess.Popen(["sleep", "60"], env=PLAIN) as child:
            self.fails(1, f"process {child.pid} is not on HAKMEM; `hakmem"
                       f" doctor {child.pid}` says", "top", "--once",
                       str(child.pid))
            child.kill()


@unittest.skipIf(pyte is None, "no pyte (Debian: python3-pyte)")
class Terminal(Planted):
    """The screen, as a terminal shows it."""

    def open(self, *arguments, rows=24, columns=100):
        """Starts it in a terminal of its own."""
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        pid, self.fd = pty.fork()
        if pid == 0:
            os.environ.update({**self.env, "TERM": "xterm"})
            os.execv(COMMAND, [COMMAND, "top", "-d", "0.3", *arguments])
        self.pid, self.status = pid, None
        self.size(rows, columns)
        self.addCleanup(self.close)

    def size(self, rows, columns):
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def read(self):
        """What has come; False: it has ended."""
        if select.select([self.fd], [], [], 0.05)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            self.stream.feed(data)
        return True

    def until(self, what, text):
        """Waits until that is so of the screen's text."""
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            self.assertTrue(self.read(), self.text())
            if what(self.text()):
                return
        self.fail(f"{text}:\n{self.text()}")

    def text(self):
        return "\n".join(self.screen.display)

    def shows(self, text):
        self.until(lambda shown: text in shown, f"{text!r} is not shown")

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def ends(self):
        limit = time.monotonic() + 20
        while self.read() and time.monotonic() < limit:
            pass
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        self.assertEqual(self.status, 0)

    @staticmethod
    def rows(shown):
        return [line.split()[0] for line in shown.splitlines()[4:]
                if line.strip()]

    def first(self, child, other):
        """One is above the other; strangers' processes may be anywhere."""
        both = [str(child.pid), str(other.pid)]
        self.until(lambda shown: [pid for pid in self.rows(shown)
                                  if pid in both] == both,
                   f"{child.pid} is not above {other.pid}")

    def test_keys(self):
        cache, fragment = self.planted("cache"), self.planted("fragment")
        self.open()
        self.shows("processes on HAKMEM")
        self.shows("IN USE")
        self.type("F")
        self.first(fragment, cache)
        self.type("U")
        self.first(cache, fragment)
        self.type("R")
        self.first(fragment, cache)
        self.type("N")
        self.first(*sorted((cache, fragment), key=lambda child: child.pid))
        self.type("h")
        self.shows("sort by resident memory")
        self.type("q")
        self.shows("IN USE")
        self.type("d0.2\r")
        self.shows("every 0.2 s")
        self.type("dx\r")
        self.shows("not a number of seconds")
        self.type("F")
        self.first(fragment, cache)
        self.type("j" * self.rows(self.text()).index(str(fragment.pid)) + "\r")
        self.shows(f"process {fragment.pid}, HAKMEM")
        self.shows("up to 1 KB")
        self.type("\x1b")
        self.shows("IN USE     KEPT")
        fragment.kill()
        fragment.wait()
        self.until(lambda shown: str(fragment.pid) not in shown,
                   "it is still shown")
        self.type("q")
        self.ends()

    def test_sizes(self):
        """Any size, also while it runs."""
        child = self.planted("cache")
        self.open(rows=24, columns=80)
        self.shows("IN USE")
        for rows, columns in ((50, 200), (5, 20), (1, 1), (3, 40), (24, 80)):
            self.size(rows, columns)
            for _ in range(12):
                self.assertTrue(self.read())
            self.type("\rj" if rows == 5 else "bk")
        self.shows(str(child.pid))
        self.assertEqual(max(map(len, self.screen.display)), 80)
        self.type("q")
        self.ends()

    def test_one_that_ends(self):
        child = self.planted("cache")
        self.open(str(child.pid))
        self.shows("kept at hand by heaps")
        child.kill()
        child.wait()
        self.shows(f"process {child.pid} has ended")
        self.type("q")
        self.ends()


if __name__ == "__main__":
    unittest.main()
