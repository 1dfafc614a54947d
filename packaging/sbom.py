#!/usr/bin/env python3
"""sbom.py - what is in a build and what is linked to it: SPDX 2.3, as JSON.

    sbom.py BUILD FILE.spdx.json

Read from the built objects themselves (readelf: the libraries that each needs, the
compiler that made it), from VERSION and LICENSE. The same build gives the same
bytes: the date is SOURCE_DATE_EPOCH, the last commit's, or that of VERSION.
"""
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What a build may have of what is shipped.
SHIPPED = ("libhakmem*.so", "libhakmem.a", "libhakmem_malloc.a", "libhakmem_core.a",
           "libhakmem_lua.a", "hakmem_malloc.o", "lua/hakmem.so", "hakmem-*[a-z]",
           "nginx/objs/ngx_http_hakmem_module.so", "python-*/hakmem_py/*.so")
# Libraries by the names that objects need: package, SPDX's licence.
DYNAMIC = ((r"(lib(c|m|dl|rt|pthread)|ld-linux-[\w-]+)\.so\.\d$", "glibc",
            "LGPL-2.1-or-later"),
           (r"libgcc_s\.so\.1$", "libgcc",
            "GPL-3.0-or-later WITH GCC-exception-3.1"),
           (r"libc\.musl-.*|libc\.so$", "musl", "MIT"),
           (r"libzstd\.so\.1$", "zstd", "BSD-3-Clause OR GPL-2.0-only"))
# Those linked from archives, by how the names of their functions begin; built objects
# are not stripped.
STATIC = ((b"\0ZSTD_", "zstd", "BSD-3-Clause OR GPL-2.0-only"),)
# Whose process an object is loaded into.
HOSTS = (("lua/", "Lua 5.4", "MIT"), ("nginx/", "nginx", "BSD-2-Clause"),
         ("python-", "CPython", "PSF-2.0"))


def readelf(path, *options):
    """What readelf says of an object; nothing of other files."""
    return subprocess.run(["readelf", "--wide", *options, str(path)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env={**os.environ, "LC_ALL": "C"}, text=True,
                          check=False).stdout


def created():
    """The date that the document has."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch and (ROOT / ".git").exists():
        epoch = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True,
                               check=True).stdout
    when = int(epoch) if epoch else int((ROOT / "VERSION").stat().st_mtime)
    return datetime.datetime.fromtimestamp(when, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%SZ")


def ident(kind, name):
    """An SPDX identifier."""
    return f"SPDXRef-{kind}-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name)


class Document:
    """Packages, files and relations, each once."""

    def __init__(self, version):
        self.version = version
        self.ours = ident("Package", "hakmem")
        self.packages = {}
        self.files = []
        self.relations = []

    def relate(self, one, kind, other):
        """A relation, if it is new."""
        line = {"spdxElementId": one, "relationshipType": kind,
                "relatedSpdxElement": other}
        if line not in self.relations:
            self.relations.append(line)

    def related(self, one, other):
        """Whether there is any relation."""
        return any(line["spdxElementId"] == one and line["relatedSpdxElement"] == other
                   for line in self.relations)

    def package(self, name, licence, version=None):
        """Somebody else's package; returns its identifier."""
        key = ident("Package", name)
        self.packages.setdefault(key, {
            "SPDXID": key, "name": name, "filesAnalyzed": False,
            "downloadLocation": "NOASSERTION", "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence, "copyrightText": "NOASSERTION",
            **({"versionInfo": version} if version else {})})
        return key

    def file(self, path, name):
        """A file that we have built, and what is linked to it."""
        data = path.read_bytes()
        key = ident("File", name)
        self.files.append({
            "SPDXID": key, "fileName": f"./{name}", "fileTypes": ["BINARY"],
            "checksums": [
                {"algorithm": "SHA1", "checksumValue": hashlib.sha1(data).hexdigest()},
                {"algorithm": "SHA256",
                 "checksumValue": hashlib.sha256(data).hexdigest()}],
            "licenseConcluded": "MIT", "licenseInfoInFiles": ["MIT"],
            "copyrightText": copyright_text()})
        self.relate(self.ours, "CONTAINS", key)
        for library in re.findall(r"\(NEEDED\).*\[(.*)\]",
                                  readelf(path, "--dynamic")):
            if library.startswith("libhakmem"):
                continue
            name_of, licence = next(
                ((package, terms) for pattern, package, terms in DYNAMIC
                 if re.match(pattern, library)), (library, "NOASSERTION"))
            self.relate(key, "DYNAMIC_LINK", self.package(name_of, licence))
        for word, package, licence in STATIC:
            if word in data and not self.related(key, ident("Package", package)):
                self.relate(key, "STATIC_LINK", self.package(
                    package, licence, static_version(package)))
        for start, host, licence in HOSTS:
            if name.startswith(start):
                self.relate(self.package(host, licence), "BUILD_DEPENDENCY_OF", key)
        for compiler, number in re.findall(
                r"(GCC|clang)[^\n]*?(\d+\.\d+\.\d+)",
                readelf(path, "--string-dump=.comment")):
            tool = self.package(compiler.lower(), "NOASSERTION", number)
            self.relate(tool, "BUILD_TOOL_OF", self.ours)

    def json(self):
        """The whole."""
        sums = sorted(one["checksums"][0]["checksumValue"] for one in self.files)
        code = hashlib.sha1("".join(sums).encode()).hexdigest()
        ours = {
            "SPDXID": self.ours, "name": "hakmem", "versionInfo": self.version,
            "supplier": "Organization: HAKMEM authors",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": True,
            "packageVerificationCode": {"packageVerificationCodeValue": code},
            "primaryPackagePurpose": "LIBRARY", "licenseConcluded": "MIT",
            "licenseDeclared": "MIT", "licenseInfoFromFiles": ["MIT"],
            "copyrightText": copyright_text()}
        self.relate("SPDXRef-DOCUMENT", "DESCRIBES", self.ours)
        return {
            "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT", "name": f"hakmem-{self.version}",
            "documentNamespace":
                f"https://spdx.org/spdxdocs/hakmem-{self.version}-{code}",
            "creationInfo": {
                "created": created(),
                "creators": ["Organization: HAKMEM authors",
                             f"Tool: hakmem-sbom-{self.version}"]},
            "packages": [ours, *(self.packages[key] for key in sorted(self.packages))],
            "files": self.files,
            "relationships": sorted(self.relations, key=lambda line: tuple(
                line.values()))}


def copyright_text():
    """The licence's line."""
    return re.search(r"^Copyright.*$", (ROOT / "LICENSE").read_text(), re.M)[0]


def static_version(package):
    """The version of what was linked from an archive, or None."""
    done = subprocess.run(["pkg-config", "--modversion", f"lib{package}"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, check=False)
    return done.stdout.strip() or None


def main(words):
    """Returns the exit status."""
    if len(words) != 2:
        print("usage: sbom.py BUILD FILE.spdx.json", file=sys.stderr)
        return 2
    build = pathlib.Path(words[0])
    document = Document((ROOT / "VERSION").read_text().strip())
    found = sorted({path for pattern in SHIPPED for path in build.glob(pattern)
                    if path.is_file() and not path.is_symlink()})
    if not found:
        print(f"sbom.py: nothing is built in {build}; run `make`", file=sys.stderr)
        return 1
    for path in found:
        document.file(path, path.relative_to(build).as_posix())
    pathlib.Path(words[1]).write_text(
        json.dumps(document.json(), indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8")
    print(words[1])
    return 0


sys.exit(main(sys.argv[1:]))
