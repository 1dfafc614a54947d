#!/usr/bin/env python3
"""sbom_check.py - whether a list of what is in a build is well formed and true.

    sbom_check.py FILE.spdx.json BUILD

Every identifier is unique and every relation's ends exist, each file's checksum is
that of the file, what SPDX 2.3 requires is there, libhakmem.so's libraries are said to
be linked, and zstd to what records and replays and to nothing else.
"""
import hashlib
import json
import pathlib
import re
import subprocess
import sys

REQUIRED = {
    "packages": ("SPDXID", "name", "downloadLocation", "licenseDeclared"),
    "files": ("SPDXID", "fileName", "checksums"),
    "relationships": ("spdxElementId", "relationshipType", "relatedSpdxElement"),
}


def main(words):
    """Returns the exit status."""
    said = json.loads(pathlib.Path(words[0]).read_text(encoding="utf-8"))
    build = pathlib.Path(words[1])
    bad = []
    for name in ("spdxVersion", "dataLicense", "documentNamespace", "creationInfo"):
        if not said.get(name):
            bad.append(f"no {name}")
    for kind, names in REQUIRED.items():
        for one in said[kind]:
            bad += [f"{kind}: no {name} in {one}" for name in names
                    if not one.get(name)]
    known = [one["SPDXID"] for one in [said, *said["packages"], *said["files"]]]
    if len(known) != len(set(known)):
        bad.append("an SPDXID is there twice")
    for line in said["relationships"]:
        bad += [f"{line[end]} is nothing" for end in
                ("spdxElementId", "relatedSpdxElement") if line[end] not in known]
    for one in said["files"]:
        data = (build / one["fileName"]).read_bytes()
        sums = {line["algorithm"]: line["checksumValue"] for line in one["checksums"]}
        if sums["SHA256"] != hashlib.sha256(data).hexdigest():
            bad.append(f"{one['fileName']} is another file")
    linked = {line["relatedSpdxElement"] for line in said["relationships"]
              if line["relationshipType"] == "DYNAMIC_LINK"
              and line["spdxElementId"] == "SPDXRef-File-libhakmem.so"}
    needed = subprocess.run(["readelf", "-d", build / "libhakmem.so"], text=True,
                            stdout=subprocess.PIPE, check=True).stdout
    if bool(linked) != bool(re.search("NEEDED", needed)):
        bad.append("what is linked to libhakmem.so is not told")
    with_zstd = {line["spdxElementId"] for line in said["relationships"]
                 if line["relatedSpdxElement"] == "SPDXRef-Package-zstd"}
    for one in said["files"]:
        known = one["fileName"].endswith(("/hakmem-replay", "/libhakmem_record.so"))
        if known != (one["SPDXID"] in with_zstd):
            bad.append(f"{one['fileName']}: zstd is{'' if known else ' not'} linked to it")
    print("\n".join(bad), end="\n" if bad else "")
    return 1 if bad else 0


sys.exit(main(sys.argv[1:]))
