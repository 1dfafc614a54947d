"""A service for `make demo`'s profile: answers requests from a cache of 2,000 pages,
and keeps a log that nobody empties. Which line holds the memory?"""
import collections
import json

cache = collections.OrderedDict()
log = []


def render(number):
    return {"number": number, "lines": [f"line {number} {i}"
                                        for i in range(30)]}


def page(number):
    if number not in cache:
        cache[number] = render(number)
        if len(cache) > 2000:
            cache.popitem(last=False)
    return cache[number]


def remember(number, size):
    log.append(f"GET /pages/{number} 200 {size} bytes {'-' * 40}")


def answer(number):
    text = json.dumps(page(number % 5000))
    remember(number, len(text))
    return text


if __name__ == "__main__":
    total = sum(len(answer(number * 7919)) for number in range(60000))
    print(f"{total} bytes in {len(log)} answers")
