"""hakmem record and hakmem replay."""
import json
import os
import re
import signal
import struct
import subprocess
import unittest
import xml.dom.minidom
import zlib

from support import (BUILD, COMMAND, COUNTER, PLAIN, PYTHON, RECORD, REPLAY,
                     Case, file_limit, program, run)

SCRIPT = """
import json
data = [{"key %d" % i: list(range(i % 50)), "n": i / 7} for i in range(3000)]
for _ in range(3):
    assert json.loads(json.dumps(data)) == data
"""
SUMS = ("allocs", "resizes", "frees", "bytes")


class Record(Case):
    """What a trace says is what happened."""

    def test_counts_are_the_programs_own(self):
        self.record(program("counts"), "4", "0")
        base = self.info()
        said = json.loads(self.record(program("counts"), "4", "5000").stdout)
        found = self.info()
        for key in SUMS:
            self.assertEqual(found[key] - base[key], said[key], key)
        self.assertEqual(said["live_bytes"], 0)
        self.assertEqual(found["live_bytes"], base["live_bytes"])
        self.assertEqual(found["peak_bytes"],
                         said["peak_bytes"] + base["live_bytes"])
        self.assertEqual(found["threads"], 5)
        self.assertTrue(found["whole"])
        for key in ("failed", "foreign_frees", "lost_frees", "missed_calls"):
            self.assertEqual(found[key], 0, key)

    def test_python_counted_by_another(self):
        counted = self.path("counted")
        done = run(PYTHON, "-c", SCRIPT, env={
            "LD_PRELOAD": f"{RECORD} {COUNTER}", "COUNTER_FILE": counted,
            "HAKMEM_RECORD": self.path("by-hand"), "PYTHONMALLOC": "malloc"})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        found = self.info(self.path("by-hand"))
        with open(counted) as file:
            seen = dict(zip(SUMS, map(int, file.read().split())))
        self.assertGreater(seen["allocs"], 100000)
        for key in SUMS:
            self.assertEqual(found[key], seen[key], key)
        self.assertEqual(found["threads"], 1)

    def test_says_what_it_did(self):
        done = self.command(program("lives"), "exit")
        self.assertRegex(done.stderr, r"^hakmem record: 1,5\d\d operations of 1"
                         r" thread, at most .* at once, are in .*a trace")
        done = self.command(program("lives"), "exit", options=["-q"])
        self.assertEqual(done.stderr, "")

    def test_every_form(self):
        self.record(program("lives"), "forms")
        found = self.info()
        self.assertEqual(found["live_blocks"], 0)
        self.assertEqual(found["resizes"], 2)
        self.assertEqual(found["allocs"], 10)
        self.assertEqual(found["frees"], 10)
        # reallocarray's overflow reaches no allocator.
        self.assertEqual(found["failed"], 2)

    def test_ends(self):
        for way in ("exit", "_exit", "_Exit", "quick"):
            with self.subTest(way):
                self.record(program("lives"), way)
                found = self.info()
                self.assertTrue(found["whole"])
                self.assertGreaterEqual(found["allocs"], 1000)
                self.assertEqual(found["live_blocks"], 500 + found["allocs"]
                                 - 1000 - (found["frees"] - 500))

    def test_crashes(self):
        for way, number in (("abort", signal.SIGABRT),
                            ("killed", signal.SIGKILL)):
            with self.subTest(way):
                done = self.command(program("lives"), way,
                                    status=128 + number)
                self.assertIn("its end is missing", done.stderr)
                found = self.info()
                self.assertFalse(found["whole"])
                self.assertGreater(found["allocs"], 250000)
                if way == "abort":
                    self.assertGreaterEqual(found["allocs"], 400000)
                done = run(COMMAND, "replay", self.trace, "-n", "1",
                           "--with", "glibc")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("has no end", done.stdout)

    def test_the_status_is_the_programs(self):
        self.command("sh", "-c", "exit 7", status=7)
        self.command("sh", "-c", "kill -TERM $$", status=128 + signal.SIGTERM)

    def test_threads_that_come_and_go(self):
        self.record(program("lives"), "threads")
        found = self.info()
        self.assertEqual(found["threads"], 201)
        self.assertGreaterEqual(found["allocs"], 200 * 20)

    def test_signals_in_the_middle(self):
        plain = program("libplain.so")
        done = self.record(program("lives"), "interrupted", timeout=300,
                           env={"LD_PRELOAD": plain})
        found = self.info()
        self.assertTrue(found["whole"], done)
        # All but those in the recorder were recorded, those were counted.
        self.assertGreater(found["missed_calls"], 0)
        done = run(COMMAND, "replay", self.trace, "-n", "1", "--with", "glibc")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_addresses_come_back_early(self):
        self.record(program("lives"), "hands",
                    env={"LD_PRELOAD": program("libplain.so")})
        found = self.info()
        self.assertEqual(found["lost_frees"] + found["foreign_frees"], 0)
        self.assertEqual(found["resizes"], 1)

    def test_all_descriptors_are_taken(self):
        """A program that closes everything writes into no file of ours."""
        self.record(program("lives"), "closes")
        found = self.info()
        self.assertTrue(found["whole"])
        self.assertGreater(found["allocs"], 400000)

    def test_without_the_command(self):
        done = run(program("lives"), "exit", env={
            "LD_PRELOAD": RECORD, "HAKMEM_RECORD": "by hand"},
            cwd=self.folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(self.info(self.path("by hand"))["whole"])
        done = run(program("lives"), "exit", env={"LD_PRELOAD": RECORD})
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Children(Case):
    """Every process has a file of its own."""

    def test_forked(self):
        done = self.command(program("lives"), "forks")
        self.assertIn("children: 1", done.stderr)
        parent, (child,) = self.info(), self.children()
        child = self.info(self.path(child))
        self.assertLess(parent["allocs"], 1200)
        self.assertGreaterEqual(child["allocs"], 2000)
        self.assertLess(child["allocs"], 2100)
        self.assertNotEqual(child["pid"], parent["pid"])
        self.assertTrue(parent["whole"] and child["whole"])

    def test_blocks_of_the_parent(self):
        self.record(program("lives"), "inherits")
        child = self.info(self.path(self.children()[0]))
        self.assertEqual(child["foreign_frees"], 500)
        self.assertEqual(child["allocs"], 10)

    def test_only_the_program(self):
        self.command(program("lives"), "forks", options=["--only"])
        self.assertEqual(self.children(), [])
        for what in ("executes", "spawns"):
            self.record(program("lives"), what, only=True)
            self.assertEqual(self.children(), [])
            self.assertTrue(self.info()["whole"])

    def test_executed(self):
        for what in ("executes", "spawns"):
            with self.subTest(what):
                self.record(program("lives"), what)
                self.assertEqual(len(self.children()), 1)
                child = self.info(self.path(self.children()[0]))
                self.assertTrue(child["command"].startswith("sh -c"))

    def test_a_process_has_one_file(self):
        self.record(program("lives"), "becomes")
        self.assertEqual(self.children(), [])
        self.assertTrue(self.info()["command"].startswith("sh -c"))

    def test_vfork_ends_nothing(self):
        self.record(program("lives"), "vforks")
        found = self.info()
        self.assertTrue(found["whole"])
        self.assertGreaterEqual(found["allocs"], 2000)
        self.assertEqual(self.children(), [])

    def test_forks_of_a_busy_program(self):
        self.record(program("lives"), "forks-busy")
        self.assertEqual(len(self.children()), 20)
        self.assertTrue(self.info()["whole"])
        for name in self.children():
            child = self.info(self.path(name))
            self.assertTrue(child["whole"])
            self.assertEqual(child["allocs"], 100)

    def test_old_children_are_removed(self):
        self.command(program("lives"), "forks")
        self.assertEqual(len(self.children()), 1)
        self.command(program("lives"), "exit")
        self.assertEqual(self.children(), [])


class Failures(Case):
    """What can't be done is one line, and the program goes on."""

    def went_on(self, done, pattern):
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(done.stdout, "went on\n")
        self.assertRegex(done.stderr, pattern)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_file_too_large(self):
        done = run(program("lives"), "large", preexec_fn=file_limit(500000),
                   env={"LD_PRELOAD": RECORD, "HAKMEM_RECORD": self.trace})
        self.went_on(done, "a trace: File too large; the trace ends here")
        self.assertGreater(self.info(partial=True)["allocs"], 100000)

    @unittest.skipUnless(os.geteuid() == 0, "mounts a disk")
    def test_full_disk(self):
        disk = self.path("disk")
        os.mkdir(disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none",
                           disk], stderr=subprocess.DEVNULL,
                          check=False).returncode != 0:
            self.skipTest("may not mount")
        try:
            done = run(program("lives"), "large", env={
                "LD_PRELOAD": RECORD,
                "HAKMEM_RECORD": os.path.join(disk, "trace")})
            self.went_on(done, "No space left on device; the trace ends here")
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_no_folder(self):
        done = run(program("lives"), "large", env={
            "LD_PRELOAD": RECORD, "HAKMEM_RECORD": "/nowhere/trace"})
        self.went_on(done, "/nowhere/trace: No such file or directory;"
                     " this process is not recorded")
        self.fails(1, "--output=/nowhere/trace: can't be written", "record",
                   "-o", "/nowhere/trace", "--", "true")

    def test_not_over_other_files(self):
        with open(self.trace, "w") as file:
            file.write("precious")
        self.fails(2, "is there and is no trace; name another", "record",
                   "-o", self.trace, "--", "true")
        with open(self.trace) as file:
            self.assertEqual(file.read(), "precious")

    def test_command_lines(self):
        self.fails(2, "record: no program is given", "record")
        self.fails(2, "record: there is no option --out", "record", "--out=x",
                   "true")
        self.fails(127, "no such program", "record", "--", "nowhere-at-all")
        self.fails(2, "replay: no trace is given", "replay")
        self.fails(2, "replay: one trace at a time", "replay", "a", "b")
        self.fails(2, "--runs=none: not a whole number", "replay", "--runs",
                   "none", "a")

    def test_unknown_allocator(self):
        self.record("true")
        self.fails(2, "--with=banana: unknown allocator; use one of glibc"
                   " hakmem mimalloc jemalloc tcmalloc", "replay", self.trace,
                   "--with", "glibc,banana")
        self.fails(125, "there is no such library", "replay", self.trace,
                   "--with", "./nowhere.so")
        self.fails(125, r"support.py: could not be preloaded \(on support",
                   "replay", self.trace, "--with",
                   os.path.join(os.path.dirname(__file__), "support.py"))


