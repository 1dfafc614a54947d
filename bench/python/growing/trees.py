"""A tree of objects, a quarter of a million nodes: built, changed, let go."""
import sys

ROUNDS = 3


class Node:
    __slots__ = ("key", "left", "right", "data")

    def __init__(self, key):
        self.key, self.left, self.right = key, None, None
        self.data = [key]


def build(low, high):
    if low >= high:
        return None
    middle = (low + high) // 2
    node = Node(middle)
    node.left = build(low, middle)
    node.right = build(middle + 1, high)
    return node


def visit(node):
    if node is None:
        return 0
    node.data.append(node.key + 1)
    return visit(node.left) + visit(node.right) + len(node.data)


def work(i):
    root = build(0, 250_000)
    total = visit(root)
    root.left = build(0, 60_000)
    return total + visit(root.left) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
