"""A real nginx on 127.0.0.1 with a configuration of the caller's.

    with Server("server { listen 127.0.0.1:@HTTP@; root html; }") as nginx:
        nginx.write("html/hello", b"hello")
        status, headers, body = nginx.get("/hello")

The tests, the benchmark and the demo use it. HAKMEM_NGINX_MODULE names the
module under test; Server(hakmem=False) is stock nginx. HAKMEM_NGINX names the
nginx, if it is not the system's; modules that are compiled into it are there as
if they had been loaded. @NAME@ in a
configuration is a free port, one for every name; @PREFIX@ is the directory
that everything lives in, @MODULES@ that of Debian's modules.

Leaving the `with` ends nginx gently (QUIT) and raises Complaint if it ended
with another status than 0, if its error log has a line that tells of trouble
and that `expected` (regular expressions) does not name, or if a process is
left. Nothing that runs elsewhere is touched: neither an nginx of the system
nor its files.
"""
import contextlib
import ctypes
import dataclasses
import functools
import http.client
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

NGINX = (os.environ.get("HAKMEM_NGINX")
         or shutil.which("nginx", path=os.environ.get("PATH", "")
                         + ":/usr/sbin:/usr/local/sbin:/sbin") or "nginx")
MODULE = os.environ.get("HAKMEM_NGINX_MODULE", "")

# A line of a log that tells of trouble.
TROUBLE = re.compile(r"\[(?:alert|crit|emerg)\]|exited on signal|core dumped"
                     r"|hakmem: fatal|hakmem: error|AddressSanitizer")
# What a worker says that the module has taken over: N slots of an object.
SLOTS = re.compile(r"\[notice\].*hakmem.*?\b(\d+) slots?")

SKELETON = """\
{load}
{user}
worker_processes {workers};
worker_shutdown_timeout 20s;
pid nginx.pid;
error_log error.log {level};
{main}
events {{
    worker_connections {connections};
    {events}
}}
{http}
{stream}
"""
HTTP = """\
http {{
    access_log off;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    {http}
}}
"""


class Complaint(AssertionError):
    """nginx did not do what it should; the text says what, and its log."""


# ---- what is there ----------------------------------------------------------

@functools.cache
def configured():
    """What this nginx was configured with."""
    if not has_nginx():
        return ""
    return subprocess.run([NGINX, "-V"], capture_output=True, text=True,
                          check=True).stderr


def is_before(*version):
    """Whether this nginx is older than that."""
    said = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", configured())
    return said is not None and tuple(map(int, said.groups())) < version


def early_log(path):
    """Words for where what is said before the configuration is read goes: nginx
    1.19.5 and later."""
    return [] if is_before(1, 19, 5) else ["-e", path]


def pcre():
    """The library of regular expressions: PCRE2 from 1.21.5 on."""
    return "libpcre" if is_before(1, 21, 5) else "libpcre2-8"


@functools.cache
def known_trouble():
    """What older ones say without a reason: of OpenSSL 3, which they do not know, and
    of the log that they would have before the configuration is read."""
    known = []
    if is_before(1, 21, 4):
        known += [r"unexpected eof while reading", r"SSL_write\(\) failed"]
    if is_before(1, 19, 5):
        known += [r"could not open error log file"]
    return known


def compiled_in(name):
    """Whether a module is a part of the program; for what nginx brings
    itself and for directories called by the module's name."""
    own = re.search(r"--with-stream(\s|$)", configured())
    return (name == "ngx_stream_module" and own is not None
            or re.search(rf"--add-module=\S*/{name}(\s|$)", configured())
            is not None)


def objects(*names):
    """A hakmem_objects directive of those that are files of their own here,
    not a part of the program."""
    def apart(name):
        if name.startswith("libluajit") and compiled_in("ngx_http_lua_module"):
            return f"{name}.so".encode() in pathlib.Path(NGINX).read_bytes()
        return not compiled_in(name)
    left = [name for name in names if apart(name)]
    return f"hakmem_objects {' '.join(left)};" if left else ""


@functools.cache
def modules_path():
    """Where this nginx keeps its modules."""
    said = configured()
    found = re.search(r"--modules-path=(\S+)", said)
    prefix = re.search(r"--prefix=(\S+)", said)
    return (found[1] if found else
            (prefix[1] if prefix else "/usr/local/nginx") + "/modules")


