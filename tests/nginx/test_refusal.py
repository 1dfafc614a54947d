"""What the module refuses, and what it does when the system refuses."""
import os
import shutil
import unittest

import nginx_server
from nginx_case import Case, PAGE, SITE
from nginx_server import Load

# Says that pages have 16 KB.
PAGES = os.path.join(os.environ["HAKMEM_BUILD"],
                     "tests/libpages.so")

LITTLE = 1 << 30


class Limited(Case):
    """A limit on the address space (ulimit -v) is shared with nginx."""

    @unittest.skipUnless(shutil.which("prlimit"), "without prlimit")
    def test_served(self):
        nginx = self.server(SITE, command=["prlimit", f"--as={LITTLE}"])
        with Load(nginx, "/f1000", PAGE):
            nginx.wrk("/f20000")
        self.whole(nginx)
        self.assertEqual(nginx.find(r"\[warn\].*hakmem"), [])
        nginx.stop()


class NoRange(Case):
    """A kernel with other pages: no range for the core."""

    def test_system_allocator(self):
        nginx = self.server(SITE, command=["env", f"LD_PRELOAD={PAGES}"])
        with Load(nginx, "/f1000", PAGE):
            nginx.wrk("/f20000")
        self.stock(nginx)
        warnings = nginx.find(r"\[warn\].*hakmem")
        self.assertEqual(len(warnings), len(nginx.workers()), warnings)
        nginx.reload()
        self.whole(nginx)
        nginx.stop()


class Configuration(Case):
    """nginx -t, which names the line."""

    def refused(self, main, *words):
        nginx = nginx_server.Server(
            "server { listen 127.0.0.1:@HTTP@; }", main, start=False)
        self.addCleanup(nginx.destroy)
        status, said = nginx.test()
        self.assertNotEqual(status, 0, said)
        line = 1 + nginx.text().splitlines().index(main.splitlines()[-1])
        self.assertIn(f"nginx.conf:{line}", said)
        for word in words:
            self.assertIn(word, said)

    def test_bad(self):
        for main, *words in (
                ["hakmem perhaps;", "hakmem"],
                ["hakmem;", "arguments"],
                ["hakmem_lanes big;", "hakmem_lanes", "big"],
                ["hakmem_lanes tiny all;", "arguments"],
                ["hakmem_objects;", "arguments"],
                ["hakmem_objects libc;", "libc"],
                ["hakmem_trim often;", "hakmem_trim"],
                ["hakmem_limit much;", "hakmem_limit"],
                ["hakmem_limit 1m;\nhakmem_limit 2m;", "duplicate"],
                ["hakmem_things 1;", "unknown directive"]):
            with self.subTest(main):
                self.refused(main, *words)

    def test_good(self):
        for main in ("hakmem on;", "hakmem off;", "hakmem_lanes all;",
                     "hakmem_objects libcrypto libssl;", "hakmem_trim 5s;",
                     "hakmem_limit 64m;"):
            with self.subTest(main):
                nginx = nginx_server.Server(
                    "server { listen 127.0.0.1:@HTTP@; }", main, start=False)
                self.addCleanup(nginx.destroy)
                self.assertEqual(nginx.test()[0], 0, nginx.test()[1])


if __name__ == "__main__":
    unittest.main()
