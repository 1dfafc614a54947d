"""hakmem profile PID: a process that runs is asked for a profile (core/api/live.c)."""
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import hakmem_modules
import pprof
from support import BUILD, COMMAND, PLAIN, Case, hakmem
from test_share import PRELUDE, Shown, program

live = hakmem_modules.load("live")
share = hakmem_modules.load("share")
profiles = hakmem_modules.load("profiles")
symbols = hakmem_modules.load("symbols")

HAS_LUA = os.path.exists(f"{BUILD}/lua/hakmem.so") and shutil.which("lua5.4")
# For how long something may take that takes a moment.
LONG = 60

# Goes on until a line comes, then sleeps until the next. What grows is known.
GROWS = r"""
#define MORE __attribute__((noinline, noclone)) static void
MORE grows(void) { static volatile char *kept; kept = malloc(2000); *kept = 1; }
MORE passes(void) { char *volatile p = malloc(2000); *p = 1; free(p); }
"""
WORKS = r"""
    hold(44); fcntl(0, F_SETFL, O_NONBLOCK); say("up\n");
    for (char c = 0; read(0, &c, 1) != 1 || c != '\n';) {
        churn();
        for (int i = 0; i < 100; i++) { grows(); passes(); }
        usleep(1000);
    }
    fcntl(0, F_SETFL, 0); say("asleep\n"); wait_for_input(); return 0;"""


def grower(case, name):
    return case.compiled(name, f"#define _GNU_SOURCE\n{PRELUDE}\n{GROWS}\n"
                         f"int main(void) {{ {WORKS} }}",
                         "-Wno-unused-result", "-Wno-unused-function",
                         "-fno-builtin")


