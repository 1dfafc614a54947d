"""dataclasses: made, compared, replaced, turned into dictionaries."""
import dataclasses
import sys

ROUNDS = 112


@dataclasses.dataclass(frozen=True, order=True)
class Price:
    cents: int
    unit: str = "EUR"


@dataclasses.dataclass
class Item:
    name: str
    price: Price
    tags: list = dataclasses.field(default_factory=list)
    extra: dict = dataclasses.field(default_factory=dict)


def work(i):
    items = [Item(f"item {n}", Price(n * 37 % 5003), ["new", str(n)])
             for n in range(1500)]
    items.sort(key=lambda item: item.price)
    cheap = [dataclasses.replace(item, extra={"cheap": True})
             for item in items if item.price < Price(2500)]
    rows = [dataclasses.asdict(item) for item in cheap[:400]]
    prices = {item.price for item in items}
    return sum(row["price"]["cents"] for row in rows) + len(prices) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
