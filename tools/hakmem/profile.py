"""hakmem profile: who holds a program's memory, as a page with a flame graph.

The core or an adapter in the program samples and writes the profile when it ends
(docs/PROFILE.md): this says so in the environment, waits and looks for the files.
"""
import glob
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib

from hakmem import adapters, child, places, programs, share, words
from hakmem.options import Failed, Help, Option, parse

ENDINGS = (".html", ".pb.gz", ".txt", ".json")
DEFAULT = "hakmem-profile.%p.html"
MOST_RATE = 1 << 30
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
    "profile", "[option...] [--] program [argument...]", """\
Runs a program on HAKMEM and writes at its end which functions, or lines of
Python or Lua, hold its memory and have allocated: a page with a flame graph.
It samples, which costs some 1 % of time. The program's signals and its exit
status are its own.""", (
        Option("-o --output", "FILE", "the profile; its ending is its form:"
               " .html, .pb.gz (pprof), .txt (collapsed stacks), .json"
               " (speedscope). %p in the name is the process's number; processes"
               " that it starts have it before the ending; default:"
               " hakmem-profile.PID.html", check=output, initial=DEFAULT),
        Option("--rate", "SIZE", "one sample in so many bytes, with K, M or G;"
               " default: 512K", check=rate),
        Option("--python", None, "by lines of Python, by the adapter hakmem_py;"
               " the program is Python or a script of its"),
        Option("--lua", None, "by lines of Lua, by the module hakmem; the"
               " program is Lua or a script of its"),
        Option("--open", None, "open it with xdg-open"),
        Option("--library", "FILE", "another libhakmem.so to preload"),
    ), """
  hakmem profile -- ./server --requests 1000
  hakmem profile --python --open -- script.py
  hakmem profile -o heap.pb.gz -- ./program; go tool pprof -top heap.pb.gz""")


def say(text):
    print(f"hakmem profile: {text}", file=sys.stderr, flush=True)


def refuse_pid(text):
    """A process that runs: why not, and what to do."""
    share.need_pid("profile", text)
    raise Failed(f"profile: process {text} can't be profiled from outside:"
                 " start it with `hakmem profile -- program` or"
                 " HAKMEM_PROFILE=FILE, or have it call hak_profile_start and"
                 " hak_profile_write", 2)


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

def why_none(status, chosen):
    for number in signal.Signals:
        if status == 128 + number:
            return (f"{number.name} ended the program, and it is written when"
                    " it exits; hak_profile_write does it at any time")
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


def report(path, pid, status, before, chosen):
    """Says where it is; the file, or None."""
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
        say(f"the profile is {os.path.relpath(found)}"
            f" ({words.size(os.stat(found).st_size)})")
        if found.endswith(".txt") and os.stat(found).st_size == 0:
            say("it is empty: the program holds little, or had freed it when it"
                " was written; --rate 4K tells more, and .html what was"
                " allocated")
    else:
        say(f"the program has no profile: {why_none(status, chosen)}")
    if others:
        names = list(dict.fromkeys((others[0], others[-1])))
        say(f"processes that it started: {len(others)}, in"
            f" {' to '.join(map(os.path.relpath, names))}")
    return found


def main(arguments):
    parsed = parse(HELP, arguments)
    if parsed is None:
        return 0
    chosen, program = parsed
    if not program:
        raise Failed("profile: no program is given; `hakmem profile --help`"
                     " has examples", 2)
    if program[0].isascii() and program[0].isdigit():
        refuse_pid(program[0])
    path = os.path.abspath(chosen["output"])
    file, program_words, env = command(chosen, program, template(path))
    clear(path)
    before = files(template(path))
    running = child.start(program_words, env, file)
    status = child.status_of(running)
    name = report(path, running.pid, status, before, chosen)
    if name is not None:
        hint(program, chosen)
        if chosen["open"]:
            show(name)
    return status
