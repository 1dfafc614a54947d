"""What bench.py makes of its runs: tables, means, a CSV file, a picture."""
import collections
import csv
import dataclasses
import math
import statistics
import subprocess

NOISE = 0.03  # so far from the best peer a row is neither won nor lost
COLOURS = {"glibc": "#999999", "mimalloc": "#0072b2", "jemalloc": "#e69f00",
           "tcmalloc": "#009e73", "hakmem": "#d55e00",
           "snmalloc": "#cc79a7", "rpmalloc": "#56b4e9"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a row on an allocator."""
    row: str
    turn: int
    allocator: str
    ns_per_op: float
    peak_kb: int
    minor_faults: int
    p99_ns: int  # 0: the row does not time single operations
    p999_ns: int
    command: str


def write_csv(path, runs, head):
    """Every run, under comment lines that say where and how."""
    with path.open("w", newline="") as file:
        for line in head:
            file.write(f"# {line}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "round", "allocator", "ns_per_op", "peak_kb",
                         "minor_faults", "p99_ns", "p999_ns", "command"])
        for run in runs:
            writer.writerow([run.row, run.turn, run.allocator,
                             f"{run.ns_per_op:.4f}", run.peak_kb,
                             run.minor_faults, run.p99_ns, run.p999_ns,
                             run.command])


def geometric_mean(values):
    """Of the values that are there; None if there are none."""
    there = [value for value in values if value is not None]
    return statistics.geometric_mean(there) if there else None


def text(value, form=".2f"):
    """A cell of a table."""
    return "-" if value is None else f"{value:{form}}"


def figure_text(value):
    """A cell with a figure of any size: four digits or so."""
    return text(value, ".0f" if value is not None and value >= 1000
                else ".1f")


class Report:
    """The figures of rows and peers by name."""

    def __init__(self, runs, rows, peers):
        self.rows = rows
        self.peers = peers
        self.runs = collections.defaultdict(dict)
        for run in runs:
            self.runs[run.row, run.allocator][run.turn] = run
        self.hardened = any(run.allocator == "hardened" for run in runs)

    def median(self, row, name, figure):
        """The median of an allocator's figure, or None."""
        runs = self.runs[row, name].values()
        return (statistics.median(getattr(run, figure) for run in runs)
                if runs else None)

    def ratios(self, row, name, other, figure):
        """The ratio of two allocators' figures in every round."""
        ours, theirs = self.runs[row, name], self.runs[row, other]
        return [getattr(ours[turn], figure) / getattr(theirs[turn], figure)
                for turn in ours if turn in theirs]

    def ratio(self, row, name, other, figure="ns_per_op"):
        """The median of that, or None."""
        ratios = self.ratios(row, name, other, figure)
        return statistics.median(ratios) if ratios else None

    def best(self, row):
        """The fastest peer in a row, or None."""
        timed = {name: self.median(row, name, "ns_per_op")
                 for name in self.peers}
        timed = {name: value for name, value in timed.items()
                 if value is not None}
        return min(timed, key=timed.get, default=None)

    def to_best(self, row):
        """Our time to that of the fastest peer, or None."""
        return self.ratio(row, "hakmem", self.best(row))

    def mean(self, ratio):
        """The geometric mean over all rows of the table."""
        return geometric_mean(ratio(row) for row in self.rows)

    def table(self, title, columns, rows=None):
        """Prints a table; columns: {heading: function of a row, a text}."""
        print(f"\n{title}")
        print(f"  {'':<22}" + "".join(f"{name:>10}" for name in columns))
        for row in rows or self.rows:
            print(f"  {row:<22}" + "".join(f"{cell(row):>10}"
                                           for cell in columns.values()))

    def figures(self, figure):
        """The columns of a table of one figure."""
        names = ["hakmem", *self.peers] + ["hardened"] * self.hardened
        return {name: lambda row, name=name:
                figure_text(self.median(row, name, figure))
                for name in names}

    def spread(self, row):
        """The least and the largest of our ratios to the best peer."""
        ratios = self.ratios(row, "hakmem", self.best(row), "ns_per_op")
        return f"{min(ratios):.2f}..{max(ratios):.2f}" if ratios else "-"

    def print_times(self):
        """Times, and ours to each peer's."""
        self.table("nanoseconds per operation", self.figures("ns_per_op"))
        if not any(self.to_best(row) for row in self.rows):
            return
        columns = {name: lambda row, name=name:
                   text(self.ratio(row, "hakmem", name))
                   for name in self.peers}
        columns["best"] = lambda row: text(self.to_best(row))
        columns["from..to"] = lambda row: " " + self.spread(row)
        columns["again"] = lambda row: text(self.ratio(row, "hakmem",
                                                       "again"))
        if self.hardened:
            columns["hardened"] = lambda row: text(
                self.ratio(row, "hardened", "hakmem"))
        self.table("time of hakmem to each other's, and to that of the row's"
                   " best peer; below 1: hakmem is faster"
                   + ("\n(hardened: the hardened build's time to hakmem's)"
                      if self.hardened else ""), columns)

    def print_memory(self):
        """Peaks to glibc's, and faults."""
        columns = {"glibc, KB": lambda row:
                   text(self.median(row, "glibc", "peak_kb"), ".0f")}
        for name in self.figures("peak_kb"):
            if name != "glibc":
                columns[name] = lambda row, name=name: text(
                    self.ratio(row, name, "glibc", "peak_kb"))
        self.table("peak resident memory, to glibc's", columns)
        self.table("minor page faults", self.figures("minor_faults"))

    def print_latencies(self):
        """What one operation in 100, in 1,000, takes longer than."""
        rows = [row for row in self.rows if self.median(row, "hakmem",
                                                        "p99_ns")]
        names = ["hakmem", *self.peers] + ["hardened"] * self.hardened
        for figure, what in [("p99_ns", "p99"), ("p999_ns", "p99.9")]:
            if rows:
                self.table(f"{what} of an operation, ns",
                           {name: lambda row, name=name: figure_text(
                               self.median(row, name, figure))
                            for name in names}, rows)

    def standing(self, row):
        """1: won against the row's best peer; -1: lost; 0: neither."""
        ratio = self.to_best(row)
        if ratio is None or abs(ratio - 1) <= NOISE:
            return 0
        return 1 if ratio < 1 else -1

    def summary(self):
        """What follows from the table: (what, text) lines."""
        ran = [row for row in self.rows if self.to_best(row) is not None]
        won, lost = (sum(self.standing(row) == side for row in ran)
                     for side in (1, -1))
        lines = [(f"time to {name}'s", text(self.mean(
            lambda row, name=name: self.ratio(row, "hakmem", name))))
            for name in self.peers]
        lines += [("time to the row's best peer", text(self.mean(self.to_best))),
                  ("time to hakmem again", text(self.mean(
                      lambda row: self.ratio(row, "hakmem", "again"))))]
        if self.hardened:
            lines.append(("hardened, time to hakmem", text(self.mean(
                lambda row: self.ratio(row, "hardened", "hakmem")))))
        lines += [(f"{name}, peak to glibc's", text(self.mean(
            lambda row, name=name: self.ratio(row, name, "glibc",
                                              "peak_kb"))))
            for name in self.figures("peak_kb") if name != "glibc"]
        lines.append((f"of {len(ran)} rows, to the best peer",
                      f"{won} won, {lost} lost, {len(ran) - won - lost} within"
                      f" {NOISE:.0%}"))
        return lines

    def lost(self):
        """The rows lost, the worst first: (row, text)."""
        rows = [row for row in self.rows if self.standing(row) < 0]
        return [(row, f"{self.to_best(row):.2f} of {self.best(row)}"
                 f" ({self.spread(row)})")
                for row in sorted(rows, key=self.to_best, reverse=True)]

    def print_means(self):
        """Geometric means over the rows of the table; who is behind."""
        if not any(self.to_best(row) for row in self.rows):
            return
        print("\ngeometric means over the rows above")
        for what, value in self.summary():
            print(f"  {what:<32}{value}")
        print(f"\nrows more than {NOISE:.0%} behind the best peer:"
              + ("" if self.lost() else " none"))
        for row, value in self.lost():
            print(f"  {row:<22}{value}")

    def print_all(self):
        self.print_times()
        self.print_memory()
        self.print_latencies()
        self.print_means()

    def write_markdown(self, path, head):
        """The same for docs/BENCHMARKS.md: lost rows first, summary, table."""
        names = ["hakmem", *self.peers] + ["hardened"] * self.hardened
        lines = [*(f"    {line}" for line in head), "", "| row lost | to the"
                 " best peer |", "|---|---|"]
        lines += [f"| {row} | {value} |" for row, value in self.lost()]
        lines += ["", "| over all rows | |", "|---|---|"]
        lines += [f"| {what} | {value} |" for what, value in self.summary()]
        lines += ["", "| row | " + " | ".join(names)
                  + " | to the best (from..to) | peak MB: "
                  + " / ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
        for row in self.rows:
            peaks = [self.median(row, name, "peak_kb") for name in names]
            lines.append(" | ".join([
                f"| {row}", *(figure_text(self.median(row, name, "ns_per_op"))
                              for name in names),
                f"{text(self.to_best(row))} ({self.spread(row)})",
                " / ".join(text(peak and peak / 1024, ".1f")
                           for peak in peaks) + " |"]))
        path.write_text("\n".join([*lines, ""]))

    # ---- the picture --------------------------------------------------------

    def block(self, name, bars, ratio):
        """A gnuplot data block: a line per row, its bars' ratios."""
        lines = [f"${name} << EOD"]
        for row in self.rows:
            lines.append(" ".join([row, *(text(ratio(row, bar), ".4f")
                                          for bar in bars)]))
        return "\n".join([*lines, "EOD"])

    def panel(self, name, title, bars):
        """Gnuplot's commands for bars that begin at 1."""
        wide = 0.8 / len(bars)
        plots = []
        for at, bar in enumerate(bars):
            low = f"$0 - 0.4 + {at * wide:.3f}"
            plots.append(
                f"${name} using {at + 2}:({low}):(1):{at + 2}:({low})"
                f":({low} + {wide:.3f}) with boxxyerror fillstyle solid"
                f" noborder linecolor rgb '{COLOURS[bar]}' title '{bar}'")
        return f"set title '{title}'\nplot " + ", \\\n    ".join(plots)

    def draw(self, path, head):
        """Bars of time and memory, by gnuplot; its script stays beside."""
        if not any(self.to_best(row) for row in self.rows):
            return
        others = ["hakmem"] + [name for name in self.peers
                               if name != "glibc"]
        tics = ", ".join(f"'{row}' {at}" for at, row in enumerate(self.rows))
        stripes = [f"set object rectangle from graph 0, first {at - 0.5} to"
                   f" graph 1, first {at + 0.5} behind fillstyle solid"
                   " noborder fillcolor rgb '#f3f3f3'"
                   for at in range(0, len(self.rows), 2)]
        script = "\n".join([
            *(f"# {line}" for line in head),
            self.block("time", self.peers, lambda row, name:
                       self.ratio(row, "hakmem", name)),
            self.block("peak", others, lambda row, name:
                       self.ratio(row, name, "glibc", "peak_kb")),
            f"set terminal svg size 1200,{150 + 34 * len(self.rows)}"
            " background 'white' font 'sans-serif,13'",
            f"set output '{path}'",
            "set datafile missing '-'",
            "set logscale x 2",
            "set xtics rotate by -45",
            "set xrange [*<0.5:2<*]",
            "set format x '%g'",
            f"set ytics ({tics}) scale 0",
            f"set yrange [{len(self.rows) - 0.5}:-0.5]",
            "set grid x linecolor rgb '#cccccc'",
            "set border 1",
            "set key outside bottom center horizontal samplen 1.5 width -1",
            "set lmargin 24",
            "set rmargin 3",
            *stripes,
            "set arrow from 1, graph 0 to 1, graph 1 nohead front",
            "set multiplot layout 1,2 title"
            f" '{', '.join(head[:2])}' noenhanced font ',11'",
            self.panel("time", "time of HAKMEM to each other allocator''s"
                       " (below 1: HAKMEM is faster)", self.peers),
            self.panel("peak", "peak memory to glibc''s", others),
            "unset multiplot", ""])
        path.with_suffix(".gp").write_text(script)
        try:
            subprocess.run(["gnuplot", str(path.with_suffix(".gp"))],
                           check=True)
            print(f"\nthe picture: {path}")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"\nno picture: {error}; run 'make install-deps'")
