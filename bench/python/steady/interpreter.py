"""Source text is tokenized, parsed, compiled and run: what imports do."""
import ast
import sys

ROUNDS = 64

SOURCE = "\n".join(
    f"def step{n}(a, b={n}, *rest, **named):\n"
    f"    total = [a * k + b for k in range({n % 5 + 2}) if k != {n % 3}]\n"
    f"    return {{'sum': sum(total), 'name': f'step {{a}}', 'b': (b, rest)}}\n"
    for n in range(60))


class Renamer(ast.NodeTransformer):
    def visit_Name(self, node):
        if node.id == "total":
            return ast.copy_location(ast.Name("found", node.ctx), node)
        return node


def work(i):
    tree = ast.fix_missing_locations(Renamer().visit(ast.parse(SOURCE)))
    scope = {}
    exec(compile(tree, "<steps>", "exec"), scope)
    total = sum(scope[f"step{n}"](i + n)["sum"] for n in range(60))
    return total + sum(1 for _ in ast.walk(tree))


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
