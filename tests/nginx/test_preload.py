"""hakmem_mode preload: nginx executes itself once more on libhakmem.so."""
import collections
import contextlib
import os
import pathlib
import re
import subprocess
import unittest

from nginx_case import Case, FILES
from nginx_server import Load, NGINX, Server, loaded, until
from test_status import PAGES, exposition, page

LIBRARY = pathlib.Path(os.environ.get("HAKMEM_BUILD", ".")) / "libhakmem.so"
SITE = PAGES.replace("@ECHO@", "1")
# Where the module looks if it is told no path.
DEFAULT = (LIBRARY.parent / "nginx/library").read_text().strip() \
    if (LIBRARY.parent / "nginx/library").exists() else ""
PRELOAD = f"hakmem_mode preload {LIBRARY};"
# A library that is no malloc, for LD_PRELOAD and as a wrong one.
OTHER = re.search(r"(/\S*/libm\.so\.6)", subprocess.run(
    ["ldconfig", "-p"], capture_output=True, text=True, check=False,
    env={"PATH": "/sbin:/usr/sbin"}).stdout)


def environment(pid):
    """What a process was started with."""
    return dict(one.split("=", 1) for one in pathlib.Path(
        f"/proc/{pid}/environ").read_text().split("\0") if "=" in one)


def descriptors(pid):
    """What is open in a process, numbers of sockets and pipes left out, and
    how often."""
    found = collections.Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[re.sub(r"\[\d+\]", "", os.readlink(
                f"/proc/{pid}/fd/{name}"))] += 1
    return found


@unittest.skipUnless(LIBRARY.exists(), f"{LIBRARY} is not there")
class Preload(Case):
    def server(self, http=SITE, main=PRELOAD, *args, **options):
        nginx = super().server(http, main, *args, **options)
        self.addCleanup(nginx.stop)
        return nginx

    def preloaded(self, nginx, master=None):
        """Master and workers run on the library, and the page says so."""
        master = master or nginx.master_pid()
        for pid in (master, *nginx.workers(master)):
            self.assertTrue(loaded(pid, str(LIBRARY)), pid)
        rows = page(nginx)["workers"]
        self.assertEqual({(one["served_by"], one["why"]) for one in rows},
                         {("preload", "")})
        return rows

    def stock(self, nginx, why=None):
        """Workers run on the system allocator, and the page says why."""
        for pid in (nginx.master_pid(), *nginx.workers()):
            self.assertFalse(loaded(pid, "libhakmem.so"))
        super().stock(nginx)
        if why:
            for one in page(nginx)["workers"]:
                self.assertEqual(one["served_by"], "system")
                self.assertIn(why, one["why"])

    def start_with(self, main):
        """A server that has nested configuration files, and the library by
        another name, below its prefix."""
        nginx = Server(SITE, main, start=False)
        self.addCleanup(nginx.destroy)
        (nginx.prefix / "lib").mkdir()
        (nginx.prefix / "lib/here.so").symlink_to(LIBRARY.resolve())
        nginx.write("one.conf", "include tw*.conf;")
        nginx.write("two.conf", "include three.conf;")
        nginx.write("three.conf", PRELOAD)
        nginx.start()
        self.addCleanup(nginx.stop)
        return nginx


