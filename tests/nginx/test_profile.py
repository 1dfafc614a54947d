"""hakmem_profile: who holds a worker's memory, by phase, location, module and
function; the page, its arguments, hakmem_profile_rate."""
import contextlib
import gzip
import json
import os
import pathlib
import signal
import tempfile
import threading
import unittest

import nginx_server
from nginx_case import Echo, FILES, SITE as KINDS, TLS, exchange, upgrade
from nginx_server import until
from profile_case import Pprof, ProfileCase, SAMPLE, SITE, stacks
from valgrind_check import by_http2

LIBRARY = pathlib.Path(os.environ.get("HAKMEM_BUILD", ".")) / "libhakmem.so"
FORMS = '"html", "pprof", "collapsed" or "speedscope"'


class Planted(ProfileCase):
    """A leak of 5 %, a cache, blocks that fragment; counted by themselves."""

    def test_agrees(self):
        nginx = self.sampled("8k")
        self.plant(nginx, 96, at_once=4)
        self.agrees(nginx, 8 << 10)
        nginx.stop()

    def test_what_grows(self):
        """Of what has come during the wait the leak is the most."""
        nginx = self.sampled("8k")
        self.plant(nginx, 16, at_once=4)         # the cache is full
        for _ in range(10):
            before = self.truth(nginx)["leak"].live
            grown = self.while_waiting(nginx)
            if self.truth(nginx)["leak"].live - before > 4 << 20:
                break
        top = grown.most_common(1)[0][0]
        self.assertIn("location=/leak", top)
        self.assertIn("ngx_http_hakmem_sample_leak", top)
        nginx.stop()

    def while_waiting(self, nginx):
        """What has grown during two seconds in which all goes on."""
        answers = []
        thread = threading.Thread(target=lambda: answers.append(
            nginx.get("/heap?seconds=2&format=collapsed")))
        thread.start()
        while not answers:
            self.plant(nginx, 4, at_once=4)
            if not thread.is_alive():
                break
        thread.join()
        self.assertEqual(answers[0][0], 200)
        return stacks(answers[0][2])


class Where(ProfileCase):
    """Requests of every kind: nothing breaks, and where it is known it is
    told."""

    def everything(self, nginx):
        for name in ("f1000", "f20000", "f300000"):
            for path in ("/", "/proxy/", "/proxy-close/", "/aio/", "/gzip/"):
                self.whole(nginx, path + name, FILES[name])
        self.assertEqual(nginx.get("/none")[0], 404)
        self.assertEqual(nginx.get("/ssi/page")[0], 200)
        self.assertEqual(nginx.get("/gunzip/f20000")[0], 200)
        self.assertEqual(nginx.get("/body/f1", method="POST",
                                   body=b"b" * 100000)[0], 405)
        self.assertIn(nginx.get("/put/it", method="PUT",
                                body=FILES["f20000"])[0], (201, 204))
        for _ in range(3):
            self.whole(nginx, "/gzip/f300000", FILES["f300000"], port="TLS",
                       tls=True)
        self.assertEqual(by_http2(nginx, "/proxy/f300000"), "2 200")
        with upgrade(nginx) as tunnel:
            for size in (1, 5000):
                self.assertEqual(exchange(tunnel, b"t" * size), b"t" * size)
        nginx.ab("/proxy/f20000", requests=200, connections=20,
                 keepalive=True)
        # Clients that go in the middle.
        for _ in range(20):
            with nginx.socket() as one:
                one.sendall(b"GET /proxy/f3000000 HTTP/1.1\r\nHost: x\r\n\r\n")
                one.recv(1000)

    def kinds(self, main, **options):
        with Echo() as echo:
            site = KINDS.replace("@ECHO@", str(echo.port)).replace(
                "location /gzip/", "location = /heap { hakmem_profile; }"
                " location /gzip/", 1)
            nginx = self.sampled("1k", site + TLS, "thread_pool default"
                                 " threads=2;" + main, tls="prime256v1",
                                 **options)
            self.everything(nginx)
            yield nginx

    def test_told(self):
        for nginx in self.kinds(""):
            found = self.collapsed(nginx, "value=allocated")
            starts = {frames[:3] for frames in found}
            for start in (("nginx", "phase=content", "location=/proxy/"),
                          ("nginx", "phase=upstream", "location=/proxy/"),
                          ("nginx", "phase=content", "location=/gzip/"),
                          ("nginx", "phase=content", "location=/ssi/")):
                self.assertIn(start, starts)
            self.assertIn("event", {frames[1] for frames in found})
            self.assertEqual({frames[0] for frames in found}, {"nginx"})
            # Not by the title that it has given itself.
            self.assertFalse(any("worker process" in frame
                                 for frames in found for frame in frames))
            # libcrypto is served, and has no module's name.
            self.assertTrue(any("libcrypto.so.3" in frames
                                for frames in found))
            nginx.stop()

    def test_accept_mutex(self):
        """nginx posts the events itself: they are told as such."""
        for nginx in self.kinds("", events="accept_mutex on;"):
            self.collapsed(nginx)
            nginx.stop()

    def test_switched(self):
        """On and off under load, requests of both times in the midst."""
        nginx = self.sampled(None)
        with nginx_server.Load(nginx, "/f20000", FILES["f20000"],
                               keepalive=True):
            for _ in range(4):
                found = self.collapsed(
                    nginx, "seconds=1&rate=1k&value=allocated")
                self.assertIn("phase=content", {one[1] for one in found})
        nginx.stop()

    def test_one_process(self):
        """No master: a reload switches it under a kept connection. (Stock
        nginx takes no new ones after that, in this mode.)"""
        nginx = self.sampled("1k", master=False)
        with contextlib.closing(nginx.connect()) as kept:
            def get(path):
                kept.request("GET", path)
                answer = kept.getresponse()
                return answer.status, answer.read()

            for reloads, rate in enumerate(("off", "2k", "1k"), 1):
                self.assertEqual(get("/f20000"), (200, FILES["f20000"]))
                nginx.configure(main=f"load_module {SAMPLE};\n"
                                f"hakmem_profile_rate {rate};")
                os.kill(nginx.process.pid, signal.SIGHUP)
                until(20, "it has been read", lambda: len(nginx.find(
                    "using the .* event method")) > reloads)
                self.assertEqual(get("/f20000"), (200, FILES["f20000"]))
                self.assertEqual(get("/leak?n=100")[0], 200)
                self.assertEqual(get("/heap")[0],
                                 409 if rate == "off" else 200)
        nginx.stop()

    def test_gone(self):
        """A pipelined request is made in the phase of the one before, which
        is freed by then: its location is not looked for."""
        nginx = self.sampled("1k")
        with nginx.socket() as one:
            one.sendall(b"GET /leak?n=1 HTTP/1.1\r\nHost: x\r\n\r\n" * 60)
            got = b""
            while got.count(b"200 OK") < 60 or not got.endswith(b"\n"):
                part = one.recv(65536)
                self.assertTrue(part, got)
                got += part
        found = {frames[1:3]
                 for frames in self.collapsed(nginx, "value=allocated")
                 if "ngx_http_create_request" in frames}
        self.assertIn("phase=content", {frames[0] for frames in found})
        self.assertFalse([frames for frames in found
                          if frames[1].startswith("location=")])
        nginx.stop()

    def test_requests(self):
        """Only if they are asked for, and without arguments."""
        nginx = self.sampled("1 requests")
        with contextlib.closing(nginx.connect()) as connection:
            for path in ("/leak?n=9&secret=1", "/leak/%c3%a4%3b"):
                connection.request("GET", path)
                connection.getresponse().read()
        found = {frame for frames in self.collapsed(nginx)
                 for frame in frames}
        told = sorted(frame for frame in found
                      if frame.startswith("request="))
        self.assertEqual(len(told), 2)
        self.assertRegex(told[0], r"^request=\*\d+\.1 /leak$")
        self.assertRegex(told[1], r"^request=\*\d+\.2 /leak/%C3%A4:$")
        self.assertFalse(any("secret" in one for one in found))
        nginx.stop()


