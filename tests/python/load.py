"""Python code of every kind that matters to who looks at frames from within the
allocator: what a profile must survive. Each function does some of it; all() does
each, and says which could not be done here."""
import asyncio
import gc
import os
import sys
import threading
import weakref


def deep(n):
    """Frames beyond what is kept."""
    return [n] if n == 0 else deep(n - 1) + [str(n)]


def generators():
    def numbers(n):
        for i in range(n):
            yield [str(i)] * 2

    def outer(n):
        yield from numbers(n)
        yield from (dict(a=i) for i in range(n))

    half_done = outer(9)
    next(half_done)
    thrown = outer(9)
    next(thrown)
    try:
        thrown.throw(ValueError("x" * 40))
    except ValueError:
        pass
    return len(list(outer(200)))


def coroutines():
    class Context:
        async def __aenter__(self):
            return [bytes(30)]

        async def __aexit__(self, *error):
            await asyncio.sleep(0)

    async def numbers(n):
        for i in range(n):
            await asyncio.sleep(0)
            yield str(i) * 3

    async def task(n):
        async with Context():
            return [x async for x in numbers(n)]

    async def main():
        return await asyncio.gather(*[task(20) for _ in range(10)])

    return len(asyncio.run(main()))


def exceptions():
    def fails(n):
        if n == 0:
            raise KeyError(["x"] * 20)
        try:
            fails(n - 1)
        finally:
            str(n) * 10

    for _ in range(50):
        try:
            fails(20)
        except KeyError as error:
            kept = error.__traceback__
    try:
        def forever():
            return forever() + [1]
        forever()
    except RecursionError:
        pass
    return kept is not None


def finalizers():
    """__del__, callbacks of weak references, in and out of collections."""
    class Ends:
        def __init__(self, other):
            self.other, self.text = other, "e" * 50

        def __del__(self):
            seen.append([sys._getframe().f_code.co_name, str(len(seen))])
            {i: str(i) for i in range(20)}

    seen, references = [], []
    for _ in range(200):
        one = Ends(None)
        one.other = Ends(one)
        references.append(weakref.ref(one, lambda ref: [str(ref)] * 3))
    del one
    gc.collect()
    return len(seen)


def traced():
    """sys.settrace and setprofile: frames whose line is the tracer's to set."""
    lines = []

    def tracer(frame, event, arg):
        lines.append((frame.f_lineno, event, str(arg)))
        return tracer

    def work():
        for i in range(50):
            x = [str(i)] * 3
        return len(x)

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        work()
        generators()
    finally:
        sys.settrace(before)
    sys.setprofile(lambda *what: lines.append(what))
    try:
        work()
    finally:
        sys.setprofile(None)
    return len(lines)


def classes():
    """Code that runs in other than functions: bodies of classes, exec, metaclasses,
    descriptors, __getattr__, comparisons from within C."""
    class Meta(type):
        def __new__(mcs, name, bases, body):
            return super().__new__(mcs, name, bases, dict(body))

    class Odd(metaclass=Meta):
        values = [str(i) for i in range(10)]

        def __init__(self, n):
            self.n = n

        def __getattr__(self, name):
            return [name] * 3

        def __lt__(self, other):
            return [self.n] < [other.n]

        @property
        def text(self):
            return str(self.n) * 4

    exec("y = [str(i) for i in range(30)]\nclass A:\n    z = {'q': y}", {})
    some = sorted([Odd(i % 17) for i in range(100)])
    return sum(len(one.missing) + len(one.text) for one in some)


def threads():
    def work():
        for _ in range(3):
            deep(90)
            generators()
            exceptions()

    several = [threading.Thread(target=work) for _ in range(4)]
    for one in several:
        one.start()
    for one in several:
        one.join()


def forks():
    for _ in range(3):
        child = os.fork()
        if child == 0:
            deep(50)
            generators()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def greenlets():
    try:
        import greenlet
    except ImportError:
        return None

    def one(n):
        for i in range(n):
            str(i) * 5
            deep(i % 20)
            main.switch([i])
        return "done"

    main = greenlet.getcurrent()
    some = [greenlet.greenlet(one) for _ in range(10)]
    for each in some:
        each.switch(30)
    while some:
        some = [each for each in some if not each.dead]
        for each in some:
            each.switch()
    left = greenlet.greenlet(one)  # ends by GreenletExit
    left.switch(30)
    del left
    return True


def interpreters():
    try:
        import subs
    except ImportError:
        return None
    for _ in range(2):
        one = subs.sub.create()
        subs.run(one, "x = [str(i) for i in range(300)]\n"
                      "def f(n): return [n] + f(n - 1) if n else []\nf(30)")
        subs.sub.destroy(one)
    return True


KINDS = [deep, generators, coroutines, exceptions, finalizers, traced, classes,
         threads, forks, greenlets, interpreters]


def all(without=()):
    """Does each; the names of what can't be done here."""
    left_out = []
    for kind in KINDS:
        if kind.__name__ not in without:
            args = (200,) if kind is deep else ()
            if kind(*args) is None and kind in (greenlets, interpreters):
                left_out.append(kind.__name__)
    return left_out