class Serves(Preload):
    def test_figures(self):
        nginx = self.server()
        before = self.preloaded(nginx)
        nginx.ab("/f1000", requests=200)
        self.whole(nginx)
        for one in self.preloaded(nginx):
            self.assertGreater(one["live_bytes"], 100000)
            self.assertGreaterEqual(one["committed_bytes"],
                                    one["live_bytes"])
        def calls(rows):
            return sum(one["tiny_allocs"] + one["pool_allocs"] for one in rows)
        # A worker that was not asked has told up to a second ago.
        until(60, "two calls by request", lambda: calls(
            page(nginx)["workers"]) - calls(before) > 400)
        exposition(nginx.get("/prometheus")[2].decode())
        Case.stock(self, nginx)
        self.assertEqual(len(nginx.find(
            r"\[notice\].*hakmem: preloaded.*libhakmem\.so")), 2)

    def test_calls_of_the_master_are_not_the_workers(self):
        nginx = self.server(workers=1)
        [one] = page(nginx)["workers"]
        self.assertLess(one["tiny_allocs"], 1000)

    def test_once(self):
        """The same process, executed again one time, named as before."""
        nginx = self.server()
        pid = nginx.master_pid()
        self.assertEqual(pid, nginx.process.pid)
        self.assertEqual(pathlib.Path(f"/proc/{pid}/comm").read_text(),
                         "nginx\n")
        [master] = [one for one in nginx.alive() if one.pid == pid]
        self.assertIn("nginx: master process " + " ".join(nginx.arguments()),
                      master.title)
        self.assertEqual(len(nginx.find("start worker processes")), 1)

    def test_environment(self):
        """What was preloaded before stays, after ours; the rest as it was."""
        # A master's environment is overwritten by its title.
        for env, wanted in (({}, str(LIBRARY)),
                            ({"LD_PRELOAD": OTHER[1], "SOME": "thing"},
                             f"{LIBRARY}:{OTHER[1]}"),
                            ({"LD_PRELOAD": ""}, str(LIBRARY))):
            nginx = self.server(env=env, master=False)
            pid = nginx.process.pid
            self.assertTrue(loaded(pid, str(LIBRARY)))
            found = environment(pid)
            self.assertEqual(found.pop("HAKMEM_NGINX_PRELOAD"), str(pid))
            self.assertEqual(found.pop("LD_PRELOAD"), wanted)
            self.assertEqual(found, {
                name: value for name, value in nginx.environment().items()
                if name != "LD_PRELOAD"})

    def test_preloaded_by_hand(self):
        nginx = self.server(env={"LD_PRELOAD": str(LIBRARY)}, master=False)
        self.assertEqual(environment(nginx.process.pid), nginx.environment())
        self.assertEqual(page(nginx)["workers"][0]["served_by"], "preload")

    def test_mark_of_another(self):
        """An environment inherited from an nginx does not matter."""
        nginx = self.server(env={"HAKMEM_NGINX_PRELOAD": "1"})
        self.preloaded(nginx)

    def test_relative(self):
        """To the prefix, as in load_module."""
        nginx = self.start_with("hakmem_mode preload lib/here.so;")
        for pid in nginx.workers():
            self.assertTrue(loaded(pid, str(LIBRARY)))

    def test_daemon(self):
        nginx = self.server(daemon=True)
        self.preloaded(nginx)

    def test_without_http(self):
        nginx = self.server("", PRELOAD)
        for pid in (nginx.master_pid(), *nginx.workers()):
            self.assertTrue(loaded(pid, str(LIBRARY)))

    def test_one_process(self):
        nginx = self.server(master=False)
        [one] = page(nginx)["workers"]
        self.assertEqual((one["served_by"], one["pid"]),
                         ("preload", nginx.process.pid))


