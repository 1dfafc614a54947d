"""Forks, multiprocessing, threads and subinterpreters."""
import sys
import textwrap
import unittest

from support import Case

BOTH = ({"HAKMEM_PYTHON": "default"}, {"HAKMEM_PYTHON": "all"})


class Forks(Case):
    def everywhere(self, code):
        for env in BOTH:
            # From 3.12 on a fork beside threads is warned of.
            self.says(code, "-W", "ignore::DeprecationWarning", env=env)

    def test_fork(self):
        self.everywhere("""
            import os
            import hakmem_py
            from churn import churn
            kept = [str(i) for i in range(10000)]
            for round in range(5):
                child = os.fork()
                if child == 0:
                    churn()
                    assert kept == [str(i) for i in range(10000)]
                    del kept
                    churn()
                    grandchild = os.fork()
                    if grandchild == 0:
                        churn()
                        os._exit(7)
                    assert os.waitpid(grandchild, 0)[1] >> 8 == 7
                    hakmem_py.trim()
                    os._exit(5)
                churn()
                assert os.waitpid(child, 0)[1] >> 8 == 5
            assert kept == [str(i) for i in range(10000)]
            print("fine")
        """)

    def test_fork_beside_threads(self):
        self.everywhere("""
            import os, threading
            import hakmem_py
            from churn import churn
            stop = False
            def run():
                while not stop:
                    churn(100)
            threads = [threading.Thread(target=run) for _ in range(4)]
            [t.start() for t in threads]
            for round in range(20):
                child = os.fork()
                if child == 0:
                    churn(300)
                    hakmem_py.trim()
                    os._exit(5)
                assert os.waitpid(child, 0)[1] >> 8 == 5
            stop = True
            [t.join() for t in threads]
            print("fine")
        """)

    def test_multiprocessing(self):
        for method in ("fork", "spawn", "forkserver"):
            self.everywhere(f"""
                import multiprocessing, sys
                import hakmem_py
                import pool_work
                context = multiprocessing.get_context({method!r})
                with context.Pool(3) as pool:
                    results = pool.map(pool_work.work, range(20))
                assert [r[0] for r in results] == list(range(20))
                assert all(r[1] for r in results), results
                print("fine")
            """)

    def test_subprocess(self):
        self.everywhere("""
            import subprocess, sys, threading
            import hakmem_py
            from churn import churn
            def run():
                for i in range(5):
                    out = subprocess.run(["echo", str(i)],
                                         stdout=subprocess.PIPE).stdout
                    assert out == b"%d\\n" % i
                    churn(50)
            threads = [threading.Thread(target=run) for _ in range(4)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            print("fine")
        """)


class Threads(Case):
    def test_objects_die_elsewhere(self):
        """Made in one thread, freed in another, under the one GIL."""
        for env in BOTH:
            self.says("""
                import queue, sys, threading
                import hakmem_py
                sys.setswitchinterval(0.0001)
                pipe = queue.Queue(100)
                def make():
                    for i in range(5000):
                        pipe.put([i, str(i), {"n": i}, bytes(i % 3000)])
                    pipe.put(None)
                def drop():
                    while True:
                        one = pipe.get()
                        if one is None:
                            break
                        assert one[1] == str(one[0]) and one[2]["n"] == one[0]
                for _ in range(3):
                    threads = [threading.Thread(target=f)
                               for f in (make, drop, make, drop)]
                    [t.start() for t in threads]
                    [t.join() for t in threads]
                live = hakmem_py.stats()["live_bytes"]
                assert live < 20 << 20, live
                print("fine")
            """, env=env)


