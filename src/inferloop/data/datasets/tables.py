"""CSV and JSONL files as tables of cells, also compressed with gzip."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from inferloop.core.errors import InvalidInput, NotFound
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.envelope import kind_of
from inferloop.data.codecs.json_path import compile_path

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


class Table(NamedTuple):
    """A CSV file in memory.

    Attributes:
        rows: cells by row; every row has as many as there are columns.
        lines: the line in the file where each row ends, counted from 1.
    """

    where: str
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def position(self, column: str) -> int:
        """The position of a column.

        Raises:
            InvalidInput: there is no such column; the hint lists the known ones.
        """
        if column in self.columns:
            return self.columns.index(column)
        hint = f"known: {', '.join(self.columns[:40])}{', ...' if len(self.columns) > 40 else ''}"
        other = _other_delimiter(self.columns[0]) if len(self.columns) == 1 else ""
        raise InvalidInput(f"{self.where} has no column {column!r}", hint="; ".join(filter(None, (hint, other))))


def read_csv(path: Path, *, encoding: str = "utf-8", delimiter: str = ",", header: bool = True) -> Table:
    """Read a CSV file, `.gz` too; quoted cells may span lines.

    Raises:
        NotFound: there is no such file.
        InvalidInput: empty, not of this encoding, or a row with another number of cells; names the line.
    """
    text = read_text(path, encoding)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        header_text = text.split("\n", 1)[0]
        hint = "" if delimiter in header_text else _other_delimiter(header_text)
        raise InvalidInput(f"{path}: line {reader.line_num}: {error}", hint=hint) from error
    if not rows:
        raise InvalidInput(f"{path} is empty")
    columns = rows.pop(0) if header else [str(index) for index in range(len(rows[0]))]
    if header:
        lines.pop(0)
    table = Table(str(path), columns, rows, lines)
    _check(table)
    return table


def read_jsonl(path: Path, *, encoding: str = "utf-8") -> Iterator[tuple[int, Any]]:
    """The objects of a JSONL file with their line numbers; empty lines are skipped.

    Raises:
        NotFound: there is no such file.
        InvalidInput: a line that is no JSON object; names it.
    """
    for number, line in enumerate(read_text(path, encoding).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise InvalidInput(f"{path}: line {number}: no JSON: {str(error).splitlines()[0].lower()}") from error
        if not isinstance(document, dict):
            raise InvalidInput(f"{path}: line {number}: must be a JSON object, it is {kind_of(document)}")
        yield number, document


def cell_of(document: dict[str, Any], column: str, where: str) -> Any:
    """The value of a key or JSONPath; None where it is null or a path finds nothing.

    Raises:
        InvalidInput: a plain key that the object lacks; the hint lists the known ones.
    """
    if column.startswith("$"):
        return compile_path(column)(document)
    if column not in document:
        raise InvalidInput(f"{where} has no key {column!r}", hint=f"known: {', '.join(list(document)[:40])}")
    return document[column]


def read_text(path: Path, encoding: str) -> str:
    """The text of a file, unpacked if its name ends with `.gz`; a byte order mark is dropped.

    Raises:
        NotFound: there is no such file.
        InvalidInput: not of this encoding, or damaged gzip data; says where.
    """
    try:
        body = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFound(f"no file {path}") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix == ".gz":
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidInput(f"{path} is damaged or no gzip file: {describe(body)}") from error
    try:
        return body.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise InvalidInput(f"no encoding named {encoding!r}", hint="e.g. utf-8 or latin-1") from error
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = body.count(b"\n", 0, start) + 1
        hint = "name its encoding, e.g. encoding: latin-1"
        raise InvalidInput(f"{path} is not {encoding}: line {line}, byte {start} ({describe(body)})", hint=hint) from error


def _other_delimiter(text: str) -> str:
    other = next((name for mark, name in _DELIMITERS.items() if mark in text), "")
    return f"is the delimiter {other}?" if other else ""


def _check(table: Table) -> None:
    twice = _first_repeated(table.columns)
    if twice is not None:
        raise InvalidInput(f"{table.where} has two columns named {twice!r}")
    for row, line in zip(table.rows, table.lines, strict=True):
        if len(row) != len(table.columns):
            raise InvalidInput(f"{table.where}: line {line} has {len(row)} cells, there are {len(table.columns)} columns")


def _first_repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
