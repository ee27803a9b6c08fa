"""The environment that the Makefile makes: pinned as a whole, and without gigabytes of CUDA."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """All packages that a distribution brings, by their plain names."""
    if (plain(name), extras) in seen:
        return
    seen.add((plain(name), extras))
    yield plain(name)
    for requirement in map(Requirement, distribution(name).requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield from needed(requirement.name, frozenset(requirement.extras), seen)


def test_every_package_that_the_extras_bring_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {plain(line.partition("==")[0]) for line in lines if "==" in line and not line.startswith("#")}
    try:
        brought = set(needed("inferloop", frozenset({"dev"}), set()))
    except PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed: `make test` installs all")
    assert brought - pinned - {"inferloop"} == set()


def test_a_cpu_build_of_torch_comes_without_cuda_packages():
    try:
        torch = version("torch")
    except PackageNotFoundError:
        pytest.skip("torch is not installed: pip install torch==2.13.0")
    if "+cpu" not in torch:
        assert not os.environ.get("CI"), f"CI must run the CPU build of torch, this is {torch}"
        pytest.skip(f"torch {torch} is no CPU build: see the README for the line")
    names = {plain(found.metadata["Name"]) for found in distributions()}
    assert [name for name in names if name == "triton" or name.startswith(("nvidia-", "cuda-"))] == []


def test_torch_is_pinned_to_the_version_that_the_makefile_installs():
    pin = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pin is not None
    assert f"TORCH := {pin[0]}" in (ROOT / "Makefile").read_text()
    assert pin[0] in (ROOT / "README.md").read_text()
