"""Thousands of connections that are kept open."""
import contextlib
import selectors
import unittest

import nginx_server
from nginx_case import Case, PAGE, SITE

IDLE = 5000
REQUEST = b"GET /f1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answered(connections):
    """A request on each of them at once; the number of good answers."""
    with selectors.DefaultSelector() as selector:
        got = {}
        for connection in connections:
            connection.sendall(REQUEST)
            selector.register(connection, selectors.EVENT_READ)
            got[connection] = b""
        good = 0
        while selector.get_map():
            ready = selector.select(20)
            if not ready:
                break
            for key, _ in ready:
                connection = key.fileobj
                data = connection.recv(65536)
                got[connection] += data
                if not data or got[connection].endswith(PAGE):
                    selector.unregister(connection)
                    good += got[connection].startswith(b"HTTP/1.1 200")
    return good


class Many(Case):

    def test_idle(self):
        files = nginx_server.descriptors(2 * IDLE + 500)
        count = min(IDLE, files - 500)
        self.assertGreaterEqual(
            count, IDLE, f"may open {files} files only: raise 'ulimit -n'")
        nginx = self.server(
            SITE + " keepalive_timeout 300s;", workers=2,
            main=f"worker_rlimit_nofile {2 * IDLE + 500};",
            connections=2 * IDLE)
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(nginx.socket())
                           for _ in range(count)]
            for _ in range(2):
                self.assertEqual(answered(connections), count)
            self.whole(nginx)
            nginx.wrk("/f1000")
            self.assertEqual(answered(connections), count)
        # They are gone, others come.
        nginx.wrk("/f1000")
        self.served(nginx)
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
