#!/usr/bin/env python3
"""Makes the man pages from the headers' comments and the .def tables.

    docs/make-man.py PAGE        writes PAGE.in, filled in, to stdout
    docs/make-man.py --links     prints "hak_NAME.3 PAGE" for every function
    docs/make-man.py --options   prints the names of all options

PAGE.in is in docs/ or in an adapter's folder. A page of section 3 is made from the
header of its name, in include/ or in the adapter's folder. The date is that of the newest source, or SOURCE_DATE_EPOCH. Whatever can't be understood
is an error that names the file and the line.
"""
import ast
import datetime
import os
import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATES = {path.stem: path for path in (
    *sorted(ROOT.glob("docs/*.in")), *sorted(ROOT.glob("adapters/*/*.[0-9].in")))}
HEADERS = {f"{path.stem}.3": path for path in (
    *sorted(ROOT.glob("include/*.h")), *sorted(ROOT.glob("adapters/*/*.h")))
           if f"{path.stem}.3" in TEMPLATES}
OPTIONS = [ROOT / "core" / "settings" / "options.def",
           *sorted(ROOT.glob("adapters/*/*_options.def"))]
STATS = ROOT / "include" / "hakmem_stats.def"
PYTHON = ROOT / "adapters" / "python"
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def fail(path, line, text):
    sys.exit(f"make-man: {path.relative_to(ROOT)}:{line}: {text}")


# ---- roff -------------------------------------------------------------------

def escape(text):
    """Plain text as roff text; a dash that begins a word is not a hyphen."""
    text = text.replace("\\", "\\e")
    text = re.sub(r"(?<![\w.])-(?=[\w-])", r"\\-", text)
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def running(text):
    """A paragraph: names set off, a sentence on a line of its own."""
    text = escape(" ".join(text.split()))
    text = re.sub(r"`([^`]+)`", r"\\fI\1\\fP", text)
    text = re.sub(r"\b(hak_\w+|HAK_\w+|HAKMEM_\w+|ngx_\w+|NGX_\w+|"
                  r"LD_PRELOAD|NULL|EINVAL|ENOMEM|PTRDIFF_MAX)\b(?!\.h)",
                  r"\\fB\1\\fP", text)
    lines = []
    for sentence in re.split(r"(?<=[.!?:]) (?=[A-Z\\])", text):
        lines += textwrap.wrap(sentence, 78, break_long_words=False,
                               break_on_hyphens=False)
    # A line must not begin with a control character by the wrapping.
    return "\n".join(re.sub(r"^([.'])", r"\\&\1", line) for line in lines)


def literal(lines):
    return "\n".join([".in +4n", ".EX", *map(escape, lines), ".EE", ".in"])


def paragraphs(lines, between):
    """A comment's lines; what is indented by four is kept as it is."""
    blocks, kind = [], None
    for line in lines:
        now = ("blank" if not line.strip()
               else "code" if line.startswith("    ") else "text")
        if now == "blank":
            kind = None if kind != "code" else kind
            if kind == "code" and blocks:
                blocks[-1][1].append("")
            continue
        if now != kind:
            blocks.append((now, []))
            kind = now
        blocks[-1][1].append(line[4:] if now == "code" else line)
    out = []
    for kind, block in blocks:
        while not block[-1]:
            block.pop()
        out.append(literal(block) if kind == "code"
                   else running(" ".join(block)))
    return f"\n{between}\n".join(out)


# ---- tables -----------------------------------------------------------------

def rows_of(path, *macros):
    """(line, arguments) of each use of the macros in a .def file."""
    bare = path.read_text()
    for passed_over in (re.compile(r"/\*.*?\*/", re.S),
                        re.compile(r"^#(?:.*\\\n)*.*$", re.M)):
        bare = passed_over.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), bare)
    piece = re.compile(r'"(?:[^"\\]|\\.)*"|[(),]|[^\s"(),]+|\s+')
    at = 0
    while (found := re.compile(r"\S").search(bare, at)) is not None:
        line = bare.count("\n", 0, found.start()) + 1
        macro = re.compile(r"\w*").match(bare, found.start())[0]
        if macro not in macros:
            fail(path, line, f"only {macros[0]}(...) may stand here")
        at, depth, args = found.start() + len(macro), 0, [""]
        while True:
            token = piece.match(bare, at)
            if token is None:
                fail(path, line, f"{macro} without its closing bracket")
            at = token.end()
            depth += (token[0] == "(") - (token[0] == ")")
            if depth == 0:
                break
            if token[0] == "," and depth == 1:
                args.append("")
            elif (token[0], depth) != ("(", 1):
                args[-1] += token[0]
        yield line, [" ".join(arg.split()) for arg in args]


