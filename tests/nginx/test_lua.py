"""Each worker's Lua VM has a heap of ours: its statistics, its limit, and its
garbage, which goes back."""
import json
import unittest

import nginx_server
from nginx_case import Case, SITE
from test_modules import LUA_MODULES, needs

MB = 1 << 20

LUA = SITE.replace("location /list/", "location = /json { hakmem_status json; }"
                   " location = /prometheus { hakmem_status prometheus; }"
                   " location /list/") + """
    server {
        listen 127.0.0.1:@LUA@;
        location /alive { content_by_lua_block { ngx.print("alive") } }
        location /garbage { content_by_lua_block {
            local t = {}
            for i = 1, 250000 do t[i] = {i, i} end
            ngx.print(#t)
        } }
        location /keep { content_by_lua_block {
            kept = kept or {}
            package.loaded.kept = kept
            for i = 1, 100000 do kept[#kept + 1] = {i, i} end
            ngx.print("kept")
        } }
        location /churn { content_by_lua_block {
            for i = 1, 3000000 do local t = {i, tostring(i)} end
            ngx.print("churned")
        } }
        location /run-away { content_by_lua_block {
            local t = {}
            while true do t[#t + 1] = {} end
        } }
        location /caught { content_by_lua_block {
            local ok, why = pcall(function()
                local t = {}
                while true do t[#t + 1] = {} end
            end)
            ngx.print(why)
        } }
    }
"""


@needs(*LUA_MODULES)
class Lua(Case):

    def start(self, main="", workers=1, **options):
        return self.server(LUA, main, modules=LUA_MODULES, workers=workers,
                           **options)

    def lua(self, nginx, path):
        status, _, body = nginx.get(path, port="LUA")[:3]
        return status, body

    def row(self, nginx):
        [worker] = json.loads(nginx.get("/json")[2])["workers"]
        return worker

    def test_statistics(self):
        nginx = self.start("hakmem_lua_limit 256m;")
        self.whole(nginx, "/alive", b"alive", port="LUA")
        nginx_server.until(20, "a VM on the page",
                           lambda: self.row(nginx)["lua_live_bytes"] > 100000)
        row = self.row(nginx)
        self.assertGreaterEqual(row["lua_peak_bytes"], row["lua_live_bytes"])
        self.assertEqual(row["lua_limit_bytes"], 256 * MB)
        text = nginx.get("/prometheus")[2].decode()
        for name in ("lua_live_bytes", "lua_peak_bytes", "lua_limit_bytes",
                     "lua_limit_refusals_total", "lua_collections_total"):
            self.assertRegex(text, rf"(?m)^hakmem_nginx_{name}\b")
        nginx.stop()

    def test_garbage_goes_back(self):
        nginx = self.start()
        pid = nginx.worker()
        self.whole(nginx, "/alive", b"alive", port="LUA")
        before = nginx_server.memory(pid)["Anonymous"]
        self.whole(nginx, "/garbage", b"250000", port="LUA")
        nginx_server.until(60, "the garbage is back", lambda:
                           nginx_server.memory(pid)["Anonymous"]
                           < before + 4096, step=0.2)
        row = self.row(nginx)
        self.assertGreater(row["lua_peak_bytes"], 15 * MB)
        self.assertGreater(row["lua_collections"], 0)
        self.whole(nginx, "/alive", b"alive", port="LUA")
        nginx.stop()

    def test_limit(self):
        nginx = self.start("hakmem_lua_limit 32m;", expected=[
            r"not enough memory", r"hakmem: Lua had \d+ bytes"])
        pid = nginx.worker()
        for _ in range(3):
            self.assertEqual(self.lua(nginx, "/run-away")[0], 500)
            self.whole(nginx, "/alive", b"alive", port="LUA")
            self.whole(nginx, "/caught", b"not enough memory", port="LUA")
        self.whole(nginx, "/churn", b"churned", port="LUA")
        self.whole(nginx, "/garbage", b"250000", port="LUA")
        self.assertEqual(nginx.worker(), pid)
        nginx_server.until(20, "refusals on the page",
                           lambda: self.row(nginx)["lua_limit_refusals"] >= 6)
        self.assertLessEqual(self.row(nginx)["lua_peak_bytes"], 48 * MB)
        self.assertTrue(nginx.find(r"hakmem: Lua had \d+ bytes, "
                                   r"hakmem_lua_limit is 33554432"))
        nginx.stop()

    def test_soft(self):
        nginx = self.start("hakmem_lua_limit 64m soft=4m;",
                           expected=[r"hakmem: Lua had \d+ bytes"])
        for _ in range(3):
            self.whole(nginx, "/churn", b"churned", port="LUA")
        self.assertLess(self.row(nginx)["lua_peak_bytes"], 32 * MB)
        nginx.stop()

    def test_reloads(self):
        nginx = self.start()
        for _ in range(4):
            self.whole(nginx, "/garbage", b"250000", port="LUA")
            nginx.reload()
            self.whole(nginx, "/alive", b"alive", port="LUA")
        nginx.stop()

    def test_off(self):
        nginx = self.start("hakmem off;")
        self.whole(nginx, "/garbage", b"250000", port="LUA")
        nginx.stop()

    def test_wrong_values(self):
        for value in ("1k", "", "10m soft=20m", "10m hard=5m", "many"):
            with self.subTest(value=value):
                nginx = nginx_server.Server(
                    LUA, f"hakmem_lua_limit {value};", modules=LUA_MODULES,
                    start=False)
                self.addCleanup(nginx.destroy)
                code, text = nginx.test()
                self.assertNotEqual(code, 0)
                self.assertRegex(text, "hakmem_lua_limit.* directive, it (must "
                                 "be|takes) \"off\", or a size of at least 1m")


if __name__ == "__main__":
    unittest.main()
