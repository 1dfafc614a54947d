"""Several cores in one process: hakmem_py's beside that of libhakmem.so,
preloaded or opened while the program runs, that of the Lua module, and a second
copy of its own. Blocks go to and fro between them.

LIBRARY names libhakmem.so, LUA_MODULE the Lua module; make sets both.
"""
import ctypes
import os
import re
import unittest

from support import Case, python

LIBRARY = os.environ.get("LIBRARY", "")
LUA_MODULE = os.environ.get("LUA_MODULE", "")
PRELOADED = {"LD_PRELOAD": LIBRARY}
ALL = {"HAKMEM_PYTHON": "all", "HAKMEM_PYTHON_LANES": "all"}

# What every program below does with its objects, in threads too.
WORK = """
import ctypes, gc, os, subprocess, sys, threading, warnings

def work(n=3000):
    kept = {}
    for i in range(n):
        kept[i % 700] = [i, str(i) * (i % 90), {i: bytes(i % 5000)}]
        if i % 500 == 0:
            kept[-i] = bytearray(i * 700)
    assert all(value[1] == str(value[0]) * (value[0] % 90)
               for key, value in kept.items() if key >= 0)
    return kept

def in_threads(function, count=3):
    failed = []
    def run():
        try:
            function()
        except BaseException as error:
            failed.append(error)
    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed

def in_a_child(function):
    with warnings.catch_warnings(): # a joined thread may not have ended yet
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        function()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.realloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
raw = ctypes.pythonapi
raw.PyMem_RawMalloc.restype = raw.PyMem_RawRealloc.restype = ctypes.c_void_p
raw.PyMem_RawMalloc.argtypes = [ctypes.c_size_t]
raw.PyMem_RawRealloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
raw.PyMem_RawFree.argtypes = [ctypes.c_void_p]
SIZES = [1, 16, 100, 512, 1000, 1025, 5000, 60000, 300000, 3000000]

def filled(p, n):
    return ctypes.string_at(p, n) == b"a" * n

def raw_blocks():
    for n in SIZES:
        # the C library's, which Python then resizes and frees
        for more in n * 2, n // 2 + 1:
            p = libc.malloc(n)
            ctypes.memset(p, 97, n)
            p = raw.PyMem_RawRealloc(p, more)
            assert filled(p, min(n, more))
            raw.PyMem_RawFree(p)
        p = raw.PyMem_RawMalloc(n)
        ctypes.memset(p, 97, n)
        p = raw.PyMem_RawRealloc(p, n * 2)
        assert filled(p, n)
        raw.PyMem_RawFree(p)
"""

LUA = """
LUA_MODULE = os.environ["LUA_MODULE"].encode()
lua = ctypes.CDLL("liblua5.4.so.0", ctypes.RTLD_GLOBAL)
lua.luaL_newstate.restype = ctypes.c_void_p
lua.lua_tolstring.restype = ctypes.c_char_p
for name in ("luaL_openlibs", "luaL_loadstring", "lua_pcallk", "lua_close",
             "lua_tolstring"):
    getattr(lua, name).argtypes = [ctypes.c_void_p] + {
        "luaL_loadstring": [ctypes.c_char_p],
        "lua_pcallk": [ctypes.c_int] * 3 + [ctypes.c_ssize_t, ctypes.c_void_p],
        "lua_tolstring": [ctypes.c_int, ctypes.c_void_p]}.get(name, [])

def lua_run(state, code):
    if lua.luaL_loadstring(state, code) or lua.lua_pcallk(state, 0, 0, 0, 0,
                                                          None):
        raise AssertionError(lua.lua_tolstring(state, -1, None))

def lua_work(state):
    lua_run(state, b"kept = kept or {}"
            b"for i = 1, 2000 do"
            b"    kept[i % 300] = {i, ('x'):rep(i % 3000), function() end}"
            b"    if i % 500 == 0 then kept[-i] = ('y'):rep(i * 400) end "
            b"end "
            b"for i = 1701, 2000 do"
            b"    assert(#kept[i % 300][2] == i % 3000) "
            b"end")

def lua_new():
    state = lua.luaL_newstate()
    lua.luaL_openlibs(state)
    lua_work(state)
    lua_run(state, b"hakmem = package.loadlib('" + LUA_MODULE +
            b"', 'luaopen_hakmem')()")
    lua_work(state)
    lua_run(state, b"local now = hakmem.stats()"
            b"assert(now.calls > 10000 and now.foreign > 0)"
            b"assert(now.live_bytes < 64 * 1024 * 1024)")
    return state

def lua_end(state):
    lua_work(state)
    lua.lua_close(state)

states = []
"""


