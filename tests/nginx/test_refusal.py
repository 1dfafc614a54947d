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

# What the directives take, as a complaint names it.
ENABLE = '"on", "on require" or "off"'
LANES = '"tiny" or "all"'
TIME = '"off" or a time of at least 100ms'
SIZE = '"off" or a size of at least 1m'
RATE = '"off" or a size from 1 to 1024m, and then perhaps "requests"'
MODE = '"module" or "preload"'


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
        lines = nginx.find(r"\[error\].*hakmem: this worker is not served")
        self.assertEqual(len(lines), len(nginx.workers()), lines)
        # Why, and what to do.
        self.assertIn("no address range", lines[0])
        self.assertIn("ulimit -v", lines[0])
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
        lines = nginx.text().splitlines()
        line = (lines.index(main.splitlines()[0])
                + len(main.splitlines()))
        self.assertIn(f"nginx.conf:{line}", said)
        for word in words:
            self.assertIn(word, said)

    def test_bad(self):
        for main, *words in (
                ["hakmem perhaps;", '"perhaps" in "hakmem"', ENABLE],
                ["hakmem on perhaps;", '"perhaps" in "hakmem"', ENABLE],
                ["hakmem off require;", '"require" in "hakmem"', ENABLE],
                ["hakmem;", "number of arguments", ENABLE],
                ["hakmem on require now;", "number of arguments", ENABLE],
                ["hakmem on;\nhakmem on;", '"hakmem"', "duplicate"],
                ["hakmem_lanes big;", '"big" in "hakmem_lanes"', LANES],
                ["hakmem_lanes;", "number of arguments", LANES],
                ["hakmem_lanes tiny all;", "number of arguments", LANES],
                ["hakmem_objects;", "number of arguments", '"libssl"'],
                ["hakmem_objects libc;", 'forbidden object "libc"',
                 "nginx, ", "libcrypto"],
                ["hakmem_objects libnone;", 'unknown object "libnone"',
                 "nginx, ", "libcrypto"],
                ["hakmem_trim often;", '"often" in "hakmem_trim"', TIME],
                ["hakmem_trim 1ms;", '"1ms" in "hakmem_trim"', TIME],
                ["hakmem_trim;", "number of arguments", TIME],
                ["hakmem_limit much;", '"much" in "hakmem_limit"', SIZE],
                ["hakmem_limit 1k;", '"1k" in "hakmem_limit"', SIZE],
                ["hakmem_limit 1m 2m;", "number of arguments", SIZE],
                ["hakmem_limit 1m;\nhakmem_limit 2m;", "duplicate"],
                ["hakmem_profile_rate lots;",
                 '"lots" in "hakmem_profile_rate"', RATE],
                ["hakmem_profile_rate 0;", '"0" in', RATE],
                ["hakmem_profile_rate 2g;", '"2g" in', RATE],
                ["hakmem_profile_rate off requests;", '"requests" in', RATE],
                ["hakmem_profile_rate 1k all;", '"all" in', RATE],
                ["hakmem_profile_rate;", "number of arguments", RATE],
                ["hakmem_profile_rate 1k;\nhakmem_profile_rate off;",
                 "duplicate"],
                ["hakmem_mode half;", '"half" in "hakmem_mode"', MODE],
                ["hakmem_mode;", "number of arguments", MODE],
                ["hakmem_things 1;", "unknown directive"]):
            with self.subTest(main):
                self.refused(main, *words)

    def test_good(self):
        for main in ("hakmem on;", "hakmem on require;", "hakmem ON;", "hakmem off;", "hakmem_lanes all;",
                     "hakmem_objects libcrypto libssl;", "hakmem_trim 5s;",
                     "hakmem_limit 64m;", "hakmem_profile_rate off;",
                     "hakmem_profile_rate 512k requests;"):
            with self.subTest(main):
                nginx = nginx_server.Server(
                    "server { listen 127.0.0.1:@HTTP@; }", main, start=False)
                self.addCleanup(nginx.destroy)
                self.assertEqual(nginx.test()[0], 0, nginx.test()[1])


if __name__ == "__main__":
    unittest.main()
