"""limit_memory and HAKMEM_PYTHON_LIMIT: what a whole program may have."""
import textwrap
import unittest

import hakmem_py
from support import Case, python

# Builds lists, bytes and arrays until MemoryError, and handles it as programs
# do: with an import, a traceback in text, some objects.
BUILD = """
    import array, sys
    early, lists = bytearray(10), []
    import hakmem_py

    def build(make):
        kept = []
        try:
            while True:
                kept.append(make(len(kept)))
        except MemoryError:
            import traceback
            assert "MemoryError" in traceback.format_exc()
            return kept

    def mixed(i):
        return ([i] * (i % 2000), bytes(i * 37 % 100000),
                array.array("d", [0.0] * (i % 3000)), {"a": i, "b": str(i)})
"""


class Builds(Case):
    def builds(self, code, env=None):
        self.says(textwrap.dedent(BUILD) + textwrap.dedent(code), env=env)


class Memory(Builds):
    def test_until_it_is_met_ten_times(self):
        for lanes in ("tiny", "all"):
            for domains in ("default", "obj", "all"):
                self.builds("""
                    limit = 24 << 20
                    for round in range(10):
                        kept = build(mixed)
                        found = hakmem_py.stats()
                        assert found["limit"] == limit
                        assert found["limit_of"] == "memory"
                        live = found["live_bytes"]
                        assert limit * 3 // 4 < live < limit + (4 << 20), live
                        assert len(kept) > 100
                        del kept
                    assert sum(found[name]["limit_refusals"]
                               for name in ("obj", "mem", "raw")) > 0
                    print("fine")
                """, env={"HAKMEM_PYTHON_LIMIT": "24M",
                          "HAKMEM_PYTHON_LANES": lanes,
                          "HAKMEM_PYTHON": domains})

    def test_each_kind_of_size(self):
        """Objects, what pymalloc would hand to raw, what the system would
        serve, and a block that grows from before the import."""
        self.builds("""
            assert hakmem_py.limit_memory(20 << 20) is None
            for make in (float, lambda i: bytes(600), lambda i: bytes(1500),
                         lambda i: bytes(50000), lambda i: bytes(700000),
                         lambda i: [None] * 3000,
                         lambda i: array.array("i", [1]) * 40000):
                kept = build(make)
                live = hakmem_py.stats()["live_bytes"]
                assert (15 << 20) < live < (24 << 20), live
                del kept
            for grown, more, size in ((early, bytes(5000), 1),
                                      (lists, [None] * 1000, 8)):
                build(lambda i: grown.extend(more))
                live = hakmem_py.stats()["live_bytes"]
                assert live < (24 << 20), live
                assert (5 << 20) < size * len(grown) < (24 << 20), len(grown)
                grown.clear()
            try:
                bytes(21 << 20)
                print("was given")
            except MemoryError:
                pass
            assert hakmem_py.limit_memory(None) == 20 << 20
            kept = [bytes(1000) for i in range(30000)]
            print("fine")
        """)

    def test_raw(self):
        """PyMem_RawMalloc, from a thread without the GIL's help too."""
        self.says("""
            import ctypes, threading
            import hakmem_py
            api = ctypes.pythonapi
            api.PyMem_RawMalloc.restype = ctypes.c_void_p
            api.PyMem_RawCalloc.restype = ctypes.c_void_p
            free = ctypes.CDLL(None).PyMem_RawFree
            hakmem_py.limit_memory(20 << 20)
            size = ctypes.c_size_t
            def run():
                kept = []
                while True:
                    p = api.PyMem_RawMalloc(size(100000))
                    if p is None:
                        break
                    kept.append(ctypes.c_void_p(p))
                assert 100 < len(kept) < 220, len(kept)
                assert api.PyMem_RawCalloc(size(10), size(300000)) is None
                for p in kept:
                    free(p)
            run()
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            assert hakmem_py.stats()["raw"]["limit_refusals"] > 0
            print("fine")
        """)

    def test_it_ends(self):
        """None, disable() and the other limit end it; the domains and sizes are
        then as they were."""
        self.says("""
            import hakmem_py
            from churn import churn
            def state():
                found = hakmem_py.stats()
                return (found["limit"], found["limit_of"], found["lanes"],
                        [n for n in ("obj", "mem", "raw")
                         if found[n]["enabled"]])
            first = state()
            assert first == (None, None, "tiny", ["obj", "mem"]), first
            hakmem_py.limit_memory(200 << 20)
            assert state() == (200 << 20, "memory", "all",
                               ["obj", "mem", "raw"]), state()
            churn()
            hakmem_py.enable("obj")
            assert state()[3] == ["obj", "mem", "raw"]
            assert hakmem_py.limit_served(100 << 20) == 200 << 20
            assert state() == (100 << 20, "served", "tiny", ["obj"]), state()
            churn()
            hakmem_py.limit(None)
            hakmem_py.limit_memory(200 << 20)
            hakmem_py.disable()
            assert state() == (None, None, "tiny", []), state()
            churn()
            hakmem_py.limit_memory(300 << 20)
            assert hakmem_py.enabled and hakmem_py.reason is None
            hakmem_py.limit_memory(None)
            assert not hakmem_py.enabled and hakmem_py.reason
            churn()
            print("fine")
        """)

    def test_tracemalloc_and_forks(self):
        self.builds("""
            import os, tracemalloc
            tracemalloc.start()
            hakmem_py.limit_memory(24 << 20)
            child = os.fork()
            build(mixed)
            tracemalloc.stop()
            build(mixed)
            if child == 0:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print("fine")
        """)

    def test_below_what_is_in_use(self):
        with self.assertRaisesRegex(ValueError, r"limit_memory\(1000\).*in use"):
            hakmem_py.limit_memory(1000)

    def test_words(self):
        for word, limit in (("200m", 200 << 20), ("3G", 3 << 30),
                            ("4096K", 4 << 20), ("5000000", 5000000),
                            ("0", None), ("", None)):
            self.says("import hakmem_py; print(hakmem_py.stats()['limit'])",
                      env={"HAKMEM_PYTHON_LIMIT": word}, wanted=str(limit))

    def test_bad_words(self):
        """One line that says what is wrong, and no limit."""
        for word, told in (("much", "a number, then K, M, G"),
                           ("-1", "a number, then K, M, G"),
                           ("200 M", "a number, then K, M, G"),
                           ("2000T", "must be from 0 to 1099511627776"),
                           ("12", "less than 1M")):
            result = python("import hakmem_py;"
                            " print(hakmem_py.stats()['limit'])",
                            env={"HAKMEM_PYTHON_LIMIT": word})
            self.assertEqual(result.stdout, "None\n")
            self.assertRegex(result.stderr, f"HAKMEM_PYTHON_LIMIT=.*{told}")
            self.assertEqual(result.stderr.count("\n"), 1)

    def test_where_it_can_not_be_kept(self):
        for env, told in (({"HAKMEM_PYTHON": "off"}, "HAKMEM_PYTHON=off"),
                          ({"PYTHONMALLOC": "debug"}, "debug hooks")):
            result = python("""
                import hakmem_py
                assert hakmem_py.stats()["limit"] is None
                assert not hakmem_py.enabled
            """, env=dict(env, HAKMEM_PYTHON_LIMIT="50M"))
            self.assertRegex(result.stderr, f"there is no limit: .*{told}")
            self.assertEqual(result.stderr.count("\n"), 1)
        self.says("""
            import hakmem_py
            try:
                hakmem_py.limit_memory(50 << 20)
            except RuntimeError as error:
                assert "debug hooks" in str(error), error
                print("fine")
        """, env={"PYTHONMALLOC": "debug"})


class AddressSpace(Builds):
    def test_set_in_a_running_program(self):
        """RLIMIT_AS: MemoryError, again and again, and nothing else fails."""
        for lanes in ("tiny", "all"):
            self.builds("""
                import resource, threading
                size = int(open("/proc/self/statm").read().split()[0]) * 4096
                most = size + (100 << 20)
                resource.setrlimit(resource.RLIMIT_AS, (most, most))
                for round in range(3):
                    try:
                        kept = []
                        while True:
                            kept.append(mixed(len(kept)))
                    except MemoryError:
                        count = len(kept)
                        del kept
                    assert count > 200, count
                thread = threading.Thread(target=lambda: mixed(9))
                thread.start()
                thread.join()
                block = bytearray(30 << 20)
                print("fine")
            """, env={"HAKMEM_PYTHON_LANES": lanes,
                      # The C library's, for the thread, takes 64 MB of
                      # addresses, once in a while.
                      "MALLOC_ARENA_MAX": "1"})


if __name__ == "__main__":
    unittest.main()
