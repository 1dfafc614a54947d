"""What a program is, and whether LD_PRELOAD reaches it.

The loader that starts a program with shared libraries reads LD_PRELOAD; where
there is no loader (a static program), another one (32 bits, another C library) or one
that must not listen (set-user-ID), preloading does nothing, and saying so is
better than figures that show no difference.
"""
import collections
import os
import platform
import stat
import struct

from hakmem.options import Failed

MACHINES = {"x86_64": 62, "aarch64": 183}
INTERPRETER, DYNAMIC = 3, 2

Program = collections.namedtuple("Program", "path reason")


def find(name, path=None):
    """The file that a shell would run; Failed with status 127 or 126."""
    if "/" in name:
        candidates = [name]
    else:
        folders = (os.environ.get("PATH", os.defpath) if path is None
                   else path).split(os.pathsep)
        candidates = [os.path.join(folder or ".", name) for folder in folders]
    there = [file for file in candidates if os.path.exists(file)]
    for file in there:
        if not os.path.isdir(file) and os.access(file, os.X_OK):
            return file
    if not there:
        raise Failed(f"{name}: there is no such program"
                     f"{'' if '/' in name else ' in PATH'}", 127)
    if os.path.isdir(there[0]):
        raise Failed(f"{name}: is a folder, not a program", 126)
    raise Failed(f"{name}: may not be executed (chmod +x {there[0]}?)", 126)


def _headers(head):
    """The program headers' types and places: (type, offset, size)."""
    order = "<" if head[5] == 1 else ">"
    at, = struct.unpack_from(order + "Q", head, 32)
    size, count = struct.unpack_from(order + "HH", head, 54)
    for i in range(count):
        start = at + i * size
        if start + 56 > len(head):
            return
        kind, _, offset, _, _, length = struct.unpack_from(
            order + "IIQQQQ", head, start)
        yield kind, offset, length


def _elf_reason(head):
    """Why the loader of an ELF file does not listen, or None."""
    if head[4] == 1:
        return "is a 32-bit program"
    machine, = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    if machine != MACHINES.get(platform.machine(), machine):
        return "is for another kind of processor"
    kinds = {kind: head[offset:offset + length]
             for kind, offset, length in _headers(head)}
    if INTERPRETER not in kinds:
        return "is statically linked"
    if b"ld-musl" in kinds[INTERPRETER]:
        return "uses another C library (musl)"
    return None


def _runs_as_other(file):
    """Whether the kernel starts it with rights that the user has not."""
    status = os.stat(file)
    if status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid():
        return "is set-user-ID"
    if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP \
            and status.st_gid != os.getegid():
        return "is set-group-ID"
    try:
        if os.getuid() != 0 and os.getxattr(file, "security.capability"):
            return "has capabilities of its own"
    except OSError:
        pass
    return None


def _interpreter_of(head):
    """The program that a script's first line names, through env."""
    words = head[2:].split(b"\n", 1)[0].decode(errors="replace").split()
    if words and os.path.basename(words[0]) == "env":
        rest = [word for word in words[1:]
                if not word.startswith("-") and "=" not in word]
        return rest[0] if rest else None
    return words[0] if words else None


def _reason(file, depth=4):
    try:
        with open(file, "rb") as opened:
            head = opened.read(65536)
    except OSError:
        return None  # it may be executed and not read: nothing is known
    if head[:2] == b"#!" and depth > 0:
        name = _interpreter_of(head)
        if name is None:
            return None
        try:
            return _reason(find(name), depth - 1)
        except Failed:
            return None  # exec says it better
    if head[:4] == b"\x7fELF" and len(head) >= 64:
        return _runs_as_other(file) or _elf_reason(head)
    return None


def look(name):
    """A Program: where it is, and why preloading has no effect (None: it has)."""
    file = find(name)
    return Program(file, _reason(file))


def need_preload(name):
    """The file; Failed if preloading has no effect on it."""
    program = look(name)
    if program.reason is not None:
        raise Failed(f"{program.path} {program.reason}: preloading a library"
                     " has no effect on it; run it without hakmem", 125)
    return program.path


def preload(env, library):
    """Puts the library before what the variable has; once."""
    if any(c in library for c in " :"):
        raise Failed(f"{library}: a path with a blank or a colon can't stand"
                     " in LD_PRELOAD; use a symbolic link without", 125)
    others = [path for path in env.get("LD_PRELOAD", "").replace(
        ":", " ").split() if os.path.basename(path).split(".so")[0] !=
        os.path.basename(library).split(".so")[0]]
    env["LD_PRELOAD"] = " ".join([library, *others])
