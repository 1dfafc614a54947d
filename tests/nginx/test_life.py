"""Workers come and go: reloads, a new binary, a worker that is killed, a
module that is taken out and put in again. No request fails."""
import os
import signal
import unittest

import nginx_server
from nginx_case import Case, FILES, PAGE, SITE, TLS, Echo, exchange, took, upgrade
from nginx_server import Load, until

RELOADS = 20


class Reloads(Case):

    def test_under_load(self):
        nginx = self.server(SITE + TLS, tls=True)
        with Load(nginx, "/f1000", PAGE), \
                Load(nginx, "/proxy/f20000", FILES["f20000"], threads=1), \
                Load(nginx, "/f20000", FILES["f20000"], keepalive=True,
                     threads=2), \
                Load(nginx, "/f1000", PAGE, port="TLS", tls=True, threads=1):
            for _ in range(RELOADS):
                workers = nginx.workers()
                nginx.reload()
                self.served(nginx)
            nginx.gone(workers)
        # All of them ended by themselves, with status 0; the master may say so
        # a moment after they are gone.
        until(60, "every old worker's end", lambda: len(
            nginx.find("exited with code 0")) == 2 * RELOADS, nginx.story)
        nginx.stop()

    def test_tunnel_stays(self):
        """A connection of a worker that shuts down."""
        with Echo() as echo:
            nginx = self.server(SITE.replace("@ECHO@", str(echo.port)),
                                workers=1)
            old = nginx.worker()
            with upgrade(nginx) as tunnel:
                nginx.reload()
                for size in (1, 4096, 60000):
                    data = b"d" * size
                    self.assertEqual(exchange(tunnel, data), data)
                self.assertIn(old, {one.pid for one in nginx.alive()})
            nginx.gone([old])
            self.served(nginx)
            nginx.stop()

    def test_broken_configuration(self):
        """A reload of it changes nothing."""
        nginx = self.server(expected=["unknown directive \"serve\"",
                                      "invalid value"])
        workers = nginx.workers()
        good = dict(nginx.parts)
        with Load(nginx, "/f1000", PAGE):
            for broken in ({"http": good["http"] + "serve {}"},
                           {"main": "hakmem perhaps;"}):
                before = len(nginx.find(r"\[emerg\]"))
                nginx.reload(wait=False, **broken)
                until(60, "the complaint", lambda was=before: len(
                    nginx.find(r"\[emerg\]")) > was)
                self.assertEqual(nginx.workers(), workers)
                nginx.configure(**good)
            nginx.reload()
            self.served(nginx)
        nginx.stop()

    def test_module_out_and_in(self):
        """nginx unloads a module that the configuration has no more."""
        nginx = self.server(hakmem=False)
        self.stock(nginx)
        with Load(nginx, "/f1000", PAGE), \
                Load(nginx, "/gzip/f1000", PAGE, threads=1):
            for _ in range(4):
                nginx.hakmem = nginx_server.MODULE
                nginx.reload()
                self.served(nginx)
                nginx.hakmem = ""
                nginx.reload()
                self.stock(nginx)
        nginx.stop()

    def test_switched_off(self):
        nginx = self.server(main="hakmem off;")
        self.whole(nginx)
        self.stock(nginx)
        nginx.reload(main="hakmem on;")
        self.whole(nginx)
        self.served(nginx)
        nginx.stop()

    def test_lanes_change(self):
        nginx = self.server()
        with Load(nginx, "/proxy/f20000", FILES["f20000"]):
            for lanes in ("all", "tiny", "all"):
                nginx.reload(main=f"hakmem_lanes {lanes};")
                self.served(nginx)
        nginx.stop()


