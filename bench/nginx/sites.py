"""What bench/nginx_report.py asks nginx for: a configuration and a request
for each row."""
import dataclasses
import pathlib

# What the client says.
PLAIN = ("User-Agent: curl/7.88.1", "Accept: */*")

# A page of this many bytes is served; the demo and the storms take a larger.
PAGE, LARGE = 612, 20000

BASE = """
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    upstream back { server 127.0.0.1:@BACK@; keepalive 16;
                    keepalive_requests 1000000000; }
    server { listen 127.0.0.1:@HTTP@ backlog=8192; root html; MORE }
"""
TLS = """
    server {
        listen 127.0.0.1:@TLS@ ssl backlog=8192;
        ssl_certificate @PREFIX@/cert.pem;
        ssl_certificate_key @PREFIX@/key.pem;
        root html;
    }
"""
PROXY = """
    location /proxy/ { proxy_pass http://back/; proxy_http_version 1.1;
                       proxy_set_header Connection ""; }
"""
# About a hundred allocations.
PERL = """
    perl_set $words 'sub {
        my $r = shift;
        my %seen;
        $seen{lc $_}++ for split /[^a-z]+/i, ($r->header_in("User-Agent") // "")
            . " the quick brown fox jumps over the lazy dog and runs away";
        return join ",", map { "$_=$seen{$_}" } sort keys %seen;
    }';
"""
RULES = """
SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess Off
SecAuditEngine Off
SecPcreMatchLimit 100000
SecPcreMatchLimitRecursion 100000
SecTmpDir @PREFIX@/temp
SecDataDir @PREFIX@/temp
SecArgumentSeparator &
SecCookieFormat 0
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row asks for.

    objects: hakmem_objects beside the standard ones; requests: of a round of
    the timing; insn: N of the counting, which does N + N and N + 2 N.
    """
    name: str
    http: str
    path: str = "/page"
    port: str = "HTTP"
    close: bool = False
    modules: tuple = ()
    objects: str = ""
    requests: int = 5000
    insn: int = 500
    headers: tuple = PLAIN

    @property
    def tls(self):
        return self.port == "TLS"


def site(more="", outside=""):
    return BASE.replace("MORE", more) + outside


ROWS = [
    Row("static", site()),
    Row("connect", site(), close=True, requests=3000),
    Row("proxy", site(PROXY), path="/proxy/page"),
    Row("tls", site("", TLS), port="TLS", close=True, requests=400,
        insn=40),
    Row("perl_set", site("location /perl { return 200 $words; }", PERL),
        path="/perl", modules=("ngx_http_perl_module",),
        objects="ngx_http_perl_module libperl", requests=4000),
    Row("modsecurity", site(
        "modsecurity on; modsecurity_rules_file @PREFIX@/rules.conf;"),
        path="/page?name=value&word=some",
        modules=("ngx_http_modsecurity_module",),
        objects="libmodsecurity libstdc++", requests=150, insn=20),
]


def put_files(nginx):
    """The files that the rows need."""
    nginx.write("html/page", b"p" * PAGE)
    nginx.write("html/large", b"l" * LARGE)
    nginx.write("rules.conf", RULES.replace("@PREFIX@", str(nginx.prefix)))
    pathlib.Path(nginx.prefix / "temp").mkdir(exist_ok=True)
