"""Which function of a process an address is in.

By its mappings and by the symbol tables of the files that are mapped: what
core/profile/symbols.c does inside of a process, from outside.
"""
import bisect
import collections
import ctypes
import mmap
import os
import re
import struct

Symbol = collections.namedtuple("Symbol", "name module")
# An object: where it begins and ends in memory, its path, its build id in hex.
Module = collections.namedtuple("Module", "first last path build_id")
Mapping = collections.namedtuple("Mapping", "first last offset path")

LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+ *(.*)$")
OLDER_MOST = 1000
LOAD, NOTE, SYMTAB, DYNSYM, FUNC, INDIRECT = 1, 4, 2, 11, 2, 10
SYMBOL = struct.Struct("=IBBHQQ")
SECTION = struct.Struct("=IIQQQQIIQQ")
SEGMENT = struct.Struct("=IIQQQQQQ")


class Elf:
    """The functions of an ELF file of this machine. ValueError, OSError: none."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.loads, self.build_id = [], ""
        self.starts, self.functions, self.names = [], [], b""
        try:
            self._read(data)
        except (struct.error, OverflowError):
            raise ValueError("a damaged ELF file") from None
        finally:
            data.close()

    def _read(self, data):
        if data[:4] != b"\x7fELF" or data[4] != 2:
            raise ValueError("no ELF file of 64 bits")
        headers, sections = struct.unpack_from("=QQ", data, 32)
        count, size, number = struct.unpack_from("=HHH", data, 56)
        for i in range(count):
            kind, _, offset, address, _, length, _, _ = SEGMENT.unpack_from(
                data, headers + i * SEGMENT.size)
            if kind == LOAD:
                self.loads.append((offset, offset + length, address))
            elif kind == NOTE:
                self._note(data[offset:offset + length])
        if size == SECTION.size:
            self._symbols(data, [SECTION.unpack_from(
                data, sections + i * size) for i in range(number)])

    def _note(self, data):
        at = 0
        while at + 16 <= len(data):
            name, length, kind = struct.unpack_from("=III", data, at)
            begin = at + 12 + (name + 3) // 4 * 4
            if kind == 3 and data[at + 12:at + 16] == b"GNU\0":
                self.build_id = data[begin:begin + length].hex()
            at = begin + (length + 3) // 4 * 4

    def _symbols(self, data, sections):
        """All of them, or if they were stripped those for the linker."""
        tables = [one for kind in (SYMTAB, DYNSYM) for one in sections
                  if one[1] == kind and one[6] < len(sections)]
        if not tables:
            return
        offset, length, link = tables[0][4], tables[0][5], tables[0][6]
        text = sections[link]
        self.names = data[text[4]:text[4] + text[5]]
        found = []
        for name, info, _, section, value, size in SYMBOL.iter_unpack(
                data[offset:offset + length // SYMBOL.size * SYMBOL.size]):
            if info & 15 in (FUNC, INDIRECT) and section != 0:
                # Of several names the first, as the core finds it.
                found.append((value, -len(found), size, name))
        found.sort()
        self.starts = [one[0] for one in found]
        self.functions = [(one[2], one[3]) for one in found]

    def address(self, offset):
        """Of a place in the file, as the file counts."""
        for first, last, address in self.loads:
            if first <= offset < last:
                return offset - first + address
        return None

    def find(self, address):
        """The function's name, or None."""
        at = bisect.bisect_right(self.starts, address) - 1
        for i in range(at, max(at - 8, -1), -1):
            size, name = self.functions[i]
            begin = self.starts[i]
            if begin <= address < begin + size or begin == address:
                return self.names[name:].split(b"\0", 1)[0].decode(
                    errors="replace")
        return None


class Demangler:
    """Names of C++'s as one writes them, if its library is there."""

    def __init__(self):
        self.run = None
        try:
            library = ctypes.CDLL("libstdc++.so.6")
            self.run = library.__cxa_demangle
            self.run.restype = ctypes.c_void_p
            self.free = ctypes.CDLL(None).free
            self.free.argtypes = [ctypes.c_void_p]
        except (OSError, AttributeError):
            pass

    def __call__(self, name):
        if self.run is None or not name.startswith("_Z"):
            return name
        status = ctypes.c_int()
        made = self.run(name.encode(), None, None, ctypes.byref(status))
        if not made:
            return name
        plain = ctypes.string_at(made).decode(errors="replace")
        self.free(made)
        return plain


class Code:
    """The code of a process, looked at while it runs, searched afterwards."""

    def __init__(self, pid):
        self.pid, self.maps, self.older = pid, [], []
        self.elves, self.found, self.cores = {}, {}, set()
        self.demangle = Demangler()
        try:
            self.program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            self.program = ""

    def look(self):
        """Its mappings as of now; what was there before is kept."""
        try:
            with open(f"/proc/{self.pid}/maps", encoding="utf-8",
                      errors="replace") as file:
                text = file.read()
        except OSError:
            return
        now = []
        for line in text.splitlines():
            match = LINE.match(line)
            if match and match[5].startswith("/"):
                now.append(Mapping(int(match[1], 16), int(match[2], 16),
                                   int(match[4], 16), match[5]))
        if now:
            gone = set(self.maps) - set(now)
            self.older = [*gone, *self.older][:OLDER_MOST]
            self.maps = now

    def core(self, address):
        """HAKMEM's own code has this address."""
        one = self._mapping(address)
        if one is not None and "hakmem" in one.path:
            self.cores.add(one.path)

    def _mapping(self, address):
        for part in (self.maps, self.older):
            for one in part:
                if one.first <= address < one.last:
                    return one
        return None

    def _elf(self, path):
        """The file's Elf, or None."""
        if path not in self.elves:
            self.elves[path] = None
            places = [f"/proc/{self.pid}/root{path}", path]
            if path == self.program:
                places.insert(0, f"/proc/{self.pid}/exe")
            for place in places:
                try:
                    self.elves[path] = Elf(place)
                    break
                except (OSError, ValueError):
                    pass
        return self.elves[path]

    def find(self, address):
        """A Symbol; where the name is not known, FILE+0xADDRESS."""
        if address not in self.found:
            self.found[address] = self._find(address)
        return self.found[address]

    def _find(self, address):
        one = self._mapping(address)
        if one is None:
            return Symbol(f"0x{address + 1:x}", None)
        elf = self._elf(one.path)
        place = address - one.first + one.offset
        value = elf.address(place) if elf is not None else None
        name = elf.find(value) if value is not None else None
        if name is None:
            base = os.path.basename(one.path)
            name = f"{base}+0x{(place if value is None else value) + 1:x}"
        return Symbol(self.demangle(name), one.path)

    def is_inside(self, address):
        """Whether it is HAKMEM's own."""
        one = self._mapping(address)
        return one is not None and (one.path in self.cores or self.find(
            address).name.startswith("haki_"))

    def modules(self):
        """A Module for each object that an address was found in."""
        paths = dict.fromkeys(symbol.module for symbol in self.found.values()
                              if symbol.module)
        found = []
        for path in paths:
            parts = [one for one in (*self.maps, *self.older)
                     if one.path == path]
            elf = self.elves.get(path)
            found.append(Module(min(one.first for one in parts),
                                max(one.last for one in parts), path,
                                elf.build_id if elf else ""))
        return found
