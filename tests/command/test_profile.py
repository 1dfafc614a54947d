"""hakmem profile, and what is in the profiles: each form of a program's whose
allocations are known."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

import pprof
from support import BUILD, COMMAND, PLAIN, Case, hakmem

HAS_LUA = os.path.exists(f"{BUILD}/lua/hakmem.so") and shutil.which("lua5.4")
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") \
    else sys.executable

# Says of each function how many bytes its blocks have, and how many there are.
# At a rate of 1 each block is a sample, and what it stands for is itself.
KNOWN = r"""
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
static void *kept[2000];
static int n;
#define SITE(name, count, size, keep)                                \
    __attribute__((noinline, noclone)) static void name(void)        \
    {                                                                \
        size_t bytes = 0;                                            \
        for (int i = 0; i < (count); i++) {                          \
            void *volatile p = malloc(size);                         \
            bytes += malloc_usable_size(p);                          \
            if (keep) kept[n++] = p; else free(p);                   \
        }                                                            \
        fprintf(stderr, "%s %d %zu %d\n", #name, count, bytes, keep); \
    }
SITE(keeps_small, 700, 100, 1)
SITE(keeps_middle, 50, 5000, 1)
SITE(keeps_large, 9, 300000, 1)
SITE(keeps_huge, 2, 5000000, 1)
SITE(passes, 900, 200, 0)
__attribute__((noinline, noclone)) static int all(void)
{
    keeps_small(); keeps_middle(); keeps_large(); keeps_huge(); passes();
    return n;
}
int main(void) { setvbuf(stderr, NULL, _IONBF, 0); return all() == 761 ? 7 : 1; }
"""


class Known(Case):
    """The forms, from HAKMEM_PROFILE alone."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.program = cls.compiled("known", KNOWN)
        cls.truth = None

    def profile(self, name):
        """The file; sets what the program says of itself, by functions."""
        path = self.path(name)
        done = subprocess.run([self.program], check=False, text=True, env={
            **PLAIN, "LD_PRELOAD": f"{BUILD}/libhakmem.so",
            "HAKMEM_PROFILE": path, "HAKMEM_PROFILE_RATE": "1"},
            stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 7, done.stderr)
        self.truth = {}
        for line in done.stderr.splitlines():
            site, count, size, keep = line.split()
            self.truth[site] = (int(count), int(size), int(keep))
        self.assertEqual(len(self.truth), 5, done.stderr)
        return path

    def check(self, sums):
        """sums(site): allocated blocks, bytes; live blocks, bytes."""
        for site, (count, size, keep) in self.truth.items():
            self.assertEqual(list(sums(site)), [
                count, size, count * keep, size * keep], site)

    def test_pprof(self):
        profile = pprof.Pprof(self.profile("x.pb.gz"))
        self.assertEqual(profile.types, [
            ("alloc_objects", "count"), ("alloc_space", "bytes"),
            ("inuse_objects", "count"), ("inuse_space", "bytes")])
        self.assertEqual((profile.period_type, profile.period,
                          profile.default),
                         (("space", "bytes"), 1, "inuse_space"))
        self.check(profile.sums)
        whole = [sum(values) for values in zip(*(
            sample.values for sample in profile.samples))]
        # The loader and the C library have a few of their own.
        self.assertLess(whole[3] - profile.sums("all")[3], 200000)
        self.assertEqual(profile.sums("all"), [
            sum(column) for column in zip(*(
                profile.sums(site) for site in self.truth))])
        for sample in profile.samples:
            names = [frame[0] for frame in sample.stack]
            if "keeps_large" in names:
                at = names.index("keeps_large")
                self.assertEqual(names[at + 1:at + 3], ["all", "main"], names)
        paths = [profile.strings[pprof.only(mapping, 5)]
                 for mapping in profile.mappings.values()]
        self.assertIn(self.program, paths)

    def test_go_tool_pprof(self):
        if shutil.which("go") is None:
            print("skipped: go tool pprof: there is no go")
            self.skipTest("there is no go")
        path = self.profile("go.pb.gz")
        for index, site, column in (("inuse_space", "keeps_huge", 1),
                                    ("alloc_objects", "passes", 0)):
            done = subprocess.run(
                ["go", "tool", "pprof", "-top", "-unit=B" if column else
                 "-unit=count", f"-sample_index={index}", path],
                env={**PLAIN, "HOME": self.folder, "GOFLAGS": "-mod=mod",
                     "PPROF_TMPDIR": self.folder}, text=True, check=False,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"Type: {index}", done.stdout)
            row = re.search(rf"^ *(\d+)\S* .* {site}$", done.stdout, re.M)
            self.assertTrue(row, done.stdout)
            self.assertEqual(int(row[1]), self.truth[site][column],
                             done.stdout)

    def test_collapsed(self):
        with open(self.profile("x.txt"), encoding="utf-8") as file:
            lines = [line.rstrip("\n").rsplit(" ", 1) for line in file]
        for site, (_, size, keep) in self.truth.items():
            self.assertEqual(sum(int(value) for stack, value in lines
                                 if f";all;{site}" in stack), size * keep)

    def test_speedscope(self):
        with open(self.profile("x.json"), encoding="utf-8") as file:
            found = json.load(file)
        frames = [frame["name"] for frame in found["shared"]["frames"]]
        by_name = {one["name"]: one for one in found["profiles"]}
        self.assertEqual(list(by_name), ["live bytes", "live blocks",
                                         "allocated bytes",
                                         "allocated blocks"])
        for one in found["profiles"]:
            self.assertEqual(one["endValue"], sum(one["weights"]))
            self.assertEqual(len(one["samples"]), len(one["weights"]))

        def sums(site):
            for name in ("allocated blocks", "allocated bytes", "live blocks",
                         "live bytes"):
                one = by_name[name]
                yield sum(weight for stack, weight in zip(
                    one["samples"], one["weights"])
                    if site in [frames[i] for i in stack])
        self.check(sums)

    def test_page(self):
        path = self.profile("x.html")
        found = pprof.page(path)
        self.assertRegex(found["about"], r"^Process \d+, one sample in 1 byte")
        self.assertIsNone(found["grown"])
        stacks, frames = found["all"]["stacks"], found["all"]["frames"]

        def sums(site):
            values = [sum(column) for column in zip(*(
                values for stack, values in stacks
                if site in [frames[i] for i in stack]))]
            return values[3], values[2], values[1], values[0]
        self.check(sums)
        with open(path, encoding="utf-8") as file:
            self.assertNotRegex(file.read(), r"(src|href)=.?(https?:)?//")


class Command(Case):
    """hakmem profile."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.program = cls.compiled("known", KNOWN)

    def said(self, done, name):
        self.assertRegex(done.stderr,
                         rf"hakmem profile: the profile is {name} \(")

    def test_page_and_status(self):
        done = hakmem("profile", "--rate", "1", self.program, cwd=self.folder)
        self.assertEqual(done.returncode, 7, done.stderr)
        self.said(done, r"hakmem-profile\.\d+\.html")
        name = re.search(r"the profile is (\S+)", done.stderr)[1]
        found = pprof.page(self.path(name))
        self.assertEqual(found["about"].split(",")[0],
                         f"Process {name.split('.')[1]}")
        self.assertIn("keeps_huge", found["all"]["frames"])
        os.unlink(self.path(name))

    def test_forms(self):
        for ending in (".pb.gz", ".txt", ".json"):
            done = hakmem("profile", "-o", f"own{ending}", "--rate=1K",
                          self.program, cwd=self.folder)
            self.said(done, f"own{ending}")
            self.assertTrue(os.path.getsize(self.path(f"own{ending}")))
        self.assertEqual(pprof.Pprof(self.path("own.pb.gz")).period, 1024)

    def test_child_does_not_take_its_place(self):
        done = hakmem("profile", "--rate=1", "-o", "parent.txt", "--", PYTHON,
                      "-c", "import subprocess, sys\n"
                      "subprocess.run([sys.argv[1]], check=False)",
                      self.program, cwd=self.folder)
        self.said(done, "parent.txt")
        child = re.search(r"it started: 1, in (parent\.\d+\.txt)\n",
                          done.stderr)
        with open(self.path(child[1]), encoding="utf-8") as file:
            self.assertIn("keeps_huge", file.read())
        with open(self.path("parent.txt"), encoding="utf-8") as file:
            self.assertNotIn("keeps_huge", file.read())

    def test_children_have_their_own(self):
        done = hakmem("profile", "-o", "of.%p.txt", "--", "sh", "-c",
                      f"{self.program}; {self.program}; exit 4",
                      cwd=self.folder)
        self.assertEqual(done.returncode, 4)
        self.assertRegex(done.stderr, r"that it started: 2, in of\.\d+\.txt"
                         r" to of\.\d+\.txt\n")

    def test_signals_and_what_no_exit_leaves(self):
        path = self.path("signal.html")
        self.file("signal.html", "an older one")
        with subprocess.Popen([COMMAND, "profile", "-o", path, "--", "sh", "-c",
                               "trap 'echo got; kill -9 $$' TERM; echo up;"
                               " while :; do sleep 0.05; done"],
                              env={**PLAIN}, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as child:
            self.assertEqual(child.stdout.readline(), "up\n")
            child.send_signal(signal.SIGTERM)
            out, err = child.communicate(timeout=300)
            self.assertEqual((out, child.returncode), ("got\n", 137))
        # Neither the old one nor that of a sleep is taken for its own.
        self.assertFalse(os.path.exists(path), err)
        self.assertRegex(err, "has no profile: SIGKILL ended the program")

    def test_half_a_profile(self):
        for ending, half in ((".html", "<!DOCTYPE html>"), (".json", "{"),
                             (".txt", "main;f 1"), (".pb.gz", "\x1f")):
            done = hakmem("profile", "-o", f"half{ending}", "sh", "-c",
                          f"printf '{half}' >half.$$'{ending}'",
                          cwd=self.folder)
            self.assertEqual(done.returncode, 0)
            self.assertEqual(done.stderr, f"hakmem profile: the profile half"
                             f"{ending} could not be written whole; is there"
                             " space on its disk?\n")

    def test_killed(self):
        done = hakmem("profile", "-o", self.path("none.txt"), "--", PYTHON,
                      "-c", "import os; os.kill(os.getpid(), 9)")
        self.assertEqual(done.returncode, 137)
        self.assertRegex(done.stderr, "^hakmem profile: the program has no"
                         " profile: SIGKILL ended the program.*\n$")
        self.assertFalse(os.path.exists(self.path("none.txt")))

    def test_opens(self):
        folder = self.path("bin")
        os.mkdir(folder)
        self.file("bin/xdg-open", f"#!/bin/sh\necho \"$1\" >'{self.folder}'/o"
                  f"pening\nmv '{self.folder}/opening' '{self.folder}/opened'",
                  0o755)
        done = hakmem("profile", "--open", "-o", "opened.html", self.program,
                      cwd=self.folder, env={
                          "PATH": f"{folder}:{os.environ['PATH']}"})
        self.assertEqual(done.returncode, 7)
        subprocess.run(["sh", "-c", "until [ -f opened ]; do sleep 0.02; done"],
                       cwd=self.folder, timeout=300, check=True)
        with open(self.path("opened"), encoding="utf-8") as file:
            self.assertEqual(file.read().strip(), self.path("opened.html"))

    @unittest.skipUnless(HAS_LUA, "the Lua module is not built")
    def test_lua(self):
        script = self.file("keeps.lua", "local function keeper()\n"
                           "  kept = {}\n  for i = 1, 2e5 do\n"
                           "    kept[i] = {i}\n  end\nend\nkeeper()\n")
        done = hakmem("profile", "--lua", "-o", self.path("lua.txt"), "--",
                      script)
        self.said(done, ".*lua.txt")
        with open(self.path("lua.txt"), encoding="utf-8") as file:
            self.assertIn("keeper (", file.read())
        done = hakmem("profile", "-o", self.path("c.txt"), "lua5.4", script)
        self.assertIn("--lua tells the script's lines\n", done.stderr)

    def test_python(self):
        version = subprocess.run([PYTHON, "-c", "import platform;"
                                  "print(platform.python_version())"],
                                 text=True, capture_output=True,
                                 check=True).stdout.strip()
        if not os.path.exists(f"{BUILD}/python-{version}/hakmem_py/__init__.py"):
            self.skipTest("hakmem_py is not built")
        script = self.file("keeps.py", "def keeper():\n"
                           "    return [[i] for i in range(200000)]\n"
                           "kept = keeper()\nraise SystemExit(5)\n")
        done = hakmem("profile", "--python", "-o", self.path("py.txt"), "--",
                      PYTHON, script, "-x")
        self.assertEqual(done.returncode, 5, done.stderr)
        self.said(done, ".*py.txt")
        with open(self.path("py.txt"), encoding="utf-8") as file:
            self.assertIn("keeper (", file.read())


class Refused(Case):
    """One line each."""

    def test_line(self):
        self.fails(2, "profile: no program is given", "profile")
        self.fails(2, "x.pdf: must end in one of .html .pb.gz .txt .json",
                   "profile", "-o", "x.pdf", "ls")
        for rate in ("0", "2G", "-1", "banana", "1T"):
            self.fails(2, f"--rate={rate}: (not|must)", "profile",
                       f"--rate={rate}", "ls")
        self.fails(2, "only one of them", "profile", "--lua", "--python", "x")
        self.fails(127, "nosuchprogram: there is no such program", "profile",
                   "nosuchprogram")
        self.fails(1, "--output=.*: can't be written: .*no such folder",
                   "profile", "-o", self.path("none/x.html"), "ls")

    def test_running_process(self):
        self.fails(2, "can't be profiled from outside: start it with .*"
                   "HAKMEM_PROFILE=FILE, or have it call hak_profile_start",
                   "profile", str(os.getpid()))
        self.fails(2, "there is no process 99999999", "profile", "99999999")


if __name__ == "__main__":
    unittest.main()
