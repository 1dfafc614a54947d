"""hakmem doctor: planted programs are named for what they are."""
import concurrent.futures
import json
import os
import signal
import subprocess
import threading
import time
import unittest

import hakmem_modules
from planted import Planted
from support import Case, hakmem

diagnose = hakmem_modules.load("diagnose")
doctor = hakmem_modules.load("doctor")
share = hakmem_modules.load("share")

TIMES = 3


class Planting(Planted):
    """Programs that run side by side."""

    def kinds(self, child, seconds="1.5"):
        """(status, kinds of findings, the whole) of a process."""
        done = hakmem("doctor", "--json", "--seconds", seconds,
                      str(child.pid), env=self.env)
        self.assertEqual(done.stderr, "")
        said = json.loads(done.stdout)
        return done.returncode, [one["kind"] for one in said["findings"]], said

    def test_each_kind_each_time(self):
        off = {"HAKMEM_PURGE_DELAY": "3600000"}
        plain = {"LD_PRELOAD": ""}
        cases = [(self.planted("leak"), 1, ["leak"]),
                 (self.planted("cache"), 0, ["level"]),
                 (self.planted("fragment"), 1, ["fragmentation", "level"]),
                 (self.planted("retain", **off), 1, ["retention", "level"]),
                 (self.planted("leak", **plain), 1, ["growth"]),
                 (self.planted("cache", **plain), 2, ["unknown"]),
                 (self.planted("arenas", **plain), 1, ["arenas"])]
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            for _ in range(TIMES):
                found = list(pool.map(lambda case: self.kinds(case[0]), cases))
                for (_, status, kinds), got in zip(cases, found):
                    self.assertEqual((got[0], got[1]), (status, kinds),
                                     got[2])
        self.assertIn("most of it in blocks of 208 bytes",
                      found[2][2]["findings"][0]["text"])
        # The parts are the whole, and the leak's rate is about right.
        for _, _, said in found[:4]:
            self.assertAlmostEqual(sum(said["parts"].values()), said["rss"],
                                   delta=0.1 * said["rss"])
        advice = found[3][2]["findings"][0]["advice"]
        self.assertIn("HAKMEM_PURGE_DELAY=3600000", advice)

    def test_a_sawtooth_is_no_leak(self):
        _, kinds, said = self.kinds(self.planted("sawtooth"), "2.5")
        self.assertNotIn("leak", kinds, said)

    def test_words(self):
        child = self.planted("leak")
        done = hakmem("doctor", "-s", "2", str(child.pid), env=self.env)
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stdout, r"(?m)^in use +\d")
        self.assertRegex(done.stdout, r"a leak: blocks in use grow by .* a"
                         r" minute, mostly up to 1 KB \(tiny\); [\d,]+ more"
                         r" blocks, [45] % of those made meanwhile, were"
                         r" not freed \(some 6\d\d bytes each\)")
        self.assertIn("  -> find who makes them", done.stdout)

    def test_gone_in_the_middle(self):
        child = self.planted("cache")

        def kill():
            """When it has looked twice: it asks each time."""
            before = os.environ.get("XDG_RUNTIME_DIR")
            os.environ["XDG_RUNTIME_DIR"] = self.runtime
            pages = share.pages_of(child.pid, 20)
            os.environ.pop("XDG_RUNTIME_DIR")
            if before is not None:
                os.environ["XDG_RUNTIME_DIR"] = before
            until = time.monotonic() + 50
            while pages and pages[0].live()[0] < 2 and \
                    time.monotonic() < until:
                time.sleep(0.02)
            child.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        done = self.fails(2, f"process {child.pid} has ended meanwhile",
                          "doctor", "-s", "20", str(child.pid), env=self.env)
        thread.join()
        self.assertEqual(done.stdout, "")

    def test_stopped(self):
        """Its figures are those from before."""
        child = self.planted("cache")
        child.send_signal(signal.SIGSTOP)
        done = hakmem("doctor", "-s", "0.5", str(child.pid), env=self.env)
        self.assertIn("s old: it sleeps", done.stdout)
        self.assertIn("were in use when it last looked at itself", done.stdout)
        self.assertIn("may be missing", done.stdout)
        self.assertEqual(done.returncode, 2)
        child.send_signal(signal.SIGCONT)

    def sleeper(self):
        """A program that has given memory back; a word later it frees some blocks
        into bins, works for a moment, and sleeps again."""
        path = self.compiled("sleeper", r"""
            #include <stdlib.h>
            #include <time.h>
            #include <string.h>
            #include <unistd.h>
            int main(void)
            {
                static char *blocks[44000], c;
                for (int i = 0; i < 44000; i++)
                    memset(blocks[i] = malloc(1000), 1, 1000);
                for (int i = 0; i < 24000; i++) free(blocks[i]);
                for (int i = 0; i < 30; i++) {
                    usleep(10000);
                    free(malloc(300000));
                }
                if (write(1, "up\n", 3) != 3 || read(0, &c, 1) != 1) return 1;
                for (int i = 24000; i < 24020; i++) free(blocks[i]);
                for (clock_t from = clock(); clock() - from < 5000;) {}
                if (write(1, "freed\n", 6) != 6) return 1;
                for (;;) pause();
            }""", "-fno-builtin")
        return self.program([path], stdin=subprocess.PIPE)

    def rests(self, child):
        """Waits until it has written its figures for the last time."""
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = self.runtime
        page, = share.pages_of(child.pid, 60)
        until = time.monotonic() + 60
        while not page.is_at_rest() and time.monotonic() < until:
            time.sleep(0.05)
        os.environ.pop("XDG_RUNTIME_DIR")
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before
        return page.is_at_rest()

    def test_asleep(self):
        """It has done nothing since it looked at itself: that is of now. But not if
        it has freed, were it only into bins."""
        child = self.sleeper()
        # On a very busy machine the end of its thread may take too long.
        if self.rests(child):
            got, kinds, said = self.kinds(child, "0.5")
            self.assertEqual((got, kinds, said["fresh"]), (0, ["idle"], True))
        child.stdin.write(b"x")
        child.stdin.close()
        self.assertEqual(child.stdout.readline(), b"freed\n")
        got, kinds, said = self.kinds(child, "0.5")
        self.assertEqual((got, kinds, said["fresh"]), (2, ["stale"], False))

    def test_no_page(self):
        child = self.planted("cache", HAKMEM_SHARE_STATS="0")
        done = hakmem("doctor", "-s", "0.5", str(child.pid), env=self.env)
        self.assertIn("on HAKMEM but shows no statistics", done.stdout)
        self.assertIn(done.returncode, (1, 2), done)  # it may still grow


