"""One row of a CSV file to a Sample; the columns come from the source or from the options."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

import pydantic

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.envelope import FROZEN, TEXT_FORMS, identity, time_s
from inferloop.data.codecs.text import checked_encoding, decode_text

COLUMNS_HEADER = "csv-columns"
"""The header of a Message that holds the column names of its row, as a JSON list."""

Columns = Annotated[list[str], pydantic.Field(min_length=1)]


class ColumnConfig(pydantic.BaseModel):
    """One field: its column, what it must be, and what stands for it where the cell is empty."""

    model_config = FROZEN

    column: str
    type: Literal["string", "number", "bool"] = "string"
    required: bool = False
    default: str | float | bool | None = None


class CsvCodec(Codec):
    """See `Codec`. An empty cell counts as missing."""

    class Config(pydantic.BaseModel):
        """Options of the codec `csv`.

        Attributes:
            id: the column of the message's identity; a list of columns joins their cells.
            key: what state and order belong to.
            time: event time: ISO 8601, or seconds or milliseconds since the epoch.
            fields: columns by field name; without it, every column is a field of text.
            columns: the names of the columns where the source does not bring them.
        """

        model_config = FROZEN

        id: str | Columns | None = None
        key: str | Columns | None = None
        time: str | None = None
        fields: dict[str, str | ColumnConfig] = {}
        columns: Columns | None = None
        delimiter: Annotated[str, pydantic.Field(min_length=1, max_length=1)] = ","
        encoding: str = "utf-8"

        _known_encoding = pydantic.field_validator("encoding")(checked_encoding)

    def __init__(self, config: Config) -> None:
        self._config = config
        self._id = _as_list(config.id)
        self._key = _as_list(config.key)
        self._fields = {
            name: field if isinstance(field, ColumnConfig) else ColumnConfig(column=field)
            for name, field in config.fields.items()
        }

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        row = self._row(message)
        moment = None if self._config.time is None else time_s(_cell(row, self._config.time), f"column {self._config.time!r}")
        return Sample(
            fields=self._values(row),
            id=identity(_parts(row, self._id), "id") if self._id else "",
            key=identity(_parts(row, self._key), "key") if self._key else "",
            time=moment,
            raw=message.payload,
            source=message.source,
            topic=message.topic,
        )

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {name: field.type for name, field in self._fields.items()}

    def _row(self, message: Message) -> dict[str, str]:
        columns = self._config.columns or _columns(message.headers.get(COLUMNS_HEADER, ""))
        text = decode_text(message.payload, self._config.encoding)
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=self._config.delimiter, strict=True))
        except csv.Error as error:
            raise InvalidInput(f"the payload is no CSV row: {error}") from error
        cells = rows[0] if len(rows) == 1 else []
        if len(rows) != 1 or len(cells) != len(columns):
            got = f"{len(cells)} cells" if len(rows) == 1 else f"{len(rows)} rows"
            hint = "is the delimiter right?" if len(cells) == 1 else ""
            raise InvalidInput(f"the payload has {got}, the file has {len(columns)} columns", hint=hint)
        return dict(zip(columns, cells, strict=True))

    def _values(self, row: dict[str, str]) -> dict[str, Any]:
        if not self._fields:
            return {name: cell for name, cell in row.items() if cell}
        values: dict[str, Any] = {}
        for name, field in self._fields.items():
            cell = _cell(row, field.column)
            if cell:
                values[name] = _typed(cell, field.type, name)
            elif field.default is not None:
                values[name] = field.default
            elif field.required:
                raise InvalidInput(f"field {name!r} is empty in column {field.column!r}")
        return values


def _typed(cell: str, kind: str, name: str) -> Any:
    try:
        return TEXT_FORMS[kind](cell)
    except ValueError as error:
        wanted = {"number": "a number", "bool": "true or false"}[kind]
        raise InvalidInput(f"field {name!r} must be {wanted}, it is other text") from error


def _cell(row: dict[str, str], column: str) -> str:
    try:
        return row[column]
    except KeyError:
        raise InvalidInput(f"no column named {column!r}", hint=f"known: {', '.join(row)}") from None


def _parts(row: dict[str, str], columns: list[str]) -> list[tuple[Any, str]]:
    return [(_cell(row, column), f"column {column!r}") for column in columns]


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


@lru_cache(maxsize=64)
def _columns(header: str) -> tuple[str, ...]:
    try:
        names = json.loads(header)
    except ValueError as error:
        raise InvalidInput("the message does not bring its columns", hint="name them: columns: [a, b]") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(f"the header {COLUMNS_HEADER} must be a list of names")
    return tuple(names)
