"""Text put together piece by piece, to megabytes, then taken apart."""
import io
import sys

ROUNDS = 5


def work(i):
    pieces = [f"{n}:{n * n % 9973};" for n in range(300_000)]
    text = "".join(pieces)
    del pieces
    out = io.StringIO()
    data = bytearray()
    for part in text.split(";"):
        out.write(part[::-1])
        data += part.encode()
    grown = ""
    for n in range(100_000):
        grown += "line of text\n"
    lines = grown.splitlines()
    return len(out.getvalue()) + len(data) + len(lines) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
