"""json: a document of some 17 MB is read, summed up, and dropped."""
import json
import sys

ROUNDS = 2


def document(count):
    return json.dumps([
        {"id": n, "name": f"name {n}", "score": n * 0.37, "tags": ["a", str(n)],
         "place": {"x": n % 1000, "y": n // 1000, "on": n % 2 == 0}}
        for n in range(count)])


def work(i):
    text = document(140_000)
    rows = json.loads(text)
    total = sum(row["place"]["x"] + len(row["tags"][1]) for row in rows)
    return total + len(text) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
