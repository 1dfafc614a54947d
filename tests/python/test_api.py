"""The public functions of hakmem_py, on good input and bad."""
import re
import unittest

import hakmem_py
from support import Case, python


class Figures(Case):
    def setUp(self):
        self.assertIs(hakmem_py.enabled, True, hakmem_py.reason)

    def test_stats_count_what_is_asked_for(self):
        before = hakmem_py.stats()
        kept = [object() for one in [None] * 10000]
        after = hakmem_py.stats()
        del kept
        freed = hakmem_py.stats()
        self.assertGreaterEqual(
            after["obj"]["tiny_allocs"] - before["obj"]["tiny_allocs"], 10000)
        self.assertLess(
            after["obj"]["tiny_allocs"] - before["obj"]["tiny_allocs"], 11000)
        self.assertGreaterEqual(
            after["live_bytes"] - before["live_bytes"], 10000 * 16)
        self.assertLess(freed["live_bytes"], after["live_bytes"] - 100000)
        self.assertGreaterEqual(freed["peak_bytes"], after["live_bytes"])
        self.assertGreaterEqual(after["blocks"] - freed["blocks"], 9000)

    def test_mem_is_told_from_obj(self):
        """A float is obj's alone; so is a list, but its items are mem's."""
        kept = [None] * 5000
        counted = []
        for make in (float, lambda i: [i]):
            before = hakmem_py.stats()
            for i in range(5000):
                kept[i] = make(i)
            after = hakmem_py.stats()
            counted.append([after[name]["tiny_allocs"]
                            - before[name]["tiny_allocs"]
                            for name in ("obj", "mem")])
        for obj, mem in counted:
            self.assertTrue(4500 <= obj < 11000, counted)
        self.assertLess(counted[0][1], 500, counted)
        self.assertTrue(4500 <= counted[1][1] < 6000, counted)

    def test_larger_blocks_are_counted(self):
        before = hakmem_py.stats()
        kept = [bytes(size) for size in (2000, 60000, 200000, 5000000)]
        after = hakmem_py.stats()
        del kept
        freed = hakmem_py.stats()
        if before["lanes"] == "all":
            self.assertGreaterEqual(
                after["obj"]["larger_allocs"]
                - before["obj"]["larger_allocs"], 4)
            self.assertGreater(
                after["live_bytes"] - freed["live_bytes"], 5200000)
        else:
            self.assertGreaterEqual(
                after["obj"]["fallback_large"]
                - before["obj"]["fallback_large"], 4)

    def test_larger_blocks_of_mem(self):
        self.says("""
            import hakmem_py
            before = hakmem_py.stats()["mem"]
            zeros = bytes(2000)
            kept = [list(zeros) for i in range(1000)]
            after = hakmem_py.stats()["mem"]
            larger = after["larger_allocs"] - before["larger_allocs"]
            assert 1000 <= larger < 1100
            assert after["tiny_allocs"] - before["tiny_allocs"] < 500
            print("fine")
        """, env={"HAKMEM_PYTHON_LANES": "all"})

    def test_the_peak_is_seen_as_it_passes(self):
        self.says("""
            import hakmem_py
            kept = [bytes(200) for i in range(200000)]
            del kept
            assert hakmem_py.stats()["peak_bytes"] > 40 << 20
            print("fine")
        """)

    def test_memory_held_and_given_back(self):
        before = hakmem_py.stats()
        kept = [bytes(200) for i in range(100000)]
        full = hakmem_py.stats()
        del kept
        hakmem_py.trim()
        after = hakmem_py.stats()
        self.assertGreater(full["held_bytes"], full["live_bytes"])
        self.assertGreater(full["held_bytes"] - after["held_bytes"], 15 << 20)
        self.assertGreater(after["purged_bytes"] - before["purged_bytes"],
                           15 << 20)

    def test_calls_are_the_sum(self):
        stats = hakmem_py.stats()
        for name in ("obj", "mem", "raw"):
            domain = stats[name]
            self.assertEqual(
                domain["calls"],
                domain["tiny_allocs"] + domain["larger_allocs"]
                + domain["fallback_large"] + domain["fallback_memory"]
                + domain["fallback_off"])

    def test_old_names_of_figures(self):
        """Read for one version more."""
        stats = hakmem_py.stats(classes=True)
        self.assertEqual(stats["returned_bytes"], stats["purged_bytes"])
        for name in ("obj", "mem", "raw"):
            domain = stats[name]
            for old, new in (("tiny", "tiny_allocs"),
                             ("larger", "larger_allocs"),
                             ("foreign", "foreign_frees"),
                             ("refused", "limit_refusals"),
                             ("limit_refused", "limit_refusals")):
                self.assertEqual(domain[old], domain[new])
            for reason, count in domain["fallback"].items():
                self.assertEqual(count, domain["fallback_" + reason])
        for one in stats["classes"]:
            self.assertEqual(one["calls"], one["tiny_allocs"])

    def test_classes(self):
        self.assertNotIn("classes", hakmem_py.stats())
        kept = [float(i) for i in range(3000)]
        classes = hakmem_py.stats(classes=True)["classes"]
        sizes = [one["size"] for one in classes]
        self.assertEqual(sizes, sorted(set(sizes)))
        self.assertEqual((sizes[0], sizes[-1]), (16, 1024))
        blocks = {one["size"]: one["blocks"] for one in classes}
        self.assertGreaterEqual(blocks[32], 3000)
        del kept

    def test_allocated_blocks(self):
        before = hakmem_py.allocated_blocks()
        kept = [object() for i in range(1000)]
        self.assertGreaterEqual(hakmem_py.allocated_blocks(), before + 1000)
        del kept
        self.assertLess(hakmem_py.allocated_blocks(), before + 1000)

    def test_trim(self):
        kept = [bytes(100) for i in range(300000)]
        del kept
        self.assertGreater(hakmem_py.trim(), 20 << 20)
        self.assertLess(hakmem_py.stats()["resident_bytes"], 40 << 20)

    def test_version(self):
        self.assertRegex(hakmem_py.__version__, r"^\d+\.\d+\.\d+$")

    def test_unknown_attribute(self):
        with self.assertRaises(AttributeError):
            hakmem_py.no_such_thing


