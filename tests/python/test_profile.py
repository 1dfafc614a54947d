"""hakmem_py.profile(): it names the line, its numbers are the program's, and it
survives what Python code does."""
import gzip
import json
import os
import subprocess
import sys
import tempfile
import unittest

from support import Case, python

# 1 GB in all, of 1,000 B and less a block, and of 40,000 B; what each line has and
# holds is counted by the program. bytes(n) takes n + 33.
PLANTED = """
    import collections, hakmem_py

    made, held = collections.Counter(), collections.Counter()
    kept, cache, pieces = [], {}, []

    def leak(size):
        kept.append(bytes(size - 33)) # 1
        made["leak"] += size
        held["leak"] += size

    def cached(i, size):
        cache[i % 4000] = bytes(size - 33) # 2
        made["cached"] += size
        held["cached"] = len(cache) * size

    def pieces_of(n, size):
        for i in range(n):
            pieces.append(bytes(size - 33)) # 3
        made["pieces_of"] += n * size
        held["pieces_of"] += n * size
        if len(pieces) > 40000: # one in eight stays, wherever it lies
            held["pieces_of"] -= (len(pieces) - len(pieces[::8])) * size
            pieces[:] = pieces[::8]

    def churn(n, size):
        return list(map(bytes, [size - 33] * n)) # 4

    def large(size):
        made["large"] += size
        return bytes(size - 33) # 5

    def run():
        for i in range(51200): # 51 MB leak
            leak(1024)
            if i % 8 == 0:
                cached(i // 8, 16384)
                pieces_of(20, 512)
                made["churn"] += 100 * 768
                churn(100, 768)
                for _ in range(6):
                    large(40960)

    with hakmem_py.profile() as p:
        run()
    sums = {what: collections.Counter() for what in ("live", "allocated")}
    for what, lines in sums.items():
        for line in p.top(100, what):
            lines[line.function] += line.bytes
    assert sum(made.values()) > 2**30, made
    for what, truth in (("live", held), ("allocated", made)):
        seen, ours, all = sums[what], sum(sums[what].values()), sum(truth.values())
        for name, bytes_ in truth.items():
            share, is_share = bytes_ / all, seen[name] / ours
            samples = bytes_ / p.rate
            # 10 % of it, or as far as chance may go once in a million times
            good = max(0.1, 5 / samples ** 0.5) * share
            assert abs(share - is_share) <= good, (what, name, share, is_share)
        assert 0.8 < ours / all < 1.2, (what, ours, all)
    assert p.top(1, "live")[0].function in ("leak", "cached"), p.top(3)
    print("fine")
"""

AROUND = """
    import hakmem_py as h

    before = {d: h.stats()[d]["enabled"] for d in ("raw", "mem", "obj")}
    with h.profile(rate=1) as p:
        during = {d: h.stats()[d]["enabled"] for d in ("raw", "mem", "obj")}
        with h.profile() as q: # one more: the first's rate holds
            assert q.rate == 1
            big = list(map(bytes, (10, 100, 1000, 10000, 10**5, 10**7)))
        several = list(map(str, range(10**6, 10**6 + 1000)))
    after = {d: h.stats()[d]["enabled"] for d in ("raw", "mem", "obj")}
    assert all(during.values()) and before == after, (before, during, after)
    line = [l for l in p.top(9) if l.bytes > 10**7]
    assert len(line) == 1 and line[0][:2] == ("<string>", 9), p.top(9)
    assert 10**7 < line[0].bytes < 1.1 * 10**7 and 6 <= line[0].blocks < 20, line
    assert "<module> (<string>:9) 10" in q.collapsed(), q.collapsed()
    assert "<string>:10)" not in q.collapsed(), q.collapsed()
    assert "<module> (<string>:10) " in p.collapsed(), p.collapsed()
    # What has stopped stays as it is; blocks are followed on.
    del big
    assert [l for l in p.top(9) if l.bytes > 10**7] == line
    now = h.profile(rate=2**20).start()
    assert sum(l.bytes for l in now.top(99)) < 2**20, now.top(9)
    lines = {l.line: l.bytes for l in (p - q).top(99) if l.file == "<string>"}
    assert lines.get(9, 0) < 2**20 and lines[10] > 50000, lines
    now.stop()
    now.stop()
    print("fine")
"""

