"""One line from a model's name to answers."""

from __future__ import annotations

from pathlib import Path

from inferloop.core.target import Target
from inferloop.prediction.predictor import Predictor
from inferloop.registry.registry import Registry


def load(model: str | Path, *, target: Target | str | None = None, registry: Registry | None = None) -> Predictor:
    """Load a model for `predict` in this process; nothing is written to a ledger.

    Args:
        model: the path of a Bundle, `name@alias`, `name:version` or `name`.
        target: where it runs; `onnxruntime:cpu:f32@1` by default.
        registry: where names are looked up; the one under `INFERLOOP_HOME` by default.

    Raises:
        NotFound: no such model, version or alias; the hint lists the known ones.
        InferloopError: the Bundle or the target cannot be used, see `Predictor.load`.
    """
    place = Target.parse(target) if isinstance(target, str) else target
    if registry is not None:
        return Predictor.load(registry.resolve(model), target=place)
    with Registry() as own:
        return Predictor.load(own.resolve(model), target=place)
