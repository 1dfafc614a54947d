#!/bin/bash
# octave - GNU Octave: matrices, cells, strings, files, errors; its own tests of
# some functions.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.m <<'CODE'
x = reshape(mod((1:40000) * 7919, 10007), 200, 200) / 10007 + eye(200);
printf("%.6f %.6f\n", sum(sum(inv(x) * x)), norm(svd(x)));
printf("%.6f\n", sum(abs(fft(x(:)))) / 1e6);
c = cell(1, 20000);
for i = 1:20000
  c{i} = sprintf("%d:%x", i, i * 31);
end
s = strjoin(c, ";");
printf("%d %s\n", length(s), hash("sha256", s));
printf("%s\n", hash("sha256", regexprep(s, '([a-f])(\d)', '$2$1')));
m = containers.Map();
for i = 1:5000
  m(sprintf("k%d", mod(i * 31, 997))) = i;
end
printf("%d %d\n", m.Count, sum(cell2mat(values(m))));
grow = [];
for i = 1:20000
  grow(end + 1) = i ^ 2;
end
printf("%d\n", sum(grow));
st = struct("a", num2cell(1:1000));
printf("%d\n", sum([st.a]));
a = sprand(2000, 2000, 0.001) + speye(2000);
printf("%d\n", full(sum(sum(a * (a \ speye(2000)) > 0.5))));
f = tempname();
save("-binary", f, "x", "c");
y = load(f);
printf("%d %d\n", isequal(y.x, x), isequal(y.c, c));
delete(f);
try
  ones(1e7, 1e7);
catch e
  disp(e.message);
end
printf("%d\n", sum(arrayfun(@(n) mod(n, 7), 1:20000)));
printf("%.8f\n", quad(@(t) exp(-t .^ 2), 0, 3), fzero(@cos, [1 2]));
[t, z] = ode45(@(t, z) [z(2); -z(1)], [0 5], [1 0]);
printf("%.5f\n", z(end, 1));
names = {"strsplit", "strjoin", "interp1", "polyfit", ...
  "sortrows", "unique", "cross", "num2str", "inputParser", "nthargout", ...
  "bitcmp", "circshift", "accumarray", "validatestring", "datestr", "triplequad"};
for i = 1:numel(names)
  try
    [n, most] = test(names{i}, "quiet", [tempdir "/log"]);
    printf("%s: %d of %d\n", names{i}, n, most);
  catch e
    printf("%s: %s\n", names{i}, e.message);
  end
end
disp("done");
CODE
under octave-cli --norc --no-history program.m >output
expect 'the last line' "$(tail -n 1 output)" 'done'
cat output
