"""hakmem run: a program on HAKMEM, which takes this process's place."""
import os
import re
import signal

from hakmem import adapters, places, programs
from hakmem.options import Failed, Help, Option, parse, whole

FORMS = {"text": "1", "json": "json", "prometheus": "prometheus"}


def setting(text):
    """NAME=VALUE of one of our variables."""
    name, equals, _ = text.partition("=")
    if not equals or not name.startswith("HAKMEM_"):
        raise ValueError("must be a variable of HAKMEM's and its value,"
                         " HAKMEM_NAME=VALUE; man 7 hakmem lists them")
    return text


def limit(text):
    """A size or a share: who wants a limit is not served by a run without one."""
    match = re.fullmatch(r"([0-9]+)(%|[KMGT]?)(?:(?<=[KMGT])I?B)?",
                         text.upper())
    if match is None:
        raise ValueError("must be a size in bytes (a number, then K, M, G or"
                         " T) or a percentage (80%)")
    number = int(match[1])
    if match[2] == "%":
        good = 1 <= number <= 100
    else:
        number <<= 10 * " KMGT".index(match[2] or " ")
        good = number == 0 or 1 << 20 <= number <= 1 << 40
    if not good:
        raise ValueError("must be from 1M to 1T, from 1% to 100%, or 0 (none)")
    return text


HELP = Help(
    "run", "[option...] [--] program [argument...]", """\
Runs a program with its memory served by HAKMEM: libhakmem.so is preloaded, and
the program takes the place of this command, so signals and its exit status are
its own. Programs that it starts are on HAKMEM too.""", (
        Option("--limit", "SIZE", "the most memory it may hold: bytes with K, M"
               " or G, or a percentage of the container's limit, as 80%",
               check=limit),
        Option("--stats", "FORM", "print statistics to standard error at its"
               " exit: text (also without FORM), json, prometheus",
               words=tuple(FORMS), alone="text"),
        Option("--purge-delay", "MS", "milliseconds that free memory is kept"
               " before it goes back to the system",
               check=whole(0, 3600000, "milliseconds")),
        Option("--no-thread", None, "no thread that gives memory back while"
               " the program sleeps"),
        Option("--huge", "WHEN", "huge pages: auto, always, never",
               words=("auto", "always", "never")),
        Option("--set", "NAME=VALUE", "any other of HAKMEM's variables; may be"
               " given several times", check=setting, many=True),
        Option("--adapter", None, "put python, lua or nginx on HAKMEM by its"
               " adapter instead of preloading"),
        Option("--python", None, "the same, and the program is Python or a"
               " script of its"),
        Option("--lua", None, "the same, and the program is Lua or a script"
               " of its"),
        Option("--nginx", None, "the same, and the program is nginx"),
        Option("--library", "FILE", "another libhakmem.so to preload"),
        Option("-n --dry-run", None, "print the command instead of running"
               " it"),
    ), """
  hakmem run --stats -- ls -l
  hakmem run --limit 500M -- ./server --port 8080
  hakmem run --python -- python3 script.py""")


def environment(chosen):
    """Our settings, on top of what the user has."""
    env = dict(os.environ)
    for key, name in (("limit", "HAKMEM_LIMIT"),
                      ("purge_delay", "HAKMEM_PURGE_DELAY"),
                      ("huge", "HAKMEM_HUGE_PAGES")):
        if chosen[key] is not None:
            env[name] = str(chosen[key])
    if chosen["stats"] is not None:
        env["HAKMEM_SHOW_STATS"] = FORMS[chosen["stats"]]
    if chosen["no_thread"]:
        env["HAKMEM_BACKGROUND_THREAD"] = "0"
    for text in chosen["set"]:
        name, _, value = text.partition("=")
        env[name] = value
    return env


def command(chosen, program):
    """(file, words, environment) of what is to be executed."""
    env = environment(chosen)
    kinds = [kind for kind in ("python", "lua", "nginx") if chosen[kind]]
    if len(kinds) > 1:
        raise Failed(f"run: --{kinds[0]} and --{kinds[1]}: only one of them",
                     2)
    if kinds or chosen["adapter"]:
        words = adapters.command(kinds[0] if kinds else None, program, env)
        return programs.find(words[0]), words, env
    file = programs.need_preload(program[0])
    programs.preload(env, places.library(chosen["library"]))
    return file, program, env


def shown(words, env):
    """The command as one would type it."""
    import shlex
    more = [f"{name}={shlex.quote(value)}" for name, value in env.items()
            if os.environ.get(name) != value]
    return " ".join([*more, *map(shlex.quote, words)])


def execute(file, words, env):
    """Does not return: the program goes on as this process."""
    # Python ignores these; a program expects to find them as they usually are.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(file, words, env)
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise Failed(f"{words[0]}: can't be executed: {error.strerror}",
                     status) from None


def main(arguments):
    parsed = parse(HELP, arguments)
    if parsed is None:
        return 0
    chosen, program = parsed
    if not program:
        raise Failed("run: no program is given; `hakmem run --help` has"
                     " examples", 2)
    file, words, env = command(chosen, program)
    if chosen["dry_run"]:
        print(shown(words, env))
        return 0
    return execute(file, words, env)
