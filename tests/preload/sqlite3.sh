#!/bin/bash
# sqlite3 - tables, indexes, aggregates, windows, JSON, rollback, VACUUM.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

under sqlite3 -bail data.db >output <<'END'
PRAGMA journal_mode = WAL;
PRAGMA cache_size = -4000;
CREATE TABLE item(id INTEGER PRIMARY KEY, kind INT, price REAL, name TEXT,
                  body BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO item SELECT i, i * 7919 % 101, (i * 104729 % 10007) / 100.0,
    printf('item %06d %x', i * 7919 % 60013, i * 2654435761 % 4294967296),
    zeroblob(i * 31 % 400) FROM n;
CREATE INDEX by_kind ON item(kind, price);
CREATE UNIQUE INDEX by_name ON item(name);
CREATE TABLE kind(kind INTEGER PRIMARY KEY, label TEXT);
INSERT INTO kind SELECT DISTINCT kind, 'kind ' || kind FROM item;
SELECT count(*), sum(kind), round(avg(price), 6), sum(length(body)) FROM item;
SELECT label, count(*), round(sum(price), 4), min(name), max(name)
    FROM item JOIN kind USING (kind) GROUP BY label ORDER BY label;
SELECT id, rank FROM (SELECT id, row_number() OVER
    (PARTITION BY kind ORDER BY price DESC, id) AS rank FROM item)
    WHERE rank <= 2 ORDER BY id LIMIT 200;
SELECT length(group_concat(name, ';')) FROM item;
SELECT json_extract(j, '$[500].name'), json_array_length(j) FROM
    (SELECT json_group_array(json_object('id', id, 'name', name)) AS j FROM
    (SELECT * FROM item ORDER BY id LIMIT 20000));
BEGIN; DELETE FROM item WHERE kind < 50; SELECT count(*) FROM item; ROLLBACK;
UPDATE item SET name = name || '!' WHERE id % 3 = 0;
DELETE FROM item WHERE id % 5 = 0;
CREATE VIRTUAL TABLE words USING fts5(id UNINDEXED, text);
INSERT INTO words SELECT id, replace(name, '7', ' seven ') FROM item;
INSERT INTO words(words) VALUES ('optimize');
INSERT INTO words(words) VALUES ('integrity-check');
SELECT count(*), min(id) FROM words WHERE words MATCH 'seven AND item NOT 0*';
SELECT snippet(words, 1, '<', '>', '...', 4) FROM words
    WHERE words MATCH '"seven 3"' ORDER BY rank, id LIMIT 5;
CREATE VIRTUAL TABLE place USING rtree(id, x0, x1, y0, y1);
INSERT INTO place SELECT id, id % 500, id % 500 + 3, id / 500, id / 500 + 2
    FROM item WHERE id < 30000;
SELECT count(*), sum(id) FROM place WHERE x0 > 100 AND x1 < 130 AND y0 > 20 AND y1 < 30;
SAVEPOINT a; UPDATE item SET body = zeroblob(3000000) WHERE id = 1;
SELECT length(body) FROM item WHERE id = 1; ROLLBACK TO a; RELEASE a;
PRAGMA integrity_check;
VACUUM;
ANALYZE;
PRAGMA integrity_check;
SELECT count(*) FROM item a JOIN item b ON b.id = a.kind * 500;
END
expect 'the integrity check, twice' "$(grep -cx ok output)" 2
expect 'the first count' "$(sed -n 2p output | cut -d '|' -f 1)" 60000
cat output
under sqlite3 data.db .dump | sha256sum
# A copy by the interface for backups; then a page of it is lost.
under sqlite3 data.db '.backup copy.db'
expect 'the copy' "$(sqlite3 copy.db .dump | sha256sum)" \
    "$(sqlite3 data.db .dump | sha256sum)"
printf 'lost' | dd of=copy.db bs=4096 seek=700 conv=notrunc status=none
for order in 'PRAGMA integrity_check' .recover; do
    under sqlite3 copy.db "$order" >said || echo "status $?"
    sha256sum said
done
# A limit of its own, which counts what malloc_usable_size says.
AS=limit under sqlite3 data.db 'PRAGMA hard_heap_limit = 2000000;
    SELECT length(zeroblob(1000000) || zeroblob(900000))' || echo "status $?"
grep -o 'out of memory' "$REPORTS/limit"
