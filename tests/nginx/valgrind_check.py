"""The module under valgrind's memcheck: one process, a few requests of every
kind, no error and nothing lost. Not found by discovery: `make
check-nginx-valgrind` runs it.
"""
import subprocess
import tempfile
import unittest

from nginx_case import (Case, Echo, FILES, PAGE, SITE, TLS, exchange,
                        upgrade)
from test_modules import (LUA, LUA_ANSWER, LUA_MODULES, PERL, PERL_LIST,
                          PERL_MODULES, PERL_WORDS, needs)
from test_status import PAGES, RequestBytes, exposition

COUNTED = RequestBytes.SITE.replace("@HTTP@", "@COUNTED@")

# The environment that a process without a master makes itself is nginx's.
LOST = """{
   the environment of the only process
   Memcheck:Leak
   ...
   fun:ngx_set_environment
}
"""


def by_http2(nginx, path):
    """The version of HTTP and the status."""
    return subprocess.run(
        ["curl", "-s", "-k", "--http2", "-o", "/dev/null", "-w",
         "%{http_version} %{http_code}",
         nginx.url(path, "TLS", "https")], capture_output=True,
        text=True, check=True).stdout


class Memcheck(Case):

    def checked(self, http, main="", **options):
        """A server under memcheck; errors make it end with status 99."""
        return self.server(
            http, main, master=False, patience=120,
            command=["valgrind", "--quiet", "--error-exitcode=99",
                     "--num-callers=30", "--leak-check=full",
                     "--show-leak-kinds=definite",
                     "--errors-for-leak-kinds=definite",
                     f"--suppressions={self.known()}"], **options)

    def known(self):
        """A file that names what nginx does itself."""
        file = tempfile.NamedTemporaryFile("w", suffix=".supp")
        self.addCleanup(file.close)
        file.write(LOST)
        file.flush()
        return file.name

    def ends_well(self, nginx):
        nginx.stop(patience=120)
        self.assertEqual(nginx.find(r"^==\d+== \w"), [])

    def test_answers(self):
        for lanes in ("tiny", "all"):
            with self.subTest(lanes), Echo() as echo:
                nginx = self.checked(
                    SITE.replace("@ECHO@", str(echo.port)) + TLS,
                    "thread_pool default threads=2; hakmem_trim 500ms;"
                    f" hakmem_lanes {lanes};", tls="prime256v1")
                self.answers(nginx)
                self.served(nginx)
                self.ends_well(nginx)

    def answers(self, nginx):
        for name in ("f0", "f1000", "f300000"):
            for path in ("/", "/proxy/", "/proxy-close/", "/aio/",
                         "/gzip/"):
                self.whole(nginx, path + name, FILES[name])
        self.assertEqual(nginx.get("/none")[0], 404)
        self.assertEqual(nginx.get("/ssi/page")[0], 200)
        self.assertEqual(nginx.get("/gunzip/f20000")[0], 200)
        self.assertEqual(nginx.get("/list/")[0], 200)
        self.assertIn(nginx.get("/put/it", method="PUT",
                                body=FILES["f20000"])[0], (201, 204))
        nginx.ab("/f1000", requests=50, connections=5, keepalive=True)
        for _ in range(3):
            self.whole(nginx, "/f1000", PAGE, port="TLS", tls=True)
        nginx.wrk("/proxy/f1000", "TLS", scheme="https", connections=3)
        self.assertEqual(by_http2(nginx, "/f20000"), "2 200")
        with upgrade(nginx) as tunnel:
            for size in (1, 5000):
                self.assertEqual(exchange(tunnel, b"t" * size), b"t" * size)

    def test_sampled(self):
        with Echo() as echo:
            nginx = self.checked(
                SITE.replace("@ECHO@", str(echo.port)).replace(
                    "location /gzip/", "location = /heap { hakmem_profile; }"
                    " location /gzip/", 1) + TLS,
                "thread_pool default threads=2;"
                " hakmem_profile_rate 1k requests;", tls="prime256v1")
            self.answers(nginx)
            for wish in ("format=html", "format=pprof", "format=speedscope",
                         "format=collapsed", "seconds=1"):
                self.assertEqual(nginx.get(f"/heap?{wish}")[0], 200, wish)
            self.answers(nginx)
            self.ends_well(nginx)

    @needs(*LUA_MODULES)
    def test_lua(self):
        nginx = self.checked(LUA, modules=LUA_MODULES)
        for path, body in (("/words", LUA_ANSWER),
                           ("/all", 2 * LUA_ANSWER + b"true7"),
                           ("/filter", FILES["f20000"].upper())) * 2:
            self.whole(nginx, path, body, port="LUA")
        self.served(nginx)
        self.ends_well(nginx)

    @needs(*PERL_MODULES)
    def test_perl(self):
        nginx = self.checked(
            PERL, "hakmem_objects libperl ngx_http_perl_module;",
            modules=PERL_MODULES)
        for path, body in (("/set", PERL_WORDS), ("/handler", PERL_LIST),
                           ("/late", b"late")) * 2:
            self.whole(nginx, path, body, port="PERL")
        self.served(nginx)
        self.ends_well(nginx)

    def test_page(self):
        nginx = self.checked(PAGES + COUNTED)
        for path in ("/status", "/json", "/prometheus"):
            for method in ("GET", "HEAD"):
                self.assertEqual(nginx.get(path, method=method)[0], 200)
        nginx.ab("/f1000", "COUNTED", requests=20, connections=4)
        self.assertEqual(nginx.get("/away", "COUNTED")[0], 200)
        exposition(nginx.get("/prometheus")[2].decode())
        self.served(nginx)
        self.ends_well(nginx)


if __name__ == "__main__":
    unittest.main()
