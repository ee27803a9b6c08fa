"""What a demo ends with: the figures of its last line, and a summary for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of `inferloop demo ... --json`; its keys are exactly these.

    Attributes:
        accuracy: of the first champion on messages that nobody trained on; `baseline_accuracy` on the same.
        messages: distinct messages sent to the broker, unreadable ones too; `messages = decisions + dead_letters + lost`.
        refunds: effects that the other system confirmed.
        lost: messages without a decision or dead letter, and decided effects that did not arrive.
        duplicates: effects that the other system did twice.
        accuracy_before: of the champion on the unseen messages of the new topics, before the update; `accuracy_after` of the
            champion after it, on the same messages; equal if nothing was promoted.
        p50_ms: from a message's arrival to its acknowledgment.
        seconds: the whole demo.
    """

    accuracy: float
    baseline_accuracy: float
    messages: int
    decisions: int
    dead_letters: int
    refunds: int
    lost: int
    duplicates: int
    accuracy_before: float
    accuracy_after: float
    promoted: bool
    p50_ms: float
    p99_ms: float
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether nothing was lost and nothing was done twice."""
        return self.lost == 0 and self.duplicates == 0 and self.messages == self.decisions + self.dead_letters

    def lines(self, effects: str) -> list[str]:
        """The summary for people; `effects` names what the other system did, e.g. `refunds`."""
        update = "promoted" if self.promoted else "not promoted"
        return [
            f"accuracy       {self.accuracy:.4f}, baseline {self.baseline_accuracy:.4f}",
            f"new topics     {self.accuracy_before:.4f} before, {self.accuracy_after:.4f} after ({update})",
            f"messages       {self.messages} = {self.decisions} decisions + {self.dead_letters} dead letters",
            f"{effects:14} {self.refunds}, lost {self.lost}, duplicates {self.duplicates}",
            f"latency        p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms from arrival to acknowledgment",
            f"time           {self.seconds:.0f} s",
        ]
