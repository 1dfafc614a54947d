"""Memory goes back: 2M small objects, 90 % deleted in runs of 1,000, then all.

Prints MB resident when full, after each deletion the least within 3 s, and
how long that took. Stands for a cache that expires.
"""
import random
import sys
import time

COUNT = 2_000_000
RUN = 1000
WAIT = 3.0


class Entry:
    __slots__ = ("key", "value")

    def __init__(self, number):
        self.key, self.value = f"key {number}", number * 0.5


def make(number):
    kind = number % 8
    if kind == 0:
        return Entry(number)
    if kind == 1:
        return {"id": number, "half": number // 2}
    if kind == 2:
        return [number, number + 1, number + 2]
    if kind == 3:
        return (number, float(number), "shared")
    if kind == 4:
        return f"a line of text with a number in it: {number}"
    if kind == 5:
        return b"x" * (number % 400)
    if kind == 6:
        return "y" * (number % 300)
    return {number: {number + 1}}


def resident():
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


def settled():
    """(least MB within 3 s, seconds until then); some light activity."""
    began = time.monotonic()
    least, at = resident(), 0.0
    while (now := time.monotonic() - began) < WAIT:
        time.sleep(0.05)
        activity = [str(n) for n in range(100)]
        del activity
        if (size := resident()) < least - 0.5:
            least, at = size, now
    return least, at


def main(count):
    objects = [make(number) for number in range(count)]
    print(f"full_mb={resident():.0f}")
    chance = random.Random(4)
    kept = 0
    for start in range(0, count, RUN):
        if chance.random() < 0.1:
            kept += RUN
        else:
            objects[start:start + RUN] = [None] * RUN
    least, at = settled()
    print(f"kept={kept} tenth_mb={least:.0f} tenth_s={at:.1f}")
    del objects
    least, at = settled()
    print(f"none_mb={least:.0f} none_s={at:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