def until(condition, seconds=LONG):
    """Waits for it; what it was in the end."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


class Asking(Shown):
    """Processes that are asked by the page itself."""

    def hakmem(self, *arguments):
        """The command, which looks where they show themselves."""
        return hakmem(*arguments, env={"XDG_RUNTIME_DIR": self.runtime})

    def asker(self, child):
        asker = live.Asker(self.of(child.pid))
        self.addCleanup(asker.end)
        return asker

    def ordered(self, asker, rate=None):
        asker.order(rate)
        self.assertTrue(until(asker.is_answered), asker.state())

    def grown(self, child, asker):
        """Live and allocated bytes that are told, once there are some."""
        self.assertTrue(until(asker.keep))
        code = symbols.Code(child.pid)
        code.look()
        profile = live.profile_of(child.pid, "x", [asker.data], code)
        return profile.total(0), profile.total(2)

    def off(self, asker):
        """An order after the lease: nothing is sampled any more."""
        asker.renew(0)
        asker.number = (asker.page.live()[1] + 1) & 0xffffffff
        asker.page.store("I", live.SAMPLING_AT, asker.number)
        self.assertTrue(until(asker.is_answered))
        self.assertEqual(asker.state(), live.NONE)

    def sleep(self, child):
        child.stdin.write(b"\n")
        child.stdin.flush()
        self.assertEqual(child.stdout.readline(), b"asleep\n")


class Asked(Asking):
    """What they do."""

    def test_on_and_off(self):
        child = self.start([grower(self, "a")])
        asker = self.asker(child)
        self.assertEqual(asker.state(), live.NONE)
        self.ordered(asker, 4096)
        self.assertEqual(asker.state(), live.ON)
        first = self.grown(child, asker)
        self.assertTrue(until(lambda: self.ordered(asker) or self.grown(
            child, asker)[0] > first[0] + 100000))
        self.off(asker)
        self.assertEqual(asker.error(), 0)
        self.sleep(child)
        self.finish(child)

    def test_ends_by_itself(self):
        """Whoever has asked is killed: nobody renews, nobody ends it."""
        child = self.start([grower(self, "b")])
        asker = self.asker(child)
        self.ordered(asker, 4096)
        asker.renew(0.2)
        self.assertTrue(until(lambda: asker.page.ask() and
                              asker.state() == live.NONE))

    def test_by_a_sample_alone(self):
        """No look finds the end; the next sample does."""
        child = self.start([grower(self, "c")])
        asker = self.asker(child)
        self.ordered(asker, 1)
        asker.renew(0.1)
        time.sleep(0.5)
        self.ordered(asker)  # on again, and the sums are new ones
        self.assertEqual(asker.state(), live.ON)

    def test_one_at_a_time(self):
        child = self.start([grower(self, "d")])
        asker = self.asker(child)
        with self.assertRaises(live.Busy):
            live.Asker(self.of(child.pid))
        done = self.hakmem("profile", "-s", "0.2", "-o", self.path("d.txt"),
                           str(child.pid))
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "hakmem: profile: another command is"
                         f" profiling process {child.pid}\n")
        asker.order(4096)

    def test_falls_asleep_while_it_is_asked(self):
        child = self.start([grower(self, "e")])
        asker = self.asker(child)
        self.ordered(asker, 4096)
        self.sleep(child)
        self.ordered(asker)
        self.assertGreater(self.grown(child, asker)[0], 4096)
        self.finish(child)

    def test_sleeps_without_a_thread_of_ours(self):
        child = self.start([grower(self, "f")],
                           env={"HAKMEM_BACKGROUND_THREAD": "0"})
        asker = self.asker(child)
        self.ordered(asker, 4096)
        self.assertTrue(until(lambda: asker.look() and self.grown(
            child, asker)[0] > 4096))
        self.sleep(child)
        asker.order()
        time.sleep(0.3)
        self.assertFalse(asker.is_answered())
        self.assertGreater(self.grown(child, asker)[0], 4096)
        self.finish(child)

    def test_its_own_profile_goes_on(self):
        child = self.start([grower(self, "g")],
                           env={"HAKMEM_PROFILE_RATE": "8K"})
        asker = self.asker(child)
        for _ in range(2):
            self.ordered(asker, 123)
            self.assertEqual(asker.state(), live.OTHERS)
            asker.files = None
            self.grown(child, asker)
            self.assertEqual(live.File(asker.data).rate, 8192)
            self.off(asker)

    def test_killed(self):
        child = self.start([grower(self, "h")])
        asker = self.asker(child)
        self.ordered(asker, 4096)
        self.assertTrue(until(lambda: asker.look() and self.grown(
            child, asker)[1] > 4096))
        child.kill()
        child.wait()
        self.assertGreater(self.grown(child, asker)[1], 4096)

    def test_forks_while_it_is_asked(self):
        file = program(self, "i", r"""
            hold(44); say("up\n");
            for (int i = 0; i < 200; i++) {
                int pid = i % 4 == 0 ? vfork() : fork();
                if (pid == 0 && i % 4 == 0) _exit(0);
                if (pid == 0) { churn(); churn(); _exit(0); }
                churn();
                waitpid(pid, NULL, 0);
            }
            say("done\n"); wait_for_input(); return 0;""")
        child = self.start([file])
        asker = self.asker(child)
        os.set_blocking(child.stdout.fileno(), False)
        end = time.monotonic() + LONG
        rate = 1024
        while not child.stdout.read() and time.monotonic() < end:
            asker.order(rate)
            asker.keep()
            time.sleep(0.01)
        self.assertIsNotNone(asker.data)
        self.assertEqual(live.File(asker.data).pid, child.pid)
        self.finish(child)

    def test_a_child_of_one_that_samples(self):
        """It samples for who asks it, whatever its parent is told."""
        file = self.compiled("m", f"#define _GNU_SOURCE\n{PRELUDE}\n{GROWS}" r"""
            static void part(void)
            {
                churn(); usleep(1000);
                for (int i = 0; i < 5; i++) { grows(); passes(); }
            }
            int main(void)
            {
                int pid; char c, text[20];
                hold(44); fcntl(0, F_SETFL, O_NONBLOCK); say("up\n");
                while (read(0, &c, 1) != 1) part();
                fcntl(0, F_SETFL, 0);
                pid = fork();
                if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
                while (pid == 0) part();
                sprintf(text, "%d\n", pid); say(text);
                wait_for_input(); kill(pid, SIGKILL); return 0;
            }""", "-Wno-unused-result", "-Wno-unused-function", "-fno-builtin")
        child = self.start([file])
        parent = self.asker(child)
        self.ordered(parent, 8192)
        child.stdin.write(b"\n")
        child.stdin.flush()
        pid = int(child.stdout.readline())
        self.assertTrue(until(lambda: share.pages(pid)))
        asker = live.Asker(self.of(pid))
        self.addCleanup(asker.end)
        parent.renew(LONG)
        self.ordered(asker, 4096)
        parent.renew(0)
        time.sleep(0.1)
        self.assertTrue(until(asker.look))
        files = asker.files
        self.assertTrue(until(lambda: asker.look() and
                              asker.files != files, 20), asker.state())
        self.assertEqual(asker.state(), live.ON)
        self.finish(child)

    def test_threads_and_orders(self):
        file = program(self, "j", r"""
            pthread_t thread;
            hold(44);
            for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, churns, NULL);
            say("up\n"); wait_for_input(); return 0;""")
        child = self.start([file])
        asker = self.asker(child)
        for i in range(100):
            self.ordered(asker, 1024 + i)
            if i % 10 == 9:
                self.off(asker)
            asker.keep()
            live.File(asker.data)
        self.finish(child)

    def test_an_older_page(self):
        page = self.of(self.start([grower(self, "k")]).pid)
        page.values_at = live.ORDER_AT
        with self.assertRaises(live.Older):
            live.Asker(page)


class Harmless(Asking):
    """What comes after the page was made must not be harmed by an order."""

    def refused(self, name, main, number):
        child = self.start([program(self, name, f"""
            hold(44); {main} fcntl(0, F_SETFL, O_NONBLOCK); say("up\\n");
            for (char c; read(0, &c, 1) != 1;) churn();
            _exit(0);""")])
        asker = self.asker(child)
        self.assertTrue(until(lambda: (
            asker.error() or asker.order(4096) or asker.is_answered()) and
                              asker.error()), name)
        self.assertEqual(asker.error(), number, name)
        self.assertFalse(asker.keep())
        self.finish(child)

    def test_filter_of_system_calls(self):
        self.refused("ha", r"""
            #define NO(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), \
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
            struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                NO(SYS_fallocate), NO(SYS_unlinkat), NO(SYS_rename),
                NO(SYS_renameat), NO(SYS_renameat2), NO(SYS_getrlimit),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
            struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) return 7;
            """, 1)

    def test_file_size_limit(self):
        self.refused("hb", "struct rlimit none = {100, 100};"
                     " setrlimit(RLIMIT_FSIZE, &none);", 27)

    def test_no_file_descriptor_left(self):
        # Whether there is a filter can't be found out either.
        self.refused("hc", "struct rlimit none = {3, 3};"
                     " setrlimit(RLIMIT_NOFILE, &none);", 1)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_another_user_by_now(self):
        self.refused("hd", "if (setgid(12345) || setuid(12345)) return 8;", 13)

    def small(self, size):
        """Pages are where there is room for so much."""
        small = tempfile.mkdtemp(dir=self.folder)
        if subprocess.run(["mount", "-t", "tmpfs", "-o",
                           f"size={size},mode=700", "none", small],
                          stderr=subprocess.DEVNULL,
                          check=False).returncode != 0:
            self.skipTest("no mount here")
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False)
        os.environ["XDG_RUNTIME_DIR"] = self.runtime = small
        return small

    @unittest.skipIf(os.geteuid() != 0, "needs root, to mount")
    def test_file_system_without_room_for_a_second(self):
        self.small("12k")
        child = self.start([grower(self, "hf")])
        done = self.hakmem("profile", "-s", "0.3", "-o",
                           self.path("hf.txt"), str(child.pid))
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(" could not tell the last of what it sampled (No space"
                      " left on device): this is of an earlier moment\n",
                      done.stderr)

    @unittest.skipIf(os.geteuid() != 0, "needs root, to mount")
    def test_full_file_system(self):
        small = self.small("16k")
        child = self.start([grower(self, "he")])
        try:
            with open(os.path.join(small, "all"), "wb") as file:
                file.write(b"x" * (1 << 16))
        except OSError:
            pass
        done = self.hakmem("profile", "-s", "0.3", "-o",
                           self.path("he.txt"), str(child.pid))
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stderr, r"\nhakmem: profile: process \d+ could not"
                         " tell what it sampled: No space left on device\n$")
        self.assertFalse(os.path.exists(self.path("he.txt")))


class Command(Asking):
    """hakmem profile PID."""

    def profile(self, pid, name, *options):
        done = self.hakmem("profile", "--rate=4K", "-o", self.path(name),
                           *options, str(pid))
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(f"the profile is {self.path(name)} (", done.stderr)
        return done

    def test_forms(self):
        child = self.start([grower(self, "ca")])
        for ending in (".txt", ".json", ".pb.gz", ".html"):
            done = self.profile(child.pid, f"ca{ending}", "-s", "1")
        self.assertRegex(done.stdout, r"^[\d.]+ [KM]B allocated in [\d.]+ s and"
                         r" not freed:\n")
        found = pprof.page(self.path("ca.html"))
        self.assertRegex(found["about"], rf"^Process {child.pid}, what it"
                         r" allocated in [\d.]+ s and has not freed, one sample"
                         r" in 4 KB:$")
        self.assertEqual(found["program"], "ca")
        read = pprof.Pprof(self.path("ca.pb.gz"))
        self.assertEqual((read.period, read.default), (4096, "inuse_space"))
        with open(self.path("ca.json"), encoding="utf-8") as file:
            scope = json.load(file)
        self.assertEqual([one["name"] for one in scope["profiles"]],
                         list(profiles.VALUES))
        # It samples no more, and left nothing.
        self.assertTrue(until(lambda: len(self.files()) == 1), self.files())

    def test_c(self):
        child = self.start([grower(self, "cb")])
        self.profile(child.pid, "cb.txt", "-s", "2")
        with open(self.path("cb.txt"), encoding="utf-8") as file:
            text = file.read()
        sums = {site: sum(int(line.rsplit(" ", 1)[1]) for line in
                          text.splitlines() if f";main;{site} " in line)
                for site in ("grows", "passes")}
        self.assertGreater(sums["grows"], 9 * sums["passes"] + 100000, text)

    def test_ends_in_the_middle(self):
        child = self.start([grower(self, "cc")])
        with subprocess.Popen(
                [COMMAND, "profile", "-s", "60", "--rate=4K", "-o",
                 self.path("cc.txt"), str(child.pid)], env=PLAIN | {
                     "XDG_RUNTIME_DIR": self.runtime}, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
            self.assertRegex(command.stderr.readline(), "samples for 60 s")
            until(lambda: any(name.endswith(".profile")
                              for name in self.files()))
            time.sleep(0.5)
            child.kill()
            child.wait()
            _, err = command.communicate(timeout=LONG)
        self.assertEqual(command.returncode, 0, err)
        self.assertRegex(err, "has ended; this is what it held a moment before")
        self.assertTrue(os.path.exists(self.path("cc.txt")))

    def test_interrupted(self):
        """Ctrl-C and SIGTERM write what there is."""
        child = self.start([grower(self, "cd")])
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen(
                    [COMMAND, "profile", "-s", "60", "--rate=4K", "-o",
                     self.path("cd.txt"), str(child.pid)], env=PLAIN | {
                         "XDG_RUNTIME_DIR": self.runtime}, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
                self.assertRegex(command.stderr.readline(), "Ctrl-C ends it")
                time.sleep(0.3)
                command.send_signal(number)
                _, err = command.communicate(timeout=LONG)
            self.assertEqual(command.returncode, 0, err)
            self.assertIn("the profile is", err)
            os.unlink(self.path("cd.txt"))

    def test_asleep(self):
        child = self.start([program(self, "ce", 'hold(44); say("up\\n");'
                                    " wait_for_input(); return 0;")],
                           env={"HAKMEM_BACKGROUND_THREAD": "0"})
        done = self.hakmem("profile", "-o", self.path("ce.txt"),
                           str(child.pid))
        self.assertEqual((done.returncode, done.stderr), (
            1, f"hakmem: profile: process {child.pid} has not answered for 5 s:"
            " it sleeps, or allocates nothing; try again when it works\n"))
        self.assertFalse(os.path.exists(self.path("ce.txt")))

    @unittest.skipUnless(HAS_LUA, "the Lua module is not built")
    def test_lua(self):
        script = self.file("grows.lua", r"""
