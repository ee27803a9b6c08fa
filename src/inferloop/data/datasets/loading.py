"""From a specification to rows: tables, folders with one folder a class, arrays."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inferloop.core.errors import InvalidConfig, InvalidInput, NotFound
from inferloop.core.transform import FieldKind
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.envelope import time_s
from inferloop.data.datasets.row import Row, Store, Stored, open_store
from inferloop.data.datasets.spec import ColumnSpec, DatasetSpec
from inferloop.data.datasets.tables import Table, cell_of, read_csv, read_jsonl

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_RECORDINGS = {".wav"}
_MISSING = {"", "na", "nan", "null", "none", "?"}

Cell = Callable[[str], Any]


class Loaded(NamedTuple):
    """The rows of a data set and what their values mean."""

    fields: dict[str, FieldKind]
    rows: list[Row]


def load_rows(spec: DatasetSpec) -> Loaded:
    """Read a data set; files that a column names are read later.

    Raises:
        NotFound: there is nothing at `spec.path`.
        InvalidInput: a format that is not read, a column that is not there, or a cell that is not what it should be.
    """
    path = spec.path
    if not path.exists():
        raise NotFound(f"no data set at {path}")
    name = path.name.lower().removesuffix(".gz")
    if path.is_dir() or name.endswith(".zip"):
        loaded = _folders(path)
    elif name.endswith((".csv", ".tsv")):
        loaded = _csv(spec)
    elif name.endswith((".jsonl", ".ndjson")):
        loaded = _jsonl(spec)
    elif name.endswith(".npz"):
        loaded = _npz(spec)
    else:
        raise InvalidInput(f"{path} has a format that is not read", hint="formats: csv, jsonl (also .gz), npz, a folder or zip")
    rows = [row for row in loaded.rows if row.label not in spec.drop_labels] if spec.drop_labels else loaded.rows
    if not rows:
        raise InvalidInput(f"{path} has no rows")
    return Loaded(loaded.fields, rows)


def _csv(spec: DatasetSpec) -> Loaded:
    delimiter = "\t" if ".tsv" in spec.path.name.lower() and spec.delimiter == "," else spec.delimiter
    table = read_csv(spec.path, encoding=spec.encoding, delimiter=delimiter, header=spec.header)
    columns = _declared(spec, table.columns)
    store = _files(spec, columns)
    readers = [_csv_reader(table, column, store) for column in columns.values()]
    positions = {name: table.position(name) for name in _row_columns(spec)}
    rows = []
    for cells, line in zip(table.rows, table.lines, strict=True):
        where = f"{spec.path}: line {line}"
        values = tuple(read(cells, where) for read in readers)
        rows.append(_row(values, {name: cells[position] for name, position in positions.items()}, spec, where))
    return Loaded({name: column.kind for name, column in columns.items()}, rows)


def _csv_reader(table: Table, column: ColumnSpec, store: Store | None) -> Callable[[list[str], str], Any]:
    if column.columns is not None:
        indices = [table.position(name) for pattern in column.columns for name in _matching(table, pattern)]
        return lambda cells, where: np.array([_float(cells[index], where) for index in indices])
    index = table.position(column.column or "")
    return lambda cells, where: _value(cells[index], column.kind, store, where)


def _jsonl(spec: DatasetSpec) -> Loaded:
    documents = list(read_jsonl(spec.path, encoding=spec.encoding))
    columns = _declared(spec, list(documents[0][1]) if documents else [])
    store = _files(spec, columns)
    rows = []
    for number, document in documents:
        where = f"{spec.path}: line {number}"
        values = tuple(_json_value(document, column, store, where) for column in columns.values())
        rows.append(_row(values, {name: cell_of(document, name, where) for name in _row_columns(spec)}, spec, where))
    return Loaded({name: column.kind for name, column in columns.items()}, rows)


def _json_value(document: dict[str, Any], column: ColumnSpec, store: Store | None, where: str) -> Any:
    if column.columns is not None:
        return np.array([_float(cell_of(document, name, where), where) for name in column.columns])
    value = cell_of(document, column.column or "", where)
    if isinstance(value, list):
        try:
            return np.array(value, dtype=np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidInput(f"{where}: {column.column} must be numbers of one shape") from error
    return None if value is None else _value(value, column.kind, store, where)


def _npz(spec: DatasetSpec) -> Loaded:
    arrays = _arrays(spec.path)
    columns = _declared(spec, list(arrays))
    values = [_array(arrays, column.column or "", spec.path) for column in columns.values()]
    named = {name: _array(arrays, name, spec.path) for name in _row_columns(spec)}
    lengths = {len(array) for array in (*values, *named.values())}
    if len(lengths) != 1:
        raise InvalidInput(f"{spec.path}: its arrays differ in length: {', '.join(str(length) for length in sorted(lengths))}")
    rows = []
    for index in range(lengths.pop()):
        cells = {name: array[index].item() for name, array in named.items()}
        rows.append(_row(tuple(array[index] for array in values), cells, spec, f"{spec.path}: row {index}"))
    return Loaded({name: column.kind for name, column in columns.items()}, rows)


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, SyntaxError) as error:
        raise InvalidInput(
            f"{path} is no NPZ file, a damaged one, or holds Python objects ({describe(path.read_bytes())})"
        ) from error


def _array(arrays: dict[str, Any], name: str, path: Path) -> Any:
    if name not in arrays:
        raise InvalidInput(f"{path} has no array {name!r}", hint=f"known: {', '.join(arrays)}")
    if arrays[name].ndim == 0:
        raise InvalidInput(f"{path}: the array {name!r} is a single value, not one a row")
    return arrays[name]


def _folders(path: Path) -> Loaded:
    store = open_store(path)
    found = [name for name in store.names() if _file_kind(name) is not None and "/" in name]
    kinds = {_file_kind(name) for name in found}
    if len(kinds) != 1:
        what = "images, recordings and texts together" if kinds else "no images, WAV recordings or texts in folders"
        raise InvalidInput(f"{path} has {what}", hint="one folder a class, all files of one kind")
    kind = kinds.pop() or FieldKind.IMAGE
    depth = 1 if len({name.split("/")[0] for name in found}) == 1 and any(name.count("/") > 1 for name in found) else 0
    rows = [
        Row((_file_value(store, name, kind),), label=name.split("/")[depth], id=name) for name in found if name.count("/") > depth
    ]
    return Loaded({str(kind): kind}, rows)


def _file_value(store: Store, name: str, kind: FieldKind) -> Any:
    if kind is not FieldKind.TEXT:
        return Stored(store, name)
    try:
        return store.read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is not UTF-8 at byte {error.start}") from error


def _file_kind(name: str) -> FieldKind | None:
    suffix = Path(name).suffix.lower()
    if suffix in _IMAGES:
        return FieldKind.IMAGE
    if suffix in _RECORDINGS:
        return FieldKind.AUDIO
    return FieldKind.TEXT if suffix == ".txt" else None


def _declared(spec: DatasetSpec, known: Sequence[str]) -> dict[str, ColumnSpec]:
    columns = spec.columns()
    if columns:
        return columns
    if "text" in known:
        return {"text": ColumnSpec(kind=FieldKind.TEXT, column="text")}
    shown = ", ".join(known[:40])
    raise InvalidInput(f"{spec.path}: say which column is what: text, image, audio, numbers or signal", hint=f"known: {shown}")


def _files(spec: DatasetSpec, columns: dict[str, ColumnSpec]) -> Store | None:
    if not any(column.kind in (FieldKind.IMAGE, FieldKind.AUDIO) for column in columns.values()):
        return None
    if spec.files is not None:
        return open_store(spec.files)
    beside = spec.path.with_name(spec.path.name.split(".")[0] + ".zip")
    return open_store(beside if beside.is_file() else spec.path.parent)


def _row_columns(spec: DatasetSpec) -> list[str]:
    single = [column for column in (spec.label, spec.time, spec.weight, spec.id, spec.key) if column is not None]
    return list(dict.fromkeys([*single, *spec.groups]))


def _row(values: tuple[Any, ...], cells: dict[str, Any], spec: DatasetSpec, where: str) -> Row:
    label = "" if spec.label is None else _text(cells[spec.label])
    if spec.label is not None and not label:
        raise InvalidInput(f"{where}: no label in column {spec.label!r}")
    return Row(
        values,
        label=label,
        group="|".join(_text(cells[name]) for name in spec.groups),
        time=None if spec.time is None else time_s(cells[spec.time], f"{where}, column {spec.time!r}"),
        weight=1.0 if spec.weight is None else _weight(cells[spec.weight], where),
        id="" if spec.id is None else _text(cells[spec.id]),
        key="" if spec.key is None else _text(cells[spec.key]),
    )


def _value(cell: Any, kind: FieldKind, store: Store | None, where: str) -> Any:
    if kind is FieldKind.TEXT:
        return _text(cell)
    if kind in (FieldKind.NUMBER, FieldKind.SIGNAL):
        return _float(cell, where)
    if store is None:
        raise InvalidConfig([f"{where}: no folder for its files"])
    return Stored(store, _text(cell))


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _float(cell: Any, where: str) -> float:
    text = _text(cell).strip()
    if text.lower() in _MISSING:
        return math.nan
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput(f"{where}: a cell must be a number, it is other text") from error


def _weight(cell: Any, where: str) -> float:
    weight = _float(cell, where)
    if math.isnan(weight):
        return 1.0
    if not 0 <= weight < math.inf:
        raise InvalidInput(f"{where}: the weight is {weight}, it must be 0 or more")
    return weight


def _matching(table: Table, pattern: str) -> list[str]:
    if pattern in table.columns or not any(mark in pattern for mark in "*?["):
        return [pattern]
    found = [name for name in table.columns if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise InvalidInput(f"{table.where} has no column like {pattern!r}", hint=f"known: {', '.join(table.columns[:40])}")
    return found
