"""inferloop: from training to action and back.

The public names are imported when they are first used, so that `import inferloop` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferloop.core.bundle import Bundle as Bundle
    from inferloop.core.report import Report as Report
    from inferloop.core.sample import Sample as Sample
    from inferloop.core.signature import Signature as Signature
    from inferloop.core.target import Target as Target
    from inferloop.data.datasets.dataset import Dataset as Dataset
    from inferloop.data.ledger.ledger import Ledger as Ledger
    from inferloop.evaluation.evaluate import evaluate as evaluate
    from inferloop.learning.learn import learn as learn
    from inferloop.prediction.loading import load as load
    from inferloop.prediction.predictor import Predictor as Predictor
    from inferloop.registry.registry import Registry as Registry
    from inferloop.serving.server import run as serve  # noqa: F401
    from inferloop.streams.pipeline import Pipeline as Pipeline
    from inferloop.training.train import train as train

_PUBLIC = {
    "Bundle": "inferloop.core.bundle:Bundle",
    "Dataset": "inferloop.data.datasets.dataset:Dataset",
    "Ledger": "inferloop.data.ledger.ledger:Ledger",
    "Pipeline": "inferloop.streams.pipeline:Pipeline",
    "Predictor": "inferloop.prediction.predictor:Predictor",
    "Registry": "inferloop.registry.registry:Registry",
    "Report": "inferloop.core.report:Report",
    "Sample": "inferloop.core.sample:Sample",
    "Signature": "inferloop.core.signature:Signature",
    "Target": "inferloop.core.target:Target",
    "evaluate": "inferloop.evaluation.evaluate:evaluate",
    "learn": "inferloop.learning.learn:learn",
    "load": "inferloop.prediction.loading:load",
    "serve": "inferloop.serving.server:run",
    "train": "inferloop.training.train:train",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("inferloop")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'inferloop' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
