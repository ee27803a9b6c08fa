"""What the two processes say to each other beside tensors."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from inferloop.core.bundle import Bundle
from inferloop.core.target import Target

ANSWER = b"A"
"""The first byte of an answer; tensors follow, or nothing when the model is loaded."""
ERROR = b"E"
"""The first byte of an error; a `Failure` follows."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What to load. The first message to the child, pickled: it comes from its own parent and from nobody else."""

    bundle: Bundle
    target: Target


class Failure(msgspec.Struct, array_like=True):
    """An error on its way to the parent.

    Attributes:
        kind: the class in `core/errors.py`; empty for what is none of ours.
        trace: the traceback of what is none of ours.
    """

    kind: str
    message: str
    hint: str = ""
    trace: str = ""