class Switches(Case):
    def test_off_and_on(self):
        self.says("""
            from churn import churn
            import hakmem_py
            kept = ["%d" % i for i in range(10000)]
            hakmem_py.disable()
            assert hakmem_py.enabled is False
            assert "disable" in hakmem_py.reason
            before = hakmem_py.stats()
            more = ["%d" % i for i in range(10000)]
            after = hakmem_py.stats()
            assert after["obj"]["tiny_allocs"] == before["obj"]["tiny_allocs"]
            assert after["obj"]["fallback_off"] > 10000
            del kept
            assert hakmem_py.stats()["blocks"] < before["blocks"] - 9000
            churn()
            assert hakmem_py.enable() is True
            assert hakmem_py.enabled and hakmem_py.reason is None
            before = hakmem_py.stats()["obj"]["foreign_frees"]
            del more
            assert hakmem_py.stats()["obj"]["foreign_frees"] - before > 9000
            churn()
            print("fine")
        """)

    def test_each_set_of_domains(self):
        for domains in (["obj"], ["mem"], ["raw"], ["obj", "raw"],
                        ["obj", "mem", "raw"]):
            self.says(f"""
                import threading
                from churn import churn
                import hakmem_py
                churn()
                assert hakmem_py.enable({domains}) is True
                stats = hakmem_py.stats()
                on = [n for n in ("obj", "mem", "raw") if stats[n]["enabled"]]
                assert on == {domains}, on
                churn()
                thread = threading.Thread(target=churn)
                thread.start()
                thread.join()
                after = hakmem_py.stats()
                for name in on:
                    assert after[name]["calls"] > stats[name]["calls"], name
                churn()
                print("fine")
            """)

    def test_no_such_domain(self):
        with self.assertRaisesRegex(ValueError, "'tiny'.*obj, mem, raw"):
            hakmem_py.enable(["tiny"])

    def test_one_domain_as_a_string(self):
        self.says("""
            import hakmem_py
            hakmem_py.enable("obj")
            assert hakmem_py.stats()["mem"]["enabled"] is False
            print("fine")
        """)


