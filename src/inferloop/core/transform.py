"""Declared steps from a Sample's fields to tensors, and from tensors to labels.

A Bundle carries these declarations; `data/transforms/` executes them. Declarations are data, so that every engine, server
and edge node computes the same numbers from the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FieldKind(StrEnum):
    """What a field of a Sample holds."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    SIGNAL = "signal"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Step:
    """One named operation with its options, e.g. `resize` with width and height."""

    op: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FieldTransform:
    """How one field becomes one or more input tensors.

    Attributes:
        field: the name of the Sample's field.
        outputs: the input tensors that the last step yields, in order.
    """

    field: str
    kind: FieldKind
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OutputTransform:
    """How one output tensor becomes scores: e.g. `softmax`, then `top_k` or `threshold`."""

    output: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Transforms:
    """All declarations of a Bundle."""

    inputs: tuple[FieldTransform, ...] = ()
    outputs: tuple[OutputTransform, ...] = ()

    @property
    def fields(self) -> dict[str, FieldKind]:
        """The fields that a Sample must bring, with their kinds."""
        return {transform.field: transform.kind for transform in self.inputs}
