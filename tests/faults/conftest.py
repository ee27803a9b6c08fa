"""What tests of faults share: a home with a model that always says hot."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.pipelines import HOT, numbers_registry


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`INFERLOOP_HOME` of the processes that the test starts."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("INFERLOOP_HOME", str(home))
    numbers_registry(home, HOT).close()
    return home
