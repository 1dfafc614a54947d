"""The public functions of hakmem_py."""
import unittest

import hakmem_py


class Api(unittest.TestCase):
    def test_enabled(self):
        self.assertIs(hakmem_py.enabled, True)
        self.assertIsNone(hakmem_py.reason)


if __name__ == "__main__":
    unittest.main()
