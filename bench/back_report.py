"""What back.py makes of its runs: tables, a CSV file, a picture."""
import csv
import subprocess

import bench_report

TITLES = {
    "peak": "300 MB of blocks, all freed; then the process sleeps: MB resident"
            " after the last free, 2 s and 4 s later",
    "turns": "threads take turns with 60 MB of small blocks, freed by themselves"
             " or the next: MB resident,\nmost after any turn, and 3 s after"
             " the last",
    "ended": "threads have come and ended: MB resident then, 1 s and 2 s later",
    "sparse": "2M small objects of 400 MB, 90 % freed (40 MB live): MB resident"
              " then, 2 s and 4 s later",
    "redis": "redis-server: MB resident after FLUSHALL, 2 s and 4 s later",
}
OURS = ["hakmem", "hardened"]
KEPT = "hakmem, kept"
ENDED_MORE = 5  # MB that ended threads may leave more than on glibc
AGAIN_RATIO = 1.05
MB = 1024


def cell(kb):
    """KB as a table has them, in MB."""
    return f"{kb / MB:.0f}" if kb >= 100 * MB else f"{kb / MB:.1f}"


class Report:
    """Figures of rows and allocators, set by set."""

    def __init__(self, allocators):
        self.allocators = allocators
        self.rows = {}  # {set: {row: {allocator: {figure: value}}}}
        self.page_us = 0  # processor time of a page got and given back
        self.rounds = 0

    def add(self, group, row, allocator, figures):
        """Keeps what a run has found."""
        rows = self.rows.setdefault(group, {})
        rows.setdefault(row, {})[allocator] = figures

    @staticmethod
    def series(row, figures):
        """The KB of a row, in order of time."""
        return [figures[row.first]] + [figures[f"kb_{at}s"] for at in row.at]

    def aims(self, row):
        """The MB to stay below in each of a row's columns, None: any."""
        if row.group == "ended" and "glibc" in self.rows["ended"][row]:
            then = self.rows["ended"][row]["glibc"]["kb_1s"] / MB + ENDED_MORE
            return (None, then, then)
        return row.aims

    def misses(self, row, allocator):
        """The columns in which one of ours is above its aim."""
        if allocator not in OURS or row.group == "again":
            return []
        kb = self.series(row, self.rows[row.group][row][allocator])
        return [(at, value, aim) for at, (value, aim)
                in enumerate(zip(kb, self.aims(row)))
                if aim is not None and value > aim * MB]

    # ---- tables -----------------------------------------------------------------

    def print(self, group):
        """The table of a set that has run."""
        if group not in self.rows:
            return
        if group == "again":
            self.print_again()
            return
        rows = self.rows[group]
        print(f"\n{TITLES[group]}  (!: above what is meant)\n")
        print(f"  {'':<30}" + "".join(f"{name:>20}"
                                      for name in self.allocators))
        for row, found in rows.items():
            cells = []
            for name in self.allocators:
                text = "-"
                if name in found:
                    text = "  ".join(map(cell, self.series(row, found[name])))
                    text += "!" if self.misses(row, name) else " "
                cells.append(f"{text:>20}")
            print(f"  {row.name:<30}" + "".join(cells), flush=True)
        self.print_threads(rows)

    def print_threads(self, rows):
        """Whose threads are there beside the program's at the end."""
        most = {name: max((found[name].get("threads", 0)
                           for found in rows.values() if name in found),
                          default=0) for name in self.allocators}
        extra = [f"{name} {count}" for name, count in most.items() if count]
        if extra:
            print("  threads of the allocator's at the last look: "
                  + ", ".join(extra))

    def allowed_us(self, found):
        """The processor time that hakmem may take: what it takes when it keeps
        all, and what the system's pages cost that must be got again."""
        if KEPT not in found:
            return None
        pages = found[KEPT]["peak_kb"] / 4 * (self.rounds - 1)
        return (AGAIN_RATIO * found[KEPT]["cpu_us"] + pages * self.page_us)

    def print_again(self):
        """Faults and processor time a round."""
        print(f"\n300 MB made, freed, 3 s asleep, {self.rounds} times: a round's"
              " page faults, and its processor time in ms\n(in brackets: of it"
              " while at work); allowed: 1.05 of 'kept' and the pages that must"
              f" be got again,\n{self.page_us:.2f} us each\n")
        names = [*self.allocators, KEPT]
        print(f"  {'':<12}" + "".join(f"{name:>23}" for name in names)
              + f"{'allowed':>9}")
        for row, found in self.rows["again"].items():
            cells = []
            for name in names:
                text = "-"
                if name in found:
                    faults, cpu, work = (
                        found[name][figure] / self.rounds for figure
                        in ("faults", "cpu_us", "work_us"))
                    text = f"{faults:.0f} {cpu / 1e3:.0f} ({work / 1e3:.0f})"
                cells.append(f"{text:>23}")
            allowed = self.allowed_us(found)
            text = "-" if allowed is None else f"{allowed / self.rounds / 1e3:.0f}"
            print(f"  {row.name:<12}" + "".join(cells) + f"{text:>9}",
                  flush=True)

    def above(self):
        """A line for each row in which one of ours is above its aim."""
        lines = []
        for group, rows in self.rows.items():
            for row, found in rows.items():
                for name in found:
                    if self.misses(row, name):
                        meant = ", ".join("any" if aim is None else f"{aim:.0f}"
                                          for aim in self.aims(row))
                        got = ", ".join(map(cell, self.series(row, found[name])))
                        lines.append(f"{group}: {row.name}, {name}: {got} MB;"
                                     f" meant: {meant}")
                allowed = self.allowed_us(found) if group == "again" else None
                if allowed and found.get("hakmem", {}).get("cpu_us", 0) > allowed:
                    lines.append(
                        f"again: {row.name}: {found['hakmem']['cpu_us'] / 1e6:.2f}"
                        f" s of processor time, meant {allowed / 1e6:.2f}")
        return lines

    def write_csv(self, path, head):
        """Every figure, under comment lines that say where and how."""
        with path.open("w", newline="") as file:
            file.writelines(f"# {line}\n" for line in head)
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["set", "row", "allocator", "figure", "value"])
            if self.rounds:
                writer.writerow(["again", "", "", "page_us",
                                 f"{self.page_us:.4f}"])
            for group, rows in self.rows.items():
                for row, found in rows.items():
                    for name, figures in found.items():
                        writer.writerows([group, row.name, name, *figure]
                                         for figure in figures.items())


