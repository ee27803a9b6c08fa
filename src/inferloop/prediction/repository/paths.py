"""Nothing of a model directory leads out of it."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from inferloop.core.errors import InvalidInput
from inferloop.registry.ref import check_name

_RESERVED = frozenset({"stats"})


def check_model_name(name: str) -> None:
    """Raise `InvalidInput` unless `name` can be a model's directory and a part of a path of the protocol."""
    check_name(name)
    if name in _RESERVED:
        raise InvalidInput(f"model name {name!r} is not allowed", hint="the protocol has a path of that name")


def check_relative(path: str) -> None:
    """Raise `InvalidInput` for a path that is empty or absolute or goes up, on any system."""
    windows = PureWindowsPath(path)
    if not path or "\0" in path or windows.drive or windows.root or ".." in windows.parts:
        raise InvalidInput(f"path {path!r} is not allowed", hint="a relative path below the model's directory")


def inside(root: Path, relative: str) -> Path:
    """The real path of a file below `root`, links followed.

    Raises:
        InvalidInput: absolute, with `..`, or a link that leads out of `root`.
    """
    check_relative(relative)
    return real(root, root / relative)


def real(root: Path, path: Path) -> Path:
    """The real path of something below `root`; `InvalidInput` where a link leads out of it."""
    try:
        found = path.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise InvalidInput(f"{path} cannot be followed") from error
    if not found.is_relative_to(root.resolve()):
        raise InvalidInput(
            f"{path} leads out of the directory {root}", hint="put the files themselves there, or a link within it"
        )
    return found
