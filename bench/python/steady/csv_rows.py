"""csv: rows are read, grouped, written out again."""
import csv
import io
import sys

ROUNDS = 158


def sheet():
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "name", "city", "price", "count", "note"])
    for n in range(3000):
        writer.writerow([n, f"name {n % 311}", f"city {n % 41}", n * 0.25,
                         n % 9, 'a "quoted" note' if n % 5 else ""])
    return out.getvalue()


SHEET = sheet()


def work(i):
    groups = {}
    for row in csv.DictReader(io.StringIO(SHEET)):
        entry = groups.setdefault(row["city"], [0, 0.0, []])
        entry[0] += int(row["count"])
        entry[1] += float(row["price"])
        entry[2].append(row["name"])
    out = io.StringIO()
    writer = csv.writer(out)
    for city, (count, price, names) in sorted(groups.items()):
        writer.writerow([city, count, f"{price:.2f}", names[i % len(names)]])
    return len(out.getvalue()) + sum(g[0] for g in groups.values())


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