class Subinterpreters(Case):
    def test_import_in_one(self):
        for env in BOTH:
            self.says("""
                from subs import run, sub
                from churn import churn
                one = sub.create()
                run(one, '''
                    import hakmem_py
                    from churn import churn
                    assert hakmem_py.enabled, hakmem_py.reason
                    churn()
                ''')
                churn()
                sub.destroy(one)
                churn()
                import hakmem_py
                assert hakmem_py.enabled
                churn()
                print("fine")
            """, env=env)

    def test_import_before(self):
        for env in BOTH:
            self.says("""
                from subs import run, sub
                import hakmem_py
                from churn import churn
                kept = [str(i) for i in range(10000)]
                churn()
                several = [sub.create() for _ in range(3)]
                for one in several:
                    run(one, '''
                        import hakmem_py
                        from churn import churn
                        churn()
                        hakmem_py.trim()
                        assert hakmem_py.stats()["obj"]["tiny_allocs"] > 0
                    ''')
                    churn()
                    sub.destroy(one)
                del kept
                churn()
                hakmem_py.trim()
                print("fine")
            """, env=env)

    def test_shared_from_then_on(self):
        """With a GIL of its own (3.12) the one heap is no longer served."""
        self.says("""
            from subs import run, sub
            import sys
            import hakmem_py
            assert hakmem_py.stats()["shared"] is False
            one = sub.create()
            wanted = sys.version_info >= (3, 12)
            assert hakmem_py.stats()["shared"] is wanted
            before = hakmem_py.stats()
            kept = [[object()] for i in range(10000)]
            after = hakmem_py.stats()
            for name, least in (("obj", 20000), ("mem", 10000)):
                made = after[name]["tiny_allocs"] - before[name]["tiny_allocs"]
                assert made >= least, (name, made)
            assert after["live_bytes"] - before["live_bytes"] >= 300000
            sub.destroy(one)
            print("fine")
        """)

    def test_large_zeroed_blocks_are_no_interpreter(self):
        """They reach raw's calloc too, by way of pymalloc."""
        for domains in ("default", "all"):
            self.says("""
                import sys
                import hakmem_py
                for off in False, True:
                    if off:
                        hakmem_py.disable()
                    kept = [bytes(size) for size in
                            (65536, 200000, 393216, 3000000) * 4]
                    assert hakmem_py.stats()["shared"] is False, off
                from subs import sub
                one = sub.create()
                wanted = sys.version_info >= (3, 12)
                assert hakmem_py.stats()["shared"] is wanted
                sub.destroy(one)
                print("fine")
            """, env={"HAKMEM_PYTHON": domains})

    @unittest.skipIf(sys.version_info < (3, 12), "one GIL up to 3.11")
    def test_at_once(self):
        """Interpreters with GILs of their own, really beside each other."""
        for env in BOTH:
            for when in ("before", "after"):
                self.says(f"""
                    from subs import run, sub
                    import threading
                    if {when!r} == "before":
                        import hakmem_py
                        kept = [str(i) for i in range(20000)]
                    from churn import churn
                    several = [sub.create() for _ in range(4)]
                    def work(one):
                        run(one, '''
                            import hakmem_py
                            from churn import churn
                            for _ in range(5):
                                churn(300)
                        ''')
                    threads = [threading.Thread(target=work, args=(one,))
                               for one in several]
                    [t.start() for t in threads]
                    for _ in range(5):
                        churn(300)
                    if {when!r} == "before":
                        del kept
                    [t.join() for t in threads]
                    for one in several:
                        sub.destroy(one)
                    churn()
                    print("fine")
                """, env=env)

    @unittest.skipIf(sys.version_info < (3, 12), "one GIL up to 3.11")
    def test_switches_at_once(self):
        """Interpreters that switch, limit, trim and seal beside others."""
        for lanes in ("tiny", "all"):
            self.says("""
                from subs import run, sub
                import threading
                import hakmem_py
                from churn import churn
                several = [sub.create() for _ in range(4)]
                work = ['''
                    for _ in range(20):
                        hakmem_py.disable()
                        churn(50)
                        hakmem_py.enable(domains)
                        churn(50)
                    ''', '''
                    for _ in range(20):
                        hakmem_py.limit(1 << 30)
                        churn(50)
                        hakmem_py.limit(None)
                        churn(50)
                    ''', '''
                    for _ in range(20):
                        hakmem_py.trim()
                        churn(50)
                        assert hakmem_py.stats(classes=True)["live_bytes"] > 0
                    ''', '''
                    for _ in range(20):
                        hakmem_py.seal()
                        churn(50)
                    ''']
                begin = "import hakmem_py\\nfrom churn import churn\\n" \
                        "domains = ['obj', 'mem', 'raw']\\n"
                import textwrap
                threads = [threading.Thread(target=run, args=(
                               one, begin + textwrap.dedent(code)))
                           for one, code in zip(several, work)]
                [t.start() for t in threads]
                for _ in range(20):
                    churn(50)
                [t.join() for t in threads]
                [sub.destroy(one) for one in several]
                hakmem_py.enable()
                before = hakmem_py.stats()["obj"]["tiny_allocs"]
                churn()
                assert hakmem_py.stats()["obj"]["tiny_allocs"] > before
                print("fine")
            """, env={"HAKMEM_PYTHON": "all", "HAKMEM_PYTHON_LANES": lanes})


