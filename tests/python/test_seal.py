"""The fork seal: parent and children leave the pages they share alone."""
import sys
import tempfile
import unittest

from support import Case


class Seal(Case):
    def test_work_goes_on(self):
        for domains in ("default", "all"):
            for lanes in ("tiny", "all"):
                self.says("""
                    import hakmem_py
                    from churn import churn
                    kept = [[str(i), bytes(i % 3000)] for i in range(20000)]
                    before = hakmem_py.stats()["live_bytes"]
                    for round in range(3):
                        hakmem_py.seal()
                        churn()
                        assert kept == [[str(i), bytes(i % 3000)]
                                        for i in range(20000)]
                        del kept[::2], kept[1:50]
                        hakmem_py.trim()
                        kept = [[str(i), bytes(i % 3000)]
                                for i in range(20000)]
                    hakmem_py.freeze()
                    churn()
                    del kept
                    hakmem_py.trim()
                    live = hakmem_py.stats()["live_bytes"]
                    assert live < before / 4, (live, before)
                    print("fine")
                """, env={"HAKMEM_PYTHON": domains,
                          "HAKMEM_PYTHON_LANES": lanes})

    def children(self, how, env=None):
        """MB that a child makes its own while it allocates."""
        self.says(f"""
            import os
            import sys
            import hakmem_py
            def private():
                with open("/proc/self/smaps_rollup") as rollup:
                    return sum(int(line.split()[1]) for line in rollup
                               if line.startswith("Private"))
            kept = [(i, "a string of some length " + str(i))
                    for i in range(400000)]
            for i in range(0, len(kept), 10):
                kept[i] = None
            {how}
            out, back = os.pipe()
            child = os.fork()
            if child == 0:
                before = private()
                more = [(i, "another string of length " + str(i))
                        for i in range(20000)]
                assert kept[3] == (3, "a string of some length 3")
                os.write(back, str((private() - before) // 1024).encode())
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            with open({self.place!r}, "w") as file:
                file.write(os.read(out, 100).decode())
            print("fine")
        """, env=env)
        with open(self.place, encoding="ascii") as file:
            return int(file.read())

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.place = self.directory.name + "/megabytes"

    def test_freeze_hides_objects_from_the_collector(self):
        self.says("""
            import gc
            import hakmem_py
            kept = [[i] for i in range(1000)]
            hakmem_py.freeze()
            assert gc.get_freeze_count() >= 1000
            print("fine")
        """)

    def test_children_keep_to_themselves(self):
        """20,000 objects take 3 MB; in the parent's holes ten times that."""
        for how in ("hakmem_py.freeze()", "import gc; gc.freeze()\n"
                    "            hakmem_py.seal()"):
            self.assertLess(self.children(how), 10)
            self.assertLess(self.children(
                how, env={"HAKMEM_PYTHON_SEAL": "off"}), 10)
        self.assertLess(self.children("import gc; gc.freeze()"), 10)
        self.assertGreater(self.children("import gc; gc.freeze()",
                                         env={"HAKMEM_PYTHON_SEAL": "off"}), 12)

    @unittest.skipIf(sys.version_info < (3, 12), "one GIL up to 3.11")
    def test_children_with_several_gils(self):
        # CPython itself does not survive a fork beside another interpreter.
        second = """
            from subs import sub
            sub.destroy(sub.create())
            assert hakmem_py.stats()["shared"]
            import gc
            gc.freeze()"""
        self.assertLess(self.children(second), 10)
        self.assertGreater(
            self.children(second, env={"HAKMEM_PYTHON_SEAL": "off"}), 12)


if __name__ == "__main__":
    unittest.main()
