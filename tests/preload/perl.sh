#!/bin/bash
# perl - hashes, regular expressions, sorting, pack, closures, threads.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program <<'END'
use strict; use warnings;
use threads; use Digest::SHA qw(sha256_hex); use MIME::Base64;
use List::Util qw(sum max); use Storable qw(dclone freeze thaw);
my $seed = 42;
sub rnd { $seed = ($seed * 1103515245 + 12345) % 2147483648; $seed >> 8 }
sub words { map { join '', map { chr 97 + rnd() % 26 } 0 .. 2 + rnd() % 8 } 1 .. shift }
my $text = join ' ', words(60000);
my %count; $count{$_}++ for $text =~ /(\w+)/g;
print scalar(keys %count), ' ', sha256_hex(join ',', map { "$_$count{$_}" } sort keys %count), "\n";
(my $other = $text) =~ s/([aeiou])(\w)/\U$2\E$1/g;
print sha256_hex($other), "\n";
my @records = map { { id => $_, key => rnd() % 1000, list => [map { rnd() } 1 .. 10] } } 1 .. 20000;
my @sorted = sort { $a->{key} <=> $b->{key} || $b->{id} <=> $a->{id} } @records;
print join(' ', map { $_->{id} } @sorted[0 .. 9]), ' ', sum(map { max @{$_->{list}} } @sorted), "\n";
my $copy = thaw freeze dclone \@sorted;
die 'copy' unless $copy->[777]{list}[5] == $sorted[777]{list}[5];
my $packed = pack '(N n A8)*', map { ($_, $_ % 65536, "r$_") } 1 .. 30000;
my @back = unpack '(N n A8)*', $packed;
print scalar(@back), ' ', sha256_hex(decode_base64 encode_base64 $packed), "\n";
my $grow = ''; $grow .= "$_;" for 1 .. 300000;
print length($grow), ' ', sha256_hex($grow), "\n";
my @adders = map { my $n = $_; sub { $n += shift } } 1 .. 5000;
print sum(map { $_->(3); $_->(4) } @adders), "\n";
my @threads = map { my $n = $_; threads->create(sub {
    my %h; $h{$_ % 997} .= chr(65 + ($_ * $n) % 26) for 1 .. 40000;
    sha256_hex(join ',', map { "$_=$h{$_}" } sort keys %h) }) } 1 .. 4;
print $_->join, "\n" for @threads;
END
under perl program >output
expect 'the sum over closures' "$(sed -n 6p output)" 12537500
cat output