class Descriptors(Preload):
    def test_none_leaks(self):
        stock = self.server(main="")
        wanted = descriptors(stock.master_pid())
        for main in (PRELOAD, "include one.conf;"):
            nginx = self.start_with(main)
            self.preloaded(nginx)
            here, there = str(nginx.prefix), str(stock.prefix)
            found = collections.Counter({
                name.replace(here, there): count for name, count
                in descriptors(nginx.master_pid()).items()})
            self.assertEqual(found, wanted)
            for pid in nginx.workers():
                names = descriptors(pid)
                self.assertFalse([name for name in names
                                  if name.endswith(".conf")], names)

    def test_inherited_stay(self):
        """Descriptors that nginx was given are as in a stock one."""
        nginx = self.server(command=[
            "sh", "-c", 'exec 7<"$0" 8>/dev/null 9<"$0" && exec "$@"',
            "/etc/hostname"])
        self.preloaded(nginx)
        for pid in (nginx.master_pid(), *nginx.workers()):
            links = {number: os.readlink(f"/proc/{pid}/fd/{number}")
                     for number in (7, 8, 9)}
            self.assertEqual(links, {7: "/etc/hostname", 8: "/dev/null",
                                     9: "/etc/hostname"})

    def test_configuration_by_descriptor(self):
        """nginx -c /dev/fd/3: there must be one for the second time."""
        nginx = self.server()
        nginx.configure()
        done = subprocess.run(
            ["sh", "-c", 'exec 3<"$0" && exec "$@"',
             str(nginx.prefix / "nginx.conf"), NGINX, "-t", "-p",
             f"{nginx.prefix}/", "-c", "/dev/fd/3",
             *nginx_server.early_log("stderr")],
            env=nginx.environment(), capture_output=True, text=True,
            check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("test is successful", done.stderr)


class Signals(Preload):
    def test_configuration_test(self):
        """nginx -t runs on the library, too, and says what it always says,
        and by whom workers will be served."""
        nginx = self.server()
        status, said = nginx.test()
        # Modules that are compiled in may have something to note.
        said = re.sub(r".*\[notice\].*\n", "", said)
        self.assertEqual((status, said.count("\n")), (0, 3), said)
        self.assertEqual(said.count("syntax is ok"), 1)
        self.assertEqual(said.count("test is successful"), 1)
        nginx.env["HAKMEM_SHOW_STATS"] = "1"
        self.assertRegex(nginx.test()[1], r"memory +[1-9][^\n]* window")

    def test_broken_configuration(self):
        nginx = self.server()
        nginx.configure(http=SITE + "nonsense;")
        status, said = nginx.test()
        self.assertEqual((status, said.count("[emerg]")), (1, 1), said)
        self.assertIn('unknown directive "nonsense"', said)
        nginx.configure(http=SITE)

    def test_signaller(self):
        """nginx -s reload reads the configuration and just sends a signal."""
        nginx = self.server()
        before = nginx.workers()
        done = subprocess.run(
            [*nginx.arguments(), "-s", "reload"], env=nginx.environment(),
            capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr.count("warn")), (0, 0))
        until(60, "new workers", lambda: nginx.replaced(set(before)))
        self.preloaded(nginx)

    def test_reload(self):
        nginx = self.server()
        with Load(nginx, "/f20000", FILES["f20000"]):
            for _ in range(3):
                old = nginx.workers()
                nginx.reload()
                nginx.gone(old)
        self.assertEqual(self.preloaded(nginx)[0]["generation"], 4)
        self.assertEqual(nginx.find(r"\[warn\]"), [])

    def test_reload_to_module(self):
        nginx = self.server()
        nginx.reload(main="hakmem_mode module;")
        self.preloaded(nginx)
        self.assertEqual(len(nginx.find(
            r'\[warn\].*"hakmem_mode module" takes effect at the next start'
            " of nginx$")), 1)

    def test_reload_to_preload(self):
        nginx = self.server(main="")
        nginx.reload(main=PRELOAD)
        self.assertFalse(loaded(nginx.master_pid(), "libhakmem.so"))
        self.assertRegex(
            "".join(nginx.find(r"\[warn\]")),
            r'"hakmem_mode preload" takes effect at the next start of nginx'
            r" in \S*nginx\.conf:\d+$")
        # Until then the module does what it did.
        until(60, "the module serves", lambda: {
            one["served_by"] for one in page(nginx)["workers"]} == {"module"})

    def test_new_binary(self):
        """USR2: sockets are handed on through the second execution."""
        nginx = self.server(daemon=True)
        with Load(nginx, "/f20000", FILES["f20000"]):
            old, new = nginx.upgrade()
            self.assertTrue(nginx.find("using inherited sockets from"))
            self.preloaded(nginx, new)
            nginx.signal("QUIT", old)
            until(60, "the old one ends",
                  lambda: old not in {one.pid for one in nginx.alive()})
            nginx.reload()
        self.preloaded(nginx)

    def test_switched_off(self):
        nginx = self.server(main="hakmem off; " + PRELOAD)
        self.preloaded(nginx)
        self.assertTrue(nginx.find(r'\[warn\].*"hakmem off" does not'))


