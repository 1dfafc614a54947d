"""A leak of 5 %, a cache, a fragmenting pattern, planted in C, Python and Lua: hakmem
doctor names the kind and hakmem profile the line, in each round.

HAKMEM_ROUNDS: how many (1); `make check-doctor` has 20. Each has processes of its own.
"""
import collections
import concurrent.futures
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import unittest

from planted import Planted
from support import BUILD, ROOT, hakmem

ROUNDS = int(os.environ.get("HAKMEM_ROUNDS", "1"))
HERE = os.path.join(ROOT, "tests", "command")
PYTHON = os.path.join(BUILD, f"python-{platform.python_version()}")
# A collector that runs now and then makes a saw of which some teeth must be seen.
SECONDS = {"plant.lua": "8"}

# What doctor must find, what it must not, and who the profile says holds the most.
Kind = collections.namedtuple("Kind", "name found never holder")
BAD = {"leak", "fragmentation", "retention", "kept", "growth"}
KINDS = (Kind("leak", "leak", BAD - {"leak"}, "leaks"),
         Kind("cache", "level", BAD, "grow|replace"),
         Kind("fragment", "fragmentation", BAD - {"fragmentation"}, "scatter"))


def places(file):
    """Of each function that holds something what a stack with it has: in C its name,
    else a line of it."""
    if file == "plant.c":
        return {one: re.compile(f";main;{one};")
                for one in ("leak", "cache", "fragment")}
    with open(os.path.join(HERE, file), encoding="utf-8") as source:
        lines = source.read().splitlines()
    found = {}
    for i, line in enumerate(lines, 1):
        match = re.search(r"(?:function|def) (grow|replace|leaks|scatter)\(",
                          line)
        if match:
            numbers = "|".join(map(str, range(i, i + 6)))
            found[match[1]] = re.compile(rf"{file}:({numbers})\)")
    return found


class Rounds(Planted):
    """Each language by itself."""

    def start(self, words, **env):
        env = {"HAKMEM_PROFILE_RATE": "16K", **env}
        return self.program(words, **env)

    def looked_at(self, child, kind, file):
        """What doctor and profile say of it; a text that says what is wrong."""
        done = hakmem("doctor", "--json", "--seconds", SECONDS.get(file, "4"),
                      str(child.pid), env=self.env, timeout=120)
        if not done.stdout:
            return f"{kind.name}: {done.stderr}"
        said = json.loads(done.stdout)
        kinds = {one["kind"] for one in said["findings"]}
        if kind.found not in kinds or kinds & kind.never or \
                done.returncode != (kind.name != "cache"):
            return f"{kind.name}: {done.returncode} {said['findings']}" \
                f" {said.get('parts')}"
        path = self.path(f"{child.pid}.txt")
        done = hakmem("profile", "-s", "0.5", "-o", path, str(child.pid),
                      env=self.env, timeout=120)
        if done.returncode != 0:
            return f"{kind.name}: {done}"
        with open(path, encoding="utf-8") as opened:
            text = opened.read()
        os.unlink(path)
        return None if self.is_named(text, kind, file) else \
            f"{kind.name}: the profile says\n{text}{done.stdout}"

    @staticmethod
    def is_named(text, kind, file):
        """Whether most of what is held is told of where it comes from."""
        sums = collections.Counter()
        for line in text.splitlines():
            stack, value = line.rsplit(" ", 1)
            for one, wanted in places(file).items():
                if wanted.search(stack):
                    sums[one] += int(value)
        most, _ = sums.most_common(1)[0] if sums else ("", 0)
        return re.fullmatch(kind.name if file == "plant.c" else kind.holder,
                            most)

    def rounds(self, file, command, **env):
        for number in range(ROUNDS):
            children = [self.start([*command, kind.name], **env)
                        for kind in KINDS]
            with concurrent.futures.ThreadPoolExecutor(len(KINDS)) as pool:
                wrong = [text for text in pool.map(
                    lambda pair: self.looked_at(pair[0], pair[1], file),
                    zip(children, KINDS)) if text]
            self.assertFalse(wrong, f"round {number + 1}:\n"
                             + "\n".join(wrong))
            for child in children:
                self.stop(child)

    def test_c(self):
        self.rounds("plant.c", [self.plant])

    def test_python(self):
        if not os.path.exists(f"{PYTHON}/hakmem_py/__init__.py"):
            self.skipTest("hakmem_py is not built")
        self.rounds("plant.py", [sys.executable, "-m", "hakmem_py",
                                 os.path.join(HERE, "plant.py")],
                    LD_PRELOAD="", PYTHONPATH=PYTHON)

    @unittest.skipUnless("HAKMEM_ROUNDS" in os.environ,
                         "by make check-doctor: a collector's saw takes its time")
    def test_lua(self):
        if not (os.path.exists(f"{BUILD}/lua/hakmem.so") and
                shutil.which("lua5.4")):
            self.skipTest("the Lua module is not built")
        self.rounds("plant.lua", ["lua5.4", os.path.join(HERE, "plant.lua")],
                    LD_PRELOAD="", LUA_CPATH=f"{BUILD}/lua/?.so;;")


if __name__ == "__main__":
    unittest.main()
