"""How a recipe tells what it does, asks whether to stop, and runs the loop with the checkpoint of this training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from inferloop.core.errors import Cancelled
from inferloop.training.config import TrainConfig

if TYPE_CHECKING:
    from inferloop.training.loop import History, Learner, Progress


class Stage(NamedTuple):
    """A part of the work before or after the epochs: `done` of `total` rows or steps."""

    name: str
    done: int
    total: int


Observer = Callable[["Stage | Progress"], None]
"""Hears every stage and every step of training, in the thread that trains; must return fast."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The eyes on one training.

    Attributes:
        fingerprint: of config and data.
        checkpoint: where the state of the loop is kept; None for nowhere.
        stop: asked between steps; true interrupts.
    """

    config: TrainConfig
    fingerprint: str
    observer: Observer = lambda _: None
    checkpoint: Path | None = None
    resume: bool = False
    stop: Callable[[], bool] = lambda: False

    def stage(self, name: str, done: int, total: int) -> None:
        """Tell the observer; the place where long work before the epochs can be interrupted."""
        if self.stop():
            raise Cancelled(f"training interrupted while {name}")
        self.observer(Stage(name, done, total))

    def fit(self, learner: Learner, *, epochs: int, lr: float) -> History:
        """Run the loop. See `loop.fit`."""
        from inferloop.training import loop

        fitting = self.config.fit
        settings = loop.Settings(
            epochs=epochs,
            lr=lr,
            weight_decay=fitting.weight_decay,
            clip=fitting.clip,
            patience=fitting.patience,
            seed=self.config.seed,
            fingerprint=self.fingerprint,
        )
        return loop.fit(learner, settings, checkpoint=self.checkpoint, resume=self.resume, progress=self.observer, stop=self.stop)
