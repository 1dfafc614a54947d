"""A template engine: tokens, a tree of nodes, pages rendered from it."""
import html
import re
import sys

ROUNDS = 123

TOKEN = re.compile(r"({{.*?}}|{%.*?%})")
PAGE = ("<h1>{{title}}</h1><ul>{% for items %}<li class='{{kind}}'>{{name}}:"
        " {{price}}</li>{% end %}</ul><p>{{foot}}</p>") * 3


class Text:
    def __init__(self, text):
        self.text = text

    def render(self, scope, out):
        out.append(self.text)


class Value:
    def __init__(self, name):
        self.name = name

    def render(self, scope, out):
        out.append(html.escape(str(scope[self.name])))


class Loop:
    def __init__(self, name, body):
        self.name, self.body = name, body

    def render(self, scope, out):
        for item in scope[self.name]:
            inner = {**scope, **item}
            for node in self.body:
                node.render(inner, out)


def parse(tokens):
    nodes = []
    for token in tokens:
        if token.startswith("{{"):
            nodes.append(Value(token[2:-2]))
        elif token.startswith("{% for"):
            nodes.append(Loop(token[7:-3], parse(tokens)))
        elif token == "{% end %}":
            break
        else:
            nodes.append(Text(token))
    return nodes


def work(i):
    total = 0
    for n in range(40):
        nodes = parse(iter(TOKEN.split(PAGE)))
        scope = {"title": f"Page <{n}>", "foot": "a & b", "items": [
            {"name": f"item {k}", "price": k * 1.5, "kind": f"k{k % 3}"}
            for k in range(25)]}
        out = []
        for node in nodes:
            node.render(scope, out)
        total += len("".join(out))
    return total + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
