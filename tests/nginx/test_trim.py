"""Idle memory goes back, and a worker that has none sleeps; hakmem_limit tells
of too much of it."""
import contextlib
import json
import pathlib
import re
import time
import unittest

import nginx_server
from nginx_case import Case, SITE, TLS
from test_preload import LIBRARY

MANY = 600  # TLS connections, some 15 KB each
PRELOAD = f"hakmem_mode preload {LIBRARY};"
PAGE = "location = /json { hakmem_status json; }"
LIMIT = 10  # MB: more than a worker begins with, less than they take


def own(pid):
    """What the process has to itself, in KB."""
    return nginx_server.memory(pid)["Anonymous"]


def waits(pid):
    """How often it has waited for something so far."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[1])


def sleeps(pid, seconds=1.5):
    """Whether it slept all that time: a timer would have woken it."""
    before = waits(pid)
    time.sleep(seconds)
    return waits(pid) == before


class Trim(Case):

    def start(self, main, **options):
        site = (SITE + TLS).replace("location /list/", PAGE
                                    + " location /list/")
        nginx = self.server(site, main=main, workers=1, tls=True, **options)
        nginx.wrk("/f1000", port="TLS", scheme="https")
        return nginx, nginx.worker()

    def page(self, nginx):
        [worker] = json.loads(nginx.get("/json")[2])["workers"]
        return worker

    def crowd(self, nginx, stack):
        """Opens many connections that have been used."""
        for _ in range(MANY):
            connection = stack.enter_context(
                contextlib.closing(nginx.socket("TLS", tls=True)))
            connection.sendall(b"GET /f1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 200"))

    def came_and_went(self, nginx, pid):
        """KB before, with and right after a crowd."""
        before = own(pid)
        with contextlib.ExitStack() as stack:
            self.crowd(nginx, stack)
            there = own(pid)
        return before, there

    def comes_and_goes(self, main, back="trimmed_bytes", **options):
        """More than once: the timer comes back when there is work."""
        nginx, pid = self.start(main, **options)
        gone = 0
        for _ in range(2):
            before, there = self.came_and_went(nginx, pid)
            self.assertGreater(there, before * 1.5)
            nginx_server.until(60, "memory to go back",
                               lambda before=before: own(pid) < before * 1.25)
            nginx_server.until(60, "sleep", lambda: sleeps(pid))
            page = nginx_server.until(
                60, f"more {back} than {gone}", lambda gone=gone: (
                    now := self.page(nginx))[back] > gone and now,
                nginx.story)
            self.assertGreaterEqual(page["purged_bytes"],
                                    page["trimmed_bytes"])
            self.assertLess(page["free_bytes"] + page["due_bytes"], 8 << 20)
            gone = page[back]
        self.whole(nginx)
        nginx.stop()

    def test_goes_back_while_idle(self):
        self.comes_and_goes("hakmem_trim 200ms;")

    def test_goes_back_by_default(self):
        self.comes_and_goes("")

    def test_goes_back_without_a_master(self):
        self.comes_and_goes("", master=False)

    @unittest.skipUnless(LIBRARY.exists(), f"{LIBRARY} is not there")
    def test_goes_back_preloaded(self):
        """The library's own thread may be there before the timer."""
        self.comes_and_goes(PRELOAD, back="purged_bytes")

    def test_sleeps(self):
        """With nothing to give back, too, whatever the timer is for."""
        for main in ("", "hakmem off;",
                     "hakmem_trim off; hakmem_limit 1024m;"):
            with self.subTest(main):
                nginx, pid = self.start(main)
                nginx_server.until(60, "sleep", lambda pid=pid: sleeps(pid))
                time.sleep(0.5)
                # Asked, it tells: else it would have been two seconds.
                self.assertLess(self.page(nginx)["age_ms"], 1500)
                nginx.stop()

    def test_page_of_a_sleeper(self):
        """What another worker shows of it is true, and not old."""
        site = "server { listen 127.0.0.1:@HTTP@; root html; " + PAGE + " }"
        nginx = self.server(site, workers=2)
        nginx.ab("/f1", requests=200)
        nginx_server.until(60, "sleep", lambda: all(
            [sleeps(pid) for pid in nginx.workers()]))
        for worker in json.loads(nginx.get("/json")[2])["workers"]:
            self.assertLess(worker["age_ms"], 1500)
            self.assertGreater(worker["rss_bytes"], 1 << 20)
        nginx.stop()

    def test_shutting_down(self):
        self.shuts_down("hakmem_trim 200ms;")

    @unittest.skipUnless(LIBRARY.exists(), f"{LIBRARY} is not there")
    def test_shutting_down_preloaded(self):
        self.shuts_down(PRELOAD)

    def shuts_down(self, main):
        """Memory that was freed before and while it shuts down."""
        nginx, pid = self.start(main)
        with contextlib.ExitStack() as stack:
            tunnel = stack.enter_context(contextlib.closing(nginx.socket()))
            tunnel.sendall(b"GET /f1 HTTP/1.1\r\n")  # it waits for the rest
            before, there = self.came_and_went(nginx, pid)
            nginx.reload(wait=False)
            nginx_server.until(60, "memory to go back",
                               lambda: own(pid) < before * 1.25)
            nginx_server.until(60, "sleep", lambda: sleeps(pid))
        nginx.gone({pid})
        nginx.stop()

    def test_limit(self):
        nginx, pid = self.start(f"hakmem_trim 200ms; hakmem_limit {LIMIT}m;")
        over = rf"\[warn\] .*more than hakmem_limit {LIMIT << 20};"
        self.assertEqual(nginx.find(over), [])
        for wave in (1, 2):
            with contextlib.ExitStack() as stack:
                self.crowd(nginx, stack)
                nginx_server.until(60, "a warning",
                                   lambda: len(nginx.find(over)) == wave)
            nginx_server.until(60, "memory to go back",
                               lambda: own(pid) < LIMIT << 10)
            self.assertEqual(len(nginx.find(over)), wave)
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
