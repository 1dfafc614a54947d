"""Other modules beside ours: Lua, Perl, stream; loaded before our workers
patch and after; their libraries on the module and not."""
import os
import pathlib
import unittest

import nginx_server
from nginx_case import Case, FILES, PAGE, SITE, listed
from nginx_server import Load

LUA_MODULES = ("ndk_http_module", "ngx_http_lua_module")
LUA = SITE + """
    lua_shared_dict words 1m;
    init_worker_by_lua_block {
        ngx.timer.every(0.05, function() ngx.shared.words:incr("ticks", 1, 0)
        end)
    }
    server {
        listen 127.0.0.1:@LUA@;
        root html;
        location /words { content_by_lua_block {
            local words, parts = ngx.shared.words, {}
            for at = 1, 300 do
                parts[at] = string.rep("w", at % 90)
                words:set("w" .. at, parts[at])
            end
            local all = 0
            for at = 1, 300 do all = all + #words:get("w" .. at) end
            ngx.req.read_body()
            ngx.say(all, " ", #table.concat(parts),
                    ngx.re.gsub("a1b2", "[0-9]", "x", "jo"))
        } }
        location /all { content_by_lua_block {
            local both = { ngx.location.capture_multi {
                { "/words" }, { "/words" } } }
            local socket = ngx.socket.tcp()
            assert(socket:connect("127.0.0.1", @HTTP@))
            assert(socket:send(
                "GET /f1000 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n"))
            local got = socket:receive("*a")
            socket:close()
            local co = ngx.thread.spawn(function() ngx.sleep(0.001)
                return 7 end)
            local _, seven = ngx.thread.wait(co)
            collectgarbage()
            ngx.print(both[1].body, both[2].body, #got > 1000, seven)
        } }
        location /filter { proxy_pass http://back/f20000;
            header_filter_by_lua_block { ngx.header.content_length = nil }
            body_filter_by_lua_block { ngx.arg[1] = string.upper(ngx.arg[1])
            } }
        location /ffi { content_by_lua_block {
            local ffi = require "ffi"
            ffi.cdef "void *malloc(size_t); void free(void *); char *strdup(const char *);"
            for size = 1, 2000, 13 do
                ffi.C.free(ffi.C.malloc(size))
                ffi.C.free(ffi.C.strdup(string.rep("s", size)))
            end
            ngx.print("ffi")
        } }
        # What lua-resty-core's C side allocates, and libcrypto, Lua frees by
        # the name free.
        location /dict { content_by_lua_block {
            local words, all = ngx.shared.words, 0
            for _, size in ipairs { 1, 4000, 4097, 5000, 70000, 300000 } do
                assert(words:set("large", string.rep("x", size)))
                all = all + #words:get("large")
                words:delete("large")
            end
            ngx.print(all)
        } }
        location /crypto { content_by_lua_block {
            local ffi = require "ffi"
            ffi.cdef [[ void *X509_NAME_new(void); void X509_NAME_free(void *);
                char *X509_NAME_oneline(void *, char *, int);
                void *realloc(void *, size_t); void free(void *);
                size_t malloc_usable_size(void *); ]]
            local crypto = ffi.load(ffi.os == "Linux" and "libcrypto.so.3")
            for _ = 1, 100 do
                local name = crypto.X509_NAME_new()
                local text = crypto.X509_NAME_oneline(name, nil, 0)
                assert(ffi.C.malloc_usable_size(text) >= 1)
                text = ffi.cast("char *", ffi.C.realloc(text, 3000))
                ffi.C.free(text)
                crypto.X509_NAME_free(name)
            end
            ngx.print("crypto")
        } }
    }
"""
LUA_WORDS = str(sum(at % 90 for at in range(1, 301)))
LUA_ANSWER = f"{LUA_WORDS} {LUA_WORDS}axbx2\n".encode()

PERL_MODULES = ("ngx_http_perl_module",)
PERL = SITE + """
    perl_modules perl;
    perl_set $words 'sub {
        my $r = shift;
        my %h = map { $_ => "v" x ($_ % 70) } 1..100;
        return length join "", @h{sort keys %h};
    }';
    server {
        listen 127.0.0.1:@PERL@;
        location /set { return 200 $words; }
        location /handler { perl 'sub {
            my $r = shift;
            $r->send_http_header("text/plain");
            return OK if $r->header_only;
            $r->print("perl ", join ",", map { $_ * 2 } 1..50);
            return OK;
        }'; }
        location /late { perl 'sub {
            my $r = shift;
            require POSIX; require List::Util; require Data::Dumper;
            require File::Glob; require Socket; require Encode;
            my $text = join " ", POSIX::strftime("%Y", gmtime(0)),
                List::Util::sum(1..10),
                length Encode::encode("UTF-16", "abc" x 100),
                Data::Dumper->new([{ a => [1..9] }])->Indent(0)->Terse(1)
                    ->Dump,
                scalar(my @found = File::Glob::bsd_glob("/*/"));
            $r->send_http_header("text/plain");
            $r->print($text =~ /^1970 55 602 \\{.*\\} [1-9]/ ? "late" : $text);
            return OK;
        }'; }
    }
"""
PERL_WORDS = str(sum(at % 70 for at in range(1, 101))).encode()
PERL_LIST = b"perl " + b",".join(b"%d" % (2 * at) for at in range(1, 51))


def needs(*modules):
    missing = [name for name in modules if not nginx_server.has_module(name)]
    return unittest.skipIf(missing, f"without {', '.join(missing)}")


