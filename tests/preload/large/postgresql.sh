#!/bin/bash
# postgresql - a database under pgbench for 30 s (10 s without the library), a
# dump and its restore, an index built by parallel workers; checksums verified.
# The server refuses to run as root.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

bin=$(echo /usr/lib/postgresql/*/bin)
bin=${bin##* }
[ -x "$bin/postgres" ] || die "there is no PostgreSQL in $bin"
if [ "$(id -u)" -eq 0 ]; then
    before=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    # Another user reads the library, and writes what the loader says of it.
    chmod 711 .
    chmod 1777 "$REPORTS" "$TMPDIR"
    if [ -n "$LIBRARY" ]; then
        install -D -m 755 "$LIBRARY" "lib/${LIBRARY##*/}"
        LIBRARY=$PWD/lib/${LIBRARY##*/}
    fi
    install -d -o 65534 -g 65534 run
else
    mkdir run
fi
cd run
export PGHOST=$PWD PGPORT=$PORT PGUSER=postgres PGDATA=$PWD/data

AS=initdb under "$bin/initdb" --data-checksums -U postgres \
    --no-locale -E UTF8 -A trust >initdb.log
cat >>data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$PWD'
shared_buffers = 64MB
work_mem = 1MB
fsync = off
max_parallel_maintenance_workers = 2
min_parallel_table_scan_size = 0
parallel_setup_cost = 0
parallel_tuple_cost = 0
jit = off
CONF
chown --reference=data data/postgresql.conf
start() {
    AS=$1 under "$bin/postgres" >postgres.log &
    server=$!
    until_true 60 'the server answers' "$bin/psql" -c 'SELECT 1' postgres
}
stop() {
    kill -INT "$(head -n 1 data/postmaster.pid)"
    wait "$server"
    "${before[@]}" "$bin/pg_checksums" --check | grep -e '^Bad' -e '^Data'
}
sql() { # of one database, one line an answer
    under "$bin/psql" -XAtq -v ON_ERROR_STOP=1 "$1"
}
trap 'tail -n 20 postgres.log "$REPORTS"/server* >&2' ERR
start server
mapped "$(head -n 1 data/postmaster.pid)"
"$bin/createdb" bench
AS=pgbench-init under "$bin/pgbench" -i -q -s 5 bench
seconds=30
[ -n "$LIBRARY" ] || seconds=10
AS=pgbench under "$bin/pgbench" -T "$seconds" -c 8 -j 2 -M prepared \
    bench >pgbench.log
expect 'failed transactions' \
    "$(awk '/^number of failed/ { print $5 }' pgbench.log)" 0
[ "$(awk '/actually processed/ { print $6 }' pgbench.log)" -gt 100 ] ||
    die 'hardly any transactions'
sql bench <<'SQL'
SELECT (SELECT sum(abalance) FROM pgbench_accounts)
     = (SELECT sum(delta) FROM pgbench_history) AS accounts,
       (SELECT sum(bbalance) FROM pgbench_branches)
     = (SELECT sum(delta) FROM pgbench_history) AS branches,
       (SELECT sum(tbalance) FROM pgbench_tellers)
     = (SELECT sum(delta) FROM pgbench_history) AS tellers,
       (SELECT count(*) FROM pgbench_accounts);
SQL
"$bin/createdb" work
sql work <<'SQL'
CREATE EXTENSION amcheck;
CREATE TABLE item(id INT PRIMARY KEY, kind INT, price NUMERIC, name TEXT, more JSONB);
INSERT INTO item SELECT i, i * 7919 % 101, (i * 104729::bigint % 10007) / 100.0,
    md5(i::text) || repeat('x', i % 300), jsonb_build_object('id', i, 'list',
    jsonb_build_array(i % 7, i % 11, md5(i::text))) FROM generate_series(1, 60000) i;
CREATE INDEX by_kind ON item(kind, price);
CREATE INDEX by_more ON item USING gin(more);
CREATE INDEX by_name ON item(name);
SELECT bt_index_check(c.oid, true) FROM pg_class c
    WHERE relname IN ('by_kind', 'by_name', 'item_pkey');
ANALYZE;
SELECT count(*), sum(kind), round(avg(price), 6), sum(length(name)) FROM item;
SELECT kind, count(*), sum(price), min(name) FROM item GROUP BY kind ORDER BY kind LIMIT 20;
SELECT md5(string_agg(id || ':' || rank, ',' ORDER BY id)) FROM (SELECT id, row_number()
    OVER (PARTITION BY kind ORDER BY price DESC, id) AS rank FROM item) ranks;
SELECT count(*) FROM item WHERE more @> '{"list": [3]}';
SELECT md5(string_agg(upper(regexp_replace(name, '([a-f])(\d)', '\2\1', 'g')), ''
    ORDER BY id)) FROM item;
SELECT count(*), sum(a.id) FROM item a JOIN item b ON a.kind = b.id JOIN item c ON c.name = b.name;
DO $$ DECLARE n INT := 0; BEGIN
    FOR i IN 1..20000 LOOP
        BEGIN
            n := n + 1;
            IF i % 10 = 0 THEN RAISE division_by_zero; END IF;
        EXCEPTION WHEN division_by_zero THEN n := n - 1;
        END;
    END LOOP;
    INSERT INTO item(id, kind) VALUES (-1, n);
END $$;
SELECT kind FROM item WHERE id = -1;
DELETE FROM item WHERE id % 3 = 0;
VACUUM (FULL, ANALYZE) item;
REINDEX TABLE item;
SQL
AS=dump under "$bin/pg_dump" -Fc -f dump work
"$bin/createdb" again
AS=restore under "$bin/pg_restore" -j 2 -d again dump
for name in work again; do
    "$bin/psql" -XAtq -c 'COPY (SELECT * FROM item ORDER BY id) TO STDOUT' "$name" |
        sha256sum
done
stop
# Once more, from its files.
start server-again
"$bin/psql" -XAtq -c 'SELECT count(*), sum(kind) FROM item' again
stop
! grep -E 'PANIC|terminated by signal' "$REPORTS"/server* || die 'the server complained'
