#!/bin/bash
# git - a repository of 300 commits: clone, gc, fsck, merge, blame, archive.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@localhost
export GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@localhost
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
export GIT_CONFIG_NOSYSTEM=1
git config --global init.defaultBranch main
git config --global gc.auto 0

# A history for fast-import: every commit writes three of 60 files anew.
awk 'BEGIN {
    for (commit = 1; commit <= 300; commit++) {
        printf "commit refs/heads/main\n"
        printf "committer C <c@localhost> %d +0000\n", 1600000000 + commit
        printf "data <<E\ncommit %d\nE\n", commit
        for (part = 0; part < 3; part++) {
            file = (commit * 7 + part * 13) % 60
            printf "M 644 inline dir%d/file%d.txt\ndata <<E\n", file % 6, file
            for (line = 0; line < 150 + file; line++)
                printf "line %d of %d: %d\n", line, file, \
                    (line % 17 == commit % 17) ? commit * line : line * file
            printf "E\n"
        }
    }
}' >history

under git init -q one
cd one
under git fast-import --quiet <../history
under git checkout -q main
under git switch -q -c side main~100
seq 1000 >new.txt
under git add new.txt
under git commit -q -m 'a new file'
under git switch -q main
under git merge -q --no-edit side
cd ..
under git clone -q "file://$PWD/one" two
cd two
under git repack -q -a -d -f --depth=20 --window=20
under git gc -q --aggressive --prune=now
under git fsck --full --strict
under git status --porcelain
expect 'the number of commits' "$(under git rev-list --count HEAD)" 302
expect 'the clone' "$(git rev-parse HEAD)" "$(git -C ../one rev-parse HEAD)"
git rev-parse HEAD 'HEAD^{tree}'
under git rev-list --objects --all | sort | sha256sum
under git log -p --stat | sha256sum
under git archive HEAD | sha256sum
under git blame dir0/file0.txt | sha256sum
under git grep -c 'line 5 of' | sort | sha256sum
# Whatever git kept must be sound for a git without the library too.
git fsck --full --strict
