#!/usr/bin/env python3
"""Records eleven of Debian's programs at small fixed work: `make traces`.

    bench/traces.py [--build DIR] [--programs REGEX] [--out DIR]

Writes DIR/traces/NAME.trace each, and prints what they hold. What the programs
read is made here, the same in every run; servers listen on a socket in a folder
of their own. bench/traces_report.py replays them.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS_MAX = 120  # a program that takes longer has failed
WORDS = "the of and a to in is you that it he was for on are as with his they".split()


class Failed(Exception):
    """A program can't be recorded; one line."""


def chance(name):
    return random.Random(f"traces {name}")


def text_of(name, lines, width=12):
    """Lines of words and numbers."""
    own = chance(name)
    return "\n".join(" ".join(
        own.choice(WORDS) if own.random() < 0.7 else f"w{own.randrange(9999)}"
        for _ in range(width)) for _ in range(lines)) + "\n"


def document(name, count):
    """Something that JSON can hold."""
    own = chance(name)
    return [{"id": i, "name": f"name {own.randrange(10 ** 6)}",
             "tags": [own.choice(WORDS) for _ in range(own.randrange(8))],
             "at": {"x": own.random(), "y": own.random()},
             "note": None if i % 7 else "n" * own.randrange(200)}
            for i in range(count)]


# ---- programs that end by themselves ------------------------------------------

def lua(folder):
    """bench/lua's JSON and word programs, some units each."""
    script = folder / "main.lua"
    files = [ROOT / "bench" / "lua" / f"{name}.lua"
             for name in ("json", "wordfreq", "lru")]
    script.write_text("".join(
        f"do local unit = dofile({str(file)!r})"
        f" for i = 1, 2 do unit(i) end end\n" for file in files))
    return ["lua5.4", str(script)]


def python(folder):
    """Its compiler and its JSON on its own library; objects from malloc."""
    script = folder / "main.py"
    script.write_text(
        "import ast, json, pathlib, re, collections\n"
        "source = pathlib.Path(ast.__file__).read_text()\n"
        "for _ in range(2):\n"
        "    tree = ast.parse(source)\n"
        "    code = compile(source, 'ast', 'exec')\n"
        "    names = collections.Counter(re.findall(r'\\w+', source))\n"
        "    data = json.loads(json.dumps([[k, v, {k: [v] * 5}]"
        " for k, v in names.items()] * 4))\n")
    return ["env", "PYTHONMALLOC=malloc", "PYTHONHASHSEED=0",
            "/usr/bin/python3", "-S", str(script)]


def compiler(folder):
    """cc1 -O2 on one of our own sources."""
    found = subprocess.run(["gcc", "-print-prog-name=cc1"], check=True,
                           capture_output=True, text=True).stdout.strip()
    subprocess.run(["gcc", "-E", "-P", "-D_GNU_SOURCE", "-o", folder / "unit.i",
                    ROOT / "tools" / "trace" / "replay.c"], check=True)
    return [found, "-quiet", "-fpreprocessed", "-std=gnu11", "-O2",
            str(folder / "unit.i"), "-o", str(folder / "unit.s")]


def sqlite(folder):
    """A table of 20,000 rows, an index, groups, updates, deletions."""
    own = chance("sqlite")
    script = folder / "script.sql"
    rows = "".join(
        f"insert into t values ({i}, 'text {own.randrange(10 ** 9)}',"
        f" {own.random():.6f}, {own.randrange(100)});\n" for i in range(20000))
    script.write_text(
        "create table t (a integer primary key, b text, c real, d integer);\n"
        f"begin;\n{rows}commit;\ncreate index i on t (b);\n"
        "select d, count(*), sum(c), group_concat(b) from t group by d;\n"
        "update t set b = b || d where d % 3 = 0;\n"
        "select x.b, y.b from t x join t y on x.a = y.d where x.c < 0.5;\n"
        "delete from t where d < 50;\nvacuum;\n")
    return ["sqlite3", "-batch", ":memory:", f".read {script}"]


def git(folder):
    """A repository of 40 commits is packed, by two threads."""
    own = chance("git")
    repository = folder / "repository"
    repository.mkdir()
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null",
           "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_DATE": "1700000000 +0000",
           "GIT_COMMITTER_DATE": "1700000000 +0000"}

    def run(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b",
                        "-C", repository, *words], check=True, env=env,
                       stdout=subprocess.DEVNULL)

    run("init", "-q")
    for commit in range(40):
        for number in range(15):
            path = repository / f"d{number % 4}" / f"f{number}"
            path.parent.mkdir(exist_ok=True)
            lines = path.read_text().splitlines() if path.exists() else []
            lines.insert(own.randrange(len(lines) + 1), text_of(
                f"git {commit} {number}", own.randrange(1, 12)).strip())
            path.write_text("\n".join(lines) + "\n")
        run("add", "-A")
        run("commit", "-qm", f"commit {commit}")
    return ["git", "-C", str(repository), "-c", "pack.threads=2",
            "pack-objects", "--all", "--no-reuse-delta", "--no-reuse-object",
            "--window=30", "-q", str(repository / "pack")]


