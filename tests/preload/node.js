// node.js - the program of the check node: four worker threads, each with
// objects, strings, buffers, compression and hashes; results in order.
'use strict';
const { Worker, isMainThread, parentPort, workerData } =
    require('worker_threads');
const crypto = require('crypto');
const zlib = require('zlib');

const sha = (data) => crypto.createHash('sha256').update(data).digest('hex');

function work(seed) {
  let state = seed;
  const rnd = () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 8;
  const map = new Map();
  for (let i = 0; i < 60000; i++) {
    const key = 'k' + rnd() % 5000;
    map.set(key, (map.get(key) || '') + (rnd() % 10));
  }
  const text = JSON.stringify([...map].sort());
  const again = JSON.parse(text);
  const packed = zlib.gzipSync(Buffer.from(text), { level: 6 });
  if (zlib.gunzipSync(packed).toString() !== JSON.stringify(again)) {
    throw new Error('compression lost something');
  }
  const parts = [];
  for (let i = 0; i < 3000; i++) {
    parts.push(Buffer.alloc(rnd() % 8000, i & 255));
  }
  const joined = Buffer.concat(parts);
  const brotli = zlib.brotliCompressSync(joined.subarray(0, 1 << 20), {
    params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 },
  });
  const key = crypto.pbkdf2Sync(text.slice(0, 100), 'salt', 2000, 32, 'sha256');
  return [seed, map.size, sha(text), joined.length, sha(joined),
    sha(zlib.brotliDecompressSync(brotli)), sha(key)].join(' ');
}

if (!isMainThread) {
  const shared = new Int32Array(workerData.shared);
  parentPort.on('message', (seed) => {
    if (seed === null) return parentPort.close();
    const result = work(seed);
    Atomics.add(shared, 0, 1);
    parentPort.postMessage({ seed, result, big: new Uint8Array(100000) });
  });
} else {
  const shared = new SharedArrayBuffer(4);
  const results = new Map();
  let next = 1;
  let ended = 0;
  const feed = (worker) => worker.postMessage(next <= 12 ? next++ : null);
  for (let i = 0; i < 4; i++) {
    const worker = new Worker(__filename, { workerData: { shared } });
    worker.on('message', (message) => {
      results.set(message.seed, message.result);
      feed(worker);
    });
    worker.on('error', (error) => { throw error; });
    worker.on('exit', (code) => {
      if (code !== 0) throw new Error('a worker ended with ' + code);
      if (++ended < 4) return;
      for (let seed = 1; seed <= 12; seed++) console.log(results.get(seed));
      console.log('done', new Int32Array(shared)[0]);
    });
    feed(worker);
  }
}