def string(path, line, text):
    try:
        value = ast.literal_eval(f"({text})")
    except (SyntaxError, ValueError):
        value = None
    if not isinstance(value, str):
        fail(path, line, f"a string was expected, not {text}")
    return value


def constants():
    """The numbers that #defines of the core name, the last one of each."""
    known = {}
    for name in ("base/base.h", "settings/options.h"):
        text = (ROOT / "core" / name).read_text()
        for word, value in re.findall(r"^#define (HAK_\w+) (.+)$", text, re.M):
            try:
                known[word] = number(value, known)
            except ValueError:
                pass
    return known


def number(text, known):
    text = re.sub(r"\((size_t|int|uint64_t)\)", "", text)
    text = re.sub(r"\b[A-Za-z_]\w*", lambda m: str(known.get(m[0], "?")), text)
    if not re.fullmatch(r"[\d\s()+*<-]+", text):
        raise ValueError(text)
    return eval(text, {"__builtins__": {}})  # digits and operators alone


def in_units(n):
    """A size as it may be written in the variable."""
    for unit in "TGMK":
        if n and n % UNITS[unit] == 0:
            return f"{n // UNITS[unit]}{unit}"
    return str(n)


def options_of(path, known):
    """(environment variable, what it takes, defaults and bounds, help)."""
    for line, args in rows_of(path, "HAK_OPTION"):
        if len(args) != 8:
            fail(path, line, f"8 arguments were expected, not {len(args)}")
        kind, _, env, initial, least, most, words, text = args
        env, words, text = (string(path, line, arg)
                            for arg in (env, words, text))
        choice = words.split()
        try:
            if kind == "WORD" and not initial.isdigit():
                matching = [word for word in choice
                            if initial.lower().endswith("_" + word)]
                initial = choice.index(matching[0])
            initial, least, most = (number(str(arg), known)
                                    for arg in (initial, least, most))
            if kind == "WORD":
                takes = "|".join(f"\\fB{word}\\fP" for word in choice)
                bounds = f"Default: {choice[initial]}."
            elif kind == "BOOL":
                takes, bounds = "\\fIswitch\\fP", f"Default: {initial}."
            elif kind == "INT":
                takes = f"\\fI{words}\\fP"
                bounds = f"Default: {initial}; from {least} to {most}."
                if all(word.isdigit() for word in choice):
                    takes = "|".join(f"\\fB{word}\\fP" for word in choice)
                    bounds = f"Default: {initial}."
            elif kind == "SIZE":
                takes = "\\fIsize\\fP"
                bounds = (f"Default: {in_units(initial)}; from"
                          f" {in_units(least)} to {in_units(most)}.")
                if least == 0:
                    bounds = (f"Default: {in_units(initial)}; at most"
                              f" {in_units(most)}.")
            elif kind == "SHARE":
                takes = "\\fIsize\\fP|\\fIn\\fP%"
                bounds = (f"Default: 0, none; from {in_units(least)} to"
                          f" {in_units(most)}, or from 1% to 100% of {words}.")
            elif kind == "DIR":
                takes = "\\fIdirectory\\fP"
                bounds = "Default: none."
            elif kind == "FILE":
                takes = "\\fIfile\\fP"
                bounds = f"Default: none; it ends in one of {words}."
            else:
                fail(path, line, f"{kind} is no type of option")
        except (ValueError, IndexError):
            fail(path, line, f"{env}: can't tell its default or its bounds")
        yield env, takes, bounds, text


def sentence(text):
    if re.match(r"\w+[ ,;:]", text):  # not the name of a file
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else text + "."


