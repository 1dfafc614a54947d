"""Strings: formatted, split, joined, replaced, encoded."""
import sys

ROUNDS = 152


def work(i):
    lines = []
    for n in range(2500):
        name = f"user-{n:06d}"
        line = "{:<14}|{:>10.3f}|{}".format(name, n / 7, n % 13)
        line += "|%s|%08x" % (name.upper(), n * 2654435761 % 2**32)
        lines.append(line)
    text = "\n".join(lines)
    total = 0
    for line in text.split("\n"):
        fields = [field.strip() for field in line.split("|")]
        total += len(" ".join(fields).title().replace("User", "u"))
        total += len(line.encode().decode("ascii").partition("|")[2])
    return total + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
