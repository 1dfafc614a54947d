#!/usr/bin/env python3
"""Programs in a container as small as glibc's malloc can do with, on HAKMEM.

    tests/limits/programs.py --library LIBRARY --parser PROGRAM
        [--slack 1.05] [--by cgroup|data] [NAME...]

For each program the smallest limit is looked for in which it finishes on the C
library's malloc, then it runs on LIBRARY (LD_PRELOAD) with SLACK times as much
(MORE: those that need more than 5 %), RUNS times, and must finish each time. The limit is a memory control group's
(root, and a writable hierarchy of version 1 or 2), else RLIMIT_DATA, which is on
what is mapped, not on what is resident: there the slack is SLACK_DATA more,
since HAKMEM maps superslabs of 2 MB. The last line is "N passed, N failed".

A program that does not end in time counts as one that does not finish: at its
limit the kernel drops and reads again the pages of programs all the time.
"""
import argparse
import contextlib
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

MB = 1 << 20
RUNS = 3
STEP = 0.02  # how near the smallest limit is come to
LEAST_STEP = 128 << 10
SLACK_DATA = 12 * MB
C_LIBRARY = "libc.so.6"  # its malloc, though Debian's redis is linked to jemalloc
SLOWEST = 4  # times as long as without a limit


# ---- limits -----------------------------------------------------------------

class Group:
    """A control group of its own below the hierarchy's top, or our own."""

    def __init__(self, directory, limit_file):
        self.directory = directory
        self.limit_file = limit_file

    @classmethod
    def make(cls):
        name = f"hakmem-limits-{os.getpid()}"
        for top, limit_file in (("/sys/fs/cgroup/memory",
                                 "memory.limit_in_bytes"),
                                ("/sys/fs/cgroup", "memory.max")):
            directory = pathlib.Path(top) / name
            try:
                directory.mkdir()
                if (directory / limit_file).exists():
                    return cls(directory, limit_file)
                directory.rmdir()
            except OSError:
                continue
        return None

    def set(self, limit):
        """Once it is empty: what former processes left counts."""
        with contextlib.suppress(OSError):
            (self.directory / "memory.force_empty").write_text("0")
        (self.directory / self.limit_file).write_text(str(limit))

    def enter(self, limit):
        (self.directory / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self):
        for _ in range(100):
            try:
                self.directory.rmdir()
                return
            except OSError:
                time.sleep(0.05)


class Data:
    """RLIMIT_DATA."""

    def set(self, limit):
        pass

    def enter(self, limit):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    def remove(self):
        pass


# ---- programs ---------------------------------------------------------------

class Failed(Exception):
    pass


