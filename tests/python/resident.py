"""How much of this process is resident, and objects to make it grow.

It is a process that has little to do: it opens a file now and then.
"""
import time


def resident(process="self"):
    """MB."""
    with open(f"/proc/{process}/statm") as statm:
        return int(statm.read().split()[1]) * 4096 >> 20


def settled(most, seconds):
    """Waits until at most `most` MB are resident; what is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and resident() > most:
        time.sleep(0.02)
    return resident()


def objects(n):
    """n small objects of several kinds."""
    makers = (lambda i: {"a": i}, lambda i: "str%d" % i * 3,
              lambda i: [i, i + 1], lambda i: (i, str(i)), float)
    return [makers[i % 5](i) for i in range(n)]
