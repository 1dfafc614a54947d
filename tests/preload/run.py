#!/usr/bin/env python3
"""Runs Debian's programs under LD_PRELOAD and compares with a run without.

    tests/preload/run.py --build DIR --library LIBRARY [--hardened LIBRARY]
        [--large [--third 0|1|2|all]] [NAME...]

A check is a script NAME.sh here, or in large/ with --large. Each runs without
the library, with it, and with its hardened build if there is one, in a
directory of its own; it must succeed, say the same on standard output every
time, leave no process behind, and every command it started by `under` (lib.sh)
must have been served by the library. The last line is "N passed, N failed";
the exit status is 1 if anything failed.

The large checks need much of Debian: large/thirds deals them out in thirds, of
which --third takes one, the day's if it is empty. The packages of each are
installed first (.ci/install-deps preload-NAME); a check whose packages can't
be had has failed. A line "# architectures: NAME..." in a script says where
alone there is such a thing; elsewhere it is left out, which is said.

LIBRARY may be another allocator's, to try a check (make check-preload
PRELOAD_LIB=FILE). The scripts see ROOT (the top directory), BUILD, PORT (a
free one), and what lib.sh says it needs.
"""
import argparse
import concurrent.futures
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LARGE = HERE / "large"
# Long ones first; some of the jobs that run at a time mostly sleep.
FIRST = ["python3", "redis", "node", "postgresql", "go", "libreoffice",
         "chromium", "java"]
JOBS = 3
RUNNING = {}  # of each run: its session and its directory
PORTS = set()  # that runs have been given


def evidence(library):
    """The variable that makes a served process tell so: ours reports at exit,
    for others the loader tells to whom it bound the calls."""
    if library.name == "libhakmem.so":
        return "HAKMEM_SHOW_STATS=1"
    return "LD_DEBUG=bindings"


def unserved(reports, library):
    """The commands that the library did not serve, by name: none of their
    processes reported calls in the Tiny lane, or were bound to it."""
    said = re.compile(r"^tiny +[1-9]|"
                      rf" to \S*/{re.escape(library.name)} .*`(malloc|_Znwm)'",
                      re.M)
    commands = sorted({path.name.split(".")[0] for path in reports.iterdir()})
    if not commands:
        return ["no command at all"]
    return [name for name in commands
            if not any(said.search(path.read_text(errors="replace"))
                       for path in reports.glob(f"{name}*"))]


def left_over(session, work):
    """Processes of a run that are still there."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and (
                    int(fields[3]) == session or
                    os.fsencode(work) in (entry / "environ").read_bytes()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def kill_left_over(session, work):
    """Until there is none: one may have forked meanwhile. The first found."""
    found = left = left_over(session, work)
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
        left = left_over(session, work)
    return found


def stop(*_):
    """A signal has come: the runs have sessions of their own to be ended."""
    for session, work in list(RUNNING.items()):
        kill_left_over(session, work)
        shutil.rmtree(work, ignore_errors=True)
    os._exit(1)


def free_port():
    """Below those that the kernel hands out: nobody gets it by chance until the
    server has it; and no other run's."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as server:
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in PORTS:
            PORTS.add(port)
            return port


def environment(args, work, library):
    env = {name: value for name, value in os.environ.items()
           if name not in ("LD_PRELOAD", "BASH_ENV", "ENV")
           and not name.startswith(("HAKMEM_", "GIT_", "PYTHON", "NODE_"))}
    (work / "tmp").mkdir()
    (work / "reports").mkdir()
    env.update(ROOT=str(ROOT), BUILD=str(args.build), PORT=str(free_port()),
               HOME=str(work), TMPDIR=f"{work}/tmp", REPORTS=f"{work}/reports",
               LC_ALL="C.UTF-8", TZ="UTC", LIBRARY="", EVIDENCE="")
    if library:
        env.update(LIBRARY=str(library), EVIDENCE=evidence(library))
    return env


def script(name, args):
    return (LARGE if args.large else HERE) / f"{name}.sh"


def run(name, args, library):
    """One run of a check: (seconds, output, log, what is wrong or "")."""
    start = time.monotonic()
    wrong = []
    with tempfile.TemporaryDirectory(prefix=f"hakmem-{name}-") as top, \
            tempfile.TemporaryFile("w+", errors="replace") as output, \
            tempfile.TemporaryFile("w+", errors="replace") as log:
        work = pathlib.Path(top)
        with subprocess.Popen(
                ["bash", script(name, args)], cwd=work, stdout=output,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env=environment(args, work, library)) as process:
            RUNNING[process.pid] = top
            try:
                if process.wait(args.limit):
                    wrong.append(f"ended with status {process.returncode}")
            except subprocess.TimeoutExpired:
                wrong.append(f"stopped after {args.limit:.0f} s")
            left = kill_left_over(process.pid, top)
            if left and not wrong:
                wrong.append(f"left process {left[0]} behind")
            del RUNNING[process.pid]
        if library and not wrong:
            names = unserved(work / "reports", library)
            if names:
                wrong.append(f"not served by {library.name}: "
                             + " ".join(names))
        output.seek(0)
        log.seek(0)
        text, errors = output.read(), log.read()
        for path in sorted((work / "reports").iterdir()):
            said = path.read_text(errors="replace")
            if said and not path.suffix:  # what the loader wrote has one
                errors += f"{path.name}: {said}\n"
    return time.monotonic() - start, text, errors, "\n  ".join(wrong)


