r"""Reads Protocol Buffers' text format without knowing the message: what `config.pbtxt` is written in.

    name: "m"  input [ { name: "x" dims: [ -1, 4 ] } ]   ->   {"name": ["m"], "input": [{"name": ["x"], "dims": [-1, 4]}]}

Every field is a list, as any may be repeated. Words that are no numbers and no strings (enums, true, false) are `Word`s.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from inferloop.core.errors import InvalidInput

MOST_NESTED = 32
_MOST_DIGITS = 400

_TOKEN = re.compile(
    r"""(?P<space>[\s]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?[fF]?))(?![A-Za-z_])
      | (?P<word>-?[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<mark>[{}\[\]<>:;,])""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_NUMBERS = {"inf": "inf", "infinity": "inf", "nan": "nan"}


class Word(str):
    """A bare word: an enum's name, `true` or `false`."""

    __slots__ = ()


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


Message = dict[str, list["str | int | float | Word | Message"]]


def parse_text(text: str, where: str) -> Message:
    """The fields of the outermost message.

    Raises:
        InvalidInput: not the text format; says file and line.
    """
    return _Reader(_tokens(text, where), where).message("", 0)


def _tokens(text: str, where: str) -> list[_Token]:
    found, place, line = [], 0, 1
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise InvalidInput(f"{where}:{line}: {text[place]!r} is not expected here")
        if match.lastgroup != "space":
            found.append(_Token(match.lastgroup, match.group(), line))
        line += match.group().count("\n")
        place = match.end()
    return found


class _Reader:
    def __init__(self, tokens: list[_Token], where: str) -> None:
        self._tokens = tokens
        self._where = where
        self._place = 0

    def message(self, closing: str, depth: int) -> Message:
        """Fields up to `closing`, which is taken too; up to the end if it is empty."""
        if depth > MOST_NESTED:
            raise self._wrong("nested too deep")
        found: Message = {}
        while not self._takes(closing):
            token = self._next("a field")
            if token.kind != "word" or token.text.startswith("-"):
                raise self._wrong(f"{token.text!r} is no field")
            has_colon = self._takes(":")
            found.setdefault(token.text, []).extend(self._values(depth, has_colon=has_colon))
            if self._peek() in (";", ","):
                self._place += 1
        return found

    def _values(self, depth: int, *, has_colon: bool) -> list[str | int | float | Word | Message]:
        if not self._takes("["):
            return [self._value(depth, has_colon=has_colon)]
        found: list[str | int | float | Word | Message] = []
        while not self._takes("]"):
            found.append(self._value(depth, has_colon=True))
            if self._peek() != "]" and not self._takes(","):
                raise self._wrong("a list needs ',' between its values")
        return found

    def _value(self, depth: int, *, has_colon: bool) -> str | int | float | Word | Message:
        token = self._next("a value")
        if token.text in _CLOSING and token.kind == "mark":
            return self.message(_CLOSING[token.text], depth + 1)
        if not has_colon or token.kind == "mark":
            raise self._wrong(f"{token.text!r} is not expected here")
        if token.kind == "string":
            return self._string(token)
        if token.kind == "number":
            return self._number(token)
        bare = token.text.removeprefix("-").lower()
        if bare in _NUMBERS:
            return float(token.text[: len(token.text) - len(bare)] + _NUMBERS[bare])
        return Word(token.text)

    def _string(self, first: _Token) -> str:
        """Strings that stand side by side are one."""
        parts = [first.text]
        while self._place < len(self._tokens) and self._tokens[self._place].kind == "string":
            parts.append(self._tokens[self._place].text)
            self._place += 1
        try:
            return b"".join(codecs.escape_decode(part[1:-1].encode())[0] for part in parts).decode()
        except (ValueError, UnicodeDecodeError) as error:
            raise self._wrong(f"{first.text} is no UTF-8 text") from error

    def _number(self, token: _Token) -> int | float:
        if len(token.text) > _MOST_DIGITS:
            raise self._wrong(f"a number of {len(token.text)} characters")
        return _number(token.text)

    def _takes(self, mark: str) -> bool:
        """Whether the next token is `mark`, which is taken then; an empty mark is the end of the file."""
        if not mark or self._peek() != mark:
            return not mark and self._place == len(self._tokens)
        self._place += 1
        return True

    def _peek(self) -> str:
        if self._place == len(self._tokens) or self._tokens[self._place].kind != "mark":
            return ""
        return self._tokens[self._place].text

    def _next(self, what: str) -> _Token:
        if self._place == len(self._tokens):
            raise self._wrong(f"the file ends where {what} should be")
        self._place += 1
        return self._tokens[self._place - 1]

    def _wrong(self, problem: str) -> InvalidInput:
        line = self._tokens[min(self._place, len(self._tokens)) - 1].line if self._tokens else 1
        return InvalidInput(f"{self._where}:{line}: {problem}")


def _number(text: str) -> int | float:
    bare = text.replace(" ", "").replace("\n", "").replace("\t", "")
    digits = bare.removeprefix("-")
    if digits[:2].lower() == "0x":
        return int(bare, 16)
    if digits.isdigit():
        return int(bare, 8) if len(digits) > 1 and digits[0] == "0" and set(digits) <= set("01234567") else int(bare)
    return float(bare.rstrip("fF"))
