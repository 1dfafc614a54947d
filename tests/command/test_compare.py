"""hakmem compare."""
import html.parser
import json
import os
import signal
import subprocess
import time
import unittest
import xml.dom.minidom

from support import BUILD, COMMAND, PLAIN, Case, hakmem

HOLD = """
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    size_t bytes = (size_t)atoi(argv[1]) << 20;
    char *p = malloc(bytes);
    memset(p, 1, bytes);
    if (argc > 2) {
        for (;;) pause();
    }
    return p[bytes / 2] != 1;
}
"""


def there(mark):
    """The processes that are `sleep MARK`."""
    return subprocess.run(["pgrep", "-f", f"^sleep {mark}"], text=True,
                          capture_output=True, check=False).stdout


class Compare(Case):
    """What it measures and shows."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hold = cls.compiled("hold", HOLD)

    def until(self, what):
        """Waits until that is so: what was killed is there a moment longer."""
        end = time.monotonic() + 50
        while not what():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def test_table(self):
        done = hakmem("compare", "--runs", "2", "--", self.hold, "40")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"without +on HAKMEM +ratio")
        for line, title in zip(lines[1:], ("time, s", "CPU time, s",
                                           "peak memory, MB", "page faults")):
            self.assertRegex(line, title + r" +[\d.,]+ +[\d.,]+ +[\d.-]+$")
        self.assertIn("run 2 times each, in changing order", done.stdout)
        self.assertIn("the same", done.stdout)

    def test_figures_are_right(self):
        done = hakmem("compare", "--json", "-n", "1", "--", self.hold, "40")
        said = json.loads(done.stdout)
        for name in ("glibc", "hakmem"):
            run = said["allocators"][name]["runs"][0]
            self.assertEqual(run["status"], 0)
            self.assertGreater(run["peak"], 40 << 20)
            self.assertLess(run["peak"], 46 << 20)
            self.assertGreater(run["cpu"], 0)
            self.assertIsNone(run["rest"])

    def test_small_programs_are_small(self):
        said = json.loads(hakmem("compare", "--json", "-n", "1", "--",
                                 self.hold, "1").stdout)
        for of_it in said["allocators"].values():
            self.assertLess(of_it["median"]["peak"], 6 << 20)

    def test_cpu_time_of_children_counts(self):
        script = "for i in 1 2 3; do (i=0; while [ $i -lt 20000 ]; do" \
            " i=$((i+1)); done); done"
        said = json.loads(hakmem("compare", "--json", "-n", "1", "--", "sh",
                                 "-c", script).stdout)
        self.assertGreater(said["allocators"]["glibc"]["median"]["cpu"], 0.01)

    def test_rest(self):
        began = time.monotonic()
        done = hakmem("compare", "--json", "-n", "1", "--rest=0.5", "--",
                      self.hold, "30", "stay")
        self.assertEqual(done.returncode, 0, done.stderr)
        for of_it in json.loads(done.stdout)["allocators"].values():
            self.assertGreater(of_it["runs"][0]["rest"], 30 << 20)
            self.assertLess(of_it["runs"][0]["rest"], 40 << 20)
            self.assertEqual(of_it["runs"][0]["status"], -signal.SIGTERM)
        self.assertLess(time.monotonic() - began, 55)  # not until it ends

    def test_rest_of_what_ends(self):
        done = hakmem("compare", "-n", "1", "--rest", "--", self.hold, "1")
        self.assertRegex(done.stdout, r"at rest, MB +ended +ended")

    def test_rest_ends_all_processes(self):
        mark = f"17{os.getpid()}"
        done = hakmem("compare", "-n", "1", "--rest=0.3", "--", "sh", "-c",
                      f"sleep {mark} & sleep {mark}; :")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.until(lambda: not there(mark))

    def test_interrupted_it_leaves_nothing(self):
        mark = f"18{os.getpid()}"
        child = subprocess.Popen([COMMAND, "compare", "--", "sleep", mark],
                                 env=PLAIN, stdout=subprocess.DEVNULL)
        self.until(lambda: there(mark))
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(50), 130)
        self.until(lambda: not there(mark))

    def test_other_allocators(self):
        """A library that does nothing is as good as the C library's."""
        none = self.compiled("libnothing.so", "int nothing;", "-shared",
                             "-fPIC")
        said = json.loads(hakmem("compare", "--json", "-n", "1", "--with",
                                 none, "--", self.hold, "3").stdout)
        self.assertEqual(list(said["allocators"]),
                         ["glibc", "hakmem", "libnothing"])

    def test_output_differs(self):
        done = hakmem("compare", "-n", "1", "--", "sh", "-c", "echo $$")
        self.assertIn("not the same in every run", done.stdout)

    def test_svg_and_html(self):
        svg, page = self.path("a.svg"), self.path("a.html")
        done = hakmem("compare", "-n", "1", "--svg", svg, "--html", page,
                      "--rest=0.3", "--", "sh", "-c", "exec true '<&>\"'")
        self.assertEqual(done.returncode, 0, done.stderr)
        texts = [node.firstChild.data for node in
                 xml.dom.minidom.parse(svg).getElementsByTagName("text")]
        self.assertTrue({"time, s", "HAKMEM", "without", "ended"} <=
                        set(texts), texts)
        with open(page, encoding="utf-8") as file:
            text = file.read()
        html.parser.HTMLParser().feed(text)
        self.assertIn("&lt;&amp;&gt;", text)
        self.assertNotIn("'<&>", text)


