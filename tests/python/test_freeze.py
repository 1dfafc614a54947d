"""freeze(): immortal objects, what runs at exit, the collector in children."""
import sys
import tempfile
import textwrap
import unittest

from support import Case, python

IMMORTAL = sys.version_info >= (3, 12)
# What every program begins with.
BEGIN = """
import gc, os, sys, weakref
import hakmem_py
def immortal(one):
    return sys.getrefcount(one) >= 1 << 30
several = len(sys.argv) + 2  # what is made of it is no constant
"""
# From 3.12 on a fork beside threads is warned of.
QUIET = ("-W", "ignore::DeprecationWarning")


class Frozen(Case):
    def runs(self, code, *options, begin=BEGIN, **more):
        self.says(begin + textwrap.dedent(code), *options, *QUIET, **more)

    def prints(self, code, wanted, env=None):
        """The lines that a program prints, in any order, and no others."""
        result = python(BEGIN + textwrap.dedent(code), *QUIET, env=env)
        self.assertEqual(result.stderr, "")
        self.assertEqual(sorted(result.stdout.split()), sorted(wanted))

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.place = self.directory.name + "/file"

    def written(self):
        with open(self.place, encoding="ascii") as file:
            return file.read()


@unittest.skipIf(IMMORTAL, "3.12 and later have immortal objects")
class Before312(Frozen):
    def test_says_what_is_missing(self):
        self.runs("""
            try:
                hakmem_py.freeze(immortal=True)
            except NotImplementedError as error:
                assert "needs CPython 3.12 or later, this is 3." in str(error)
                assert gc.get_freeze_count() == 0
            hakmem_py.freeze(immortal=False)
            assert gc.get_freeze_count() > 0
            print("fine")
        """)

    def test_variable_is_one_line(self):
        result = python("import hakmem_py; hakmem_py.freeze(); print('fine')",
                        env={"HAKMEM_PYTHON_FREEZE": "immortal"})
        self.assertEqual(result.stdout, "fine\n")
        self.assertIn("HAKMEM_PYTHON_FREEZE=immortal: that needs CPython 3.12"
                      " or later", result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)


