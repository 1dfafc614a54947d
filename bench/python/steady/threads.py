"""Threads under the one lock: objects made in one die in another."""
import queue
import sys
import threading

ROUNDS = 165


def make(out, number):
    for n in range(60):
        out.put([{"number": number, "at": k, "name": f"{number}.{n}.{k}"}
                 for k in range(25)])
    out.put(None)


def take(source, makers, sums):
    total = 0
    while makers:
        items = source.get()
        if items is None:
            makers -= 1
            continue
        total += sum(item["at"] + len(item["name"]) for item in items)
    sums.append(total)


def work(i):
    between, sums = queue.Queue(16), []
    makers = [threading.Thread(target=make, args=(between, n))
              for n in range(4)]
    taker = threading.Thread(target=take, args=(between, len(makers), sums))
    for thread in [taker, *makers]:
        thread.start()
    for thread in [taker, *makers]:
        thread.join()
    return sums[0] + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
