"""Sizes, numbers and tables as people read them; files written whole or not."""
import os
import stat
import sys

from hakmem.options import Failed

MB = 1 << 20


def size(n):
    """1258291 as "1.2 MB"; a KB has 1024 bytes."""
    sign, n = ("-", -n) if n < 0 else ("", n)
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1024:
            break
        n /= 1024
    else:
        unit = "TB"
    if unit == "B":
        return f"{sign}{int(n)} B"
    return f"{sign}{n:.1f} {unit}" if n < 100 else f"{sign}{n:.0f} {unit}"


def number(n):
    """1234567 as "1,234,567"."""
    return f"{n:,.0f}"


def table(rows, left=1):
    """Rows of texts as lines; the first `left` columns begin at the left."""
    widths = [max(len(row[i]) for row in rows if i < len(row))
              for i in range(max(map(len, rows)))]
    return "\n".join("  ".join(
        cell.ljust(widths[i]) if i < left else cell.rjust(widths[i])
        for i, cell in enumerate(row)).rstrip() for row in rows)


class Progress:
    """One line on a terminal's standard error that is written over and goes."""

    def __init__(self):
        self.shown = 0
        self.stream = sys.stderr if sys.stderr.isatty() else None

    def say(self, text):
        if self.stream is not None:
            print(f"\r{text.ljust(self.shown)}", end="", file=self.stream,
                  flush=True)
            self.shown = len(text)

    def end(self):
        if self.stream is not None and self.shown:
            print(f"\r{' ' * self.shown}\r", end="", file=self.stream,
                  flush=True)
            self.shown = 0


def _why(error):
    hints = {28: "; free some space or name another place",
             13: "; name a place where you may write", 2:
             "; there is no such folder"}
    return f"{error.strerror}{hints.get(error.errno, '')}"


def may_write(option, path):
    """Failed if the file could not be made; nothing is changed."""
    try:
        existed = os.path.lexists(path)
        with open(path, "ab"):
            pass
        if not existed:
            os.unlink(path)
    except OSError as error:
        raise Failed(f"{option}={path}: can't be written:"
                     f" {_why(error)}") from None


def write(option, path, text):
    """The whole file, or none of it and Failed."""
    write_bytes(option, path, text.encode())


def write_bytes(option, path, data):
    """The same of bytes; what had the name stays until all is there."""
    path = os.path.realpath(path)
    plain = not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)
    made = f"{path}.{os.getpid()}" if plain else path
    try:
        with open(made, "wb") as file:
            file.write(data)
        if plain:
            os.replace(made, path)
    except OSError as error:
        if plain:
            try:
                os.unlink(made)
            except OSError:
                pass
        raise Failed(f"{option}={path}: can't be written:"
                     f" {_why(error)}") from None