@unittest.skipUnless(IMMORTAL, "3.12 and later have immortal objects")
class Immortal(Frozen):
    def test_what_becomes_immortal(self):
        self.runs("""
            import collections, datetime, decimal, re, types
            class Plain:
                def __init__(self):
                    self.number = 12345.5 * several
                def method(self):
                    return "a constant", (1000001, "in a tuple of code")
            class Slots:
                __slots__ = ("one",)
            class Text(str):
                pass
            slots = Slots()
            slots.one = "slot " * several
            text = "a " * several
            made = {
                "key " * several: [1.5 * several],
                "untracked": ((10 ** 20, (text, b"bytes" * several)),),
                "plain": {"n": 10 ** 21, "s": "s" * 100},
                "set": {frozenset([3.25 * several])},
                "instances": [Plain(), slots, Text("t" * 90)],
                "stdlib": [datetime.date(2026, 1, 2), re.compile("a+b"),
                           decimal.Decimal("1.5"),
                           collections.OrderedDict(a=1),
                           types.SimpleNamespace(x=[1])],
                "loop": []}
            made["loop"].append(made)
            hakmem_py.freeze(immortal=True)
            seen, todo = set(), [made, Plain, Slots, Text]
            code = Plain.method.__code__
            todo += [code, code.co_consts, code.co_names, code.co_linetable]
            while todo:
                one = todo.pop()
                assert immortal(one), one
                if id(one) in seen:
                    continue
                seen.add(id(one))
                if isinstance(one, dict):
                    todo += list(one)
                    todo += list(one.values())
                elif isinstance(one, (list, tuple, set, frozenset)):
                    todo += list(one)
                elif isinstance(one, Plain):
                    todo.append(one.number)
                elif isinstance(one, Slots):
                    todo.append(one.one)
            assert len(seen) > 30
            print("fine")
        """)

    def test_off_unless_asked_for(self):
        self.runs("""
            data = [[object()] for one in range(10)]
            hakmem_py.freeze()
            hakmem_py.freeze(immortal=False)
            assert not immortal(data) and not immortal(data[0])
            print("fine")
        """)
        self.runs("""
            data = [[object()] for one in range(10)]
            hakmem_py.freeze(immortal=False)
            assert not immortal(data)
            hakmem_py.freeze()
            assert immortal(data) and immortal(data[0][0])
            print("fine")
        """, env={"HAKMEM_PYTHON_FREEZE": "immortal"})

    def test_again(self):
        self.runs("""
            data = []
            hakmem_py.freeze(immortal=True)
            later = ["later " * several]
            data.append(later)
            assert not immortal(later)
            hakmem_py.freeze(immortal=True)
            assert immortal(later) and immortal(later[0])
            gc.unfreeze()
            gc.collect()
            data.clear()
            del later
            gc.collect()
            print("fine")
        """)

    def test_what_means_something_stays_mortal(self):
        self.runs("""
            import array, io, socket, threading
            ended = []
            class Del:
                def __del__(self):
                    ended.append("del")
            class Key:
                pass
            kept = {"del": Del(), "weak": Key(), "called": Key(),
                    "value": Key(), "file": open("/dev/null", "w"),
                    "bytes": io.BytesIO(b"x" * 100), "lock": threading.Lock(),
                    "array": array.array("i", [1, 2]),
                    "error": ValueError("an error")}
            weak = weakref.ref(kept["weak"])
            called = weakref.ref(kept["called"], lambda _: ended.append("weak"))
            values = weakref.WeakValueDictionary(v=kept["value"])
            finalize = weakref.finalize(kept["weak"], ended.append, "finalize")
            hakmem_py.freeze(immortal=True)
            for name, one in kept.items():
                assert immortal(name) and not immortal(one), name
            assert not immortal(called)
            del one
            kept.clear()
            assert sorted(ended) == ["del", "finalize", "weak"], ended
            assert weak() is None and called() is None and not values
            print("fine")
        """)

    def test_what_is_being_made_stays_mortal(self):
        """Tuples that C code fills, frames' own objects, generators."""
        self.runs("""
            def items():
                yield 1
                yield [2]
                hakmem_py.freeze(immortal=True)
                for n in range(1000):
                    yield n
            assert tuple(items()) == (1, [2]) + tuple(range(1000))
            assert frozenset(map(str, items()))
            assert bytes(n if isinstance(n, int) and n < 256 else 0
                         for n in items())
            assert "".join(str(n) for n in items()).startswith("1[2]012")
            assert len([n for n in items()]) == 1002
            assert dict(zip(range(2000), items()))[1] == [2]
            for number, (one, two) in enumerate(zip(range(99), items())):
                if number == 2:
                    hakmem_py.freeze(immortal=True)
                assert one == number
            print(*("fine" for n in [hakmem_py.freeze(immortal=True)]))
        """)
        self.runs("""
            import threading
            def work(big):
                mine = [bytes(1000) for n in range(20000)]
                if big is not None:
                    hakmem_py.freeze(immortal=True)
                assert not immortal(mine)
                return len(mine)
            def other():
                waits = [object()]
                ready.set()
                go.wait()
                assert not immortal(waits)
                good.append(1)
            ready, go, good = threading.Event(), threading.Event(), []
            thread = threading.Thread(target=other)
            thread.start()
            ready.wait()
            work(1)
            go.set()
            thread.join()
            assert good == [1]
            async def wait():
                hakmem_py.freeze(immortal=True)
                return "fine"
            import asyncio
            print(asyncio.run(wait()))
        """)

    def test_work_goes_on(self):
        """In the parent and a child: all kinds of changes to what is immortal."""
        for env in ({}, {"HAKMEM_PYTHON": "all", "HAKMEM_PYTHON_LANES": "all"}):
            self.runs("""
                from churn import churn
                class One:
                    limit = 3
                    def __init__(self, n):
                        self.n, self.name = n, "one " + str(n)
                    def twice(self):
                        return self.n * 2
                def work():
                    churn(200)
                    for n, one in enumerate(ones):
                        assert one.n == n and one.twice() == 2 * n
                        one.more = [n]
                    One.twice = lambda self: self.n * 3
                    assert ones[5].twice() == 15
                    for n in range(5000):
                        table["new " + str(n)] = n
                    for n in range(0, 5000, 2):
                        del table[str(n)]
                    assert len(table) == 7500
                    ones.sort(key=lambda one: -one.n)
                    del ones[::3]
                    ones.clear()
                    text = texts[0]
                    text += "longer"
                    assert texts[0] + "longer" == text
                    numbers[:] = [n + 1 for n in numbers]
                    for n in range(100):
                        a, b = "in" + str(n), names[n]
                        assert sys.intern(a) is sys.intern(b)
                        setattr(work, a, n)
                    sys.modules.pop("churn")
                    import churn as again
                    again.churn(10)
                    gc.unfreeze()
                    gc.collect()
                    hakmem_py.trim()
                ones = [One(n) for n in range(3000)]
                table = {str(n): (n, [n]) for n in range(5000)}
                texts = ["text " * 50]
                numbers = [n * 10 ** 10 for n in range(1000)]
                names = ["in" + str(n) for n in range(100)]
                hakmem_py.freeze(immortal=True)
                if os.fork() == 0:
                    if os.fork() == 0:
                        work()
                        sys.exit(7)
                    assert os.wait()[1] >> 8 == 7
                    work()
                    sys.exit(5)
                assert os.wait()[1] >> 8 == 5
                work()
                print("fine")
            """, env=env)

    def test_counts_do_not_drift(self):
        """Whatever the interpreter does with an object, its count stays."""
        self.runs("""
            class One:
                __slots__ = ("slot", "__dict__")
                def __init__(self, n):
                    self.n, self.slot = n, n
                def __enter__(self):
                    return self
                def __exit__(self, *error):
                    return False
                def __add__(self, other):
                    return self.n + other.n
                @property
                def twice(self):
                    return self.n + self.n
                def items(self, *rest, **more):
                    yield from (self, *rest)
            def once():
                total = one + one
                total += one.n * 1.5 + real - real * real
                one.attribute = text
                name = f"{text}{one.n}{real!r}"
                name = text + text
                name += text
                with one as same:
                    first, (second, third) = pair
                for a, b in zip(things, things):
                    if a is b and a == b and a in things:
                        continue
                for a in one.items(pair, key=text):
                    a = [b for b in pair]
                try:
                    raise ValueError(text)
                except ValueError as error:
                    assert error.args[0] is text
                call(one, n=number)
                table[text]
                table["key"] = one.twice
                del table["key"]
                {**table}, [*things], (lambda x=pair: x)()
                things[0], things[-1], things[:1], text[0], pair[1][0]
                assert isinstance(one, One) and number > 5
                sorted(things, key=id)
                return one, pair, text, things
            def call(*all, n=None, **more):
                return all, n
            number, real = 10 ** 20, 2.5 * several
            one, text = One(number), "text " * several
            pair = (text, (real, [number]))
            things, table = [one, pair, text, number, real], {text: one}
            every = [one, text, pair, pair[1], things, table, number, real, One,
                     One.__init__, once, call, once.__code__, things[1]]
            hakmem_py.freeze(immortal=True)
            before = [sys.getrefcount(n) for n in every]
            for n in range(1000):
                once()
            after = [sys.getrefcount(n) for n in every]
            drift = [a - b for a, b in zip(after, before)]
            assert max(map(abs, drift)) < 10, drift
            assert min(before) >= 1 << 30
            print("fine")
        """)

    def test_other_interpreters_are_left_alone(self):
        self.runs('''
            from subs import sub, run
            one = sub.create()
            run(one, """
                import sys, hakmem_py
                mine = [["of the other"] for n in range(100)]
                try:
                    hakmem_py.freeze(immortal=True)
                except RuntimeError as error:
                    assert "main interpreter" in str(error), error
                else:
                    raise SystemExit("no error")
            """)
            hakmem_py.freeze(immortal=True)
            run(one, """
                assert sys.getrefcount(mine[0]) < 10
                assert sys.getrefcount(mine) < 10
                del mine
                import json
            """)
            sub.destroy(one)
            print("fine")
        ''')

    def test_children_read_without_writing(self):
        self.runs("""
            import random
            def private():
                with open("/proc/self/smaps_rollup") as rollup:
                    return sum(int(line.split()[1]) for line in rollup
                               if line.startswith("Private")) >> 10
            data = [{"id": n, "name": "item " + str(n)} if n % 2 else
                    (n, "text " + str(n), [n]) for n in range(300000)]
            hakmem_py.freeze(immortal=True)
            if os.fork() == 0:
                before = private()
                for one in data:
                    x = [part for part in one]
                gc.collect()
                grown = private() - before
                assert grown < 12, grown
                sys.exit(5)
            assert os.wait()[1] >> 8 == 5
            print("fine")
        """)


