"""The options of a subcommand: a table that is parsed and listed.

Options end at `--` or at the first word that is none, so that a program's own
options can follow its name.
"""
import textwrap


class Failed(Exception):
    """The command can't be done; the text, one line, is for the user."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


class Option:
    """One option: `names` ("-n --runs"), the name of its value or None, its help.

    `check` makes the value of a text, and raises ValueError with what is wrong.
    `words`: the only texts there are. `alone`: what the value is where only
    the name is given; a value then follows after "=". `many`: a list.
    """

    def __init__(self, names, value, help_text, check=str, initial=None,
                 words=None, alone=None, many=False):
        self.names = names.split()
        self.key = self.names[-1].lstrip("-").replace("-", "_")
        self.value, self.help, self.check = value, help_text, check
        self.initial = [] if many else initial
        self.words, self.alone, self.many = words, alone, many

    def title(self):
        names = ", ".join(self.names)
        if self.value is None:
            return names
        return names + (f"[={self.value}]" if self.alone else f" {self.value}")

    def parse(self, command, text):
        if self.words is not None and text not in self.words:
            raise Failed(f"{command}: {self.names[-1]}={text}: not one of"
                         f" {' '.join(self.words)}", 2)
        try:
            return self.check(text)
        except ValueError as error:
            raise Failed(f"{command}: {self.names[-1]}={text}: {error}",
                         2) from None


class Help:
    """What --help says: the usage line's end, a text, the table, examples."""

    def __init__(self, name, usage, text, options, examples=""):
        self.name, self.usage, self.text = name, usage, text
        self.options, self.examples = options, examples

    def __str__(self):
        lines = [f"usage: hakmem {self.name} {self.usage}", "",
                 self.text.strip(), "", "Options:"]
        for option in (*self.options, Option("-h --help", None, "this")):
            title = "  " + option.title()
            wrapped = textwrap.wrap(option.help, 54)
            if len(title) > 23:
                lines.append(title)
                title = ""
            for line in wrapped:
                lines.append(f"{title:<25}{line}")
                title = ""
        if self.examples:
            lines += ["", "Examples:"] + self.examples.strip("\n").splitlines()
        return "\n".join(lines)




def _find(help_, name):
    for option in help_.options:
        if name in option.names:
            return option
    raise Failed(f"{help_.name}: there is no option {name};"
                 f" `hakmem {help_.name} --help` lists them", 2)


def parse(help_, arguments):
    """(values by key, the words after the options); None if --help was shown."""
    chosen = {option.key: option.initial for option in help_.options}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("-h", "--help"):
            print(help_)
            return None
        name, equals, text = word.partition("=")
        option = _find(help_, name)
        if option.value is None:
            if equals:
                raise Failed(f"{help_.name}: {name} takes no value", 2)
            value = True
        elif equals:
            value = option.parse(help_.name, text)
        elif option.alone is not None:
            value = option.alone
        elif rest:
            value = option.parse(help_.name, rest.pop(0))
        else:
            raise Failed(f"{help_.name}: {name} needs a value,"
                         f" {option.title()}", 2)
        if option.many:
            chosen[option.key] = chosen[option.key] + [value]
        else:
            chosen[option.key] = value
    return chosen, rest


# ---- values -----------------------------------------------------------------

def whole(least, most, unit=""):
    """A check: a whole number within bounds."""
    def check(text):
        if not text.isascii() or not text.isdigit():
            raise ValueError(f"not a whole number{unit and f' of {unit}'}")
        if not least <= int(text) <= most:
            raise ValueError(f"must be from {least} to {most}"
                             f"{unit and f' {unit}'}")
        return int(text)
    return check


def seconds(least, most):
    """A check: seconds, with a fraction or without."""
    def check(text):
        try:
            value = float(text)
        except ValueError:
            raise ValueError("not a number of seconds") from None
        if not least <= value <= most:
            raise ValueError(f"must be from {least:g} to {most:g} seconds")
        return value
    return check
