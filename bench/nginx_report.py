#!/usr/bin/env python3
"""nginx_report.py - a real nginx with the HAKMEM module, beside stock nginx
and nginx with other allocators preloaded.

    nginx_report.py             worker CPU time of a request (about 3 minutes)
    nginx_report.py --insn      user instructions of a request, by callgrind
    nginx_report.py --memory    thousands of connections come, are used, go
    nginx_report.py --quick     any of them with stock and hakmem only, fewer
                                rounds

The rows (bench/nginx/sites.py): a static file on a kept connection and on a
new one, proxy, a full TLS handshake, perl_set, and ModSecurity with its core
rule set. "tiny" is the module with `hakmem_lanes tiny`: at most 1024 B are
ours.

CPU: one live worker per allocator, pinned to one processor, the client (ab)
to another. In every round each serves the same number of requests, in rotated
order; a round gives a ratio to stock, the table has the median. "again" is a
second stock worker: noise.

Uses nothing but Python's own library, nginx, ab and, for --insn, valgrind.
"""
import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

import bench
import lua_report
from lua_report import Failed, Table, blank, geometric_mean, rotated

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "nginx"), str(HERE.parent / "tests" / "nginx")]
import nginx_server  # noqa: E402
import sites  # noqa: E402
from nginx_server import Server  # noqa: E402

STOCK = "stock"
# An allocator's name -> hakmem_lanes, or what is preloaded.
LANES = {"hakmem": "all", "tiny": "tiny"}
PRELOADS = {peer.name: peer.preload for peer in bench.PEERS if peer.preload}
ALLOCATORS = [STOCK, *LANES, *PRELOADS, "again"]

# Milliseconds until free memory goes back, where callgrind makes everything
# but the clock 50 times as slow.
SLOW_DELAY = "50000"
CURVE = "prime256v1"  # of the server's key
CONNECTIONS = 5000
AFTER = 10  # seconds after the last connection has gone
WAYS = 10  # connections of ab


# ---- servers ----------------------------------------------------------------

def server(options, row, allocator, back=None, *, main="", **more):
    """A worker of nginx on an allocator; not started."""
    # Perl's hashes are in the same order in every process.
    env = {"PERL_HASH_SEED": "0", "PERL_PERTURB_KEYS": "0",
           **more.pop("env", {})}
    if allocator in LANES:
        main += f" hakmem_lanes {LANES[allocator]};"
        if row.objects:
            main += f" hakmem_objects {row.objects};"
    elif allocator in PRELOADS:
        env["LD_PRELOAD"] = PRELOADS[allocator]
    nginx = Server(
        row.http, main, modules=row.modules, workers=1,
        tls=row.tls and CURVE,
        hakmem=options.module if allocator in LANES else False, env=env,
        level="notice", start=False, **more)
    if back:
        nginx.ports["BACK"] = back.ports["HTTP"]
    sites.put_files(nginx)
    return nginx


@contextlib.contextmanager
def upstream():
    """A stock nginx that has the files."""
    with Server("server { listen 127.0.0.1:@HTTP@ backlog=8192; root html;"
                " keepalive_requests 1000000000; }", hakmem=False, workers=1,
                connections=8192, start=False) as back:
        sites.put_files(back)
        back.start()
        yield back


def check_served(nginx, allocator, pid):
    """Raises Failed if the worker is not on the allocator."""
    if allocator in LANES and not any(nginx.slots()):
        raise Failed(f"{allocator}: no slot was taken over\n{nginx.story()}")
    if allocator in PRELOADS and not nginx_server.loaded(
            pid, PRELOADS[allocator].removesuffix(".so.2")
            .removesuffix(".so.4")):
        raise Failed(f"{allocator}: {PRELOADS[allocator]} is not loaded")


def good_answer(nginx, row):
    status, _, body = nginx.get(
        row.path, row.port, tls=row.tls,
        headers=dict(line.split(": ", 1) for line in row.headers))
    if status != 200 or not body:
        raise Failed(f"{row.name}: status {status}, {len(body)} bytes\n"
                     + nginx.story())
    return body


# ---- CPU time ---------------------------------------------------------------

