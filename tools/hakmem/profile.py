"""hakmem profile: who holds a program's memory, as a page with a flame graph.

A process that runs is asked for what it samples (live). In a program that is started
the core or an adapter samples and writes the profile when it ends (docs/PROFILE.md):
this says so in the environment, waits and looks for the files. Meanwhile it asks for
what there is, which is the profile of a program that does not come to its end.
"""
import glob
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib

from hakmem import (adapters, child, live, places, processes, profiles, programs,
                    share, words)
from hakmem.options import Failed, Help, Option, parse, seconds

ENDINGS = tuple(profiles.FORMS)
DEFAULT = "hakmem-profile.%p.html"
RATE, MOST_RATE = 512 << 10, 1 << 30
SECONDS = 10.0
ANSWER = 5.0       # seconds that a process has to answer for the first time
WATCH_EVERY = 0.25
TOP = 10           # lines that a terminal is shown
UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


def rate(text):
    """Bytes, with a unit or without; as the variable takes them."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.upper(), re.ASCII)
    if not match:
        raise ValueError("not a number of bytes (with K, M or G)")
    value = int(match[1]) << UNITS[match[2]]
    if not 1 <= value <= MOST_RATE:
        raise ValueError("must be from 1 to 1G bytes")
    return value


def output(text):
    if not text.endswith(ENDINGS) or os.path.basename(text) in ENDINGS:
        raise ValueError(f"must end in one of {' '.join(ENDINGS)}")
    return text


HELP = Help(
    "profile", "[option...] PID | [--] program [argument...]", """\
Says which functions, or lines of Python or Lua, hold the memory: of a process
that runs, what it allocates from now on and has not freed some seconds later;
or of a program that is started, at its end. The result is a page with a flame
graph. It samples, which costs some 1 % of time. A process must be on HAKMEM
(hakmem top lists them) and needs no setting. A program's signals and its exit
status are its own.""", (
        Option("-s --seconds", "SECONDS", "for a process: for how long;"
               " default: 10. Ctrl-C ends it sooner", check=seconds(0.1, 86400)),
        Option("-o --output", "FILE", "the profile; its ending is its form:"
               " .html, .pb.gz (pprof), .txt (collapsed stacks), .json"
               " (speedscope). %p in the name is the process's number; processes"
               " that it starts have it before the ending; default:"
               " hakmem-profile.PID.html", check=output, initial=DEFAULT),
        Option("--rate", "SIZE", "one sample in so many bytes, with K, M or G;"
               " default: 512K", check=rate),
        Option("--python", None, "of a program: by lines of Python, by the"
               " adapter hakmem_py; the program is Python or a script of its"),
        Option("--lua", None, "the same by lines of Lua, by the module hakmem"),
        Option("--open", None, "open it with xdg-open"),
        Option("--library", "FILE", "another libhakmem.so to preload"),
    ), """
  hakmem profile --open $(pgrep -o myserver)
  hakmem profile -- ./server --requests 1000
  hakmem profile --python --open -- script.py
  hakmem profile -o heap.pb.gz -- ./program; go tool pprof -top heap.pb.gz""")


def say(text):
    print(f"hakmem profile: {text}", file=sys.stderr, flush=True)


# ---- running ----------------------------------------------------------------

def command(chosen, program, path):
    """(file, words, environment) of what is to be executed."""
    env = dict(os.environ)
    for name in ("HAKMEM_PROFILE", "HAKMEM_PYTHON_PROFILE"):
        env.pop(name, None)
    kinds = [kind for kind in ("python", "lua") if chosen[kind]]
    if len(kinds) > 1:
        raise Failed("profile: --python and --lua: only one of them", 2)
    if chosen["rate"] is not None:
        env["HAKMEM_PROFILE_RATE"] = str(chosen["rate"])
    variable = "HAKMEM_PYTHON_PROFILE" if chosen["python"] else "HAKMEM_PROFILE"
    if kinds:
        program = adapters.command(kinds[0], program, env)
        env[variable] = path
        return programs.find(program[0]), program, env
    env[variable] = path
    file = programs.need_preload(program[0])
    programs.preload(env, places.library(chosen["library"]))
    return file, program, env


def template(path):
    """The name by which each process writes its own: with %p."""
    if "%p" in path:
        return path
    ending = next(one for one in ENDINGS if path.endswith(one))
    return f"{path[:-len(ending)]}.%p{ending}"


def files(pattern):
    """When what is there by that template was written, by names."""
    wanted = r"\d+".join(map(re.escape, pattern.split("%p")))
    found = {}
    for name in glob.glob(glob.escape(pattern).replace("%p", "*")):
        try:
            if re.fullmatch(wanted, name):
                found[name] = os.stat(name).st_mtime_ns
        except OSError:
            pass
    return found


def clear(path):
    """Failed if it can't be written; an older file of that name goes."""
    words.may_write("profile: --output", path.replace("%p", "0"))
    try:
        if os.path.isfile(path):
            os.unlink(path)
    except OSError as error:
        raise Failed(f"profile: --output={path}: can't be replaced:"
                     f" {error.strerror}") from None