class Environment(Case):
    def domains(self, value):
        result = python("""
            import hakmem_py
            stats = hakmem_py.stats()
            print(*[n for n in ("obj", "mem", "raw") if stats[n]["enabled"]])
        """, env={"HAKMEM_PYTHON": value})
        return result.stdout.split(), result.stderr

    def test_words(self):
        for word, wanted in (("default", ["obj", "mem"]), ("off", []),
                             ("obj", ["obj"]), ("mem", ["mem"]),
                             ("raw", ["raw"]), ("all", ["obj", "mem", "raw"]),
                             ("", ["obj", "mem"])):
            self.assertEqual(self.domains(word), (wanted, ""), word)

    def test_nonsense(self):
        domains, errors = self.domains("nonsense")
        self.assertEqual(domains, ["obj", "mem"])
        self.assertEqual(errors.count("\n"), 1, errors)
        for word in ("HAKMEM_PYTHON=nonsense", "default off obj mem raw all"):
            self.assertIn(word, errors)

    def test_off_says_why(self):
        self.says("import hakmem_py; print(hakmem_py.enabled,"
                  " hakmem_py.reason)", env={"HAKMEM_PYTHON": "off"},
                  wanted="False HAKMEM_PYTHON=off")

    def test_lanes(self):
        for word, wanted in (("tiny", "tiny"), ("all", "all"),
                             ("default", "tiny")):
            self.says("""
                from churn import churn
                import hakmem_py
                churn()
                stats = hakmem_py.stats()
                large = stats["obj"]["fallback_large"]
                print(stats["lanes"], large > 1000,
                      stats["obj"]["larger_allocs"] > 0)
            """, env={"HAKMEM_PYTHON_LANES": word},
                wanted=f"{wanted} {wanted == 'tiny'} {wanted == 'all'}")

    def test_nonsense_lanes(self):
        result = python("import hakmem_py", env={"HAKMEM_PYTHON_LANES": "x"})
        self.assertRegex(result.stderr, "HAKMEM_PYTHON_LANES=x.*default tiny")


class Limit(Case):
    def test_below_what_is_in_use(self):
        for bytes in (0, 1000):
            with self.assertRaisesRegex(ValueError, "in use"):
                hakmem_py.limit(bytes)

    def test_bad_values(self):
        for limit in (hakmem_py.limit, hakmem_py.limit_served,
                      hakmem_py.limit_memory):
            with self.assertRaisesRegex(ValueError, limit.__name__
                                        + ".*negative"):
                limit(-1)
            for value in ("1M", 1.5, [1]):
                with self.assertRaisesRegex(TypeError, limit.__name__
                                            + ".*whole number of bytes"):
                    limit(value)
        self.assertIsNone(hakmem_py.limit_served(1 << 70))
        self.assertIsNone(hakmem_py.limit_served(None))
        self.assertIsNone(hakmem_py.stats()["limit"])

    def test_memory_error_and_on(self):
        self.says("""
            from churn import churn
            import hakmem_py
            assert hakmem_py.limit_served(50 << 20) is None
            for round in range(3):
                kept = []
                try:
                    while True:
                        kept.append({"n": len(kept)})
                    print("no limit")
                except MemoryError:
                    pass
                live = hakmem_py.stats()["live_bytes"]
                assert live <= (50 << 20) + (64 << 10), live
                assert len(kept) > 50000
                del kept
            churn()
            found = hakmem_py.stats()
            assert found["limit_of"] == "served"
            refusals = [found[n]["limit_refusals"] for n in ("obj", "mem")]
            assert sum(refusals) >= 3, refusals
            assert hakmem_py.limit(None) == 50 << 20
            kept = [bytes(1000) for i in range(100000)]
            print("fine")
        """)

    def test_what_is_in_use_counts(self):
        """It is part of what may be in use, and when it goes there is room."""
        self.says("""
            import hakmem_py
            kept = [{"n": i} for i in range(80000)]
            live = hakmem_py.stats()["live_bytes"]
            assert live > 10 << 20, live
            hakmem_py.limit(live + (2 << 20))
            for round in range(2):
                more = []
                try:
                    while len(more) < 60000:
                        more.append({"n": len(more)})
                except MemoryError:
                    pass
                assert (len(more) == 60000) is (round == 1), len(more)
                more = kept = None
            print("fine")
        """)

    def test_larger_blocks(self):
        self.says("""
            import hakmem_py
            hakmem_py.limit(50 << 20)
            for size in (200 << 20, 49 << 20):
                try:
                    bytes(size)
                    print("was given", size)
                except MemoryError:
                    pass
            kept = bytearray()
            try:
                while True:
                    kept += bytes(100000)
            except MemoryError:
                pass
            assert 10 << 20 < len(kept) < 50 << 20, len(kept)
            print("fine")
        """, env={"HAKMEM_PYTHON_LANES": "all"},
            wanted="was given 51380224\nfine")

    def test_every_domain(self):
        self.says("""
            from churn import churn
            import hakmem_py
            hakmem_py.limit(100 << 20)
            churn()
            kept = []
            try:
                while True:
                    kept.append([0] * 1000)
            except MemoryError:
                kept = None
            churn()
            hakmem_py.limit(None)
            print("fine")
        """, env={"HAKMEM_PYTHON": "all", "HAKMEM_PYTHON_LANES": "all"})


if __name__ == "__main__":
    unittest.main()
