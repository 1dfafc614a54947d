"""Documents of a few MB are parsed and dropped, again and again."""
import sys
import xml.etree.ElementTree as ET

ROUNDS = 6

DOCUMENT = "<rows>" + "".join(
    f"<row id='{n}'><name>name {n}</name><value>{n * 3}</value></row>"
    for n in range(40_000)) + "</rows>"


def work(i):
    root = ET.fromstring(DOCUMENT)
    rows = [{"id": row.get("id"), "name": row[0].text, "value": row[1].text}
            for row in root]
    return sum(int(row["value"]) for row in rows) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
