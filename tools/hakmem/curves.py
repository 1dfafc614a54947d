"""Lines over time or over a trace, as SVG."""
import html

COLORS = {"glibc": "#999999", "mimalloc": "#0072b2", "jemalloc": "#e69f00",
          "tcmalloc": "#009e73", "hakmem": "#d55e00"}
MORE = ("#8c6d46", "#b05fa8", "#5f9ea0", "#c0504d")
WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 70, 50


def ticks(most):
    """Four to nine round numbers from 0 up to the first that is enough."""
    step = 10.0 ** -6
    factors = (2, 2.5, 2)
    i = 0
    while most / step > 8:
        step *= factors[i % 3]
        i += 1
    count = 1
    while count * step < most:
        count += 1
    return [n * step for n in range(count + 1)]


def color(name, i):
    return COLORS.get(name, MORE[i % len(MORE)])


def _text(x, y, text, more=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" {more}>'
            f'{html.escape(text)}</text>')


def _axes(xs, ys, x_title, y_title):
    """The frame, and functions from values to places."""
    inner, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_of(value):
        return LEFT + inner * value / xs[-1]

    def y_of(value):
        return TOP + high - high * value / ys[-1]

    parts = []
    for value in ys:
        y = y_of(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"'
                     ' stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:g}",
                           'text-anchor="end"'))
    for value in xs:
        parts.append(_text(x_of(value), HEIGHT - BOTTOM + 18, f"{value:g}",
                           'text-anchor="middle"'))
    parts.append(_text(LEFT + inner / 2, HEIGHT - 12, x_title,
                       'text-anchor="middle"'))
    parts.append(_text(LEFT - 44, TOP - 10, y_title))
    return parts, x_of, y_of


def chart(title, x_title, y_title, lines):
    """An SVG document. `lines`: (name, dashed, [(x, y), ...]) each."""
    xs = ticks(max((x for _, _, points in lines for x, _ in points),
                   default=1) or 1)
    ys = ticks(max((y for _, _, points in lines for _, y in points),
                   default=1) or 1)
    parts, x_of, y_of = _axes(xs, ys, x_title, y_title)
    short = title if len(title) <= 90 else title[:87] + "..."
    parts.append(_text(12, 22, short, 'font-weight="bold"'))
    x = LEFT
    for i, (name, dashed, points) in enumerate(lines):
        look = f'stroke="{"#222" if dashed else color(name, i)}"' \
            f' stroke-width="1.5"{" stroke-dasharray=" if dashed else ""}' \
            + ('"4 3"' if dashed else "")
        path = "L".join(f"{x_of(a):.1f} {y_of(b):.1f}" for a, b in points)
        parts.append(f'<path d="M{path}" fill="none" {look}/>')
        parts.append(f'<path d="M{x} 42h18" {look}/>')
        parts.append(_text(x + 23, 46, name))
        x += 38 + 7 * len(name)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}"'
            f' height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif">\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n'
            + "\n".join(parts) + "\n</svg>\n")
