"""An interpreter's command line, changed so that its adapter serves it.

    python3 script.py   becomes   python3 -m hakmem_py script.py
    lua5.4 script.lua   becomes   lua5.4 -lhakmem script.lua
    nginx               becomes   nginx -g 'load_module .../ngx_http_hakmem_module.so;'

Adapters that were built and not installed are found beside the library.
"""
import os
import re
import subprocess

from hakmem import places, programs
from hakmem.options import Failed

NGINX_MODULE = "ngx_http_hakmem_module.so"
NAMES = (("python", r"python(3(\.\d+)?)?t?$"), ("lua", r"lua(5\.\d)?$"),
         ("nginx", r"nginx$"))
STOCK = {"python": ["python3"], "lua": ["lua5.4"], "nginx": ["nginx"]}


def kind_of(name):
    """python, lua, nginx or None, by a program's name."""
    base = os.path.basename(name)
    return next((kind for kind, pattern in NAMES if re.match(pattern, base)),
                None)


def _says(words, env):
    """What a command prints, or None if it fails."""
    try:
        done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL,
                              capture_output=True, check=False)
    except OSError:
        return None
    text = (done.stdout + done.stderr).decode(errors="replace")
    return text if done.returncode == 0 else None


def _before(env, name, folder, between):
    """Puts a folder in front of a list of folders."""
    rest = env.get(name)
    env[name] = folder + between + (rest if rest else "")


# ---- Python -----------------------------------------------------------------

def _flags(words):
    """How many of an interpreter's words are its own options."""
    at = 0
    while at < len(words) and words[at].startswith("-") \
            and words[at] not in ("-", "-c", "-m"):
        # These have their value as a word of its own.
        at += 2 if words[at] in ("-W", "-X", "--check-hash-based-pycs") else 1
    return min(at, len(words))


def _python(words, env):
    python, rest = words[0], words[1:]
    flags = _flags(rest)
    if flags == len(rest):
        raise Failed("--python needs a script, -m module or -c code", 2)
    find = [python, "-c", "import hakmem_py, sys; sys.exit(0)"]
    if _says(find, env) is None:
        version = _says([python, "-c", "import platform;"
                         " print(platform.python_version())"], env)
        built = version and places.find(os.path.join(
            f"python-{version.strip()}", "hakmem_py", "__init__.py"))
        if not built:
            raise Failed(f"{python} has no module hakmem_py: `make wheel`,"
                         " then pip install the wheel; or leave out"
                         " --python, to preload the library", 125)
        folder = os.path.dirname(os.path.dirname(built))
        _before(env, "PYTHONPATH", folder, os.pathsep)
        env["PYTHONPATH"] = env["PYTHONPATH"].rstrip(os.pathsep)
    verbose = ["-v"] if env.pop("HAKMEM_SHOW_STATS", None) else []
    return [python, *rest[:flags], "-m", "hakmem_py", *verbose, *rest[flags:]]


# ---- Lua --------------------------------------------------------------------

def _lua(words, env):
    lua, rest = words[0], words[1:]
    built = places.find(os.path.join("lua", "hakmem.so"))
    if _says([lua, "-lhakmem", "-e", ""], env) is None:
        installed = places.find(os.path.join("lua", "5.4", "hakmem.so"))
        module = built or installed
        if module is None:
            raise Failed(f"{lua} has no module hakmem: `make` builds it where"
                         " lua.h is, `make install` installs it; or leave out"
                         " --lua, to preload the library", 125)
        name = "LUA_CPATH_5_4" if "LUA_CPATH_5_4" in env else "LUA_CPATH"
        folder = os.path.join(os.path.dirname(module), "?.so")
        env[name] = f"{folder};{env.get(name) or ';'}"
        if _says([lua, "-lhakmem", "-e", ""], env) is None:
            raise Failed(f"{lua} can't load {module}: it is for Lua 5.4", 125)
    return [lua, "-lhakmem", *rest]


# ---- nginx ------------------------------------------------------------------

def _nginx_module(nginx, env):
    said = _says([nginx, "-V"], env) or ""
    match = re.search(r"--modules-path=(\S+)", said)
    installed = match and os.path.join(match[1], NGINX_MODULE)
    if installed and os.path.isfile(installed):
        return installed
    return places.find(os.path.join("nginx", "objs", NGINX_MODULE))


def _nginx(words, env):
    nginx, rest = words[0], words[1:]
    said = _says([nginx, "-T", *[word for word in rest if word != "-T"]], env)
    if said is not None and re.search(
            rf"^\s*load_module\s[^;\n]*{re.escape(NGINX_MODULE)}", said, re.M):
        return words  # its configuration does it
    module = _nginx_module(nginx, env)
    if module is None:
        raise Failed(f"there is no {NGINX_MODULE}: `make nginx` builds it,"
                     " `make install-nginx` installs it", 125)
    more = f"load_module {module};"
    if "-g" in rest[:-1]:
        at = rest.index("-g") + 1
        rest = [*rest[:at], f"{more} {rest[at]}", *rest[at + 1:]]
    else:
        rest = [*rest, "-g", more]
    return [nginx, *rest]


# ---- all --------------------------------------------------------------------

def command(kind, words, env):
    """The words to execute; may change env. `kind`: None: by the name."""
    named = kind_of(words[0])
    if kind is None:
        kind = named
        if kind is None:
            raise Failed(f"{words[0]}: there is no adapter for it, only for"
                         " python, lua and nginx; leave out --adapter, to"
                         " preload the library", 125)
    elif named != kind:
        words = [*STOCK[kind], *words]
    programs.find(words[0])
    return {"python": _python, "lua": _lua, "nginx": _nginx}[kind](words, env)
