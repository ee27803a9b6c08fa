"""When a file that lines are appended to makes place for a new one, and which old ones go."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inferloop.data.config import Duration, Size


class Rotation(BaseModel):
    """A file is renamed to `NAME-20260131T235959Z.SUFFIX` (with `-001` and so on within one second) and begun anew.

    Attributes:
        size: the most bytes of a file; a batch that is larger has a file of its own.
        every: lines of one such span, counted from the epoch in UTC, are in one file: of an hour, of a day.
        keep: so many renamed files stay, the oldest are deleted; all of them when it is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Annotated[Size, Field(ge=1)] | None = None
    every: Annotated[Duration, Field(ge=1)] | None = None
    keep: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.size is None and self.every is None:
            raise ValueError("must have `size` or `every`")
        return self

    def due(self, found: os.stat_result, added: int) -> bool:
        """Whether a file must be renamed before so many bytes are added to it."""
        if not found.st_size:
            return False
        if self.size is not None and found.st_size + added > self.size:
            return True
        return self.every is not None and found.st_mtime // self.every != time.time() // self.every

    def rename(self, path: Path, written: float) -> Path:
        """Rename a file by the time at which it was written last; returns its new name."""
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(written))
        same = [each.stem for each in _renamed(path) if each.stem.startswith(f"{path.stem}-{moment}")]
        number = f"-{int(max(same).rpartition('Z')[2].lstrip('-') or 0) + 1:03}" if same else ""
        target = path.with_name(f"{path.stem}-{moment}{number}{path.suffix}")
        path.rename(target)
        return target

    def prune(self, path: Path) -> None:
        """Delete the oldest renamed files beyond `keep`."""
        if self.keep is not None:
            for old in _renamed(path)[: -self.keep]:
                old.unlink(missing_ok=True)


def _renamed(path: Path) -> list[Path]:
    """Earlier files of this path, oldest first."""
    pattern = re.compile(rf"{re.escape(path.stem)}-\d{{8}}T\d{{6}}Z(-\d+)?{re.escape(path.suffix)}")
    return sorted((each for each in path.parent.iterdir() if pattern.fullmatch(each.name)), key=lambda each: each.stem)
