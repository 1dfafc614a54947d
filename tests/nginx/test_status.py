"""hakmem_status in its three formats, what becomes of the statistics of workers
that end, and $hakmem_request_bytes."""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import unittest

from nginx_case import Case, upgrade, Echo
from nginx_server import Complaint, until

TABLE = (pathlib.Path(__file__).resolve().parents[2]
         / "adapters/nginx/status/stats.def").read_text()
STATS = dict(re.findall(r"^NGX_HAKMEM_STAT\((\w+), (counter|gauge),",
                        TABLE, re.M))
# {name: what it was called before}
RENAMED = dict(re.findall(r"^NGX_HAKMEM_RENAMED\((\w+), (\w+)\)", TABLE,
                          re.M))
COUNTERS = [name for name, kind in STATS.items() if kind == "counter"]

PAGES = """
    server {
        listen 127.0.0.1:@HTTP@;
        root html;
        location = /status { hakmem_status; }
        location = /text { hakmem_status text; }
        location = /json { hakmem_status json; }
        location = /prometheus { hakmem_status prometheus; }
        location /upgrade/ {
            proxy_pass http://127.0.0.1:@ECHO@; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade"; }
    }
"""
# The same without a page.
PLAIN = re.sub("hakmem_status[^;]*;", "return 204;",
               PAGES.replace("@ECHO@", "1"))
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\d+)$")
LABEL = re.compile(r'(\w+)="([^"\\\n]*)"(?:,|$)')


def page(nginx, path="/json"):
    """The JSON page."""
    status, headers, body = nginx.get(path)
    if status != 200 or headers["Content-Type"] != "application/json":
        raise Complaint(f"{path}: {status} {headers}")
    return json.loads(body)


def exposition(text):
    """{(name, labels): value} of a text in Prometheus's format, which it
    checks: each family is told of once, before its samples, and has no two
    of the same labels."""
    samples, kinds, helped = {}, {}, set()
    if not text.endswith("\n"):
        raise Complaint("the last line does not end")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            if name in helped or len(line.split(" ", 3)) < 4:
                raise Complaint(line)
            helped.add(name)
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name in kinds or name not in helped:
                raise Complaint(line)
            kinds[name] = kind
            last = name
            continue
        found = SAMPLE.match(line)
        if not found or found[1] != last:
            raise Complaint(f"not a sample of {last}: {line}")
        labels = LABEL.findall(found[2] or "")
        if found[2] and ",".join(f'{name}="{value}"' for name, value
                                 in labels) != found[2]:
            raise Complaint(f"labels: {line}")
        key = found[1], tuple(sorted(labels))
        if key in samples:
            raise Complaint(f"twice: {line}")
        samples[key] = int(found[3])
    for name, kind in kinds.items():
        if (kind == "counter") != name.endswith("_total"):
            raise Complaint(f"{name} is a {kind}")
    return samples


def keys(names):
    """What JSON has for statistics: their names, and those of before."""
    return [key for name in names for key in (name, RENAMED.get(name))
            if key]