class Run:
    """One run of a program under a limit, or none."""

    def __init__(self, work, limits, limit, library, timeout):
        self.work, self.limits, self.limit = work, limits, limit
        self.deadline = time.monotonic() + timeout
        self.env = {name: value for name, value in os.environ.items()
                    if name in ("PATH", "LANG")}
        self.env["HOME"] = self.env["TMPDIR"] = str(work)
        self.env["LD_PRELOAD"] = str(library or C_LIBRARY)

    def left(self):
        return max(self.deadline - time.monotonic(), 0.01)

    def start(self, command, **how):
        def enter():
            os.setsid()
            if self.limit is not None:
                self.limits.enter(self.limit)

        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
               "stderr": subprocess.DEVNULL} | how
        return subprocess.Popen(command, env=self.env, cwd=self.work,
                                preexec_fn=enter, **how)

    def stop(self, process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def command(self, command, **how):
        """Its standard output; it must end well and in time."""
        process = self.start(command, stdout=subprocess.PIPE, **how)
        try:
            out, _ = process.communicate(timeout=self.left())
        except subprocess.TimeoutExpired:
            raise Failed("not in time") from None
        finally:
            self.stop(process)
        if process.returncode != 0:
            raise Failed(f"status {process.returncode}")
        return out

    @contextlib.contextmanager
    def server(self, command, port):
        process = self.start(command)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None or self.left() < 0.1:
                        raise Failed("the server did not start") from None
                    time.sleep(0.02)
            yield process
            if process.poll() is not None:
                raise Failed("the server has ended")
        finally:
            self.stop(process)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


PYTHON_JSON = """
import json
with open("data.json") as file:
    text = file.read()
for _ in range(2):
    data = json.loads(text)
    print(len(data), sum(len(row["tags"]) for row in data))
    del data
print(len(json.dumps(json.loads(text))))
"""

LUA = """
local words, n = {}, 0
for line in io.lines("words") do
    n = n + 1
    words[#words + 1] = {text = line .. n, at = n, links = {n, n + 1}}
    if n % 3 == 0 then words[n // 3] = {text = line, at = n, links = {}} end
end
for round = 1, 4 do
    local index = {}
    for i, word in ipairs(words) do index[word.text] = word.at + round end
end
local parts = {}
for i, word in ipairs(words) do parts[i] = word.text end
print(#words, #table.concat(parts, ","))
"""

PERL = """
my (%count, @lines);
open(my $file, "<", "words") or die;
while (<$file>) { chomp; $count{$_ . $.}++; push @lines, [$_, length, $.]; }
my @sorted = sort { $a->[0] cmp $b->[0] or $a->[2] <=> $b->[2] } @lines;
delete $count{$_} for grep { /7/ } keys %count;
print scalar(keys %count), " ", $sorted[-1][0], "\\n";
"""

SQL = """
create table t(id integer primary key, name text, value real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 300000)
insert into t select i, 'name' || (i * 7919 % 300000), i * 0.5 from n;
create index by_name on t(name);
create table u as select name, sum(value) s from t group by substr(name, 1, 6);
delete from t where id % 3 = 0;
select count(*), sum(value) from t;
select count(*), sum(s) from u;
"""


def python_json(run):
    run.env["PYTHONMALLOC"] = "malloc"
    return run.command(["/usr/bin/python3", "-c", PYTHON_JSON])


def lua(run):
    return run.command(["lua5.4", "-e", LUA])


def perl(run):
    return run.command(["perl", "-e", PERL])


def sqlite3(run):
    return run.command(["sqlite3", ":memory:", SQL])


def jq(run):
    return run.command(["jq", "-c", "[group_by(.kind)[] | {k: .[0].kind, "
                        "n: length, s: (map(.score) | add)}]", "data.json"])


def parser(run):
    return run.command([run.parser, "data.json"])


def gcc(run):
    return run.command(["gcc", "-O2", "-S", "-o", "-", "made.c"])


def xz(run):
    return run.command(["sh", "-c", "xz -3 -T1 -c words | xz -dc | cksum"])


def sort(run):
    return run.command(["sh", "-c", "sort -S 12M --parallel=2 words words words "
                        "| cksum"])


def redis(run):
    port = free_port()
    with run.server(["redis-server", "--port", str(port), "--save", "",
                     "--bind", "127.0.0.1", "--appendonly", "no"], port):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            answers = client.makefile("rb")

            def ask(commands):
                client.sendall(b"".join(command.encode() + b"\r\n"
                                        for command in commands))
                return [answers.readline() for _ in commands]

            try:
                for turn in range(3):
                    for at in range(0, 100000, 500):
                        ask([f"SET k{i} {'v' * (i % 97 + 14)}"
                             for i in range(at, at + 500)])
                    for at in range(0, 60000, 500):
                        ask([f"HSET h{i % 100} f{i} {i * turn}"
                             for i in range(at, at + 500)])
                    ask([f"DEL k{i}" for i in range(0, 100000, 3)])
                    if run.left() < 0.1:
                        raise Failed("not in time")
                size = ask(["DBSIZE"])[0]
            except OSError:
                raise Failed("the server has gone") from None
        if not size:
            raise Failed("the server has gone")
        return size


NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 1000; }}
http {{
    access_log off; gzip on; gzip_types *; gzip_comp_level 1;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fast; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{port} sndbuf=32k rcvbuf=32k; root {root};
        location /big {{ proxy_pass http://127.0.0.1:{port}/words;
            proxy_set_header Accept-Encoding ''; proxy_buffers 4 32k;
            proxy_max_temp_file_size 0; }}
        location /page {{ limit_rate 300k; alias {root}/words; }}
    }}
}}
"""


CLIENTS, EACH = 12, 8
FULL = 1  # seconds until nginx waits for its clients


def nginx(run):
    port, answers = free_port(), [0] * CLIENTS
    all_asked = threading.Barrier(CLIENTS)
    os.chmod(run.work, 0o755)
    (run.work / "nginx.conf").write_text(
        NGINX.format(port=port, root=run.work) if os.getuid() else
        "user root;" + NGINX.format(port=port, root=run.work))

    size = (run.work / "words").stat().st_size

    def answer(connection, big):
        """Whether all of it has come: gzip ends with an empty chunk."""
        length, end = 0, b""
        while part := connection.recv(1 << 16):
            length, end = length + len(part), (end + part)[-5:]
        return length > size if big else end == b"0\r\n\r\n"

    def client(which):
        """Connections side by side, of which each reads an answer; but not before
        the server has filled its buffers for all: so it needs the same each time."""
        with contextlib.ExitStack() as stack:
            several = [stack.enter_context(socket.socket()) for _ in range(EACH)]
            for i, connection in enumerate(several):
                connection.settimeout(20)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
                connection.connect(("127.0.0.1", port))
                path = "/big" if i % 2 else "/page"
                accept = "" if i % 2 else "Accept-Encoding: gzip\r\n"
                connection.sendall(
                    f"GET {path} HTTP/1.1\r\nHost: a\r\n{accept}"
                    "Connection: close\r\n\r\n".encode())
            all_asked.wait(run.left())
            time.sleep(FULL)
            for i, connection in enumerate(several):
                answers[which] += answer(connection, i % 2 == 1)

    def served(which):
        # Then answers are missing.
        with contextlib.suppress(OSError, threading.BrokenBarrierError):
            client(which)

    with run.server(["nginx", "-p", str(run.work), "-c", "nginx.conf",
                     "-e", "stderr"], port):
        clients = [threading.Thread(target=served, args=(i,), daemon=True)
                   for i in range(CLIENTS)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(run.left())
            if thread.is_alive():
                raise Failed("not in time")
        if answers != [EACH] * CLIENTS:
            raise Failed("answers are missing")
    return b"all"


# What is known to need more than that.
MORE = {
    sqlite3: 1.15,  # all it has are pages of 4,368 B, in blocks of 4,608
}
PROGRAMS = [python_json, lua, perl, jq, parser, gcc, xz, sort, redis, nginx,
            sqlite3]


def make_inputs(work):
    """What the programs read."""
    with open(work / "data.json", "w") as file:
        file.write("[" + ",\n".join(
            f'{{"id":{i},"name":"person number {i * 7919 % 99991}",'
            f'"kind":"k{i % 17}","score":{i * 31 % 1009},"tags":'
            f'["t{i % 7}","t{i % 11}","{"x" * (i % 40)}"],'
            f'"place":{{"x":{i % 360},"y":{i % 180}.5}}}}'
            for i in range(20000)) + "]")
    with open(work / "words", "w") as file:
        for i in range(60000):
            file.write(f"word{i * 7919 % 60000} {'abcdefghij' * (i % 5)}\n")
    with open(work / "made.c", "w") as file:
        for i in range(250):
            file.write(f"int f{i}(int *p, int n) {{ int s = {i}; for (int i = 0;"
                       f" i < n; i++) {{ if (p[i] % {i + 2} == 1) s += p[i] * "
                       f"{i}; else s ^= p[(i * {i + 3}) % n]; }} "
                       f"return s > {i} ? f{max(i - 1, 0)}(p, s % n) : s; }}\n")


# ---- the smallest limit -----------------------------------------------------

class Check:
    def __init__(self, args, limits, work, program):
        self.args, self.limits, self.program = args, limits, program
        self.work = work
        self.timeout = 60

    def once(self, limit, library):
        """What it says; Failed if it does not finish."""
        if limit is not None:
            self.limits.set(limit)
        run = Run(self.work, self.limits, limit, library, self.timeout)
        run.parser = self.args.parser
        return self.program(run)

    def finishes(self, limit, library, want):
        try:
            return self.once(limit, library) == want
        except (Failed, OSError):
            return False

    def smallest(self, want):
        """The smallest limit in which it finishes on the C library, twice."""
        low, high = MB, 8 * MB
        while not self.finishes(high, None, want):
            low, high = high, 2 * high
            if high > 4096 * MB:
                raise Failed("it does not finish in any limit")
        while high - low > max(high * STEP, LEAST_STEP):
            middle = (low + high) // 2
            if all(self.finishes(middle, None, want) for _ in range(2)):
                high = middle
            else:
                low = middle
        return high

    def run(self):
        """(glibc's smallest limit, ours, how many runs of ours finished)."""
        began = time.monotonic()
        want = self.once(None, None)
        self.timeout = SLOWEST * (time.monotonic() - began) + 2
        least = self.smallest(want)
        slack = max(self.args.slack, MORE.get(self.program, 0))
        ours = int(least * slack) + (
            SLACK_DATA if isinstance(self.limits, Data) else 0)
        done = sum(self.finishes(ours, self.args.library, want)
                   for _ in range(RUNS))
        return least, ours, done


def main():
    parser_ = argparse.ArgumentParser()
    parser_.add_argument("--library", type=pathlib.Path, required=True)
    parser_.add_argument("--parser", type=pathlib.Path, required=True)
    parser_.add_argument("--slack", type=float, default=1.05)
    parser_.add_argument("--by", choices=("cgroup", "data"))
    parser_.add_argument("names", nargs="*")
    args = parser_.parse_args()
    args.library, args.parser = args.library.resolve(), args.parser.resolve()
    group = None if args.by == "data" else Group.make()
    if group is None and args.by == "cgroup":
        sys.exit("no control group can be made: run as root where "
                 "/sys/fs/cgroup is writable, or --by data")
    limits = group or Data()
    work = pathlib.Path(tempfile.mkdtemp(prefix="hakmem-limits-"))
    passed = failed = 0
    print("limit by", group.directory if group else "RLIMIT_DATA")
    try:
        make_inputs(work)
        for program in PROGRAMS:
            if args.names and program.__name__ not in args.names:
                continue
            try:
                least, ours, done = Check(args, limits, work, program).run()
            except Failed as why:
                print(f"{program.__name__:12} FAILED: {why}", flush=True)
                failed += 1
                continue
            good = done == RUNS
            passed, failed = passed + good, failed + (not good)
            print(f"{program.__name__:12} {'ok' if good else 'FAILED':6} glibc "
                  f"needs {least / MB:6.2f} MB, finished {done} of {RUNS} times "
                  f"in {ours / MB:6.2f}", flush=True)
    finally:
        limits.remove()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
