#!/bin/bash
# libreoffice - LibreOffice without a screen: a text and a table are made from plain
# ones, and converted to other forms and back.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

awk 'BEGIN {
    print "<html><head><title>a text</title></head><body>"
    for (i = 1; i <= 60; i++) {
        printf "<h2>Chapter %d</h2>\n<p>", i
        for (j = 0; j < 60; j++) printf "word%d <b>bold %x</b> ", i * j % 97, i * j
        print "</p><table border=1>"
        for (j = 0; j < 4; j++) print "<tr><td>" i * j "</td><td>" i + j "</td></tr>"
        print "</table>"
    }
    print "</body></html>"
}' >text.html
awk 'BEGIN {
    print "id,kind,price,name,sum"
    for (i = 1; i <= 2000; i++)
        printf "%d,%d,%.2f,name %d,=A%d*C%d\n", i, i * 7919 % 101, i * 31 % 997 / 7,
            i % 50, i + 1, i + 1
}' >table.csv
convert() { # FORM FILE [OPTION]: a document into another form
    AS="to-${1%%:*}-$2" under soffice --headless --norestore --nologo \
        "-env:UserInstallation=file://$PWD/profile" "${@:3}" --convert-to "$1" "$2" \
        >>soffice.log
    [ -s "${2%.*}.${1%%:*}" ] || die "$2 was not converted to $1"
}
trap 'tail -n 20 soffice.log >&2' ERR
convert odt text.html '--infilter=HTML (StarWriter)'
convert docx text.odt
convert pdf text.docx
head -c 5 text.pdf && echo
tail -c 6 text.pdf
# A page of the outline has a line of its own, the rest is packed.
grep -ac '/Type */Page[^s]' text.pdf
convert 'txt:Text (encoded):UTF8' text.docx
sha256sum text.txt
wc -lw <text.txt
convert ods table.csv
convert xlsx table.ods
rm table.csv
convert csv table.xlsx
sha256sum table.csv
head -n 3 table.csv
