"""The ledger as a file for other tools: JSONL with inputs, or CSV without."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from inferloop.core.errors import InvalidInput, NotFound, StorageError
from inferloop.data.ledger.records import FeedbackRecord, PredictionRecord

Exported = Iterable[tuple[PredictionRecord, FeedbackRecord | None]]

_CSV_COLUMNS = (
    "id",
    "time",
    "model",
    "version",
    "key",
    "label",
    "score",
    "source",
    "latency_s",
    "truth",
    "truth_by",
    "truth_time",
)


def write_export(path: Path, rows: Exported) -> int:
    """Write to a temporary file beside `path` and rename it; returns the number of rows.

    Raises:
        InvalidInput: the suffix is neither `.jsonl` nor `.csv`.
        NotFound: there is no such directory.
        StorageError: the file cannot be written.
    """
    writers = {".jsonl": _write_jsonl, ".csv": _write_csv}
    if path.suffix not in writers:
        raise InvalidInput(f"cannot export to {path.name!r}", hint="the suffix says the format: .jsonl or .csv")
    if not path.parent.is_dir():
        raise NotFound(f"no directory {path.parent}")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            count = writers[path.suffix](stream, rows)
        partial.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def _write_jsonl(stream: TextIO, rows: Exported) -> int:
    count = 0
    for record, truth in rows:
        stream.write(json.dumps({**_facts(record, truth), "scores": dict(record.scores), **_content(record)}) + "\n")
        count += 1
    return count


def _write_csv(stream: TextIO, rows: Exported) -> int:
    table = csv.DictWriter(stream, _CSV_COLUMNS)
    table.writeheader()
    count = 0
    for record, truth in rows:
        table.writerow(_facts(record, truth))
        count += 1
    return count


def _facts(record: PredictionRecord, truth: FeedbackRecord | None) -> dict[str, Any]:
    facts: dict[str, Any] = {name: getattr(record, name) for name in _CSV_COLUMNS[:9]}
    given = (truth.label, truth.by, truth.time) if truth else (None, None, None)
    return {**facts, **dict(zip(_CSV_COLUMNS[9:], given, strict=True))}


def _content(record: PredictionRecord) -> dict[str, Any]:
    content: dict[str, Any] = {"input_kind": record.input_kind}
    if record.input is not None and record.input_kind in {"text", "json"}:
        content["input"] = record.input.decode("utf-8", errors="replace")
    elif record.input is not None:
        content["input_base64"] = base64.b64encode(record.input).decode()
    if record.embedding is not None:
        content["embedding_base64"] = base64.b64encode(record.embedding).decode()
    return content
