"""Which inputs the ledger keeps, and for how long."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from zlib import crc32

from inferloop.core.errors import InvalidInput

_SAMPLE = re.compile(r"sample:(?P<percent>\d+(\.\d+)?)%")
_DAY_S = 86_400.0


class StoreInputs(StrEnum):
    """What is kept of a request.

    `labeled` keeps input and embedding in a recent window, and for good once feedback arrives. `sample` does the same and
    keeps a share of all requests for good. `full` keeps everything. `hash` keeps the SHA-256 of the input and no embedding:
    such rows can be counted and compared, never learned from.
    """

    LABELED = "labeled"
    SAMPLE = "sample"
    FULL = "full"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """What is stored of a prediction, and the bounds of the ledger.

    Attributes:
        share: the share of requests kept for good under `sample`, 0 to 1.
        window_rows: how many unlabeled inputs stay for feedback to come.
        window_bytes: how many bytes of them.
        max_age_s: predictions without feedback are dropped at this age.
        labeled_max_age_s: the same for those with feedback; None keeps them.
        max_bytes: above this the oldest predictions go, those without feedback first.
    """

    store: StoreInputs = StoreInputs.LABELED
    share: float = 0.0
    window_rows: int = 50_000
    window_bytes: int = 256 << 20
    max_age_s: float = 90 * _DAY_S
    labeled_max_age_s: float | None = None
    max_bytes: int = 4 << 30

    @classmethod
    def parse(cls, text: str) -> LedgerPolicy:
        """Read `labeled`, `sample:5%`, `full` or `hash`.

        Raises:
            InvalidInput: another word, or a share outside of 0 to 100 %.
        """
        match = _SAMPLE.fullmatch(text.strip())
        if match is not None and float(match["percent"]) <= 100:
            return replace(cls(), store=StoreInputs.SAMPLE, share=float(match["percent"]) / 100)
        if text.strip() in {StoreInputs.LABELED, StoreInputs.FULL, StoreInputs.HASH}:
            return replace(cls(), store=StoreInputs(text.strip()))
        raise InvalidInput(f"ledger policy {text!r} is not known", hint="one of: labeled, sample:5%, full, hash")

    def keeps(self, prediction_id: str) -> bool:
        """Whether the input of this prediction is kept for good, whatever feedback comes; the same for an id every time."""
        if self.store is StoreInputs.SAMPLE:
            return crc32(prediction_id.encode()) < self.share * 2**32
        return self.store is not StoreInputs.LABELED
