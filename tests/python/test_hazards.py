"""Who else is in the allocators' place, and when: tracemalloc, debug hooks."""
import os
import sys
import tempfile
import textwrap
import unittest

from support import Case, python


class Tracemalloc(Case):
    def test_import_while_it_traces(self):
        for domains in ("default", "all"):
            self.says("""
                import tracemalloc
                tracemalloc.start()
                kept = [bytes(i) for i in range(3000)]
                import hakmem_py
                assert hakmem_py.enabled is True, hakmem_py.reason
                from churn import churn
                before = hakmem_py.stats()["obj"]["tiny_allocs"]
                traced = tracemalloc.get_traced_memory()[0]
                more = [bytes(i) for i in range(3000)]
                assert tracemalloc.get_traced_memory()[0] > traced + 4000000
                assert hakmem_py.stats()["obj"]["tiny_allocs"] > before + 500
                churn()
                tracemalloc.stop()
                before = hakmem_py.stats()["obj"]["tiny_allocs"]
                churn()
                assert hakmem_py.stats()["obj"]["tiny_allocs"] > before + 1000
                del kept, more
                churn()
                tracemalloc.start(5)
                churn()
                print("fine")
            """, env={"HAKMEM_PYTHON": domains})

    def test_start_and_stop_after_import(self):
        for domains in ("default", "all"):
            self.says("""
                import tracemalloc
                import hakmem_py
                from churn import churn
                for round in range(3):
                    kept = [str(i) for i in range(3000)]
                    tracemalloc.start()
                    more = [str(i) for i in range(3000)]
                    del kept
                    churn()
                    tracemalloc.stop()
                    del more
                    churn()
                    assert hakmem_py.enabled
                tracemalloc.start()
                print("fine")
            """, env={"HAKMEM_PYTHON": domains})

    def test_traced_from_the_start(self):
        for domains in ("default", "all"):
            self.says("""
                import hakmem_py
                import tracemalloc
                from churn import churn
                assert tracemalloc.is_tracing() and hakmem_py.enabled
                churn()
                kept = [object() for i in range(1000)]
                assert hakmem_py.stats()["obj"]["tiny_allocs"] > 1000
                tracemalloc.stop()
                churn()
                print("fine")
            """, env={"PYTHONTRACEMALLOC": "1", "HAKMEM_PYTHON": domains})

    def test_still_tracing_at_exit(self):
        self.says("""
            import tracemalloc
            tracemalloc.start()
            import hakmem_py
            from churn import churn
            churn()
            kept = [str(i) for i in range(3000)]
            print("fine")
        """)

    def test_enable_more_while_it_traces(self):
        self.says("""
            import tracemalloc
            import hakmem_py
            from churn import churn
            hakmem_py.enable("obj")
            tracemalloc.start()
            assert hakmem_py.enable(["obj", "mem", "raw"])
            churn()
            hakmem_py.disable()
            churn()
            tracemalloc.stop()
            churn()
            hakmem_py.enable()
            churn()
            print("fine")
        """)

    # The raw domain's allocator as ctypes sees it.
    ALLOCATOR = """
        import ctypes
        import tracemalloc
        class Allocator(ctypes.Structure):
            _fields_ = [("ctx", ctypes.c_void_p)] + [
                (n, ctypes.c_void_p)
                for n in ("malloc", "calloc", "realloc", "free")]
        get = ctypes.pythonapi.PyMem_GetAllocator
        set = ctypes.pythonapi.PyMem_SetAllocator
        before = Allocator()
        get(0, ctypes.byref(before))
        tracemalloc.start()
        now = Allocator()
        get(0, ctypes.byref(now))
    """

    def not_found(self, other):
        """`other` is in its place: refused, and nothing changes."""
        self.says(textwrap.dedent(self.ALLOCATOR) + textwrap.dedent(other) +
                  textwrap.dedent("""
            set(0, ctypes.byref(other))
            try:
                import hakmem_py
                print("was imported")
            except ImportError as error:
                assert "tracemalloc" in str(error), error
                assert "before tracemalloc.start()" in str(error), error
            set(0, ctypes.byref(now))
            import hakmem_py
            assert hakmem_py.enabled
            tracemalloc.stop()
            print("fine")
        """))

    def test_not_where_it_should_be(self):
        """The same functions with a copy of the context, which lies in the
        heap: what tracemalloc saved is not found from there."""
        self.not_found("""
            copy = Allocator()
            ctypes.memmove(ctypes.byref(copy), now.ctx, ctypes.sizeof(copy))
            other = Allocator(ctypes.addressof(copy), now.malloc, now.calloc,
                              now.realloc, now.free)
        """)

    def test_what_looks_like_it_is_not_it(self):
        """Its context with functions that do not care: a request proves it."""
        self.not_found("""
            other = Allocator(now.ctx, before.malloc, before.calloc,
                              before.realloc, before.free)
        """)


