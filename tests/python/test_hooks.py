"""Others that hook CPython's allocators, in every order of start and stop:
hooks.c, compiled, which stands in for profilers, and tracemalloc."""
import itertools
import os
import shutil
import subprocess
import sysconfig
import tempfile
import textwrap
import unittest

from support import HERE, Case, python

CC = os.environ.get("CC") or "cc"

# A child of a fork each: one order of what may happen. A hook of a kind starts
# and stops, tracemalloc too, hakmem_py is imported; blocks made at every point
# are resized and freed at others.
RUN = """
    import gc, os, sys, tracemalloc
    import hooks

    kept, lists = [], []

    def work():
        for i in range(150):
            kept.append([str(i), {"a": i, "b": bytes(i * 7)}, float(i)])
            lists.append([0] * (i % 100))
        for one in lists[::3]:
            one.extend(range(len(one) + 8))
        del kept[::5], lists[::7]

    def free():
        kept.clear()
        lists.clear()
        gc.collect()

    def import_ours():
        global hakmem_py
        import hakmem_py

    def run(order, start, stop, env):
        os.environ.update(env)
        events = {"T": tracemalloc.start, "t": tracemalloc.stop, "H": start,
                  "h": stop, "I": import_ours}
        work()
        for event in order:
            events[event]()
            work()
        full = hakmem_py.allocated_blocks()
        free()
        for _ in range(2): # what a thread has freed of the GIL's heap
            hakmem_py.trim()
        left = hakmem_py.allocated_blocks()
        work()
        assert left < full - 300, (order, full, left)
        return hakmem_py

    def each(orders, start, stop, check, **env):
        for order in orders:
            child = os.fork()
            if child == 0:
                try:
                    check(order, run(order, start, stop, env))
                    free()
                    os._exit(0)
                except BaseException as error:
                    import traceback
                    traceback.print_exc()
                    print(order, file=sys.stderr)
                    os._exit(1)
            status = os.waitpid(child, 0)[1]
            if status:
                print(order, env, "ended with", status)

    def serves(domain):
        before = hakmem_py.stats()[domain]["tiny_allocs"]
        some = [[float(i)] for i in range(1000)]
        return hakmem_py.stats()[domain]["tiny_allocs"] >= before + 900

    def crossed(order):
        return order.replace("I", "") == "HTht"

    def same_story(order, hakmem_py):
        for name in ("obj", "mem"):
            assert hakmem_py.stats()[name]["enabled"] == serves(name), order
        hakmem_py.enable()
        assert serves("obj") and serves("mem"), order
        work()

    def still_on(order, hakmem_py):
        if crossed(order):
            return same_story(order, hakmem_py)
        assert hakmem_py.enabled and hakmem_py.reason is None
        assert serves("obj") and serves("mem"), order
"""


def orders(*without):
    """Every order of import (I), hook (H starts, h stops) and tracemalloc (T,
    t) in which a start comes before its stop, but for those that hold all of
    the pairs in `without`, as "HI": H before I. Without THth: the hook puts
    back tracemalloc, which has ended, and nobody survives that."""
    found = set()
    for order in map("".join, itertools.permutations("HhTtI")):
        good = all(order.index(first) < order.index(second)
                   for first, second in ("Hh", "Tt"))
        if good and order.replace("I", "") != "THth" and not (
                without and
                all(order.index(a) < order.index(b) for a, b in without)):
            found.add(order)
    return sorted(found)