class AtExit(Frozen):
    """Finalizers run at exit as they would without a freeze."""
    OBJECTS = """
        import io
        class Del:
            def __init__(self, name):
                self.name = name
            def __del__(self):
                print(self.name, os.sep, sep="", flush=True)
        class Holder:
            pass
        one = Del("global")
        two = [Del("list"), {"deep": Del("dict")}]
        loop = Holder()
        loop.loop, loop.held = loop, Del("loop")
        # Held by C's arrays and by Python: all must reach the disk.
        holder = Holder()
        holder.file = open(PLACE, "w")
        holder.file.write("written")
        holder.weak = weakref.ref(holder.file)
        sys.stdout.write("")
    """
    WANTED = ["global/", "list/", "dict/", "loop/"]

    def program(self, after):
        return textwrap.dedent(self.OBJECTS.replace("PLACE", repr(self.place))) \
            + textwrap.dedent(after)

    def ends(self, after, env=None, wanted=WANTED):
        self.prints(self.program(after), wanted, env=env)
        self.assertEqual(self.written(), "written")

    def test_without(self):
        self.ends("")

    def test_frozen(self):
        self.ends("hakmem_py.freeze()")
        if not IMMORTAL:
            return
        self.ends("hakmem_py.freeze(immortal=True)")
        self.ends("hakmem_py.freeze(immortal=True)\nhakmem_py.freeze()")
        self.ends("""
            hakmem_py.freeze(immortal=True)
            import atexit
            atexit.register(print, "atexit")
            three = [Del("later")]
            two.append(three)
            del one
        """, wanted=self.WANTED + ["later/", "atexit"])

    def test_frozen_child(self):
        self.ends(f"""
            hakmem_py.freeze(immortal={IMMORTAL})
            if os.fork() != 0:
                assert os.wait()[1] >> 8 == 3
                os._exit(0)
            sys.exit(3)
        """)

    def test_child(self):
        for seal in ("fork", "pages", "off"):
            self.ends("""
                if os.fork() != 0:
                    assert os.wait()[1] >> 8 == 3
                    os._exit(0)
                sys.exit(3)
            """, env={"HAKMEM_PYTHON_SEAL": seal})

    def test_output_is_there_until_the_end(self):
        self.prints("""
            class Last:
                def __del__(self):
                    print("last")
                    sys.stdout.flush()
            sys.last = Last()
            hakmem_py.freeze()
        """, ["last"])


