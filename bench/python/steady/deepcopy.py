"""copy.deepcopy of configuration-like documents, then a change to each."""
import copy
import sys

ROUNDS = 137

PATTERN = {
    "service": {"name": "orders", "ports": [8080, 8443], "on": True},
    "limits": {f"limit{n}": {"soft": n * 10, "hard": n * 20}
               for n in range(12)},
    "routes": [{"path": f"/v1/item/{n}", "methods": ["GET", "PUT"],
                "match": (n, n + 1, str(n))} for n in range(20)],
}


def work(i):
    total = 0
    for n in range(60):
        made = copy.deepcopy(PATTERN)
        made["service"]["ports"].append(n)
        made["routes"][n % 20]["path"] += "/changed"
        total += len(made["routes"][n % 20]["path"]) + len(made["limits"])
    return total + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
