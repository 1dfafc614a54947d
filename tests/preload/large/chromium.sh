#!/bin/bash
# chromium - a browser without a screen: it has a malloc of its own, and must not be
# harmed. Scripts, workers and WebAssembly change the page that it prints.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >page.html <<'PAGE'
<!doctype html><title>page</title><body><script>
'use strict';
const out = [];
const say = (...words) => out.push(words.join(' '));
const hash = async (text) => [...new Uint8Array(await crypto.subtle.digest('SHA-256',
    new TextEncoder().encode(text)))].map((b) => b.toString(16).padStart(2, '0')).join('');
function work(seed) {
  const map = new Map();
  let state = seed;
  for (let i = 0; i < 100000; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const key = 'k' + (state >>> 8) % 5000;
    map.set(key, (map.get(key) || '') + state % 10);
  }
  return JSON.stringify([...map].sort());
}
const ask = (seed) => new Promise((resolve, reject) => {
  const worker = new Worker(URL.createObjectURL(new Blob(
      [work.toString() + ';onmessage = (m) => postMessage(work(m.data));'])));
  worker.onmessage = (m) => resolve(m.data);
  worker.onerror = reject;
  worker.postMessage(seed);
});
(async () => {
  for (const text of await Promise.all([1, 2, 3].map(ask))) say(text.length, text.slice(0, 60));
  const table = document.createElement('table');
  for (let i = 0; i < 500; i++) {
    const row = table.insertRow();
    for (let j = 0; j < 5; j++) row.insertCell().textContent = i * j;
  }
  document.body.append(table);
  say('rows', table.rows.length, 'sum', [...table.querySelectorAll('td')]
      .reduce((sum, cell) => sum + +cell.textContent, 0));
  table.remove();
  const canvas = document.createElement('canvas');
  const context = canvas.getContext('2d');
  for (let i = 0; i < 50; i++) { context.fillStyle = `rgb(${i * 5},9,9)`; context.fillRect(i, i, 20, 20); }
  say('pixels', context.getImageData(0, 0, 80, 80).data.reduce((a, b) => (a * 31 + b) >>> 0, 7));
  const wasm = await WebAssembly.instantiate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 7, 1,
      96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 7, 1, 3, 97, 100, 100, 0, 0, 10, 9, 1, 7, 0, 32, 0,
      32, 1, 106, 11]));
  say('wasm', wasm.instance.exports.add(40, 2));
  say('hash', await hash(work(9)));
  say('done');
})().catch((error) => say('failed', error)).then(() => { document.body.textContent = out.join('\n');
  return fetch('/done', { method: 'POST' }); });
</script><img src=wait></body>
PAGE
# A page is printed once it is loaded: its picture is answered when the script is
# through.
cat >server.py <<'CODE'
import http.server
import sys
import threading
done = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path == "/page.html"
        if not found:
            done.wait(60)
        else:
            done.clear()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        if found:
            self.wfile.write(open("page.html", "rb").read())
    def do_POST(self):
        done.set()
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])),
                                Handler).serve_forever()
CODE
python3 server.py "$PORT" &
server=$!
page=http://127.0.0.1:$PORT/page.html
until_true 60 'the page is served' curl -sf "$page"
browser=(chromium --headless --no-sandbox --disable-gpu --disable-quic
    --no-first-run --disable-background-networking --disable-component-update
    --disable-sync --disable-dev-shm-usage --disable-breakpad
    --disable-crash-reporter --no-default-browser-check
    "--user-data-dir=$PWD/profile")
export DBUS_SESSION_BUS_ADDRESS=/dev/null
unserved "${browser[@]}" --dump-dom "$page" \
    >printed 2>chromium.log || die "$(tail -n 20 chromium.log)"
sed '/<script>/,/<\/script>/d' printed
grep -q '^done' printed || die 'the page has not changed to the end'
unserved "${browser[@]}" --screenshot="$PWD/shot.png" --window-size=300,200 \
    "$page" >>chromium.log 2>&1
head -c 4 shot.png | tail -c 3
echo
# Every process of the browser has it.
unserved "${browser[@]}" --remote-debugging-port=0 "$page" >>chromium.log 2>&1 &
starter=$!
there_are_four() {
    [ "$(processes chromium | wc -l)" -ge 4 ]
}
until_true 60 'the browser is there' there_are_four
for process in $(processes chromium); do
    mapped "$process" || ! [ -e "/proc/$process" ] ||
        die "process $process has not the library"
done
gone() {
    # shellcheck disable=SC2046  # several
    kill $(processes chromium) || true
    [ -z "$(processes chromium)$(processes chrome_crashpad)" ]
}
until_true 60 'the browser has gone' gone
kill "$server"
wait "$starter" "$server" || true
# One that the library does serve.
under ls printed
