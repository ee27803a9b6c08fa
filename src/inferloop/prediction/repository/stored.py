"""One model of a repository: its configuration read, its versions made into Bundles."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from inferloop.core.bundle import MANIFEST, MODEL, Bundle
from inferloop.core.errors import InferloopError, InvalidBundle, InvalidConfig, NotFound
from inferloop.core.manifest import Manifest
from inferloop.core.target import Target
from inferloop.data.config import validate
from inferloop.prediction.limits import Limits
from inferloop.prediction.plan import Plan
from inferloop.prediction.repository import triton_config
from inferloop.prediction.repository.declared import Declared
from inferloop.prediction.repository.folder import MODEL_CONFIG, TRITON_CONFIG, ModelFolder
from inferloop.prediction.repository.graph import read_graph
from inferloop.prediction.repository.model_yaml import read_model_yaml
from inferloop.prediction.repository.paths import inside, real
from inferloop.prediction.repository.triton_keys import Versions
from inferloop.prediction.settings import ModelSettings

log = logging.getLogger(__name__)

_MOST_LABELS_BYTES = 16 * 1024 * 1024
_LISTED = frozenset({"name", "base_path", "model_version_policy"})


@dataclass(frozen=True, slots=True)
class Stored:
    """One model.

    Attributes:
        problem: why it cannot be served; None if it can.
    """

    folder: ModelFolder
    declared: Declared
    problem: InferloopError | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        """Those that its policy wants, the highest first."""
        if self.declared.is_ensemble and not self.folder.versions:
            return (1,)
        return self.declared.settings.versions.choose(self.folder.versions)

    def plan(self) -> Plan:
        """The highest version answers, the others where they are named.

        Raises:
            NotFound: its policy wants none of its versions, or it has none.
            InferloopError: its `problem`.
        """
        if self.problem is not None:
            raise self.problem
        versions = self.versions
        if not versions:
            stored = ", ".join(map(str, sorted(self.folder.versions))) or "none"
            raise NotFound(f"model {self.folder.name!r} has no version to serve", hint=f"stored: {stored}")
        stamps = {version: self.folder.stamps.get(version, self.folder.stamp) for version in versions}
        return Plan(main=versions[0], others=versions[1:], stamps=stamps)

    def bundle(self, version: int) -> Bundle:
        """A bundle as it is, or one in memory around a plain model: without golden rows, so that nothing is held against them.

        Raises:
            NotFound, InvalidBundle, NewerSchema, StorageError: there is no such version, or it cannot be used.
        """
        name = self.folder.name
        path = self.folder.versions.get(version, self.folder.path)
        if self.declared.is_ensemble:
            return Bundle(path, self._manifest(version, model_file=None))
        real(self.folder.root, path)
        if (path / MANIFEST).is_file():
            bundle = Bundle.load(path)
            return replace(bundle, manifest=replace(bundle.manifest, name=name, version=version))
        model_file = self._model_file(path)
        return Bundle(path, self._manifest(version, model_file=path / model_file), model_file)

    def _manifest(self, version: int, *, model_file: Path | None) -> Manifest:
        graph = read_graph(model_file, root=self.folder.root) if model_file is not None else None
        signature = self.declared.signature(graph, f"{self.folder.name}/{TRITON_CONFIG}")
        return Manifest(name=self.folder.name, signature=signature, version=version, labels=self._labels())

    def _model_file(self, path: Path) -> str:
        """The model of a version: as declared, `model.onnx`, or the only ONNX file."""
        wanted = self.declared.model_file or MODEL
        if inside(self.folder.root, (path / wanted).relative_to(self.folder.root).as_posix()).is_file():
            return wanted
        found = sorted(file.name for file in path.glob("*.onnx"))
        if len(found) != 1 or wanted != MODEL:
            raise InvalidBundle(f"{path} has no {wanted}", hint=f"it has: {', '.join(found) or 'no ONNX file'}")
        real(self.folder.root, path / found[0])
        return found[0]

    def _labels(self) -> tuple[str, ...]:
        if not self.declared.label_file:
            return ()
        relative = (self.folder.path.relative_to(self.folder.root) / self.declared.label_file).as_posix()
        path = inside(self.folder.root, relative)
        try:
            if path.stat().st_size > _MOST_LABELS_BYTES:
                raise InvalidBundle(f"{path} is too large for labels")
            return tuple(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidBundle(f"{path} cannot be read as labels") from error


def read_stored(folder: ModelFolder, *, limits: Limits, target: Target, config: str = "") -> Stored:
    """Read a model's configuration; what is wrong with it becomes its `problem`.

    Args:
        folder: where it stands.
        limits: what the configuration does not say.
        target: the same.
        config: JSON in place of the stored configuration; empty for the stored one.
    """
    if folder.problem is not None:
        return Stored(folder, Declared(), folder.problem)
    try:
        declared = _declared(folder, limits, target, config)
    except InferloopError as error:
        return Stored(folder, Declared(), error)
    except (OSError, UnicodeDecodeError) as error:
        return Stored(folder, Declared(), InvalidConfig([f"{folder.path}: its configuration cannot be read: {error}"]))
    if declared.not_used:
        log.warning("configuration keys not used", extra={"model": folder.name, "keys": ", ".join(declared.not_used)})
    return Stored(folder, declared)


def _declared(folder: ModelFolder, limits: Limits, target: Target, config: str) -> Declared:
    triton, ours = folder.path / TRITON_CONFIG, folder.path / MODEL_CONFIG
    if config:
        return triton_config.read_json(config, f"config of {folder.name}", name=folder.name, limits=limits)
    for path in (triton, ours):
        real(folder.root, path)
    if triton.is_file() and ours.is_file():
        raise InvalidConfig([f"{folder.path}: has {TRITON_CONFIG} and {MODEL_CONFIG}"], hint="keep one of them")
    if ours.is_file():
        return read_model_yaml(ours, f"{folder.name}/{MODEL_CONFIG}", limits=limits, target=target)
    if triton.is_file():
        where = f"{folder.name}/{TRITON_CONFIG}"
        return triton_config.read_text(triton.read_text(encoding="utf-8"), where, name=folder.name, limits=limits)
    return _of_list(folder.listed, f"model_config_list of {folder.name}") if folder.listed else Declared()


def _of_list(entry: Mapping[str, object], where: str) -> Declared:
    policy = entry.get("model_version_policy")
    chosen = validate(Versions, policy, where) if isinstance(policy, dict) else None
    return Declared(ModelSettings(versions=triton_config.version_policy(chosen)), not_used=tuple(sorted(entry.keys() - _LISTED)))
