"""Memory goes back while the program sleeps: a thread that looks now and then.

The core gives idle memory back when somebody looks, and only the program's own
requests do. A program that has freed much and then waits makes none.
"""
import os
import threading
import time

from hakmem_py import _hakmem

_seconds = 0.0


def _run(number, seconds):
    while _hakmem.look(number):
        time.sleep(seconds)


def every(seconds):
    """Looks every so often from here on, in place of who did before; 0: never.
    """
    global _seconds
    number = _hakmem.next_looker()
    _seconds = seconds
    if seconds != 0:
        threading.Thread(target=_run, args=(number, seconds),
                         name="hakmem_py", daemon=True).start()


def _again():
    """In a forked child, which has no threads."""
    if _seconds != 0:
        every(_seconds)


os.register_at_fork(after_in_child=_again)
