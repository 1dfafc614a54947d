"""Dictionaries that grow to hundreds of thousands of entries, and go."""
import sys

ROUNDS = 5


def work(i):
    by_number, by_name = {}, {}
    for n in range(250_000):
        by_number[n * 31] = n + 100_000
        by_name[f"key{n}"] = n
    turned = {value: key for key, value in by_name.items()}
    for n in range(0, 250_000, 2):
        del by_number[n * 31]
    many = [{"n": n, "next": n + 1} for n in range(100_000)]
    return len(by_number) + len(turned[77]) + many[-1]["next"] + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