# A second interpreter, which from 3.12 on may have a GIL of its own.
SHARED = """
    import atexit
    import hakmem_py
    from subs import sub
    from churn import churn
    other = sub.create()
    atexit.register(sub.destroy, other)
    assert hakmem_py.stats()["shared"], "it was not noticed"
"""


@unittest.skipIf(sys.version_info < (3, 12), "one GIL up to 3.11")
class Shared(Case):
    """What holds with one GIL holds with several."""

    def shared(self, code, **env):
        self.says(textwrap.dedent(SHARED) + textwrap.dedent(code), env=env)

    def test_blocks_of_every_size(self):
        for domains in ("default", "all"):
            for lanes in ("tiny", "all"):
                self.shared("""
                    import unittest
                    import test_blocks
                    test_blocks.check_all(unittest.TestCase())
                    made = test_blocks.make_blocks()
                    hakmem_py.disable()
                    test_blocks.use_up(made)
                    made = test_blocks.make_blocks()
                    hakmem_py.enable()
                    test_blocks.use_up(made)
                    print("fine")
                """, HAKMEM_PYTHON=domains, HAKMEM_PYTHON_LANES=lanes)

    def test_switches(self):
        self.shared("""
            def tiny():
                before = hakmem_py.stats()["obj"]
                kept = [object() for one in [None] * 5000]
                after = hakmem_py.stats()["obj"]
                return [after["tiny_allocs"] - before["tiny_allocs"],
                        after["fallback_off"] - before["fallback_off"]]
            for _ in range(3):
                on = tiny()
                assert on[0] >= 5000 and on[1] == 0, on
                hakmem_py.disable()
                off = tiny()
                assert off[0] == 0 and off[1] >= 5000, off
                hakmem_py.enable()
            print("fine")
        """)

    def test_limit(self):
        self.shared("""
            live = hakmem_py.stats()["live_bytes"]
            hakmem_py.limit(live + (20 << 20))
            kept = []
            try:
                while True:
                    kept.append({"n": len(kept)})
            except MemoryError:
                pass
            assert 20000 < len(kept) < 200000, len(kept)
            after = hakmem_py.stats()["live_bytes"]
            assert after <= live + (20 << 20) + (64 << 10), (live, after)
            del kept
            hakmem_py.limit(None)
            kept = [{"n": i} for i in range(300000)]
            print("fine")
        """)

    def test_the_old_heap_is_used_up(self):
        """What the one heap held is freed, and goes back or serves again."""
        self.says("""
            import hakmem_py
            from subs import sub
            kept = [bytes(200) for i in range(200000)]
            full = hakmem_py.stats()
            other = sub.create()
            del kept
            hakmem_py.trim()
            empty = hakmem_py.stats()
            assert empty["live_bytes"] < full["live_bytes"] - 40000000
            assert empty["resident_bytes"] < 10 << 20, empty
            assert empty["peak_bytes"] >= full["live_bytes"]
            sub.destroy(other)
            print("fine")
        """)

    def test_the_peak_is_seen(self):
        self.shared("""
            kept = [bytes(200) for i in range(200000)]
            live = hakmem_py.allocated_blocks()
            del kept
            assert hakmem_py.stats()["peak_bytes"] > 40 << 20
            print("fine")
        """)


if __name__ == "__main__":
    unittest.main()
