#!/usr/bin/env python3
"""One table of the machines and versions that HAKMEM is tested on.

    tests/everywhere.py [--list] [--seconds N] [WORD...]

Each row is a goal of make; WORDs choose some, by parts of the goal's name or of the
row's text. A goal that can't be made here is a row that says why: it is not in this
tree, or a command, the right or the sources that it needs are missing. What a goal says
goes to build/everywhere/GOAL.log. A check of several versions has a row for each:
what it prints as "row: NAME | RESULT". Each goal is made as by hand, without the flags
of the make that runs this.

The exit status is 1 if anything failed, 2 if no row has such a WORD. --list runs
nothing. --seconds stops a goal that takes longer (default 3600).
"""
import argparse
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "everywhere"
MAKE = os.environ.get("MAKE", "make")
SUM = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)
UNITTEST = re.compile(r"^Ran (\d+) tests? .*\n\n(OK|FAILED)", re.M)
ROW = re.compile(r"^row: (.*?) \| (.*)$", re.M)

# (goal, what is tested, what it needs: commands, "root", "NGINX_SRC")
ROWS = (
    ("check", "this machine: {here}", ()),
    ("check-pages", "pages of 16 and 64 KB, by a shim", ()),
    ("check-aarch64", "aarch64, emulated", ("aarch64-linux-gnu-gcc", "qemu-aarch64")),
    ("check-riscv64", "riscv64, emulated", ("riscv64-linux-gnu-gcc", "qemu-riscv64")),
    ("check-musl", "x86-64, musl", ("musl-gcc",)),
    ("check-debians", "Debian 11, 12, 13: gcc 10, 12, 14; clang 11, 14, 19",
     ("root", "debootstrap")),
    ("check-luas", "Lua 5.1 to 5.5, LuaJIT", ()),
    ("check-luarocks", "LuaRocks", ("luarocks",)),
    ("check-nginx", "nginx of this system", ("nginx",)),
    ("check-nginxes", "nginx 1.18 and later, Angie, freenginx", ("NGINX_SRC",)),
    ("check-pythons", "CPython 3.9 and later, each that is found", ()),
    ("check-python-trixie", "CPython 3.13 of Debian 13", ("root", "debootstrap")),
    ("check-python-testing", "CPython 3.14 of Debian testing", ("root", "debootstrap")),
    ("check-python-install", "wheels, in fresh environments; glibc 2.28 at most", ()),
    ("check-deb", "Debian's packages, in a chroot",
     ("root", "debootstrap", "dpkg-buildpackage", "lintian")),
    ("check-dist", "the release archive, CMake", ("cmake",)),
    ("check-reproducible", "built twice: the same bytes", ()),
)


def here():
    """What this machine is."""
    libc = " ".join(platform.libc_ver()) or "an unknown C library"
    page = os.sysconf("SC_PAGESIZE") // 1024
    linux = ".".join(platform.release().split(".")[:2])
    return f"{platform.machine()}, {libc}, {page} KB, Linux {linux}"


def goals():
    """The goals that this tree has."""
    said = subprocess.run([MAKE, "-s", "help"], cwd=ROOT, text=True, check=True,
                          stdout=subprocess.PIPE).stdout
    return set(re.findall(r"[\w-]+", said))


def missing(needs):
    """Why a goal that needs these can't be made here, or None."""
    for need in needs:
        if need == "root":
            if os.geteuid() != 0:
                return "it needs root"
        elif need == "NGINX_SRC":
            if not os.environ.get("NGINX_SRC"):
                return 'NGINX_SRC="DIRECTORY..." names no source trees'
        elif shutil.which(need, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            return f"there is no {need}"
    return None


def result(status, text):
    """What a goal's output means, in a few words."""
    sums = SUM.findall(text)
    passed = sum(int(good) for good, _ in sums)
    failed = sum(int(bad) for _, bad in sums)
    for count, word in UNITTEST.findall(text):
        passed += int(count) if word == "OK" else 0
    if status == 0:
        return f"passed: {passed}" if passed else "passed"
    if status is None:
        return "FAILED: it took too long"
    last = (text.strip().splitlines() or ["it said nothing"])
    why = next((line for line in last if line.startswith(("make ", "install-deps: "))),
               last[-1])
    return f"FAILED: {failed} of {passed + failed}" if failed else f"FAILED: {why}"


def run(goal, seconds):
    """(exit status or None, what it said) of a goal."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{goal}.log"
    dropped = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    if goal != "check-nginxes":
        dropped.add("NGINX_SRC")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    with log.open("wb") as output, subprocess.Popen(
            [MAKE, goal], cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 15)
            process.wait()
            status = None
    return status, log.read_text(errors="replace")


def show(what, said, took=""):
    print(f"{what:<58} | {said}{took}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("words", nargs="*", metavar="WORD")
    args = parser.parse_args()
    rows = [(goal, what.format(here=here()), needs) for goal, what, needs in ROWS]
    rows = [row for row in rows if not args.words
            or any(word in f"{row[0]} {row[1]}" for word in args.words)]
    if not rows:
        names = " ".join(goal for goal, _, _ in ROWS)
        print(f"tests/everywhere.py: no row has '{' '.join(args.words)}'; goals: {names}",
              file=sys.stderr)
        return 2
    there = goals()
    passed = failed = 0
    show("machine, C library, version", "passed, or why not here")
    show("-" * 58, "-" * 24)
    for goal, what, needs in rows:
        why = missing(needs) if goal in there else f"this tree has no goal {goal}"
        if why or args.list:
            show(what, f"not here: {why}" if why else f"make {goal}")
            continue
        start = time.monotonic()
        status, text = run(goal, args.seconds)
        took = f" ({time.monotonic() - start:.0f} s)"
        found = ROW.findall(text)
        for name, said in found:
            show(name, said)
        if not found or (status != 0 and not any("FAILED" in said for _, said in found)):
            show(what, result(status, text), took)
        passed += status == 0
        failed += status != 0
        if status != 0:
            print(f"    what it said: {LOGS.relative_to(ROOT)}/{goal}.log", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
