"""Runs one program on an allocator and says what memory it took.

    run.py hakmem|plain PROGRAM [ARGUMENT...]

`hakmem` imports hakmem_py first, and fails if that is not on at the end. The
program's own lines come first; the last one is peak_kb=N, and with hakmem
what its stats() say.
"""
import sys

HOW = sys.argv[1]
if HOW == "hakmem":
    import hakmem_py
PROGRAM = sys.argv[2]
del sys.argv[:2]
with open(PROGRAM, encoding="utf-8") as file:
    exec(compile(file.read(), PROGRAM, "exec"))


def peak_kb():
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return line.split()[1]
    raise OSError("/proc/self/status has no VmHWM")


def shares():
    """Requests in all, and how many of them each way."""
    found = hakmem_py.stats()
    domains = [found[name] for name in ("raw", "mem", "obj")]
    sums = {name: sum(sum(domain[key] for key in keys) for domain in domains)
            for name, keys in (
                ("calls", ["calls"]), ("tiny", ["tiny_allocs"]),
                ("larger", ["larger_allocs"]), ("foreign", ["foreign_frees"]),
                ("fallback", ["fallback_large", "fallback_memory",
                              "fallback_off"]))}
    return " ".join(f"{name}={value}" for name, value in sums.items())


LAST = "peak_kb=" + peak_kb()
if HOW == "hakmem":
    if not hakmem_py.enabled:
        sys.exit("run.py: hakmem_py is not on")
    LAST += " " + shares()
print(LAST)