@needs(*LUA_MODULES)
class Lua(Case):

    def all_of_it(self, main):
        nginx = self.server(LUA, main, modules=LUA_MODULES)
        for _ in range(20):
            self.whole(nginx, "/words", LUA_ANSWER, port="LUA")
            self.whole(nginx, "/all", 2 * LUA_ANSWER + b"true7", port="LUA")
            self.whole(nginx, "/ffi", b"ffi", port="LUA")
            self.whole(nginx, "/dict", b"383098", port="LUA")
            self.whole(nginx, "/crypto", b"crypto", port="LUA")
            self.whole(nginx, "/filter", FILES["f20000"].upper(), port="LUA")
        with Load(nginx, "/words", LUA_ANSWER, port="LUA"):
            nginx.wrk("/all", "LUA")
            for _ in range(3):
                nginx.reload()
        nginx.wrk("/filter", "LUA")
        self.served(nginx)
        nginx.stop()

    def test_beside(self):
        self.all_of_it("")

    def test_on_the_module(self):
        self.all_of_it(listed("Lua") + " hakmem_lanes all;")

    def test_one_of_them(self):
        """Who frees its blocks need not be named."""
        self.all_of_it(nginx_server.objects("ngx_http_lua_module"))


@needs("ngx_nchan_module")
class Nchan(Case):
    """A pointer to free in a module's data is a slot like any other."""

    def test_served(self):
        nginx = self.server(SITE, modules=["ngx_nchan_module"])
        for _ in range(20):
            self.whole(nginx)
        self.served(nginx)
        self.assertEqual(nginx.find("frees that stay"), [])
        nginx.stop()


@needs("ngx_http_auth_pam_module")
class Pam(Case):
    """The module's answers are freed by libpam, which imports nothing of
    nginx, and by what libpam loads."""

    FILE = pathlib.Path("/etc/pam.d/hakmem-test")

    @unittest.skipIf(os.geteuid(), "not as root")
    def test_refused(self):
        self.FILE.write_text("auth required pam_unix.so\n")
        self.addCleanup(self.FILE.unlink)
        # As if it were a part of nginx: it allocates from us.
        nginx = self.server(SITE.replace("root html;", """root html;
            auth_pam "x"; auth_pam_service_name "hakmem-test";"""),
            nginx_server.objects("ngx_http_auth_pam_module"),
            modules=["ngx_http_auth_pam_module"],
            expected=["user 'nobody' was not authenticated"])
        for _ in range(2):
            status = nginx.get("/f1000", headers={
                "Authorization": "Basic bm9ib2R5OmI="})[0]
            self.assertEqual(status, 401)
        self.served(nginx)
        nginx.stop()


@needs(*PERL_MODULES)
class Perl(Case):

    def all_of_it(self, main):
        nginx = self.server(PERL, main, modules=PERL_MODULES)
        for _ in range(20):
            self.whole(nginx, "/set", PERL_WORDS, port="PERL")
            self.whole(nginx, "/handler", PERL_LIST, port="PERL")
            # dlopen in a worker that has patched already.
            self.whole(nginx, "/late", b"late", port="PERL")
        with Load(nginx, "/set", PERL_WORDS, port="PERL"):
            nginx.wrk("/late", "PERL")
            for _ in range(3):
                nginx.reload()
        nginx.wrk("/handler", "PERL")
        self.served(nginx)
        nginx.stop()

    def test_beside(self):
        self.all_of_it("")

    def test_on_the_module(self):
        self.all_of_it(listed("Perl"))

    def test_defaults_named(self):
        self.all_of_it(listed("Perl").replace(";", " nginx libcrypto;"))


class Later(Case):
    """load_module of another module in a reload."""

    @needs(*LUA_MODULES, *PERL_MODULES)
    def test_added_by_reload(self):
        nginx = self.server()
        with Load(nginx, "/f1000", PAGE):
            for modules, http, path, body, port in (
                    (LUA_MODULES, LUA, "/words", LUA_ANSWER, "LUA"),
                    (LUA_MODULES + PERL_MODULES, PERL, "/late", b"late",
                     "PERL"),
                    ((), SITE, "/f1000", PAGE, "HTTP"),
                    (PERL_MODULES, PERL, "/set", PERL_WORDS, "PERL")):
                nginx.modules = list(modules)
                nginx.reload(http=http.replace("@ECHO@", "1"))
                self.served(nginx)
                self.whole(nginx, path, body, port=port)
        nginx.stop()

    @needs("ngx_stream_module")
    def test_stream(self):
        nginx = self.server(
            stream="stream { server { listen 127.0.0.1:@STREAM@;"
            " proxy_pass 127.0.0.1:@HTTP@; } server { listen 127.0.0.1:@TLS@"
            " ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem;"
            " proxy_pass 127.0.0.1:@HTTP@; } }", tls=True,
            modules=["ngx_stream_module"])
        for _ in range(30):
            self.whole(nginx, "/f300000", FILES["f300000"], port="STREAM")
            self.whole(nginx, "/f300000", FILES["f300000"], port="TLS",
                       tls=True)
        nginx.wrk("/f1000", "STREAM")
        nginx.wrk("/f1000", "TLS", scheme="https", close=True)
        self.served(nginx)
        nginx.stop()

    def test_without_http(self):
        """Our module needs no http{}."""
        if not nginx_server.has_module("ngx_stream_module"):
            self.skipTest("without ngx_stream_module")
        nginx = self.server("", "", stream="stream { server { listen"
                            " 127.0.0.1:@STREAM@; return hello; } }",
                            modules=["ngx_stream_module"])
        for _ in range(50):
            with nginx.socket("STREAM") as plain:
                self.assertEqual(plain.recv(100), b"hello")
        self.served(nginx)
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
