"""sqlite3: rows as objects, in memory; inserts, joins, fetches."""
import sqlite3
import sys

ROUNDS = 117


def work(i):
    base = sqlite3.connect(":memory:")
    base.row_factory = sqlite3.Row
    base.execute("create table person (id integer primary key, name, town)")
    base.execute("create table bill (id integer primary key, person, cents)")
    base.executemany("insert into person values (?, ?, ?)",
                     ((n, f"person {n}", f"town {n % 31}")
                      for n in range(500)))
    base.executemany("insert into bill (person, cents) values (?, ?)",
                     ((n * 7 % 500, n * 13 % 997) for n in range(3000)))
    rows = base.execute("select name, town, cents from bill"
                        " join person on person.id = bill.person"
                        " order by cents, name").fetchall()
    towns = {}
    for row in rows:
        towns[row["town"]] = towns.get(row["town"], 0) + row["cents"]
    base.close()
    return sum(towns.values()) + len(rows) + i


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(sum(work(i) for i in range(rounds)) % 1_000_003)