class Binaries(Case):
    """USR2."""

    def upgraded(self):
        nginx = self.server(daemon=True)
        self.addCleanup(nginx.check)
        return nginx

    def test_new_one_stays(self):
        nginx = self.upgraded()
        with Load(nginx, "/f1000", PAGE), \
                Load(nginx, "/proxy-close/f20000", FILES["f20000"]):
            old, new = nginx.upgrade()
            self.served(nginx, nginx.workers(old) + nginx.workers(new))
            nginx.signal("WINCH", old)
            until(60, "the old workers end", lambda: not [
                one for one in nginx.alive() if one.parent == old
                and one.pid != new])
            nginx.signal("QUIT", old)
            nginx.gone([old])
            self.assertEqual(nginx.master_pid(), new)
            nginx.reload()
            self.served(nginx)
        nginx.stop()

    def test_back_to_the_old_one(self):
        nginx = self.upgraded()
        with Load(nginx, "/f1000", PAGE):
            old, new = nginx.upgrade()
            nginx.signal("WINCH", old)
            until(60, "the old workers end", lambda: not [
                one for one in nginx.alive() if one.parent == old
                and one.pid != new])
            nginx.signal("HUP", old)
            until(60, "new old workers", lambda: len(nginx.workers(old)) == 2)
            self.served(nginx, nginx.workers(old))
            nginx.signal("QUIT", new)
            nginx.gone([new])
            until(60, "the old pid file", lambda: nginx.pid_in_file() == old)
            self.served(nginx)
        nginx.stop()


class Deaths(Case):

    def test_killed_worker(self):
        nginx = self.server(expected=["exited on signal 9"])
        for _ in range(3):
            workers = nginx.workers()
            os.kill(workers[0], signal.SIGKILL)
            until(60, "a new worker", lambda was=workers: len(
                set(nginx.workers()) - set(was)) == 1)
            self.served(nginx)
            with Load(nginx, "/f1000", PAGE):
                nginx.wrk("/f20000")
        self.assertEqual(len(nginx.find("exited on signal 9")), 3)
        nginx.stop()

    def test_killed_under_load(self):
        """Others than the killed worker's connections fare well."""
        nginx = self.server(expected=["exited on signal 9"])
        other = nginx.connect()
        self.addCleanup(other.close)
        other.request("GET", "/f1000")
        self.assertEqual(other.getresponse().read(), PAGE)
        until(60, "both workers", lambda: len(nginx.workers()) == 2)
        kept = self.worker_of(nginx, other)
        with Load(nginx, "/f3000000", FILES["f3000000"], pause=0, lossy=True):
            for _ in range(5):
                victim = next(pid for pid in nginx.workers() if pid != kept)
                os.kill(victim, signal.SIGKILL)
                until(60, "a new worker that serves", lambda dead=victim: (
                    len(nginx.workers()) == 2 and dead not in nginx.workers()
                    and set(nginx.workers()) <= took(nginx)), nginx.story)
        other.request("GET", "/f20000")
        self.assertEqual(other.getresponse().read(), FILES["f20000"])
        nginx.stop()

    @staticmethod
    def worker_of(nginx, connection):
        """The worker that holds the other end: it has one socket more."""
        def sockets(pid):
            count = 0
            for name in os.listdir(f"/proc/{pid}/fd"):
                try:
                    count += os.readlink(f"/proc/{pid}/fd/{name}") \
                        .startswith("socket:")
                except OSError:
                    pass
            return count
        return max(nginx.workers(), key=sockets)

    def test_one_process(self):
        """No master: one process that reads the configuration and serves."""
        nginx = self.server(SITE.replace("daemon", ""), master=False)
        self.whole(nginx)
        nginx.wrk("/f1000")
        self.served(nginx)
        nginx.stop()

    def test_terminated(self):
        """TERM, not QUIT: connections are cut."""
        nginx = self.server()
        self.served(nginx)
        connections = [nginx.socket() for _ in range(50)]
        for connection in connections:
            connection.sendall(b"GET /f3000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(1000)
        nginx.signal("TERM")
        until(60, "nginx ends", lambda: not nginx.alive())
        for connection in connections:
            connection.close()
        self.assertEqual(nginx.process.wait(), 0)
        nginx.check()


if __name__ == "__main__":
    unittest.main()
