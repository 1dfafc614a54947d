"""Memory goes back to the system, by itself and when it is asked to."""
import unittest

from support import Case

class Decay(Case):
    def test_all_goes_back(self):
        for lanes in ("tiny", "all"):
            self.says("""
                import hakmem_py
                from resident import objects, resident, settled
                kept = objects(1000000)
                full = resident()
                assert full > 100, full
                kept = None
                left = settled(25, 60)
                assert left <= 25, left
                stats = hakmem_py.stats()
                assert stats["returned_bytes"] > 70 << 20, stats
                print("fine")
            """, env={"HAKMEM_PURGE_DELAY": "200",
                      "HAKMEM_PYTHON_LANES": lanes})

    def test_holes_go_back(self):
        """90 % deleted, in runs of 1000."""
        self.says("""
            import hakmem_py
            from resident import objects, resident, settled
            kept = objects(1000000)
            full = resident()
            for start in range(0, len(kept), 10000):
                for i in range(start, start + 9000):
                    kept[i] = None
            left = settled(full * 55 // 100, 60)
            assert left <= full * 55 // 100, (full, left)
            for start in range(0, len(kept), 10000):
                assert kept[start + 9000] == {"a": start + 9000}
                assert kept[start + 9003] == (start + 9003, str(start + 9003))
            print("fine")
        """, env={"HAKMEM_PURGE_DELAY": "200"})

    def test_larger_blocks_go_back(self):
        self.says("""
            import hakmem_py
            from resident import objects, resident, settled
            kept = [b"x" * size for size in (3000, 30000, 100000, 5000000)
                    for i in range(60000000 // size)]
            full = resident()
            assert full > 200, full
            del kept
            left = settled(30, 60)
            assert left <= 30, left
            print("fine")
        """, env={"HAKMEM_PURGE_DELAY": "200", "HAKMEM_PYTHON_LANES": "all"})

    def test_trim_at_once(self):
        self.says("""
            import hakmem_py
            from resident import objects, resident, settled
            kept = objects(500000)
            full = resident()
            del kept
            assert hakmem_py.trim() > 50 << 20
            assert resident() < 25, resident()
            print("fine")
        """, env={"HAKMEM_PURGE_DELAY": "3600000"})


if __name__ == "__main__":
    unittest.main()
