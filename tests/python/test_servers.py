"""Servers that fork workers: gunicorn, uWSGI, celery, with the plugs for them."""
import contextlib
import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from support import HERE, PATH

IMMORTAL = sys.version_info >= (3, 12)
SECONDS = 60  # at most, for a step

# What a worker does with its parent's objects: the MB that are its own by then.
WORK = """
import gc, os
def private():
    with open("/proc/self/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup
                   if line.startswith("Private")) >> 10
data = [{"id": n, "name": "item " + str(n)} for n in range(200000)]
def work(read):
    for one in data if read else ():
        x = one["name"]
    gc.collect()
    return "%d %d %d" % (os.getpid(), private(), gc.get_freeze_count())
"""
WSGI = WORK + """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [work(environ["PATH_INFO"] == "/read").encode()]
"""
TASKS = WORK + """
from celery import Celery
app = Celery("tasks", broker="filesystem://", backend="file://PLACE")
app.conf.broker_transport_options = {"data_folder_in": "PLACE",
                                     "data_folder_out": "PLACE"}
app.conf.broker_connection_retry_on_startup = True
@app.task(name="work")
def task(read):
    return work(read)
"""
# What a worker has of its own beside what it reads: the interpreter, mostly.
# All that it reads takes 50.
FEW = 25


class Connection(http.client.HTTPConnection):
    """To a socket in the file system."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self.host)


def until(what, said):
    """Waits until what() is true; said() is for the message if it is not."""
    end = time.monotonic() + SECONDS
    while not what():
        if time.monotonic() > end:
            raise AssertionError("nothing came in time:\n" + said())
        time.sleep(0.05)


class Server(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.place = self.directory.name
        self.log = os.path.join(self.place, "log")
        self.socket = os.path.join(self.place, "socket")

    def write(self, name, text):
        with open(os.path.join(self.place, name), "w", encoding="utf-8") as file:
            file.write(text)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def environment(self, env=None):
        found = {key: value for key, value in os.environ.items()
                 if not key.startswith(("PYTHON", "HAKMEM"))}
        found["PYTHONPATH"] = os.pathsep.join((PATH, HERE, self.place))
        found.update(env or {})
        return found

    @contextlib.contextmanager
    def running(self, command, env=None):
        """The server, which ends with status 0 when it is told to."""
        with open(self.log, "w", encoding="utf-8") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log,
                                      stdin=subprocess.DEVNULL, cwd=self.place,
                                      env=self.environment(env))
        try:
            yield server
            server.send_signal(signal.SIGTERM)
            self.assertEqual(server.wait(SECONDS), 0, self.said())
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()

    def get(self, path):
        """(pid, MB, objects put aside) of the worker that answered."""
        connection = Connection(self.socket)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse().read().decode()
        return [int(word) for word in answer.split()]

    def answers(self):
        try:
            return len(self.get("/")) == 3
        except (OSError, http.client.HTTPException):
            return False

    def check(self, figures):
        self.assertLess(figures[1], FEW, self.said())
        self.assertGreater(figures[2], 2000)

    def requests(self):
        until(self.answers, self.said)
        self.check(self.get("/"))
        if IMMORTAL:
            self.check(self.get("/read"))


@unittest.skipIf(importlib.util.find_spec("gunicorn") is None,
                 "there is no gunicorn for this Python")
class Gunicorn(Server):
    COMMAND = [sys.executable, "-m", "gunicorn", "-w", "2", "-b"]

    def command(self, config, app="wsgi:app"):
        return [*self.COMMAND, "unix:" + self.socket, "-c", config, app]

    def setUp(self):
        super().setUp()
        self.write("wsgi.py", WSGI)

    def test_workers_share(self):
        with self.running(self.command("python:hakmem_py.gunicorn")) as server:
            self.requests()
            self.assertIn("what is loaded is frozen", self.said())
            before = self.get("/")[0]
            server.send_signal(signal.SIGHUP)
            until(lambda: self.said().count("what is loaded is frozen") == 2,
                  self.said)
            until(lambda: self.answers() and self.get("/")[0] != before,
                  self.said)
            self.requests()

    def test_in_a_configuration_of_ones_own(self):
        self.write("mine.py", "from hakmem_py.gunicorn import *\nworkers = 1\n")
        with self.running(self.command("mine.py"),
                          {"HAKMEM_PYTHON_FREEZE": "plain"}):
            until(self.answers, self.said)
            self.check(self.get("/"))
            self.assertNotIn("immortal", self.said())


@unittest.skipIf(importlib.util.find_spec("celery") is None,
                 "there is no celery for this Python")
class Celery(Server):
    def result(self, read):
        """What a worker returns."""
        done = subprocess.run(
            [sys.executable, "-c", "import tasks\nprint(tasks.task.delay("
             f"{read}).get(timeout={SECONDS}))"], env=self.environment(),
            cwd=self.place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True, timeout=2 * SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr + self.said())
        return [int(word) for word in done.stdout.split()]

    def test_workers_share(self):
        self.write("tasks.py", TASKS.replace("PLACE", self.place))
        with self.running([sys.executable, "-m", "celery", "-A", "tasks",
                           "worker", "-P", "prefork", "-c", "1", "-l", "INFO",
                           "-I", "hakmem_py.celery"]):
            until(lambda: " ready." in self.said(), self.said)
            self.assertIn("what is loaded is frozen", self.said())
            self.check(self.result(IMMORTAL))


def uwsgi_is_for_this_python():
    """Debian's plugin is for one Python, its own."""
    return shutil.which("uwsgi") is not None and \
        os.path.realpath(sys.executable) == os.path.realpath("/usr/bin/python3")


@unittest.skipUnless(uwsgi_is_for_this_python(),
                     "there is no uwsgi for this Python")
class UWSGI(Server):
    # A worker that is told to end while it starts does not hear it: after so many
    # seconds (else 60) the master kills it.
    COMMAND = ["uwsgi", "--plugin", "python3", "--master", "--die-on-term",
               "--worker-reload-mercy", "2", "--processes", "2", "--need-app",
               "--http-socket"]

    def test_workers_share(self):
        self.write("wsgi.py", WSGI)
        with self.running([*self.COMMAND, self.socket, "--module",
                           "hakmem_py.uwsgi", "--set", "hakmem-app=wsgi:app"]):
            self.requests()
            self.assertIn("what is loaded is frozen", self.said())

    def test_names_what_is_missing(self):
        done = subprocess.run(
            [*self.COMMAND, self.socket, "--module", "hakmem_py.uwsgi"],
            env=self.environment(), cwd=self.place, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, universal_newlines=True, timeout=SECONDS)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("which application? add --set hakmem-app=MODULE:CALLABLE",
                      done.stdout)


if __name__ == "__main__":
    unittest.main()