class Page(ProfileCase):

    def test_forms(self):
        nginx = self.sampled()
        self.plant(nginx, 4)
        headers, body = self.page(nginx)
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        self.assertTrue(body.endswith(b"</html>\n"))
        self.assertIn(b"location=/leak", body)
        headers, body = self.page(nginx, "format=speedscope")
        self.assertEqual(headers["Content-Type"], "application/json")
        names = [frame["name"]
                 for frame in json.loads(body)["shared"]["frames"]]
        self.assertIn("location=/leak", names)
        headers, body = self.page(nginx, "format=collapsed")
        self.assertEqual(headers["Content-Type"],
                         "text/plain; charset=utf-8")
        headers, body = self.page(nginx, "format=pprof")
        self.assertEqual(headers["Content-Type"], "application/octet-stream")
        self.assertTrue(gzip.decompress(body))
        path = nginx.write("heap.pb.gz", body)
        self.assertGreater(
            Pprof(path).sums("ngx_http_hakmem_sample_leak")[0], 0)
        nginx.stop()

    def test_default_form(self):
        nginx = self.sampled(http=SITE.replace("hakmem_profile;",
                                               "hakmem_profile collapsed;"))
        self.plant(nginx, 1)
        headers, body = self.page(nginx)
        self.assertIn("nginx", {frames[0] for frames in stacks(body)})
        self.assertTrue(self.page(nginx, "format=html")[1]
                        .endswith(b"</html>\n"))
        nginx.stop()

    def test_methods(self):
        nginx = self.sampled()
        status, headers, body = nginx.get("/heap", method="HEAD")
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["Content-Length"]), 1000)
        for method in ("POST", "PUT", "DELETE"):
            self.assertEqual(nginx.get("/heap", method=method,
                                       body=b"x")[0], 405)
        nginx.stop()

    def refused(self, nginx, status, arguments, *words):
        """One line of text that says why."""
        got, headers, body = nginx.get(f"/heap?{arguments}")
        self.assertEqual(got, status, body)
        self.assertEqual(headers["Content-Type"],
                         "text/plain; charset=utf-8")
        self.assertEqual(body.count(b"\n"), 1)
        self.assertTrue(body.startswith(b"hakmem: "))
        for word in words:
            self.assertIn(word, body.decode("ascii"))

    def test_bad_arguments(self):
        nginx = self.sampled()
        for arguments, *words in (
                ["format=svg", '"svg" of "format"', FORMS],
                ["format=", '"" of "format"', FORMS],
                ["format", '"format"', FORMS],
                ["value=dead", '"dead"', '"live" or "allocated"'],
                ["seconds=0", '"0"', "from 1 to 3600"],
                ["seconds=3601", "from 1 to 3600"],
                ["seconds=-1", "from 1 to 3600"],
                ["seconds=99999999999999999999", "from 1 to 3600"],
                ["seconds=1&rate=0", '"0" of "rate"', "from 1 to 1024m"],
                ["rate=1k", '"rate" needs "seconds"'],
                ["worker=me", '"me" of "worker"'],
                ["form=html", 'unknown argument "form"', '"format", "value"'],
                ["format=html&x%0a=1", 'unknown argument "x%0a"'],
                ["y" * 1000, "unknown argument"]):
            with self.subTest(arguments[:40]):
                self.refused(nginx, 400, arguments, *words)
        self.page(nginx, "&&format=html&")
        nginx.stop()

    def test_worker(self):
        nginx = self.sampled(workers=2)
        one, other = sorted(nginx.workers())
        self.refused(nginx, 404, "worker=1", "no worker 1")
        seen = set()

        def both():
            status, headers, body = nginx.get(
                f"/heap?format=pprof&worker={one}",
                headers={"Connection": "keep-alive"})
            self.assertIn(status, (200, 409))
            if status == 409:
                self.assertIn(f"worker {other} took", body.decode())
                self.assertIn(f"hakmem profile {one}", body.decode())
                self.assertEqual(headers.get("Connection"), "close")
            seen.add(status)
            return 200 in seen
        until(30, "the worker took a request", both, step=0)
        nginx.stop()

    def test_off(self):
        nginx = self.sampled(None)
        self.refused(nginx, 409, "", "not sampled", "seconds",
                     "hakmem_profile_rate 512k;")
        self.page(nginx, "seconds=1")
        self.refused(nginx, 409, "", "not sampled")
        nginx.stop()

    def test_one_at_a_time(self):
        nginx = self.sampled(None)
        with nginx.socket() as first:
            first.sendall(b"GET /heap?seconds=3600 HTTP/1.1\r\nHost: x\r\n"
                          b"\r\n")

            def refused():
                with nginx.socket() as second:
                    second.sendall(b"GET /heap?seconds=1 HTTP/1.0\r\n\r\n")
                    return b" 409 " in second.recv(100)
            until(30, "the first has begun", refused)
            self.assertEqual(nginx.get("/heap?format=collapsed")[0], 200)
        # It is gone, and with it the sampling.
        until(30, "it ends", lambda: nginx.get("/heap")[0] == 409)
        self.page(nginx, "seconds=1&rate=64k")
        nginx.stop()

    def test_not_served(self):
        nginx = self.sampled("8k", main="hakmem off;")
        self.refused(nginx, 409, "", "not served")
        nginx.stop()

    def test_subrequest(self):
        nginx = self.sampled(http=SITE.replace(
            "location = /plain", "location /ssi { ssi on; ssi_types *;"
            " alias html/; } location = /plain"))
        nginx.write("html/both", '<!--# include virtual="/heap?format='
                    'collapsed" -->|<!--# include virtual='
                    '"/heap?seconds=1&format=collapsed" -->|end')
        status, _, body = nginx.get("/ssi/both")
        self.assertEqual(status, 200)
        self.assertTrue(body.endswith(b"|end"), body[-100:])
        self.assertIn(b"nginx;", body.split(b"|")[0])
        nginx.stop()