@unittest.skipIf(shutil.which(CC) is None, "there is no compiler")
class Hooks(Case):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory()
        subprocess.run(
            [CC, "-O1", "-fPIC", "-shared", "-w",
             "-I", sysconfig.get_path("include"),
             os.path.join(HERE, "hooks.c"), "-o", os.path.join(cls.place.name, "hooks.so"), "-ldl"],
            check=True)

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def passes(self, code, **env):
        """The code after RUN prints nothing: no order failed."""
        text = "import sys; sys.path.insert(0, %r)\n" % self.place.name
        text += textwrap.dedent(RUN) + textwrap.dedent(code)
        result = python(text, env=env)
        self.assertEqual((result.stdout, result.stderr), ("", ""))

    def test_what_it_found_is_in_its_context(self):
        """As ddtrace does, in obj; then in mem. We go beneath: it sees every
        request, and when it stops we stay."""
        for domain in (4, 2, 6):
            self.passes(f"""
                def check(order, hakmem_py):
                    still_on(order, hakmem_py)
                    assert hooks.count() > 300, order
                each({orders()}, lambda: hooks.start({domain}, "context"),
                     hooks.stop, check)
            """)

    def test_all_domains_and_slots(self):
        """As memray does: malloc in the slots of all objects as well."""
        some = [order for order in orders() if order != "HThIt"] # refused
        for domains in ("default", "all"):
            self.passes(f"""
                def start():
                    hooks.patch()
                    hooks.start(7, "context")
                def stop():
                    hooks.unpatch()
                    hooks.stop()
                each({some}, start, stop, still_on, HAKMEM_PYTHON={domains!r})
            """)

    def test_what_it_found_is_hidden(self):
        """It puts back what it found before us: pymalloc gets our blocks, and
        hands them to raw. enable() puts us there again."""
        for domain, name, other, lanes in ((4, "obj", "mem", "tiny"),
                                           (2, "mem", "obj", "all")):
                self.passes(f"""
                    def check(order, hakmem_py):
                        if crossed(order):
                            return same_story(order, hakmem_py)
                        before = order[:order.index("I")]
                        if "H" not in before or "h" in before:
                            return still_on(order, hakmem_py)
                        assert hakmem_py.enabled and serves("{other}"), order
                        found = hakmem_py.stats()["{name}"]
                        assert not found["enabled"], order
                        assert not serves("{name}"), order
                        hakmem_py.enable()
                        still_on(order, hakmem_py)
                        work()
                    each({orders()}, lambda: hooks.start({domain}, "hidden"),
                         hooks.stop, check, HAKMEM_PYTHON_LANES="{lanes}")
                """)

    def test_both_are_put_back(self):
        self.passes("""
            def check(order, hakmem_py):
                assert hakmem_py.enabled is False, order
                assert "put back" in hakmem_py.reason, hakmem_py.reason
                assert "hakmem_py.enable()" in hakmem_py.reason
                assert hakmem_py.enable() and hakmem_py.reason is None
                still_on(order, hakmem_py)
                assert hakmem_py.allocated_blocks() > 0
                free()
                work()
            each(["HIhTt", "HITth", "TtHIh", "HTtIh"],
                 lambda: hooks.start(6, "hidden"), hooks.stop, check)
        """)

    def test_raw_is_hidden_and_not_put_back_over_us(self):
        """All but a hook on raw that starts before us and stops after us,
        which the documentation names."""
        some = [order for order in orders("HI", "Ih")
                if order not in ("THIht", "HThIt")] # refused: it traces
        for domains in ("default", "all"):
            self.passes(f"""
                each({some}, lambda: hooks.start(7, "hidden"), hooks.stop,
                     lambda order, hakmem_py: None, HAKMEM_PYTHON={domains!r})
            """)

    def test_hidden_on_raw_over_tracemalloc_is_refused(self):
        self.passes("""
            tracemalloc.start()
            hooks.start(1, "hidden")
            try:
                import hakmem_py
                print("was imported")
            except ImportError as error:
                assert "before tracemalloc.start()" in str(error), error
            hooks.stop()
            import hakmem_py
            assert hakmem_py.enabled
            tracemalloc.stop()
            work()
            free()
            still_on("", hakmem_py)
        """)

    def test_hooks_on_hooks(self):
        """Two of other people's, and we beneath both."""
        with tempfile.TemporaryDirectory() as second:
            shutil.copy(os.path.join(self.place.name, "hooks.so"), second)
            self.passes(f"""
                import importlib.util
                spec = importlib.util.spec_from_file_location(
                    "hooks", {os.path.join(second, "hooks.so")!r})
                other = importlib.util.module_from_spec(spec)
                for order in ("io", "oi"):
                    child = os.fork()
                    if child == 0:
                        hooks.start(7, "context")
                        other.start(7, "context")
                        work()
                        import hakmem_py
                        work()
                        (hooks if order == "io" else other).stop()
                        work()
                        (other if order == "io" else hooks).stop()
                        work()
                        if order == "oi":
                            still_on(order, hakmem_py)
                        free()
                        os._exit(0)
                    status = os.waitpid(child, 0)[1]
                    if status:
                        print(order, "ended with", status)
            """)

    def test_odd_contexts(self):
        """What ctx leads to looks like a saved allocator and is none, or must
        not be written to: we go on top."""
        for kind, domains in (("letter", 7), ("constant", 7), ("table", 4),
                              ("number", 7), ("nowhere", 7)):
            self.passes(f"""
                hooks.start_odd({domains}, {kind!r})
                work()
                import hakmem_py
                work()
                still_on("", hakmem_py)
                free()
            """)

    def test_one_context_for_all_domains(self):
        """Where raw and mem have one allocator, a hook may save it once. What
        raw uses without the GIL must not be ours for mem and obj."""
        for domains in ("default", "all"):
            self.passes("""
                import threading
                hooks.start_odd(7, "one")
                work()
                import hakmem_py
                def raw():
                    import ctypes
                    api = ctypes.CDLL(None) # without the GIL
                    api.PyMem_RawMalloc.restype = ctypes.c_void_p
                    api.PyMem_RawFree.argtypes = [ctypes.c_void_p]
                    for i in range(20000):
                        api.PyMem_RawFree(api.PyMem_RawMalloc(i % 500))
                threads = [threading.Thread(target=raw) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for _ in range(20):
                    work()
                    free()
                for thread in threads:
                    thread.join()
                still_on("", hakmem_py)
                free()
            """, PYTHONMALLOC="malloc", HAKMEM_PYTHON=domains)

    def test_again_and_again(self):
        """It starts and stops many times, with us since the first."""
        for kind in ("context", "hidden"):
            self.passes(f"""
                hooks.start(6, {kind!r})
                import hakmem_py
                for _ in range(20):
                    work()
                    hooks.stop()
                    hakmem_py.enable()
                    work()
                    hooks.start(6, {kind!r})
                hooks.stop()
                hakmem_py.enable()
                still_on("", hakmem_py)
                free()
            """)

    def test_other_interpreters(self):
        """Their pymalloc gets our blocks as well."""
        self.passes("""
            import subs
            hooks.start(6, "hidden")
            import hakmem_py
            work()
            other = subs.sub.create()
            subs.run(other, "kept = [str(i) for i in range(3000)]")
            hooks.stop()
            subs.run(other, "kept.clear(); kept = [[i] for i in range(3000)]")
            work()
            free()
            hakmem_py.enable()
            subs.run(other, "del kept")
            subs.sub.destroy(other)
            work()
            free()
        """)

    def test_blocks_that_grow_at_home(self):
        """A list of ours is resized by pymalloc: raw's realloc has it."""
        self.passes("""
            hooks.start(2, "hidden")
            import hakmem_py
            def blocks():
                return sum(one["blocks"] for one in hakmem_py.stats(True)[
                    "classes"] if one["size"] > 256)
            lists = [[None] * n for n in range(1, 120)]
            before = blocks()
            hooks.stop()
            for n, one in enumerate(lists, 1):
                one.extend(range(5 * n))
                assert one[:n] == [None] * n and one[n:] == list(range(5 * n))
                del one[3:]
                assert one == ([None] * n + list(range(5 * n)))[:3]
            for _ in range(2):
                hakmem_py.trim()
            assert blocks() < before - 60, (before, blocks())
        """)


if __name__ == "__main__":
    unittest.main()