def environment(paths):
    known, out = constants(), []
    for path in paths:
        if len(paths) > 1 and path.parent.name != "settings":
            names = {"lua": "Lua", "python": "CPython", "nginx": "nginx"}
            name = names.get(path.parent.name, path.parent.name)
            out.append(f".SS The {name} adapter")
        for env, takes, bounds, text in options_of(path, known):
            out += [".TP", f"\\fB{env}\\fP={takes}", running(sentence(text)),
                    running(bounds)]
    return "\n".join(out)


def figures():
    out = []
    for line, args in rows_of(STATS, "HAK_STAT", "HAK_STAT_RENAMED"):
        old = args.pop(1) if len(args) == 5 else None
        if len(args) != 4 or args[1] not in ("counter", "gauge"):
            fail(STATS, line, "HAK_STAT(name, counter or gauge, unit, help)")
        unit, text = (string(STATS, line, arg) for arg in args[2:])
        if old:
            text += f"; C programs may still call it {old}"
        said = f"{args[1]}, {unit}" if unit != "count" else args[1]
        out += [".TP", f"\\fB{args[0]}\\fP ({said})", running(sentence(text))]
    return "\n".join(out)


# ---- a header ---------------------------------------------------------------

class Group:
    """A comment and the declarations that it is about."""

    def __init__(self, title=None):
        self.title = title
        self.comment = []
        self.code = []


def comment_of(lines, at):
    """The text of the comment that begins at lines[at], and where it ends."""
    text = []
    while True:
        line = lines[at]
        text.append(re.sub(r"^ ?(/\*| \*/|\*/|\*)? ?", "", line, count=1)
                    .replace("*/", "").rstrip())
        at += 1
        if "*/" in line:
            break
    while text and not text[0]:
        text.pop(0)
    while text and not text[-1]:
        text.pop()
    return text, at


def declaration_of(lines, at):
    """The declaration or #define that begins at lines[at]."""
    code, depth = [], 0
    if lines[at].startswith("#define"):
        while lines[at].endswith("\\"):
            code.append(lines[at])
            at += 1
        return [*code, lines[at]], at + 1
    while True:
        line = lines[at]
        depth += line.count("{") - line.count("}")
        code.append(line)
        at += 1
        if depth == 0 and line.rstrip().endswith(";"):
            return code, at


def read_header(path):
    """The header's own comment, then a Group for each that follows."""
    lines = path.read_text().splitlines()
    head, at = comment_of(lines, 0)
    groups, hidden = [Group()], 0
    while at < len(lines):
        line = lines[at]
        title = re.fullmatch(r"/\* -+ (.+?) -+ \*/", line)
        if re.match(r"#\s*if", line) and not re.match(r"#ifndef _?HAKMEM",
                                                      line):
            hidden += 1
        elif re.match(r"#\s*endif", line):
            hidden -= 1
        elif hidden or not line.strip() or line.startswith(
                ("#ifndef", "#include", "#define HAKMEM", "#define _HAKMEM")):
            pass
        elif title:
            groups.append(Group(title[1]))
        elif line.startswith("/*"):
            if groups[-1].comment or groups[-1].code:
                groups.append(Group())
            groups[-1].comment, at = comment_of(lines, at)
            continue
        else:
            code, at = declaration_of(lines, at)
            groups[-1].code.append(code)
            continue
        at += 1
    if hidden != -1:  # the include guard's #endif
        fail(path, len(lines), "#if and #endif don't match")
    return head, groups


def prototype(code):
    """A function's declaration in one line, or None for anything else."""
    text = " ".join(" ".join(code).split())
    if not re.match(r"HAK_API|[\w *]+\bngx_hak_\w+\(", text):
        return None
    text = re.sub(r"HAK_API |\s*HAK_ATTR_\w+(\([^()]*\))?", "", text)
    return text


def shown(code):
    """What a reader needs to see of a struct or a #define."""
    kept = []
    for line in code:
        if line.startswith("#define HAK_STAT("):
            kept.append("    uint64_t NAME;    /* each of hakmem(7) */")
        elif not line.startswith(("#include", "#undef", "#define HAK_STAT_",
                                  "    HAK_RENAMED(")):
            kept.append(line)
    return kept


