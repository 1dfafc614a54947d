"""What an operator is told: by nginx -t, by the log and by the status page; when
workers are not served, when the module's file was replaced, when the module is
taken away."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import nginx_server
from nginx_case import Case, PAGE, listed
from nginx_server import Load, until
from test_refusal import PAGES
from test_status import exposition, page

ROOT = pathlib.Path(__file__).resolve().parents[2]
DENY = os.path.join(os.environ["HAKMEM_BUILD"], "tests/libdeny.so")
UNPATCHED = os.path.join(os.environ["HAKMEM_BUILD"], "tests/nginx/unpatched")
SITE = """
    server {
        listen 127.0.0.1:@HTTP@;
        root html;
        location = /status { hakmem_status; }
        location = /json { hakmem_status json; }
        location = /prometheus { hakmem_status prometheus; }
    }
"""
SERVED = (r"workers will be served: by the module, nginx \(\d+ slots\),"
          r" libcrypto \(\d+ slots\),.* lanes all \(.*not tried: ")
NO_RANGE = "no address range could be reserved"


def lines_of(text, word):
    return [line for line in text.splitlines() if word in line]


class Tested(Case):
    """nginx -t."""

    def said(self, main="", options=(), **how):
        nginx = nginx_server.Server(SITE, main, start=False, **how)
        self.addCleanup(nginx.destroy)
        nginx.configure()
        done = subprocess.run(
            [*nginx.command, *nginx.arguments()[:-1], "stderr", "-t",
             *options], env=nginx.environment(), capture_output=True,
            text=True, check=False)
        return done.returncode, done.stderr, lines_of(done.stderr, "hakmem: w")

    def test_served(self):
        status, text, lines = self.said()
        self.assertEqual((status, len(lines)), (0, 1), text)
        self.assertRegex(lines[0], SERVED)
        self.assertIn("lanes tiny", self.said("hakmem_lanes tiny;")[1])
        self.assertRegex(self.said("hakmem_objects libz;")[1],
                         r"libz \(\d+ slots\)")

    def test_switched_off(self):
        status, text, lines = self.said("hakmem off;")
        self.assertEqual((status, len(lines)), (0, 1), text)
        self.assertIn("will not be served: hakmem off", lines[0])

    def test_not_served(self):
        status, text, lines = self.said(
            command=["env", f"LD_PRELOAD={PAGES}"])
        self.assertEqual((status, len(lines)), (0, 1), text)
        self.assertIn(f"will not be served: {NO_RANGE}; ", lines[0])
        # What to do.
        self.assertIn("ulimit -v", lines[0])

    def test_preload(self):
        library = os.path.join(os.environ["HAKMEM_BUILD"], "libhakmem.so")
        status, text, lines = self.said(f"hakmem_mode preload {library};")
        self.assertEqual((status, len(lines)), (0, 1), text)
        self.assertIn(f'will be served: all of nginx, by "{library}"',
                      lines[0])
        status, text, lines = self.said("hakmem_mode preload /no/such;")
        self.assertEqual((status, len(lines)), (0, 1), text)
        self.assertRegex(lines[0], "will not be served: .*/no/such can't")

    def test_quiet(self):
        status, text, _ = self.said(options=["-q"])
        self.assertEqual((status, [line for line in text.splitlines()
                                   if "hakmem" in line]), (0, []))
        self.assertNotEqual(self.said(
            "hakmem on require;", ["-q"],
            command=["env", f"LD_PRELOAD={PAGES}"])[0], 0)

    def test_required(self):
        status, text, lines = self.said("hakmem on require;")
        self.assertEqual((status, len(lines)), (0, 1), text)
        self.assertRegex(lines[0], SERVED)
        for main, command, why in (
                ("hakmem on require;", ["env", f"LD_PRELOAD={PAGES}"],
                 NO_RANGE),
                ("hakmem on require;\nhakmem_mode preload /no/such;", [],
                 "/no/such can't be read")):
            status, text, lines = self.said(main, command=command)
            self.assertEqual((status, len(lines)), (1, 1), text)
            self.assertRegex(
                lines[0], rf"\[emerg\].*workers would not be served: .*{why}.*"
                r'"hakmem on require" in \S+/nginx.conf:\d+$')

    def test_nothing_left_behind(self):
        """The process that tries is gone, and no worker."""
        before = {one.pid for one in nginx_server.processes()
                  if one.parent == os.getpid()}
        self.said("hakmem on require;")
        self.assertEqual({one.pid for one in nginx_server.processes()
                          if one.parent == os.getpid()} - before, set())


class Required(Case):

    def test_start(self):
        """It does not start where workers would not be served."""
        nginx = nginx_server.Server(SITE, "hakmem on require;", start=False,
                                    command=["env", f"LD_PRELOAD={PAGES}"])
        self.addCleanup(nginx.destroy)
        nginx.configure()
        nginx.launch()
        self.assertEqual(nginx.process.wait(60), 1)
        self.assertEqual(len(nginx.find(r"\[emerg\].*would not be served")), 2,
                         "in the log and on stderr")

    def test_served(self):
        nginx = self.server(SITE, "hakmem on require;", daemon=True)
        self.served(nginx)
        with Load(nginx, "/f1000", PAGE):
            for _ in range(3):
                nginx.reload()
                self.served(nginx)
            nginx.upgrade()
            self.served(nginx)
        # The processes that tried it were nobody's workers.
        self.assertEqual(nginx.find("unknown process"), [])
        nginx.stop()

    def test_one_process(self):
        nginx = self.server(SITE, "hakmem on require;", master=False)
        self.whole(nginx)
        self.served(nginx)
        # When it begins to read for the second time it has read once. What
        # comes while it reads it may sleep through.
        until(60, "it reads", lambda: nginx.signal("HUP") or len(
            nginx.find("reconfiguring$")) >= 2, step=0.2)
        self.assertEqual(nginx.find("unknown process"), [])
        nginx.signal("QUIT")
        until(60, "it ends", lambda: not nginx.alive())


class Denied(Case):
    """From some time on no worker can be served."""

    def denied(self, main, **how):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.file = pathlib.Path(folder) / "deny"
        os.chmod(folder, 0o755)
        nginx = self.server(SITE, main, command=[
            "env", f"LD_PRELOAD={DENY}", f"DENY={self.file}"], **how)
        self.served(nginx)
        return nginx

    def killed(self, nginx):
        victim = nginx.workers()[0]
        nginx.signal("KILL", victim)
        until(60, "its successor", lambda: len(nginx.workers()) == 2
              and victim not in nginx.workers())
        until(60, "it tells", lambda: "system" in [
            one["served_by"] for one in page(nginx)["workers"]])

    def test_told(self):
        """One line at [error], the page says the same, requests go on."""
        nginx = self.denied("", expected=["exited on signal 9"])
        self.file.touch()
        self.killed(nginx)
        lines = nginx.find(r"\[error\].*this worker is not served")
        self.assertEqual(len(lines), 1, nginx.story())
        self.assertRegex(lines[0], "system allocator: the program: a slot can't"
                         ' be written: Permission denied; .*; or write'
                         ' "hakmem off;"')
        rows = page(nginx)["workers"]
        self.assertEqual(sorted(one["served_by"] for one in rows),
                         ["module", "system"])
        for one in rows:
            here, other = (("why", "serving") if one["served_by"] == "system"
                           else ("serving", "why"))
            self.assertEqual(one[other], "")
            self.assertIn("a slot can't be" if here == "why"
                          else "libcrypto (", one[here])
        text = nginx.get("/status")[2].decode()
        self.assertRegex(text, r"(?m)^worker \d of generation 1: the program:"
                         " a slot can't")
        self.assertRegex(text, r"(?m)^worker \d of generation 1: serving nginx"
                         r" \(\d+ slots\), .*, lanes all$")
        self.assertRegex(nginx.get("/prometheus")[2].decode(),
                         r'worker_info\{.*served_by="system",why="the program:'
                         ' a slot can')
        with Load(nginx, "/f1000", PAGE):
            nginx.wrk("/f20000")
        nginx.stop()

    def test_required(self):
        """A worker goes on, at [emerg]; a reload is refused."""
        nginx = self.denied("hakmem on require;", expected=[
            "exited on signal 9", "this worker is not served",
            "would not be served"])
        self.file.touch()
        self.killed(nginx)
        self.assertEqual(
            len(nginx.find(r"\[emerg\].*this worker is not served")), 1)
        workers = nginx.workers()
        nginx.reload(wait=False)
        until(60, "the complaint", lambda: nginx.find(
            r"\[emerg\].*would not be served: the program: a slot can't"
            " be written"))
        with Load(nginx, "/f1000", PAGE):
            nginx.wrk("/f20000")
        self.assertEqual(nginx.workers(), workers)
        self.file.unlink()
        nginx.reload()
        self.served(nginx)
        nginx.stop()


class LeftOut(Case):
    """nginx is linked with a library whose frees can't be ours, so it is not
    served, and others are."""

    WHY = r"nginx is not served: .*libcrypt\.so\.1"
    SYSTEMS = r"frees that stay the system's: .*libcrypt\.so\.1: .* for free"

    def linked(self, main):
        nginx = nginx_server.Server(SITE, main, start=False, env={
            "LD_LIBRARY_PATH": UNPATCHED}, expected=["would not be served"])
        self.addCleanup(nginx.destroy)
        needed = subprocess.run(["ldd", nginx_server.NGINX], text=True,
                                capture_output=True, check=True).stdout
        if "libcrypt.so.1" not in needed:
            self.skipTest("nginx is not linked with libcrypt.so.1")
        return nginx

    def test_told(self):
        nginx = self.linked("")
        status, said = nginx.test()
        self.assertEqual(status, 0, said)
        self.assertRegex(said, f"will be served: by the module, libcrypto .*"
                         rf"{self.WHY}.*\(tried")
        nginx.write("html/f1000", PAGE)
        nginx.start()
        self.assertEqual(len(nginx.find(
            rf"\[error\].*hakmem: {self.WHY}.*{self.SYSTEMS}")), 2,
            nginx.story())
        for one in page(nginx)["workers"]:
            self.assertEqual((one["served_by"], one["why"]), ("module", ""))
            self.assertRegex(one["serving"], f"{self.WHY}.*{self.SYSTEMS}")
        with Load(nginx, "/f1000", PAGE):
            nginx.wrk("/f1000")
        nginx.stop()

    def test_required(self):
        status, said = self.linked("hakmem on require;").test()
        self.assertEqual(status, 1, said)
        self.assertRegex(said, r"\[emerg\].*would not be served as a whole: .*"
                         + self.WHY)


class Replaced(Case):
    """Another file in the module's place."""

    def setUp(self):
        self.now = (ROOT / "VERSION").read_text().strip()
        self.next = self.now[:-1] + chr(ord(self.now[-1]) ^ 1)

    def server_of(self, **how):
        nginx = nginx_server.Server(SITE, start=False, daemon=True, **how)
        self.addCleanup(nginx.destroy)
        self.built = pathlib.Path(nginx.hakmem)
        self.module = nginx.prefix / "module.so"
        nginx.hakmem = str(self.module)
        self.install(self.built.read_bytes())
        nginx.write("html/f1000", PAGE)
        nginx.start()
        return nginx

    def install(self, data):
        """As install(1) does: a new file."""
        with open(f"{self.module}.new", "wb") as out:
            out.write(data)
        os.replace(f"{self.module}.new", self.module)

    def newer(self):
        data = self.built.read_bytes()
        self.assertIn(self.now.encode() + b"\0", data)
        self.install(data.replace(self.now.encode() + b"\0",
                                  self.next.encode() + b"\0"))

    @staticmethod
    def warned(nginx):
        return nginx.find(r"\[error\].*module\.so. (?:was replaced|is gone)")

    def test_reload(self):
        nginx = self.server_of()
        self.assertEqual(page(nginx)["code_on_disk"], "same")
        nginx.reload()
        # Its date changes, or the same file is installed once more.
        os.utime(self.module)
        nginx.reload()
        self.install(self.built.read_bytes())
        nginx.reload()
        self.assertEqual(page(nginx)["code_on_disk"], "same")
        self.assertEqual(self.warned(nginx), [])
        self.newer()
        # The page needs no reload to see it.
        self.assertEqual(page(nginx)["code_on_disk"], "replaced")
        nginx.reload()
        [line] = self.warned(nginx)
        self.assertIn(f"keeps running the old code ({self.now})", line)
        self.assertIn("USR2", line)
        whole = page(nginx)
        self.assertEqual((whole["hakmem"], whole["code_on_disk"]),
                         (self.now, "replaced"))
        self.assertIn(f"{self.module} was replaced since nginx started",
                      nginx.get("/status")[2].decode())
        samples = exposition(nginx.get("/prometheus")[2].decode())
        self.assertEqual(samples["hakmem_nginx_code_replaced", ()], 1)
        # Back again.
        self.install(self.built.read_bytes())
        nginx.reload()
        self.assertEqual(page(nginx)["code_on_disk"], "same")
        self.assertEqual(len(self.warned(nginx)), 1)
        nginx.stop()

    def test_overwritten_in_place(self):
        """cp(1): the same inode. What is appended does no harm to the code."""
        nginx = self.server_of()
        with open(self.module, "ab") as out:
            out.write(b"more")
        nginx.reload()
        self.assertEqual(len(self.warned(nginx)), 1)
        nginx.stop()

    def test_gone(self):
        nginx = self.server_of()
        self.module.unlink()
        self.assertEqual(page(nginx)["code_on_disk"], "gone")
        self.assertIn(f"{self.module} is gone", nginx.get("/status")[2].decode())
        nginx.stop()

    def test_below_a_relative_prefix(self):
        """Workers are elsewhere, and find it."""
        nginx = nginx_server.Server(SITE, "working_directory /;", start=False,
                                    daemon=True)
        self.addCleanup(nginx.destroy)
        shutil.copy(nginx.hakmem, nginx.prefix / "module.so")
        nginx.hakmem = "module.so"
        nginx.command = ["env", "-C", str(nginx.prefix.parent)]
        nginx.arguments = lambda: [
            nginx_server.NGINX, "-p", f"{nginx.prefix.name}/", "-c",
            "nginx.conf", *nginx_server.early_log("error.log")]
        nginx.start()
        self.assertEqual(page(nginx)["code_on_disk"], "same")
        (nginx.prefix / "module.so").unlink()
        self.assertEqual(page(nginx)["code_on_disk"], "gone")
        nginx.stop()

    def test_preloaded_library(self):
        nginx = nginx_server.Server(SITE, start=False)
        self.addCleanup(nginx.destroy)
        library = nginx.prefix / "libhakmem.so"
        shutil.copy(os.path.join(os.environ["HAKMEM_BUILD"], "libhakmem.so"),
                    library)
        nginx.configure(main=f"hakmem_mode preload {library};")
        nginx.start()
        self.assertEqual(page(nginx)["code_on_disk"], "same")
        data = library.read_bytes()
        library.unlink()
        library.write_bytes(data + b"more")
        self.assertEqual(page(nginx)["code_on_disk"], "replaced")
        nginx.reload()
        [line] = nginx.find("was replaced since")
        self.assertIn("[error]", line)
        self.assertIn(f'"{library}"', line)
        nginx.stop()

    def test_upgrade(self):
        """USR2, then QUIT to the old master: the new code serves, and no
        request fails."""
        nginx = self.server_of()
        self.newer()
        with Load(nginx, "/f1000", PAGE):
            old, new = nginx.upgrade()
            nginx.signal("QUIT", old)
            nginx.gone([old])
        self.assertEqual(nginx.master_pid(), new)
        self.served(nginx)
        whole = page(nginx)
        self.assertEqual((whole["hakmem"], whole["code_on_disk"]),
                         (self.next, "same"))
        nginx.reload()
        self.assertEqual(self.warned(nginx), [])
        nginx.stop()


