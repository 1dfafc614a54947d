"""A table of some MB read from csv: rows as dicts, grouped, dropped."""
import csv
import io
import sys

ROUNDS = 3


def sheet(count):
    return "id,name,town,cents,day\n" + "".join(
        f"{n},name {n % 5003},town {n % 97},{n * 37 % 100_003},{n % 366}\n"
        for n in range(count))


def work(i):
    rows = list(csv.DictReader(io.StringIO(sheet(120_000))))
    groups = {}
    for row in rows:
        groups.setdefault((row["town"], row["day"]), []).append(row)
    sums = {key: sum(int(row["cents"]) for row in part)
            for key, part in groups.items()}
    return sum(sums.values()) + len(groups) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