class Orders(unittest.TestCase):
    """The order of runs."""

    def test_each_unlike_the_last(self):
        import hakmem_modules
        compare = hakmem_modules.load("compare")
        orders = compare.orders(["a", "b", "c"])
        last = None
        for _ in range(50):
            order = next(orders)
            self.assertEqual(sorted(order), ["a", "b", "c"])
            self.assertNotEqual(order, last)
            last = order
        self.assertEqual(next(compare.orders(["a"])), ["a"])


class Refused(Case):
    """One line each."""

    def test_program(self):
        self.fails(2, "compare: no program is given", "compare")
        self.fails(127, "no such program in PATH", "compare", "nosuchprogram")
        self.fails(1, r"'sh -c echo no >&2; exit 3' ends with status 3 without"
                   r" HAKMEM \(no\): there is nothing", "compare", "sh", "-c",
                   "echo no >&2; exit 3")
        self.fails(1, "signal 11 without", "compare", "sh", "-c",
                   "kill -11 $$")

    def test_only_with(self):
        self.fails(1, "ends with status 4 on hakmem", "compare", "sh", "-c",
                   '[ -z "$LD_PRELOAD" ] || exit 4')

    def test_allocators(self):
        self.fails(2, "--with=xmalloc: unknown allocator; use one of glibc"
                   " hakmem mimalloc", "compare", "--with", "xmalloc", "ls")
        self.fails(125, "no such library", "compare", "--with",
                   self.path("x.so"), "ls")

    def test_no_place_for_the_picture(self):
        self.fails(1, "--svg=.*: can't be written: No such file or directory;"
                   " there is no such folder", "compare", "--svg",
                   self.path("none/x.svg"), "ls")
        self.fails(1, "--svg=/dev/full: can't be written: No space left on"
                   " device; free some space", "compare", "-n", "1", "--svg",
                   "/dev/full", "ls")

    def test_no_helper(self):
        with open(COMMAND, encoding="utf-8") as source:
            text = source.read().replace(f'LIBRARIES = "{BUILD}"',
                                         f'LIBRARIES = "{self.folder}"')
        command = self.file("hakmem", text, 0o755)
        os.symlink(f"{BUILD}/libhakmem.so", self.path("libhakmem.so"))
        done = subprocess.run([command, "compare", "ls"], env=PLAIN, text=True,
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, 125)
        self.assertIn("hakmem-measure is not in", done.stderr)


if __name__ == "__main__":
    unittest.main()