class BadTraces(Case):
    """A trace that is none: one line, status 2."""

    def bad(self, data, pattern):
        with open(self.trace, "wb") as file:
            file.write(data)
        for words in (["info", self.trace],
                      ["plan", self.trace, self.path("plan")]):
            done = run(REPLAY, *words)
            self.assertEqual(done.returncode, 2, done)
            self.assertRegex(done.stderr, f"^hakmem-replay: .*({pattern})")
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def good(self):
        self.record(program("counts"), "2", "3000")
        with open(self.trace, "rb") as file:
            return file.read()

    def test_missing(self):
        self.fails(2, "nowhere: No such file", "replay", "nowhere")
        self.fails(2, "is not a file", "replay", self.folder)

    def test_foreign(self):
        self.bad(b"", "is empty; nothing was recorded")
        self.bad(b"#!/bin/sh\necho hello, this is no trace\n",
                 "is not a trace of `hakmem record`")
        self.bad(b"HAKTR", "is not a trace")

    def test_newer(self):
        data = self.good()
        self.bad(data[:8] + struct.pack("<I", 2) + data[12:],
                 "is a trace of version 2, this program reads version 1")

    def test_cut_off(self):
        data = self.good()
        self.bad(data[:20], "is cut off within its head")
        self.bad(data[:45], "its head is damaged")
        self.bad(data[:-25], r"block \d+, at byte \d+, is cut off;"
                 " --partial takes what is before it")

    def test_damaged(self):
        data = bytearray(self.good())
        data[len(data) // 2] ^= 4
        self.bad(data, r"is damaged \(its checksum is wrong\)")
        self.fails(2, "damaged", "replay", self.trace, "--with", "glibc")
        data[25] ^= 1
        self.bad(data, "its head is damaged")

    def test_partial(self):
        self.record(program("lives"), "large")
        whole = self.info()
        with open(self.trace, "r+b") as file:
            file.seek(whole["file_bytes"] * 2 // 3)
            file.write(b"????")
        self.fails(2, "its checksum is wrong", "replay", self.trace)
        done = run(COMMAND, "replay", "--partial", "--with", "glibc", "-n",
                   "1", self.trace)
        self.assertEqual(done.returncode, 0, done)
        found = self.info(partial=True)
        self.assertFalse(found["whole"])
        self.assertGreater(found["allocs"], whole["allocs"] // 3)

    def test_wrong_operations(self):
        """A block whose checksum is right and whose contents are not."""
        data = bytearray(self.good())
        text, = struct.unpack_from("<I", data, 12)
        at = 40 + text
        _, _, raw, packed = struct.unpack_from("<IIII", data, at)
        # In the frame's magic: elsewhere it may make other, valid operations.
        data[at + 20] ^= 16
        struct.pack_into("<I", data, at + 16, zlib.crc32(
            data[at + 20:at + 20 + packed], zlib.crc32(data[at:at + 16])))
        self.bad(data, "can't be unpacked|damaged")
        self.assertGreater(raw, packed)

    def test_fuzzed(self):
        self.good()
        done = run(program("fuzz"), self.trace, self.path("plan"), "400",
                   timeout=100)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)


def made(operations, version=1):
    """A trace that no recorder has written: format.h, word for word."""
    text = b"made\0"
    head = struct.pack("<8sIIIIQI", b"HAKTRACE", version, len(text), 7, 4096,
                       0, 0)
    # A zstd frame of one raw block: single segment, a size of one byte.
    packed = struct.pack("<IBB", 0xfd2fb528, 0x20, len(operations)) \
        + (len(operations) << 3 | 1).to_bytes(3, "little") + operations
    block = struct.pack("<IIII", 0x4b4c4254, 0, len(operations), len(packed))
    end = struct.pack("<IIII", 0x4b4c4254, 1, 0, 0)
    return (head + struct.pack("<I", zlib.crc32(text, zlib.crc32(head)))
            + text + block
            + struct.pack("<I", zlib.crc32(packed, zlib.crc32(block))) + packed
            + end + struct.pack("<I", zlib.crc32(end)))


THREAD, MALLOC, REALLOC, FREE, TIME = 11, 1, 3, 6, 13


class Replay(Case):
    """The same again."""

    def test_a_trace_of_another_writer(self):
        with open(self.trace, "wb") as file:
            file.write(made(bytes([THREAD, 0, MALLOC, 100, TIME, 50, MALLOC,
                                   60, REALLOC, 2, 0x90, 3, FREE, 2, FREE,
                                   1])))
        found = self.info()
        self.assertEqual((found["command"], found["pid"]), ("made", 7))
        self.assertEqual(found["bytes"], 100 + 60 + 400)
        self.assertEqual(found["peak_bytes"], 460)
        self.assertEqual(found["time_us"], 50)
        self.assertEqual((found["allocs"], found["resizes"], found["frees"],
                          found["live_blocks"]), (2, 1, 2, 0))
        self.assertTrue(found["whole"])
        self.replay("--with", "glibc", "-n", "1")

    def test_more_than_there_is(self):
        with open(self.trace, "wb") as file:
            file.write(made(bytes([THREAD, 0, MALLOC, *[0x80] * 6, 8])))
        self.fails(1, "the trace has 32.0 TB at once and a replay writes to all"
                   " of it; only .* are free", "replay", self.trace, "--with",
                   "glibc")

    def replay(self, *arguments, **more):
        done = run(COMMAND, "replay", self.trace, *arguments, **more)
        self.assertEqual(done.returncode, 0, done)
        return done

    def runs(self, *arguments, **more):
        """What --json says."""
        return json.loads(self.replay("--json", *arguments, **more).stdout)

    def test_table(self):
        self.record(PYTHON, "-c", SCRIPT)
        done = self.replay("--with", "glibc,hakmem", "-n", "2")
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"time, ms +ratio +ns/op +CPU, ms +faults"
                         " +peak, MB +ratio +at the end, MB")
        self.assertRegex(lines[1], r"^glibc +[\d.,]+ +1\.00 ")
        self.assertRegex(lines[2], r"^hakmem +[\d.,]+ +[\d.]+ ")
        self.assertRegex(lines[3], r"[\d,]+ operations of 1 thread, medians of"
                         " 2 runs")

    def test_it_does_what_the_trace_says(self):
        """Counted by another, in a process that has a few more of its own."""
        self.record(program("counts"), "4", "5000")
        found = self.info()
        plan, counted = self.path("plan"), self.path("counted")
        self.assertEqual(run(REPLAY, "plan", self.trace, plan).returncode, 0)
        done = run(REPLAY, "run", "--served-by", COUNTER, plan, env={
            "LD_PRELOAD": COUNTER, "COUNTER_FILE": counted})
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(json.loads(done.stdout)["failed"], 0)
        with open(counted) as file:
            seen = dict(zip(SUMS, map(int, file.read().split())))
        self.assertEqual(seen["resizes"], found["resizes"])
        for key, more in (("allocs", 30), ("frees", 30), ("bytes", 65536)):
            self.assertGreaterEqual(seen[key], found[key], key)
            self.assertLess(seen[key], found[key] + more, key)

    def test_blocks_that_cross(self):
        self.record(program("lives"), "passes")
        found = self.info()
        self.assertEqual(found["threads"], 2)
        self.assertEqual(found["lost_frees"] + found["foreign_frees"], 0)
        self.assertLess(found["live_blocks"], 10)
        self.assertLess(found["peak_blocks"], 30)
        said = self.runs("--with", "glibc,hakmem", "-n", "3")
        for name, runs in said["runs"].items():
            self.assertLess(max(run["peak_kb"] for run in runs), 4096, name)

    def test_peaks_agree(self):
        self.record(program("counts"), "4", "12000")
        said = self.runs("--with", "glibc,hakmem", "-n", "3",
                         env={"HAKMEM_HUGE_PAGES": "never"})
        for name, runs in said["runs"].items():
            peaks = [one["peak_kb"] for one in runs]
            self.assertGreater(min(peaks) * 1024,
                               said["trace"]["peak_bytes"] * 0.85, name)
            self.assertLess(max(peaks) / min(peaks), 1.03, name)
            self.assertLess(max(peaks) * 1024,
                            said["trace"]["peak_bytes"] * 1.15, name)
            self.assertEqual({one["failed"] for one in runs}, {0})

    def test_threads(self):
        self.record(program("lives"), "threads")
        said = self.runs("--with", "glibc,hakmem", "-n", "2")
        self.assertEqual(said["trace"]["threads"], 201)

    def test_picture(self):
        self.record(PYTHON, "-c", SCRIPT)
        picture = self.path("it.svg")
        self.replay("--with", "glibc,hakmem", "-n", "1", "--svg", picture)
        drawn = xml.dom.minidom.parse(picture)
        texts = [node.firstChild.data
                 for node in drawn.getElementsByTagName("text")]
        for text in ("glibc", "hakmem", "asked for", "resident MB",
                     "percent of the operations"):
            self.assertIn(text, texts)
        paths = [node.getAttribute("d")
                 for node in drawn.getElementsByTagName("path")]
        self.assertTrue(any(path.count("L") > 100 for path in paths))

    def test_samples(self):
        self.record(program("counts"), "2", "8000")
        said = self.runs("--with", "glibc", "-n", "1")
        samples = said["curve"]["glibc"]["samples"]
        self.assertGreater(len(samples), 100)
        times = [sample[0] for sample in samples]
        self.assertEqual(times, sorted(times))
        most = max(sample[3] for sample in samples)
        self.assertGreater(most, said["trace"]["peak_bytes"] * 0.95)
        self.assertLessEqual(most, said["trace"]["peak_bytes"])

    def test_pace(self):
        self.record("sh", "-c", "sleep 0.5; exit 0", only=True)
        said = self.runs("--with", "glibc", "-n", "1", "--pace")
        self.assertGreater(said["trace"]["time_us"], 400000)
        self.assertGreater(said["runs"]["glibc"][0]["time_us"], 400000)

    def test_nothing_in_it(self):
        """A program that allocates nothing at all."""
        self.record(program("counts"), "99999", "0", status=2)
        said = self.runs("--with", "glibc", "-n", "1")
        self.assertEqual(said["trace"]["operations"], 0)

    def test_info(self):
        self.record(program("counts"), "2", "100")
        done = self.replay("--info")
        self.assertRegex(done.stdout, r"a trace: .*, of process \d+: .*counts")
        self.assertRegex(done.stdout, r"(?m)^threads +3$")


if __name__ == "__main__":
    unittest.main()