def has_nginx():
    return shutil.which(NGINX) is not None


def has_module(name):
    """Whether Debian's package of a module is installed, or it is compiled
    in."""
    return has_nginx() and (compiled_in(name) or os.path.exists(
        f"{modules_path()}/{name}.so"))


def descriptors(wanted):
    """Lets this process, and what it starts, open `wanted` files.

    Returns how many it may.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (wanted, max(wanted, hard)))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (min(wanted, hard), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def end_on_term():
    """Makes TERM an exception, so that servers end with this process."""
    def end(*_):
        raise SystemExit("terminated")
    signal.signal(signal.SIGTERM, end)


def until(seconds, what, condition, story=None, step=0.02):
    """Waits until condition() is true, and returns what it returned; what
    story() tells then is told when it does not come true."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Complaint(f"not within {seconds} s: {what}"
                            + (f"\n{story()}" if story else ""))
        time.sleep(step)


def free_ports(count):
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket())
                   for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def certificate(folder, key="rsa:2048"):
    """cert.pem and key.pem in a directory; for 'localhost'."""
    kind = (["-newkey", key] if key.startswith("rsa") else
            ["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{key}"])
    subprocess.run(
        ["openssl", "req", "-x509", *kind, "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True)


# ---- processes --------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Process:
    """A line of /proc."""
    pid: int
    parent: int
    session: int
    state: str
    title: str


def processes():
    """All that run."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        found.append(Process(int(entry.name), int(fields[1]), int(fields[3]),
                             fields[0], title.decode(errors="replace")))
    return found


def memory(pid):
    """{Rss: KB, Pss: KB, Private_Dirty: KB, ...} of a process."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(value) for name, value in
            re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def cpu_seconds(pid):
    """User and system time so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text() \
        .rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loaded(pid, library):
    """Whether a process has a library mapped."""
    return library in pathlib.Path(f"/proc/{pid}/maps").read_text()


class Daemon:
    """A process that left its parent and became our child; like a Popen."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self, how=os.WNOHANG):
        if self.returncode is None:
            done, status = os.waitpid(self.pid, how)
            if done:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self):
        return self.poll(0)


def adopt_orphans():
    """Processes below us whose parent ends become our children."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0,
                                            0)


# ---- the server -------------------------------------------------------------

class Server:
    """An nginx. `http`, `main`, `events`, `stream`: text for the parts of its
    configuration, which has no http{} if that is empty; `modules`: names in Debian's directory, to load after ours.

    `hakmem` is False for stock nginx, or another module's path. `command` is
    what nginx is run by (valgrind, prlimit...), `env` is added to the
    environment. `master` False: one process, master_process off. `daemon`: it
    goes to the background, without which it ignores USR2.
    """

    def __init__(self, http="", main="", events="", stream="", *,
                 modules=(), hakmem=True, workers=2, connections=1024,
                 level="notice", tls=False, expected=(), command=(),
                 env=None, master=True, daemon=False, start=True,
                 patience=60):
        self.prefix = pathlib.Path(tempfile.mkdtemp(prefix="hakmem-nginx-"))
        self.hakmem = MODULE if hakmem is True else hakmem
        self.parts = {"http": http, "main": main, "events": events,
                      "stream": stream, "workers": workers,
                      "connections": connections, "level": level}
        self.modules = list(modules)
        self.expected = list(expected)
        self.command = list(command)
        self.env = env or {}
        self.master = master
        self.daemon = daemon
        self.patience = patience
        self.ports = {}
        self.process = None
        try:
            if hakmem and not self.hakmem:
                raise Complaint("HAKMEM_NGINX_MODULE does not name a module:"
                                " run 'make check-nginx'")
            for name in ("html", "temp"):
                (self.prefix / name).mkdir()
            self.prefix.chmod(0o755)
            if tls:
                certificate(self.prefix, tls if isinstance(tls, str)
                            else "rsa:2048")
            if start:
                self.start()
        except BaseException:
            self.destroy()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
            elif "the log ends:" not in str(value):
                value.add_note(self.story())
        finally:
            self.destroy()

    # ---- its configuration --------------------------------------------------

    def write(self, name, data):
        """A file below the prefix."""
        path = self.prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def text(self):
        """The configuration, whole."""
        load = [self.hakmem] if self.hakmem else []
        load += [f"{modules_path()}/{name}.so" for name in self.modules
                 if not compiled_in(name)]
        user = ""
        if os.geteuid() == 0:
            user = "user root root;"
        parts = dict(self.parts)
        if parts["http"]:
            parts["http"] = HTTP.format(**parts)
        text = SKELETON.format(
            load="\n".join(f"load_module {path};" for path in load),
            user=user, **parts)
        if not self.master:
            text = "master_process off;\n" + text
        names = sorted(set(re.findall(r"@([A-Z0-9_]+)@", text))
                       - {"PREFIX", "MODULES"} - set(self.ports))
        self.ports.update(zip(names, free_ports(len(names))))
        known = {"PREFIX": self.prefix, "MODULES": modules_path(),
                 **self.ports}
        return re.sub(r"@([A-Z0-9_]+)@",
                      lambda found: str(known[found[1]]), text)

    def configure(self, **parts):
        """Changes parts of the configuration and writes it."""
        self.parts.update(parts)
        self.write("nginx.conf", self.text())

    def arguments(self):
        return [NGINX, "-p", f"{self.prefix}/", "-c", "nginx.conf",
                *early_log("error.log")]

    def environment(self):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("HAKMEM_", "LD_PRELOAD", "NGINX"))}
        return {**kept, **self.env}

    def test(self):
        """nginx -t of the configuration as it is now: (status, text)."""
        self.configure()
        done = subprocess.run(
            [*self.command, NGINX, "-t", "-p", f"{self.prefix}/", "-c",
             "nginx.conf", *early_log("stderr")], env=self.environment(),
            capture_output=True, text=True, errors="replace", check=False)
        return done.returncode, done.stderr

    # ---- its life -----------------------------------------------------------

    def start(self):
        """Starts it and waits until it listens, on other ports if somebody
        was faster."""
        for last in (False, False, True):
            self.configure()
            self.launch()
            try:
                until(self.patience, "nginx listens",
                      lambda: self.listens() or self.ended())
                if not self.ended():
                    return
                raise Complaint("nginx did not start")
            except Complaint as complaint:
                said = self.log()
                if last or "98: " not in said:
                    raise Complaint(f"{complaint}\n{self.story()}") from None
                self.kill_all()
                self.ports.clear()
                (self.prefix / "error.log").unlink()

    def launch(self):
        how = [] if self.daemon else ["-g", "daemon off;"]
        if self.daemon:
            adopt_orphans()
        with open(self.prefix / "stderr", "ab") as out:
            self.process = subprocess.Popen(
                [*self.command, *self.arguments(), *how],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env=self.environment(), start_new_session=True)
        if self.daemon and self.process.wait() == 0:
            self.process = Daemon(until(self.patience, "a pid file",
                                        self.pid_in_file))

    def pid_in_file(self):
        try:
            return self.master_pid()
        except (OSError, ValueError):
            return None

    def ended(self):
        return self.process.poll() is not None

    def listens(self):
        """All ports of the configuration, and there is a worker."""
        text = (self.prefix / "nginx.conf").read_text()
        for port in self.ports.values():
            if not re.search(rf"listen\s[^;]*\b{port}\b", text):
                continue
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
        return not self.master or len(self.workers()) >= int(
            self.parts["workers"])

    def stop(self, patience=None):
        """Ends it gently and looks for what went wrong."""
        told = set()

        def ends():
            """Workers follow their master; one that a USR2 started does not."""
            alive = self.alive()
            for process in alive:
                if (process.parent not in {one.pid for one in alive}
                        and process.pid not in told):
                    told.add(process.pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGQUIT)
            return self.process.poll() is not None and not alive

        until(patience or self.patience + 5, "nginx ends", ends, self.story)
        if self.process.returncode != 0:
            raise Complaint(f"nginx ended with {self.process.returncode}\n"
                            + self.story())
        self.check()

    def alive(self):
        """Its processes, also those that a USR2 started."""
        if self.process is None:
            return []
        return [one for one in processes()
                if one.session == self.process.pid and one.state not in "ZX"]

    def kill_all(self):
        end = time.monotonic() + 10
        while (left := self.alive()) and time.monotonic() < end:
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
            time.sleep(0.01)
        if self.process is not None:
            self.process.wait()
            for one in processes():
                if (one.session == self.process.pid
                        and one.parent == os.getpid()):
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(one.pid, 0)

    def destroy(self):
        """Ends it roughly if it still runs; removes its directory."""
        self.kill_all()
        shutil.rmtree(self.prefix, ignore_errors=True)

    # ---- its processes ------------------------------------------------------

    def master_pid(self):
        """The one that the pid file names."""
        return int((self.prefix / "nginx.pid").read_text())

    def workers(self, master=None):
        """The pids of those that serve; not of those that shut down."""
        if not self.master:
            return [self.master_pid()]
        if master is None:
            master = self.pid_in_file()
        return sorted(one.pid for one in self.alive()
                      if one.parent == master
                      and one.title.startswith("nginx: worker process")
                      and "shutting down" not in one.title)

    def worker(self):
        """The pid of the only worker."""
        found = self.workers()
        if len(found) != 1:
            raise Complaint(f"workers: {found}, not one\n{self.story()}")
        return found[0]

    def signal(self, name, pid=None):
        os.kill(pid or self.master_pid(), getattr(signal, "SIG" + name))

    def reload(self, wait=True, **parts):
        """HUP, with a new configuration if parts are given."""
        before = set(self.workers())
        if parts:
            self.configure(**parts)
        else:
            self.write("nginx.conf", self.text())
        self.signal("HUP")
        if wait:
            until(self.patience, "new workers after a reload",
                  lambda: self.replaced(before), self.story)

    def replaced(self, before):
        now = set(self.workers())
        return (not now & before
                and len(now) >= int(self.parts["workers"]))

    def gone(self, pids):
        """Waits until processes have ended."""
        until(self.patience + 5, f"{sorted(pids)} end",
              lambda: not set(pids) & {one.pid for one in self.alive()},
              self.story)

    def upgrade(self):
        """USR2: a second master beside the first. Returns both pids.

        Needs daemon=True. stop() ends those that are left.
        """
        old = self.master_pid()
        self.signal("USR2")
        until(self.patience, "a new master", lambda: (
            (self.prefix / "nginx.pid.oldbin").exists()
            and self.pid_in_file() not in (None, old)
            and len(self.workers()) >= int(self.parts["workers"])),
            self.story)
        return old, self.master_pid()

    # ---- its log ------------------------------------------------------------

    def log(self):
        """All that it has said so far."""
        texts = []
        for name in ("error.log", "stderr"):
            path = self.prefix / name
            if path.exists():
                texts.append(path.read_text(errors="replace"))
        return "".join(texts)

    def find(self, pattern):
        """The lines of the log in which a regular expression is found."""
        seek = re.compile(pattern)
        return [line for line in self.log().splitlines() if seek.search(line)]

    def complaints(self):
        """Lines that tell of trouble nobody expected."""
        return [line for line in self.log().splitlines()
                if TROUBLE.search(line)
                and not any(re.search(one, line)
                            for one in [*self.expected, *known_trouble()])]

    def check(self):
        bad = self.complaints()
        if bad:
            raise Complaint("in the error log:\n" + "\n".join(bad[:20])
                            + "\n" + self.story())

    def story(self):
        """The end of the log, for a message."""
        return "the log ends:\n" + "\n".join(
            "    " + line for line in self.log().splitlines()[-30:])

    def slots(self):
        """How many slots each worker that took any has said to have taken."""
        return [int(number) for number in SLOTS.findall(self.log())]

    # ---- requests -----------------------------------------------------------

    def url(self, path="/", port="HTTP", scheme="http"):
        return f"{scheme}://127.0.0.1:{self.ports[port]}{path}"

    def connect(self, port="HTTP", tls=False, timeout=60):
        """An http.client connection, kept alive; not yet open."""
        if tls:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.ports[port], timeout=timeout,
                context=self.tls_context())
        return http.client.HTTPConnection("127.0.0.1", self.ports[port],
                                          timeout=timeout)

    def tls_context(self):
        context = ssl.create_default_context(
            cafile=str(self.prefix / "cert.pem"))
        context.check_hostname = False
        return context

    def socket(self, port="HTTP", tls=False, timeout=60):
        """A connected socket."""
        plain = socket.create_connection(("127.0.0.1", self.ports[port]),
                                         timeout)
        return (self.tls_context().wrap_socket(plain) if tls else plain)

    def get(self, path="/", port="HTTP", *, tls=False, headers=None,
            method="GET", body=None):
        """One request on a connection of its own: (status, headers, body)."""
        with contextlib.closing(self.connect(port, tls)) as connection:
            connection.request(method, path, body, {
                "Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    # ---- load ---------------------------------------------------------------

    def wrk(self, path="/", port="HTTP", *, scheme="http", seconds=1,
            connections=20, close=False, headers=()):
        """A load by wrk. Returns how many requests were answered; raises
        Complaint if one was not, or not well."""
        command = ["wrk", "-t", "1", "-c", str(connections), "-d",
                   f"{seconds}s", "--timeout", "10s"]
        if close:
            command += ["-H", "Connection: close"]
        for header in headers:
            command += ["-H", header]
        return wrk_result(subprocess.run(
            [*command, self.url(path, port, scheme)], capture_output=True,
            text=True, check=False))

    def ab(self, path="/", port="HTTP", *, requests=500, connections=20,
           scheme="http", keepalive=False, headers=()):
        """A number of requests by ab, all of them well answered."""
        command = ["ab", "-q", "-n", str(requests), "-c", str(connections)]
        if keepalive:
            command.append("-k")
        for header in headers:
            command += ["-H", header]
        done = subprocess.run([*command, self.url(path, port, scheme)],
                              capture_output=True, text=True, check=False)
        found = dict(re.findall(r"^([\w -]+):\s+(\d+)", done.stdout, re.M))
        if (done.returncode or int(found.get("Complete requests", 0))
                != requests or int(found.get("Failed requests", 1))
                or "Non-2xx responses" in found):
            raise Complaint(f"ab: {done.stdout}{done.stderr}\n{self.story()}")


def wrk_result(done):
    """The number of requests in what wrk printed; all must be well."""
    found = re.search(r"(\d+) requests in ", done.stdout)
    if (done.returncode or not found or int(found[1]) == 0
            or "Socket errors" in done.stdout or "Non-2xx" in done.stdout):
        raise Complaint(f"wrk: {done.stdout}{done.stderr}")
    return int(found[1])


class Load:
    """Requests without end in threads of this process, until `with` is left.

        with Load(nginx, "/file", body) as load:
            nginx.reload()
        load.requests

    Each answer must have status 200 and the body. A connection that is kept
    alive may be closed by the server while a request is on its way, without a
    word; such a request is sent again once, on a new connection. Everything
    else is a failure; leaving raises Complaint with the first of them, if the
    load is not `lossy`.
    """

    def __init__(self, nginx, path, body, *, port="HTTP", tls=False,
                 keepalive=False, threads=4, pause=0.0005,
                 lossy=False):
        self.nginx, self.path, self.body = nginx, path, body
        self.port, self.tls, self.keepalive = port, tls, keepalive
        self.pause, self.lossy = pause, lossy
        self.requests, self.failures = 0, []
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True)
                        for _ in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        until(60, "the load's first answers",
              lambda: self.requests >= len(self.threads) or self.failures)
        return self

    def __exit__(self, kind, value, trace):
        self.ending.set()
        for thread in self.threads:
            thread.join(60)
        if kind is None:
            if any(thread.is_alive() for thread in self.threads):
                raise Complaint("a request of the load never ended")
            if self.failures and not self.lossy:
                raise Complaint(
                    f"{len(self.failures)} of {self.requests} requests"
                    f" failed, the first: {self.failures[0]}\n"
                    + self.nginx.story())

    def run(self):
        connection, used = None, False
        while not self.ending.is_set():
            if connection is None:
                connection, used = self.nginx.connect(self.port,
                                                      self.tls), False
            try:
                wrong = self.ask(connection)
            except (http.client.RemoteDisconnected, ConnectionResetError,
                    BrokenPipeError) as error:
                connection.close()
                connection = None
                if used:
                    continue
                wrong = repr(error)
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
            with self.lock:
                self.requests += 1
                if wrong:
                    self.failures.append(wrong)
            used = True
            if wrong or not self.keepalive:
                if connection is not None:
                    connection.close()
                connection = None
            self.ending.wait(self.pause)
        if connection is not None:
            connection.close()

    def ask(self, connection):
        """One request; what is wrong with its answer, or ''."""
        connection.request("GET", self.path, headers={
            "Connection": "keep-alive" if self.keepalive else "close"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return f"status {answer.status}"
        if body != self.body:
            return f"a body of {len(body)} bytes that is another"
        return ""