BAD = """
    import hakmem_py as h

    def says(wanted, what, *args, **names):
        try:
            what(*args, **names)
        except (TypeError, ValueError, RuntimeError) as error:
            assert str(error) == wanted, (str(error), wanted)
        else:
            assert False, wanted

    says("hakmem_py.profile: 'x.svg' ends in none of .html .pb.gz .txt .json",
         h.profile, "x.svg")
    says("hakmem_py.profile: no format 'svg'; use one of html, pb.gz, txt, json",
         h.profile, "x", format="svg")
    says("hakmem_py.profile: rate='1': must be a whole number of bytes, or None",
         h.profile, rate="1")
    says("hakmem_py.profile: rate=0: must be from 1 to 1099511627776 bytes",
         h.profile, rate=0)
    p = h.profile()
    says("hakmem_py.profile: it has not begun: use it in a with statement, or"
         " call start()", p.top)
    with p:
        says("hakmem_py.profile: it runs already", p.start)
        says("hakmem_py.profile: no 'dead'; use live or allocated", p.top, 3, "dead")
    print("fine")
"""

NAMES = """
    import hakmem_py as h

    kept = []
    for name in ("pl\\u00e4in", "\\u0430\\u0431\\u0432", "\\u4e2d\\u6587",
                 "\\U00020000x", "l" * 900, "\\udc80odd", "tab\\there;semi"):
        code = f"def f(): return bytes(5000)"
        names = {}
        exec(compile(code, name, "exec"), names)
        kept.append((name, names["f"]))
    with h.profile(rate=1) as p:
        keep = [f() for _, f in kept]
    text = p.collapsed()
    for name in ("pl\\u00e4in:1", "\\u0430\\u0431\\u0432:1", "\\u4e2d\\u6587:1",
                 "\\U00020000x:1", "l" * 400, "?odd:1", "tab?here:semi:1"):
        assert name in text, (name, text)
    print("fine")
"""

FORK = """
    import os, hakmem_py as h

    def before(): return list(map(bytes, [1000] * 3000))
    def after(): return list(map(bytes, [1000] * 3000))

    with h.profile(rate=1024) as p:
        kept = before()
        child = os.fork()
        more = after() if child == 0 else None
        live = {l.function: l.bytes for l in p.top(99)}
        made = {l.function: l.bytes for l in p.top(99, "allocated")}
        assert 2e6 < live["before"] < 4.5e6, live
        if child == 0:
            assert 2e6 < live["after"] < 4.5e6, live
            assert "before" not in made and "after" in made, made
            os._exit(7)
        assert os.waitpid(child, 0)[1] == 7 << 8
        assert "after" not in live and "after" not in made
    print("fine")
"""

# Profiles begin and end in one thread, while others do what load.py has.
LOAD = """
    import os, sys, threading, time
    import hakmem_py as h
    import load

    stop, taken, failed = threading.Event(), 0, []
    rates = [1, 64, 4096, 65536]

    def profiles():
        global taken
        while not stop.is_set():
            with h.profile(rate=rates[taken % 4]) as p:
                time.sleep(0.001)
                if taken % 3 == 0:
                    p.top(3)
            text = p.collapsed("allocated")
            taken += 1

    def work(without):
        try:
            while taken < {most}:
                load.all(without)
        except BaseException as error:
            failed.append(error)
            raise

    left_out = load.all()
    one = threading.Thread(target=profiles)
    one.start()
    other = threading.Thread(target=work, args=(("forks", "interpreters", "traced"),))
    other.start()
    work(("interpreters",) if {most} < 100 else ())
    other.join()
    stop.set()
    one.join()
    assert not failed, failed
    print("fine")
"""


# Written when it ends, by children too.
PROGRAM = """
    import os, sys, hakmem_py

    def leak(): return list(map(bytes, [1000] * 20000))

    kept = leak()
    if os.fork() == 0:
        more = leak()
        sys.exit(0)
    os.wait()
    if "worker" in sys.argv:
        import multiprocessing
        one = multiprocessing.get_context("fork").Process(target=leak)
        one.start()
        one.join()
    print("fine")
"""


