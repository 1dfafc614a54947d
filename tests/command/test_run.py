"""hakmem run, and the command line of all commands."""
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

from support import BUILD, COMMAND, LIBRARY, PLAIN, Case, hakmem

MODULE = f"{BUILD}/nginx/objs/ngx_http_hakmem_module.so"
NGINX_CONF = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log notice;
events { }
"""


class Line(Case):
    """The command line."""

    def test_nothing(self):
        done = hakmem()
        self.assertEqual(done.returncode, 2)
        self.assertIn("usage: hakmem COMMAND", done.stderr)

    def test_help(self):
        for words in (["--help"], ["help"], ["help", "run"],
                      ["run", "--help"], ["compare", "-h"]):
            done = hakmem(*words)
            self.assertEqual(done.returncode, 0, words)
            self.assertIn("usage: hakmem", done.stdout)
            self.assertEqual(done.stderr, "")

    def test_help_is_not_wide(self):
        for words in (["--help"], ["run", "--help"], ["compare", "--help"]):
            for line in hakmem(*words).stdout.splitlines():
                self.assertLessEqual(len(line), 80, line)

    def test_unknown_command(self):
        self.fails(2, "no command 'rum'; did you mean run?", "rum")
        self.fails(2, "use one of: run compare", "xyzzy")

    def test_unknown_option(self):
        self.fails(2, "run: there is no option --limt; `hakmem run --help`",
                   "run", "--limt", "5", "ls")

    def test_values(self):
        self.fails(2, "--limit needs a value", "run", "--limit")
        self.fails(2, "--stats=xml: not one of text json prometheus", "run",
                   "--stats=xml", "ls")
        self.fails(2, "--purge-delay=banana: not a whole number", "run",
                   "--purge-delay", "banana", "ls")
        for bad in ("3x", "10K", "101%", "2T", "80%M", ""):
            self.fails(2, f"--limit={bad}: must be", "run", "--limit", bad,
                       "ls")
        self.fails(2, "--runs=0: must be from 1", "compare", "--runs", "0",
                   "ls")
        self.fails(2, "takes no value", "run", "--lua=5", "ls")
        self.fails(2, "HAKMEM_NAME=VALUE", "run", "--set", "PATH=x", "ls")

    def test_reader_that_leaves(self):
        done = subprocess.run(f"'{COMMAND}' --help | true", shell=True,
                              env=PLAIN, capture_output=True, check=False)
        self.assertEqual(done.stderr, b"")


class Run(Case):
    """A program by preloading."""

    def test_is_on_hakmem(self):
        done = hakmem("run", "--stats", "--", "ls", "/")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, r"\ntiny +[1-9]")

    def test_forms(self):
        self.assertIn('{"version"', hakmem(
            "run", "--stats=json", "--", "ls", "/").stderr)
        self.assertIn("# HELP hakmem_", hakmem(
            "run", "--stats=prometheus", "ls", "/").stderr)

    def test_its_options_are_its_own(self):
        done = hakmem("run", "sh", "-c", "echo $HAKMEM_PURGE_DELAY$1", "x",
                      "--limit")
        self.assertEqual(done.stdout, "--limit\n")

    def test_settings(self):
        done = hakmem("run", "--limit", "100M", "--purge-delay", "7", "--huge",
                      "never", "--no-thread", "--set", "HAKMEM_RANGE=2G", "--",
                      "sh", "-c", "env | grep ^HAKMEM | sort")
        self.assertEqual(done.stdout.split(), [
            "HAKMEM_BACKGROUND_THREAD=0", "HAKMEM_HUGE_PAGES=never",
            "HAKMEM_LIMIT=100M", "HAKMEM_PURGE_DELAY=7", "HAKMEM_RANGE=2G"])

    def test_status(self):
        self.assertEqual(hakmem("run", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(hakmem("run", "sh", "-c", "kill -9 $$").returncode,
                         -signal.SIGKILL)

    def test_signals(self):
        with subprocess.Popen([COMMAND, "run", "sh", "-c",
                               "trap 'echo got; exit 3' TERM; echo up;"
                               " while :; do sleep 0.05; done"],
                              env=PLAIN, stdout=subprocess.PIPE,
                              text=True) as child:
            self.assertEqual(child.stdout.readline(), "up\n")
            child.terminate()
            self.assertEqual(child.stdout.read(), "got\n")
            self.assertEqual(child.wait(), 3)

    def test_signals_as_usual(self):
        with open("/proc/self/status", encoding="ascii") as status:
            ignored = [line for line in status if line.startswith("SigIgn")]
        script = "grep SigIgn /proc/self/status"
        plain = subprocess.run(["sh", "-c", script], text=True, check=True,
                               capture_output=True).stdout
        self.assertEqual(hakmem("run", "sh", "-c", script).stdout, plain,
                         ignored)

    def test_keeps_other_preloads(self):
        other = self.compiled("libother.so", "int other;", "-shared", "-fPIC")
        done = hakmem("run", "-n", "ls", env={"LD_PRELOAD": other})
        self.assertIn(f"LD_PRELOAD='{LIBRARY} {other}' ls", done.stdout)
        done = hakmem("run", "sh", "-c", "echo $LD_PRELOAD",
                      env={"LD_PRELOAD": LIBRARY})
        self.assertEqual(done.stdout, LIBRARY + "\n")


class Refused(Case):
    """What can't be run, one line each."""

    def test_no_program(self):
        self.fails(2, "run: no program is given", "run")
        self.fails(127, "nosuchprogram: there is no such program in PATH",
                   "run", "nosuchprogram")
        self.fails(127, "no such program$", "run", self.path("none"))

    def test_not_executable(self):
        self.fails(126, r"may not be executed \(chmod", "run",
                   self.file("data", "x"))
        self.fails(126, "is a folder", "run", self.folder)

    def test_no_library(self):
        self.fails(125, "there is no such file", "run", "--library",
                   self.path("none.so"), "ls")
        alone = self.file("hakmem", "", 0o755)
        with open(COMMAND, encoding="utf-8") as source:
            text = source.read().replace(f'LIBRARIES = "{BUILD}"',
                                         f'LIBRARIES = "{self.folder}"')
        self.file("hakmem", text, 0o755)
        done = subprocess.run([alone, "run", "ls"], env=PLAIN, text=True,
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, 125)
        self.assertRegex(done.stderr, r"^hakmem: libhakmem.so is not in .*"
                         r"--library\n$")

    def test_static(self):
        program = self.compiled("static", "int main(void) { return 0; }",
                                "-static")
        self.fails(125, "is statically linked: preloading .* no effect",
                   "run", program)
        self.fails(125, "statically", "compare", program)

    def test_script_of_static(self):
        program = self.compiled("static2", "int main(void) { return 0; }",
                                "-static")
        self.fails(125, "statically", "run",
                   self.file("script", f"#!{program} -x\n", 0o755))

    def test_32_bits(self):
        head = b"\x7fELF\x01\x01\x01" + bytes(100)
        self.fails(125, "is a 32-bit program", "run",
                   self.file("old", head, 0o755))

    def test_other_processor(self):
        with open("/bin/sh", "rb") as file:
            data = bytearray(file.read())
        data[18] = 22  # S/390
        self.fails(125, "another kind of processor", "run",
                   self.file("other", bytes(data), 0o755))

    @unittest.skipIf(os.geteuid() != 0, "needs root, to make such a program")
    def test_set_user_id(self):
        program = self.compiled("suid", "int main(void) { return 0; }")
        os.chown(program, 12345, 12345)
        os.chmod(program, 0o4755)
        self.fails(125, "is set-user-ID", "run", program)

    def test_path_with_a_blank(self):
        folder = self.path("with blank")
        os.mkdir(folder)
        os.symlink(LIBRARY, os.path.join(folder, "libhakmem.so"))
        self.fails(125, "blank or a colon", "run", "--library",
                   os.path.join(folder, "libhakmem.so"), "ls")


