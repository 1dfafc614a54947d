#!/bin/bash
# python3 - Debian's Python runs its own tests of json, re and asyncio. The run
# without the library lists them; the run with it must pass or skip each, but
# for those that fail without the library too. What failed is tried once more
# (-w), as some tests of asyncio go by the clock.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$ROOT/tests/preload/lib.sh"

tests=(test_json test_re test_asyncio)
if [ -z "$LIBRARY" ]; then
    /usr/bin/python3 -m test --list-cases "${tests[@]}" | sort -u >cases
    [ "$(wc -l <cases)" -gt 2000 ] || die "there are hardly any tests"
    cat cases
    exit
fi

# The report is for this process alone: tests look at what children say.
cat >main.py <<'END'
import os, runpy, sys
os.environ.pop("HAKMEM_SHOW_STATS", None)
os.environ.pop("LD_DEBUG", None)
sys.path.pop(0)
runpy.run_module("test", run_name="__main__", alter_sys=True)
END
under /usr/bin/python3 main.py -w --junit-xml results.xml "${tests[@]}" >log ||
    tail -n 60 log >&2

# results good|bad FILE: the tests that have passed, or been skipped, in one of
# their tries; or those that never have.
results() {
    /usr/bin/python3 - "$@" <<'END'
import sys
import xml.etree.ElementTree
good, bad = set(), set()
for case in xml.etree.ElementTree.parse(sys.argv[2]).iter("testcase"):
    wrong = [*case.iter("failure"), *case.iter("error")]
    (bad if wrong else good).add(case.get("name"))
for name in good if sys.argv[1] == "good" else bad - good:
    print(name)
END
}

results good results.xml >passed
results bad results.xml >failed
if [ -s failed ]; then
    /usr/bin/python3 -m test --matchfile failed --junit-xml plain.xml \
        "${tests[@]}" >log || echo 'some fail without the library too:' >&2
    results bad plain.xml | tee -a passed >&2
    echo 'these fail with the library alone:' >&2
    sort failed passed | uniq -u | sort - failed | uniq -d >&2
fi
sort -u passed
