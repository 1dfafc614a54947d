"""Where things are: the library to preload, our helper programs, adapters."""
import os

import hakmem
from hakmem.options import Failed

LIBRARY = "libhakmem.so"


def folders():
    """The folders that libraries are looked for in."""
    return list(dict.fromkeys(
        os.path.normpath(folder) for folder in hakmem.LIBRARIES if folder))


def find(*names):
    """The first of these files in those folders, or None."""
    for folder in folders():
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return path
    return None


def library(asked=None):
    """The absolute path of libhakmem.so."""
    if asked is not None:
        if not os.path.isfile(asked):
            raise Failed(f"--library={asked}: there is no such file", 125)
        return os.path.abspath(asked)
    # Packages put one beside our programs, which goes with this command.
    found = find(os.path.join("hakmem", LIBRARY), LIBRARY)
    if found is None:
        raise Failed(f"{LIBRARY} is not in {' or '.join(folders())}; build it"
                     " with `make` or name it with --library", 125)
    return found


def helper(name):
    """One of our programs in C."""
    found = find(f"hakmem-{name}", os.path.join("hakmem", f"hakmem-{name}"))
    if found is None:
        raise Failed(f"its helper hakmem-{name} is not in"
                     f" {' or '.join(folders())}; run `make` or `make install`"
                     " again", 125)
    return found