def env(*parts):
    together = {"LUA_MODULE": LUA_MODULE}
    for part in parts:
        together.update(part)
    return together


def has_lua():
    try:
        ctypes.CDLL("liblua5.4.so.0")
    except OSError:
        return False
    return os.path.exists(LUA_MODULE)


def tables(text):
    """What HAKMEM_SHOW_STATS=1 says: the figures of each core, by its file."""
    found = {}
    for part in re.split(r"^HAKMEM ", text, flags=re.M)[1:]:
        where = re.match(r".*, in (\S+)\n", part)[1]
        found[where] = {
            name: int(number.replace(",", "")) for number, name in
            re.findall(r"([\d,]+) (foreign frees|refused)", part)}
        found[where]["tiny"] = int(re.search(r"^tiny +([\d,]+)", part,
                                             re.M)[1].replace(",", ""))
    return found


@unittest.skipUnless(os.path.exists(LIBRARY), "libhakmem.so is not built")
class Preloaded(Case):
    """libhakmem.so is malloc, hakmem_py the objects' allocator."""

    def crosses(self, code, *environments):
        for extra in environments or ({}, ALL):
            with self.subTest(extra=extra):
                self.says(WORK + code, env=env(PRELOADED, extra))

    def test_objects_and_raw_blocks(self):
        self.crosses("""
            before = work()
            import hakmem_py
            assert hakmem_py.enabled
            both = lambda: (work(), raw_blocks())
            both()
            in_threads(both)
            in_a_child(both)
            in_a_child(lambda: in_threads(both))
            now = hakmem_py.stats()
            assert now["obj"]["tiny"] > 10000 and now["obj"]["refused"] == 0
            assert now["live_bytes"] < 256 << 20
            hakmem_py.disable()
            both()
            del before
            gc.collect()
            hakmem_py.enable(("obj", "mem", "raw"))
            both()
            hakmem_py.trim()
            both()
            print("fine")
            """.replace("\n            ", "\n"))

    def test_a_library_frees_what_raw_gave(self):
        """By free, as some do: well as long as raw is not hakmem_py's."""
        self.crosses("""
import hakmem_py
for n in SIZES:
    libc.free(raw.PyMem_RawMalloc(n))
    libc.free(libc.realloc(raw.PyMem_RawMalloc(n), 3 * n))
print("fine")
""", {})

    def test_children(self):
        self.crosses("""
import hakmem_py
kept = work()
code = ("import hakmem_py; x = [str(i) for i in range(50000)];"
        "assert hakmem_py.enabled; print(len(x))")
for _ in range(3):
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          check=True).stdout
    assert said == b"50000\\n"
def deeper():
    work()
    subprocess.run(["true"], check=True)
in_a_child(deeper)
in_threads(deeper)
print("fine")
""")

    def test_figures_of_each(self):
        result = python(WORK + """
import hakmem_py
work()
raw_blocks()
""", env=env(PRELOADED, ALL, {"HAKMEM_SHOW_STATS": "1"}))
        found = tables(result.stderr)
        ours = [name for name in found if name.startswith("_hakmem")]
        self.assertEqual(len(ours), 1, result.stderr)
        self.assertIn("libhakmem.so", found)
        self.assertEqual(len(found), 2, result.stderr)
        self.assertGreater(found[ours[0]]["tiny"], 10000)
        self.assertGreater(found["libhakmem.so"]["tiny"], 1000)
        for core in found.values():
            self.assertEqual(core["refused"], 0)
        # Whatever hakmem_py handed on was malloc's, so that it is at home.
        self.assertEqual(found["libhakmem.so"]["foreign frees"], 0)

    def test_little_address_space(self):
        """Each core has a window; none of them is reserved."""
        self.says(WORK + """
import resource
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
import hakmem_py
assert hakmem_py.enabled
work()
in_threads(work)
try:
    kept = [bytes(1000) for _ in range(10000000)]
except MemoryError:
    kept = None
work()
in_a_child(work)
print("fine")
""", env=env(PRELOADED))

    @unittest.skipUnless(has_lua(), "no Lua here")
    def test_lua(self):
        self.crosses(LUA + """
import hakmem_py
def life():
    work(1000)
    states.append(lua_new())
    states.append(lua_new())
    lua_end(states.pop(0))
    raw_blocks()
life()
in_threads(life)
in_a_child(lambda: [lua_end(state) for state in states])
in_threads(lambda: lua_end(states.pop()))
in_a_child(life)
while states:
    lua_end(states.pop())
print("fine")
""")


