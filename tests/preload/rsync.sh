#!/bin/bash
# rsync - local, with a remote shell of its own, differences, checksums, links,
# deletions, compression; the copies are the same.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

mkdir source
for i in $(seq 300); do
    mkdir -p "source/$((i % 17))/sub"
    seq "$i" $((i * 37 % 3000 + i)) >"source/$((i % 17))/sub/file$i"
done
seq 400000 >source/big
ln -s big source/link
ln source/big source/hard
chmod 600 source/3/sub/file3
find source -exec touch -h -d @1700000000 {} +
cat >remote <<'END_REMOTE'
#!/bin/sh
shift
exec "$@"
END_REMOTE
chmod +x remote
list() { # what is there, but for the size of directories and a part of a second
    (cd "$1" && find . -mindepth 1 \( -type d -printf '%p %m %Ts\n' -o \
        -printf '%p %y %m %s %n %l %Ts\n' \) | sort &&
        find . -type f -exec sha256sum {} + | sort) | sha256sum
}
under rsync -aH --stats source/ local/ | grep -E '^(Number|Total file size)'
under rsync -aHz --rsh=./remote source/ host:"$PWD/far/"
expect 'the local copy' "$(list local)" "$(list source)"
expect 'the far copy' "$(list far)" "$(list source)"
sed -i 's/^77777$/changed/' source/big
sed -i '1000,1100d' source/5/sub/file5 source/big
rm -r source/7 source/3/sub/file3
echo new >source/new
find source -newermt @1700000001 -exec touch -h -d @1700001000 {} +
under rsync -aHz --rsh=./remote --delete --no-whole-file --checksum \
    --itemize-changes source/ host:"$PWD/far/" | sort
expect 'the far copy, anew' "$(list far)" "$(list source)"
under rsync -aH --delete --compare-dest=../local source/ part/
find part -type f | sort
list far