class Begun(ProfileCase):
    """By the environment; in full mode."""

    def test_environment(self):
        nginx = self.sampled(None, env={"HAKMEM_PROFILE_RATE": "4k"})
        self.plant(nginx, 4)
        self.assertGreater(self.told(self.collapsed(nginx), "leak"), 0)
        nginx.stop()

    def test_written_at_exit(self):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            nginx = self.sampled(None, env={
                "HAKMEM_PROFILE": f"{folder}/%p.txt",
                "HAKMEM_PROFILE_RATE": "4k"})
            [worker] = nginx.workers()
            self.plant(nginx, 4)
            nginx.stop()
            found = stacks(pathlib.Path(folder, f"{worker}.txt").read_bytes())
        self.assertGreater(self.told(found, "leak"), 0)

    @unittest.skipUnless(LIBRARY.exists(), f"{LIBRARY} is not there")
    def test_full_mode(self):
        """The library's own profile: functions alone."""
        nginx = self.sampled("8k", main=f"hakmem_mode preload {LIBRARY};")
        self.plant(nginx, 8)
        for arguments in ("", "seconds=1&value=allocated"):
            found = self.collapsed(nginx, arguments)
            self.assertTrue(arguments or any(
                "ngx_http_hakmem_sample_leak" in one for one in found))
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
