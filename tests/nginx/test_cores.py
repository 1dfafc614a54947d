"""Two cores in a worker: the module's beside that of libhakmem.so, which is
preloaded, so that blocks the module hands on are the other's."""
import os
import pathlib
import unittest

import test_modules
from nginx_case import Case, FILES, PAGE
from nginx_server import Load, loaded
from test_status import PAGES, page

LIBRARY = pathlib.Path(os.environ.get("HAKMEM_BUILD", ".")) / "libhakmem.so"


@unittest.skipUnless(LIBRARY.exists(), f"{LIBRARY} is not there")
class Cores(Case):

    def server(self, http=PAGES, main="", *args, **options):
        nginx = super().server(http, main, *args,
                               env={"LD_PRELOAD": str(LIBRARY)}, **options)
        self.addCleanup(nginx.stop)
        return nginx

    def both(self, nginx):
        """The workers have both: the library, and their slots patched."""
        self.served(nginx)
        for pid in (nginx.master_pid(), *nginx.workers()):
            self.assertTrue(loaded(pid, str(LIBRARY)), pid)

    def test_requests_and_reloads(self):
        nginx = self.server(PAGES, "hakmem_limit 900m;", tls=True)
        with Load(nginx, "/f20000", FILES["f20000"]) as load:
            for main in "", "hakmem_lanes tiny;", "hakmem off;", "":
                nginx.reload(main=main)
        self.assertGreater(load.requests, 20)
        self.whole(nginx)
        self.both(nginx)
        rows = page(nginx)["workers"]
        self.assertEqual({row["served_by"] for row in rows}, {"module"})
        self.assertTrue(all(row["live_bytes"] < 1 << 30 for row in rows))

    def test_one_process(self):
        nginx = self.server(PAGES, "", master=False, workers=1)
        with Load(nginx, "/f1000", PAGE):
            for _ in range(10):
                self.whole(nginx)
        self.served(nginx, [nginx.master_pid()])

    @test_modules.needs(*test_modules.LUA_MODULES)
    def test_lua(self):
        for main in ("", "hakmem_objects ngx_http_lua_module libluajit-5.1;"):
            with self.subTest(main=main):
                nginx = self.server(test_modules.LUA, main,
                                    modules=test_modules.LUA_MODULES)
                answer = test_modules.LUA_ANSWER
                with Load(nginx, "/words", answer, port="LUA"):
                    for _ in range(5):
                        self.whole(nginx, "/all", 2 * answer + b"true7",
                                   port="LUA")
                        self.whole(nginx, "/ffi", b"ffi", port="LUA")
                        self.whole(nginx, "/filter", FILES["f20000"].upper(),
                                   port="LUA")
                    nginx.reload()
                self.whole(nginx, "/words", answer, port="LUA")
                self.both(nginx)
                nginx.stop()

    @test_modules.needs(*test_modules.PERL_MODULES)
    def test_perl(self):
        for main in "", "hakmem_objects libperl ngx_http_perl_module;":
            with self.subTest(main=main):
                nginx = self.server(test_modules.PERL, main,
                                    modules=test_modules.PERL_MODULES)
                with Load(nginx, "/set", test_modules.PERL_WORDS, port="PERL"):
                    for _ in range(5):
                        self.whole(nginx, "/handler", test_modules.PERL_LIST,
                                   port="PERL")
                        self.whole(nginx, "/late", b"late", port="PERL")
                    nginx.reload()
                self.whole(nginx, "/late", b"late", port="PERL")
                self.both(nginx)
                nginx.stop()


if __name__ == "__main__":
    unittest.main()