class Watch:
    """Reads the page all the time, from several threads, until `with` is left:
    no sum of a counter may ever be less than it was."""

    def __init__(self, nginx, threads=3):
        self.nginx = nginx
        self.ending = threading.Event()
        self.wrong, self.pages = [], 0
        self.threads = [threading.Thread(target=self.run)
                        for _ in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join(30)

    def run(self):
        before = dict.fromkeys(COUNTERS, 0)
        while not self.ending.is_set():
            try:
                whole = page(self.nginx)
                exposition(self.nginx.get("/prometheus")[2].decode())
            except (ConnectionError, TimeoutError) as error:
                # A worker that was killed took the connection with it.
                self.ending.wait(0.01)
                del error
                continue
            except Exception as error:
                self.wrong.append(repr(error))
                return
            self.pages += 1
            now = whole["all"]
            for name in COUNTERS:
                if now[name] < before[name]:
                    self.wrong.append(f"{name}: {before[name]}, then"
                                      f" {now[name]}")
            before = now


class Judged(Case):
    """A case whose servers must end well, too."""

    def server(self, *args, **options):
        nginx = super().server(*args, **options)
        self.addCleanup(nginx.stop)
        return nginx


class Formats(Judged):
    """What a page says of workers that do nothing else."""

    def setUp(self):
        self.nginx = self.server(PAGES, workers=3)
        self.pids = self.nginx.workers()

    def test_text(self):
        status, headers, body = self.nginx.get("/status")
        self.assertEqual((status, headers["Content-Type"]),
                         (200, "text/plain"))
        lines = body.decode().splitlines()
        self.assertRegex(lines[0], r"^hakmem \d+\.\d+\.\d+, nginx [\d.]+,"
                         r" 3 workers, 0 gone, 3 of \d+ slots in use$")
        rows = {line.split()[0]: line.split()[1:] for line in lines[2:]
                if line and not line.startswith("worker ")
                or line.split()[1:2] == ["all"]}
        self.assertEqual(rows["worker"], ["all", "gone", "all", "0", "1",
                                          "2"])
        self.assertEqual(rows["generation"], ["all", "all", "1", "1", "1",
                                              "1"])
        self.assertEqual(rows["pid"][:3], ["-"] * 3)
        self.assertEqual(sorted(map(int, rows["pid"][3:])), self.pids)
        self.assertEqual(list(rows)[4:], list(STATS))
        for name, kind in STATS.items():
            self.assertEqual(rows[name][1], "0" if kind == "counter" else "-")
            workers = list(map(int, rows[name][3:]))
            self.assertEqual([int(rows[name][0]), int(rows[name][2])],
                             [sum(workers)] * 2, name)
        self.assertEqual(self.nginx.get("/text")[2].count(b"\n"),
                         body.count(b"\n"))

    def test_json(self):
        whole = page(self.nginx)
        self.assertEqual(list(whole), [
            "hakmem", "nginx", "code_on_disk", "slots", "all", "gone",
            "generations", "workers"])
        self.assertEqual(whole["slots"]["used"], 3)
        self.assertEqual([one["worker"] for one in whole["workers"]],
                         [0, 1, 2])
        self.assertEqual(sorted(one["pid"] for one in whole["workers"]),
                         self.pids)
        self.assertEqual(list(whole["gone"]), ["workers", *keys(COUNTERS)])
        for one in whole["workers"]:
            self.assertEqual(list(one)[7:], keys(STATS))
            self.assertEqual(one["generation"], 1)
        [generation] = whole["generations"]
        self.assertEqual(generation.pop("generation"), 1)
        self.assertEqual(generation, whole["all"])
        for name in STATS:
            self.assertEqual(whole["all"][name],
                             sum(one[name] for one in whole["workers"]), name)

    def test_prometheus(self):
        status, headers, body = self.nginx.get("/prometheus")
        self.assertEqual(
            (status, headers["Content-Type"]),
            (200, "text/plain; version=0.0.4; charset=utf-8"))
        samples = exposition(body.decode())
        for name, kind in STATS.items():
            full = "hakmem_nginx_" + name + "_total" * (kind == "counter")
            labels = [dict(labels) for (one, labels) in samples if one == full]
            self.assertEqual(
                [(one["worker"], one["generation"]) for one in labels],
                [("gone", "gone")] * (kind == "counter")
                + [("0", "1"), ("1", "1"), ("2", "1")], full)
        infos = [dict(labels) for (one, labels) in samples
                 if one == "hakmem_nginx_worker_info"]
        self.assertEqual(sorted(int(one["pid"]) for one in infos), self.pids)

    def test_names_of_before(self):
        """They have the same values, and are told to be deprecated."""
        self.assertEqual(RENAMED["tiny_allocs"], "tiny_calls")
        text = self.nginx.get("/status")[2].decode()
        exposed = self.nginx.get("/prometheus")[2].decode()
        samples = exposition(exposed)
        for name, old in RENAMED.items():
            self.assertNotRegex(text, rf"(?m)^{old}\b")
            for one in [*page(self.nginx)["workers"]]:
                self.assertEqual(one[name], one[old])
            tail = "_total" * (STATS[name] == "counter")
            self.assertIn(f"# HELP hakmem_nginx_{old}{tail} deprecated, is now"
                          f" hakmem_nginx_{name}{tail}: ", exposed)
            for (one, labels), value in samples.items():
                if one == f"hakmem_nginx_{name}{tail}":
                    self.assertEqual(
                        samples[f"hakmem_nginx_{old}{tail}", labels], value)

    def test_lengths(self):
        for path in ("/status", "/json", "/prometheus"):
            status, headers, body = self.nginx.get(path)
            self.assertEqual((status, int(headers["Content-Length"])),
                             (200, len(body)))
            self.assertNotIn(b"\0", body)
            self.assertTrue(body.endswith(b"\n"))
            self.assertFalse(body.endswith(b"\n\n"))

    def test_methods(self):
        for path in ("/status", "/json", "/prometheus"):
            status, headers, body = self.nginx.get(path, method="HEAD")
            self.assertEqual((status, body), (200, b""))
            self.assertGreater(int(headers["Content-Length"]), 500)
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                self.assertEqual(
                    self.nginx.get(path, method=method, body=b"x" * 10)[0],
                    405, (path, method))

    def test_resident(self):
        def close(one):
            rss = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(
                f"/proc/{one['pid']}/status").read_text())[1]) * 1024
            return 0.8 * rss <= one["rss_bytes"] <= 1.25 * rss
        until(60, "rss_bytes is that of the process", lambda: all(
            map(close, page(self.nginx)["workers"])))

    def test_every_worker_tells(self):
        """Without being asked, each second."""
        for _ in range(3):
            time.sleep(1.5)
            until(60, "all have told", lambda: all(
                one["age_ms"] < 1400 for one in page(self.nginx)["workers"]))


