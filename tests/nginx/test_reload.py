"""What a configuration took goes back when it ends: in the master, and in
what is forked from it."""
import os
import unittest

import nginx_server
from nginx_case import Case
from test_preload import LIBRARY

HOSTS = 1500  # some 60 MB
HOST = """
    server {{
        listen 127.0.0.1:@HTTP@; server_name s{0}.example.com; root html;
        location / {{ try_files $uri =404; }}
        location /img/ {{ expires 1d; }}
        location ~ \\.x$ {{ proxy_pass http://127.0.0.1:1; }}
    }}
"""
SITES = ("server_names_hash_max_size 32768;"
         + "".join(HOST.format(number) for number in range(HOSTS)))
PRELOAD = f"hakmem_mode preload {LIBRARY};"
MOST = 1.15  # of what it was at the start
GAVE = r"\[notice\].*hakmem: the master gave \d+ bytes back, it has \d+"


def own(pid):
    """What the process has besides files, in KB: shared after a fork, too."""
    return nginx_server.memory(pid)["Anonymous"]


class Reload(Case):

    def start(self, main="", **options):
        nginx = self.server(SITES, main, workers=2, patience=60, **options)
        return nginx, nginx.master_pid()

    def small(self, nginx, master, start, what):
        """The master and its workers become as small as they were."""
        for pid in (master, *nginx.workers()):
            nginx_server.until(60, f"{what}: {pid} gives memory back",
                               lambda pid=pid: own(pid) < start * MOST,
                               lambda: f"{own(pid)} KB of {start} KB at the "
                                       f"start\n{nginx.story()}")

    def alone(self, master):
        """No thread that stays; libhakmem.so's while something is due."""
        nginx_server.until(60, "the master is alone", lambda: os.listdir(
            f"/proc/{master}/task") == [str(master)])

    def reloads(self, main):
        nginx, master = self.start(main)
        start = own(master)
        for count in range(1, 7):
            nginx_server.until(60, f"it says so {count} times", lambda n=count:
                               len(nginx.find(GAVE)) == n, nginx.story)
            nginx.reload()
            self.small(nginx, master, start, f"reload {count}")
            self.alone(master)
        nginx.stop()

    def refused(self, main):
        """A configuration that is read to its end, and has an error there."""
        nginx, master = self.start(main)
        start, workers = own(master), nginx.workers()
        for count in range(1, 4):
            nginx.reload(wait=False, http=SITES + "no_directive;")
            nginx_server.until(60, "an error", lambda: len(nginx.find(
                "unknown directive .no_directive")) == count)
            self.small(nginx, master, start, f"refusal {count}")
            self.alone(master)
        self.assertEqual(nginx.workers(), workers)
        nginx.reload(http=SITES)
        self.small(nginx, master, start, "reload")
        nginx.expected.append("unknown directive")
        nginx.stop()

    def test_module(self):
        self.reloads("")

    @unittest.skipUnless(LIBRARY.exists(), f"{LIBRARY} is not there")
    def test_preload(self):
        self.reloads(PRELOAD)

    def test_refused(self):
        self.refused("")

    @unittest.skipUnless(LIBRARY.exists(), f"{LIBRARY} is not there")
    def test_refused_preload(self):
        self.refused(PRELOAD)

    def test_off(self):
        """As without the module; and what a reload switches on goes back."""
        for main in ("hakmem off;", "hakmem_trim off;"):
            with self.subTest(main):
                nginx, master = self.start(main)
                start = own(master)
                nginx.reload()
                self.assertGreater(own(master), start * 1.5)
                self.assertEqual(nginx.find(GAVE), [])
                nginx.reload(main="")
                self.small(nginx, master, start, "on")
                nginx_server.until(60, "it says so", lambda nginx=nginx: len(
                    nginx.find(GAVE)) == 1, nginx.story)
                nginx.stop()

    def test_workers_share(self):
        """libc's free pieces are sorted once, not in each of the workers."""
        nginx, _ = self.start()
        for _ in range(2):
            nginx.reload()
        nginx.ab("/f1", requests=200, connections=4)
        self.served(nginx)
        for pid in nginx.workers():
            self.assertLess(nginx_server.memory(pid)["Private_Dirty"], 2000)
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
