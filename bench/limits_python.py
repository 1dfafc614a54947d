#!/usr/bin/env python3
"""Programs that run out of memory and go on, for limits.py.

    bench/limits_python.py MB NAME [MODULE]

Imports MODULE, sets RLIMIT_AS to MB, once it has run for a while, and runs the
program NAME. What is printed must be the same on every allocator; a last line
"# N" says how many MB there were.
"""
import importlib
import json
import resource
import subprocess
import sys
import threading

MB = 1 << 20


def fill(make):
    """What `make` makes until there is no more memory; how much it was."""
    kept = []
    try:
        while True:
            kept.append(make(len(kept)))
    except MemoryError:
        pass
    return kept


def lists():
    """Objects until the end, twice: the second time as many.

    Their sizes vary. Where nothing at all is left, not 64 bytes, Python can't
    even note the exception's place: that is chance, on every allocator.
    """
    counts = []
    for _ in range(2):
        kept = fill(lambda i: [i, str(i), bytes(i % 2000)])
        counts.append(len(kept))
        del kept
    print("list: MemoryError twice, the second time as late:",
          counts[1] > counts[0] * 0.9)
    return counts[0] * 1220 // MB


def bytearrays():
    """One that grows by a tenth until it can't, then a smaller one."""
    grown = bytearray(MB)
    try:
        while True:
            grown.extend(bytes(len(grown) // 10))
    except MemoryError:
        pass
    size = len(grown)
    grown[-1] = 7
    del grown
    print("bytearray: MemoryError, then", len(bytearray(size // 2)) == size // 2)
    return size // MB


def strings():
    """Blocks of 1 MB until the end; what they hold is right."""
    kept = fill(lambda i: bytes([i % 251]) * MB)
    good = all(block[0] == block[-1] == i % 251 for i, block in enumerate(kept))
    print("bytes: contents right:", good)
    return len(kept)


def dumps():
    """JSON that fits, then one that doesn't, then one that does."""
    small = [{"name": str(i), "values": list(range(20))} for i in range(20000)]
    text = json.dumps(small)
    print("json:", len(text), json.loads(text) == small)
    kept = fill(lambda i: json.loads(text))
    count = len(kept)
    del kept
    print("json: again", json.loads(text) == small)
    return count * len(text) // MB


def threads():
    """Threads that run out of memory together, and others after them."""
    counts = []

    def work():
        counts.append(len(fill(lambda i: bytearray(100_000))))

    for _ in range(2):
        pack = [threading.Thread(target=work) for _ in range(4)]
        for thread in pack:
            thread.start()
        for thread in pack:
            thread.join()
    print("threads:", len(counts))
    return max(counts) // 10


def children():
    """Processes, at the limit and after it."""
    kept = fill(lambda i: bytearray(MB))
    count = len(kept)
    del kept[-20:]
    said = subprocess.run(["echo", "fine"], capture_output=True, text=True,
                          check=True).stdout
    print("subprocess:", said.strip())
    del kept
    said = subprocess.run([sys.executable, "-c", "print('child')"], text=True,
                          capture_output=True, check=True).stdout
    print("subprocess:", said.strip())
    return count


PROGRAMS = {"list": lists, "bytearray": bytearrays, "bytes": strings,
            "json": dumps, "threads": threads, "subprocess": children}


def main():
    limit = int(sys.argv[1]) * MB
    for module in sys.argv[3:]:
        importlib.import_module(module)
    _ = [str(i) for i in range(100000)]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print("#", PROGRAMS[sys.argv[2]]())


if __name__ == "__main__":
    main()