def name_in(call):
    return re.search(r"(\w+)\(", call)[1]


def names_of(groups):
    calls = [prototype(code) for group in groups for code in group.code]
    return [name_in(call) for call in calls if call]


def synopsis(groups):
    out = []
    for group in groups:
        for code in group.code:
            text = prototype(code)
            if text:
                head, _, arguments = text.partition("(")
                arguments = re.sub(r"(\w+)(?=[,)])",
                                   r"\\fI\1\\fB", arguments)
                arguments = arguments.replace("\\fIvoid\\fB)", "void)")
                out.append(f"\\fB{head}({arguments}\\fP")
    return "\n".join(out)


def description(head, groups):
    out = [paragraphs(head[1:], ".PP")]
    for group in groups:
        if group.title:
            out.append(f".SS {group.title[0].upper()}{group.title[1:]}")
        calls = [prototype(code) for code in group.code]
        structs = [shown(code) for code, call in zip(group.code, calls)
                   if not call]
        terms = [f"\\fB{name_in(call)}\\fP()" for call in calls if call]
        for number_of, term in enumerate(terms):
            out += [".TQ" if number_of else ".TP", term]
        if not terms and (group.comment or structs) and not group.title:
            out.append(".PP")
        if group.comment:
            out.append(paragraphs(group.comment, ".IP" if terms else ".PP"))
        for code in structs:
            out += [".IP" if terms else ".PP", literal(code)]
    return "\n".join(out)


# ---- a Python module --------------------------------------------------------

def check_module(template, module):
    """Every public name of the module must stand in the template in bold."""
    text = template.read_text()
    for node in ast.parse(module.read_text()).body:
        if (isinstance(node, ast.Assign)
                and getattr(node.targets[0], "id", "") == "__all__"):
            for name in ast.literal_eval(node.value):
                if not re.search(rf"(\.B.*[ ,]|\\fB){name}\b", text):
                    fail(module, node.lineno,
                         f"{template.name} does not name {name}")
            return
    fail(module, 1, "__all__ was expected")


# ---- pages ------------------------------------------------------------------

def date(sources):
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    stamp = int(epoch) if epoch else max(path.stat().st_mtime
                                         for path in sources)
    return datetime.datetime.fromtimestamp(
        stamp, datetime.timezone.utc).strftime("%Y-%m-%d")


def page(name):
    template = TEMPLATES.get(name)
    if template is None:
        sys.exit(f"make-man: there is no page {name}; use one of:"
                 f" {' '.join(sorted(TEMPLATES))}")
    sources = [template, *OPTIONS, STATS]
    fields = {"VERSION": (ROOT / "VERSION").read_text().strip()}
    if name in HEADERS:
        header = HEADERS[name]
        sources.append(header)
        head, groups = read_header(header)
        fields["NAMES"] = "\n".join(textwrap.wrap(
            ", ".join(names_of(groups)), 70))
        fields["SYNOPSIS"] = synopsis(groups)
        fields["DESCRIPTION"] = description(head, groups)
    else:
        fields["ENVIRONMENT"] = environment(OPTIONS)
        fields["PYTHON"] = environment([PYTHON / "hak_py_options.def"])
        fields["FIGURES"] = figures()
    if name == "hakmem_py.1":
        sources.append(PYTHON / "hakmem_py" / "__init__.py")
        check_module(template, sources[-1])
    fields["DATE"] = date(sources)

    def field(found):
        if found[1] not in fields:
            sys.exit(f"make-man: {template.name}: nothing is known for"
                     f" {found[0]}")
        return fields[found[1]]

    return re.sub(r"@([A-Z]+)@", field, template.read_text())


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    if sys.argv[1] == "--options":
        for path in OPTIONS:
            for row in options_of(path, constants()):
                print(row[0])
        return
    if sys.argv[1] == "--links":
        for name, header in HEADERS.items():
            for call in names_of(read_header(header)[1]):
                print(f"{call}.3 {name}")
        return
    sys.stdout.write(page(sys.argv[1]))


if __name__ == "__main__":
    main()
