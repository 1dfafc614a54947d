"""What the tests of profiles share: a page in every form, the module that was
planted in it (sample/ngx_http_hakmem_sample_plant.c), and chance."""
import collections
import math
import os
import pathlib
import sys

from nginx_case import Case

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]
                       / "command"))
from pprof import Pprof  # noqa: E402, F401

SAMPLE = (os.environ.get("HAKMEM_BUILD", "")
          + "/nginx-sample/objs/ngx_http_hakmem_sample_module.so")
PLANTED = ("leak", "cache", "fragment")
SITE = ("server { listen 127.0.0.1:@HTTP@ backlog=1024; root html;"
        "keepalive_requests 1000000;"
        "location = /heap { hakmem_profile; }"
        "location = /plain { return 204; }"
        + "".join(f"location /{name} {{ hakmem_sample {name}; }}"
                  for name in (*PLANTED, "truth")) + "}")

# Blocks of each kind in a round of 1 MB: the leak's bytes are 5 % of it.
ROUND = {"leak": 102, "cache": 205, "fragment": 2240}
SIGMAS = 5

Truth = collections.namedtuple("Truth", "bytes blocks live live_blocks size")


def sigma(blocks, size, rate):
    """Of the bytes that samples of so many blocks stand for."""
    chance = -math.expm1(-size / rate)
    return size * math.sqrt(blocks * (1 - chance) / chance)


def stacks(body):
    """{(frame, ...): bytes} of collapsed stacks, root first."""
    found = collections.Counter()
    for line in body.decode("ascii").splitlines():
        frames, value = line.rsplit(" ", 1)
        found[tuple(frames.split(";"))] += int(value)
    return found


class ProfileCase(Case):

    def sampled(self, rate="8k", http=SITE, main="", **options):
        """An nginx with one worker, whose allocations are sampled from its
        start, and the planted module."""
        set_rate = f"hakmem_profile_rate {rate};" if rate else ""
        return self.server(http, f"load_module {SAMPLE};\n{set_rate}\n{main}",
                           **{"workers": 1, **options})

    def page(self, nginx, arguments="", **how):
        status, headers, body = nginx.get(f"/heap?{arguments}", **how)
        self.assertEqual(status, 200, body)
        return headers, body

    def collapsed(self, nginx, arguments="", **how):
        return stacks(self.page(nginx, f"format=collapsed&{arguments}",
                                **how)[1])

    def plant(self, nginx, rounds, at_once=1):
        """Rounds of 1 MB, on one connection."""
        connection = nginx.connect()
        for _ in range(0, rounds, at_once):
            for name in PLANTED:
                connection.request("GET",
                                   f"/{name}?n={at_once * ROUND[name]}")
                answer = connection.getresponse()
                answer.read()
                self.assertEqual(answer.status, 200)
        connection.close()

    def truth(self, nginx):
        """What the module has counted: {kind: Truth}."""
        lines = nginx.get("/truth")[2].decode().splitlines()
        return {line.split()[0]: Truth(*map(int, line.split()[1:]))
                for line in lines}

    def told(self, found, name):
        """The bytes that the module's function has; all of its stacks say
        where."""
        function = f"ngx_http_hakmem_sample_{name}"
        sum_of = 0
        for frames, value in found.items():
            if function in frames:
                self.assertEqual(
                    frames[:4], ("nginx", "phase=content", f"location=/{name}",
                                 "ngx_http_hakmem_sample_module.so"))
                sum_of += value
        return sum_of

    def agrees(self, nginx, rate):
        """Profile and truth; returns told / true of the leak's live bytes."""
        live = self.collapsed(nginx)
        allocated = self.collapsed(nginx, "value=allocated")
        for name, true in self.truth(nginx).items():
            with self.subTest(name):
                self.assertAlmostEqual(
                    self.told(live, name), true.live, delta=SIGMAS
                    * sigma(true.live_blocks, true.size, rate) + 1)
                self.assertAlmostEqual(
                    self.told(allocated, name), true.bytes, delta=SIGMAS
                    * sigma(true.blocks, true.size, rate) + 1)
        return self.told(live, "leak") / self.truth(nginx)["leak"].live
