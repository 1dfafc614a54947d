"""A cache in front of a slow function: OrderedDict, lru_cache, dates."""
import collections
import datetime
import functools
import sys

ROUNDS = 32


class Cache:
    def __init__(self, size):
        self.size, self.items = size, collections.OrderedDict()

    def get(self, key, make):
        if key in self.items:
            self.items.move_to_end(key)
            return self.items[key]
        value = self.items[key] = make(key)
        if len(self.items) > self.size:
            self.items.popitem(last=False)
        return value


@functools.lru_cache(maxsize=512)
def day(number, zone):
    date = datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=number)
    return date.isoformat() + zone


def page(key):
    return {"key": key, "body": f"<p>{key[0]}</p>" * 4,
            "links": [f"/{key[1]}/{n}" for n in range(5)]}


def work(i):
    cache, total, state = Cache(700), 0, 12345 + i
    for _ in range(9000):
        state = (state * 1103515245 + 12345) % 2**31
        key = (state >> 16) % 1500
        total += len(cache.get((key, key % 11), page)["body"])
        total += len(day(key, f"+{key % 3:02}:00"))
    return total


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
