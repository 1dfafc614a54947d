"""The pools for module authors (include/hakmem_ngx.h), used by the sample
module in sample/ as another module would."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import nginx_server
from nginx_case import Case
from nginx_server import until
from test_refusal import PAGES

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SAMPLE = (os.environ.get("HAKMEM_BUILD", "")
          + "/nginx-sample/objs/ngx_http_hakmem_sample_module.so")
NAMES = ("sets", "socket", "idle", "time", "leave", "check", "master",
         "misuse")
SITE = ("server { listen 127.0.0.1:@HTTP@ backlog=1024;"
        "keepalive_requests 1000000;"
        + "".join(f"location /{name} {{ hakmem_sample {name}; }}"
                  for name in NAMES) + "}")
CHECKS = ("blocks", "realloc", "zero", "declined", "limit", "errors", "order",
          "parent", "reset")
# What the check "errors" and "limit" provoke.
FAILED = r"ngx_hak_p\w+\(\d+\) failed"
PROVOKED = [FAILED, r"ngx_hak_pool_create\(\): config->size"]
MB = 1 << 20


class Pool(Case):

    def sample(self, main="", **options):
        """An nginx with one worker and the sample module."""
        return self.server(SITE, f"load_module {SAMPLE};\n{main}",
                           **{"workers": 1, **options})

    def ask(self, nginx, path):
        """{name: value} of an answer."""
        status, _, body = nginx.get(path)
        self.assertEqual(status, 200, path + "\n" + nginx.story())
        return dict(line.split(" ", 1) for line in body.decode().splitlines())

    def figures(self, nginx, path):
        return {name: float(value)
                for name, value in self.ask(nginx, path).items()}

    def checked(self, nginx):
        """Every check of the sample module is well, twice."""
        for _ in range(2):
            self.assertEqual(self.ask(nginx, "/check"),
                             {name: "ok" for name in CHECKS})


class Contract(Pool):

    def test_checks(self):
        nginx = self.sample(expected=PROVOKED)
        self.checked(nginx)
        # Memory and config errors are told each time, a limit the first time
        # and again after it was set.
        self.assertEqual(len(nginx.find(r"\[emerg\].*" + FAILED)), 2 * 3)
        self.assertEqual(len(nginx.find(r"\[alert\].*config->size is \d+ "
                                        r"instead of \d+; ")), 2 * 2)
        refused = nginx.find(r"\[error\].*refused: pool \"limited\" holds "
                             r"128000 bytes of at most (128000|10); ")
        self.assertEqual(len(refused), 2 * 2, nginx.story())
        nginx.stop()

    def test_hakmem_off(self):
        nginx = self.sample("hakmem off;", expected=PROVOKED)
        self.checked(nginx)
        self.stock(nginx)
        nginx.stop()

    @unittest.skipUnless(shutil.which("prlimit"), "without prlimit")
    def test_no_range(self):
        """A limit on the address space: the system serves."""
        nginx = self.sample(expected=PROVOKED,
                            command=["prlimit", f"--as={1 << 30}"])
        self.checked(nginx)
        got = self.figures(nginx, "/sets?server=hakmem&n=50000")
        self.assertEqual(got["wrong"], 0)
        # A slab would be the range's.
        self.assertLess(got["bytes"], 65536)
        nginx.stop()

    def test_exported(self):
        """What the module exports are the functions of the header."""
        said = subprocess.run(
            ["nm", "-D", "--defined-only", nginx_server.MODULE],
            capture_output=True, text=True, check=True).stdout
        header = (ROOT / "include/hakmem_ngx.h").read_text()
        declared = set(re.findall(r"^[^ */#][^;]*?\b(ngx_hak_\w+)\(", header,
                                  re.M))
        self.assertIn("ngx_hak_palloc", declared)
        self.assertEqual(
            set(re.findall(r" T (\w+)", said)), declared)

    def test_order_of_load_module(self):
        """Without our module before it, nginx names the symbol."""
        ours = f"load_module {nginx_server.MODULE};"
        sample = f"load_module {SAMPLE};"
        for main, good in ((f"{ours}\n{sample}", True),
                           (f"{sample}\n{ours}", False), (sample, False)):
            with self.subTest(main):
                nginx = nginx_server.Server(SITE, main, hakmem=False,
                                            start=False)
                self.addCleanup(nginx.destroy)
                status, said = nginx.test()
                self.assertEqual(status == 0, good, said)
                if not good:
                    self.assertRegex(
                        said, r"\[emerg\].* dlopen\(\) .*undefined symbol: "
                        r"ngx_hak_p")

    def test_unknown_name(self):
        nginx = self.sample()
        for path in ("/sets", "/sets?server=none", "/socket"):
            self.assertEqual(nginx.get(path)[0], 400)


class Growth(Pool):
    """Where ngx_palloc grows a pool stays flat."""

    def test_sets_of_variables(self):
        """200,000 in one request."""
        nginx = self.sample()
        palloc = self.figures(nginx, "/sets?server=palloc")
        pool = self.figures(nginx, "/sets?server=hakmem")
        self.assertEqual(palloc["wrong"], 0)
        self.assertEqual(pool["wrong"], 0)
        self.assertGreater(palloc["bytes"], 3.7 * MB)
        self.assertLess(pool["bytes"], 0.5 * MB)
        # Ten times as many are no more.
        again = self.figures(nginx, "/sets?server=hakmem&n=2000000")
        self.assertLessEqual(again["bytes"], pool["bytes"] + 65536)
        nginx.stop()

    def test_a_large_pool(self):
        """5,000 variables: the pool has a heap of its own."""
        nginx = self.sample()
        got = [self.figures(nginx, "/sets?server=hakmem&vars=5000&n="
                            + number) for number in ("100000", "2000000")]
        self.assertEqual(got[0]["wrong"] + got[1]["wrong"], 0)
        self.assertGreaterEqual(got[0]["bytes"], 65536)
        # Twenty times as many, and 51 MB of ngx_palloc's.
        self.assertLessEqual(got[1]["bytes"], 1.5 * got[0]["bytes"])
        self.assertLess(got[1]["rss"], MB)
        nginx.stop()

    def talk(self, nginx, server, lines):
        """A long-lived connection: bytes in the pool and resident after each
        100 lines of 100 messages."""
        figures = []
        with nginx.socket() as tunnel, tunnel.makefile("rwb") as peer:
            peer.write(f"GET /socket?server={server} HTTP/1.1\r\n"
                       "Host: localhost\r\n\r\n".encode())
            peer.flush()
            self.assertIn(b" 101 ", peer.readline())
            while peer.readline().strip():
                pass
            for number in range(lines):
                peer.write(b"100\n")
                peer.flush()
                said = peer.readline().split()
                self.assertEqual(len(said), 2, nginx.story())
                if number % 100 == 99:
                    figures.append([int(word) for word in said])
        return figures

    def test_long_lived_connection(self):
        """500 messages are kept; the others are dropped, for ever."""
        nginx = self.sample()
        pool = self.talk(nginx, "hakmem", 2000)
        palloc = self.talk(nginx, "palloc", 2000)
        # 170 B each: 34 MB in all, 85 KB at a time.
        self.assertLess(pool[-1][0], 200000)
        self.assertLess(pool[-1][1] - pool[0][1], MB)
        self.assertGreater(palloc[-1][0] - palloc[0][0], 30 * MB)
        self.assertGreater(palloc[-1][1] - palloc[0][1], 30 * MB)
        nginx.stop()

    def test_idle_pools(self):
        """Empty ones, and some with 10 objects, 982 B in all."""
        nginx = self.sample()
        empty = self.figures(nginx, "/idle?server=hakmem&n=20000&objects=1")
        self.assertLess(empty["each"], 400)
        pool = self.figures(nginx, "/idle?server=hakmem")
        palloc = self.figures(nginx, "/idle?server=palloc")
        self.assertLess(pool["each"], 2000)
        self.assertLess(pool["each"], palloc["each"])
        nginx.stop()

    def test_destroyed_with_the_request(self):
        """What requests leave behind: 4 MB each, none of it after the end."""
        nginx = self.sample()
        pid = nginx.worker()
        for number in range(100):
            self.assertGreater(
                self.figures(nginx, "/leave?n=2000")["bytes"], 3 * MB)
            if number == 9:
                warm = nginx_server.memory(pid)["Rss"]
        self.assertLess(nginx_server.memory(pid)["Rss"], warm + 2048)
        nginx.stop()


class Processes(Pool):
    """A pool that was made in the master."""

    def test_workers_have_their_own(self):
        nginx = self.sample(workers=2)
        seen = set()
        for _ in range(40):
            got = self.figures(nginx, "/master")
            self.assertEqual(got["wrong"], 0, nginx.story())
            self.assertEqual(got["blocks"], 1200)
            seen.add(got["times"])
        # A worker counts its own visits.
        self.assertTrue(any(times > 1 for times in seen))
        nginx.stop()

    def test_a_reload_makes_a_new_one(self):
        """The old one goes with the configuration, in the master too."""
        nginx = self.sample()
        before = None
        for number in range(15):
            self.assertEqual(self.figures(nginx, "/master"),
                             {"wrong": 0, "times": 1, "blocks": 1200})
            old = nginx.worker()
            nginx.reload()
            until(60, "a new worker", lambda was=old: nginx.workers() != [was])
            if number == 5:
                before = nginx_server.memory(nginx.master_pid())["Rss"]
        self.assertLess(nginx_server.memory(nginx.master_pid())["Rss"],
                        before + 1024)
        nginx.stop()

    def test_one_process(self):
        nginx = self.sample(master=False, expected=PROVOKED)
        self.checked(nginx)
        self.assertEqual(self.figures(nginx, "/master")["wrong"], 0)
        nginx.stop()


# What nginx itself loses.
LOST = """{
   the environment of its only process
   Memcheck:Leak
   ...
   fun:ngx_set_environment
}
"""


@unittest.skipUnless(shutil.which("valgrind"), "without valgrind")
class Valgrind(Pool):

    def valgrind(self, *before):
        """All that the sample does, under memcheck; the lines that tell of a
        range that is missing."""
        with tempfile.NamedTemporaryFile("w", suffix=".supp") as lost:
            lost.write(LOST)
            lost.flush()
            nginx = self.sample(
                master=False, patience=120, expected=PROVOKED,
                command=[*before, "valgrind", "--error-exitcode=99",
                         "--leak-check=full", "--num-callers=30",
                         "--errors-for-leak-kinds=definite",
                         f"--suppressions={lost.name}"])
            self.checked(nginx)
            for path in ("/sets?server=hakmem&n=5000", "/leave?n=300",
                         "/master", "/idle?server=hakmem&n=50"):
                self.figures(nginx, path)
            nginx.stop()
        return nginx.find("pages are 32 KB")

    def test_memcheck(self):
        self.assertEqual(self.valgrind(), [])

    def test_memcheck_without_a_range(self):
        """Every block is the system's: valgrind knows its bounds and its
        end."""
        said = self.valgrind("env", f"LD_PRELOAD={PAGES}")
        self.assertEqual(len(said), 1, said)


if __name__ == "__main__":
    unittest.main()
