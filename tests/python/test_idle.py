"""The thread that gives memory back while the program makes no requests."""
import os
import subprocess
import sys
import textwrap
import time
import unittest

from support import HERE, PATH, Case

# In every program below: `tasks()`, the names of the threads that the kernel
# knows of, `peak()`, which makes memory due, and `until`.
COMMON = """
    import os, sys, time
    import hakmem_py
    def tasks():
        found = []
        for one in os.listdir("/proc/self/task"):
            try:
                with open(f"/proc/self/task/{one}/comm") as comm:
                    found.append(comm.read().strip())
            except OSError:
                pass
        return found
    def until(condition, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.01)
        return False
    def peak(n=50000, size=200):
        kept = [bytes(size) for _ in range(n)]
    def is_due():
        return "hakmem" in tasks()
"""
QUICK = {"HAKMEM_PURGE_DELAY": "100"}
SLOW = {"HAKMEM_PURGE_DELAY": "20000"}
# "error" would be lost: fork gives up the exception.
STRICT = ("-W", "always::DeprecationWarning")


class Base(Case):
    def fine(self, code, *options, **env):
        self.says(textwrap.dedent(COMMON) + textwrap.dedent(code),
                  *options, env=env)


class Thread(Base):
    def test_only_while_something_is_due(self):
        self.fine("""
            peak()
            assert until(is_due)
            assert until(lambda: not is_due()), tasks()
            peak()
            assert until(is_due)
            print("fine")
        """, **QUICK)

    def test_python_does_not_see_it(self):
        self.fine("""
            import threading
            peak()
            assert until(is_due)
            assert threading.active_count() == len(threading.enumerate()) == 1
            assert len(sys._current_frames()) == 1
            print("fine")
        """, **SLOW)

    def test_switch(self):
        self.fine("""
            peak()
            assert until(is_due) and hakmem_py.stats()["give_back"] is True
            hakmem_py.give_back(False)
            assert until(lambda: len(tasks()) == 1), tasks()
            peak()
            assert len(tasks()) == 1
            assert hakmem_py.stats()["give_back"] is False
            hakmem_py.give_back(True)
            assert until(is_due)
            print("fine")
        """, **SLOW)
        self.fine("""
            peak()
            assert len(tasks()) == 1
            print("fine")
        """, HAKMEM_PYTHON_GIVE_BACK="0")

    def test_statistics(self):
        self.fine("""
            before = hakmem_py.stats()
            assert before["free_bytes"] <= before["held_bytes"]
            peak()
            due = hakmem_py.stats()
            # Unless it went in a moment in which this process did not run.
            assert due["due_bytes"] > 5 << 20 or (
                due["purged_bytes"] > before["purged_bytes"]), (before, due)
            assert until(lambda: hakmem_py.stats()["due_bytes"] == 0)
            after = hakmem_py.stats()
            gone = after["purged_bytes"] - before["purged_bytes"]
            assert gone > 5 << 20, (before, after)
            print("fine")
        """, HAKMEM_PURGE_DELAY="500")

    def test_off_altogether(self):
        self.fine("""
            peak(200000, 2000)
            assert len(tasks()) == 1
            print("fine")
        """, HAKMEM_PYTHON="off")

    def test_signals_are_the_main_threads(self):
        self.fine("""
            import signal, threading
            got = []
            def handle(number, frame):
                got.append(threading.current_thread())
                peak(1000)
            signal.signal(signal.SIGALRM, handle)
            peak()
            assert until(is_due)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            began = time.monotonic()
            time.sleep(0.5)
            slept = time.monotonic() - began
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert slept >= 0.5, slept
            assert got and set(got) == {threading.main_thread()}, got
            with open("/proc/self/task/%s/status" % max(
                    os.listdir("/proc/self/task"), key=int)) as status:
                blocked = [line for line in status if "SigBlk" in line]
            assert int(blocked[0].split()[1], 16) & 0x7fff == 0x7fff & ~(
                1 << 8), blocked
            print("fine")
        """, **SLOW)

    def test_exit_while_it_is_at_work(self):
        for n in range(8):
            self.fine(f"""
                peak()
                time.sleep({n} / 100)
                peak()
                kept = [bytes(200) for _ in range(50000)]
                print("fine")
            """, HAKMEM_PURGE_DELAY="10")


