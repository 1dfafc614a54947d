#!/bin/bash
# nginx - two workers under ab, files compared byte by byte, plain and gzipped,
# before and after a reload (HUP); every worker ends with status 0.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

PATH=$PATH:/usr/sbin:/sbin
site=http://127.0.0.1:$PORT
mkdir html temp
cat >nginx.conf <<END
user $(id -un) $(id -gn);
worker_processes 2;
pid nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
    access_log access.log;
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    gzip on;
    gzip_types *;
    gzip_min_length 500;
    server {
        listen 127.0.0.1:$PORT;
        root html;
        location /ssi/ { ssi on; ssi_types *; alias html/; }
        location /list/ { autoindex on; alias html/; }
        location /through/ { proxy_pass $site/; }
    }
}
END
seq 500000 >numbers
for size in 0 1 999 16384 100000 3000000; do
    head -c "$size" numbers >"html/$size"
done
echo 'one, <!--# include virtual="/ssi/999" -->, two' >html/page

AS=nginx under nginx -p "$PWD" -c nginx.conf -e stderr -g 'daemon off;' &
server=$!
trap 'tail -n 20 "$REPORTS/nginx" >&2' ERR
until_true 60 'the server answers' curl -sf "$site/1"
# What nginx itself is: $server may be the shell around it.
master=$(cat nginx.pid)

load() { # PATH REQUESTS OPTION...
    ab -q "${@:3}" -n "$2" -c 20 -H 'Accept-Encoding: gzip' "$site/$1" >ab.log
    expect "complete ($1)" \
        "$(awk '/^Complete requests/ { print $3 }' ab.log)" "$2"
    expect "failed ($1)" "$(awk '/^Failed requests/ { print $3 }' ab.log)" 0
    ! grep Non-2xx ab.log || die "$1: answers that are no success"
}
fetch_all() {
    local size
    for size in 0 1 999 16384 100000 3000000; do
        for path in "$size" "through/$size"; do
            curl -sf "$site/$path" | cmp - "html/$size"
            curl -sf --compressed "$site/$path" | cmp - "html/$size"
        done
    done
    curl -sf -r 99990-2000000 "$site/3000000" | sha256sum
    curl -sf "$site/ssi/page" | sha256sum
    curl -sf "$site/list/" | grep -c href
    curl -s -o answer -w '%{http_code}\n' "$site/none"
}
gone() {
    [ "$(grep -c 'worker process [0-9]* exited with code 0' \
        "$REPORTS/nginx")" -ge "$1" ]
}

fetch_all
load 999 4000 -k
load through/16384 1000 -k
# No -k: a connection kept alive may be closed just as a request is sent.
kill -HUP "$master"
load 100000 500
until_true 60 'the old workers have gone' gone 2
fetch_all
load ssi/page 2000 -k
kill -QUIT "$master"
wait "$server"
gone 4 || die 'a worker did not end with status 0'
! grep -E '\[(alert|crit|emerg)\]|exited on signal' "$REPORTS/nginx" ||
    die 'nginx complained'
