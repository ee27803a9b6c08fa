"""A reader of InfluxDB's line protocol, written from its description and apart from our writer."""

from __future__ import annotations

from typing import NamedTuple

Value = bool | int | float | str


class Point(NamedTuple):
    """What one line says."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Value]
    timestamp: int


class _Reader:
    """Characters from left to right; a backslash before one of `special` makes that character plain."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, expected: str) -> None:
        if self.peek() != expected:
            raise ValueError(f"expected {expected!r} at {self.at} of {self.text!r}")
        self.at += 1

    def name(self, special: str) -> str:
        """Up to an unescaped character of `special`; at least one character, no line break."""
        found = ""
        while (char := self.peek()) and char not in special:
            if char == "\n":
                raise ValueError(f"a line break in a name: {self.text!r}")
            if char == "\\" and self.text[self.at + 1 : self.at + 2] and self.text[self.at + 1] in special:
                self.at += 1
                char = self.peek()
            found += char
            self.at += 1
        if not found:
            raise ValueError(f"nothing at {self.at} of {self.text!r}")
        return found

    def quoted(self) -> str:
        self.take('"')
        found = ""
        while (char := self.peek()) != '"':
            if not char:
                raise ValueError(f"a text without end: {self.text!r}")
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\"):
                self.at += 1
                char = self.peek()
            found += char
            self.at += 1
        self.take('"')
        return found


def parse_lines(body: str) -> list[Point]:
    """Every point of a request.

    Raises:
        ValueError: it is no line protocol.
    """
    reader = _Reader(body)
    points = []
    while reader.peek():
        points.append(_point(reader))
        if reader.peek():
            reader.take("\n")
    return points


def _point(reader: _Reader) -> Point:
    measurement = reader.name(", ")
    tags: dict[str, str] = {}
    while reader.peek() == ",":
        reader.take(",")
        name = reader.name(",= ")
        reader.take("=")
        tags[name] = reader.name(",= ")
    reader.take(" ")
    fields: dict[str, Value] = {}
    while True:
        name = reader.name(",= ")
        reader.take("=")
        fields[name] = reader.quoted() if reader.peek() == '"' else _plain(reader.name(", "))
        if reader.peek() != ",":
            break
        reader.take(",")
    reader.take(" ")
    digits = ""
    while (char := reader.peek()) and char in "-0123456789":
        digits += char
        reader.at += 1
    return Point(measurement, tags, fields, int(digits))


def _plain(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if text.endswith("i"):
        return int(text[:-1])
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is no number that InfluxDB keeps")
    return value