class DebugHooks(Case):
    def test_passed_through(self):
        for options, env in (((), {"PYTHONMALLOC": "debug"}),
                             ((), {"PYTHONMALLOC": "pymalloc_debug"}),
                             ((), {"PYTHONMALLOC": "malloc_debug"}),
                             (("-X", "dev"), {}),
                             ((), {"PYTHONMALLOC": "debug",
                                   "PYTHONTRACEMALLOC": "1"})):
            for domains in ("default", "raw", "all"):
                self.says("""
                    import hakmem_py
                    from churn import churn
                    assert hakmem_py.enabled is False
                    assert "debug hooks" in hakmem_py.reason
                    churn()
                    assert hakmem_py.stats()["obj"]["calls"] == 0
                    assert hakmem_py.enable(["obj"]) is False
                    hakmem_py.trim()
                    hakmem_py.disable()
                    churn()
                    print("fine")
                """, *options, env=dict(env, HAKMEM_PYTHON=domains))

    def test_they_still_find_faults(self):
        """An overflow of a block is theirs to report, with us imported."""
        result = python("""
            import hakmem_py
            import ctypes
            api = ctypes.pythonapi
            api.PyObject_Malloc.restype = ctypes.c_void_p
            p = api.PyObject_Malloc(ctypes.c_size_t(10))
            ctypes.memset(p + 10, 0, 1)
            api.PyObject_Free(ctypes.c_void_p(p))
        """, env={"PYTHONMALLOC": "debug"}, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("bad trailing pad byte", result.stderr)


class Malloc(Case):
    def test_pythonmalloc(self):
        for word in ("malloc", "pymalloc"):
            for domains in ("default", "all"):
                for lanes in ("tiny", "all"):
                    self.says("""
                        import hakmem_py
                        from churn import churn
                        assert hakmem_py.enabled is True
                        churn()
                        hakmem_py.disable()
                        churn()
                        print("fine")
                    """, env={"PYTHONMALLOC": word, "HAKMEM_PYTHON": domains,
                              "HAKMEM_PYTHON_LANES": lanes})

    @unittest.skipIf(sys.version_info < (3, 13), "3.13 has mimalloc first")
    def test_mimalloc(self):
        result = python("import hakmem_py; from churn import churn; churn();"
                        "print(hakmem_py.enabled)",
                        env={"PYTHONMALLOC": "mimalloc"}, check=False)
        if "unknown" not in result.stderr.lower():
            self.assertEqual(result.stdout.strip(), "True", result.stderr)


class Imports(Case):
    def test_twice(self):
        self.says("""
            import sys
            import hakmem_py
            from churn import churn
            churn()
            first = hakmem_py.stats()
            for name in [n for n in sys.modules if n.startswith("hakmem_py")]:
                del sys.modules[name]
            del hakmem_py
            import hakmem_py
            now = hakmem_py.stats()
            assert now["obj"]["tiny_allocs"] > first["obj"]["tiny_allocs"]
            assert hakmem_py.enabled
            churn()
            print("fine")
        """)

    def test_reload(self):
        self.says("""
            import importlib
            import hakmem_py
            from churn import churn
            churn()
            importlib.reload(hakmem_py)
            importlib.reload(hakmem_py._hakmem)
            assert hakmem_py.enabled
            churn()
            hakmem_py.disable()
            importlib.reload(hakmem_py)
            assert not hakmem_py.enabled  # a reload does not undo that
            churn()
            print("fine")
        """)

    def test_many_threads_at_once(self):
        self.says("""
            import threading
            from churn import churn
            def run():
                import hakmem_py
                churn(300)
                assert hakmem_py.enabled
            threads = [threading.Thread(target=run) for _ in range(8)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            print("fine")
        """)

    def test_in_the_library_search_order(self):
        """Nothing but our package is needed, and no file is written."""
        with tempfile.TemporaryDirectory() as place:
            here = os.getcwd()
            os.chdir(place)
            try:
                self.says("import hakmem_py; print('fine')",
                          env={"PYTHONDONTWRITEBYTECODE": "1"})
                self.assertEqual(os.listdir(place), [])
            finally:
                os.chdir(here)


class Audit(Case):
    @unittest.skipIf(sys.version_info >= (3, 12), "it is needed from 3.12 on")
    def test_no_hook_where_none_is_needed(self):
        """sys.addaudithook's own event would name ours."""
        self.says("""
            import sys
            seen = []
            sys.addaudithook(lambda name, args: seen.append(name))
            import hakmem_py
            assert "sys.addaudithook" not in seen
            print("fine")
        """)


class Exit(Case):
    def test_blocks_outlive_the_module(self):
        for domains in ("obj", "mem", "raw", "all"):
            self.says("""
                import atexit, sys
                import hakmem_py
                from churn import churn
                class Late:
                    def __init__(self):
                        self.blocks = [bytes(i) for i in range(2000)]
                    def __del__(self):
                        self.blocks = [bytes(i) for i in range(3000)]
                late = Late()
                late.me = late
                sys.late = Late()
                atexit.register(churn)
                for name in [n for n in sys.modules if "hakmem" in n]:
                    del sys.modules[name]
                del hakmem_py
                churn()
                print("fine")
            """, env={"HAKMEM_PYTHON": domains})

    def test_threads_run_on(self):
        for domains in ("default", "all"):
            for _ in range(5):
                self.says("""
                    import threading, time
                    import hakmem_py
                    from churn import churn
                    def run():
                        while True:
                            churn(50)
                    for _ in range(4):
                        threading.Thread(target=run, daemon=True).start()
                    time.sleep(0.1)
                    print("fine")
                """, env={"HAKMEM_PYTHON": domains})

    def test_other_ways_out(self):
        for way, status in (("sys.exit(3)", 3), ("os._exit(4)", 4),
                            ("raise SystemExit(5)", 5), ("1 / 0", 1)):
            result = python(f"""
                import os, sys
                import hakmem_py
                kept = [bytes(i) for i in range(3000)]
                {way}
            """, check=False)
            self.assertEqual(result.returncode, status, result.stderr)


if __name__ == "__main__":
    unittest.main()
