"""Guards: a module that touches what is not its own is reported, the worker dies of it
and the next one serves."""
import re
import unittest

from nginx_server import until
from test_pool import Pool

GUARDS = {"HAKMEM_GUARD_RATE": "1", "HAKMEM_GUARD_MEMORY": "16M"}
REPORT = r"hakmem: guard: write (after free|beyond a block)"
DEATH = r"exited on signal (11|6)"


class Guards(Pool):

    def misused(self, kind, what):
        """The report of a request that misuses memory."""
        nginx = self.sample(env=GUARDS, expected=[DEATH, REPORT])
        before = set(nginx.workers())
        with self.assertRaises(OSError):
            for _ in range(50):
                nginx.get(f"/misuse?kind={kind}")
        until(nginx.patience, "another worker",
              lambda: nginx.find(DEATH) and set(nginx.workers()) - before)
        said = nginx.log()
        self.assertEqual(len(nginx.find(REPORT)), 1, nginx.story())
        self.assertIn(what, said)
        stacks = re.findall(r"^  (\w+) by thread \d+:\n((?:     .*\n)*)", said,
                            re.M)
        for name, frames in stacks:
            self.assertIn("ngx_http_hakmem_sample_misuse+0x", frames, name)
            self.assertIn("ngx_http_hakmem_sample_module.so+0x", frames, name)
        self.checked(nginx)
        return [name for name, _ in stacks]

    def test_after_free(self):
        self.assertEqual(self.misused("free", "write after free"),
                         ["allocated", "freed", "touched"])

    def test_beyond(self):
        """Seen at the touch or at the free, as chance has it."""
        self.assertIn(self.misused("beyond", "1 byte past the end of a block"
                                   " of 112 bytes"),
                      (["allocated", "touched"], ["allocated", "freed"]))


if __name__ == "__main__":
    unittest.main()
