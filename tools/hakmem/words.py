"""Sizes, numbers and tables as people read them; files written whole or not."""
import os
import stat

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
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                os.unlink(path)
        except OSError:
            pass
        raise Failed(f"{option}={path}: can't be written:"
                     f" {_why(error)}") from None