def cpu_ns(pid):
    """User and system time so far; to the nanosecond where the kernel has
    it."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text()
                   .split()[0])
    except OSError:
        return int(1e9 * nginx_server.cpu_seconds(pid))


def serve(nginx, row, requests):
    nginx.ab(row.path, row.port, requests=requests, connections=WAYS,
             scheme="https" if row.tls else "http", keepalive=not row.close,
             headers=row.headers)


def one_round(live, row, turn):
    """{allocator: ns of the worker for a request}."""
    spent = {}
    for allocator in rotated(list(live), turn):
        nginx, pid = live[allocator]
        before = cpu_ns(pid)
        serve(nginx, row, row.requests)
        spent[allocator] = (cpu_ns(pid) - before) / row.requests
    return spent


def measure(options, row, back):
    """{allocator: figures} of a row."""
    with contextlib.ExitStack() as stack:
        live, bodies = {}, {}
        for allocator in options.allocators:
            nginx = stack.enter_context(server(options, row, allocator, back))
            nginx.start()
            pid = nginx.worker()
            bodies[allocator] = good_answer(nginx, row)
            check_served(nginx, allocator, pid)
            os.sched_setaffinity(pid, {options.cpu})
            live[allocator] = nginx, pid
        lua_report.agree(row.name, bodies)
        for nginx, _ in live.values():
            serve(nginx, row, max(row.requests // 4, 100))
        rounds = [one_round(live, row, turn)
                  for turn in range(options.rounds)]
        rss = {allocator: nginx_server.memory(pid)["Rss"]
               for allocator, (_, pid) in live.items()}
    return {allocator: cpu_figures(allocator, rounds, rss[allocator])
            for allocator in options.allocators}


def cpu_figures(allocator, rounds, rss):
    ratios = [spent[allocator] / spent[STOCK] for spent in rounds]
    return {"us": statistics.median(spent[allocator]
                                    for spent in rounds) / 1000,
            "ratio": statistics.median(ratios), "low": min(ratios),
            "high": max(ratios), "rss_kb": rss}


def ratio_column(name):
    return (name, 10, lambda f: f"{f[name]['ratio']:.3f}", lambda report:
            f"""{geometric_mean([f[name]['ratio']
                                 for f in report.values()]):.3f}""")


def timing(options):
    others = [name for name in options.allocators if name != STOCK]
    table = Table([("stock us", 10, lambda f: f"{f[STOCK]['us']:.1f}",
                    blank)] + [ratio_column(name) for name in others]
                  + [("from..to", 14, spread, blank)] * ("hakmem" in others))
    table.head()
    report = {}
    cpus = os.sched_getaffinity(0)
    with upstream() as back:
        # The client and the upstream leave the worker its processor.
        elsewhere = cpus - {options.cpu} or cpus
        os.sched_setaffinity(0, elsewhere)
        for pid in back.workers():
            os.sched_setaffinity(pid, elsewhere)
        try:
            for row in options.rows:
                report[row.name] = measure(options, row, back)
                table.line(row.name, report[row.name])
        finally:
            os.sched_setaffinity(0, cpus)
    table.last(report)
    print("CPU time (user and system) of the worker for a request; ratios to"
          " stock, below 1\nis less. from..to: hakmem's rounds.")
    return list(lua_report.report_lines(report))


def spread(figures):
    ours = figures["hakmem"]
    return f"{ours['low']:.3f}..{ours['high']:.3f}"


# ---- instructions -----------------------------------------------------------

COLLECTED = re.compile(r"Collected : (\d+)")


def requests_one_by_one(nginx, row, count):
    """On one connection, or on one for each."""
    headers = dict(line.split(": ", 1) for line in row.headers)
    if row.close:
        for _ in range(count):
            nginx.get(row.path, row.port, tls=row.tls, headers=headers)
        return
    with contextlib.closing(nginx.connect(row.port, row.tls)) as connection:
        for _ in range(count):
            connection.request("GET", row.path, headers=headers)
            if connection.getresponse().read() == b"":
                raise Failed(f"{row.name}: an empty answer")


def instructions_of(options, row, allocator, count, back):
    """Of a whole run with `count` requests."""
    main = "env HAKMEM_PURGE_DELAY;" if allocator in LANES else ""
    with server(options, row, allocator, back, main=main, master=False,
                env={"HAKMEM_PURGE_DELAY": SLOW_DELAY}, patience=120,
                command=["valgrind", "--tool=callgrind",
                         "--callgrind-out-file=/dev/null"]) as nginx:
        nginx.start()
        requests_one_by_one(nginx, row, count)
        check_served(nginx, allocator, nginx.process.pid)
        nginx.stop()
        found = COLLECTED.search(nginx.log())
        if not found:
            raise Failed(f"{row.name} on {allocator}: valgrind failed\n"
                         + nginx.story())
    return int(found[1])


def insn_row(options, row, back, pool):
    """{allocator: instructions of a request}: 3 N requests less 2 N."""
    count = max(row.insn // (4 if options.quick else 1), 5)
    jobs = {(name, times): pool.submit(instructions_of, options, row, name,
                                       times * count, back)
            for name in options.allocators for times in (2, 3)}
    return {name: {"instructions": (jobs[name, 3].result()
                                    - jobs[name, 2].result()) / count}
            for name in options.allocators}


def instructions(options):
    def column(name):
        return (name, 12, lambda f: f"{f[name]['instructions']:.0f}",
                lambda report: f"""{geometric_mean(
                    [f[name]['instructions'] / f[STOCK]['instructions']
                     for f in report.values()]):.3f}""")
    table = Table([column(name) for name in options.allocators])
    table.head()
    report = {}
    workers = len(os.sched_getaffinity(0))
    with upstream() as back, \
            concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for row in options.rows:
            report[row.name] = insn_row(options, row, back, pool)
            table.line(row.name, report[row.name])
    table.last(report)
    print("User instructions of a request, all of nginx and its libraries;"
          " the mean is of the\nratios to stock.")
    return list(lua_report.report_lines(report))


# ---- memory -----------------------------------------------------------------

class Clients:
    """A process of bench/nginx/clients.py."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "nginx" / "clients.py"),
             *map(str, arguments)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def line(self):
        line = self.process.stdout.readline().strip()
        if not line:
            raise Failed("the clients ended early; their message stands above")
        return line

    def do(self, word):
        self.process.stdin.write(word + "\n")
        self.line()


