"""Threads that allocate and free while the GIL's heap is lent all the time.

    python loans.py SECONDS

For a build with HAK_PY_EAGER, see make check-python-loans: a heap that two have
at once is broken within seconds.
"""
import os
import sys
import threading
import time

import hakmem_py

assert hakmem_py.enabled, hakmem_py.reason
end = time.monotonic() + float(sys.argv[1])
sys.setswitchinterval(0.00005)


def work(sizes):
    kept = [None] * 512
    rounds = 0
    while time.monotonic() < end:
        for size in sizes:
            made = [bytes([rounds % 256]) * size for _ in range(400)]
            kept[rounds % 512] = made[::2]
            del made
        old = kept[rounds * 7 % 512] or []
        assert all(one.count(one[0]) == len(one) for one in old)
        rounds += 1
        if rounds % 10 == 0:
            time.sleep(0.0001)
    done.append(rounds)


done = []
threads = [threading.Thread(target=work, args=(sizes,))
           for sizes in ((1, 30, 100, 200, 400, 800), (3, 33, 96, 500))]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert len(done) == len(threads), "a thread failed"
ours = [task for task in os.listdir("/proc/self/task")
        if open(f"/proc/self/task/{task}/comm").read().strip() == "hakmem"]
print(f"fine: {sum(done)} rounds, {len(ours)} thread at work")