class Children(Frozen):
    """The collector of a forked child."""

    def test_passes_over_what_is_the_parents(self):
        for seal, frozen in (("default", True), ("fork", True),
                             ("pages", False), ("off", False)):
            self.runs(f"""
                kept = [[n] for n in range(1000)]
                assert gc.get_freeze_count() < 1000
                for generation in range(2):
                    if os.fork() != 0:
                        assert os.wait()[1] == 0
                        break
                    assert (gc.get_freeze_count() > 1000) is {frozen}
                    loop = []
                    loop.append(loop)
                    del loop
                    assert gc.collect() >= 1
                    assert gc.isenabled()
                if generation == 0:
                    assert gc.get_freeze_count() < 1000
                    assert gc.callbacks == []
                    print("fine", flush=True)
                os._exit(0)
            """, env={"HAKMEM_PYTHON_SEAL": seal})

    def test_collects_all_once_the_parent_is_gone(self):
        """As a daemon does, that forks and whose parent ends."""
        self.runs("""
            class Node:
                pass
            node = Node()
            node.self = node
            weak = weakref.ref(node)
            out, back = os.pipe()
            wait, go = os.pipe()
            if os.fork() == 0:
                if os.fork() == 0:
                    os.close(go)
                    os.read(wait, 1)
                    del node
                    gc.collect()
                    os.write(back, b"gone" if weak() is None else b"kept")
                    os._exit(0)
                del node
                gc.collect()
                assert weak() is not None
                os._exit(0)
            os.wait()
            os.close(go)
            assert os.read(out, 9) == b"gone"
            print("fine")
        """)

    def test_leaves_a_frozen_program_as_it_is(self):
        self.runs("""
            gc.freeze()
            if os.fork() == 0:
                assert gc.callbacks == []
                assert gc.get_freeze_count() > 2000
                os._exit(0)
            assert os.wait()[1] == 0
            print("fine")
        """)

    def test_a_collection_leaves_pages_shared(self):
        code = """
            def private():
                with open("/proc/self/smaps_rollup") as rollup:
                    return sum(int(line.split()[1]) for line in rollup
                               if line.startswith("Private")) >> 10
            data = [[n] for n in range(400000)]
            if os.fork() == 0:
                before = private()
                gc.collect()
                grown = private() - before
                assert {}, grown
                os._exit(0)
            assert os.wait()[1] == 0
            print("fine")
        """
        self.runs(code.format("grown < 5"))
        self.runs(code.format("grown > 10"),
                  env={"HAKMEM_PYTHON_SEAL": "pages"})


if __name__ == "__main__":
    unittest.main()
