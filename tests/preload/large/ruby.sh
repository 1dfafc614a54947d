#!/bin/bash
# ruby - Ruby: hashes, strings, regular expressions, threads, fibers, ractors,
# processes, the collector and its compaction; standard libraries in C.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.rb <<'CODE'
require 'json'
require 'digest'
require 'zlib'
require 'set'
require 'erb'
require 'bigdecimal'
require 'stringio'
require 'yaml'
require 'openssl'
GC.auto_compact = true if ARGV[0] == 'compact'
seed = 42
rnd = -> { (seed = (seed * 1103515245 + 12345) % 2147483648) >> 8 }
sha = ->(text) { Digest::SHA256.hexdigest(text) }
words = Array.new(60_000) { Array.new(3 + rnd.() % 8) { (97 + rnd.() % 26).chr }.join }
count = words.tally
puts count.size, sha.(count.sort.join(','))
text = words.join(' ')
puts sha.(text.gsub(/([aeiou])(\w)/) { $2.upcase + $1 })
records = (1..20_000).map { |i| { id: i, key: rnd.() % 1000, list: Array.new(10) { rnd.() } } }
sorted = records.sort_by { |r| [r[:key], -r[:id]] }
puts sorted.first(10).map { |r| r[:id] }.join(' ')
copy = Marshal.load(Marshal.dump(sorted))
raise 'copy' unless copy == sorted
json = JSON.generate(sorted)
raise 'json' unless JSON.parse(json, symbolize_names: true) == sorted
puts json.size, sha.(json), sha.(YAML.dump(sorted.first(500)))
puts Zlib::Inflate.inflate(Zlib::Deflate.deflate(json)).size
grow = +''
200_000.times { |i| grow << i.to_s << ';' }
puts grow.size, sha.(grow)
puts (1..600).inject(:*).to_s.size, (BigDecimal('2') ** 2000).to_s('F').size
threads = 4.times.map do |t|
  Thread.new { h = Hash.new(0); 50_000.times { |i| h["k#{i * (t + 1) % 997}"] += i }; sha.(h.sort.to_s) }
end
puts threads.map(&:value)
fibers = 500.times.map { |i| Fiber.new { 3.times { |j| Fiber.yield i * j }; :end } }
puts 3.times.sum { fibers.sum(&:resume) }
ractors = 3.times.map { |n| Ractor.new(n) { |m| (1..30_000).map { |i| (i * m).to_s }.join.size } }
puts ractors.map(&:take).join(' ')
puts 4.times.map { |n|
  reader, writer = IO.pipe
  pid = fork do
    reader.close
    writer.write(sha.(Array.new(20_000) { |i| "#{n}#{i}" }.sort.join))
    writer.close
  end
  writer.close
  answer = reader.read
  Process.wait(pid)
  "#{answer} #{$?.exitstatus}"
}
puts `echo a program; exit 3`, $?.exitstatus
puts ERB.new('<% 2000.times do |i| %><%= i %>,<% end %>').result.size
key = OpenSSL::PKCS5.pbkdf2_hmac('pass', 'salt', 2000, 32, 'sha256')
puts key.unpack1('H*')
def deep(n) = deep(n + 1)
begin; deep(0); rescue SystemStackError => e; puts e.class; end
begin; 'x' * (1 << 62); rescue ArgumentError, NoMemoryError => e; puts e.class; end
5.times { GC.start; GC.compact }
puts ObjectSpace.each_object(Class).count > 100, 'done'
CODE
under ruby -W0 program.rb >output
expect 'the last line' "$(tail -n 1 output)" 'done'
cat output
AS=compact under ruby -W0 program.rb compact >again
cmp output again
AS=jit under ruby -W0 --yjit program.rb >again ||
    grep -q yjit "$REPORTS/jit" || die 'the compiler of Ruby fails'
