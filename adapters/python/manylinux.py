#!/usr/bin/env python3
"""manylinux.py - names a wheel by the oldest system that it can run on.

    manylinux.py WHEEL      prints the path of the wheel under its new name
    manylinux.py --show FILE.so|WHEEL       prints what it needs, changes nothing

A wheel as setup.py makes it is `linux_x86_64`: for this machine. PEP 600's tag
manylinux_2_N says that glibc 2.N or later will do. N is what the objects in the
wheel ask for, by the versions of the symbols that they import; and they may need
no libraries but those that every such system has (auditwheel's rules).
"""
import base64
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile

# PEP 600's, less those of X11.
LIBRARIES = re.compile(r"(lib(c|m|dl|rt|pthread|util|nsl|resolv)|ld-linux-[\w-]+"
                       r"|libgcc_s|libstdc\+\+)\.so\.\d+$")
# Older ones are not asked for by anything that runs a Python we build for.
OLDEST = 17


class Failed(Exception):
    """It has no such name; the text says why."""


def needs(path):
    """(libraries, symbol versions) that an object asks for."""
    said = subprocess.run(
        ["readelf", "--wide", "--dynamic", "--version-info", path], check=True,
        stdout=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"}).stdout
    libraries = re.findall(r"\(NEEDED\).*\[(.*)\]", said)
    asked = said.partition("Version needs section")[2]
    return libraries, sorted(set(re.findall(r"Name: (\S+)", asked)))


def glibc(path):
    """The N of the oldest glibc 2.N that has all that the object imports."""
    libraries, versions = needs(path)
    name = os.path.basename(path)
    strange = [one for one in libraries if not LIBRARIES.match(one)]
    if strange:
        raise Failed(f"{name} needs {' '.join(strange)}, which not every system has")
    found = [OLDEST]
    for version in versions:
        match = re.fullmatch(r"GLIBC_2\.(\d+)(\.\d+)*", version)
        if match:
            found.append(int(match[1]))
        elif not re.match(r"(GCC|GLIBCXX|CXXABI)_\d", version):
            raise Failed(f"{name} imports a symbol of version {version}")
    return max(found)


def of_wheel(wheel):
    """The same of all objects of a wheel."""
    with zipfile.ZipFile(wheel) as archive, \
            tempfile.TemporaryDirectory() as folder:
        objects = [archive.extract(name, folder) for name in archive.namelist()
                   if re.search(r"\.so(\.\d+)*$", name)]
        if not objects:
            raise Failed(f"{os.path.basename(wheel)} has no object in it")
        return max(map(glibc, objects))


def renamed(wheel, tag):
    """Writes the wheel under the name with that platform's tag, returns its path."""
    folder, name = os.path.split(wheel)
    parts = name[:-len(".whl")].split("-")
    old, parts[-1] = parts[-1], tag
    new = os.path.join(folder, "-".join(parts) + ".whl")
    with zipfile.ZipFile(wheel) as source:
        files = [(info, source.read(info)) for info in source.infolist()]
    changed = {}
    for info, data in files:
        if info.filename.endswith(".dist-info/WHEEL"):
            data = data.replace(f"-{old}\n".encode(), f"-{tag}\n".encode())
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
            record = f"{info.filename},sha256={digest.decode().rstrip('=')},{len(data)}"
            changed[info.filename] = data
    with zipfile.ZipFile(new + ".new", "w", zipfile.ZIP_DEFLATED) as target:
        for info, data in files:
            data = changed.get(info.filename, data)
            if info.filename.endswith(".dist-info/RECORD"):
                data = re.sub(rb"(?m)^[^,\n]*\.dist-info/WHEEL,.*?(?=\r?$)",
                              record.encode(), data)
            target.writestr(info, data)
    os.replace(new + ".new", new)
    if new != wheel:
        os.unlink(wheel)
    return new


def main(words):
    """Returns the exit status."""
    if len(words) == 2 and words[0] == "--show":
        if words[1].endswith(".whl"):
            print(f"glibc 2.{of_wheel(words[1])} or later")
        else:
            for line in needs(words[1]):
                print(" ".join(line))
        return 0
    if len(words) != 1:
        print("usage: manylinux.py [--show] WHEEL", file=sys.stderr)
        return 2
    machine = os.uname().machine
    print(renamed(words[0], f"manylinux_2_{of_wheel(words[0])}_{machine}"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as error:
        sys.exit(f"manylinux.py: {error}; it stays a wheel for this system alone")