local hakmem = require "hakmem"
local kept, n = {}, 0
local function grows()
    for i = 1, 2000 do n = n + 1; kept[n % 1000000] = {i} end
end
local co = coroutine.wrap(function() while true do grows(); coroutine.yield() end end)
for i = 1, 500 do co() end
io.stdout:setvbuf "no"
io.write "up\n"
while true do for i = 1, 20 do co() end os.execute "sleep 0.01" end
""")
        child = self.start([shutil.which("lua5.4"), script], env={
            "LD_PRELOAD": "", "LUA_CPATH": f"{BUILD}/lua/?.so;;"})
        self.profile(child.pid, "lua.txt", "-s", "2")
        with open(self.path("lua.txt"), encoding="utf-8") as file:
            self.assertRegex(file.read(), r"grows \(.*grows.lua:5\)")

    def test_python(self):
        version = ".".join(map(str, sys.version_info[:3]))
        if not os.path.exists(f"{BUILD}/python-{version}/hakmem_py"):
            self.skipTest("hakmem_py is not built")
        script = self.file("grows.py", """
import time
kept = []
def grows():
    kept.extend([i] for i in range(200))
for i in range(400): grows()
print("up", flush=True)
while True: grows(); time.sleep(0.001)
""")
        child = self.start([sys.executable, "-m", "hakmem_py", script], env={
            "LD_PRELOAD": "", "PYTHONPATH": f"{BUILD}/python-{version}"})
        self.profile(child.pid, "py.txt", "-s", "2")
        with open(self.path("py.txt"), encoding="utf-8") as file:
            self.assertRegex(file.read(), r"grows.* \(.*grows.py:5\)")


class Program(Asking):
    """hakmem profile -- program, which does not come to its end."""

    def ended_by(self, name, how, status):
        """What the profile of a program says that did this when it was told."""
        file = grower(self, name)
        path = self.path(f"{name}.txt")
        with subprocess.Popen(
                [COMMAND, "profile", "--rate=4K", "-o", path, "--", file],
                env={**PLAIN, "XDG_RUNTIME_DIR": self.runtime}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE) as command:
            self.assertEqual(command.stdout.readline(), "up\n")
            self.assertTrue(until(lambda: any(
                one.endswith(".profile") for one in self.files())))
            time.sleep(1.5)
            how(command)
            _, err = command.communicate(timeout=LONG)
        self.assertEqual(command.returncode, status, err)
        self.assertRegex(err, f"SIG{signal.Signals(status - 128).name[3:]}"
                         " ended the program: this is what it held a moment")
        self.assertTrue(until(lambda: not self.files() or all(
            not one.endswith(".profile") for one in self.files())))
        with open(path, encoding="utf-8") as opened:
            self.assertRegex(opened.read(), r";main;grows \d+\n")

    def test_terminated(self):
        """The command passes SIGTERM on, as systemd sends it."""
        self.ended_by("pa", lambda command: command.terminate(), 143)

    def test_killed(self):
        def kill(command):
            children = f"/proc/{command.pid}/task/{command.pid}/children"
            with open(children, encoding="ascii") as file:
                os.kill(int(file.read().split()[0]), signal.SIGKILL)

        self.ended_by("pb", kill, 137)


class Refused(Case):
    """One line each."""

    def test_numbers(self):
        self.fails(2, "there is no process 99999999", "profile", "99999999")
        self.fails(2, "not a process's number", "profile", "0")
        self.fails(2, "one process's number", "profile", "1", "2")
        self.fails(2, "--seconds is for a process", "profile", "-s", "3", "ls")
        with subprocess.Popen(["sleep", "60"]) as child:
            pid = str(child.pid)
            self.fails(2, "--python is for a program", "profile", "--python",
                       pid)
            self.fails(1, f"process {pid} is not on HAKMEM: start it by",
                       "profile", pid)
            self.fails(1, "--output=.*: can't be written: .*no such folder",
                       "profile", "-o", self.path("none/x.html"), pid)
            child.kill()

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_another_user(self):
        with subprocess.Popen(["sleep", "60"], user=12345) as child:
            self.fails(2, f"process {child.pid} is user 12345's; run this as"
                       " that user", "profile", str(child.pid))
            child.kill()


class Damaged(unittest.TestCase):
    """Files that are not what they should be."""

    @staticmethod
    def whole():
        words = struct.pack("=3Q", 0x1234, 1 | 2 << 32, 7)
        names, text = struct.pack("=3I", 0, 1, 6), b"\0file\0f\0"
        stack = live.STACK.pack(0, 1, 1, 10, 20, 1024, 2048)
        size = live.FILE.size
        at = [size, size + len(stack)]
        at += [at[1] + len(words), at[1] + len(words) + len(names)]
        body = stack + words + names + text
        return live.FILE.pack(b"HAKSTACK", 1, size, size + len(body), 5, 1, 512,
                              0, 0, 0, 1, 0, 1, 3, 3, len(text), *at) + body

    def told(self, data):
        return profiles.collapsed(live.profile_of(
            5, "x", [data], symbols.Code(os.getpid())))

    def test_whole(self):
        self.assertEqual(self.told(self.whole()), b"f (file:7);0x1234 20\n")

    def test_cut_and_changed(self):
        """A ValueError, or nonsense of the right form."""
        data = self.whole()
        for length in range(len(data)):
            with self.assertRaises(ValueError):
                self.told(data[:length])
        for at in range(len(data)):
            for value in (0, 1, 0x7f, 0xff):
                try:
                    self.told(data[:at] + bytes([value]) + data[at + 1:])
                except ValueError:
                    pass


class Symbols(unittest.TestCase):
    """Names of functions, from outside."""

    def test_own_functions(self):
        import ctypes
        code = symbols.Code(os.getpid())
        code.look()
        for name in ("malloc", "qsort"):
            address = ctypes.cast(getattr(ctypes.CDLL(None), name),
                                  ctypes.c_void_p).value
            found = code.find(address + 1).name
            self.assertRegex(found, rf"{name}|calloc|realloc|\+0x", name)
        self.assertEqual(code.find(1), symbols.Symbol("0x2", None))

    def test_damaged_objects(self):
        with open(shutil.which("true"), "rb") as file:
            data = file.read()
        with tempfile.NamedTemporaryFile() as file:
            for at in range(0, 64):
                file.seek(0)
                file.truncate()
                file.write(data[:at] + b"\xff" + data[at + 1:])
                file.flush()
                try:
                    symbols.Elf(file.name)
                except (ValueError, OSError):
                    pass
            for length in (1, 63, 64, 1000, len(data) // 2):
                file.truncate(0)
                file.seek(0)
                file.write(data[:length])
                file.flush()
                try:
                    symbols.Elf(file.name)
                except (ValueError, OSError):
                    pass


if __name__ == "__main__":
    unittest.main()
