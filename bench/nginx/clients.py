#!/usr/bin/env python3
"""Clients of bench/nginx_report.py that hold thousands of connections, and an
upstream for tunnels; processes of their own, told what to do line by line.

    clients.py tls PORT COUNT PATH     connections of TLS, kept alive
    clients.py tunnels PORT COUNT PATH connections upgraded to a tunnel
    clients.py echo                    the tunnels' upstream; prints its port

tls and tunnels: "open" opens COUNT connections and uses each once, "use" uses
each again, "close" closes all. Each is answered by "done", or the program
ends with a message.
"""
import asyncio
import concurrent.futures
import pathlib
import resource
import socket
import ssl
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]
                       / "tests" / "nginx"))
from nginx_case import Echo  # noqa: E402

THREADS = 4
MESSAGES = [b"m" * size for size in (20, 125, 1000, 4000)]


class Client:
    """COUNT connections."""

    def __init__(self, kind, port, count, path):
        self.kind, self.port, self.count, self.path = kind, port, count, path
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.open_now = []

    def dial(self, _):
        plain = socket.create_connection(("127.0.0.1", self.port), 60)
        if self.kind == "tls":
            return self.context.wrap_socket(plain)
        plain.sendall(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\n"
                      "Upgrade: echo\r\nConnection: Upgrade\r\n\r\n".encode())
        self.read_head(plain, b"101")
        return plain

    @staticmethod
    def read_head(connection, status):
        """Reads to the end of the head; what came after it."""
        got = b""
        while b"\r\n\r\n" not in got:
            part = connection.recv(65536)
            if not part:
                raise OSError(f"closed after {got!r}")
            got += part
        if got.split(b" ", 2)[1] != status:
            raise OSError(f"not {status.decode()}: {got[:100]!r}")
        return got

    def use(self, connection):
        if self.kind == "tls":
            connection.sendall(f"GET {self.path} HTTP/1.1\r\n"
                               "Host: localhost\r\n\r\n".encode())
            head, _, body = self.read_head(connection,
                                           b"200").partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1]
                         .split(b"\r\n")[0])
            self.rest(connection, length - len(body))
            return
        for message in MESSAGES:
            connection.sendall(message)
            self.rest(connection, len(message))

    @staticmethod
    def rest(connection, length):
        while length > 0:
            part = connection.recv(65536)
            if not part:
                raise OSError("closed early")
            length -= len(part)

    def obey(self, word, pool):
        if word == "open":
            self.open_now = list(pool.map(self.dial, range(self.count)))
        if word in ("open", "use"):
            list(pool.map(self.use, self.open_now))
        elif word == "close":
            for connection in self.open_now:
                connection.close()
            self.open_now = []


def echo():
    with Echo() as server:
        print(server.port, flush=True)
        sys.stdin.read()


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1] == "echo":
        echo()
        return
    kind, port, count, path = sys.argv[1:]
    client = Client(kind, int(port), int(count), path)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for line in sys.stdin:
            client.obey(line.strip(), pool)
            print("done", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (OSError, asyncio.TimeoutError) as error:
        sys.exit(f"clients.py: {error}")