# ---- the picture ---------------------------------------------------------------------


def write_curve(path, points, head):
    """points: {allocator: [(second, KB)]}."""
    with path.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in head)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["allocator", "seconds", "resident_kb"])
        for name, series in points.items():
            writer.writerows([name, f"{second:.2f}", kb]
                             for second, kb in series)


def read_curve(path):
    """What write_curve has written: the comment lines, the points."""
    lines = path.read_text().splitlines()
    head = [line[2:] for line in lines if line.startswith("#")]
    points = {}
    for row in csv.DictReader(line for line in lines
                              if not line.startswith("#")):
        points.setdefault(row["allocator"], []).append(
            (float(row["seconds"]), int(row["resident_kb"])))
    return head, points


def draw(path, picture):
    """A line for each allocator, by gnuplot; its script stays beside."""
    head, points = read_curve(path)
    spare = iter(["#cc79a7", "#56b4e9", "#000000", "#f0e442"])
    blocks, plots = [], []
    # Ours last: on top.
    for at, name in enumerate(sorted(points, key=lambda name: name in OURS)):
        blocks.append("\n".join([
            f"$line{at} << EOD",
            *(f"{second} {kb / MB:.1f}" for second, kb in points[name]),
            "EOD"]))
        colour = bench_report.COLOURS.get(name) or next(spare)
        plots.append(f"$line{at} using 1:2 with lines linewidth"
                     f" {3 if name in OURS else 2} linecolor rgb '{colour}'"
                     f" title '{name}'")
    script = "\n".join([
        *(f"# {line}" for line in head), *blocks,
        "set terminal svg size 900,420 background 'white'"
        " font 'sans-serif,13'",
        f"set output '{picture}'",
        'set title "resident MB of a program that makes 300 MB of blocks of'
        ' 16 B to 100 KB,\\nfrees them, sleeps, and does it again"',
        "set xrange [0:20]",
        "set yrange [0:*]",
        "set xtics 2",
        "set xlabel 'seconds'",
        "set grid linecolor rgb '#dddddd'",
        "set border 3",
        "set tics nomirror",
        "set key outside bottom center horizontal samplen 2",
        "plot " + ", \\\n    ".join(plots), ""])
    picture.with_suffix(".gp").write_text(script)
    try:
        subprocess.run(["gnuplot", str(picture.with_suffix(".gp"))], check=True)
        print(f"\nthe picture: {picture}")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"\nno picture: {error}; run 'make install-deps'")
