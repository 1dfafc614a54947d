"""The statistics that a process shows: core/api/share.c, and who reads them."""
import os
import signal
import stat
import subprocess
import tempfile
import time
import unittest

import hakmem_modules
from support import BUILD, LIBRARY, PLAIN, Case

share = hakmem_modules.load("share")

# What each program begins with: `hold` so many MB in blocks of 1,000 bytes, say
# so, do what a line on standard input says.
PRELUDE = r"""
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static void churn(void)
{
    static __thread char *blocks[4000];
    for (int i = 0; i < 4000; i++) blocks[i] = malloc(700);
    for (int i = 0; i < 4000; i++) free(blocks[i]);
    free(malloc(300000)); /* a slow path: the others may all be served by bins */
}
/* And gives those who look at the time some of it. */
static void hold(int mb)
{
    for (int i = 0; i < mb * 1000; i++) {
        char *p = malloc(1000);
        memset(p, 1, 1000);
    }
    for (int i = 0; i < 20; i++) {
        usleep(10000);
        free(malloc(300000));
    }
}
static void *churns(void *arg) { for (;;) churn(); return arg; }
static void say(const char *text) { write(1, text, strlen(text)); }
static void wait_for_input(void) { char c; while (read(0, &c, 1) == 1 && c != '\n') {} }
"""


def program(case, name, main, *flags):
    return case.compiled(name, f"#define _GNU_SOURCE\n{PRELUDE}\n"
                         f"int main(int argc, char **argv)\n{{ (void)churn;"
                         f" (void)argc; (void)argv; {main} }}",
                         "-Wno-unused-result", "-Wno-unused-function",
                         "-fno-builtin", *flags)


class Shown(Case):
    """Programs in a folder of their own for what they show."""

    def setUp(self):
        self.runtime = tempfile.mkdtemp(dir=self.folder)
        os.chmod(self.runtime, 0o700)
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = self.runtime
        self.addCleanup(lambda: os.environ.update(XDG_RUNTIME_DIR=before)
                        if before is not None
                        else os.environ.pop("XDG_RUNTIME_DIR"))

    def start(self, words, env=None, **more):
        """A program on HAKMEM, up to its first line."""
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**PLAIN, "XDG_RUNTIME_DIR": self.runtime,
                 "LD_PRELOAD": LIBRARY, **(env or {})}, **more)
        self.addCleanup(self.stop, child)
        self.assertEqual(child.stdout.readline(), b"up\n")
        return child

    @staticmethod
    def stop(child):
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()

    def files(self):
        folder = os.path.join(self.runtime, "hakmem")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def finish(self, child, status=0):
        child.stdin.write(b"\n")
        child.stdin.flush()
        self.assertEqual(child.wait(100), status)

    def of(self, pid):
        """The one page of a process of ours in this test's folder."""
        pages = [page for page in share.pages(pid)
                 if page.path.startswith(self.runtime)]
        self.assertEqual(len(pages), 1, self.files())
        return pages[0]