class Serving(Judged):
    """The statistics are those of the module at work."""

    def test_calls_grow(self):
        """By request: one of 1024 bytes at least, a pool of 4096 or more."""
        for lanes, large in (("tiny", "fallback_large"),
                             ("all", "pool_allocs")):
            with self.subTest(lanes):
                nginx = self.server(PAGES, f"hakmem_lanes {lanes};",
                                    workers=1)
                self.served(nginx)
                before = page(nginx)["workers"][0]
                self.assertEqual((before["served_by"], before["why"]),
                                 ("module", ""))
                nginx.ab("/f1000", requests=400)
                after = page(nginx)["workers"][0]
                grown = {name: after[name] - before[name]
                         for name in STATS}
                self.assertGreaterEqual(grown["tiny_allocs"], 400)
                self.assertGreaterEqual(grown[large], 400)
                self.assertGreater(grown["asked_bytes"], 400 * 4096)
                self.assertGreater(after["live_bytes"], 0)
                self.assertGreaterEqual(after["committed_bytes"],
                                        after["live_bytes"])
                if lanes == "all":
                    self.assertEqual(after["fallback_large"], 0)

    def test_switched_off(self):
        nginx = self.server(PAGES, "hakmem off;")
        for one in page(nginx)["workers"]:
            self.assertEqual((one["served_by"], one["tiny_allocs"]),
                             ("system", 0))
            self.assertIn("hakmem off", one["why"])
        self.assertIn("worker 0 of generation 1: hakmem off",
                      nginx.get("/status")[2].decode())


