"""hakmem top's screen: curses, keys as top's.

All that is shown is drawn anew after each key and each look, for the size that the
terminal then has.
"""
import curses
import time

from hakmem import top
from hakmem.options import Failed

KEYS = """\
  q          end
  h ?        this
  M          sort by resident memory       U  by what is in use
  K          by what is kept               D  by what is due to go back
  F          by what lies between blocks   A  by allocations a second
  P          by processor time             N  by the process's number
  R          the other way round
  up down    choose a process (k j too)
  Enter      its lanes; Esc or b goes back
  d          change the delay
  space      look now

  IN USE blocks given out    KEPT free, at hand of threads
  DUE    free, goes back     FRAG free, between blocks in use"""

SORTS = {key: column for column, _, _, key in top.COLUMNS if key}
BACK = (27, ord("b"), curses.KEY_BACKSPACE, curses.KEY_LEFT)
ENTER = (10, 13, curses.KEY_ENTER, curses.KEY_RIGHT)


class Screen:
    """What is shown, and what the keys have chosen."""

    def __init__(self, window, sampler, chosen):
        self.window, self.sampler = window, sampler
        self.delay, self.sort = chosen["delay"], chosen["sort"]
        self.reverse, self.help, self.message = False, False, ""
        # detail: a process whose lanes are shown, or None.
        self.detail, self.selected, self.first = sampler.pid, None, 0
        self.rows = []

    # ---- drawing ----

    def put(self, y, text, look=curses.A_NORMAL):
        """A line, cut off where the screen ends."""
        height, width = self.window.getmaxyx()
        if 0 <= y < height and width > 1:
            safe = "".join(c if c.isprintable() else "?" for c in text)
            try:
                self.window.addnstr(y, 0, safe, width - 1, look)
            except curses.error:
                pass  # it became smaller meanwhile: it is drawn again

    def head(self):
        clock = time.strftime("%H:%M:%S")
        self.put(0, f"hakmem top - {clock}, every {self.delay:g} s - q ends,"
                 " h helps")
        self.put(1, self.message or top.summary(self.rows))

    def draw_list(self):
        height, width = self.window.getmaxyx()
        rows = top.ordered(self.rows, self.sort, self.reverse)
        pids = [row.pid for row in rows]
        if self.selected not in pids:
            self.selected = pids[0] if pids else None
        room = max(1, height - 4)
        if pids:
            at = pids.index(self.selected)
            self.first = min(max(self.first, at - room + 1), at)
        self.put(3, top.header().ljust(width), curses.A_REVERSE)
        for i, row in enumerate(rows[self.first:self.first + room]):
            chosen = row.pid == self.selected
            self.put(4 + i, top.line(row),
                     curses.A_BOLD if chosen else curses.A_NORMAL)

    def draw_detail(self):
        row = next((row for row in self.rows if row.pid == self.detail), None)
        lines = top.details(row) if row is not None else [
            f"process {self.detail} has ended; Esc goes back, q ends"]
        for i, text in enumerate(lines):
            self.put(3 + i, text)

    def draw(self):
        self.window.erase()
        self.head()
        if self.help:
            for i, text in enumerate(KEYS.splitlines()):
                self.put(3 + i, text)
        elif self.detail is not None:
            self.draw_detail()
        else:
            self.draw_list()
        self.window.refresh()

    # ---- keys ----

    def move(self, by):
        pids = [row.pid for row in top.ordered(self.rows, self.sort,
                                               self.reverse)]
        if pids and self.selected in pids:
            at = pids.index(self.selected) + by
            self.selected = pids[min(max(at, 0), len(pids) - 1)]

    def ask_delay(self):
        """A new delay, typed below the head."""
        self.window.timeout(-1)
        curses.echo()
        self.put(2, "delay in seconds: ")
        self.window.clrtoeol()
        try:
            text = self.window.getstr(2, 18, 10).decode(errors="replace")
            if text.strip():
                self.delay = top.HELP.options[0].parse("top", text.strip())
            self.message = ""
        except Failed as failed:
            self.message = str(failed)
        except curses.error:
            pass
        curses.noecho()

    def key(self, key):
        """False: it is the end."""
        char = chr(key) if 0 <= key < 256 else ""
        if char == "q" and self.help:
            self.help = False
            return True
        if char == "q":
            return False
        if self.help or char in ("h", "?"):
            self.help = not self.help and char in ("h", "?")
        elif char.upper() in SORTS and (char.isupper() or
                                        char.upper() not in "DK"):
            self.sort, self.reverse = SORTS[char.upper()], False
        elif char in ("R", "r"):
            self.reverse = not self.reverse
        elif char == "d":
            self.ask_delay()
        elif key in (curses.KEY_UP, ord("k")):
            self.move(-1)
        elif key in (curses.KEY_DOWN, ord("j")):
            self.move(1)
        elif key in ENTER:
            self.detail = self.detail or self.selected
        elif key in BACK and self.sampler.pid is None:
            self.detail = None
        return True

    # ---- life ----

    def wait(self, until):
        """Keys until the next look is due; False: it is the end."""
        while True:
            left = until - time.monotonic()
            if left <= 0:
                return True
            self.window.timeout(max(1, int(left * 1000)))
            key = self.window.getch()
            if key == curses.KEY_RESIZE:
                curses.update_lines_cols()
            elif key == ord(" ") and not self.help:
                return True
            elif key != -1 and not self.key(key):
                return False
            self.draw()

    def run(self):
        alive = True
        while alive:
            self.rows = self.sampler.look()
            self.draw()
            alive = self.wait(time.monotonic() + self.delay)


def _run(window, sampler, chosen):
    try:
        curses.curs_set(0)
        curses.use_default_colors()
    except curses.error:
        pass  # a terminal without
    window.keypad(True)
    Screen(window, sampler, chosen).run()


def run(sampler, chosen):
    """The exit status."""
    try:
        curses.wrapper(_run, sampler, chosen)
    except curses.error as error:
        raise Failed(f"top: the terminal can't be used ({error}); TERM says"
                     " what it is; --once prints without it", 1) from None
    return 0
