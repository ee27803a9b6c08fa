"""The state of an interrupted training, so that the continuation is bit-identical: tensors and plain values, never a pickle.

Besides model and optimizer it holds both random states: that of the batch order as it was when the epoch began, and that of
dropout and augmentation as it is now.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from inferloop.core.errors import InvalidInput, NewerSchema, StorageError

SCHEMA = 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Where a training stood.

    Attributes:
        fingerprint: of config and data; another training cannot be continued from it.
        epoch: the epoch that was under way, from 0.
        step: steps of this epoch that are done.
        loss_sum: sum of their losses.
        order_state: random state of the batch order when the epoch began.
        random_state: torch's global random state.
        best: score and weights of the best epoch; None before the first validation.
        history: one list of numbers an epoch, see `loop.Epoch`.
    """

    fingerprint: str
    epoch: int
    step: int
    loss_sum: float
    model: dict[str, Any]
    optimizer: dict[str, Any]
    order_state: torch.Tensor
    random_state: torch.Tensor
    best: dict[str, Any] | None = None
    history: list[list[float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write to a temporary file, then rename: a crash leaves the checkpoint before.

        Raises:
            StorageError: the disk is full or not writable.
        """
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"schema": SCHEMA, **{name: getattr(self, name) for name in self.__slots__}}, partial)
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write checkpoint {path}: {error}") from error

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> Checkpoint:
        """Read a checkpoint of the training with that fingerprint.

        Raises:
            InvalidInput: damaged, or of another config or data set.
            NewerSchema: written by a newer inferloop.
        """
        try:
            content = torch.load(path, weights_only=True)
            schema = content.pop("schema")
        except Exception as error:  # torch raises pickle, zip and runtime errors for damaged files
            raise InvalidInput(f"checkpoint {path} is damaged: {error!s:.100}", hint="train without --resume") from error
        if schema > SCHEMA:
            raise NewerSchema(
                f"checkpoint {path} has schema {schema}, this inferloop reads up to {SCHEMA}", hint="update inferloop"
            )
        if content["fingerprint"] != fingerprint:
            raise InvalidInput(
                f"checkpoint {path} is of another config or data set", hint="train without --resume, or restore what was changed"
            )
        return cls(**content)
