"""Where a Bundle runs: engine, device, precision and threads, written `onnxruntime:cpu:f32@1`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from inferloop.core.errors import InvalidInput

_FORM = re.compile(r"(?P<engine>[a-z0-9_-]+)(:(?P<device>[a-z0-9_.-]+))?(:(?P<precision>[a-z0-9]+))?(@(?P<threads>\d{1,18}))?")
_MOST_THREADS = 1024


class Precision(StrEnum):
    """The arithmetic of a variant."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Target:
    """Engine + device + precision + intra-op threads."""

    engine: str = "onnxruntime"
    device: str = "cpu"
    precision: Precision = Precision.F32
    threads: int = 1

    def __str__(self) -> str:
        return f"{self.engine}:{self.device}:{self.precision}@{self.threads}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `ENGINE[:DEVICE[:PRECISION]][@THREADS]`; what is left out takes its default.

        Raises:
            InvalidInput: the text has another form, or the precision is not known.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(f"target {text!r} is not ENGINE:DEVICE:PRECISION@THREADS", hint="e.g. onnxruntime:cpu:f32@1")
        precision = match["precision"] or Precision.F32
        if precision not in set(Precision):
            raise InvalidInput(f"precision {precision!r} of target {text!r} is not known", hint=f"known: {', '.join(Precision)}")
        threads = int(match["threads"] or 1)
        if not 1 <= threads <= _MOST_THREADS:
            raise InvalidInput(f"target {text!r} asks for {threads} threads", hint=f"at least 1, at most {_MOST_THREADS}")
        return cls(match["engine"], match["device"] or "cpu", Precision(precision), threads)
