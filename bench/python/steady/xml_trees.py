"""xml.etree: a feed is parsed, searched, changed and written."""
import sys
import xml.etree.ElementTree as ET

ROUNDS = 65

FEED = "<feed>" + "".join(
    f'<entry id="{n}" kind="k{n % 9}"><title>Title {n}</title>'
    f"<author><name>Author {n % 53}</name></author>"
    f"<link href='https://example.org/{n}'/><size>{n * 11}</size></entry>"
    for n in range(900)) + "</feed>"


def work(i):
    root = ET.fromstring(FEED)
    total = 0
    for entry in root.findall("entry"):
        total += int(entry.find("size").text) + len(entry.findtext("title"))
        if entry.get("kind") == f"k{i % 9}":
            entry.set("seen", "yes")
            ET.SubElement(entry, "note").text = "changed"
    names = {name.text for name in root.iter("name")}
    return total + len(names) + len(ET.tostring(root))


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
