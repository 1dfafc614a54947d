"""Reads the profiles that HAKMEM writes: pprof's protobuf, as profile.proto has it,
and the data in a page. Strict: what a reader need not accept is a ValueError."""
import collections
import gzip
import json
import re

Sample = collections.namedtuple("Sample", "stack values")  # leaf first: (name, file)


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def fields(data):
    """{field: [values]} of a message: numbers, or bytes."""
    found, at = collections.defaultdict(list), 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value, at = _varint(data, at)
        if kind == 2:
            if at + value > len(data):
                raise ValueError(f"field {number} goes beyond its message")
            value, at = data[at:at + value], at + value
        elif kind != 0:
            raise ValueError(f"field {number}: a kind {kind} that none has")
        found[number].append(value)
    return found


def only(message, number, otherwise=0):
    """A field that is there at most once."""
    values = message.get(number, [otherwise])
    if len(values) != 1:
        raise ValueError(f"field {number} is there {len(values)} times")
    return values[0]


def known(message, *numbers):
    if set(message) - set(numbers):
        raise ValueError(f"fields {sorted(set(message) - set(numbers))}")
    return message


def by_id(messages):
    found = {only(message, 1): message for message in messages}
    if len(found) != len(messages) or 0 in found:
        raise ValueError("numbers that are 0 or there twice")
    return found


class Pprof:
    """types: [(name, unit)]; samples; mappings: paths; period, default."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        top = known(fields(gzip.decompress(data)), 1, 2, 3, 4, 5, 6, 11, 12,
                    14)
        self.strings = [text.decode() for text in top[6]]
        if self.strings[0] != "":
            raise ValueError("the first string is not empty")
        self.types = [self._type(text) for text in top[1]]
        self.period_type = self._type(only(top, 11))
        self.period = only(top, 12)
        self.default = self.strings[only(top, 14)]
        self.mappings = by_id([known(fields(text), 1, 2, 3, 5, 6, 7)
                               for text in top[3]])
        self.functions = by_id([known(fields(text), 1, 2, 3, 4)
                                for text in top[5]])
        self.locations = by_id([known(fields(text), 1, 2, 3, 4)
                                for text in top[4]])
        self.samples = [self._sample(known(fields(text), 1, 2))
                        for text in top[2]]

    def _type(self, text):
        message = known(fields(text), 1, 2)
        return self.strings[only(message, 1)], self.strings[only(message, 2)]

    def _sample(self, message):
        if len(message[2]) != len(self.types) or not message[1]:
            raise ValueError("a sample without a stack, or with other values")
        return Sample([self._frame(number) for number in message[1]],
                      message[2])

    def _frame(self, number):
        location = self.locations[number]
        mapping = only(location, 2)
        if mapping != 0:
            begin, end = (only(self.mappings[mapping], n) for n in (2, 3))
            if not begin <= only(location, 3) < end:
                raise ValueError("an address that is not in its mapping")
        line = known(fields(only(location, 4)), 1, 2)
        function = self.functions[only(line, 1)]
        return tuple(self.strings[only(function, n)] for n in (2, 4))

    def sums(self, name):
        """The values of the stacks with this function, added up."""
        return [sum(values) for values in zip(*(
            sample.values for sample in self.samples
            if any(frame[0] == name for frame in sample.stack)))]


def page(path):
    """The data of a page, as json has it."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if text.count("const DATA = ") != 1:
        raise ValueError("a page without its data")
    data = text.split("const DATA = ")[1]
    data = data[:data.index("};\n") + 1]
    # A script's keys need no quotes; texts are left alone.
    data = re.sub(r'"(?:\\.|[^"\\])*"|\b[a-zA-Z]+(?=:)',
                  lambda match: match[0] if match[0][0] == '"'
                  else f'"{match[0]}"', data)
    return json.loads(data)
