"""re: a log is taken apart line by line, fields are rewritten."""
import re
import sys

ROUNDS = 165

LINES = [f'10.0.{n % 250}.{n % 13} - user{n % 97} [{n % 28 + 1:02}/Mar/2024]'
         f' "GET /shop/{n % 501}/page?id={n}&q=word{n % 71} HTTP/1.1"'
         f' {200 + n % 5} {n * 37 % 9001}' for n in range(2000)]
LINE = re.compile(r'(\S+) - (\S+) \[([^]]+)\] "(\w+) ([^ ?]+)\??([^ ]*) [^"]+"'
                  r' (\d+) (\d+)')
PAIR = re.compile(r"(\w+)=(\w+)")
NUMBER = re.compile(r"\d+")


def work(i):
    total = 0
    for line in LINES:
        host, _, _, _, path, query, status, size = LINE.match(line).groups()
        fields = dict(PAIR.findall(query))
        total += int(status) + int(size) + len(fields["q"])
        total += len(NUMBER.sub(lambda found: f"<{found[0]}>", path))
        total += len(host.split("."))
    return total + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
