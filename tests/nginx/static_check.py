"""An nginx with Lua, PAM and ModSecurity compiled in, as OpenResty and Kong are
built: `make check-nginx-static`.

All that these modules allocate is the program's then, and so HAKMEM's, while
those who free it are libraries: libpam, and LuaJIT, whose ffi.C.free is what
dlsym says. HAKMEM_STATIC_REQUESTS is how many requests the load makes, 10,000
if it is not set.
"""
import concurrent.futures
import contextlib
import os
import pathlib
import time
import unittest

import nginx_server
from nginx_case import Case, PAGE, SITE, put_files
from nginx_server import Load

REQUESTS = int(os.environ.get("HAKMEM_STATIC_REQUESTS", "10000"))
RELOADS = 20

# Locations answer with fixed texts, so that a load can tell a wrong one.
LUA = SITE + """
    lua_shared_dict words 64m;
    lua_ssl_trusted_certificate @PREFIX@/cert.pem;
    lua_socket_log_errors off;
    init_by_lua_block {
        -- 1 B to 1 MB, each power as probable as another.
        function some_size() return math.floor(2 ^ (math.random() * 20)) end

        function shared(size)
            local words = ngx.shared.words
            local key = "w" .. ngx.worker.pid() .. ngx.var.connection
            local value = string.rep(string.char(65 + size % 26), size)
            assert(words:set(key, value))
            assert(words:get(key) == value)
            assert(words:rpush(key .. "list", value))
            assert(words:lpop(key .. "list") == value)
            words:delete(key)
        end

        local ffi = require "ffi"
        ffi.cdef [[
            void *X509_NAME_new(void);
            void X509_NAME_free(void *);
            char *X509_NAME_oneline(void *, char *, int);
            char *BN_bn2hex(void *);
            void *BN_new(void);
            void BN_free(void *);
            void *malloc(size_t);
            void *realloc(void *, size_t);
            char *strdup(const char *);
            size_t malloc_usable_size(void *);
            void free(void *);
        ]]
        local C = ffi.C

        function crypto()
            local name = C.X509_NAME_new()
            local text = C.X509_NAME_oneline(name, nil, 0)
            assert(C.malloc_usable_size(text) > 0)
            C.free(text)
            text = C.realloc(C.X509_NAME_oneline(name, nil, 0), 40000)
            ffi.fill(text, 40000, 1)
            C.free(text)
            C.X509_NAME_free(name)
            local number = C.BN_new()
            text = ffi.cast("char *", C.BN_bn2hex(number))
            assert(ffi.string(text) == "0")
            C.free(text)
            C.BN_free(number)
            C.free(C.realloc(C.strdup("text"), some_size()))
            C.free(C.realloc(C.malloc(some_size()), some_size()))
            C.free(nil)
        end

        -- A connection that was kept may be closed by a worker that ends.
        local sessions
        function ask(port, tls)
            local socket, reused = ngx.socket.tcp()
            socket:settimeout(20000)
            local head
            repeat
                assert(socket:connect("127.0.0.1", port))
                reused = socket:getreusedtimes() > 0
                if tls and not reused then
                    sessions = assert(socket:sslhandshake(
                        sessions, "localhost", true))
                end
                assert(socket:send("GET /f1000 HTTP/1.1\\r\\n" ..
                                   "Host: localhost\\r\\n\\r\\n") or reused)
                head = socket:receiveuntil("\\r\\n\\r\\n")()
            until head or not reused
            assert(head and head:find("200 OK", 1, true))
            assert(#socket:receive(1000) == 1000)
            if math.random() < 0.5 then
                socket:setkeepalive(10000, 10)
            else
                socket:close()
            end
        end
        -- early
    }
    server {
        listen 127.0.0.1:@LUA@ backlog=4096;
        listen 127.0.0.1:@LUATLS@ ssl backlog=4096;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        root html;
        location /shared { content_by_lua_block {
            shared(some_size()) ngx.print("shared")
        } }
        location /sizes { content_by_lua_block {
            for power = 0, 20 do
                for size = 2 ^ power - 1, 2 ^ power + 1 do
                    if size > 0 and size <= 2 ^ 20 then shared(size) end
                end
            end
            ngx.print("sizes")
        } }
        location /crypto { content_by_lua_block {
            crypto() ngx.print("crypto")
        } }
        location /socket { content_by_lua_block {
            ask(@HTTP@) ngx.print("socket")
        } }
        location /sslsocket { content_by_lua_block {
            ask(@PEER@, true) ngx.print("sslsocket")
        } }
        location /all { content_by_lua_block {
            local threads = {
                ngx.thread.spawn(ask, @HTTP@),
                ngx.thread.spawn(ask, @PEER@, true),
            }
            for _ = 1, 3 do shared(some_size()) crypto() end
            for _, thread in ipairs(threads) do
                assert(ngx.thread.wait(thread))
            end
            ngx.print("all")
        } }
        location /pam {
            auth_pam "a realm";
            auth_pam_service_name "common-auth";
        }
        location /waf/ {
            modsecurity on;
            modsecurity_rules '
                SecRuleEngine On
                SecRequestBodyAccess On
                SecRule ARGS "@rx attack" "id:1,phase:2,deny,status:403,log"
                SecRule REQUEST_HEADERS:X-Word "@streq no" \\
                    "id:2,phase:1,deny,status:403,log"
            ';
            alias html/;
        }
    }
    server {
        listen 127.0.0.1:@PEER@ ssl backlog=4096;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        root html;
    }
"""

