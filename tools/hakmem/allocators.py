"""Other allocators that can be preloaded, by name.

`glibc` stands for none: the C library's own. A name with a slash is a file.
"""
import collections
import glob
import os

from hakmem import places
from hakmem.options import Failed

Allocator = collections.namedtuple("Allocator", "name library")

# The names, the libraries' files, newest first by name; Debian's package.
KNOWN = {
    "mimalloc": (("libmimalloc.so", "libmimalloc.so.*"), "libmimalloc2.0"),
    "jemalloc": (("libjemalloc.so.2", "libjemalloc.so*"), "libjemalloc2"),
    "tcmalloc": (("libtcmalloc_minimal.so.4", "libtcmalloc_minimal.so*",
                  "libtcmalloc.so*"), "libtcmalloc-minimal4"),
    "rpmalloc": (("librpmalloc*.so*",), None),
    "snmalloc": (("libsnmallocshim.so*",), None),
    "scudo": (("libscudo.so*", "libclang_rt.scudo_standalone*.so"), None),
    "hoard": (("libhoard.so*",), None),
}
PLAIN = ("glibc", "libc", "none")


def folders():
    """Where the loader looks, as far as that is easily told."""
    found = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for pattern in ("/usr/local/lib", "/usr/lib/*-linux-*", "/usr/lib64",
                    "/usr/lib", "/lib/*-linux-*", "/lib64", "/lib"):
        found += sorted(glob.glob(pattern))
    return [folder for folder in dict.fromkeys(found) if folder]


def _installed(patterns):
    for pattern in patterns:
        for folder in folders():
            files = sorted(glob.glob(os.path.join(folder, pattern)))
            if files:
                return files[-1]
    return None


def words():
    return ["glibc", "hakmem", *KNOWN]


def find(name, library=None):
    """The Allocator of that name; `library` is where ours is, if that was said."""
    if "/" in name:
        if not os.path.isfile(name):
            raise Failed(f"--with={name}: there is no such library", 125)
        return Allocator(os.path.basename(name).split(".so")[0],
                         os.path.abspath(name))
    if name in PLAIN:
        return Allocator("glibc", None)
    if name == "hakmem":
        return Allocator("hakmem", places.library(library))
    if name not in KNOWN:
        raise Failed(f"--with={name}: unknown allocator; use one of"
                     f" {' '.join(words())}, or the path of a library", 2)
    patterns, package = KNOWN[name]
    found = _installed(patterns)
    if found is None:
        hint = f"; on Debian: apt install {package}" if package else \
            "; give the path of its library instead"
        raise Failed(f"--with={name}: {patterns[0]} is not installed{hint}",
                     125)
    return Allocator(name, found)


def find_all(text, library=None):
    """Those of a list with commas, each once."""
    found = [find(name.strip(), library) for name in text.split(",")
             if name.strip()]
    return list({one.name: one for one in found}.values())