class Adapters(Case):
    """Interpreters' command lines."""

    def test_none(self):
        self.fails(125, "ls: there is no adapter for it", "run", "--adapter",
                   "ls")
        self.fails(2, "only one of them", "run", "--lua", "--python", "x")

    def test_python(self):
        self.file("hakmem_py.py", "")
        env = {"PYTHONPATH": self.folder}
        for words, wanted in (
                (["python3", "x.py", "-v"], "python3 -m hakmem_py x.py -v"),
                (["python3", "-X", "dev", "-OO", "-m", "mod", "-X"],
                 "python3 -X dev -OO -m hakmem_py -m mod -X"),
                (["x.py"], "python3 -m hakmem_py x.py")):
            done = hakmem("run", "-n", "--python", "--", *words, env=env)
            self.assertEqual(done.stdout.strip(), wanted, done.stderr)
        done = hakmem("run", "-n", "--adapter", "--stats", "--", sys.executable,
                      "x.py", env=env)
        self.assertEqual(done.stdout.strip(),
                         f"{sys.executable} -m hakmem_py -v x.py")
        self.fails(2, "needs a script", "run", "--python", "python3", env=env)

    @unittest.skipUnless(os.path.exists(f"{BUILD}/lua/hakmem.so"), "not built")
    def test_lua(self):
        done = hakmem("run", "--adapter", "--", "lua5.4", "-e",
                      "print(package.loaded.hakmem ~= nil, ...)")
        self.assertEqual(done.stdout.split(), ["true"], done.stderr)

    @unittest.skipUnless(shutil.which("nginx") and os.path.exists(MODULE),
                         "not built")
    def test_nginx(self):
        """A command line, and one worker that is served and says so."""
        configuration = self.file("nginx.conf", NGINX_CONF)
        words = ["nginx", "-p", self.folder, "-c", configuration, "-e",
                 self.path("error.log")]
        for flag in ("--nginx", "--adapter"):
            done = hakmem("run", "-n", flag, "--", *words)
            self.assertRegex(done.stdout, r"^nginx -p .* -g 'load_module /\S*"
                             r"ngx_http_hakmem_module\.so;'\n$")
        done = hakmem("run", "-n", "--nginx", "--", "nginx", "-g",
                      "daemon off;")
        self.assertRegex(done.stdout,
                         r" -g 'load_module /\S*\.so; daemon off;'\n$")
        child = subprocess.Popen([COMMAND, "run", "--nginx", "--", *words],
                                 env=PLAIN)
        try:
            end = time.monotonic() + 60
            while "hakmem: serving nginx" not in self.log():
                self.assertLess(time.monotonic(), end, self.log())
                self.assertIsNone(child.poll(), self.log())
                time.sleep(0.05)
        finally:
            child.terminate()
            self.assertEqual(child.wait(60), 0)

    def log(self):
        try:
            with open(self.path("error.log")) as file:
                return file.read()
        except OSError:
            return ""


if __name__ == "__main__":
    unittest.main()