@unittest.skipUnless(os.path.exists(LIBRARY), "libhakmem.so is not built")
class Late(Case):
    """libhakmem.so is opened in the middle."""

    def test_opened(self):
        for mode in "RTLD_GLOBAL", "RTLD_LOCAL":
            self.says(WORK + """
before = work()
import hakmem_py
library = os.environ["LIBRARY"]
for _ in range(2):
    late = ctypes.CDLL(library, ctypes.""" + mode + """)
    late.malloc.restype = late.hak_malloc.restype = ctypes.c_void_p
    late.free.argtypes = late.hak_free.argtypes = [ctypes.c_void_p]
    late.hak_owns.argtypes = [ctypes.c_void_p]
    def both():
        work()
        raw_blocks()
        for n in SIZES:
            p, q, r = late.malloc(n), late.hak_malloc(n), libc.malloc(n)
            assert late.hak_owns(p) & 1 and late.hak_owns(q) & 1
            assert not late.hak_owns(r) & 1
            for block in p, q, r:
                ctypes.memset(block, 97, n)
            late.free(p)
            late.hak_free(q)
            late.free(r)
    both()
    in_threads(both)
    in_a_child(both)
del before
print("fine")
""", env=env(ALL, {"LIBRARY": LIBRARY}))


class Twice(Case):
    """hakmem_py itself, more than once."""

    def test_two_files(self):
        self.says(WORK + """
import importlib.machinery, importlib.util, shutil, tempfile
def load(path):
    loader = importlib.machinery.ExtensionFileLoader("_hakmem", path)
    spec = importlib.util.spec_from_loader("_hakmem", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.start()
    return module

import hakmem_py
first = hakmem_py._hakmem
kept = [work()]
with tempfile.TemporaryDirectory() as folder:
    copy = shutil.copy(first.__file__, folder)
    second = load(copy)
    assert second is not first and second.enabled()
    kept.append(work())
    in_threads(work)
    for one, other in (first, second), (second, first):
        one.disable()
        kept.append(work())
        other.disable()
        kept.append(work())
        one.enable(7)
        kept.append(work())
        other.enable(7)
        in_threads(lambda: (work(), raw_blocks()))
        in_a_child(work)
        kept.pop(0)
        gc.collect()
    assert second.stats(False)["obj"]["calls"] > 10000
kept.clear()
print("fine")
""")

    def test_reloaded(self):
        self.says(WORK + """
import importlib
kept = [work()]
import hakmem_py
for _ in range(3):
    kept.append(work())
    importlib.reload(hakmem_py)
    for name in [name for name in sys.modules if "hakmem" in name]:
        del sys.modules[name]
    import hakmem_py
    assert hakmem_py.enabled
    in_threads(work)
kept.clear()
sys._debugmallocstats()
print("fine")
""", quiet=False)

    def test_subinterpreters(self):
        self.says(WORK + """
import hakmem_py
try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters
kept = work()
code = '''
try:
    import hakmem_py
except ImportError:
    pass
kept = {i: [str(i)] * 50 for i in range(3000)}
'''
for _ in range(3):
    some = [interpreters.create() for _ in range(3)]
    for one in some:
        interpreters.run_string(one, code)
    work()
    for one in some:
        interpreters.destroy(one)
in_threads(work)
print("fine")
""")


if __name__ == "__main__":
    unittest.main()
