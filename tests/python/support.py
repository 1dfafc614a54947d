"""What the tests share: programs run in an interpreter of their own."""
import os
import subprocess
import sys
import textwrap
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
# The build under test, which make names in PYTHONPATH.
PATH = os.environ.get("PYTHONPATH", "")


def python(code, *options, env=None, check=True, timeout=120):
    """Runs a program; its result, with stdout and stderr as text."""
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith(("PYTHON", "HAKMEM"))}
    environment["PYTHONPATH"] = PATH + os.pathsep + HERE
    environment.update(env or {})
    result = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, errors="replace", timeout=timeout)
    if check and result.returncode != 0:
        raise AssertionError(f"exit status {result.returncode}\n"
                             f"{result.stdout}\n{result.stderr}")
    return result


class Case(unittest.TestCase):
    """A test that looks at what programs print."""

    def says(self, code, *options, env=None, wanted="fine", quiet=True):
        """The program prints `wanted`, and nothing to standard error."""
        result = python(code, *options, env=env)
        self.assertEqual(result.stdout.strip(), wanted, result.stderr)
        if quiet:
            self.assertEqual(result.stderr, "")

