"""A service in Python of which it is known what is the matter with it: as plant.c.

    python3 -m hakmem_py plant.py leak|cache|fragment

Says "up", and goes on until it is killed.
"""
import random
import sys
import threading
import time

slots, kept = {}, []


def text(least, most):
    return b"x" * random.randrange(least, most)


def replace(count, times):
    for _ in range(times):
        slots[random.randrange(count)] = text(16, 900)


def leaks(count):
    for _ in range(count):
        kept.append(text(500, 600))


def grow(count):
    for i in range(count):
        slots[i] = text(16, 900)


def scatter(count):
    for i in range(count):
        slots[i] = text(100, 200)
    for i in range(count):
        if i % 16:
            del slots[i]


def leak():
    grow(1000)
    leaks(20000)
    return lambda: (replace(1000, 2000), leaks(105))


def cache():
    grow(40000)
    return lambda: replace(40000, 1000)


def fragment():
    scatter(300000)
    return lambda: replace(100, 100)


def serve(work):
    while True:
        work()
        time.sleep(0.02)


def main():
    work = {"leak": leak, "cache": cache, "fragment": fragment}[sys.argv[1]]()
    for _ in range(20):
        work()
    print("up", flush=True)
    threading.Thread(target=serve, args=(work,), daemon=True).start()
    serve(lambda: None)


main()
