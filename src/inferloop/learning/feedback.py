"""Feedback from a CSV file, to the ledger or to a server: one truth a line, the ones that cannot be kept named."""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from inferloop.core.errors import InvalidInput, NotFound
from inferloop.data.codecs.envelope import as_number
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import FeedbackRecord

_NEEDED = ("prediction_id", "label")
_KNOWN = (*_NEEDED, "by", "time")
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that was not kept.

    Attributes:
        line: in the file, the header is 1.
    """

    line: int
    prediction_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a file."""

    written: int
    refused: tuple[Refused, ...]


def import_csv(path: Path | str, ledger: Ledger, *, by: str = "") -> Imported:
    """Write every line of a CSV file as feedback.

    The columns are `prediction_id` and `label`, and if wanted `by` and `time` (ISO 8601 or seconds since the epoch). A line
    that cannot be kept is reported and does not stop the others; importing a file twice changes nothing.

    Raises:
        NotFound: there is no such file.
        InvalidInput: no such columns, or no text.
        StorageError: the ledger cannot be written.
    """
    written: int = 0
    refused: list[Refused] = []
    for part in _parts(read_csv(path)):
        lines, records = _records(part, refused, by=by)
        unknown = set(ledger.feedback_many(records))
        for line, record in zip(lines, records, strict=True):
            if record.prediction_id in unknown:
                refused.append(Refused(line, record.prediction_id, f"no prediction {record.prediction_id!r} in the ledger"))
            else:
                written += 1
    return Imported(written, tuple(sorted(refused, key=lambda one: one.line)))


def send_rows(rows: Iterable[tuple[int, Mapping[str, str]]], url: str, *, by: str = "") -> Imported:
    """Send lines to a server, which takes the time of their arrival as theirs.

    Raises:
        Unavailable: no server there; what was sent before stays written, and sending all again changes nothing.
    """
    return asyncio.run(_send(rows, url, by=by))


async def _send(rows: Iterable[tuple[int, Mapping[str, str]]], url: str, *, by: str) -> Imported:
    from inferloop.client.client import Client, Truth

    written: int = 0
    refused: list[Refused] = []
    async with Client(url) as client:
        for part in _parts(rows):
            lines, records = _records(part, refused, by=by)
            if not records:
                continue
            try:
                stored = await client.feedback([Truth(one.prediction_id, one.label, one.by) for one in records])
            except (NotFound, InvalidInput) as error:  # the server keeps none of them
                refused += [Refused(line, one.prediction_id, error.message) for line, one in zip(lines, records, strict=True)]
                continue
            written += stored.count
            for line, one in zip(lines, records, strict=True):
                if one.prediction_id in stored.refused:
                    refused.append(Refused(line, one.prediction_id, stored.refused[one.prediction_id]))
    return Imported(written, tuple(sorted(refused, key=lambda one: one.line)))


def _parts(rows: Iterable[tuple[int, Mapping[str, str]]]) -> Iterator[list[tuple[int, Mapping[str, str]]]]:
    remaining = iter(rows)
    while part := list(islice(remaining, _BATCH)):
        yield part


def _records(
    part: Sequence[tuple[int, Mapping[str, str]]], refused: list[Refused], *, by: str
) -> tuple[list[int], list[FeedbackRecord]]:
    """The lines that are feedback; the others go to `refused`."""
    lines, records = [], []
    for line, row in part:
        try:
            records.append(feedback_record(row, by=by))
            lines.append(line)
        except InvalidInput as error:
            refused.append(Refused(line, (row.get("prediction_id") or "").strip(), error.message))
    return lines, records


def read_csv(path: Path | str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a feedback file with the lines they begin on; raises as `import_csv` does."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            _check_columns(path, reader.fieldnames or [])
            line = 2
            for row in reader:
                yield line, row
                line = reader.line_num + 1
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} is no CSV text in UTF-8: {error}") from error


def feedback_record(row: Mapping[str, str | None], *, by: str = "") -> FeedbackRecord:
    """One row as a record; `by` stands in where the row names nobody, now where it has no time."""
    prediction_id, label = ((row.get(name) or "").strip() for name in _NEEDED)
    if not prediction_id or not label:
        raise InvalidInput(f"the {'label' if prediction_id else 'prediction_id'} is empty")
    return FeedbackRecord(prediction_id, label, (row.get("by") or by).strip(), _seconds((row.get("time") or "").strip()))


def _check_columns(path: Path | str, columns: object) -> None:
    found = list(columns) if isinstance(columns, (list, tuple)) else []
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise InvalidInput(
            f"{path} has no column {missing[0]!r}, it has: {', '.join(map(str, found)) or 'none'}",
            hint=f"columns: {', '.join(_KNOWN)}; the first two are needed",
        )


def _seconds(text: str) -> float:
    if not text:
        return time.time()
    try:
        return as_number(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"time {text!r} is neither ISO 8601 nor seconds since the epoch") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
