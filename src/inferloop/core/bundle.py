"""A model as a directory: manifest, `model.onnx`, assets, golden inputs and outputs.

bundle.json          what it is (manifest.py)
model.onnx           fp32, the canonical artifact
golden.npz           inputs/NAME and outputs/NAME: a reference that any engine can be held against
assets/              what transforms need, e.g. tokenizer.json
reference/           holdout.npz and replay.npz: rows to judge and to refresh an update with
variants/            optimized forms, each bound to a Target
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from inferloop.core import manifest as manifests
from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import InvalidBundle, NotFound, StorageError
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature

if TYPE_CHECKING:
    from inferloop.core.protocols import Session

MANIFEST = "bundle.json"
MODEL = "model.onnx"
GOLDEN = "golden.npz"
HOLDOUT = "reference/holdout.npz"
REPLAY = "reference/replay.npz"

_FRESH = "take a fresh copy of the bundle, or make it anew"


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a session is from the golden outputs.

    Attributes:
        max_error: largest absolute difference, by output.
        scale: largest absolute golden value, by output.
        tolerance: allowed error per unit of scale (at least 1).
    """

    rows: int
    max_error: Mapping[str, float]
    scale: Mapping[str, float]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every output stays within the tolerance; NaN does not."""
        return all(error <= self.tolerance * max(1.0, self.scale[name]) for name, error in self.max_error.items())


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded manifest and the directory that it stands in. Immutable on disk; a change makes a new Bundle.

    Attributes:
        model_file: the ONNX file, by its relative path; another name only where a foreign layout is served as it is.
    """

    path: Path
    manifest: Manifest
    model_file: str = MODEL

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """The version in a registry; 0 outside of one."""
        return self.manifest.version

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self.manifest.signature

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""
        return self.manifest.labels

    @property
    def model_path(self) -> Path:
        """The canonical ONNX file."""
        return self.path / self.model_file

    def asset(self, name: str) -> Path:
        """A file of the bundle by its relative path.

        Raises:
            InvalidBundle: the path leaves the directory, or the bundle has no such file.
        """
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()) or name not in self.manifest.files:
            raise InvalidBundle(f"bundle {self.path} has no file {name!r}")
        return path

    def arrays(self, name: str) -> dict[str, Array]:
        """The arrays of one `.npz` file of the bundle (`GOLDEN`, `HOLDOUT`, `REPLAY`); never unpickles.

        Raises:
            InvalidBundle: the bundle has no such file, or it holds something else than arrays.
        """
        try:
            with self.asset(name).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return {key: _named(stored[key]) for key in stored.files}
        except (ValueError, TypeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise InvalidBundle(f"bundle {self.path}: {name} holds something else than plain arrays") from error

    def verify(self, session: Session, *, tolerance: float = 1e-4) -> Parity:
        """Run the golden inputs through `session` and compare with the golden outputs.

        Raises:
            InvalidBundle: the golden rows are not of this signature, or no arrays.
            EngineError: as `Session.run`.
        """
        golden = self.arrays(GOLDEN)
        inputs, expected = _side(golden, "inputs/"), _side(golden, "outputs/")
        if inputs.keys() != self._names("inputs") or not expected or not expected.keys() <= self._names("outputs"):
            raise InvalidBundle(f"bundle {self.path}: {GOLDEN} has other tensors than the signature", hint=_FRESH)
        outputs = session.run(inputs)
        errors = {name: _max_error(outputs[name], want) for name, want in expected.items()}
        scale = {name: float(np.max(np.abs(want), initial=0.0)) for name, want in expected.items()}
        rows = len(next(iter(inputs.values())))
        return Parity(rows=rows, max_error=errors, scale=scale, tolerance=tolerance)

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read a bundle and check every file against its digest.

        Raises:
            NotFound: there is no such directory.
            InvalidBundle: no manifest, a file missing, changed or truncated; one line that names it.
            NewerSchema: written by a newer inferloop.
            StorageError: a file cannot be read.
        """
        root = Path(path)
        try:
            if not root.exists():
                raise NotFound(f"no bundle at {root}", hint="`inferloop models list` shows the registered models")
            if not (root / MANIFEST).is_file():
                raise InvalidBundle(f"{root} is not a bundle: it has no {MANIFEST}")
            bundle = cls(root, manifests.parse((root / MANIFEST).read_bytes(), str(root / MANIFEST)))
            bundle._check_files()
        except OSError as error:
            raise StorageError(f"cannot read bundle {root}: {error.strerror}", hint="check its path and permissions") from error
        except RecursionError as error:
            raise InvalidBundle(f"{root / MANIFEST} is nested too deep") from error
        return bundle

    @classmethod
    def write(cls, path: Path | str, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
        """Write a new bundle: into a temporary directory beside `path`, then renamed, so that half a bundle never shows.

        Args:
            path: where the directory will stand; must not exist.
            manifest: digest, files and date are filled in here.
            files: content or source path by relative path; `model.onnx` at least.

        Raises:
            StorageError: the disk is full or not writable; nothing is left behind.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        except OSError as error:
            raise StorageError(f"cannot write bundle {target}: {error}") from error
        try:
            digests = {name: _place(partial / name, content) for name, content in sorted(files.items())}
            complete = replace(manifest, files=digests, created=manifest.created or datetime.now(UTC).isoformat())
            complete = replace(complete, digest=complete.content_digest())
            (partial / MANIFEST).write_bytes(complete.to_json())
            partial.chmod(0o755)
            partial.rename(target)
        except OSError as error:
            raise StorageError(f"cannot write bundle {target}: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls(target, complete)

    def copy(self, path: Path | str, **changes: object) -> Bundle:
        """The same files under another manifest, e.g. `copy(path, name="n", version=3)`."""
        files: dict[str, bytes | Path] = {name: self.path / name for name in self.manifest.files}
        return Bundle.write(path, replace(self.manifest, **changes), files)  # type: ignore[arg-type]  # fields of Manifest

    def _names(self, side: Literal["inputs", "outputs"]) -> set[str]:
        return {spec.name for spec in getattr(self.signature, side)}

    def _check_files(self) -> None:
        for name, digest in self.manifest.files.items():
            path = (self.path / name.replace("\0", "")).resolve()
            if "\0" in name or not path.is_relative_to(self.path.resolve()):
                raise InvalidBundle(f"bundle {self.path} names a file outside of it: {name!r}")
            if not path.is_file():
                raise InvalidBundle(f"bundle {self.path} is incomplete: {name} is missing", hint=_FRESH)
            if _digest(path) != digest:
                raise InvalidBundle(f"bundle {self.path} is damaged: {name} does not match its digest", hint=_FRESH)
        if MODEL not in self.manifest.files:
            raise InvalidBundle(f"bundle {self.path} has no {MODEL}")
        if self.manifest.digest != self.manifest.content_digest():
            raise InvalidBundle(f"bundle {self.path} is damaged: {MANIFEST} does not match its digest", hint=_FRESH)


def golden_arrays(inputs: Tensors, outputs: Tensors) -> dict[str, Array]:
    """Inputs and outputs under the keys of `golden.npz`."""
    return {
        **{f"inputs/{name}": array for name, array in inputs.items()},
        **{f"outputs/{name}": array for name, array in outputs.items()},
    }


def _named(array: Array) -> Array:
    """BF16, which the file format knows as two bytes of something."""
    return array.view(DataType.BF16.numpy) if array.dtype.str == "|V2" else array


def _side(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def _max_error(got: Array, want: Array) -> float:
    if got.shape != want.shape:
        return float("inf")
    return float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64)), initial=0.0))


def _place(path: Path, content: bytes | Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