class Lists(unittest.TestCase):
    """What the documents recommend for hakmem_objects is one list for each
    module: test_waf.py and test_modules.py serve these."""

    def test_one_for_each(self):
        texts = [(ROOT / name).read_text() for name in (
            "README.md", "adapters/nginx/README.md")]
        told = [frozenset(found.split()) for text in texts for found in
                re.findall(r"`hakmem_objects\s+(lib\w[^;`]*|ngx_[^;`]*)[;`]",
                           text)]
        wanted = [frozenset(listed(name).strip(";").split()[1:])
                  for name in ("ModSecurity", "Perl", "Lua")]
        self.assertGreaterEqual(len(told), 3)
        self.assertEqual(set(told), set(wanted))


class Lines(Case):
    """What in the configuration needs the module: conf_lines.sh."""

    SCRIPT = ROOT / "adapters/nginx/conf_lines.sh"
    MAIN = """\
hakmem on require; #1
# hakmem off;
env HAKMEM_PURGE_DELAY; # no hakmem;
include @PREFIX@/more/*.conf;"""
    HTTP = """
    log_format with "$uri $hakmem_request_bytes"; #2
    server { listen 127.0.0.1:@HTTP@; root /srv/hakmem/html;
    location = /hakmem { return 204; }
    location = /page { hakmem_status; } #3
    }
    """

    def lines(self, broken=False):
        nginx = nginx_server.Server(self.HTTP, self.MAIN, start=False)
        self.addCleanup(nginx.destroy)
        nginx.write("more/trim.conf", "\n\thakmem_trim\t5s;\n")
        nginx.write("more/skip.conf", "hakmem_lanes all;\n")
        nginx.configure()
        text = nginx.text()
        if broken:
            nginx.write("nginx.conf", text + "nonsense;\n")
        done = subprocess.run(
            [self.SCRIPT, *nginx.arguments()], capture_output=True, text=True,
            env={**nginx.environment(),
                 "HAKMEM_SKIP": f"{nginx.prefix}/more/skip.conf"}, check=True)
        conf = f"{nginx.prefix}/nginx.conf"
        wanted = [f"{conf}:{number}: {line.strip()}" for number, line
                  in enumerate(text.splitlines(), 1)
                  if re.search(r"#\d$|^load_module", line)]
        self.assertEqual(len(wanted), 4)
        wanted.append(f"{nginx.prefix}/more/trim.conf:2: hakmem_trim\t5s;")
        self.assertEqual(sorted(done.stdout.splitlines()), sorted(wanted))
        self.assertEqual(done.stderr, "")

    def test_as_nginx_shows_it(self):
        self.lines()

    def test_of_a_broken_configuration(self):
        self.lines(broken=True)

    def test_nothing_of_it_is_run(self):
        """It is run by root: what a file says is text."""
        nginx = nginx_server.Server(self.HTTP, self.MAIN, start=False)
        self.addCleanup(nginx.destroy)
        nginx.configure()
        ran = nginx.prefix / "ran"
        nginx.write("unused.conf",
                    f'load_module "a$(touch {ran})`touch {ran}`";\n'
                    f"load_module a';touch {ran};';\n")
        nginx.write("nginx.conf", nginx.text() + "nonsense;\n")
        subprocess.run([self.SCRIPT, *nginx.arguments()], check=True,
                       capture_output=True, env=nginx.environment())
        self.assertFalse(ran.exists())

    @unittest.skipUnless(shutil.which("make"), "without make")
    def test_uninstall(self):
        """make uninstall-nginx removes its three files and names the lines."""
        nginx = nginx_server.Server(
            "server { listen 127.0.0.1:@HTTP@;\nhakmem_status; }".replace(
                "hakmem_status;", "location / { hakmem_status; }"),
            start=False)
        self.addCleanup(nginx.destroy)
        folder = nginx.prefix
        shutil.copy(nginx.hakmem, folder / "ngx_http_hakmem_module.so")
        nginx.hakmem = str(folder / "ngx_http_hakmem_module.so")
        nginx.write("enabled/00-mod-http-hakmem.conf", "")
        nginx.configure()
        done = subprocess.run(
            ["make", "-s", "-C", ROOT, "uninstall-nginx", "DESTDIR=",
             f"NGINX_RUN={' '.join(nginx.arguments())}",
             f"NGINX_MODULES_DIR={folder}", f"NGINX_AVAILABLE_DIR={folder}",
             f"NGINX_ENABLED_DIR={folder}/enabled"],
            capture_output=True, text=True, check=False,
            env={name: value for name, value in nginx.environment().items()
                 if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(os.path.exists(nginx.hakmem))
        self.assertFalse((folder / "enabled/00-mod-http-hakmem.conf").exists())
        number = 1 + next(at for at, line in enumerate(
            nginx.text().splitlines()) if "hakmem_status" in line)
        self.assertIn(f"{folder}/nginx.conf:{number}: location / {{ hakmem_s",
                      done.stdout)
        self.assertIn(f"{folder}/nginx.conf:1: load_module", done.stdout)


if __name__ == "__main__":
    unittest.main()
