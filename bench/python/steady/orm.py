"""Like an object-relational mapper: descriptors, identity map, dirty sets."""
import sys
import weakref

ROUNDS = 110


class Field:
    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return self if instance is None else instance.values[self.name]

    def __set__(self, instance, value):
        instance.values[self.name] = value
        instance.session.dirty.add(instance)


class Model:
    def __init__(self, session, row):
        self.session = session
        self.values = dict(row)


class User(Model):
    id, name, mail, age = Field(), Field(), Field(), Field()


class Session:
    def __init__(self):
        self.known = weakref.WeakValueDictionary()
        self.dirty = set()

    def load(self, rows):
        for row in rows:
            user = self.known.get(row["id"])
            if user is None:
                user = self.known[row["id"]] = User(self, row)
            yield user

    def flush(self):
        lines = []
        for user in sorted(self.dirty, key=lambda one: one.id):
            sets = ", ".join(f"{key} = {value!r}"
                             for key, value in user.values.items())
            lines.append(f"update user set {sets} where id = {user.id}")
        self.dirty.clear()
        return lines


def rows(count):
    for n in range(count):
        yield {"id": n, "name": f"user {n}", "mail": f"u{n}@example.org",
               "age": n % 90}


def work(i):
    session, total = Session(), 0
    for _ in range(4):
        users = list(session.load(rows(900)))
        for user in users[::3]:
            user.age = user.age + 1
        total += sum(len(line) for line in session.flush())
        total += sum(user.age for user in users)
        del users
    return total + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
