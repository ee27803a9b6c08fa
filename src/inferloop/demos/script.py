"""What one demo is made of; `story.py` plays it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferloop.demos.publisher import Outgoing
from inferloop.training.config import TrainConfig


@dataclass(frozen=True, slots=True)
class Item:
    """One message of a demo.

    Attributes:
        topic: what it is about, for the screen.
        value: what the model reads: a text, or the bytes of an image.
        truth: the label that people gave it.
        shown: how it appears on the screen.
        outgoing: how it goes to the broker.
    """

    id: str
    topic: str
    value: str | bytes
    truth: str
    shown: str
    outgoing: Outgoing


@dataclass(frozen=True, slots=True)
class Cast:
    """The messages of a demo, in parts that share none.

    Attributes:
        train: the model learns from these.
        test: like the training data; evaluated, and the first `known` of them streamed.
        feedback: of new topics; streamed, then corrected by people.
        unseen: of new topics; the champion is judged on these before and after the update.
        broken: messages that cannot be decided.
    """

    train: Sequence[Item]
    test: Sequence[Item]
    feedback: Sequence[Item]
    unseen: Sequence[Item]
    broken: Sequence[Outgoing]


@dataclass(frozen=True, slots=True)
class Script:
    """A demo.

    Attributes:
        model: the name that the model is registered under.
        source: where the data come from, their license, and what is made up; shown before anything else.
        cast: the messages.
        config: how the model is trained, given the folder that `write` filled.
        write: puts training and test data as files into a folder.
        baseline: labels of the test items by the method to beat; its name is `baseline_name`.
        pipeline: the pipeline file, given the broker's URL, the other system's URL and a folder.
        effects: what the other system does, its path and its key for the thing acted on: `refunds`, `order`.
        topic: of the broker, that the pipeline subscribes to.
        known: how many of the test messages are streamed first.
        meanwhile: how many unseen messages are streamed while the update is learned.
        rate: messages a second.
    """

    name: str
    model: str
    source: Sequence[str]
    cast: Cast
    config: Callable[[Path], TrainConfig]
    write: Callable[[Path], None]
    baseline: Callable[[Cast], Sequence[str]]
    baseline_name: str
    pipeline: Callable[[str, str, Path], str]
    effects: tuple[str, str]
    topic: str
    known: int
    meanwhile: int
    rate: float


def filled(template: str, **values: str) -> str:
    """The template with every `<name>` replaced by its value."""
    for name, value in values.items():
        template = template.replace(f"<{name}>", value)
    return template
