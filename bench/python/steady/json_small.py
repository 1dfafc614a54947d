"""json: small requests and answers, one after the other, like a web API."""
import json
import sys

ROUNDS = 36


def request(n):
    return {"id": n, "method": "orders/get", "ok": n % 3 == 0,
            "params": {"customer": f"c{n % 301}", "limit": 10 + n % 5,
                       "fields": ["id", "total", "lines"], "from": None},
            "lines": [{"sku": f"s{k}", "count": k + 1, "price": k * 1.25}
                      for k in range(n % 6)]}


def work(i):
    total = 0
    for n in range(1200):
        text = json.dumps(request(n))
        got = json.loads(text)
        answer = {"id": got["id"], "result": {
            "total": sum(line["count"] * line["price"]
                         for line in got["lines"]),
            "customer": got["params"]["customer"]}}
        total += len(json.dumps(answer, sort_keys=True, indent=1))
    return total + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
