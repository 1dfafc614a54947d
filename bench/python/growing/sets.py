"""Sets and frozensets of words and tuples: united, cut, dropped."""
import sys

ROUNDS = 2


def work(i):
    words = {f"w{n * 7 % 400_000}" for n in range(250_000)}
    others = {f"w{n * 11 % 400_000}" for n in range(250_000)}
    both, either = words & others, words | others
    points = {(n % 701, n // 701) for n in range(200_000)}
    near = {(x + 1, y) for x, y in points} - points
    groups = {frozenset((n, n + 1, n % 17)) for n in range(60_000)}
    return len(both) + len(either) + len(near) + len(groups) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
