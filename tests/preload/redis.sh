#!/bin/bash
# redis - a server under redis-benchmark, then known values, a snapshot by a
# forked child, a reload of all keys, a clean end.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cli() {
    redis-cli -h 127.0.0.1 -p "$PORT" "$@"
}

AS=server under redis-server --port "$PORT" --bind 127.0.0.1 --save '' \
    --appendonly no --dir "$PWD" --daemonize no --io-threads 2 \
    --enable-debug-command local >server.log &
server=$!
trap 'tail -n 20 server.log >&2' ERR
until_true 60 'the server answers' cli ping

tests=set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100,mset
AS=benchmark under redis-benchmark -h 127.0.0.1 -p "$PORT" -n 2000 -c 20 \
    -d 700 -t "$tests" --csv >table
cut -d , -f 1 table
expect 'the counter' "$(cli get counter:__rand_int__)" 2000
cli flushall

awk 'BEGIN {
    for (i = 0; i < 20000; i++) {
        value = ""
        for (j = 0; j < i % 37; j++) value = value "v" (i * 31 + j) % 9973
        printf "SET key:%d \"%s\"\n", i, value
        printf "APPEND key:%d %d\n", i % 100, i
        printf "HSET hash:%d f%d %d\n", i % 50, i, i * i
        printf "ZADD scores %d m%d\n", i * 7919 % 10007, i
        printf "RPUSH list:%d e%d\n", i % 10, i
        if (i % 3 == 0) printf "DEL key:%d\n", i / 2
    }
}' >commands
cli --pipe <commands
values() {
    cli dbsize
    awk 'BEGIN { for (i = 0; i < 20000; i += 7) print "GET key:" i }' | cli |
        sha256sum
    for hash in 0 7 49; do
        cli hgetall "hash:$hash" | paste - - | sort | sha256sum
    done
    cli zrange scores 0 -1 withscores | sha256sum
    cli lrange list:3 0 -1 | sha256sum
    cli xrange stream - + | sha256sum
    cli pfcount many
    cli geosearch places fromlonlat 10 10 byradius 900 km asc | sha256sum
    cli bitcount bits
    cli getrange script 100000 100200
}
for i in $(seq 200); do
    echo "XADD stream $i-1 n $i text $(printf '%0*d' $((i % 90)) 7)"
    echo "PFADD many a$i b$((i % 50))"
    echo "GEOADD places $((i % 170)).5 $((i % 80)).25 place$i"
    echo "SETBIT bits $((i * 7919)) 1"
done | cli --pipe
# Lua's memory is the same allocator's.
cli eval "local t = {} for i = 1, 20000 do t[i] = i .. ':' .. (i * 31) end
    redis.call('SET', 'script', table.concat(t, ';')) return #t" 0
cli eval "return cjson.encode({#redis.call('GET', 'script'), redis.sha1hex(
    redis.call('GET', 'script')), cmsgpack.unpack(cmsgpack.pack('x'))})" 0
values | tee before
cli bgsave
saved() {
    [ "$(cli info persistence | tr -d '\r' |
        grep -c -e '^rdb_bgsave_in_progress:0' \
            -e '^rdb_last_bgsave_status:ok')" -eq 2 ]
}
until_true 60 'the snapshot is written' saved
cli debug reload
values >after
cmp before after
# Its log of commands is written anew, and read.
cli config set appendonly yes
written() {
    [ "$(cli info persistence | tr -d '\r' |
        grep -c -e '^aof_rewrite_in_progress:0' -e '^aof_enabled:1' \
            -e '^aof_rewrite_scheduled:0' -e '^aof_last_bgrewrite_status:ok')" \
        -eq 4 ]
}
until_true 60 'the log is written' written
cli bgrewriteaof
until_true 60 'the log is written anew' written
cli debug loadaof
values >after
cmp before after
cli memory purge
cli config set appendonly no
cli config set maxmemory 1mb
cli config set maxmemory-policy allkeys-random
cli config set maxmemory 0
cli flushall
expect 'the size of the emptied database' "$(cli dbsize)" 0
cli shutdown nosave
wait "$server"
grep -o 'ready to exit, bye bye' server.log