def perl(folder):
    """Counts words and pairs of them, sorts, joins."""
    (folder / "text").write_text(text_of("perl", 6000))
    script = folder / "main.pl"
    script.write_text(
        "my (%n, %pair, @lines);\n"
        "while (my $l = <STDIN>) { chomp $l; my @w = split / /, $l;\n"
        "  push @lines, { words => [@w], text => $l };\n"
        "  for my $i (0 .. $#w) { $n{$w[$i]}++;\n"
        "    $pair{$w[$i]}{$w[$i - 1]}++ if $i; } }\n"
        "for my $l (@lines) { $l->{text} =~ s/w(\\d+)/<$1>/g;\n"
        "  $l->{sorted} = join ',', sort @{$l->{words}}; }\n"
        "my @top = sort { $n{$b} <=> $n{$a} } keys %n;\n"
        "print scalar(@top), ' ', scalar(keys %pair), \"\\n\";\n")
    return ["sh", "-c", f"exec env PERL_HASH_SEED=0 perl {script}"
            f" <{folder / 'text'}"]


def bash(folder):
    """Arrays, strings and functions; no other process."""
    script = folder / "main.sh"
    script.write_text(
        "declare -A seen; declare -a list\n"
        "join() { local IFS=,; REPLY=\"$*\"; }\n"
        "for ((i = 0; i < 2000; i++)); do\n"
        "  word=w$((i * 7919 % 3001)); seen[$word]+=\" $i\"\n"
        "  list+=(\"${word^^}-$i\"); text=\"${text: -400}$word\"\n"
        "  if ((i % 50 == 0)); then join \"${list[@]: -40}\";"
        " list=(\"${list[@]: -200}\"); fi\n"
        "  case ${text//w1/x} in *xx*) hits=$((hits + 1));; esac\n"
        "done\nprintf '%s\\n' \"${#seen[@]} $hits ${#REPLY}\"\n")
    return ["bash", "--norc", str(script)]


def jq(folder):
    """Filters, groups and writes a document."""
    (folder / "in.json").write_text(json.dumps(document("jq", 2500)))
    return ["jq", "-c", "group_by(.tags[0]) | map({key: .[0].tags[0], names:"
            " map(.name | ascii_upcase), sum: (map(.at.x) | add)})",
            str(folder / "in.json")]


def xmllint(folder):
    """Reads a document as a tree, asks a question, writes it again."""
    rows = "".join(
        f'<item id="{row["id"]}"><name>{row["name"]}</name><tags>'
        + "".join(f"<tag>{tag}</tag>" for tag in row["tags"])
        + f'</tags><at x="{row["at"]["x"]}" y="{row["at"]["y"]}"/></item>\n'
        for row in document("xml", 9000))
    (folder / "in.xml").write_text(f"<list>\n{rows}</list>\n")
    return ["xmllint", "--format", "--output", str(folder / "out.xml"),
            str(folder / "in.xml")]


# ---- servers --------------------------------------------------------------------

def connect(path):
    """A connection to a server's socket, when there is one."""
    until = time.monotonic() + 20
    while True:
        one = socket.socket(socket.AF_UNIX)
        try:
            one.connect(str(path))
            return one
        except OSError:
            one.close()
            if time.monotonic() > until:
                raise Failed("the server did not begin") from None
            time.sleep(0.05)


def redis(folder):
    """Strings, hashes, lists and sets; half deleted; expiry."""
    return ["redis-server", "--port", "0", "--unixsocket",
            str(folder / "socket"), "--save", "", "--dir", str(folder),
            "--daemonize", "no"]


def redis_client(folder, _process):
    own = chance("redis")
    commands = []
    for i in range(20000):
        commands.append(("SET", f"key:{i}", "v" * own.randrange(4, 300)))
        commands.append(("HSET", f"hash:{i % 700}", f"field {i}",
                         f"{own.randrange(10 ** 6)}"))
        if i % 3 == 0:
            commands.append(("LPUSH", f"list:{i % 90}", f"element {i}"))
            commands.append(("ZADD", f"sorted:{i % 40}", str(own.random()),
                             f"member {i}"))
        if i % 2 == 0:
            commands.append(("DEL", f"key:{own.randrange(i + 1)}"))
        if i % 5 == 0:
            commands.append(("APPEND", f"key:{own.randrange(i + 1)}", "x" * 50))
    commands += [("LRANGE", f"list:{i}", "0", "-1") for i in range(90)]
    commands.append(("FLUSHALL",))
    with connect(folder / "socket") as client:
        for start in range(0, len(commands), 100):
            some = commands[start:start + 100]
            client.sendall("".join(
                f"*{len(words)}\r\n" + "".join(
                    f"${len(word)}\r\n{word}\r\n" for word in words)
                for words in some).encode())
            got = client.recv(1 << 20)
            while not got.endswith(b"\r\n") and got:
                got += client.recv(1 << 20)
        client.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")


