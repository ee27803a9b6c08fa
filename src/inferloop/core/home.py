"""Where state lives: registry, ledger and journal under `INFERLOOP_HOME`."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`INFERLOOP_HOME`, by default `~/.inferloop`; made if it is not there."""
    path = Path(os.environ.get("INFERLOOP_HOME") or Path.home() / ".inferloop")
    path.mkdir(parents=True, exist_ok=True)
    return path
