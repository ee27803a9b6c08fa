"""`inferloop init`: a small project that trains, streams and tests, to be changed into one's own."""

from __future__ import annotations

import json
import random
from pathlib import Path

import click

from inferloop.core.errors import Conflict

_SEED = 1
_MESSAGES = 240

_TRAIN = """\
# inferloop train train.yaml
task: text-classification
name: intents
data: {path: messages.csv, text: text, label: label}
text: {backbone: none}   # a small network from scratch; `minilm` starts from a sentence encoder
fit: {epochs: 4}
seed: 1
"""

_PIPELINE = """\
# inferloop pipeline check pipeline.yaml
# inferloop pipeline test pipeline.yaml
# inferloop run pipeline.yaml
pipeline: intents                # the name is part of every idempotency key: keep it
sources:
  chat: {file: {path: chat.jsonl}}
message:
  json:
    id: $.message_id
    key: $.customer_id
    fields:
      text: {path: $.message, type: string, required: true}
      order: {path: $.order_id, type: string}
model: {ref: intents@champion, inputs: {text: text}}
rules:                           # in order; the first that matches decides
  - {name: refund, label: refund, above: 0.6, once_per: order, send: [refunds]}
  - {name: review, below: 0.6, send: [review]}
sinks:
  refunds: {file: {path: refunds.jsonl}}
  review: {queue: {}}            # the built-in queue for people
tests:
  - name: a clear wish for money is a refund
    message: {message_id: t1, customer_id: c1, message: "refund me", order_id: o1}
    scores: {refund: 0.97, delivery: 0.02, praise: 0.01}
    expect: {refunds: 1, review: 0}
"""

_PHRASES = {
    "refund": ("i want my money back", "refund me please", "you charged me twice", "give me a refund"),
    "delivery": ("where is my parcel", "it has not arrived", "late again", "when will it come"),
    "praise": ("thank you so much", "great service", "well done", "i love it"),
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def command(folder: Path) -> None:
    r"""Write a small project into FOLDER: made-up messages, a training file and a pipeline with a test.

    Nothing that exists is overwritten.

    \b
    Example:
      inferloop init shop
    """
    files = {"messages.csv": _table(), "chat.jsonl": _chat(), "train.yaml": _TRAIN, "pipeline.yaml": _PIPELINE}
    present = [name for name in files if (folder / name).exists()]
    if present:
        raise Conflict(f"{folder} has {', '.join(present)} already", hint="name another folder: inferloop init FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
        click.echo(f"wrote {folder / name}")
    lines = ["inferloop train train.yaml", "inferloop promote intents:1", "inferloop pipeline test pipeline.yaml"]
    click.echo("\n".join(["next:", *([f"  cd {folder}"] if folder != Path() else []), *(f"  {line}" for line in lines)]))
    click.echo("  inferloop run pipeline.yaml")


def _table() -> str:
    draw = random.Random(_SEED)
    rows = [f"{draw.choice(_PHRASES[label])} {number},{label}" for number, label in _labels(draw)]
    return "\n".join(["text,label", *rows, ""])


def _chat() -> str:
    draw = random.Random(_SEED + 1)
    lines = []
    for number, label in _labels(draw)[:20]:
        order = f"o{draw.randrange(9)}"
        content = {"message_id": f"m{number}", "customer_id": f"c{draw.randrange(5)}", "message": draw.choice(_PHRASES[label])}
        lines.append(json.dumps({**content, "order_id": order}))
    return "\n".join([*lines, ""])


def _labels(draw: random.Random) -> list[tuple[int, str]]:
    return [(number, draw.choice(list(_PHRASES))) for number in range(_MESSAGES)]