# ---- what came of it ----------------------------------------------------------

def how_it_ended(status):
    for number in signal.Signals:
        if status == 128 + number:
            return f"{number.name} ended the program"
    return "the program wrote none at its end"


def why_none(status, chosen):
    if status > 128:
        return (f"{how_it_ended(status)}, before it was a second old or held"
                " 32 MB")
    if chosen["python"] or chosen["lua"]:
        return "it did not come to the interpreter's end, or could not write it"
    return "it ended by _exit, or has a malloc of its own, or could not write it"


def hint(program, chosen):
    """An interpreter shows its own functions, not the script's lines."""
    kind = adapters.kind_of(program[0])
    if kind in ("python", "lua") and not chosen[kind]:
        say(f"these are the interpreter's own functions; --{kind} tells the"
            " script's lines")


def show(name):
    """Opens it, if there is something to open it with."""
    opener = shutil.which("xdg-open")
    if opener is None:
        say(f"there is no xdg-open; open {name} with a browser")
        return
    subprocess.Popen([opener, os.path.abspath(name)], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)


def is_whole(name):
    """False: its end is missing, as on a full disk."""
    try:
        with open(name, "rb") as file:
            data = file.read()
        if name.endswith(".pb.gz"):
            return gzip.decompress(data) != b""
    except (OSError, EOFError, zlib.error):
        return False
    if name.endswith(".txt"):
        return data[-1:] in (b"", b"\n")  # nothing live: it is empty
    return data.endswith(b"</html>\n" if name.endswith(".html") else b"}\n")


def say_where(path):
    said = os.path.relpath(path)
    said = path if said.startswith("../..") else said
    say(f"the profile is {said} ({words.size(os.stat(path).st_size)})")


def report(path, pid, status, before, chosen, kept):
    """Says where it is; the file, or None. `kept`: what was told meanwhile."""
    pattern = template(path)
    now = files(pattern)
    others = sorted((name for name, when in now.items()
                     if before.get(name) != when), key=lambda name: now[name])
    own = pattern.replace("%p", str(pid))
    found = others[-1] if others else None
    if own in others:
        others.remove(own)
        found = path.replace("%p", str(pid))
        os.replace(own, found)
        if not is_whole(found):
            say(f"the profile {os.path.relpath(found)} could not be written"
                " whole; is there space on its disk?")
            return None
        say_where(found)
        if found.endswith(".txt") and os.stat(found).st_size == 0:
            say("it is empty: the program holds little, or had freed it when it"
                " was written; --rate 4K tells more, and .html what was"
                " allocated")
    elif kept is not None:
        found = path.replace("%p", str(pid))
        profiles.write("profile: --output", kept, found)
        say(f"{how_it_ended(status)}: this is what it held a moment before")
        say_where(found)
    else:
        say(f"the program has no profile: {why_none(status, chosen)}")
    if others:
        names = list(dict.fromkeys((others[0], others[-1])))
        say(f"processes that it started: {len(others)}, in"
            f" {' to '.join(map(os.path.relpath, names))}")
    return found


# ---- a process that runs ------------------------------------------------------

def shown(profile):
    """Who holds the most, for who has no browser."""
    whole = profile.total()
    if not whole:
        say("there is no sample of what it holds: it allocated little, or has"
            " freed it; -s for longer, --rate 4K for more samples")
        return
    print(f"{words.size(whole)} allocated in {profile.seconds:.1f} s and not"
          " freed:" if profile.seconds else f"{words.size(whole)} in use:")
    print(words.table([[f"{words.size(value)}", f"{100 * value / whole:.0f} %",
                        label] for value, label in
                       profile.leaves()[:TOP]], left=0))


def why_no_page(pid):
    if processes.resident_of(pid) is None:
        return f"process {pid} has ended"
    if share.is_on_hakmem(pid):
        return (f"process {pid} is on HAKMEM but shows no statistics, by which"
                " it is asked: it is small or has slept since its start, or"
                " HAKMEM_SHARE_STATS=0")
    return (f"process {pid} is not on HAKMEM: start it by `hakmem run --"
            " program` (or by its adapter)")