class Pages(Shown):
    """What there is to see."""

    def test_figures(self):
        child = self.start([program(self, "a", 'hold(44); say("up\\n");'
                                    " wait_for_input(); return 0;")])
        page = self.of(child.pid)
        found = share.ask([page])[0]
        self.assertEqual(found.pid, child.pid)
        self.assertEqual(found.library, LIBRARY)
        # It sleeps: what was so when it last looked, 12 MB ago at most.
        self.assertGreater(found.values["tiny_live_bytes"], 35e6)
        self.assertLess(found.values["tiny_live_bytes"], 48e6)
        self.assertFalse(found.fresh)
        self.assertEqual(stat.S_IMODE(os.stat(page.path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(
            os.path.dirname(page.path)).st_mode), 0o700)
        self.finish(child)
        self.assertEqual(self.files(), [])

    def test_answers(self):
        child = self.start([program(
            self, "b", 'hold(44); say("up\\n");'
            " for (;;) { churn(); usleep(1000); }")])
        page = self.of(child.pid)
        last = grown = 0
        # Two answers may come while the program waits for a processor.
        while grown < 20:
            found = share.ask([page], 60)[0]
            self.assertTrue(found.fresh)
            self.assertGreaterEqual(found.values["tiny_allocs"], last)
            grown += found.values["tiny_allocs"] > last
            last = found.values["tiny_allocs"]

    def test_goes_on_answering(self):
        """It has answered once: then also what only bins see, and asleep."""
        child = self.start([program(self, "ba", r"""
            static char *blocks[64];
            int flags = fcntl(0, F_GETFL);
            char c;
            hold(44);
            for (int i = 0; i < 64; i++) blocks[i] = malloc(96);
            fcntl(0, F_SETFL, flags | O_NONBLOCK);
            say("up\n");
            while (read(0, &c, 1) != 1) { churn(); usleep(1000); }
            fcntl(0, F_SETFL, flags);
            say("quiet\n"); wait_for_input();
            for (int i = 0; i < 50; i++) free(blocks[i]);
            say("freed\n"); wait_for_input(); _exit(0);""")])
        page = self.of(child.pid)
        self.assertTrue(share.ask([page], 60, 100)[0].fresh)
        for step in (b"quiet\n", b"freed\n"):
            child.stdin.write(b"x" if step == b"quiet\n" else b"\n")
            child.stdin.flush()
            self.assertEqual(child.stdout.readline(), step)
            found = share.ask([page], 60, 100)[0]
            self.assertTrue(found.fresh, step)
            if step == b"quiet\n":
                before = found.values
        self.assertGreaterEqual(before["tiny_live_bytes"] -
                                found.values["tiny_live_bytes"], 50 * 96)
        self.finish(child)

    def test_short_or_small_programs_show_nothing(self):
        self.finish(self.start([program(self, "c", 'hold(10); say("up\\n");'
                                        " wait_for_input(); return 0;")]))
        child = self.start([program(
            self, "d", 'say("up\\n"); for (int i = 0; i < 150; i++)'
            " { free(malloc(100)); usleep(10000); } wait_for_input();")])
        time.sleep(1.3)
        self.assertFalse(os.path.exists(os.path.join(self.runtime, "hakmem")))
        self.finish(child)

    def test_after_a_second(self):
        child = self.start([program(self, "e", 'hold(6); say("up\\n");'
                                    " for (;;) { churn(); usleep(2000); }")])
        until = time.monotonic() + 20
        while not self.files() and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(self.of(child.pid).pid, child.pid)

    def test_switched_off(self):
        child = self.start([program(self, "f", 'hold(44); say("up\\n");'
                                    " wait_for_input(); return 0;")],
                           env={"HAKMEM_SHARE_STATS": "0"})
        self.assertEqual(self.files(), [])
        self.finish(child)

    def test_reads_wholes(self):
        """Threads write by turns; what is read fits together."""
        child = self.start([program(self, "g", r"""
            for (int i = 0; i < 4; i++) {
                pthread_t t;
                pthread_create(&t, NULL, churns, NULL);
            }
            hold(44); say("up\n"); wait_for_input(); _exit(0);""")])
        page = self.of(child.pid)
        for _ in range(300):
            values = share.ask([page], 0.02)[0].values
            # Each of these is the sum of the same counters at one moment.
            self.assertEqual(values["tiny_frees"] <= values["tiny_allocs"],
                             True, values)
        self.finish(child)

    def test_dead_ones_are_removed(self):
        child = self.start([program(self, "h", 'hold(44); say("up\\n");'
                                    " wait_for_input(); return 0;")])
        self.assertEqual(len(self.files()), 1)
        os.kill(child.pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while self.files() and time.monotonic() < until:
            share.pages()  # it is a zombie, then it is gone
        self.assertEqual(self.files(), [])

    def test_exec(self):
        """Another program, the same process: the first one's page is stale."""
        other = program(self, "i", 'hold(54); say("up\\n");'
                        " wait_for_input(); return 0;")
        child = self.start([program(self, "j", f'hold(44);'
                                    f' execl("{other}", "x", NULL);')])
        self.assertEqual(len(self.files()), 2)
        found = share.figures(self.of(child.pid))
        self.assertGreater(found.values["tiny_held_bytes"], 34e6)
        self.assertEqual(len(self.files()), 1)

    def test_what_a_killed_one_has_left(self):
        """The next one removes it, but not what other namespaces have."""
        file = program(self, "z", 'hold(44); say("up\\n");'
                       " wait_for_input(); return 0;")
        killed = self.start([file])
        killed.kill()
        killed.wait()
        left, = self.files()
        other = left.replace(".", ".1", 1)
        self.assertEqual(left.split(".")[0], str(killed.pid))
        with open(os.path.join(self.runtime, "hakmem", other), "wb"):
            pass
        child = self.start([file])
        self.assertNotIn(left, self.files())
        self.assertIn(other, self.files())
        self.finish(child)

    def test_strange_files(self):
        """They are passed over, and left alone."""
        child = self.start([program(self, "k", 'hold(44); say("up\\n");'
                                    " wait_for_input(); return 0;")])
        folder = os.path.join(self.runtime, "hakmem")
        for name, content in ((f"{child.pid}.1", b""),
                              (f"{child.pid}.2", b"x" * 5000),
                              (f"{child.pid}.3", b"HAKSHARE" + b"\xff" * 4088),
                              ("README", b"?")):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        os.symlink(self.folder, os.path.join(folder, f"{child.pid}.4"))
        self.assertEqual(self.of(child.pid).pid, child.pid)
        self.assertEqual(len(self.files()), 6)

    def test_other_versions(self):
        child = self.start([program(self, "l", 'hold(44); say("up\\n");'
                                    " wait_for_input(); return 0;")])
        path = self.of(child.pid).path
        with open(path, "rb") as file:
            data = bytearray(file.read())
        data[8] = 99
        with self.assertRaisesRegex(ValueError, "version 99"):
            share.Page(self.file("other", bytes(data)))


class Harmless(Shown):
    """What must not be harmed by it."""

    def lives(self, name, main, shown=0, status=0, **more):
        """It runs to its end, and showed so many pages while it was up."""
        child = self.start([program(self, name, main)], **more)
        self.assertEqual(len(self.files()), shown)
        self.finish(child, status)

    def test_forked_children_have_their_own(self):
        for name, fork in (("ma", "fork()"),
                           ("mb", "syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)")):
            child = self.start([program(self, name, f"""
                int pid;
                hold(44);
                pid = {fork};
                if (pid == 0) {{
                    hold(54); say("up\\n"); wait_for_input();
                    exit(0);
                }}
                waitpid(pid, NULL, 0); say("waited\\n"); wait_for_input();
                return 0;""")])
            files = self.files()
            self.assertEqual(len(files), 2, name)
            parent = share.figures(self.of(child.pid))
            self.assertLess(parent.values["tiny_held_bytes"], 60e6)
            other = [int(file.split(".")[0]) for file in files
                     if not file.startswith(f"{child.pid}.")][0]
            found = share.figures(self.of(other))
            self.assertEqual(found.pid, other)
            self.assertGreater(found.values["tiny_held_bytes"], 80e6)
            child.stdin.write(b"\n")
            child.stdin.flush()
            self.assertEqual(child.stdout.readline(), b"waited\n")
            self.assertEqual(self.files(), [
                file for file in files if file.startswith(f"{child.pid}.")])
            self.finish(child)

    def test_many_children_while_it_is_watched(self):
        child = self.start([program(self, "n", r"""
            hold(44); say("up\n");
            for (int i = 0; i < 300; i++) {
                int pid = i % 3 == 0 ? vfork() : fork();
                if (pid == 0 && i % 3 == 0) { execl("/bin/true", "true", NULL); _exit(1); }
                if (pid == 0) { churn(); _exit(0); }
                churn();
                waitpid(pid, NULL, 0);
            }
            say("done\n"); wait_for_input(); return 0;""")])
        page = self.of(child.pid)
        os.set_blocking(child.stdout.fileno(), False)
        until = time.monotonic() + 60
        while not child.stdout.read() and time.monotonic() < until:
            self.assertEqual(share.ask([page], 0.01)[0].pid, child.pid)
        self.finish(child)
        self.assertEqual(self.files(), [])

    def test_file_descriptors(self):
        """It keeps none, and does not need any."""
        self.lives("o", r"""
            int first = dup(1), second;
            close(first); hold(44); second = dup(1);
            if (first != second) return 9;
            close(second);
            for (int i = 3; i < 100; i++) close(i);
            say("up\n"); for (int i = 0; i < 100; i++) churn();
            wait_for_input(); return 0;""", shown=1)

    def test_no_file_descriptor_left(self):
        self.lives("p", r"""
            struct rlimit none = {3, 3};
            setrlimit(RLIMIT_NOFILE, &none);
            hold(44); say("up\n"); wait_for_input(); return 0;""")

    def test_file_size_limit(self):
        self.lives("q", r"""
            struct rlimit none = {1000, 1000};
            setrlimit(RLIMIT_FSIZE, &none);
            hold(44); say("up\n"); wait_for_input(); return 0;""")

    def test_filter_of_system_calls(self):
        """Whoever asks for what making a page needs would be killed."""
        self.lives("r", r"""
            #define NO(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), \
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
            struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                NO(SYS_mkdirat), NO(SYS_fallocate), NO(SYS_unlinkat), NO(SYS_unlink),
                NO(SYS_getrlimit), NO(SYS_seccomp),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
            struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) return 7;
            hold(44); say("up\n"); wait_for_input(); _exit(0);""")

    def test_not_dumpable(self):
        self.lives("s", r"""
            prctl(PR_SET_DUMPABLE, 0);
            hold(44); say("up\n"); wait_for_input(); return 0;""", shown=1)

    def test_odd_folders(self):
        """A symbolic link, rights for others: not used."""
        mine = os.path.join(self.runtime, "hakmem")
        for name, make in (("t", lambda: os.symlink(self.folder, mine)),
                           ("u", lambda: (os.unlink(mine), os.mkdir(mine),
                                          os.chmod(mine, 0o777))),
                           ("v", lambda: (os.rmdir(mine),
                                          self.file("x", ""),
                                          os.link(self.path("x"), mine)))):
            make()
            before = sorted(os.listdir(self.folder))
            child = self.start([program(
                self, name, 'hold(44); say("up\\n"); wait_for_input();'
                " return 0;")])
            self.assertEqual(sorted(set(os.listdir(self.folder)) -
                                    set(before)), [name])
            # It goes to the folder for temporary files instead.
            page = share.pages(child.pid)[0]
            self.assertEqual(os.path.basename(os.path.dirname(page.path)),
                             f"hakmem-{os.geteuid()}")
            self.finish(child)
            self.assertFalse(os.path.exists(page.path))

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_other_user(self):
        """Who becomes somebody else goes on."""
        self.lives("w", r"""
            hold(44); if (setgid(12345) || setuid(12345)) return 8;
            say("up\n"); hold(44); for (int i = 0; i < 100; i++) churn();
            wait_for_input(); return 0;""", shown=1)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_new_root(self):
        self.lives("x", r"""
            hold(44); if (chdir("/proc/self") || chroot(".")) return 8;
            say("up\n"); hold(44); wait_for_input(); return 0;""", shown=1)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_set_user_id(self):
        """It is linked with the library, as preloading has no effect."""
        os.chmod(self.folder, 0o755)
        os.chmod(self.runtime, 0o755)
        file = program(self, "y", 'hold(44); say("up\\n"); wait_for_input();'
                       " return 0;", "-Wl,--no-as-needed", f"-L{BUILD}",
                       "-lhakmem", f"-Wl,-rpath,{BUILD}")
        os.chmod(file, 0o4755)
        child = self.start([file], user=12345, env={"LD_PRELOAD": ""})
        self.assertEqual(self.files(), [])
        self.assertEqual(share.pages(child.pid), [])
        self.finish(child)

    @unittest.skipIf(os.geteuid() != 0, "needs root, to mount")
    def test_full_file_system(self):
        small = tempfile.mkdtemp(dir=self.folder)
        if subprocess.run(["mount", "-t", "tmpfs", "-o",
                           "size=8k,mode=700", "none", small],
                          stderr=subprocess.DEVNULL,
                          check=False).returncode != 0:
            self.skipTest("no mount here")
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False)
        self.runtime = small
        os.mkdir(os.path.join(small, "hakmem"), 0o700)
        try:
            with open(os.path.join(small, "all"), "wb") as file:
                file.write(b"x" * (1 << 16))
        except OSError:
            pass
        self.lives("z", 'hold(44); say("up\\n"); for (int i = 0; i < 100; i++)'
                   " churn(); wait_for_input(); return 0;")


if __name__ == "__main__":
    unittest.main()
