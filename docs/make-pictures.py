#!/usr/bin/env python3
"""make-pictures.py - the drawings of README.md and core/README.md.

    docs/make-pictures.py [DIRECTORY]

writes lanes.svg, superslab.svg and block.svg into DIRECTORY (docs/ if none is
given). Sizes are those of the code: a change of a lane's bounds or of a
superslab's layout is made here too.
"""
import pathlib
import sys

INK, PALE, LINE = "#1b2733", "#5c6b7a", "#9fb0c0"
LANES = {"Tiny": "#cfe8d5", "Pool": "#d3e3f8", "ACE": "#fbe3c2",
         "Huge": "#f3d0d7", "free": "#ffffff", "own": "#e7e9ec"}


class Drawing:
    """Shapes on a white sheet, collected as SVG elements."""

    def __init__(self, width, height, title):
        self.width, self.height = width, height
        self.parts = [f"<title>{title}</title>",
                      f'<rect width="{width}" height="{height}" fill="#fff"/>']

    def box(self, x, y, width, height, fill, lines=(), size=13):
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" '
            f'rx="3" fill="{fill}" stroke="{LINE}"/>')
        top = y + height / 2 - (len(lines) - 1) * size * 0.62 + size * 0.35
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + number * size * 1.24, line, size,
                      bold=number == 0 and len(lines) > 1)

    def text(self, x, y, words, size=13, anchor="middle", colour=INK,
             bold=False):
        weight = ' font-weight="bold"' if bold else ""
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" '
            f'text-anchor="{anchor}"{weight}>{words}</text>')

    def arrow(self, points, words="", at=None, anchor="middle"):
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" '
                          f'stroke="{PALE}" stroke-width="1.5" '
                          'marker-end="url(#head)"/>')
        if words:
            x, y = at
            self.text(x, y, words, 12, anchor, PALE)

    def write(self, path):
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" '
            f'height="{self.height}" viewBox="0 0 {self.width} {self.height}" '
            'font-family="sans-serif">\n'
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z" fill="{PALE}"/></marker></defs>\n'
            + "\n".join(self.parts) + "\n</svg>\n", encoding="utf-8")


def lanes():
    """What serves which size."""
    sheet = Drawing(860, 300, "The four lanes, by size of a request")
    rows = (("Tiny", "0 B to 1024 B", "40 size classes",
             "in slabs of 64 KB", 60, 190),
            ("Pool", "1025 B to 52 KB", "45 size classes",
             "spans of 1 to 8 slabs", 250, 190),
            ("ACE", "52 KB to 2 MB", "runs of pages",
             "that coalesce", 440, 190),
            ("Huge", "2 MB and more", "whole superslabs",
             "grow by moving pages", 630, 190))
    sheet.text(430, 24, "a request, by its size", 14, bold=True)
    for name, sizes, what, how, x, width in rows:
        middle = x + (width - 20) / 2 - 20
        sheet.text(middle, 56, sizes, 13, colour=PALE)
        sheet.arrow([(middle, 62), (middle, 78)])
        sheet.box(x - 20, 80, width - 20, 74, LANES[name], (name, what, how),
                  11.5)
        sheet.arrow([(middle, 156), (middle, 188)])
    sheet.box(40, 190, 740, 34, LANES["own"],
              ("one window of addresses: superslabs of 2 MB, each 32 slabs of "
               "64 KB, mapped as they are used",))
    sheet.arrow([(410, 226), (410, 252)],
                "claimed, made resident, purged, unmapped", (420, 243), "start")
    sheet.box(40, 254, 740, 32, "#fff", ("the operating system",))
    return sheet


