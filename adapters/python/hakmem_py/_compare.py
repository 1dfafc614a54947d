"""python -m hakmem_py --compare: a program on HAKMEM and without it.

Both run in turn, at least once each, and again while that takes few seconds;
the table shows medians. The output of the runs is not shown but compared.
"""
import collections
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 5  # at most
SECONDS = 10.0  # no new round after that

Run = collections.namedtuple("Run", "status output seconds cpu peak faults")


class Failed(Exception):
    """The program can't be compared; the text is for the user."""


def _environment(on):
    env = dict(os.environ)
    if not on:
        env["HAKMEM_PYTHON"] = "off"
        env.pop("HAKMEM_PYTHON_LIMIT", None)
    elif env.get("HAKMEM_PYTHON") == "off":
        del env["HAKMEM_PYTHON"]
    return env


def run_once(program, on):
    """A Run of the program, on HAKMEM or without it."""
    runner = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                          "_program.py")
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(reader) as figures:
        began = time.perf_counter()
        with subprocess.Popen(
                [sys.executable, *subprocess._args_from_interpreter_flags(),
                 runner, str(writer), "on" if on else "off", *program],
                stdin=subprocess.DEVNULL, stdout=output, pass_fds=[writer],
                env=_environment(on)) as child:
            os.close(writer)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        os.set_blocking(reader, False)
        try:
            peak = int(figures.read() or 0)
        except (OSError, TypeError, ValueError):
            peak = 0
        output.seek(0)
        return Run(child.returncode, output.read(), seconds,
                   usage.ru_utime + usage.ru_stime, peak, usage.ru_minflt)


def _check(program, plain, ours):
    name = " ".join(program)
    if plain.status != 0:
        raise Failed(f"'{name}' ends with status {plain.status} without"
                     " HAKMEM: nothing to compare")
    if ours.status != 0:
        raise Failed(f"'{name}' ends with status {ours.status} on HAKMEM, and"
                     " with 0 without it")


def _medians(runs, name):
    return statistics.median(getattr(run, name) for run in runs)


def _line(title, form, scale, name, plain, ours):
    before = _medians(plain, name) / scale
    after = _medians(ours, name) / scale
    if before <= 0 or after <= 0:
        return f"{title:<18}{'-':>12}{'-':>12}"
    return (f"{title:<18}{before:>12{form}}{after:>12{form}}"
            f"{after / before:>9.2f}")


def compare(program):
    """Prints the table; the exit status."""
    plain, ours = [], []
    began = time.monotonic()
    while len(plain) < ROUNDS:
        plain.append(run_once(program, False))
        ours.append(run_once(program, True))
        _check(program, plain[-1], ours[-1])
        if time.monotonic() - began > SECONDS:
            break
    print(f"{'':<18}{'without':>12}{'on HAKMEM':>12}{'ratio':>9}")
    print(_line("CPU time, s", ".3f", 1, "cpu", plain, ours))
    print(_line("time, s", ".3f", 1, "seconds", plain, ours))
    print(_line("peak memory, MB", ".1f", 1024, "peak", plain, ours))
    print(_line("page faults", ".0f", 1, "faults", plain, ours))
    turns = "once each" if len(plain) == 1 else \
        f"{len(plain)} times each, in turn: medians"
    same = len({run.output for run in plain + ours}) == 1
    print(f"run {turns}; their output was "
          f"{'the same' if same else 'not the same in every run'}")
    return 0
