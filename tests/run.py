#!/usr/bin/env python3
"""Runs Criterion test programs and sums up what they say.

    tests/run.py --build DIR [--variant NAME] [--limit SECONDS] [--again N]
        [--under COMMAND] PROGRAM...

Every program's summary is printed, with what was skipped; what it said too if
it failed. The last line is "N passed, N failed". The exit status is 1 if
anything failed, if a program ran no test at all, or if there was no program.

With --again N a program of which a test's assertion did not hold (no crash,
no report of a checker, no time limit) is run N times more, alone on the
machine. If it passes each time it counts as passed, and a line that begins
with "unsteady:" names it, after what it said when it failed.

What the variants need, with Debian's Criterion 2.4.1 (a process per test):

valgrind  It must follow the children (--trace-children). A test's process
          that fails only at its end (the exit status valgrind sets) counts as
          passed with Criterion, hence a log per process, read here. --jobs
          must not be given.
asan, tsan, ubsan
          The same holds of a report made at exit (a thread not joined):
          log_path, read here. Leaks are not looked for: what only blocks of
          ours refer to would seem lost, and tests that fork leave Criterion's
          own; the figure system_live tells of ours. A test that asks for
          SIZE_MAX needs allocator_may_return_null. The thread sanitizer also
          needs tests/support/criterion_tsan.c, and no address randomisation
          where the kernel's is wider than it copes with (setarch -R).

--under, an emulator of another processor with its options: the programs are
those of TEST_LIBRARY=plain, and what they run is run by it too.
qemu's tables are as large as what a program maps, even with no access: hence
HAKMEM_RANGE.

The programs see: HAKMEM_BUILD (the build directory), HAKMEM_TEST_DIR (where
the Lua scripts are), HAKMEM_TEST_SCALE (valgrind: 20; see lua_test.h),
HAKMEM_TEST_STRIDE (ubsan: 97; see fork_check.h), LUA_CPATH (the Lua module);
every other HAKMEM_* of the caller's is removed unless its name begins with
HAKMEM_TEST_. They run in the top directory.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUMMARY = re.compile(r"Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+)"
                     r" \| Crashing: (\d+)")
SKIPPED = re.compile(r"^\[SKIP\] (.*)$", re.M)
# In a log of valgrind or a sanitizer: something was found.
REPORT = re.compile(r"^SUMMARY: |runtime error: "
                    r"|ERROR SUMMARY: [1-9][\d,]* errors?", re.M)
# In a log of valgrind: one bad access, and the process died of it. Some tests
# do that in a child, to see it die; a test that did not mean to has failed.
MEANT = re.compile(r"default action of signal 11\b"
                   r"[\s\S]*ERROR SUMMARY: 1 errors ")

SANITIZERS = {
    "asan": ("ASAN_OPTIONS", "allocator_may_return_null=1:detect_leaks=0"),
    "ubsan": ("UBSAN_OPTIONS", "print_stacktrace=1"),
    "tsan": ("TSAN_OPTIONS", "allocator_may_return_null=1:halt_on_error=1:"
             "die_after_fork=0:second_deadlock_stack=1"),
}


def emulated(env, under):
    """What the programs shall see under an emulator."""
    env["HAKMEM_TEST_UNDER"] = under
    env["HAKMEM_RANGE"] = "1G"
    env.setdefault("HAKMEM_TEST_SCALE", "20")
    env.setdefault("HAKMEM_TEST_SLOW", "10") # criterion.c
    env.setdefault("HAKMEM_TEST_STRIDE", "397")


def environment(build, variant, logs):
    """What the programs shall see."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith("HAKMEM_")
           or name.startswith("HAKMEM_TEST_")}
    env["HAKMEM_BUILD"] = str(build)
    env["LUA_CPATH"] = f"{build}/lua/?.so"
    env.setdefault("HAKMEM_TEST_DIR", str(ROOT / "tests" / "lua"))
    if variant == "valgrind":
        env.setdefault("HAKMEM_TEST_SCALE", "20")
        env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (
            str(build / "tests" / "nogit"), env.get("LD_LIBRARY_PATH"))))
    if variant == "ubsan":
        # For programs that a test compiles.
        env["HAKMEM_TEST_FLAGS"] = "-fsanitize=undefined"
        # fork_check.h: there are three times as many instructions.
        env.setdefault("HAKMEM_TEST_STRIDE", "97")
    if variant in SANITIZERS:
        name, options = SANITIZERS[variant]
        parts = [options, f"log_path={logs}/log", env.get(name, "")]
        env[name] = ":".join(filter(None, parts))
    return env


def prefix(variant, logs):
    """The command that a program is run by."""
    if variant == "valgrind":
        return ["valgrind", "--trace-children=yes", "--error-exitcode=99",
                "--leak-check=no", "--num-callers=20",
                "--read-inline-info=no", # a tenth of each process's time
                f"--log-file={logs}/log.%p.%n"]
    if variant == "tsan" and shutil.which("setarch"):
        command = ["setarch", "-R"]
        if subprocess.run([*command, "true"], check=False,
                          stderr=subprocess.DEVNULL).returncode == 0:
            return command
    return []