def difference(plain, served):
    """Where two outputs part, or ""."""
    if plain == served:
        return "" if plain else "said nothing: nothing to compare"
    ours, theirs = served.splitlines(), plain.splitlines()
    for line in range(max(len(ours), len(theirs))):
        pair = [text[line] if line < len(text) else "(its end)"
                for text in (theirs, ours)]
        if pair[0] != pair[1]:
            return (f"line {line + 1} differs:\n    without: {pair[0]}\n"
                    f"    with:    {pair[1]}")
    return "the outputs differ in line ends"


def thirds():
    """The large checks: a name and its third."""
    lines = (LARGE / "thirds").read_text().splitlines()
    table = dict(line.split() for line in lines if not line.startswith("#"))
    scripts = {path.stem for path in LARGE.glob("*.sh")}
    if set(table) != scripts:
        sys.exit(f"run.py: {LARGE}/thirds and the scripts beside it differ: "
                 + " ".join(sorted(set(table) ^ scripts)))
    return table


def chosen(args):
    """The names of the checks to run."""
    known = thirds() if args.large else {
        path.stem: "" for path in HERE.glob("*.sh") if path.stem != "lib"}
    for name in args.names:
        if name not in known:
            sys.exit(f"run.py: no check '{name}'; there are "
                     + ", ".join(sorted(known)))
    names = args.names
    if not names and args.large:
        third = args.third or str(time.gmtime().tm_yday % 3)
        names = [name for name in known if third in ("all", known[name])]
        what = ("every third" if third == "all" else f"third {third}")
        print(f"{what} of the large checks:", *sorted(names), flush=True)
    names = sorted(names or known, key=lambda name: (name not in FIRST, name))
    here = platform.machine()
    for name in names[:]:
        only = re.search(r"^# architectures: (.*)$",
                         script(name, args).read_text(), re.M)
        if only and here not in only[1].split():
            print(f"{name:<12} left out: there is none on {here}", flush=True)
            names.remove(name)
    return names


def install(names):
    """Their packages; the names of those that lack some of them."""
    def lacks(names):
        return names and subprocess.run(
            [ROOT / ".ci/install-deps", *(f"preload-{name}" for name in names)],
            stdin=subprocess.DEVNULL, check=False).returncode
    if not lacks(names):
        return []
    return [name for name in names if lacks([name])]


def report(name, libraries, results):
    """Prints what came of a check; whether it failed."""
    (time_, text, log, wrong), served = results[0], results[1:]
    said = f"without the library: {wrong}" if wrong else ""
    times = [f"{time_:.1f} s without"]
    for (word, _), (with_time, with_text, with_log, with_wrong) in zip(
            libraries, served):
        times.append(f"{with_time:.1f} s {word}")
        if not said:
            said = with_wrong or difference(text, with_text)
            if said:
                said, log = f"{word}: {said}", with_log
    print(f"{name:<12} {'FAILED' if said else 'ok    '} ({', '.join(times)})",
          flush=True)
    if said:
        print(f"  {said}", *log.splitlines()[-40:], sep="\n    ", flush=True)
    return bool(said)


def main():
    parser = argparse.ArgumentParser(description="programs under LD_PRELOAD")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--library", type=pathlib.Path, required=True)
    parser.add_argument("--hardened", type=pathlib.Path,
                        help="a second library, the hardened build's")
    parser.add_argument("--large", action="store_true",
                        help="the large checks, their packages installed first")
    parser.add_argument("--third", choices=["", "0", "1", "2", "all"],
                        default="", help="of the large checks; else by date")
    parser.add_argument("--limit", type=float, default=400,
                        help="seconds for each run")
    parser.add_argument("names", nargs="*", help="default: every check")
    args = parser.parse_args()
    args.build = args.build.resolve()
    # The name stays as given: what a link points to may be called otherwise.
    libraries = [(word, pathlib.Path(os.path.abspath(library)))
                 for word, library in (("with", args.library),
                                       ("hardened", args.hardened)) if library]
    for _, library in libraries:
        if not library.is_file():
            sys.exit(f"run.py: there is no {library}; 'make' builds it")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    names = chosen(args)
    lacking = install(names) if args.large else []
    for name in lacking:
        print(f"{name:<12} FAILED\n  its packages could not be installed",
              flush=True)
    failed = len(lacking)
    names = [name for name in names if name not in lacking]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        runs = {name: [pool.submit(run, name, args, library)
                       for _, library in [("", None), *libraries]]
                for name in names}
        for name in names:
            failed += report(name, libraries,
                             [job.result() for job in runs[name]])
    print(f"{len(names) + len(lacking) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
