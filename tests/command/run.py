#!/usr/bin/env python3
"""Runs the tests of the command: some at a time, since they mostly wait.

    tests/command/run.py [-v] [MODULE...]

A process for each test_*.py; what it said is shown if it failed. The last line is
"N passed, N failed"; the exit status is 1 if anything failed.
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
AT_ONCE = 4


def run(module):
    """(module, tests, bad ones, what it said)."""
    done = subprocess.run([sys.executable, "-B", "-m", "unittest", module],
                          cwd=HERE, text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    ran = re.search(r"^Ran (\d+) tests? in ([\d.]+)s", done.stdout, re.M)
    bad = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d+)",
                                         done.stdout))
    if done.returncode != 0:
        bad = max(bad, 1)
    return module, int(ran[1]) if ran else bad, bad, done.stdout


def main():
    words = [word for word in sys.argv[1:] if word != "-v"]
    modules = words or sorted(path.stem for path in HERE.glob("test_*.py"))
    passed = failed = 0
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for module, tests, bad, said in pool.map(run, modules):
            passed += tests - bad
            failed += bad
            print(f"{module}: {tests - bad} passed, {bad} failed", flush=True)
            if bad or "-v" in sys.argv:
                print(said)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not modules else 0


if __name__ == "__main__":
    sys.exit(main())
