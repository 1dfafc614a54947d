"""The planted leak, 20 times, at the default rate after 1 GB of allocations: not
found by discovery, `make check-nginx-profile` runs it.
"""
import math
import unittest

from profile_case import ProfileCase, SIGMAS, sigma

TIMES, ROUNDS, RATE = 20, 1024, 512 << 10


class Planted(ProfileCase):

    def test_every_time(self):
        ratios = []
        for _ in range(TIMES):
            nginx = self.sampled("512k")
            self.plant(nginx, ROUNDS, at_once=32)
            ratios.append(self.agrees(nginx, RATE))
            found = self.collapsed(nginx)
            kept = {name: self.told(found, name)
                    for name in ("leak", "cache", "fragment")}
            self.assertEqual(max(kept, key=kept.get), "leak", kept)
            leak = self.truth(nginx)["leak"]
            nginx.stop()
        one = sigma(leak.live_blocks, leak.size, RATE) / leak.live
        mean = sum(ratios) / TIMES
        self.assertAlmostEqual(mean, 1, delta=SIGMAS * one / math.sqrt(TIMES))
        print(f"leak, told / true: mean {mean:.3f}, from {min(ratios):.3f} to"
              f" {max(ratios):.3f} (one sigma: {one:.3f})")


if __name__ == "__main__":
    unittest.main()
