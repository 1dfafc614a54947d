"""Generators that feed each other: a pipeline of small lazy steps."""
import itertools
import sys

ROUNDS = 98


def numbers(count):
    for n in range(count):
        yield n, n * n % 1009


def pairs(source):
    for (a, x), (b, y) in zip(source, source):
        yield {"low": min(x, y), "high": max(x, y), "at": (a, b)}


def chosen(source):
    for pair in source:
        if pair["low"] % 3:
            yield [pair["low"], pair["high"], *pair["at"]]


def walk(depth):
    if depth:
        yield from walk(depth - 1)
        yield depth
        yield from walk(depth - 1)


def work(i):
    total = sum(sum(row) for row in chosen(pairs(numbers(20000))))
    total += sum(walk(11))
    for _, group in itertools.groupby(numbers(6000), lambda pair: pair[1] >> 7):
        total += sum(1 for _ in group)
    return total + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
