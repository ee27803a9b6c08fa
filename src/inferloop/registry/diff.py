"""What two Bundles have in common and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inferloop.core.bundle import Bundle

_UNTOLD = ("name", "version", "schema", "digest", "created")


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that differs; None where a Bundle does not have it.

    Attributes:
        path: where it stands in the manifest, e.g. `evaluation.accuracy`.
    """

    path: str
    before: Any
    after: Any


def differences(before: Bundle, after: Bundle) -> list[Difference]:
    """All facts of the manifests that differ, by path; files by their SHA-256."""
    left, right = _facts(before), _facts(after)
    paths = sorted(left.keys() | right.keys())
    return [Difference(path, left.get(path), right.get(path)) for path in paths if left.get(path) != right.get(path)]


def _facts(bundle: Bundle) -> dict[str, Any]:
    content = {key: value for key, value in asdict(bundle.manifest).items() if key not in _UNTOLD}
    return dict(_flat("", content))


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, tuple | list) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _flat(f"{path}[{number}]", item)
    else:
        yield path, value
