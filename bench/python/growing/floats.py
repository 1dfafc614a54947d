"""Lists of floats: series made, combined, sorted, reduced."""
import sys

ROUNDS = 5


def work(i):
    wave = [n * 0.001 % 1.7 for n in range(400_000)]
    smooth = [(a + b) * 0.5 for a, b in zip(wave, wave[1:])]
    scaled = list(map(lambda x: x * 3.25 - 1.0, smooth))
    pairs = list(zip(wave, scaled))
    top = sorted(pairs, reverse=True)[:1000]
    total = sum(a * b for a, b in top)
    return int(total) + len(pairs) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
