"""decimal, fractions and whole numbers that don't fit a word."""
import decimal
import fractions
import sys

ROUNDS = 368


def work(i):
    cents = decimal.Decimal("0.01")
    total = decimal.Decimal(0)
    for n in range(1, 4000):
        price = decimal.Decimal(n) / 7 * decimal.Decimal("1.19")
        total += price.quantize(cents)
    part = fractions.Fraction(0)
    for n in range(1, 90):
        part += fractions.Fraction(n % 7 + 1, n)
    big, rest = 1, 0
    for n in range(1, 500):
        big = big * n % (2**521 - 1)
        rest ^= big >> (n % 64)
    return (int(total * 100) + part.numerator % 10007 + rest % 10007) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
