"""A plugin from another distribution: ONNX Runtime, whose process aborts when the first value of a batch is `MARK`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferloop.core import plugins
from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.protocols import Engine, Session
from inferloop.core.target import Target

MARK = 666.0
TARGET = Target("crashing")


class CrashingEngine(Engine):
    """Loads what ONNX Runtime loads."""

    def load(self, bundle: Bundle, target: Target) -> Session:
        engine: Engine = plugins.load("engines", "onnxruntime")()
        return CrashingSession(engine.load(bundle, Target()))

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)


class CrashingSession(Session):
    """Aborts as native code does: no exception, no clean-up."""

    def __init__(self, inner: Session) -> None:
        self.signature = inner.signature
        self._inner = inner

    def run(self, inputs: Tensors) -> dict[str, Array]:
        if (inputs["x"] == MARK).any():
            os.abort()
        return self._inner.run(inputs)

    def close(self) -> None:
        self._inner.close()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it an installed distribution, for this process and those that it starts."""
    info = folder / "crashing_engine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[inferloop.engines]\ncrashing = support.crashing_engine:CrashingEngine\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[1])]))
    plugins.plugins.cache_clear()