def begin(watch):
    """Asks for samples; Failed says why there are none."""
    pid = watch.pid
    share.pages_of(pid, ANSWER)
    if not watch.find():
        if any(isinstance(one, live.Busy) for one in watch.problems):
            why = f"another command is profiling process {pid}"
        elif watch.problems and isinstance(watch.problems[0], live.Older):
            why = (f"process {pid} is on HAKMEM {watch.problems[0]}, which can't"
                   " be asked: restart it with this version, or start it by"
                   " `hakmem profile -- program`")
        else:
            why = why_no_page(pid)
        raise Failed(f"profile: {why}")
    if not watch.answered(ANSWER):
        if processes.resident_of(pid) is None:
            raise Failed(f"profile: process {pid} has ended")
        raise Failed(f"profile: process {pid} has not answered for {ANSWER:.0f}"
                     " s: it sleeps, or allocates nothing; try again when it"
                     " works")
    failed = [asker for asker in watch.askers if asker.state() == live.FAILED]
    if len(failed) == len(watch.askers):
        raise Failed(f"profile: process {pid} can't sample:"
                     f" {os.strerror(failed[0].error())}")


def pass_time(watch, duration):
    """Until it is over, the process has ended, or Ctrl-C."""
    until = time.monotonic() + duration
    try:
        while time.monotonic() < until:
            watch.look()
            if processes.resident_of(watch.pid) is None:
                return
            time.sleep(min(0.1, max(0.0, until - time.monotonic())))
    except KeyboardInterrupt:
        pass


def sampled(pid, chosen):
    """The Profile of a process."""
    watch = live.Watch(pid, chosen["rate"] or RATE)
    command_line = processes.command_of(pid)
    try:
        begin(watch)
        say(f"process {pid} samples for {chosen['seconds'] or SECONDS:g} s;"
            " Ctrl-C ends it sooner")
        pass_time(watch, chosen["seconds"] or SECONDS)
        data = watch.finish()
        errors = [asker.error() for asker in watch.askers if asker.error()]
        ended = processes.resident_of(pid) is None
    finally:
        watch.close()
    if not data:
        if ended:
            raise Failed(f"profile: process {pid} has ended meanwhile")
        why = os.strerror(errors[0]) if errors else "it does not answer"
        raise Failed(f"profile: process {pid} could not tell what it sampled:"
                     f" {why}")
    if ended:
        say(f"process {pid} has ended; this is what it held a moment before")
    elif errors:
        say(f"process {pid} could not tell the last of what it sampled"
            f" ({os.strerror(errors[0])}): this is of an earlier moment")
    try:
        return live.profile_of(pid, command_line, data, watch.code)
    except ValueError as error:
        raise Failed(f"profile: what process {pid} has told can't be read:"
                     f" {error}") from None


def of_process(text, chosen):
    pid = share.need_pid("profile", text)
    for key in ("python", "lua", "library"):
        if chosen[key]:
            raise Failed(f"profile: --{key} is for a program that is started;"
                         " a process tells lines if it is on its adapter", 2)
    path = os.path.abspath(chosen["output"]).replace("%p", str(pid))
    words.may_write("profile: --output", path)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    profile = sampled(pid, chosen)
    profiles.write("profile: --output", profile, path)
    say_where(path)
    shown(profile)
    if chosen["open"]:
        show(path)
    return 0


# ---- a program that is started --------------------------------------------------

def wait_and_watch(running, chosen):
    """(its status, what it has told until then as a Profile or None)."""
    watch = live.Watch(running.pid, chosen["rate"] or RATE)
    command_line = processes.command_of(running.pid)
    data = []
    try:
        while True:
            try:
                status = running.wait(WATCH_EVERY)
                break
            except subprocess.TimeoutExpired:
                watch.find()
                watch.look()
        data = watch.kept()
    finally:
        watch.close()
    try:
        kept = live.profile_of(running.pid, command_line, data,
                               watch.code) if data else None
    except ValueError:
        kept = None
    return status if status >= 0 else 128 - status, kept


def of_program(program, chosen):
    if chosen["seconds"] is not None:
        raise Failed("profile: --seconds is for a process that runs; a program"
                     " is profiled until its end", 2)
    path = os.path.abspath(chosen["output"])
    file, program_words, env = command(chosen, program, template(path))
    clear(path)
    before = files(template(path))
    running = child.start(program_words, env, file)
    status, kept = wait_and_watch(running, chosen)
    name = report(path, running.pid, status, before, chosen, kept)
    if name is not None:
        hint(program, chosen)
        if chosen["open"]:
            show(name)
    return status


def main(arguments):
    parsed = parse(HELP, arguments)
    if parsed is None:
        return 0
    chosen, program = parsed
    if not program:
        raise Failed("profile: it takes a process's number or a program;"
                     " `hakmem profile --help` has examples", 2)
    if program[0].isascii() and program[0].isdigit():
        if len(program) > 1:
            raise Failed("profile: it takes one process's number", 2)
        return of_process(program[0], chosen)
    return of_program(program, chosen)