class Missing(Preload):
    """What can't be preloaded: one line that names it, and stock nginx."""

    def check_stock(self, path, what):
        nginx = self.server(main=f"\nhakmem_mode preload {path};")
        self.stock(nginx, f"hakmem_mode preload: {path}"[:100])
        self.whole(nginx)
        line = next(number for number, line in enumerate(
            nginx.text().splitlines(), 1) if "hakmem_mode" in line)
        wanted = (rf'"hakmem_mode preload" is not in effect: "{path}" {what}'
                  rf".* in \S*nginx\.conf:{line}$")
        # In the log and on the terminal.
        found = nginx.find(r"\[warn\].*" + wanted)
        self.assertEqual(len(found), 2, nginx.story())
        status, said = nginx.test()
        self.assertEqual(status, 0)
        self.assertRegex(said, "(?m)" + wanted)
        nginx.reload()
        self.stock(nginx, "hakmem_mode preload")
        return nginx

    def test_missing(self):
        self.check_stock("/nowhere/libhakmem.so", "can't be read")

    def test_no_library(self):
        self.check_stock("/etc/hostname", "was not loaded or is not")

    def test_another_library(self):
        self.check_stock(OTHER[1], "was not loaded or is not libhakmem.so")

    @unittest.skipIf(not DEFAULT or pathlib.Path(DEFAULT).exists(),
                     "the library is installed")
    def test_default(self):
        """Without a path it is where `make install` would put it."""
        nginx = self.server(main="hakmem_mode preload;")
        self.stock(nginx, f"hakmem_mode preload: {DEFAULT} can't be read")

    def test_then_module(self):
        """What failed is no reason not to be served by the module."""
        nginx = self.server(main="hakmem_mode preload /nowhere/lib.so;")
        nginx.reload(main="hakmem_mode module;")
        until(60, "the module serves", lambda: {
            one["served_by"] for one in page(nginx)["workers"]} == {"module"})


class Refused(Preload):
    """Bad values: nginx -t fails and names the line."""

    def refused(self, main, what, events="", http=SITE):
        nginx = self.server(main="")
        nginx.configure(main=main, events=events, http=http)
        status, said = nginx.test()
        self.assertNotEqual(status, 0, said)
        line = next(number for number, line in enumerate(
            nginx.text().splitlines(), 1) if "HERE" in line)
        self.assertRegex(said, rf"\[emerg\].*{what}.*nginx\.conf:{line}\n")
        nginx.configure(main="", events="", http=SITE)

    def test_value(self):
        self.refused("hakmem_mode fast; #HERE",
                     'invalid value "fast" in "hakmem_mode".*"preload"')

    def test_none(self):
        self.refused("hakmem_mode; #HERE", "invalid number of arguments")

    def test_too_many(self):
        self.refused("hakmem_mode preload /a /b; #HERE",
                     "invalid number of arguments")

    def test_module_with_library(self):
        self.refused("hakmem_mode module /a; #HERE", 'remove "/a"')

    def test_twice(self):
        self.refused("hakmem_mode module;\nhakmem_mode module; #HERE",
                     "is duplicate")

    def test_path(self):
        for path in ('"/a b"', "/a:b", '""', '"/a\tb"'):
            self.refused(f"hakmem_mode preload {path}; #HERE",
                         "can't be preloaded")

    def test_late(self):
        nginx = self.server(main="")
        self.addCleanup(nginx.configure, stream="")
        nginx.configure(stream=PRELOAD + " #HERE")
        status, said = nginx.test()
        self.assertEqual(status, 1)
        self.assertRegex(said, r"\[emerg\].*is specified too late.*nginx.conf")

    def test_context(self):
        self.refused("", "not allowed here",
                     http=SITE + "\nhakmem_mode module; #HERE\n")


if __name__ == "__main__":
    unittest.main()
