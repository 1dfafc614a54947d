"""Idle memory goes back; hakmem_limit tells of too much of it."""
import contextlib
import unittest

import nginx_server
from nginx_case import Case, SITE, TLS

MANY = 600  # TLS connections, some 15 KB each
LIMIT = 10  # MB: more than a worker begins with, less than they take


def own(pid):
    """What the process has to itself, in KB."""
    return nginx_server.memory(pid)["Anonymous"]


class Trim(Case):

    def start(self, main):
        nginx = self.server(SITE + TLS, main=main, workers=1,
                            tls=True)
        nginx.wrk("/f1000", port="TLS", scheme="https")
        return nginx, nginx.worker()

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

    def test_goes_back_while_idle(self):
        nginx, pid = self.start("hakmem_trim 200ms;")
        before, there = self.came_and_went(nginx, pid)
        self.assertGreater(there, before * 1.5)
        nginx_server.until(30, "memory to go back",
                           lambda: own(pid) < before * 1.25)
        self.whole(nginx)
        nginx.stop()

    def test_shutting_down(self):
        nginx, pid = self.start("hakmem_trim 200ms;")
        with contextlib.ExitStack() as stack:
            tunnel = stack.enter_context(contextlib.closing(nginx.socket()))
            tunnel.sendall(b"GET /f1 HTTP/1.1\r\n")  # it waits for the rest
            before, there = self.came_and_went(nginx, pid)
            nginx.reload(wait=False)
            nginx_server.until(30, "memory to go back",
                               lambda: own(pid) < before * 1.25)
        nginx.gone({pid})
        nginx.stop()

    def test_limit(self):
        nginx, pid = self.start(f"hakmem_trim 200ms; hakmem_limit {LIMIT}m;")
        over = rf"\[warn\] .*more than hakmem_limit {LIMIT << 20};"
        self.assertEqual(nginx.find(over), [])
        for wave in (1, 2):
            with contextlib.ExitStack() as stack:
                self.crowd(nginx, stack)
                nginx_server.until(20, "a warning",
                                   lambda: len(nginx.find(over)) == wave)
            nginx_server.until(30, "memory to go back",
                               lambda: own(pid) < LIMIT << 10)
            self.assertEqual(len(nginx.find(over)), wave)
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
