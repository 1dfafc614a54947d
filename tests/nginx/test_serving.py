"""Answers of every kind are right, and none fails under load; first with
small requests on the module, then with all."""
import gzip
import subprocess
import unittest

import nginx_server
from nginx_case import (Case, Echo, FILES, PAGE, SITE, TLS, exchange,
                        put_files, upgrade)

SECONDS = 1  # of each load


class Serving(Case):
    """One server for all tests of the class."""

    main = "thread_pool default threads=4; hakmem_lanes tiny;"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.echo = cls.enterClassContext(Echo())
        cls.nginx = cls.enterClassContext(nginx_server.Server(
            SITE.replace("@ECHO@", str(cls.echo.port)) + TLS, cls.main,
            tls=True, connections=2048, start=False))
        put_files(cls.nginx)
        cls.nginx.start()

    def setUp(self):
        self.served(self.nginx)

    def tearDown(self):
        self.served(self.nginx)
        self.nginx.check()

    # ---- static files -------------------------------------------------------

    def test_files(self):
        for name, data in FILES.items():
            self.whole(self.nginx, f"/{name}", data)

    def test_part_of_a_file(self):
        status, _, body = self.nginx.get(
            "/f3000000", headers={"Range": "bytes=299999-1300000"})
        self.assertEqual(status, 206)
        self.assertEqual(body, FILES["f3000000"][299999:1300001])

    def test_no_file(self):
        self.assertEqual(self.nginx.get("/none")[0], 404)
        self.assertEqual(self.nginx.get("/list/")[2].count(b"href"),
                         len(FILES) + 3)

    def test_keepalive(self):
        connection = self.nginx.connect()
        for _ in range(200):
            connection.request("GET", "/f1000")
            self.assertEqual(connection.getresponse().read(), PAGE)
        connection.close()
        self.nginx.wrk("/f1000", seconds=SECONDS)
        self.nginx.ab("/f20000", requests=2000, keepalive=True)

    def test_new_connections(self):
        self.nginx.wrk("/f1000", seconds=SECONDS, close=True)

    def test_long_header_lines(self):
        """More than one buffer of them."""
        lines = {f"X-Line-{at}": "v" * 5000 for at in range(4)}
        for _ in range(20):
            self.whole(self.nginx, headers=lines)
        self.assertEqual(
            self.nginx.get(headers={"X-Line": "v" * 9000})[0], 400)

    def test_uploads(self):
        for size in (0, 100, 8192, 100000, 3000000):
            data = FILES["f3000000"][:size]
            path = f"/put/{size}"
            status, _, _ = self.nginx.get(path, method="PUT", body=data)
            self.assertIn(status, (201, 204))
            self.assertEqual(
                (self.nginx.prefix / path[1:]).read_bytes(), data)
            self.assertEqual(
                self.nginx.get(path, method="DELETE")[0], 204)

    # ---- what filters make --------------------------------------------------

    def test_gzip(self):
        for name in ("f1000", "f20000", "f3000000"):
            status, headers, body = self.nginx.get(
                f"/gzip/{name}", headers={"Accept-Encoding": "gzip"})
            self.assertEqual((status, headers["Content-Encoding"]),
                             (200, "gzip"))
            self.assertEqual(gzip.decompress(body), FILES[name])
        self.nginx.wrk("/gzip/f20000", seconds=SECONDS,
                       headers=["Accept-Encoding: gzip"])

    def test_gunzip(self):
        for _ in range(20):
            self.whole(self.nginx, "/gunzip/f20000")

    def test_subrequests(self):
        wanted = FILES["f1"] + b"!" + FILES["f20000"] + b"."
        self.whole(self.nginx, "/ssi/page", wanted)
        self.nginx.wrk("/ssi/page", seconds=SECONDS)

    # ---- upstreams ----------------------------------------------------------

    def test_proxy(self):
        for name in ("f1", "f20000", "f3000000"):
            self.whole(self.nginx, f"/proxy/{name}", FILES[name])
            self.whole(self.nginx, f"/proxy-close/{name}", FILES[name])
        self.nginx.wrk("/proxy/f1000", seconds=SECONDS)
        self.nginx.wrk("/proxy-close/f20000", seconds=SECONDS, close=True)

    def test_body_to_upstream(self):
        """nginx's own files take no POST, which is an answer too."""
        for size in (1, 8192, 200000):
            status, _, _ = self.nginx.get("/body/f1", method="POST",
                                          body=b"b" * size)
            self.assertEqual(status, 405)

    def test_tunnel(self):
        tunnels = [upgrade(self.nginx) for _ in range(50)]
        for size in (1, 125, 4096, 70000):
            for at, tunnel in enumerate(tunnels):
                data = bytes([at]) * size
                self.assertEqual(exchange(tunnel, data), data)
        for tunnel in tunnels:
            tunnel.close()

    # ---- TLS and HTTP/2 -----------------------------------------------------

    def test_handshakes(self):
        for _ in range(30):
            self.whole(self.nginx, "/f1000", PAGE, port="TLS", tls=True)
        self.nginx.wrk("/f1000", "TLS", scheme="https", seconds=SECONDS,
                       close=True)

    def test_tls_keepalive(self):
        self.whole(self.nginx, "/f3000000", FILES["f3000000"], port="TLS",
                   tls=True)
        self.nginx.wrk("/f20000", "TLS", scheme="https", seconds=SECONDS)
        self.nginx.wrk("/proxy/f20000", "TLS", scheme="https",
                       seconds=SECONDS)

    def test_no_handshake(self):
        """Plain text, and silence, on the port of TLS."""
        for _ in range(50):
            with self.nginx.socket("TLS") as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertIn(b"400", plain.recv(100))
            self.nginx.socket("TLS").close()

    def test_http2(self):
        done = subprocess.run(
            ["curl", "-s", "-k", "--http2", "-w", "%{http_version}", "-o",
             str(self.nginx.prefix / "got"),
             self.nginx.url("/f3000000", "TLS", "https")],
            capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "2")
        self.assertEqual((self.nginx.prefix / "got").read_bytes(),
                         FILES["f3000000"])
        for path in ("/f1000", "/proxy/f20000", "/gzip/f20000"):
            done = subprocess.run(
                ["h2load", "-n", "3000", "-c", "10", "-m", "20", "-H",
                 "accept-encoding: gzip",
                 self.nginx.url(path, "TLS", "https")],
                capture_output=True, text=True, check=True)
            self.assertIn("3000 succeeded, 0 failed, 0 errored", done.stdout)
            self.assertIn("status codes: 3000 2xx", done.stdout)

    # ---- threads ------------------------------------------------------------

    def test_aio_threads(self):
        for path in ("/aio/", "/aio-sendfile/"):
            for name in ("f20000", "f3000000"):
                self.whole(self.nginx, path + name, FILES[name])
            self.nginx.wrk(path + "f300000", seconds=SECONDS)
        self.assertTrue(any(
            len(list((nginx_server.pathlib.Path("/proc")
                      / str(pid) / "task").iterdir())) > 4
            for pid in self.nginx.workers()), "no thread was started")


class ServingAll(Serving):
    """The same with every size on the module."""

    main = "thread_pool default threads=4; hakmem_lanes all;"


class ServingObjects(Serving):
    """The same with libssl, zlib and PCRE on it, as far as they are there."""

    main = ("thread_pool default threads=4;"
            f" hakmem_objects libssl libz {nginx_server.pcre()};")


if __name__ == "__main__":
    unittest.main()
