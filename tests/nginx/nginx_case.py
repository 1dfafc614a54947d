"""What the tests of the nginx module share: files, a site, an upstream that
upgrades, and the proof that the module was at work."""
import asyncio
import gzip
import pathlib
import re
import threading
import unittest

import nginx_server

nginx_server.end_on_term()

README = pathlib.Path(__file__).resolve().parents[2] / "adapters/nginx/README.md"

# Names and bytes of the files that the sites serve.
FILES = {f"f{size}": bytes(range(256)) * (size // 256) + b"e" * (size % 256)
         for size in (0, 1, 1000, 20000, 300000, 3000000)}
PAGE = FILES["f1000"]

# Every kind of answer the tests ask for. @ECHO@ is replaced by the test.
SITE = """
    keepalive_requests 1000000;
    upstream back { server 127.0.0.1:@BACK@; keepalive 8; }
    server {
        listen 127.0.0.1:@BACK@ backlog=4096;
        root html;
        location /packed/ { gzip_static always; alias html/; }
    }
    server {
        listen 127.0.0.1:@HTTP@ backlog=8192;
        root html;
        location /gzip/ {
            gzip on; gzip_types *; gzip_min_length 100; alias html/;
        }
        location /gunzip/ { gunzip on; proxy_pass http://back/packed/;
            proxy_http_version 1.1; proxy_set_header Connection ""; }
        location /proxy/ { proxy_pass http://back/; proxy_http_version 1.1;
            proxy_set_header Connection ""; }
        location /proxy-close/ { proxy_pass http://127.0.0.1:@BACK@/; }
        location /body/ { client_body_buffer_size 8k; proxy_pass
            http://127.0.0.1:@BACK@/; client_max_body_size 10m; }
        location /ssi/ { ssi on; ssi_types *; alias html/; }
        location /list/ { autoindex on; alias html/; }
        location /put/ { dav_methods PUT DELETE; alias put/;
            create_full_put_path on; client_max_body_size 10m; }
        location /upgrade/ {
            proxy_pass http://127.0.0.1:@ECHO@; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade"; }
        location /aio/ { aio threads; directio 4k; output_buffers 2 32k;
            alias html/; }
        location /aio-sendfile/ { aio threads; sendfile on; alias html/; }
    }
"""
TLS = """
    server {
        listen 127.0.0.1:@TLS@ ssl http2 backlog=8192;
        ssl_certificate @PREFIX@/cert.pem;
        ssl_certificate_key @PREFIX@/key.pem;
        ssl_session_cache shared:tls:1m;
        root html;
        location /proxy/ { proxy_pass http://127.0.0.1:@BACK@/; }
        location /gzip/ {
            gzip on; gzip_types *; gzip_min_length 100; alias html/;
        }
    }
"""


def listed(name):
    """The `hakmem_objects ...;` that the README recommends for a module."""
    [row] = re.findall(rf"(?m)^\| {name} \(.*", README.read_text())
    return re.search(r"hakmem_objects [^;]*;", row)[0]


class Echo:
    """An upstream: answers an upgrade with 101, then sends back what comes."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever,
                                       daemon=True)
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=4096),
            self.loop).result(10)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        async def end():
            self.server.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    @staticmethod
    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n"
                         b"Upgrade: echo\r\nConnection: Upgrade\r\n\r\n")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def upgrade(nginx, path="/upgrade/"):
    """A socket that is tunnelled to the upstream."""
    tunnel = nginx.socket()
    tunnel.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
                   "Upgrade: echo\r\nConnection: Upgrade\r\n\r\n".encode())
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        got = tunnel.recv(1)
        if not got:
            break
        said += got
    if not said.startswith(b"HTTP/1.1 101"):
        raise nginx_server.Complaint(f"no upgrade: {said!r}")
    return tunnel


def exchange(tunnel, data):
    """Sends, and returns as many bytes as were sent."""
    tunnel.sendall(data)
    got = b""
    while len(got) < len(data):
        part = tunnel.recv(65536)
        if not part:
            break
        got += part
    return got


def put_files(nginx):
    for name, data in FILES.items():
        nginx.write(f"html/{name}", data)
    nginx.write("html/f20000.gz", gzip.compress(FILES["f20000"]))
    nginx.write("html/page", b"<!--# include virtual=\"/ssi/f1\" -->!"
                b"<!--# include virtual=\"/proxy/f20000\" -->.")


def took(nginx):
    """The pids of the workers that say they took slots over."""
    pids = set()
    for line in nginx.find(nginx_server.SLOTS.pattern):
        found = nginx_server.SLOTS.search(line)
        pid = re.search(r"\] (\d+)#", line)
        if pid and int(found[1]) > 0:
            pids.add(int(pid[1]))
    return pids


@unittest.skipUnless(nginx_server.has_nginx(),
                     "nginx is not installed: run 'make install-deps'")
class Case(unittest.TestCase):
    """A test with servers of its own."""

    def server(self, http=SITE, main="", *args, **options):
        """A running server with the files; ended and judged at the end of
        the test."""
        nginx = nginx_server.Server(http.replace("@ECHO@", "1"), main, *args,
                                    start=False, **options)
        self.addCleanup(nginx.destroy)
        put_files(nginx)
        nginx.start()
        return nginx

    def served(self, nginx, workers=None):
        """The workers, those of now if not given, ran on the module."""
        workers = set(workers or nginx.workers())
        self.assertTrue(workers)
        self.assertEqual(workers - took(nginx), set(),
                         "workers without a slot\n" + nginx.story())

    def stock(self, nginx):
        """The workers of now run without it."""
        self.assertEqual(set(nginx.workers()) & took(nginx), set(),
                         nginx.story())

    def whole(self, nginx, path="/f20000", body=FILES["f20000"], **how):
        """An answer is 200 and has this body. Returns its headers."""
        status, headers, got = nginx.get(path, **how)
        self.assertEqual(status, 200, path)
        if got != body:
            self.fail(f"{path}: a body of {len(got)} bytes that is another")
        return headers
