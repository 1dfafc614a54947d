"""Blocks as C code sees them: PyMem_* and PyObject_*, through ctypes."""
import ctypes
import os
import unittest

import hakmem_py
from support import Case

SIZES = [0, 1, 8, 15, 16, 17, 31, 32, 100, 127, 128, 129, 255, 256, 500, 512,
         513, 1000, 1008, 1009, 1023, 1024, 1025, 1152, 1153, 4000, 8192,
         30000, 53248, 53249, 100000, 1 << 20, (2 << 20) - 1, 2 << 20, 3 << 20]


# Says that pages have 32 KB.
PAGES = os.environ.get("PAGES", "")

STRIPES = bytes(i * 7 % 251 for i in range(251))


class Domain:
    """The four functions of a domain."""

    def __init__(self, prefix):
        api = ctypes.pythonapi

        def function(name, result, *arguments):
            found = getattr(api, prefix + name)
            # PyDLL's functions hold the GIL; each object has its own types.
            found = ctypes.PYFUNCTYPE(result, *arguments)((prefix + name, api))
            return found
        size, pointer = ctypes.c_size_t, ctypes.c_void_p
        self.malloc = function("Malloc", pointer, size)
        self.calloc = function("Calloc", pointer, size, size)
        self.realloc = function("Realloc", pointer, pointer, size)
        self.free = function("Free", None, pointer)


DOMAINS = {"raw": Domain("PyMem_Raw"), "mem": Domain("PyMem_"),
           "obj": Domain("PyObject_")}


