"""`train`: a data set and a config -> a calibrated, proven Bundle and a Report."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array
from inferloop.core.errors import Conflict, InvalidInput
from inferloop.core.home import home
from inferloop.core.plugins import missing_package
from inferloop.core.report import Report
from inferloop.data.datasets.dataset import Dataset
from inferloop.registry.registry import Registry
from inferloop.training.config import TrainConfig
from inferloop.training.corpus import Corpus, build
from inferloop.training.watch import Observer, Watch

if TYPE_CHECKING:
    from inferloop.training.network import Trained

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class TrainResult:
    """What came out.

    Attributes:
        bundle: registered, or at the path that was asked for.
        corpus: the rows as they were split; `corpus.holdout` was judged.
        logits: of the holdout, float32 [N, C], calibrated, by the session that will serve.
    """

    bundle: Bundle
    report: Report
    corpus: Corpus
    logits: Array

    @property
    def predicted(self) -> Array:
        """The class of every holdout row, int64 [N]."""
        return np.asarray(self.logits.argmax(axis=1))


def train(
    config: TrainConfig | Path | str,
    dataset: Dataset | None = None,
    *,
    test: Dataset | None = None,
    output: Path | str | None = None,
    registry: Registry | None = None,
    alias: str | None = None,
    resume: bool = False,
    observer: Observer = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train a network and make a Bundle of it.

    Args:
        config: the training file, read or by its path.
        dataset: rows in memory, instead of `config.data`.
        test: rows that are never trained on; they become the holdout.
        output: write the Bundle there instead of registering it.
        registry: where it is registered; by default the one under `INFERLOOP_HOME`.
        alias: of the new version, e.g. `champion`.
        resume: continue the interrupted training of the same config and data, if there is one.
        observer: hears of every stage, step and epoch.
        stop: asked between steps; true interrupts as Ctrl-C does.

    Raises:
        InvalidConfig: the training file is wrong; all problems at once.
        InvalidInput: the data cannot be learned from, or the loss is not finite.
        MissingDependency: torch or the backbone's wheel is not installed.
        Cancelled: interrupted; `resume` continues.
        Conflict: `output` exists.
    """
    began = time.perf_counter(), time.process_time()
    settings = config if isinstance(config, TrainConfig) else TrainConfig.load(config)
    if output is not None and Path(output).exists():
        raise Conflict(f"{output} exists already", hint="name another path with -o, or remove it")
    corpus = build(settings, *_data(settings, dataset, test))
    fingerprint = _fingerprint(settings, corpus)
    checkpoint = home() / "training" / f"{settings.name}-{fingerprint[:16]}.pt"
    watch = Watch(settings, fingerprint, observer=observer, checkpoint=checkpoint, resume=resume, stop=stop)
    log.info("training", extra={"model": settings.name, "rows": len(corpus.train), "classes": corpus.classes})
    with _torch_settings(settings.threads), tempfile.TemporaryDirectory(prefix="inferloop-") as folder:
        from inferloop.training.packaging import package
        from inferloop.training.reporting import evaluation, report

        trained = _recipe(corpus, settings, watch)
        packaged = package(trained, corpus, settings, folder=Path(folder), watch=watch)
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        result = report(trained, packaged, corpus, settings, wall_s=took[0], cpu_s=took[1])
        manifest = replace(packaged.manifest, evaluation=evaluation(result))
        bundle = Bundle.write(output or Path(folder) / "bundle", manifest, packaged.files)
        stored = bundle if output is not None else _registered(bundle, registry, alias=alias, owner=settings.owner)
    return TrainResult(stored, result, corpus, packaged.logits)


def _data(config: TrainConfig, dataset: Dataset | None, test: Dataset | None) -> tuple[Dataset, Dataset | None]:
    if dataset is not None:
        return dataset, test
    if config.data is None:
        raise InvalidInput(
            "the config names no data and none were handed over", hint="add a section data: {path: ..., label: ...}"
        )
    return config.data.load()


def _recipe(corpus: Corpus, config: TrainConfig, watch: Watch) -> Trained:
    """The recipe of the task; each is imported only when it is asked for."""
    if config.task == "image-classification":
        from inferloop.training.image import train_images

        return train_images(corpus, config, watch)
    if config.text.backbone == "none":
        from inferloop.training.bag import train_bag

        return train_bag(corpus, config, watch)
    from inferloop.training.text import train_sentences

    return train_sentences(corpus, config, watch)


def _fingerprint(config: TrainConfig, corpus: Corpus) -> str:
    """What a checkpoint must agree in: everything that changes the weights."""
    content = config.model_dump(mode="json", exclude={"name", "owner", "license", "source", "data"})
    return hashlib.sha256(json.dumps([content, corpus.digests], sort_keys=True).encode()).hexdigest()


def _registered(bundle: Bundle, registry: Registry | None, *, alias: str | None, owner: str) -> Bundle:
    if registry is not None:
        return registry.register(bundle, alias=alias, owner=owner)
    with Registry() as own:
        return own.register(bundle, alias=alias, owner=owner)


@contextmanager
def _torch_settings(threads: int) -> Iterator[None]:
    """Threads and random state as they were before, once training is over."""
    try:
        import torch
    except ImportError as error:
        raise missing_package("torch", "train", "training") from error
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
