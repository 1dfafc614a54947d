"""Graph search: heaps of tuples, sets, paths that are thrown away."""
import heapq
import sys

ROUNDS = 131


def edges(count):
    graph = {n: [] for n in range(count)}
    for n in range(count):
        for k in (3, 7, 31, 97):
            graph[n].append(((n * k + 1) % count, k + n % 5))
    return graph


GRAPH = edges(3000)


def shortest(start):
    best, heap = {}, [(0, start, (start,))]
    while heap:
        cost, node, path = heapq.heappop(heap)
        if node in best:
            continue
        best[node] = (cost, path[-8:])
        for other, more in GRAPH[node]:
            if other not in best:
                heapq.heappush(heap, (cost + more, other, path[-8:] + (other,)))
    return best


def work(i):
    best = shortest(i * 17 % 3000)
    return sum(cost + len(path) for cost, path in best.values())


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
