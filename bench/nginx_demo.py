#!/usr/bin/env python3
"""nginx_demo.py - a real nginx, stock and with the HAKMEM module, under load.

wrk (or ab) asks for a file on kept connections, then clients with TLS come,
are used and go. Prints the worker's CPU time for a request and its memory
before, under and after the load, then the module's status page. Takes half a
minute; for measurements see nginx_report.py.
"""
import argparse
import os
import shutil
import sys
import time

import nginx_report
from lua_report import Failed
from nginx_report import Clients, STOCK, nginx_server, sites

CONNECTIONS = 1000
SECONDS = 3
REQUESTS = 30000  # for ab
AFTER = 6  # seconds after the load
TRIM = "2s"
ROW = sites.Row("demo", sites.site(
    "location = /hakmem { STATUS }", sites.TLS), port="TLS", path="/large")


def row(allocator):
    """The module knows its status page, stock nginx does not."""
    status = ("return 404;" if allocator == STOCK else "hakmem_status;")
    return sites.dataclasses.replace(ROW, http=ROW.http.replace("STATUS",
                                                               status))


def load(nginx, pid):
    """Microseconds of the worker for a request."""
    before = nginx_report.cpu_ns(pid)
    if shutil.which("wrk"):
        done = nginx.wrk("/page", seconds=SECONDS)
    else:
        done = REQUESTS
        nginx.ab("/page", requests=REQUESTS, keepalive=True)
    return (nginx_report.cpu_ns(pid) - before) / done / 1000, done


def show(options, allocator):
    """One line of the table; returns the status page."""
    files = 4 * CONNECTIONS
    main = "" if allocator == STOCK else f"hakmem_trim {TRIM};"
    with nginx_report.server(options, row(allocator), allocator, main=main
                             + f" worker_rlimit_nofile {files};",
                             connections=2 * CONNECTIONS) as nginx:
        nginx.start()
        pid = nginx.worker()
        nginx_report.check_served(nginx, allocator, pid)
        before = warm(nginx, pid)
        microseconds, requests = load(nginx, pid)
        with Clients("tls", nginx.ports["TLS"], CONNECTIONS,
                     "/large") as clients:
            clients.do("open")
            clients.do("use")
            under = nginx_report.peak_kb(pid)
            clients.do("close")
        time.sleep(AFTER)
        after = nginx_server.memory(pid)["Rss"]
        print(f"  {allocator:<10}{requests:>10}{microseconds:>14.1f}"
              + "".join(f"{kb / 1024:>10.1f}"
                        for kb in (before, under, after)), flush=True)
        return ("" if allocator == STOCK
                else nginx.get("/hakmem")[2].decode())


def warm(nginx, pid):
    """What is resident after some requests."""
    with Clients("tls", nginx.ports["TLS"], 20, "/large") as few:
        few.do("open")
        few.do("close")
    time.sleep(0.2)
    return nginx_server.memory(pid)["Rss"]


def main():
    parser = argparse.ArgumentParser(description="nginx with HAKMEM")
    parser.add_argument("--module", default=nginx_server.MODULE)
    options = parser.parse_args()
    if not nginx_server.has_nginx() or not os.path.exists(options.module):
        sys.exit("nginx_demo: no nginx or no module for it: run 'make demo'")
    nginx_server.end_on_term()
    nginx_server.descriptors(4 * CONNECTIONS)
    print(f"nginx, a worker under {'wrk' if shutil.which('wrk') else 'ab'} for"
          f" {SECONDS} s, then {CONNECTIONS} clients with TLS:")
    print(f"  {'':<10}{'requests':>10}{'us/request':>14}{'MB before':>10}"
          f"{'under':>10}{'after':>10}")
    try:
        show(options, STOCK)
        show(options, "tiny")
        status = show(options, "hakmem")
    except (Failed, nginx_server.Complaint) as failure:
        sys.exit(f"nginx_demo: {failure}")
    print("CPU time of the worker for a request of the first load; MB"
          f" resident before, at the\npeak, and {AFTER} s after. tiny: with"
          " hakmem_lanes tiny. What the module's status page\nsays of the"
          " last:\n")
    print("\n".join("  " + line for line in status.splitlines()))


if __name__ == "__main__":
    main()
