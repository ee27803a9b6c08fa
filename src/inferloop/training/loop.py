"""The training loop: epochs of batches, validation, early stopping, checkpoints.

    Learner (a network and its rows)  ->  fit  ->  History

Every step is a pure function of (weights, optimizer, random states, position), and a checkpoint holds just these: a training
that was interrupted ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from inferloop.core.errors import Cancelled, InvalidInput
from inferloop.training.checkpoint import Checkpoint

_WARM_UP = 0.1


class Validation(NamedTuple):
    """How the network fares on the validation rows."""

    loss: float
    accuracy: float
    macro_f1: float


class Epoch(NamedTuple):
    """One pass over the training rows; `loss` is the mean training loss."""

    loss: float
    validation: Validation
    seconds: float


class Progress(NamedTuple):
    """What a progress bar shows. `validation` is set once an epoch, after its last step."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    validation: Validation | None = None


class Learner(Protocol):
    """What the loop trains. Rows are indices; all methods are called from one thread."""

    @property
    def network(self) -> nn.Module:
        """Holds every weight that learns; its `state_dict` is what a checkpoint keeps."""
        ...

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """The optimizer's parameter groups with their highest learning rates."""
        ...

    def batches(self, random: torch.Generator) -> list[Tensor]:
        """The row indices of every batch of one epoch, in order."""
        ...

    def loss(self, rows: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar to derive."""
        ...

    def validate(self) -> Validation:
        """Judge the validation rows; changes no weight and no random state."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """How to fit; see `config.FitConfig`."""

    epochs: int
    lr: float
    weight_decay: float = 0.01
    clip: float = 1.0
    patience: int = 0
    seed: int = 0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """What happened.

    Attributes:
        best: the epoch whose weights were kept, from 0.
        resumed: epochs and steps at which the training was taken up again, if it was.
    """

    epochs: tuple[Epoch, ...]
    best: int
    resumed: tuple[int, int] | None = None


class _Best(NamedTuple):
    score: tuple[float, float]
    epoch: int
    weights: dict[str, Tensor]


def fit(
    learner: Learner,
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> History:
    """Train until the last epoch or until it gets no better; the network ends with its best weights.

    Args:
        learner: the network and its rows.
        settings: epochs, rates, seed.
        checkpoint: where the state is kept after every epoch and at an interruption; removed at the end.
        resume: continue from `checkpoint` if it is there.
        progress: called after every step and every validation.
        stop: asked before every step; true interrupts as Ctrl-C does.

    Raises:
        Cancelled: interrupted; the state is saved.
        InvalidInput: the loss is not finite; names the batch.
    """
    run = _Run(learner, settings, checkpoint)
    resumed = run.restore() if resume and checkpoint is not None and checkpoint.exists() else None
    with _interruptible() as interrupted:
        while run.epoch < settings.epochs and not run.is_stale():
            run.one_epoch(progress, lambda: interrupted() or stop())
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return run.finish(resumed)


class _Run:
    """The moving parts of one training."""

    def __init__(self, learner: Learner, settings: Settings, checkpoint: Path | None) -> None:
        self.learner, self.settings, self.checkpoint = learner, settings, checkpoint
        torch.manual_seed(settings.seed)
        self.order = torch.Generator().manual_seed(settings.seed)
        self.optimizer = torch.optim.AdamW(learner.groups(settings.lr), weight_decay=settings.weight_decay, fused=True)
        self.highest = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.epoch, self.step, self.loss_sum = 0, 0, 0.0
        self.order_state = self.order.get_state()
        self.best: _Best | None = None
        self.history: list[Epoch] = []

    def one_epoch(self, progress: Callable[[Progress], None], stopped: Callable[[], bool]) -> None:
        """The rest of the current epoch, its validation and its checkpoint."""
        began = time.perf_counter()
        self.order_state = self.order.get_state()
        batches = self.learner.batches(self.order)
        self.learner.network.train()
        while self.step < len(batches):
            if stopped():
                self._interrupt(len(batches))
            self._one_step(batches[self.step], len(batches))
            self.step += 1
            progress(Progress(self.epoch, self.settings.epochs, self.step, len(batches), self.loss_sum / self.step))
        self.learner.network.eval()
        validation = self.learner.validate()
        loss = self.loss_sum / max(1, len(batches))
        self.history.append(Epoch(loss, validation, time.perf_counter() - began))
        self._keep_best(validation)
        progress(Progress(self.epoch, self.settings.epochs, len(batches), len(batches), loss, validation))
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
        self.order_state = self.order.get_state()
        if self.epoch < self.settings.epochs:
            self._save()

    def _one_step(self, rows: Tensor, steps: int) -> None:
        share = rate(self.epoch * steps + self.step, self.settings.epochs * steps)
        for group, highest in zip(self.optimizer.param_groups, self.highest, strict=True):
            group["lr"] = highest * share
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.learner.loss(rows)
        value = loss.item()
        if not math.isfinite(value):
            shown = ", ".join(str(int(row)) for row in rows[:8]) + (", ..." if len(rows) > 8 else "")
            raise InvalidInput(
                f"the loss is {value} at epoch {self.epoch + 1}, batch {self.step + 1} of {steps} (rows {shown})",
                hint="look at these rows, lower fit.lr, or set precision: f32",
            )
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        nn.utils.clip_grad_norm_(self.weights, self.settings.clip)
        self.optimizer.step()
        self.loss_sum += value

    def _keep_best(self, validation: Validation) -> None:
        score = (validation.accuracy, -validation.loss)
        if self.best is None or score >= self.best.score:
            weights = {name: value.clone() for name, value in self.learner.network.state_dict().items()}
            self.best = _Best(score, self.epoch, weights)

    def is_stale(self) -> bool:
        """Whether `patience` epochs brought nothing better."""
        waited = self.epoch - 1 - self.best.epoch if self.best else 0
        return 0 < self.settings.patience <= waited

    def _interrupt(self, steps: int) -> None:
        self._save()
        place = f"epoch {self.epoch + 1} of {self.settings.epochs}, step {self.step} of {steps}"
        hint = "continue with --resume" if self.checkpoint else ""
        raise Cancelled(f"training interrupted at {place}", hint=hint)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        best = self.best and {"score": list(self.best.score), "epoch": self.best.epoch, "weights": self.best.weights}
        Checkpoint(
            fingerprint=self.settings.fingerprint,
            epoch=self.epoch,
            step=self.step,
            loss_sum=self.loss_sum,
            model=self.learner.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            order_state=self.order_state,
            random_state=torch.get_rng_state(),
            best=best,
            history=[[epoch.loss, *epoch.validation, epoch.seconds] for epoch in self.history],
        ).save(self.checkpoint)

    def restore(self) -> tuple[int, int]:
        """Take up the state of the checkpoint; returns its epoch and step."""
        assert self.checkpoint is not None
        saved = Checkpoint.load(self.checkpoint, self.settings.fingerprint)
        self.learner.network.load_state_dict(saved.model)
        self.optimizer.load_state_dict(saved.optimizer)
        self.order.set_state(saved.order_state)
        torch.set_rng_state(saved.random_state)
        self.epoch, self.step, self.loss_sum = saved.epoch, saved.step, saved.loss_sum
        if saved.best is not None:
            first, second = saved.best["score"]
            self.best = _Best((first, second), saved.best["epoch"], saved.best["weights"])
        self.history = [Epoch(row[0], Validation(*row[1:4]), row[4]) for row in saved.history]
        return saved.epoch, saved.step

    def finish(self, resumed: tuple[int, int] | None) -> History:
        """Put the best weights back."""
        assert self.best is not None
        self.learner.network.load_state_dict(self.best.weights)
        self.learner.network.eval()
        return History(tuple(self.history), self.best.epoch, resumed)


def rate(step: int, steps: int) -> float:
    """The share of the highest learning rate at a step: up for a tenth of the steps, then down along a cosine."""
    peak = max(1.0, _WARM_UP * steps)
    if step < peak:
        return 0.04 + 0.96 * step / peak
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - peak) / max(1.0, steps - peak))))


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks for an orderly stop; a second one stops at once. Only the main thread can listen."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
