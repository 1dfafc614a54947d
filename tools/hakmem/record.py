"""hakmem record: every allocation of a program, written down for replay."""
import glob
import json
import os
import re
import signal
import subprocess
import sys

from hakmem import places, programs, words
from hakmem.options import Failed, Help, Option, parse

LIBRARY = "libhakmem_record.so"
MAGIC = b"HAKTRACE"

HELP = Help(
    "record", "[option...] [--] program [argument...]", """\
Runs a program and writes down each of its allocations: which thread, which
operation, size and alignment, and which block is freed. `hakmem replay` does
the same again on any allocator. The program keeps its allocator, its signals
and its exit status, and takes up to three times as long.""", (
        Option("-o --output", "FILE", "the trace; default: hakmem.trace. A"
               " process that the program forks or executes writes FILE.PID",
               initial="hakmem.trace"),
        Option("--only", None, "the program's own process, none of its"
               " children"),
        Option("-q --quiet", None, "say nothing when it is done"),
    ), """
  hakmem record -o json.trace -- python3 script.py
  hakmem replay json.trace --with glibc,hakmem,mimalloc""")


def library():
    found = places.find(LIBRARY, os.path.join("hakmem", LIBRARY))
    if found is None:
        raise Failed(f"record: {LIBRARY} is not in"
                     f" {' or '.join(places.tidy())}; it is built by `make`"
                     " where zstd.h is (Debian: apt install libzstd-dev)", 125)
    return found


def is_trace(path):
    """Whether a file is a trace, or one that was never begun."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) in (MAGIC, b"")
    except OSError:
        return False


def children_of(path):
    """The traces FILE.PID that are there."""
    return sorted((name for name in glob.glob(glob.escape(path) + ".*")
                   if re.fullmatch(r"\.\d+", name[len(path):])
                   and is_trace(name)),
                  key=lambda name: int(name.rsplit(".", 1)[1]))


def clear(path):
    """Removes what an earlier recording has left there; Failed: it isn't ours."""
    words.may_write("record: --output", path)
    if os.path.lexists(path) and not (os.path.isfile(path)
                                      and is_trace(path)):
        raise Failed(f"record: --output={path}: is there and is no trace;"
                     " name another file", 2)
    try:
        for name in [path, *children_of(path)]:
            if os.path.exists(name):
                os.unlink(name)
    except OSError as error:
        raise Failed(f"record: {error.filename}: {error.strerror}") from None


def run(program, env):
    """The exit status, as a shell has it."""
    def begin():
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT,
                       signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)

    # The terminal sends these to both; the program decides.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    children = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1,
                   signal.SIGUSR2):
        signal.signal(number, lambda got, _: [
            child.send_signal(got) for child in children])
    try:
        child = subprocess.Popen(program, env=env, preexec_fn=begin)
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise Failed(f"{program[0]}: can't be executed: {error.strerror}",
                     status) from None
    children.append(child)
    status = child.wait()
    return status if status >= 0 else 128 - status


def totals(path, partial=True):
    """What hakmem-replay says of a trace; Failed with its line."""
    done = subprocess.run(
        [places.helper("replay"), "info", *(["--partial"] if partial else []),
         "--", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip().replace("hakmem-replay: ", "", 1)
                     or f"hakmem-replay ended with {done.returncode}",
                     done.returncode if done.returncode in (1, 2) else 1)
    return json.loads(done.stdout)


def report(path):
    """Lines about what was recorded."""
    if not os.path.exists(path):
        return [f"nothing was recorded: there is no {path}"]
    found = totals(path)
    threads = found["threads"]
    end = "" if found["whole"] else \
        "; its end is missing, as it did not end by itself"
    lines = [f"{words.number(found['operations'])} operations of {threads}"
             f" thread{'' if threads == 1 else 's'}, at most"
             f" {words.size(found['peak_bytes'])} at once, are in {path}"
             f" ({words.size(found['file_bytes'])}){end}"]
    unseen = found["missed_calls"] + found["lost_frees"]
    if unseen:
        lines.append(f"{words.number(unseen)} calls could not be recorded"
                     " (within a signal's handler, or past malloc)")
    children = children_of(path)
    if children:
        lines.append(f"children: {len(children)}, in {children[0]}"
                     + (f" to {children[-1]}" if len(children) > 1 else ""))
    return lines


def main(arguments):
    parsed = parse(HELP, arguments)
    if parsed is None:
        return 0
    chosen, program = parsed
    if not program:
        raise Failed("record: no program is given; `hakmem record --help` has"
                     " examples", 2)
    programs.need_preload(program[0])
    env = dict(os.environ)
    programs.preload(env, library())
    path = os.path.abspath(chosen["output"])
    clear(path)
    env["HAKMEM_RECORD"] = path
    env.pop("HAKMEM_RECORD_ONLY", None)
    if chosen["only"]:
        env["HAKMEM_RECORD_ONLY"] = "1"
    status = run(program, env)
    if not chosen["quiet"]:
        for line in report(path):
            print(f"hakmem record: {line}", file=sys.stderr)
    return status