class Forks(Base):
    """The thread is gone when a child begins, and 3.12 says nothing."""

    def test_many(self):
        self.fine("""
            for i in range(2000):
                kept = [bytes(200) for _ in range(1500)]
                child = os.fork()
                if child == 0:
                    hakmem_py.give_back(False)
                    os._exit(3 if len(tasks()) == 1 else 9)
                del kept
                assert os.waitpid(child, 0)[1] == 3 << 8
            assert until(is_due)
            print("fine")
        """, *STRICT, HAKMEM_PURGE_DELAY="1000")

    def test_while_it_is_at_work(self):
        self.fine("""
            for i in range(200):
                peak(3000)
                if i % 2:
                    time.sleep(i % 20 / 2000)
                child = os.fork()
                if child == 0:
                    peak(3000)
                    os._exit(0 if hakmem_py.enabled else 9)
                assert os.waitpid(child, 0)[1] == 0
            print("fine")
        """, *STRICT, HAKMEM_PURGE_DELAY="1")

    def test_a_child_has_one_too(self):
        self.fine("""
            peak()
            child = os.fork()
            if child == 0:
                peak()
                assert until(is_due)
                os._exit(0 if until(lambda: not is_due()) else 9)
            assert os.waitpid(child, 0)[1] == 0
            print("fine")
        """, *STRICT, **QUICK)

    def test_without_handlers(self):
        """A C function forks, and one that tells nobody of it."""
        self.fine("""
            import ctypes
            libc = ctypes.PyDLL(None)
            for name in ("fork", "_Fork"):
                function = getattr(libc, name, None)
                for i in range(30 if function else 0):
                    peak(3000)
                    time.sleep(i % 5 / 1000)
                    child = function()
                    if child == 0:
                        for _ in range(3):
                            peak(3000)
                        os._exit(5)
                    assert os.waitpid(child, 0)[1] == 5 << 8
            print("fine")
        """, HAKMEM_PURGE_DELAY="1")

    def test_subprocess(self):
        self.fine("""
            import subprocess
            for i in range(40):
                peak(3000)
                extra = {"preexec_fn": int} if i % 2 else {}
                said = subprocess.check_output(["echo", str(i)], **extra)
                assert said == b"%d\\n" % i
            print("fine")
        """, *STRICT, HAKMEM_PURGE_DELAY="10")

    def test_multiprocessing(self):
        for method in ("fork", "forkserver"):
            self.fine(f"""
                import multiprocessing, pool_work
                context = multiprocessing.get_context({method!r})
                peak()
                for _ in range(10):
                    one = context.Process(target=pool_work.work, args=(3,))
                    one.start()
                    peak(3000)
                    one.join()
                    assert one.exitcode == 0
                print("fine")
            """, *STRICT, HAKMEM_PURGE_DELAY="50")


class Loan(Base):
    """The heap of the GIL changes hands while threads come and go."""

    def test_threads(self):
        for lanes in ("tiny", "all"):
            self.fine("""
                import threading
                stop = time.monotonic() + 3
                sys.setswitchinterval(0.0001)
                def work():
                    kept = [None] * 64
                    n = 0
                    while time.monotonic() < stop:
                        for size in (1, 30, 100, 400, 800, 3000, 70000):
                            made = [bytes([n % 256]) * size
                                    for _ in range(40)]
                            assert set(map(len, made)) == {size}
                            kept[n % 64] = made[::2]
                            n += 1
                        time.sleep(0.02 if n % 3 else 0)
                threads = [threading.Thread(target=work) for _ in range(3)]
                [one.start() for one in threads]
                while time.monotonic() < stop:
                    hakmem_py.limit_memory(1 << 30)
                    hakmem_py.trim()
                    hakmem_py.limit_memory(None)
                    time.sleep(0.01)
                    assert hakmem_py.stats()["live_bytes"] > 0
                [one.join() for one in threads]
                print("fine")
            """, HAKMEM_PURGE_DELAY="1", HAKMEM_PYTHON_LANES=lanes)

    def test_second_interpreter(self):
        """From 3.12 on each thread then has a heap of its own."""
        self.fine("""
            from subs import run, sub
            peak()
            time.sleep(0.03)
            other = sub.create()
            for _ in range(20):
                peak(3000)
                run(other, "import hakmem_py\\nx = [bytes(99)] * 9999")
                time.sleep(0.005)
            sub.destroy(other)
            assert until(lambda: hakmem_py.stats()["due_bytes"] == 0)
            print("fine")
        """, HAKMEM_PURGE_DELAY="10")


class Asleep(unittest.TestCase):
    """Seen from outside: what a program has above its start."""

    CODE = """
        import gc, hakmem_py, os, select, sys, threading, time
        from resident import resident
        gc.disable()
        def peak():
            size = {size}
            kept = [bytes(size) if size else object()
                    for _ in range(60000000 // (size + 33))]
            print(start, resident(), flush=True)
        start = resident()
        {code}
    """

    def left(self, size, code, most, **env):
        env = dict(os.environ, HAKMEM_PURGE_DELAY="300",
                   PYTHONPATH=PATH + os.pathsep + HERE, **env)
        code = textwrap.dedent(self.CODE).format(size=size, code=code)
        with subprocess.Popen([sys.executable, "-c", code], env=env,
                              stdout=subprocess.PIPE) as process:
            try:
                start, full = map(int, process.stdout.readline().split())
                end = time.monotonic() + 30
                while (now := self.resident(process.pid) - start) > most and \
                        time.monotonic() < end:
                    time.sleep(0.05)
            finally:
                process.kill()
        self.assertGreater(full - start, 30)
        self.assertLessEqual(now, most, (size, code))

    @staticmethod
    def resident(pid):
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * 4096 >> 20

    def test_every_size(self):
        for size in (0, 30, 170, 470, 2000, 20000):
            for lanes in ("tiny", "all"):
                self.left(size, "peak(); time.sleep(100)", 6,
                          HAKMEM_PYTHON_LANES=lanes)

    def test_however_it_waits(self):
        for wait in ("select.select([], [], [], 100)",
                     "threading.Event().wait()",
                     "sys.stdin.buffer.raw.read()",
                     "import ctypes; ctypes.CDLL(None).sleep(100)"):
            self.left(170, f"peak(); {wait}", 6)

    def test_after_a_fork(self):
        self.left(170, "peak()\n"
                       "if os.fork() == 0: os._exit(0)\n"
                       "time.sleep(100)", 6)

    def test_while_another_thread_computes(self):
        """In C code, which has let go of the GIL."""
        self.left(170, "import hashlib; data = bytes(1 << 20)\n"
                       "peak()\n"
                       "hashlib.pbkdf2_hmac('sha256', data, b'x', 1 << 30)", 8)


if __name__ == "__main__":
    unittest.main()
