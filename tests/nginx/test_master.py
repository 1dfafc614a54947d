"""What runs while the configuration is read finds a free that goes by address,
and hands it on to the workers."""
import unittest

import nginx_server
from nginx_case import Case, SITE
from test_modules import LUA_MODULES, needs

# LuaJIT keeps what it found in the master, and the code that it made of it.
LUA = SITE + """
    lua_shared_dict words 4m;
    init_by_lua_block {
        local ffi = require "ffi"
        ffi.cdef [[
            void *X509_NAME_new(void);
            void X509_NAME_free(void *);
            char *X509_NAME_oneline(void *, char *, int);
            void *malloc(size_t);
            void *realloc(void *, size_t);
            void free(void *);
        ]]
        function frees()
            local name = ffi.C.X509_NAME_new()
            ffi.C.free(ffi.C.X509_NAME_oneline(name, nil, 0))
            ffi.C.free(ffi.C.realloc(
                ffi.C.X509_NAME_oneline(name, nil, 0), 5000))
            ffi.C.X509_NAME_free(name)
            ffi.C.free(ffi.C.malloc(100))
            for _, size in ipairs { 1, 4000, 5000, 1000000 } do
                ngx.shared.words:set("w", string.rep("x", size))
                assert(#ngx.shared.words:get("w") == size)
            end
        end
        for _ = 1, 200 do frees() end
    }
    server {
        listen 127.0.0.1:@LUA@;
        location / { content_by_lua_block { frees() ngx.print("alive") } }
    }
"""


@needs(*LUA_MODULES)
class Master(Case):

    def alive(self, nginx):
        for _ in range(30):
            self.whole(nginx, "/", b"alive", port="LUA")

    def start(self, main="", **options):
        return self.server(LUA, main, modules=LUA_MODULES, **options)

    def test_reloads(self):
        nginx = self.start()
        for _ in range(3):
            self.alive(nginx)
            self.served(nginx)
            nginx.reload()
        nginx.stop()

    def test_modules_before_ours(self):
        """What is there already is looked at when ours is loaded."""
        load = "".join(f"load_module @MODULES@/{name}.so;\n"
                       for name in LUA_MODULES
                       if not nginx_server.compiled_in(name))
        nginx = self.server(
            LUA, load + f"load_module {nginx_server.MODULE};\n", hakmem=False)
        self.alive(nginx)
        self.served(nginx)
        nginx.stop()

    def test_off_and_on(self):
        nginx = self.start("hakmem off;")
        self.alive(nginx)
        self.stock(nginx)
        for main, check in (("", self.served), ("hakmem off;", self.stock),
                            ("hakmem_lanes tiny;", self.served)):
            nginx.reload(main=main)
            self.alive(nginx)
            check(nginx)
        nginx.stop()

    def test_module_out_and_in(self):
        """Its functions stay, and so does what leads to them."""
        nginx = self.start()
        for path, check in (("", self.stock),
                            (nginx_server.MODULE, self.served)) * 2:
            nginx.hakmem = path
            nginx.reload()
            self.alive(nginx)
            check(nginx)
        nginx.stop()

    def test_one_process(self):
        nginx = self.start(master=False, workers=1)
        self.alive(nginx)
        self.served(nginx)
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
