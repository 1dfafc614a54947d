"""Work for an allocator, with its contents checked."""
import gc


def churn(n=2000):
    """Makes objects of every size, looks at them and lets them go."""
    kept = []
    for i in range(n):
        kept.append({"a": i, "b": [i] * (i % 300), "c": "x" * (i % 5000)})
        kept.append((i, bytes(i % 3000), float(i)))
    for i in range(n):
        d, t = kept[2 * i], kept[2 * i + 1]
        assert d["a"] == i and len(d["b"]) == i % 300, i
        assert d["c"] == "x" * (i % 5000) and len(t[1]) == i % 3000, i
    big = [0]
    while len(big) < 500000:
        big += big
    assert big.count(0) == len(big)
    gc.collect()