def superslab():
    """A superslab's slabs, and the tags that say whose they are."""
    sheet = Drawing(860, 340, "A superslab, its slabs and their tags")
    cell, left = 24, 46
    owners = ["Tiny"] * 6 + ["Pool"] * 4 + ["Tiny"] * 3 + ["free"] * 5 + \
        ["Pool"] * 2 + ["Tiny"] * 4 + ["free"] * 8
    sheet.text(left, 24, "a superslab: 2 MB, the unit of claims and huge pages",
               14, "start", bold=True)
    for number, owner in enumerate(owners):
        sheet.box(left + number * cell, 36, cell, 46, LANES[owner])
    sheet.text(left, 100, "32 slabs of 64 KB; a Pool span is one slab or several"
               " side by side; white: free", 12, "start", PALE)
    sheet.text(left, 138, "tags: 4 bytes a slab, in an array at the window's "
               "base, never in the slab", 14, "start", bold=True)
    for number, owner in enumerate(owners):
        sheet.box(left + number * cell, 150, cell, 20,
                  LANES[owner] if owner != "free" else "#fff",
                  ("0",) if owner == "free" else (), 10)
    for number in (27, 30):
        x = left + number * cell + cell / 2
        sheet.arrow([(x, 84), (x, 148)])
    sheet.box(left, 196, 250, 30, "#fff", ("heap's number, 23 bits",))
    sheet.box(left + 250, 196, 90, 30, "#fff", ("class, 8 bits",))
    sheet.box(left - 30, 196, 30, 30, "#fff", ("S",))
    sheet.text(left + 356, 208, "S: sealed, for a forked child", 12, "start",
               PALE)
    sheet.text(left + 356, 223, "tag XOR the heap's own tag = the class, if the "
               "block is this heap's", 12, "start", PALE)
    sheet.text(left, 262, "descriptors: 64 bytes a slab, outside the window",
               14, "start", bold=True)
    sheet.box(left, 274, 768, 34, LANES["own"],
              ("free list or bits | blocks carved | pages that are gone | "
               "remote frees | lists it is in | resident bytes",), 12.5)
    sheet.text(left, 328, "A block's address leads to its tag by one shift and "
               "one load; nothing stands in front of a block.", 12, "start",
               PALE)
    return sheet


def block():
    """The life of a 24-byte block."""
    sheet = Drawing(860, 430, "The life of a 24-byte block")
    sheet.box(40, 40, 160, 60, "#fff", ("program", "holds the block"))
    sheet.box(350, 40, 180, 60, LANES["Tiny"],
              ("bin of its class", "last in, first out"))
    sheet.box(350, 170, 180, 50, LANES["Tiny"],
              ("spare list", "the bin's colder half"))
    sheet.box(350, 280, 180, 60, LANES["Tiny"],
              ("slab", "free list, fresh rest"))
    sheet.box(350, 380, 180, 40, LANES["own"], ("shared pool of slabs",))
    sheet.box(660, 280, 160, 60, LANES["own"],
              ("outbox, inbox", "64 blocks at a time"))
    sheet.box(660, 380, 160, 40, "#fff", ("operating system",))
    sheet.arrow([(348, 58), (204, 58)], "hak_malloc: pop", (276, 50))
    sheet.arrow([(200, 84), (346, 84)], "hak_free: push", (276, 104))
    sheet.arrow([(410, 168), (410, 104)], "refill", (402, 140), "end")
    sheet.arrow([(470, 102), (470, 166)], "the bin holds too much",
                (478, 140), "start")
    sheet.arrow([(410, 278), (410, 224)], "refill", (402, 256), "end")
    sheet.arrow([(470, 222), (470, 276)], "a run of blocks at a time",
                (478, 246), "start")
    sheet.arrow([(410, 378), (410, 344)], "slab taken", (402, 366), "end")
    sheet.arrow([(470, 342), (470, 376)], "empty", (478, 364), "start")
    sheet.arrow([(532, 394), (656, 394)], "after a second", (594, 388))
    sheet.arrow([(658, 410), (534, 410)], "faults", (594, 424))
    sheet.arrow([(200, 50), (240, 18), (740, 18), (740, 276)],
                "freed by another thread", (732, 150), "end")
    sheet.arrow([(658, 300), (534, 300)], "owner's refill", (596, 293))
    return sheet


def main():
    where = pathlib.Path(sys.argv[1] if len(sys.argv) > 1
                         else pathlib.Path(__file__).parent)
    for draw in (lanes, superslab, block):
        draw().write(where / f"{draw.__name__}.svg")


main()