STORMS = {
    "tls": ("TLS", "/large", sites.Row("tls", sites.site("", sites.TLS),
                                       port="TLS")),
    "tunnels": ("HTTP", "/upgrade/", sites.Row("tunnels", sites.site("""
        location /upgrade/ {
            proxy_pass http://127.0.0.1:@BACK@; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 600s; }"""))),
}


def peak_kb(pid):
    """The most that was resident."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+)", text, re.M)[1])


def storm(options, kind, nginx, pid, later):
    """The figures of one storm; "after" is filled in by a timer."""
    port, path, row = STORMS[kind]
    figures = {}
    with Clients(kind, nginx.ports[port], 50, path) as few:
        for word in ("open", "use", "close") * 2:
            few.do(word)
    nginx.wrk("/large", seconds=1)
    time.sleep(0.5)
    figures["warm_kb"] = nginx_server.memory(pid)["Rss"]
    with Clients(kind, nginx.ports[port], options.connections, path) as many:
        many.do("open")
        figures["full_kb"] = nginx_server.memory(pid)["Rss"]
        many.do("use")
        time.sleep(1)
        many.do("use")
        many.do("close")
        figures["peak_kb"] = max(peak_kb(pid), figures["full_kb"])
        figures["gone_kb"] = nginx_server.memory(pid)["Rss"]

    def after():
        figures["after_kb"] = nginx_server.memory(pid)["Rss"]
    timer = threading.Timer(AFTER, after)
    timer.start()
    later.append(timer)
    return figures


def files_for(options):
    """What a worker may open: a tunnel takes two, and nginx closes some when
    less than a sixteenth is free."""
    return 2 * options.connections * 17 // 16 + 500


def storms(options, kind, back):
    """{allocator: figures}, in KB resident."""
    row, files = STORMS[kind][2], files_for(options)
    found, later = {}, []
    with contextlib.ExitStack() as stack:
        for allocator in options.allocators:
            nginx = stack.enter_context(server(
                options, row, allocator, connections=files,
                main=f"worker_rlimit_nofile {files};"))
            if back:
                nginx.ports["BACK"] = back
            nginx.start()
            pid = nginx.worker()
            check_served(nginx, allocator, pid)
            found[allocator] = storm(options, kind, nginx, pid, later)
        for timer in later:
            timer.join()
    return found


def memory(options):
    files = files_for(options)
    if nginx_server.descriptors(files) < files:
        raise Failed(f"{options.connections} connections need {files} open"
                     f" files: raise 'ulimit -n {files}', or take fewer"
                     " --connections")
    titles = {"warm_kb": "warm", "full_kb": "open", "peak_kb": "peak",
              "gone_kb": "gone", "after_kb": f"{AFTER} s later"}
    written = []
    with Clients("echo") as echo:
        port = int(echo.line())
        for kind in STORMS:
            print(f"\n{options.connections} {kind}, MB resident:")
            print(f"  {'':<10}" + "".join(f"{title:>12}"
                                          for title in titles.values())
                  + f"{'to warm':>12}{'peak to stock':>15}")
            report = storms(options, kind, port if kind == "tunnels" else None)
            for name, figures in report.items():
                print(f"  {name:<10}" + "".join(
                    f"{figures[key] / 1024:>12.1f}" for key in titles)
                    + f"{figures['after_kb'] / figures['warm_kb']:>12.2f}"
                    f"{figures['peak_kb'] / report[STOCK]['peak_kb']:>15.3f}",
                    flush=True)
            written += lua_report.report_lines({kind: report})
    print("\nwarm: after some requests of each kind; open: all connections"
          " have been used once;\ngone: just closed; to warm: the last column"
          f" ({AFTER} s later) to the first.")
    return written


# ---- the command line -------------------------------------------------------

def arguments():
    parser = argparse.ArgumentParser(
        description="nginx under several allocators")
    parser.add_argument("--module", default=nginx_server.MODULE,
                        help="ngx_http_hakmem_module.so; default"
                        " $HAKMEM_NGINX_MODULE")
    parser.add_argument("--quick", action="store_true",
                        help="stock and hakmem, fewer rounds")
    parser.add_argument("--insn", action="store_true",
                        help="instructions, by callgrind")
    parser.add_argument("--memory", action="store_true",
                        help="thousands of connections come and go")
    parser.add_argument("--csv", metavar="FILE", help="write the measurements there")
    parser.add_argument("--rows", help="some of: "
                        + ",".join(row.name for row in sites.ROWS))
    parser.add_argument("--allocators", help="stock and some of: "
                        + ",".join(ALLOCATORS[1:]))
    parser.add_argument("--rounds", type=int, help="default 7")
    parser.add_argument("--connections", type=int,
                        help=f"of --memory; default {CONNECTIONS}")
    parser.add_argument("--cpu", type=int, help="the worker's processor")
    return parser.parse_args()


def choose_allocators(options):
    standard = ALLOCATORS[:2] if options.quick else list(ALLOCATORS)
    if options.insn or options.memory:
        standard = [name for name in standard if name != "again"]
    names = lua_report.chosen(options.allocators, ALLOCATORS, standard,
                              "allocator")
    if STOCK not in names:
        names.insert(0, STOCK)
    for name in list(names):
        if name in PRELOADS and not bench_has(PRELOADS[name]):
            print(f"Note: no {PRELOADS[name]}, its column is left out (make"
                  " install-deps).")
            names.remove(name)
    return names


def bench_has(library):
    """Whether it can be preloaded."""
    return subprocess.run(
        ["true"], env={**os.environ, "LD_PRELOAD": library},
        capture_output=True, text=True, check=False).stderr == ""


def choose_rows(options):
    known = {row.name: row for row in sites.ROWS}
    names = lua_report.chosen(options.rows, known, list(known), "row")
    rows = []
    for name in names:
        missing = [module for module in known[name].modules
                   if not nginx_server.has_module(module)]
        if missing:
            print(f"Note: without {', '.join(missing)}, the row {name} is"
                  " left out (make install-deps).")
        else:
            rows.append(known[name])
    return rows


def complete(options):
    """Fills in what the command line left open."""
    if not nginx_server.has_nginx():
        raise Failed("nginx is not installed: run 'make install-deps'")
    if not os.path.exists(options.module or ""):
        raise Failed("no module: run 'make bench-nginx', or name it with"
                     " --module")
    for tool in ("ab", "openssl", *(["valgrind"] * options.insn),
                 *(["wrk"] * options.memory)):
        if not shutil.which(tool):
            raise Failed(f"{tool} is not installed: run 'make install-deps'")
    options.module = os.path.abspath(options.module)
    options.allocators = choose_allocators(options)
    options.rows = choose_rows(options)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.connections = options.connections or (
        CONNECTIONS // 5 if options.quick else CONNECTIONS)
    if options.rounds < 1 or options.connections < 1:
        raise Failed("--rounds and --connections must be 1 or more")
    options.cpu = lua_report.processor(options.cpu)


def main():
    nginx_server.end_on_term()
    try:
        options = arguments()
        complete(options)
        version = subprocess.run(
            [nginx_server.NGINX, "-v"], capture_output=True, text=True,
            check=True).stderr.strip().rpartition("/")[2]
        print(f"{bench.machine()}, commit {bench.commit()}, nginx {version}")
        written = (instructions if options.insn else memory
                   if options.memory else timing)(options)
        if options.csv:
            lua_report.save(options.csv, written)
    except (Failed, nginx_server.Complaint) as failure:
        sys.exit(f"nginx_report: {failure}")


if __name__ == "__main__":
    main()
