"""Comprehensions of every kind over rows of tuples."""
import sys

ROUNDS = 179


def work(i):
    rows = [(n, n * n % 1013, f"k{n % 199}") for n in range(8000)]
    table = {key: [] for _, _, key in rows}
    for number, square, key in rows:
        table[key].append((number, square))
    sums = {key: sum(square for _, square in pairs)
            for key, pairs in table.items()}
    kept = [(a + b, a - b) for a, b, _ in rows if (a ^ b) & 1]
    seen = {b for _, b, _ in rows}
    grid = [[x * y % 7 for x in range(30)] for y in range(60)]
    turned = [list(line) for line in zip(*grid)]
    return (sum(sums.values()) + len(kept) + len(seen)
            + sum(map(sum, turned)) + i)


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
