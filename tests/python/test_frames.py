"""The walk over Python's frames, alone: frames.c, compiled with the module's own
hak_py_frames.c, compares it with what Python says, and walks at every request."""
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest

from support import HERE, Case, python

CC = os.environ.get("CC") or "cc"

SAME = """
    import sys
    import frames

    def check():
        ours, line = frames.walk(64), sys._getframe().f_lineno
        frame, theirs = sys._getframe(), []
        while frame is not None:
            code = frame.f_code
            theirs.append((code.co_filename, code.co_name, frame.f_lineno))
            frame = frame.f_back
        theirs[0] = theirs[0][:2] + (line,)
        assert ours == theirs[:64], (ours, theirs)
        return len(ours)

    def generator():
        yield check()
        yield from (check() for _ in range(2))

    async def coroutine():
        return check()

    class Body:
        seen = check()
        def __lt__(self, other):
            check()
            return True
        def __del__(self):
            check()

    def deep(n):
        return deep(n - 1) if n else check()

    assert frames.works()
    check()
    list(generator())
    try:
        coroutine().send(None)
    except StopIteration:
        pass
    sorted([Body(), Body()])
    exec("check()")
    (lambda: [check() for _ in range(2)])()
    assert deep(100) == 64
    assert len(frames.walk(3)) == 1 and len(frames.walk(0)) == 0
    sys.settrace(lambda *event: None)
    check()
    sys.settrace(lambda frame, *event: (frame.f_lineno, sys.gettrace())[1])
    check()
    sys.settrace(None)
    try:
        raise ValueError
    except ValueError:
        check()
    print("fine")
"""

WATCHED = """
    import frames, load
    load.all()
    frames.watch()
    left_out = load.all()
    walks, seen, faults = frames.unwatch()
    assert faults == 0, faults
    assert walks > 10000 and seen > 4 * walks, (walks, seen)
    print("fine")
"""

# As it was set: what ends the interpreter is watched too.
TO_THE_END = """
    import atexit, threading, time
    import frames, load

    class Late:
        def __del__(self):
            [str(i) for i in range(30)]

    late = [Late(), Late]
    late.append(late)
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    frames.watch()
    atexit.register(load.generators)
    load.all()
    print("fine")
"""


@unittest.skipIf(shutil.which(CC) is None, "there is no compiler")
class Frames(Case):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory()
        subprocess.run(
            [CC, "-O2", "-fPIC", "-shared", "-D_GNU_SOURCE",
             "-I" + sysconfig.get_path("include"),
             "-I" + os.path.join(HERE, "../../adapters/python/src"),
             os.path.join(HERE, "frames.c"), "-o",
             os.path.join(cls.place.name, "frames.so")], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def says_with(self, code, **env):
        result = python(code, env={"PYTHONPATH": os.pathsep.join(
            [self.place.name, os.environ.get("PYTHONPATH", ""), HERE]), **env})
        self.assertEqual(result.stdout.strip().splitlines()[-1], "fine",
                         result.stderr)

    def test_the_same_as_python_says(self):
        self.says_with(SAME)

    def test_at_every_request(self):
        self.says_with(WATCHED)

    def test_at_every_request_on_hakmem(self):
        self.says_with("    import hakmem_py" + WATCHED)

    def test_to_the_end(self):
        self.says_with(TO_THE_END)


if __name__ == "__main__":
    unittest.main()