def nginx(folder):
    """Files, gzip, and a proxy to itself, for 8 clients at a time."""
    for name in ("html", "temp"):
        (folder / name).mkdir()
    for size in (1, 20, 200):
        (folder / "html" / f"{size}.txt").write_text(
            text_of(f"nginx {size}", size * 16))
    temps = "".join(f"{kind}_temp_path {folder}/temp;" for kind in
                    ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid;\n"
        f"error_log {folder}/error.log;\nevents {{ worker_connections 200; }}\n"
        f"http {{ {temps} access_log {folder}/access.log;\n"
        "types { text/plain txt; } gzip on; gzip_min_length 500;\n"
        f"server {{ listen unix:{folder}/socket; root {folder}/html;\n"
        "location /proxy/ { proxy_set_header Accept-Encoding '';"
        f" proxy_pass http://unix:{folder}/socket:/; }}\n"
        "location ~ ^/re/(\\d+)$ { rewrite ^/re/(.*)$ /$1.txt last; } } }\n")
    return ["/usr/sbin/nginx", "-p", str(folder), "-c",
            str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def nginx_client(folder, process):
    paths = ["/1.txt", "/20.txt", "/proxy/20.txt", "/200.txt", "/re/20",
             "/missing", "/proxy/1.txt"]

    def requests(number):
        for i in range(150):
            with connect(folder / "socket") as client:
                for turn in range(4):
                    path = paths[(number + i + turn) % len(paths)]
                    end = "close" if turn == 3 else "keep-alive"
                    client.sendall((
                        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
                        "User-Agent: traces\r\nAccept-Encoding: gzip\r\n"
                        f"Cookie: a={'c' * (i * 20 % 800)}\r\n"
                        f"Connection: {end}\r\n\r\n").encode())
                    client.recv(100) if turn < 3 else None
                while client.recv(1 << 16):
                    pass

    clients = [threading.Thread(target=requests, args=(i,)) for i in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    process.send_signal(signal.SIGQUIT)


# The name, what makes the command, what a server's client does.
PROGRAMS = {"lua": (lua, None), "python": (python, None),
            "nginx": (nginx, nginx_client), "redis": (redis, redis_client),
            "cc1": (compiler, None), "sqlite": (sqlite, None),
            "git": (git, None), "perl": (perl, None), "bash": (bash, None),
            "jq": (jq, None), "xmllint": (xmllint, None)}


# ---- recording ------------------------------------------------------------------

def record(build, name, out):
    """One trace; Failed if the program fails."""
    command, client = PROGRAMS[name]
    trace = out / f"{name}.trace"
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("HAKMEM_", "LD_PRELOAD", "PYTHON",
                                  "LUA_", "MALLOC_"))}
    env.update(LC_ALL="C.UTF-8", TZ="UTC")
    with tempfile.TemporaryDirectory(prefix="hakmem-") as made:
        folder = pathlib.Path(made)
        words = command(folder)
        if shutil.which(words[0]) is None:
            raise Failed(f"no {words[0]}; .ci/install-deps bench-traces"
                         " installs it")
        process = subprocess.Popen(
            [str(build / "hakmem"), "record", "-q", "--only", "-o", str(trace),
             "--", *words], env=env, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            if client is not None:
                client(folder, Child(process))
            _, said = process.communicate(timeout=SECONDS_MAX)
        except (subprocess.TimeoutExpired, OSError) as error:
            raise Failed(str(error)) from None
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise Failed(f"ended with {process.returncode}"
                     f" ({lines[-1] if lines else 'silent'})")
    done = subprocess.run([build / "hakmem-replay", "info", trace], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)


class Child:
    """The program that `hakmem record` has started."""

    def __init__(self, process):
        self.process = process

    def send_signal(self, number):
        listed = pathlib.Path(f"/proc/{self.process.pid}/task/"
                              f"{self.process.pid}/children").read_text()
        for pid in listed.split():
            os.kill(int(pid), number)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path,
                        default=ROOT / "build" / "release")
    parser.add_argument("--programs", default=".", metavar="REGEX",
                        help="some of: " + " ".join(PROGRAMS))
    parser.add_argument("--out", type=pathlib.Path)
    chosen = parser.parse_args()
    build = chosen.build.resolve()
    out = (chosen.out or build / "traces").resolve()
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in PROGRAMS if re.search(chosen.programs, name)]
    if not names:
        sys.exit(f"traces.py: --programs={chosen.programs} is none of:"
                 f" {' '.join(PROGRAMS)}")
    bad = 0
    print(f"{'':<8} {'operations':>11} {'threads':>8} {'peak MB':>8}"
          f" {'file KB':>8}")
    for name in names:
        try:
            found = record(build, name, out)
        except Failed as failed:
            print(f"traces.py: {name}: {failed}", file=sys.stderr)
            bad = 1
            continue
        print(f"{name:<8} {found['operations']:>11,} {found['threads']:>8}"
              f" {found['peak_bytes'] / 2 ** 20:>8.1f}"
              f" {found['file_bytes'] / 1024:>8.0f}", flush=True)
    return bad


if __name__ == "__main__":
    sys.exit(main())