class Lives(Judged):
    """Workers come and go, counters stay."""

    def settled(self, nginx, workers):
        """The page once all who have ended are counted as gone."""
        return until(60, f"{workers} slots in use", lambda: (
            (whole := page(nginx))["slots"]["used"] == workers
            and len(whole["workers"]) == workers and whole), nginx.story)

    def test_reload(self):
        nginx = self.server(PAGES)
        nginx.ab("/f1000", requests=200)
        before = page(nginx)["all"]
        old = nginx.workers()
        nginx.reload()
        nginx.gone(old)
        after = self.settled(nginx, 2)
        self.assertEqual({one["generation"] for one in after["workers"]}, {2})
        self.assertEqual(after["gone"]["workers"], 2)
        for name in COUNTERS:
            self.assertGreaterEqual(after["gone"][name], before[name], name)
            self.assertEqual(
                after["all"][name], after["gone"][name]
                + sum(one[name] for one in after["workers"]), name)

    def test_old_worker_stays(self):
        """While its last connection is open it has its place on the page."""
        with Echo() as echo:
            nginx = self.server(PAGES.replace("@ECHO@", str(echo.port)),
                                workers=1)
            [old] = nginx.workers()
            tunnel = upgrade(nginx)
            nginx.reload()
            whole = self.settled(nginx, 2)
            self.assertEqual(
                [(one["generation"], one["worker"]) for one
                 in whole["workers"]], [(1, 0), (2, 0)])
            self.assertEqual(
                [(one["generation"], one["workers"]) for one
                 in whole["generations"]], [(1, 1), (2, 1)])
            self.assertEqual(whole["workers"][0]["pid"], old)
            exposition(nginx.get("/prometheus")[2].decode())
            # It still tells, though it shuts down.
            time.sleep(1.5)
            until(60, "the old one has told", lambda: page(
                nginx)["workers"][0]["age_ms"] < 1400)
            tunnel.close()
            nginx.gone([old])
            self.assertEqual(self.settled(nginx, 1)["gone"]["workers"], 1)

    def test_twenty_reloads(self):
        nginx = self.server(PAGES)
        with Watch(nginx) as watch:
            for _ in range(20):
                nginx.reload()
        self.assertEqual(watch.wrong, [])
        self.assertGreater(watch.pages, 20)
        whole = self.settled(nginx, 2)
        self.assertEqual(whole["gone"]["workers"], 40)
        self.assertEqual({one["generation"] for one in whole["workers"]},
                         {21})

    def test_kill(self):
        nginx = self.server(PAGES, expected=[r"exited on signal 9"])
        nginx.ab("/f1000", requests=200)
        time.sleep(1.2)
        before = page(nginx)
        killed = before["workers"][1]
        nginx.signal("KILL", killed["pid"])
        until(60, "the worker's successor", lambda: (
            len(nginx.workers()) == 2
            and killed["pid"] not in nginx.workers()))
        after = self.settled(nginx, 2)
        heir = after["workers"][1]
        self.assertEqual((heir["worker"], heir["generation"]), (1, 1))
        self.assertNotEqual(heir["pid"], killed["pid"])
        self.assertEqual(after["gone"]["workers"], 1)
        for name in COUNTERS:
            self.assertGreaterEqual(after["gone"][name], killed[name], name)
            self.assertGreaterEqual(after["all"][name], before["all"][name],
                                    name)

    def test_many_killed(self):
        """No counter goes down and no line of Prometheus's comes twice while
        workers are killed and reloaded."""
        nginx = self.server(PAGES, workers=4,
                            expected=[r"exited on signal 9",
                                      r"was locked by"])
        with Watch(nginx) as watch:
            for turn in range(12):
                for pid in nginx.workers()[:3]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                until(60, "workers", lambda: len(nginx.workers()) == 4)
                if turn % 4 == 3:
                    nginx.reload()
        self.assertEqual(watch.wrong, [])
        self.assertGreater(watch.pages, 20)
        self.settled(nginx, 4)

    def test_eight_workers(self):
        nginx = self.server(PAGES, workers=8)
        whole = page(nginx)
        self.assertEqual([one["worker"] for one in whole["workers"]],
                         list(range(8)))
        self.assertEqual(sorted(one["pid"] for one in whole["workers"]),
                         nginx.workers())
        for path in ("/status", "/prometheus"):
            _, headers, body = nginx.get(path)
            self.assertEqual(int(headers["Content-Length"]), len(body))
        # More than one reload's worth of columns.
        nginx.reload()
        self.assertEqual(len(self.settled(nginx, 8)["workers"]), 8)

    def test_page_removed_and_added(self):
        nginx = self.server(PAGES)
        nginx.reload(http=PLAIN)
        self.assertEqual(nginx.get("/json")[0], 204)
        nginx.reload(http=PAGES.replace("@ECHO@", "1"))
        whole = self.settled(nginx, 2)
        self.assertEqual({one["generation"] for one in whole["workers"]}, {3})

    def test_module_removed_and_added(self):
        nginx = self.server(PAGES)
        module, nginx.hakmem = nginx.hakmem, False
        nginx.reload(http=PLAIN)
        self.assertEqual(nginx.get("/json")[0], 204)
        nginx.hakmem = module
        nginx.reload(http=PAGES.replace("@ECHO@", "1"))
        self.settled(nginx, 2)

    def test_one_process(self):
        """Without a master the worker itself reads a new configuration. No
        nginx serves after that, but it must live, whatever zone it has."""
        nginx = self.server(PAGES, master=False)
        [one] = page(nginx)["workers"]
        self.assertEqual((one["pid"], one["generation"], one["worker"]),
                         (nginx.master_pid(), 1, 0))
        for text in (PAGES.replace("@ECHO@", "1"), PLAIN, PLAIN,
                     PAGES.replace("@ECHO@", "1")):
            before = len(nginx.find("reconfiguring$"))
            nginx.configure(http=text)
            nginx.signal("HUP")
            until(60, "it reads", lambda: len(
                nginx.find("reconfiguring$")) > before)
            # Past the next time that the worker tells its statistics.
            time.sleep(1.2)
            self.assertIsNone(nginx.process.poll(), nginx.story())

    def test_one_process_without_the_module(self):
        """The zone goes with the module, and comes with it."""
        nginx = self.server(PAGES, master=False)
        module = nginx.hakmem
        for there, http, pause in (
                (False, PLAIN, 1.2), (True, PAGES, 1.2), (False, PLAIN, 0),
                (True, PLAIN, 0), (False, PLAIN, 0), (True, PAGES, 1.2)):
            before = len(nginx.find("reconfiguring$"))
            nginx.hakmem = module if there else False
            nginx.configure(http=http.replace("@ECHO@", "1"))
            nginx.signal("HUP")
            until(60, "it reads", lambda: len(
                nginx.find("reconfiguring$")) > before)
            time.sleep(pause)
            self.assertIsNone(nginx.process.poll(), nginx.story())