MODULES = ("ndk_http_module", "ngx_http_lua_module",
           "ngx_http_auth_pam_module", "ngx_http_modsecurity_module")


@unittest.skipUnless(all(nginx_server.compiled_in(name) for name in MODULES),
                     "not compiled in: run 'make check-nginx-static'")
class Static(Case):

    main = ""

    def site(self, main=None, early="", **options):
        nginx = nginx_server.Server(
            LUA.replace("@ECHO@", "1").replace("-- early", early),
            self.main if main is None else main,
            start=False, tls=True, patience=60, **options)
        self.addCleanup(nginx.destroy)
        put_files(nginx)
        nginx.start()
        return nginx

    def same(self, path, times=40, **options):
        """Answers of one location, plain and over TLS, also after reloads."""
        nginx = self.site(**options)
        for _ in range(3):
            for _ in range(times // 4):
                self.whole(nginx, path, path[1:].encode(), port="LUA")
                self.whole(nginx, path, path[1:].encode(), port="LUATLS",
                           tls=True)
            nginx.reload()
        self.served(nginx)
        nginx.stop()

    def test_shared_values(self):
        """What the C side of ngx.shared has allocated for a long value,
        resty.core frees by ffi.C.free."""
        self.same("/sizes", 12)
        self.same("/shared")

    def test_free_of_ffi(self):
        """libcrypto's blocks, libc's and its own."""
        self.same("/crypto")

    def test_free_found_by_the_master(self):
        """LuaJIT keeps what it has found, and what it has compiled."""
        self.same("/crypto", early="for _ = 1, 300 do crypto() end")

    def test_cosockets(self):
        self.same("/socket")

    def test_cosockets_over_tls(self):
        self.same("/sslsocket")

    def test_pam(self):
        """libpam frees what the conversation function has allocated. It
        waits after a refusal, which blocks the worker."""
        nginx = self.site()

        def ask(_):
            return nginx.get("/pam", "LUA", headers={
                "Authorization": "Basic bm9ib2R5OmI="})[0]

        self.assertEqual(nginx.get("/pam", "LUA")[0], 401)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            self.assertEqual(list(pool.map(ask, range(4))), [401] * 4)
        self.served(nginx)
        nginx.stop()

    def waf(self, main):
        nginx = self.site(main, expected=[r"ModSecurity: Access denied"])
        for _ in range(3):
            for _ in range(20):
                self.whole(nginx, "/waf/f1000?word=good", PAGE, port="LUA")
                for path, headers in (("/waf/f1?word=attack", {}),
                                      ("/waf/f1", {"X-Word": "no"})):
                    self.assertEqual(
                        nginx.get(path, "LUA", headers=headers)[0], 403)
            nginx.reload()
        self.served(nginx)
        nginx.stop()

    def test_rules(self):
        self.waf(self.main)

    def test_rules_on_the_module(self):
        main = self.main + "hakmem_objects libmodsecurity libstdc++;"
        if b"libjemalloc" not in pathlib.Path(nginx_server.NGINX).read_bytes():
            self.waf(main)
            return
        nginx = self.site()
        nginx.configure(main=main)
        status, said = nginx.test()
        self.assertEqual(status, 1)
        self.assertIn("libmodsecurity.so.3: its operator new is another"
                      " allocator's: libjemalloc", said)
        nginx.stop()

    def test_luajit_on_the_module(self):
        self.same("/all", main=self.main
                  + nginx_server.objects("libluajit-5.1"))

    def test_one_process(self):
        nginx = self.site(master=False, workers=1)
        for path in ("/all", "/sizes", "/crypto", "/all"):
            self.whole(nginx, path, path[1:].encode(), port="LUA")
        self.served(nginx)
        nginx.stop()

    def test_load(self):
        """Requests of all kinds while it is reloaded over and over."""
        nginx = self.site(workers=2)
        seconds = time.monotonic()
        with contextlib.ExitStack() as stack:
            loads = [stack.enter_context(Load(
                nginx, f"/{path}", path.encode(), port=port, threads=1,
                tls=port == "LUATLS", keepalive=keepalive))
                for path in ("shared", "crypto", "socket", "sslsocket", "all")
                for port, keepalive in (("LUA", False), ("LUATLS", True))]
            for done in range(RELOADS):
                nginx_server.until(
                    600, "the load's next requests", lambda: sum(
                        load.requests for load in loads)
                    >= REQUESTS * (done + 1) // (RELOADS + 1)
                    or any(load.failures for load in loads), nginx.story)
                nginx.reload()
                self.served(nginx)
            nginx_server.until(600, "the load's last requests", lambda: sum(
                load.requests for load in loads) >= REQUESTS
                or any(load.failures for load in loads), nginx.story)
        nginx.stop()
        print(f"{sum(load.requests for load in loads)} requests,"
              f" {RELOADS} reloads, {time.monotonic() - seconds:.0f} s,"
              " no failure")


class StaticTiny(Static):
    """The small lane alone."""

    main = "hakmem_lanes tiny; "


if __name__ == "__main__":
    unittest.main()
