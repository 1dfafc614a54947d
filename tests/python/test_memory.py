"""Memory goes back to the system, by itself and when it is asked to."""
import os
import subprocess
import sys
import textwrap
import time
import unittest

import hakmem_py
from resident import resident
from support import HERE, PATH, Case, python


class Decay(Case):
    def test_all_goes_back(self):
        for lanes in ("tiny", "all"):
            self.says("""
                import hakmem_py
                from resident import objects, resident, settled
                kept = objects(1000000)
                full = resident()
                assert full > 100, full
                kept = None
                left = settled(25, 60)
                assert left <= 25, left
                stats = hakmem_py.stats()
                assert stats["purged_bytes"] > 70 << 20, stats
                print("fine")
            """, env={"HAKMEM_PURGE_DELAY": "200",
                      "HAKMEM_PYTHON_LANES": lanes})

    def test_holes_go_back(self):
        """90 % deleted, in runs of 1000."""
        self.says("""
            import hakmem_py
            from resident import objects, resident, settled
            kept = objects(1000000)
            full = resident()
            for start in range(0, len(kept), 10000):
                for i in range(start, start + 9000):
                    kept[i] = None
            left = settled(full * 55 // 100, 60)
            assert left <= full * 55 // 100, (full, left)
            for start in range(0, len(kept), 10000):
                assert kept[start + 9000] == {"a": start + 9000}
                assert kept[start + 9003] == (start + 9003, str(start + 9003))
            print("fine")
        """, env={"HAKMEM_PURGE_DELAY": "200"})

    def test_larger_blocks_go_back(self):
        self.says("""
            import hakmem_py
            from resident import objects, resident, settled
            kept = [b"x" * size for size in (3000, 30000, 100000, 5000000)
                    for i in range(60000000 // size)]
            full = resident()
            assert full > 200, full
            del kept
            left = settled(30, 60)
            assert left <= 30, left
            print("fine")
        """, env={"HAKMEM_PURGE_DELAY": "200", "HAKMEM_PYTHON_LANES": "all"})

    def test_trim_at_once(self):
        self.says("""
            import hakmem_py
            from resident import objects, resident, settled
            kept = objects(500000)
            full = resident()
            del kept
            assert hakmem_py.trim() > 50 << 20
            assert resident() < 25, resident()
            print("fine")
        """, env={"HAKMEM_PURGE_DELAY": "3600000"})

class Sleep(Case):
    """A program that sleeps is watched from outside."""

    CODE = """
        import hakmem_py, os, sys, time
        from resident import objects, resident
        {before}
        kept = objects(500000)
        full = resident()
        del kept
        {after}
        print(full, flush=True)
        time.sleep(100)
    """

    def left(self, before="", after="", wait=30, **env):
        """(MB before, MB in the end) of a program that sleeps: it is watched
        until half has gone."""
        env = dict(os.environ, HAKMEM_PURGE_DELAY="200",
                   PYTHONPATH=PATH + os.pathsep + HERE, **env)
        code = textwrap.dedent(self.CODE).format(before=before, after=after)
        with subprocess.Popen([sys.executable, "-c", code], env=env,
                              stdout=subprocess.PIPE) as process:
            try:
                full = int(process.stdout.readline())
                end = time.monotonic() + wait
                while (now := resident(process.pid)) > full // 2 and \
                        time.monotonic() < end:
                    time.sleep(0.05)
            finally:
                process.kill()
        self.assertGreater(full, 50)
        return full, now

    def test_goes_back(self):
        for asked in ({}, {"before": "hakmem_py.give_back(True)"},
                      {"HAKMEM_PYTHON_GIVE_BACK": "0",
                       "after": "hakmem_py.give_back()"},
                      {"HAKMEM_PYTHON_GIVE_BACK": "30"},
                      {"before": "child = os.fork()\n"
                                 "if child: os.waitpid(child, 0); os._exit(0)"}):
            full, now = self.left(**asked)
            self.assertLessEqual(now, full // 2, asked)

    def test_stays_otherwise(self):
        for how in ({"before": "hakmem_py.give_back(False)"},
                    {"before": "hakmem_py.give_back_every(0.1)\n"
                               "hakmem_py.give_back_every(None)"},
                    {"HAKMEM_PYTHON_GIVE_BACK": "0"},
                    {"HAKMEM_PYTHON_GIVE_BACK": "off"}):
            full, now = self.left(wait=2, **how)
            self.assertGreater(now, full // 2, how)

    def test_bad_values(self):
        for value in (-1, 1e9, float("nan")):
            with self.assertRaisesRegex(ValueError, "from 0 to 1000000"):
                hakmem_py.give_back_every(value)
        for value in ("1", [1]):
            with self.assertRaises(TypeError):
                hakmem_py.give_back_every(value)
        result = python("import hakmem_py; print(hakmem_py.enabled)",
                        env={"HAKMEM_PYTHON_GIVE_BACK": "often"})
        self.assertIn("HAKMEM_PYTHON_GIVE_BACK=often: not one of 0 1 off on no"
                      " yes false true; using 1", result.stderr)
        self.assertEqual(result.stdout.strip(), "True")


if __name__ == "__main__":
    unittest.main()