class Zone(unittest.TestCase):
    """The shared zone without an nginx, which is too slow for the narrow
    places: status_stress.c."""

    PROGRAM = pathlib.Path(os.environ.get("HAKMEM_BUILD", ".")) \
        / "tests/nginx/status_stress"

    @unittest.skipUnless(PROGRAM.exists(), f"{PROGRAM} is not there")
    def test_stress(self):
        done = subprocess.run([self.PROGRAM], capture_output=True, text=True,
                              timeout=300, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertIn(" 0 wrong", done.stdout)


class Refused(Judged):
    """Bad values: nginx -t names the line."""

    def refused(self, http, what):
        nginx = self.server(PAGES)
        nginx.configure(http=http)
        status, said = nginx.test()
        self.assertNotEqual(status, 0, said)
        line = next(number for number, line in enumerate(
            nginx.text().splitlines(), 1) if "HERE" in line)
        self.assertRegex(said, rf"\[emerg\].*{what}.*nginx\.conf:{line}\n")
        nginx.configure(http="server { listen 127.0.0.1:@HTTP@; }")

    def test_format(self):
        self.refused("server { listen 127.0.0.1:@HTTP@;\n"
                     "location / { hakmem_status xml; } #HERE\n}",
                     'invalid value "xml" in "hakmem_status" directive, it must'
                     ' be "text", "json" or "prometheus"')

    def test_arguments(self):
        self.refused("server { listen 127.0.0.1:@HTTP@;\n"
                     "location / { hakmem_status json text; } #HERE\n}",
                     "invalid number of arguments.*prometheus")

    def test_twice(self):
        self.refused("server { listen 127.0.0.1:@HTTP@;\n"
                     "location / {\n hakmem_status json;\n"
                     "hakmem_status text; #HERE\n} }", "is duplicate")
        self.refused("server { listen 127.0.0.1:@HTTP@;\n"
                     "location / {\n hakmem_status json;\n"
                     "hakmem_status; #HERE\n} }", "is duplicate")

    def test_context(self):
        self.refused("server { listen 127.0.0.1:@HTTP@;\n"
                     "hakmem_status; #HERE\n}", "not allowed here")


class RequestBytes(Judged):
    """$hakmem_request_bytes in an access log."""

    SITE = """
        log_format bytes "$uri $status $hakmem_request_bytes";
        server {
            access_log bytes.log bytes;
            listen 127.0.0.1:@HTTP@;
            root html;
            location /large { client_body_buffer_size 256k;
                client_body_in_single_buffer on; client_max_body_size 1m;
                proxy_pass http://127.0.0.1:@HTTP@/sink; }
            location /sink { return 204; }
            location /away { error_page 404 = /f1; }
            location /if { set $x $hakmem_request_bytes;
                return 200 "$x"; }
        }
    """

    def logged(self, nginx, uri):
        """The values of a request's lines."""
        path = nginx.prefix / "bytes.log"
        return until(60, f"{uri} in the access log", lambda: [
            line.split()[2] for line in path.read_text().splitlines()
            if line.split()[0] == uri])

    def test_counts(self):
        nginx = self.server(self.SITE, workers=1)
        self.served(nginx)
        nginx.get("/f1000")
        [small] = self.logged(nginx, "/f1000")
        # The request's pool and little else.
        self.assertGreaterEqual(int(small), 4096)
        self.assertLess(int(small), 65536)
        nginx.get("/large", method="POST", body=b"x" * 200000)
        [large] = self.logged(nginx, "/large")
        self.assertGreater(int(large), 200000)

    def test_survives_a_redirect(self):
        nginx = self.server(self.SITE, workers=1)
        self.assertEqual(nginx.get("/away")[0], 200)
        [value] = self.logged(nginx, "/f1")
        self.assertGreaterEqual(int(value), 4096)

    def test_in_the_middle(self):
        nginx = self.server(self.SITE, workers=1)
        self.assertRegex(nginx.get("/if")[2].decode(), r"^\d+$")

    def test_not_available(self):
        nginx = self.server(self.SITE, "hakmem off;", workers=1)
        nginx.get("/f1000")
        self.assertEqual(self.logged(nginx, "/f1000"), ["-"])

    def test_bad_request(self):
        """It never came to the phase in which the measure starts."""
        nginx = self.server(self.SITE, workers=1)
        with nginx.socket() as plain:
            plain.sendall(b"GET /bad\0 HTTP/1.1\r\n\r\n")
            self.assertIn(b" 400 ", plain.recv(4096))
        values = until(60, "a line", lambda: [
            line.split()[-1] for line in (nginx.prefix / "bytes.log")
            .read_text().splitlines() if " 400 " in line])
        self.assertEqual(values, ["-"])


if __name__ == "__main__":
    unittest.main()
