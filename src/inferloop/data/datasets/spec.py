"""How a data set is written in configuration: where it is, and which columns mean what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic

from inferloop.core.transform import FieldKind

FROZEN = pydantic.ConfigDict(extra="forbid", frozen=True)
Columns = Annotated[list[str], pydantic.Field(min_length=1)]


class ColumnSpec(pydantic.BaseModel):
    """One field of the samples.

    Attributes:
        kind: `text`; `image` or `audio` (the column names a file); `number` or `signal` (numbers).
        column: its column; a JSONPath is allowed in JSONL, an array's name in NPZ.
        columns: several columns of numbers in order; `f*` stands for all that start with f.
    """

    model_config = FROZEN

    kind: FieldKind
    column: str | None = None
    columns: Columns | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> ColumnSpec:
        if (self.column is None) == (self.columns is None):
            raise ValueError("must have either column or columns")
        if self.columns is not None and self.kind not in (FieldKind.NUMBER, FieldKind.SIGNAL):
            raise ValueError(f"columns are for numbers and signals, not for {self.kind}")
        return self


class DatasetSpec(pydantic.BaseModel):
    """A data set on disk.

    Attributes:
        path: `.csv`, `.jsonl` (both also `.gz`), `.npz`, a folder with one folder a class, or a ZIP archive of that.
        name: by default the file's name.
        text, image, audio, numbers, signal: the column of the field of that name and kind.
        fields: fields of other names.
        files: the folder or ZIP archive with the files that an `image` or `audio` column names; by default the ZIP archive
            beside the table with its name, else the table's folder.
        label: the column of the class; null for data without labels.
        group: what a split must keep together: one column, or several that do so jointly.
        time: the column that orders the rows: a number or ISO 8601.
        weight: the column that says how much a row counts.
        drop_labels: rows with one of these labels are left out.
        encoding: of a CSV or JSONL file.
        delimiter: of a CSV file.
        header: whether the first line of a CSV file names the columns; otherwise they are called 0, 1, 2, ...
    """

    model_config = FROZEN

    path: Path
    name: str = ""
    text: str | None = None
    image: str | None = None
    audio: str | None = None
    numbers: str | Columns | None = None
    signal: str | Columns | None = None
    fields: dict[str, ColumnSpec] = {}
    files: Path | None = None
    label: str | None = "label"
    group: str | Columns | None = None
    time: str | None = None
    weight: str | None = None
    id: str | None = None
    key: str | None = None
    drop_labels: list[str] = []
    encoding: str = "utf-8"
    delimiter: Annotated[str, pydantic.Field(min_length=1, max_length=1)] = ","
    header: bool = True

    @property
    def groups(self) -> list[str]:
        """The columns of the group."""
        return [self.group] if isinstance(self.group, str) else list(self.group or ())

    def columns(self) -> dict[str, ColumnSpec]:
        """The declared fields; empty if none is."""
        short: tuple[tuple[str, FieldKind, str | list[str] | None], ...] = (
            ("text", FieldKind.TEXT, self.text),
            ("image", FieldKind.IMAGE, self.image),
            ("audio", FieldKind.AUDIO, self.audio),
            ("numbers", FieldKind.NUMBER, self.numbers),
            ("signal", FieldKind.SIGNAL, self.signal),
        )
        declared = {name: _column(kind, column) for name, kind, column in short if column is not None}
        return {**declared, **self.fields}


def _column(kind: FieldKind, column: str | list[str]) -> ColumnSpec:
    return ColumnSpec(kind=kind, column=column) if isinstance(column, str) else ColumnSpec(kind=kind, columns=column)