def pattern(size, seed):
    """Contents for the first 100,000 bytes of a block."""
    size = min(size, 100000)
    return (STRIPES[seed % 251:] + STRIPES * (size // 251 + 1))[:size]


def make_blocks():
    """Blocks of every domain and size: (domain, block, contents, new size)."""
    made = []
    for domain in DOMAINS.values():
        for size in SIZES:
            for new in (None, 0, 10, 300, 3000, 300000):
                p = domain.malloc(size)
                text = pattern(size, size)
                ctypes.memmove(p, text, len(text))
                made.append((domain, p, text, new))
    return made


def use_up(made):
    """Resizes the blocks that have a new size, looks into all, frees them."""
    for domain, p, text, new in made:
        if new is not None:
            p = domain.realloc(p, new)
            text = text[:new]
        assert ctypes.string_at(p, len(text)) == text
        domain.free(p)


def check_all(case):
    """Every domain's functions on every size, contents included."""
    for name, domain in DOMAINS.items():
        for size in SIZES:
            check_size(case, domain, f"{name} {size}", size)
        check_crossings(case, domain, name)
        check_zero(case, domain, name)
        check_refusals(case, domain, name)


def check_size(case, domain, what, size):
    p, q = domain.malloc(size), domain.malloc(size)
    case.assertTrue(p and q and p != q, what)
    case.assertEqual((p % 16, q % 16), (0, 0), what)
    ctypes.memset(p, 0xaa, size)
    ctypes.memset(q, 0x55, size)
    case.assertEqual(ctypes.string_at(p, size), b"\xaa" * size, what)
    domain.free(p)
    domain.free(q)
    for count, each in ((1, size), (size, 1)):
        p = domain.calloc(count, each)
        case.assertEqual(p % 16, 0, what)
        case.assertEqual(ctypes.string_at(p, size), bytes(size), what)
        ctypes.memset(p, 0xff, size)
        domain.free(p)


def check_crossings(case, domain, name):
    """realloc from every size to every other."""
    for old in SIZES:
        for new in SIZES:
            p = domain.malloc(old)
            text = pattern(min(old, new), old + new)
            ctypes.memmove(p, text, len(text))
            p = domain.realloc(p, new)
            case.assertTrue(p and p % 16 == 0, (name, old, new))
            case.assertEqual(ctypes.string_at(p, len(text)), text,
                             (name, old, new))
            ctypes.memset(p, 1, new)
            domain.free(p)
    # Growing as lists do.
    p, size = domain.malloc(16), 16
    ctypes.memmove(p, pattern(16, 1), 16)
    while size < 6 << 20:
        size += size // 8 + 6
        p = domain.realloc(p, size)
        case.assertEqual(ctypes.string_at(p, 16), pattern(16, 1), name)
        ctypes.memset(p + size - 1, 1, 1)
    domain.free(p)


def check_zero(case, domain, name):
    zero = [domain.malloc(0) for _ in range(10)]
    zero += [domain.calloc(0, 5) for _ in range(10)]
    zero += [domain.realloc(None, 0) for _ in range(10)]
    case.assertEqual(len({p for p in zero if p}), 30, name)
    # realloc to 0 bytes does not free.
    for size in (1, 100, 5000, 100000):
        p = domain.realloc(domain.malloc(size), 0)
        case.assertTrue(p, name)
        case.assertNotIn(p, zero)
        zero.append(p)
    for p in zero:
        domain.free(p)
    domain.free(None)


def check_refusals(case, domain, name):
    huge = (1 << 63) - 1
    case.assertIsNone(domain.malloc(huge), name)
    case.assertIsNone(domain.calloc(1, huge), name)
    case.assertIsNone(domain.calloc(1 << 40, 1 << 40), name)
    for size in (100, 5000, 100000):
        p = domain.malloc(size)
        ctypes.memmove(p, pattern(100, size), 100)
        case.assertIsNone(domain.realloc(p, huge), name)
        case.assertEqual(ctypes.string_at(p, 100), pattern(100, size), name)
        domain.free(p)


class Blocks(Case):
    def test_here(self):
        self.assertTrue(hakmem_py.enabled)
        check_all(self)

    def test_everywhere(self):
        for domains in ("obj", "mem", "raw", "all"):
            for lanes in ("tiny", "all"):
                self.says("""
                    import unittest
                    import test_blocks
                    test_blocks.check_all(unittest.TestCase())
                    print("fine")
                """, env={"HAKMEM_PYTHON": domains,
                          "HAKMEM_PYTHON_LANES": lanes})

    def test_under_a_limit(self):
        self.says("""
            import unittest
            import hakmem_py, test_blocks
            hakmem_py.limit(100 << 20)
            test_blocks.check_all(unittest.TestCase())
            live = hakmem_py.stats()["live_bytes"]
            hakmem_py.limit(live + 1000000)  # what was counted is still right
            test_blocks.check_zero(unittest.TestCase(),
                                   test_blocks.DOMAINS["obj"], "obj")
            print("fine")
        """, env={"HAKMEM_PYTHON": "all"})

    def test_foreign_blocks(self):
        """What was there before the switch is resized and freed by its own."""
        self.says("""
            import os
            os.environ["HAKMEM_PYTHON"] = "off"
            import hakmem_py, test_blocks
            from test_blocks import DOMAINS, SIZES
            made = test_blocks.make_blocks()
            assert hakmem_py.enable(["obj", "mem", "raw"])
            test_blocks.use_up(made)
            stats = hakmem_py.stats()
            for name in DOMAINS:
                assert stats[name]["foreign_frees"] >= 6 * len(SIZES), stats
            print("fine")
        """)

    def test_ours_after_disable(self):
        """Our blocks are resized into the saved allocator, and freed."""
        self.says("""
            import hakmem_py, test_blocks
            made = test_blocks.make_blocks()
            hakmem_py.disable()
            before = hakmem_py.stats()["blocks"]
            test_blocks.use_up(made)
            freed = before - hakmem_py.stats()["blocks"]
            assert freed >= len(made), (freed, len(made))
            print("fine")
        """, env={"HAKMEM_PYTHON": "all", "HAKMEM_PYTHON_LANES": "all"})

    def test_mixed_up_domains(self):
        """A block freed by another domain than its own (extensions do)."""
        self.says("""
            import hakmem_py
            from test_blocks import DOMAINS, SIZES
            for one in DOMAINS.values():
                for other in DOMAINS.values():
                    for size in SIZES:
                        other.free(one.malloc(size))
                        p = other.realloc(one.malloc(size), 2 * size)
                        one.free(p)
            print("fine")
        """, env={"HAKMEM_PYTHON": "all"})

    def test_little_address_space(self):
        """RLIMIT_AS, before the import and after it, takes nothing away."""
        for when in "before", "after":
            with self.subTest(when):
                self.says(f"""
                    import resource
                    def limit():
                        resource.setrlimit(resource.RLIMIT_AS,
                                           (300 << 20, 300 << 20))
                    if "{when}" == "before":
                        limit()
                    import hakmem_py
                    assert hakmem_py.enabled
                    from churn import churn
                    churn()
                    if "{when}" == "after":
                        limit()
                    churn()
                    held = []
                    try:
                        while True:
                            held.append(["x" * 100 for i in range(1000)])
                    except MemoryError:
                        pass
                    del held
                    import subprocess, threading
                    thread = threading.Thread(target=churn)
                    thread.start()
                    thread.join()
                    assert subprocess.run("true").returncode == 0
                    churn()
                    print("fine")
                """)

    @unittest.skipUnless(PAGES, "make builds the library that this needs")
    def test_refused_by_the_system(self):
        """Pages of 32 KB: the saved allocator serves."""
        self.says("""
            import hakmem_py
            assert hakmem_py.enabled is False
            assert "address space" in hakmem_py.reason, hakmem_py.reason
            from churn import churn
            churn()
            print("fine")
        """, env={"LD_PRELOAD": PAGES}, quiet=False)

    def test_out_of_memory(self):
        """The core's memory ends, the saved allocator's too: MemoryError."""
        self.says("""
            import resource
            import hakmem_py
            from churn import churn
            churn()
            with open("/proc/self/statm") as statm:
                used = int(statm.read().split()[0]) * 4096
            resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
            for round in range(3):
                kept = []
                try:
                    while True:
                        kept.append(bytearray(100000))
                except MemoryError:
                    pass
                assert len(kept) > 1000, len(kept)
                del kept
            churn()
            print("fine")
        """)


if __name__ == "__main__":
    unittest.main()
