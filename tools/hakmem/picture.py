"""The figures of compare as bars: SVG, and a page that has it.

`groups` is a list of (title, decimals, {name: value or None}); each group has its
own scale, its longest bar is its largest value.
"""
import html

COLORS = ("#9aa5b1", "#1f77b4", "#e08a2e", "#4f9d4f", "#b05fa8", "#8c6d46",
          "#c0504d", "#5f9ea0", "#777777")
WIDTH, LEFT, BAR, GAP = 720, 150, 18, 14
LONGEST = 400


def _text(x, y, text, more=""):
    return (f'<text x="{x}" y="{y}" font-size="13" {more}>'
            f'{html.escape(text)}</text>')


def _title(name):
    return {"glibc": "without", "hakmem": "HAKMEM"}.get(name, name)


def _legend(names, y):
    """Colours and names, in as many lines as they need; (parts, next y)."""
    parts, x = [], LEFT
    for i, name in enumerate(names):
        width = 34 + 8 * len(_title(name))
        if x + width > WIDTH:
            x, y = LEFT, y + 22
        parts.append(f'<rect x="{x}" y="{y - 11}" width="13" height="13"'
                     f' fill="{COLORS[i % len(COLORS)]}"/>')
        parts.append(_text(x + 18, y, _title(name)))
        x += width
    return parts, y + 26


def _group(title, decimals, values, y):
    """The bars of one row of the table."""
    most = max((value for value in values.values() if value), default=0) or 1
    base = values.get("glibc")
    parts = [_text(LEFT - 8, y + len(values) * BAR / 2 + 4, title,
                   'text-anchor="end"')]
    for i, (name, value) in enumerate(values.items()):
        width = LONGEST * (value or 0) / most
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}"'
                     f' height="{BAR - 3}" fill="{COLORS[i % len(COLORS)]}"/>')
        label = "ended" if value is None else f"{value:,.{decimals}f}"
        if value is not None and base and name != "glibc":
            label += f"  ({value / base:.2f})"
        parts.append(_text(LEFT + width + 6, y + BAR - 6, label))
        y += BAR
    return parts, y + GAP


def bars(title, groups):
    """An SVG document."""
    names = list(groups[0][2])
    short = title if len(title) <= 90 else title[:87] + "..."
    parts = [_text(12, 24, short, 'font-weight="bold"')]
    more, y = _legend(names, 50)
    parts += more
    for one in groups:
        more, y = _group(*one, y)
        parts += more
    parts.append(_text(LEFT, y + 6, "shorter is better; in brackets the ratio"
                       " to the run without", 'fill="#666"'))
    y += 20
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}"'
            f' height="{y}" viewBox="0 0 {WIDTH} {y}"'
            ' font-family="sans-serif">\n'
            f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


def page(title, groups, table, remarks):
    """An HTML document that needs no other file."""
    return ("<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n"
            f"<title>hakmem compare: {html.escape(title)}</title>\n"
            "<body style=\"font-family: sans-serif; max-width: 760px;"
            " margin: 2em auto\">\n"
            f"<h1 style=\"font-size: 1.2em\">{html.escape(title)}</h1>\n"
            f"<pre>{html.escape(table)}</pre>\n"
            + "".join(f"<p>{html.escape(line)}</p>\n" for line in remarks)
            + bars(title, groups) + "</body></html>\n")
