"""Workers of a prefork server: 4 children of a parent with 10 % holes.

    fork_children.py [--freeze | --seal] [--idle]

The parent holds some 320 MB of small objects, a tenth of them deleted at
random. Each child serves 300 requests, each of which makes objects and keeps
a quarter of them (10 MB in all), then says how much of its memory is its own (Private_Dirty) and how
many page faults the requests took. --freeze: the parent calls
hakmem_py.freeze() before it forks (without the package gc.freeze()), --seal:
hakmem_py.seal() alone. --idle: the children only sleep.
"""
import gc
import os
import random
import resource
import sys
import time

OBJECTS = 1_150_000
CHILDREN = 4
REQUESTS = 300


def hold(count):
    """Objects that live as long as the parent, with holes between them."""
    table = [{"id": number, "name": f"item {number}"} if number % 2 else
             (number, f"text {number}", [number]) for number in range(count)]
    chance = random.Random(7)
    return [item for item in table if chance.random() >= 0.1]


def serve(table, number, kept):
    """One request: reads, makes objects, keeps some."""
    made = [{"n": n, "text": f"{number}/{n}", "of": [n, number]}
            for n in range(400)]
    kept.append(made[::4])
    return sum(len(item["text"]) for item in made) + len(table)


def private_kb():
    total = 0
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(("Private_Dirty", "Private_Clean")):
                total += int(line.split()[1])
    return total


def child(table, idle):
    """What a worker does; (private KB, faults)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = []
    if idle:
        time.sleep(1.0)
    else:
        for number in range(REQUESTS):
            serve(table, number, kept)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return private_kb(), faults


def start(table, idle):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        private, faults = child(table, idle)
        os.write(writer, b"%d %d\n" % (private, faults))
        # Stay until all have measured: what is shared must stay shared.
        os.close(writer)
        time.sleep(4.0)
        os._exit(0)
    os.close(writer)
    return reader


def main(options):
    table = hold(OBJECTS)
    package = sys.modules.get("hakmem_py")
    if "--freeze" in options:
        if hasattr(package, "freeze"):
            package.freeze()
        else:
            gc.collect()
            gc.freeze()
    elif "--seal" in options and hasattr(package, "seal"):
        package.seal()
    resident = private_kb() / 1024
    readers = [start(table, "--idle" in options) for _ in range(CHILDREN)]
    answers = []
    for reader in readers:
        with os.fdopen(reader) as pipe:
            answers.append([int(part) for part in pipe.read().split()])
    for _ in readers:
        os.wait()
    private = sum(answer[0] for answer in answers) / CHILDREN / 1024
    faults = sum(answer[1] for answer in answers) / CHILDREN
    print(f"parent_mb={resident:.0f} child_mb={private:.1f}"
          f" child_faults={faults:.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
