"""A profile, and its forms: what core/profile/ writes, written by the command.

The values of a stack are live bytes, live blocks, allocated bytes and blocks.
"""
import json
import os
import struct
import zlib

import hakmem
from hakmem import words
from hakmem.options import Failed

VALUES = ("live bytes", "live blocks", "allocated bytes", "allocated blocks")


class Profile:
    """Stacks with values; of a process, or of several copies of HAKMEM in it."""

    def __init__(self, pid, command, rate):
        self.pid, self.command, self.rate = pid, command, rate
        self.seconds = 0.0  # of sampling; 0: not known
        self.frames = [None]  # (name, file, line, counter, module); 1 is the first
        self.numbers = {}
        self.stacks = {}  # tuple of frames, root first: [values]
        self.modules = []

    def frame(self, name, file=None, line=0, counter=0, module=None):
        """Its number."""
        key = (name, file, line, counter, module)
        if key not in self.numbers:
            self.numbers[key] = len(self.frames)
            self.frames.append(key)
        return self.numbers[key]

    def add(self, stack, values):
        sums = self.stacks.setdefault(tuple(stack), [0] * 4)
        for i, value in enumerate(values):
            sums[i] += value

    def label(self, number):
        name, file, line, _, _ = self.frames[number]
        if file and line:
            return f"{name} ({file}:{line})"
        return f"{name} ({file})" if file else name

    def total(self, which=0):
        return sum(values[which] for values in self.stacks.values())

    def program(self):
        return os.path.basename(self.command.split(" ")[0]) or "?"

    def leaves(self, which=0):
        """[(value, label)] by what asked for it, the most first."""
        sums = {}
        for stack, values in self.stacks.items():
            label = self.label(stack[-1])
            sums[label] = sums.get(label, 0) + values[which]
        return sorted(((value, label) for label, value in sums.items()
                       if value), reverse=True)


def rate_words(rate):
    """As the core says it."""
    for shift, unit in ((20, "MB"), (10, "KB")):
        if rate and rate % (1 << shift) == 0:
            return f"{rate >> shift} {unit}"
    return f"{rate} byte{'' if rate == 1 else 's'}"


# ---- forms ----------------------------------------------------------------------

def collapsed(profile):
    sums = {}
    for stack, values in profile.stacks.items():
        line = ";".join("".join(":" if c in ";\n\r" else c
                                for c in profile.label(frame))
                        for frame in stack)
        sums[line] = sums.get(line, 0) + values[0]
    return "".join(f"{line} {value}\n" for line, value in sums.items()
                   if value).encode()


def speedscope(profile):
    def one(which):
        rows = [(list(stack), values[which])
                for stack, values in profile.stacks.items() if values[which]]
        return {"type": "sampled", "name": VALUES[which],
                "unit": "none" if which % 2 else "bytes", "startValue": 0,
                "endValue": sum(value for _, value in rows),
                "samples": [stack for stack, _ in rows],
                "weights": [value for _, value in rows]}

    frames = [{"name": "[root]"}] + [{"name": profile.label(i)} for i in
                                     range(1, len(profile.frames))]
    return (json.dumps({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": f"HAKMEM {hakmem.VERSION}", "name": profile.program(),
        "activeProfileIndex": 0, "profiles": [one(i) for i in range(4)],
        "shared": {"frames": frames}}) + "\n").encode()


def template():
    """The page without its data: beside this file, or in the core's sources."""
    here = os.path.dirname(os.path.abspath(__file__))
    for path in (os.path.join(here, "page.html"), os.path.join(
            here, "..", "..", "core", "profile", "page.html")):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            pass
    raise Failed("profile: page.html is not beside its modules; run"
                       " `make install` again, or take -o FILE.pb.gz")


def page(profile):
    about = f"Process {profile.pid}, "
    if profile.seconds:
        about += (f"what it allocated in {profile.seconds:.1f} s and has not"
                  " freed, ")
    about += f"one sample in {rate_words(profile.rate)}:"
    data = {"about": about, "program": profile.program(), "value": 0,
            "showGrown": False, "grown": None, "all": {
                "stacks": [[list(stack), values] for stack, values in
                           profile.stacks.items()],
                "frames": [""] + [profile.label(i) for i in
                                  range(1, len(profile.frames))]}}
    # '<' too: a page may say what it likes.
    text = json.dumps(data).replace("<", "\\u003c")
    return template().replace("/*DATA*/", f"const DATA = {text};", 1).encode()


# ---- pprof ------------------------------------------------------------------------

def _varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _number(field, n):
    return _varint(field << 3) + _varint(n) if n else b""


def _bytes(field, data):
    return _varint(field << 3 | 2) + _varint(len(data)) + data


class Strings:
    """Each text once; 0 is empty."""

    def __init__(self):
        self.numbers = {"": 0}

    def __call__(self, text):
        return self.numbers.setdefault(text or "", len(self.numbers))


def _pprof_frames(profile, string):
    """Locations and functions, one of each for a frame."""
    numbers = {module.path: i + 1 for i, module in enumerate(profile.modules)}
    for i in range(1, len(profile.frames)):
        name, file, line, counter, module = profile.frames[i]
        yield _bytes(4, _number(1, i) + _number(2, numbers.get(module, 0)) +
                     _number(3, counter) +
                     _bytes(4, _number(1, i) + _number(2, line)))
        # With a system name pprof would cut <module> and the like off.
        yield _bytes(5, _number(1, i) + _number(2, string(name)) + _number(
            3, string(name) if counter else 0) + _number(4, string(file)))


def pprof(profile):
    string = Strings()
    out = []
    for i, kind in enumerate(("alloc_objects", "alloc_space", "inuse_objects",
                              "inuse_space")):
        out.append(_bytes(1, _number(1, string(kind)) + _number(
            2, string("bytes" if i % 2 else "count"))))
    for stack, (live, blocks, made, made_blocks) in profile.stacks.items():
        out.append(_bytes(2, b"".join(
            [_varint(1 << 3) + _varint(frame) for frame in reversed(stack)] +
            [_varint(2 << 3) + _varint(value)
             for value in (made_blocks, made, blocks, live)])))
    out += _pprof_frames(profile, string)
    for i, module in enumerate(profile.modules):
        out.append(_bytes(3, _number(1, i + 1) + _number(2, module.first) +
                          _number(3, module.last) +
                          _number(5, string(module.path)) +
                          _number(6, string(module.build_id)) + _number(7, 1)))
    out.append(_bytes(11, _number(1, string("space")) +
                      _number(2, string("bytes"))))
    out.append(_number(12, max(profile.rate, 1)))
    out.append(_number(14, string("inuse_space")))
    out += [_bytes(6, text.encode()) for text in string.numbers]
    return _gzip(b"".join(out))


def _gzip(data):
    """Without a time, so that the same profile is the same file."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packer.compress(data) +
            packer.flush() + struct.pack("<II", zlib.crc32(data),
                                         len(data) & 0xffffffff))


FORMS = {".html": page, ".pb.gz": pprof, ".txt": collapsed,
         ".json": speedscope}


def write(option, profile, path):
    """In the form that the name says; the whole file, or Failed."""
    make = next(make for ending, make in FORMS.items()
                if path.endswith(ending))
    words.write_bytes(option, path, make(profile))
