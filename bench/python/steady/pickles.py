"""pickle: records to bytes and back, as a cache or a queue of tasks does."""
import pickle
import sys

ROUNDS = 225


class Record:
    def __init__(self, number):
        self.number = number
        self.name = f"record {number}"
        self.tags = {f"tag{number % 7}", "all"}
        self.values = [number * 0.5, number, None, number % 2 == 0]


def work(i):
    records = [Record(n) for n in range(1000)]
    text = pickle.dumps(records, protocol=4)
    back = pickle.loads(text)
    table = {record.name: (record.number, record.values) for record in back}
    again = pickle.loads(pickle.dumps(table, protocol=pickle.HIGHEST_PROTOCOL))
    return sum(number for number, _ in again.values()) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
