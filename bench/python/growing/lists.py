"""Lists of hundreds of thousands: appended to, sorted, sliced, dropped."""
import sys

ROUNDS = 3


def work(i):
    rows = []
    for n in range(300_000):
        rows.append((n * 7919 % 300_007, n))
    rows.sort()
    halves = [rows[:150_000], rows[150_000:]]
    small = [[a, b] for a, b in halves[1]]
    parts = [small[at:at + 100] for at in range(0, len(small), 100)]
    while len(rows) > 1000:
        rows.pop()
    return sum(part[0][0] for part in parts) + rows[-1][1] + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