class Refused(Case):
    """No process of ours."""

    def test_numbers(self):
        for text in ("0", "x", "4.5", "1e3", "²"):
            self.fails(2, "not a process's number; `pgrep NAME` finds it",
                       "doctor", text)
        self.fails(2, "there is no process 99999999", "doctor", "99999999")
        self.fails(2, "takes one process's number", "doctor")
        self.fails(2, "takes one process's number", "doctor", "1", "2")

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_another_user(self):
        with subprocess.Popen(["sleep", "60"], user=12345) as child:
            try:
                self.fails(2, f"process {child.pid} is user 12345's; run this"
                           " as that user", "doctor", str(child.pid))
                self.fails(2, "is user 12345's", "top", str(child.pid))
            finally:
                child.kill()

    def test_one_that_has_ended(self):
        with subprocess.Popen(["true"]) as child:
            until = time.monotonic() + 10
            done = None
            while time.monotonic() < until:
                done = hakmem("doctor", str(child.pid), "-s", "0.5")
                if "has no memory" in done.stderr:
                    break
            self.assertRegex(done.stderr, "has no memory: it has ended|takes")


class Shares(unittest.TestCase):
    """What holds what."""

    def test_no_share_is_more_than_the_whole(self):
        """A block that was given out and never touched is in use."""
        mb = 1 << 20
        values = {"huge_live_bytes": 103 * mb, "limit_used_bytes": 104 * mb}
        text = doctor.shares([diagnose.Look(0, values, True, 100 * mb,
                                            100 * mb, 0)])
        for line in text.splitlines()[1:]:
            self.assertLessEqual(int(line.split()[-1]), 100, text)
        self.assertRegex(text, r"in use +103.0 +99\n")
        self.assertRegex(text, r"not in memory: never touched, or swapped +4.0")

    def test_sizes(self):
        found = diagnose.sizes([share.Class(10, 100, 10, 1, 208),
                                share.Class(5, 0, 0, 0, 16),
                                share.Class(1, 9, 1, 2, 208)])
        self.assertEqual(found[208], diagnose.Sizes(
            208, "tiny", 11, 109 * 208, 11 * 208, 3 * 65536 - 120 * 208))
        self.assertEqual(diagnose.worst_size([share.Class(
            10, 100, 10, 1, 208)], "between"),
            ", most of it in blocks of 208 bytes")
        self.assertEqual(diagnose.worst_size([], "between"), "")


class Trend(unittest.TestCase):
    """What growth is."""

    MB = 1 << 20

    def test_growth(self):
        grows = diagnose.grows
        mb = self.MB
        self.assertEqual(grows([]), 0)
        self.assertEqual(grows([5 * mb]), 0)
        self.assertEqual(grows([10 * mb] * 16), 0)
        line = [(10 + i) * mb for i in range(16)]
        self.assertAlmostEqual(grows(line), 16 * mb, delta=mb)
        self.assertEqual(grows(line[::-1]), 0)
        # A saw whose teeth differ; one that rises.
        saw = [(10 + 7 * (i % 4)) * mb for i in range(16)]
        self.assertEqual(grows(saw), 0)
        self.assertGreater(grows([tooth + i * mb for i, tooth in
                                  enumerate(saw)]), 10 * mb)
        # One step is a step and no slope, when it comes late or early.
        self.assertEqual(grows([10 * mb] * 13 + [30 * mb] * 3), 0)

    def leaks(self, step, more):
        """60,000 blocks in 55 MB, by `step` bytes and `more` blocks a look."""
        return diagnose.leaks([
            diagnose.Look(i, {"tiny_live_bytes": 55 * self.MB + i * step,
                              "tiny_allocs": 99000 + 500 * i + more * i,
                              "tiny_frees": 39000 + 500 * i}, True, 0, 0, 0)
            for i in range(16)])

    def test_others_are_no_leak(self):
        """As many blocks as before, of sizes that chance made larger."""
        self.assertEqual(self.leaks(40 << 10, 0), 0)
        self.assertGreater(self.leaks(40 << 10, 1), 600 << 10)
        # One that grows and grows.
        self.assertGreater(self.leaks(1 << 20, 0), 15 << 20)


if __name__ == "__main__":
    unittest.main()