class Files(Case):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.place = place.name

    def file(self, name):
        with open(os.path.join(self.place, name), "rb") as file:
            return file.read()

    def check(self, name, data):
        """What every format says of PROGRAM."""
        if name.endswith(".gz"):
            data = gzip.decompress(data)
        text = data.decode("utf-8", "replace")
        self.assertIn("leak", text)
        self.assertIn("string>", text)
        if name.endswith(".json"):
            profile = json.loads(data)
            self.assertIn("speedscope", profile["$schema"])
            self.assertTrue(profile["profiles"])
        if name.endswith(".html"):
            self.assertIn("<html", text)
        if name.endswith(".txt"):
            self.assertRegex(text, r"<module> \(<string>:6\);leak "
                                   r"\(<string>:4\) \d+\n")

    def test_environment(self):
        for name in ("a.html", "a.pb.gz", "a.txt", "a.json"):
            self.says(PROGRAM, env={"HAKMEM_PYTHON_PROFILE":
                                    os.path.join(self.place, name)})
            self.check(name, self.file(name))

    def test_each_process_has_its_own(self):
        self.says("    import sys; sys.argv.append('worker')" + PROGRAM,
                  env={"HAKMEM_PYTHON_PROFILE":
                       os.path.join(self.place, "%p.txt")})
        names = sorted(os.listdir(self.place))
        self.assertEqual(len(names), 3, names)
        for name in names:
            self.assertRegex(name, r"^\d+\.txt$")

    def test_rate(self):
        """The page says it, when the profile has ended too."""
        path = os.path.join(self.place, "b.html")
        self.says(f"""
            import hakmem_py
            with hakmem_py.profile(rate=12345) as p:
                x = [str(i) for i in range(100000)]
            p.write({path!r})
            print("fine")
        """)
        self.assertIn(b"one sample in 12345 bytes", self.file("b.html"))
        self.says(PROGRAM, env={"HAKMEM_PROFILE_RATE": "4K",
                                "HAKMEM_PYTHON_PROFILE":
                                os.path.join(self.place, "a.html")})
        self.assertIn(b"4 KB", self.file("a.html"))

    def test_bad_environment(self):
        result = python(PROGRAM, env={"HAKMEM_PYTHON_PROFILE": "x.svg"})
        self.assertEqual(result.stdout, "fine\n")
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn("HAKMEM_PYTHON_PROFILE=x.svg: must end in one of .html"
                      " .pb.gz .txt .json", result.stderr)
        path = os.path.join(self.place, "none", "x.html")
        result = python(PROGRAM, env={"HAKMEM_PYTHON_PROFILE": path})
        self.assertEqual(result.stdout, "fine\n")
        self.assertEqual(
            result.stderr, f"hakmem: HAKMEM_PYTHON_PROFILE={path}: the profile"
            f" can't be written: No such file or directory: {path}\n")
        result = python(PROGRAM, env={"HAKMEM_PYTHON_PROFILE": "/dev/full.html",
                                      "PYTHONMALLOC": "debug"})
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn("there is no profile", result.stderr)

    def test_a_full_disk(self):
        os.symlink("/dev/full", os.path.join(self.place, "full.txt"))
        self.says(f"""
            import hakmem_py
            try:
                with hakmem_py.profile({self.place + "/full.txt"!r}, rate=1):
                    x = [str(i) for i in range(100)]
            except OSError as error:
                assert error.filename.endswith("full.txt"), error
                assert error.errno == 28, error
                print("fine")
        """)

    def run_ours(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "hakmem_py", *arguments], cwd=self.place,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True)

    def test_option(self):
        with open(os.path.join(self.place, "leak.py"), "w") as file:
            file.write("def leak():\n    return list(map(bytes, [1000] * 20000))\n"
                       "kept = leak()\nimport os\nos.chdir('/')\n")
        result = self.run_ours("--profile", "out.txt", "leak.py")
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (0, "", "hakmem: the profile is "
                          f"{os.path.realpath(self.place)}/out.txt\n"))
        self.assertRegex(self.file("out.txt").decode(),
                         r"(?m)^<module> \(\S*leak.py:3\);leak \(\S*leak.py:2\) \d+$")
        for arguments, wanted in (
                (["--profile"], "--profile needs the name of a file"),
                (["--profile", "x.svg", "leak.py"],
                 "--profile x.svg: 'x.svg' ends in none of .html .pb.gz .txt"
                 " .json"),
                (["--profile", "x.txt", "--compare", "leak.py"],
                 "--profile and --compare: only one of them"),
                (["--profile", "none/x.txt", "leak.py"],
                 "--profile none/x.txt: there is no folder none")):
            result = self.run_ours(*arguments)
            self.assertEqual(result.returncode, 2)
            self.assertEqual(result.stderr, f"python -m hakmem_py: {wanted}\n")


class Profile(Case):
    def test_planted(self):
        for _ in range(int(os.environ.get("ROUNDS", "1"))):
            self.says(PLANTED)

    def test_around(self):
        self.says(AROUND)

    def test_bad_input(self):
        self.says(BAD)

    def test_names(self):
        self.says(NAMES)

    def test_fork(self):
        self.says(FORK)

    def test_under_load(self):
        most = int(os.environ.get("PROFILES", "20"))
        self.assertEqual(python(LOAD.format(most=most), timeout=3600).stdout,
                         "fine\n")


if __name__ == "__main__":
    unittest.main()