def descendants(pid):
    """Every process below pid, which may be in groups of their own."""
    parents = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def run(command, env, limit, output):
    """The exit status, or None when the time was up."""
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=output,
                          stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL) as process:
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                for pid in [*descendants(process.pid), process.pid]:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass


def reports(logs):
    """What valgrind or a sanitizer found, as one text."""
    texts = [path.read_text(errors="replace")
             for path in sorted(pathlib.Path(logs).iterdir())]
    return "".join(text for text in texts
                   if REPORT.search(text) and not MEANT.search(text))


def indented(text):
    """A failed program's output, without what passed."""
    return "".join(f"    {line}\n" for line in text.splitlines()
                   if not line.startswith(("[RUN ]", "[PASS]", "[SKIP]")))


def run_program(program, build, variant, limit, under):
    """Runs one program; returns (passed, failed, what to print, whether
    assertions are all that failed)."""
    name = os.path.relpath(program, build / "tests")
    if name.startswith(".."): # of an adapter's folder
        name = os.path.relpath(program, build)
    command = [str(pathlib.Path(program).resolve()), "--color=never",
               "--verbose"]
    if variant != "valgrind": # where Criterion copes with one at a time alone
        command.append(f"--jobs={min(4, os.cpu_count() or 1)}")
    with tempfile.TemporaryDirectory() as logs, \
            tempfile.TemporaryFile("w+", errors="replace") as output:
        start = time.monotonic()
        env = environment(build, variant, logs)
        if under:
            emulated(env, under)
        status = run(prefix(variant, logs) + under.split() + command, env,
                     limit, output)
        spent = time.monotonic() - start
        output.seek(0)
        text = output.read()
        found = reports(logs)

    summary = None
    for summary in SUMMARY.finditer(text):
        pass
    tested, passed = (int(summary[1]), int(summary[2])) if summary else (0, 0)
    failed = tested - passed
    said = summary[0] if summary else "no summary"
    why = ""
    asserted = failed > 0 and not found and status is not None \
        and summary[4] == "0"
    if status is None:
        why = f"stopped after {limit} s"
    elif not summary:
        why = f"ended with status {status}, without a summary"
    elif tested == 0 and not SKIPPED.search(text):
        why = "no test ran"
    elif status != 0 and failed == 0:
        why = f"ended with status {status} after its tests"
    elif found and failed == 0:
        why = "the checker found something, see below"
    if why:
        failed += 1
    lines = (f"{name:<28} {said}  ({spent:.1f} s)"
             + (f"  FAILED: {why}" if why else "") + "\n")
    for skipped in SKIPPED.findall(text):
        lines += f"    skipped: {skipped}\n"
    if failed:
        lines += indented(text) + indented(found)
    return passed, failed, lines, asserted


def passes_alone(times, *of_program):
    """Whether a program passes that many times: (tests passed, all did)."""
    passed = 0
    for _ in range(times):
        passed, failed, lines, _ = run_program(*of_program)
        print(lines, end="", flush=True)
        if failed:
            return 0, False
    return passed, True


def main():
    parser = argparse.ArgumentParser(description="run Criterion programs")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--variant", default="release")
    # More than a test's own, which names it.
    parser.add_argument("--limit", type=float, default=600,
                        help="seconds for each program (valgrind: 4 times)")
    parser.add_argument("--again", type=int, default=0, metavar="N",
                        help="how often a program is run alone if an"
                        " assertion of its failed (0: it has failed)")
    parser.add_argument("--under", default="", metavar="COMMAND",
                        help="an emulator, with its options")
    parser.add_argument("programs", nargs="*")
    args = parser.parse_args()
    if args.variant == "valgrind":
        args.limit *= 4
    if args.variant == "valgrind" and not shutil.which("valgrind"):
        sys.exit("tests/run.py: valgrind is not installed; run 'make"
                 " install-deps'")

    # Side by side: some wait, and a program's last test is alone in it.
    workers = min(4, os.cpu_count() or 1)
    build = args.build.resolve()
    passed = failed = 0
    doubtful = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for program, (good, bad, lines, asserted) in zip(
                args.programs, pool.map(
                    lambda program: run_program(program, build, args.variant,
                                                args.limit, args.under),
                    args.programs)):
            print(lines, end="", flush=True)
            if asserted and args.again > 0:
                doubtful.append((program, good, bad))
            else:
                passed += good
                failed += bad
    for program, good, bad in doubtful:
        now, steady = passes_alone(args.again, program, build, args.variant,
                                   args.limit, args.under)
        passed += now if steady else good
        failed += 0 if steady else bad
        if steady:
            print(f"unsteady: {os.path.relpath(program, build)} failed"
                  f" {bad} of {good + bad} tests beside others, none in"
                  f" {args.again} runs alone")
    if not args.programs:
        print("tests/run.py: there is no test program", file=sys.stderr)
        failed = 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
