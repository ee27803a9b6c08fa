"""Which models stand in a directory, which versions each has, and a stamp that changes when their files do.

NAME/3/bundle.json        ours, by version            NAME/bundle.json      ours, the only one
NAME/3/model.onnx         Triton's and OpenVINO Model Server's, with or without NAME/config.pbtxt
NAME/model.yaml           our words for any of them
config.json               OpenVINO Model Server's list of models; only those are served then
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferloop.core.bundle import MANIFEST
from inferloop.core.errors import InferloopError, InvalidConfig, StorageError
from inferloop.prediction.repository.paths import check_model_name, real

TRITON_CONFIG = "config.pbtxt"
MODEL_CONFIG = "model.yaml"
LIST = "config.json"
_MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model as it stands on disk.

    Attributes:
        root: what no link may lead out of.
        path: the model's directory.
        versions: a directory by version number; empty for an ensemble without any.
        stamp: of everything.
        stamps: of one version with the configuration.
        listed: what a list of models says of it.
        problem: why it cannot be served at all; None if it can.
    """

    name: str
    root: Path
    path: Path
    versions: Mapping[int, Path] = field(default_factory=dict)
    stamp: str = ""
    stamps: Mapping[int, str] = field(default_factory=dict)
    listed: Mapping[str, Any] = field(default_factory=dict)
    problem: InferloopError | None = None


def list_models(root: Path) -> dict[str, ModelFolder]:
    """Every model of a directory, by name; one that cannot be served says why. Reads no model.

    Raises:
        StorageError: the directory cannot be read.
    """
    try:
        if (root / LIST).is_file():
            return dict(_listed(root))
        found = {place.name: place for place in list(root.iterdir()) if not place.name.startswith(".") and place.is_dir()}
    except OSError as error:
        raise StorageError(f"cannot read the model repository {root}: {error.strerror}") from error
    return {name: read_folder(root, name, path) for name, path in sorted(found.items())}


def read_folder(root: Path, name: str, path: Path, *, listed: Mapping[str, Any] | None = None) -> ModelFolder:
    """One model's directory."""
    try:
        check_model_name(name)
        real(root, path)
        versions = _versions(root, path)
        own = _stamp(path, deep=False) + json.dumps(listed or {}, sort_keys=True)
        stamps = {number: _hash(own + _stamp(place)) for number, place in versions.items()}
    except InferloopError as error:
        return ModelFolder(name, root, path, stamp=str(error), problem=error)
    except OSError as error:
        return ModelFolder(name, root, path, stamp=str(error), problem=StorageError(f"cannot read {path}: {error.strerror}"))
    stamp = _hash(own + json.dumps(sorted(stamps.items())))
    return ModelFolder(name, root, path, versions, stamp, stamps, listed or {})


def _versions(root: Path, path: Path) -> dict[int, Path]:
    if (path / MANIFEST).is_file():
        return {_only_version(path): path}
    found = {}
    for entry in list(path.iterdir()):
        if _is_version(entry.name) and entry.is_dir():
            real(root, path / entry.name)
            found[int(entry.name)] = path / entry.name
    return found


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) <= 18


def _only_version(path: Path) -> int:
    """The number that a single bundle gives itself; 1 if it gives none."""
    try:
        version = json.loads((path / MANIFEST).read_bytes()).get("version", 0)
    except (ValueError, AttributeError, RecursionError):  # damaged: loading it says how
        return 1
    return version if isinstance(version, int) and version > 0 else 1


def _stamp(path: Path, *, deep: bool = True) -> str:
    """Names, sizes and times of the files of a directory, those below it too if `deep`; links count as what they lead to."""
    lines = []
    for count, (relative, place) in enumerate(_files(path, deep=deep)):
        if count >= _MOST_FILES:
            raise InvalidConfig([f"{path} has more than {_MOST_FILES} files"])
        try:
            facts = place.stat()
        except OSError:  # gone while we look, or a link to nowhere
            continue
        lines.append(f"{relative}:{facts.st_size}:{facts.st_mtime_ns}:{facts.st_ino}")
    return "\n".join(sorted(lines))


def _files(path: Path, *, deep: bool) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(path):
        if not deep:
            folders.clear()
        for name in names:
            place = Path(folder, name)
            yield str(place.relative_to(path)), place


def _hash(text: str) -> str:
    return hashlib.blake2s(text.encode()).hexdigest()


def _listed(root: Path) -> Iterator[tuple[str, ModelFolder]]:
    """The models of OpenVINO Model Server's `config.json`."""
    where = root / LIST
    try:
        content = json.loads(where.read_bytes())
        entries = [entry["config"] for entry in content["model_config_list"]]
        places = [(str(entry["name"]), str(entry["base_path"]), entry) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidConfig([f"{where}: is no list of models: needs model_config_list with name and base_path"]) from error
    for name, place, entry in places:
        yield name, read_folder(root, name, root / place, listed=entry)
