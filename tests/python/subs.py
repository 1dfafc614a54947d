"""Subinterpreters: 3.9 to 3.12 have another name for them than 3.13."""
import textwrap

try:
    import _interpreters as sub
except ImportError:
    import _xxsubinterpreters as sub


def run(interpreter, code):
    """Runs a program in one of them; an exception there is one here."""
    failed = sub.run_string(interpreter, textwrap.dedent(code))
    assert failed is None, failed
