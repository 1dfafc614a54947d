"""Objects that come and go: a simulation whose particles are born, meet, die."""
import sys

ROUNDS = 149


class Vector:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def scaled(self, by):
        return Vector(self.x * by, self.y * by)


class Particle:
    def __init__(self, number, place, speed):
        self.number = number
        self.place = place
        self.speed = speed
        self.trail = []

    def step(self):
        self.place = self.place + self.speed.scaled(0.125)
        if len(self.trail) == 6:
            self.trail.pop(0)
        self.trail.append((self.place.x, self.place.y))


def work(i):
    alive = [Particle(n, Vector(n % 17, n % 23), Vector(1 + n % 3, 2 - n % 5))
             for n in range(300)]
    for turn in range(40):
        for particle in alive:
            particle.step()
        alive = [p for p in alive if (p.number * 7 + turn) % 29]
        alive += [Particle(n, Vector(turn, n), Vector(n % 4, 1.5))
                  for n in range(10)]
    return int(sum(p.place.x + p.place.y + len(p.trail) for p in alive)) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
