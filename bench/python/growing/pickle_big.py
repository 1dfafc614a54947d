"""pickle: a state of hundreds of thousands of objects, out and in."""
import pickle
import sys

ROUNDS = 3


class Entry:
    def __init__(self, number):
        self.number = number
        self.label = f"entry {number}"
        self.points = (number * 0.5, number + 1)


def work(i):
    state = {n: Entry(n) for n in range(100_000)}
    text = pickle.dumps(state, protocol=4)
    del state
    back = pickle.loads(text)
    return sum(entry.points[1] for entry in back.values()) + len(text) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
