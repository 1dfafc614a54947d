"""python -m hakmem_py --autostart on|off: a .pth file in this environment.

Python's site module runs the file's only line at every start, so every
program of the environment starts on HAKMEM. The line does nothing once
hakmem_py is gone.
"""
import os
import subprocess
import sys
import sysconfig

NAME = "hakmem_py-autostart.pth"
LINE = ("import sys; exec('try: import hakmem_py\\n"
        "except ModuleNotFoundError: pass')\n")
CHECK = ("import sys; m = sys.modules.get('hakmem_py');"
         " print('absent' if m is None else m.reason or 'on')")


class Failed(Exception):
    """It could not be done; the text is for the user."""


def path():
    """The file."""
    return os.path.join(sysconfig.get_path("purelib"), NAME)


def _text():
    """The file's content: where the package is, if that is elsewhere."""
    package = os.path.dirname(os.path.abspath(__file__))
    parent = os.path.dirname(package)
    places = {os.path.realpath(sysconfig.get_path(name))
              for name in ("purelib", "platlib")}
    return LINE if os.path.realpath(parent) in places else f"{parent}\n{LINE}"


def _said_by_a_new_process():
    env = {name: value for name, value in os.environ.items()
           if name not in ("PYTHONPATH", "PYTHONSAFEPATH", "HAKMEM_PYTHON")}
    done = subprocess.run([sys.executable, "-c", CHECK], env=env, check=False,
                          text=True, capture_output=True, cwd=os.sep)
    return done.stdout.strip() or done.stderr.strip()[-200:]


def on():
    """Writes the file and looks whether it works."""
    where = path()
    try:
        with open(where, "w", encoding="utf-8") as file:
            file.write(_text())
    except OSError as error:
        raise Failed(f"can't write {where}: {error.strerror}; use a virtual"
                     " environment of yours (python -m venv), or do it as the"
                     " owner of that directory") from None
    said = _said_by_a_new_process()
    if said != "on":
        os.unlink(where)
        raise Failed(f"{where} has no effect ({said}); it was removed again")
    print(f"autostart is on for {sys.executable}: {where}")


def off():
    """Removes the file."""
    where = path()
    try:
        os.unlink(where)
    except FileNotFoundError:
        print(f"autostart was not on for {sys.executable}")
    except OSError as error:
        raise Failed(f"can't remove {where}: {error.strerror}; do it as the"
                     " owner of that directory") from None
    else:
        print(f"autostart is off for {sys.executable}")
