#!/bin/bash
# php - PHP's command line: a program, files it includes, the opcache with its
# compiler, its allocator and ours (USE_ZEND_ALLOC=0), its web server's workers.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

mkdir parts
for i in $(seq 200); do
    cat >"parts/part$i.php" <<CODE
<?php
namespace Part$i;
const NAME = 'part $i';
class Thing implements \JsonSerializable {
    private array \$items = [];
    public function __construct(private int \$seed = $i) {}
    public function add(string \$key, mixed \$value): static {
        \$this->items[\$key][] = \$value;
        return \$this;
    }
    public function jsonSerialize(): array {
        return ['seed' => \$this->seed, 'items' => \$this->items];
    }
}
return static function (int \$n): int { return \$n * $i % 9973; };
CODE
done
cat >program.php <<'CODE'
<?php
$functions = [];
foreach (range(1, 200) as $i) {
    $functions[$i] = include __DIR__ . "/parts/part$i.php";
}
echo count(get_included_files()), ' files, sum ',
    array_sum(array_map(fn ($f) => $f(12345), $functions)), "\n";
$things = [];
foreach (range(1, 200) as $i) {
    $class = "Part$i\\Thing";
    $thing = new $class();
    foreach (range(1, 50) as $j) {
        $thing->add('k' . ($i * $j) % 17, str_repeat(chr(65 + $j % 26), $j));
    }
    $things[] = $thing;
}
$json = json_encode($things);
echo strlen($json), ' ', hash('sha256', $json), "\n";
echo hash('sha256', serialize(unserialize(serialize(json_decode($json, true))))), "\n";
function primes(int $limit): Generator {
    $composite = [];
    for ($i = 2; $i <= $limit; $i++) {
        if (isset($composite[$i])) { continue; }
        yield $i;
        for ($j = $i * $i; $j <= $limit; $j += $i) { $composite[$j] = true; }
    }
}
$sum = 0;
foreach (primes(300000) as $prime) { $sum += $prime; }
echo "primes: $sum\n";
$text = '';
for ($i = 0; $i < 20000; $i++) { $text .= sprintf('%05d:%x;', $i, $i * 2654435761 % 4294967296); }
preg_match_all('/(\d+):([0-9a-f]*7[0-9a-f]*);/', $text, $found, PREG_SET_ORDER);
echo count($found), ' ', hash('sha256', preg_replace_callback('/[a-f]+/',
    fn ($m) => strtoupper(strrev($m[0])), $text)), "\n";
// Rings that only the collector frees.
for ($i = 0; $i < 200000; $i++) { $a = new stdClass(); $b = new stdClass(); $a->b = $b; $b->a = $a; }
echo 'collected: ', gc_collect_cycles() >= 0 ? 'yes' : 'no', "\n";
usort($found, fn ($x, $y) => [$x[2], $x[1]] <=> [$y[2], $y[1]]);
echo hash('sha256', implode(',', array_column($found, 2))), "\n";
$big = new SplFixedArray(500000);
for ($i = 0; $i < 500000; $i++) { $big[$i] = $i ^ 0x5555; }
echo array_sum($big->toArray()), "\n";
try { intdiv(1, 0); } catch (DivisionByZeroError $e) { echo get_class($e), "\n"; }
$closed = tempnam(sys_get_temp_dir(), 'php');
file_put_contents($closed, gzencode($text, 6));
echo strlen(gzdecode(file_get_contents($closed))), "\n";
unlink($closed);
if (function_exists('opcache_get_status')) {
    $status = opcache_get_status();
    echo 'opcache: ', $status ? $status['opcache_statistics']['num_cached_scripts'] : 'off',
        ' jit: ', $status && $status['jit']['on'] ? 'on' : 'off', "\n";
}
CODE
jit=(-d opcache.enable_cli=1 -d opcache.jit=tracing
    -d opcache.jit_buffer_size=32M -d opcache.protect_memory=1
    -d opcache.file_update_protection=0)
under php program.php | tee output
expect 'the first line' "$(cut -d , -f 1 output | head -n 1)" '201 files'
AS=opcache under php "${jit[@]}" program.php | tee output
expect 'the last line' "$(tail -n 1 output)" 'opcache: 201 jit: on'
mkdir cache
for round in 1 2; do
    AS=cache-$round under php "${jit[@]}" -d opcache.file_cache="$PWD/cache" \
        program.php
done
export USE_ZEND_ALLOC=0
AS=malloc under php program.php
AS=malloc-jit under php "${jit[@]}" program.php
unset USE_ZEND_ALLOC
# A limit of PHP's own is an error of the program, not the end of the world.
# shellcheck disable=SC2016  # PHP's
AS=limit under php -d display_errors=1 -d memory_limit=64M -r \
    '$a = []; while (true) { $a[] = str_repeat("x", 100000); }' |
    grep -o 'Allowed memory size of [0-9]* bytes exhausted' || true

# A server with workers that are forked.
mkdir site
cat >site/index.php <<'CODE'
<?php
header('Content-Type: text/plain');
$n = (int) $_GET['n'];
echo $n, ' ', hash('sha256', str_repeat((string) $n, $n * 100)), "\n";
CODE
PHP_CLI_SERVER_WORKERS=3 AS=server under php -S "127.0.0.1:$PORT" -t site &
server=$!
until_true 60 'the server answers' curl -sf "http://127.0.0.1:$PORT/?n=1"
for n in $(seq 60); do
    curl -sf "http://127.0.0.1:$PORT/?n=$n"
done | sha256sum
all=$(processes php)
[ "$(wc -w <<<"$all")" -ge 4 ] || die 'there are no workers'
for process in $all; do
    mapped "$process"
done
# shellcheck disable=SC2086  # several
kill -INT $all 2>/dev/null || true
wait "$server" || true
