"""What the demo counts, compares and shows."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace

import pytest
from rich.console import Console

from inferloop.demos.comparison import compare
from inferloop.demos.outcome import Outcome
from inferloop.demos.screen import Screen
from inferloop.demos.tally import Known, Tally
from inferloop.streams.events import EventKind, PipelineEvent

OUTCOME = Outcome(
    accuracy=0.9,
    baseline_accuracy=0.8,
    messages=10,
    decisions=9,
    dead_letters=1,
    refunds=3,
    lost=0,
    duplicates=0,
    accuracy_before=0.5,
    accuracy_after=0.6,
    promoted=True,
    p50_ms=1.0,
    p99_ms=2.0,
    seconds=3.0,
)


def decided(number, label="bad", version=1):
    return PipelineEvent(EventKind.DECIDED, f"m{number}", label=label, score=0.9, rule="refund", version=version)


@pytest.fixture
def tally():
    return Tally({f"m{number}": Known("@a", f"text {number}", "bad") for number in range(4)})


def test_decisions_and_dead_letters_settle_a_message_and_a_repetition_does_not(tally):
    for event in (decided(0), decided(1), PipelineEvent(EventKind.REJECTED, "x"), PipelineEvent(EventKind.REDELIVERED, "m0")):
        tally.observe(event)
    assert (tally.settled, tally.redelivered, dict(tally.actions)) == (3, 1, {"refund": 2})


def test_the_share_that_is_right_counts_decided_messages_only(tally):
    tally.observe(decided(0))
    tally.observe(decided(1, label="good"))
    assert tally.right(["m0", "m1", "m2"]) == 0.5


def test_the_highest_version_that_answered_is_known(tally):
    tally.observe(decided(0, version=2))
    tally.observe(decided(1, version=1))
    assert tally.version == 2


def test_percentiles_are_in_milliseconds(tally):
    for latency_s in (0.001, 0.002, 0.1):
        tally.observe(PipelineEvent(EventKind.ACKNOWLEDGED, "m0", latency_s=latency_s))
    assert (tally.percentile_ms(0.5), tally.percentile_ms(0.99)) == (2.0, 100.0)


def test_an_unknown_message_is_counted_too(tally):
    tally.observe(decided(99))
    assert tally.decided["m99"].truth == ""


async def test_without_a_terminal_the_screen_writes_plain_lines(tally, monkeypatch):
    monkeypatch.setattr("inferloop.demos.screen._PLAIN_S", 0.01)
    written = io.StringIO()
    screen = Screen(Console(file=written, force_terminal=False, width=200))
    screen.phase("live")
    async with screen.live(tally, lambda: "refunds 1"):
        tally.observe(decided(0))
        async with asyncio.timeout(60):
            while "messages 1  refund 1" not in written.getvalue():
                await asyncio.sleep(0.01)
    assert "messages 1  refund 1" in written.getvalue()
    assert "refunds 1" in written.getvalue()
    assert "\x1b" not in written.getvalue()


async def test_on_a_terminal_the_screen_shows_messages_scores_and_decisions(tally):
    written = io.StringIO()
    screen = Screen(Console(file=written, force_terminal=True, width=200))
    tally.observe(decided(0, label="[bold]"))
    async with screen.live(tally, lambda: "refunds 1"):
        await asyncio.sleep(0.1)
    for cell in ("text 0", "[bold]", "0.90", "refund", "@a", "p99"):
        assert cell in written.getvalue()


def test_a_comparison_has_both_models_and_the_paired_gains():
    truth = ["a", "b"] * 50
    shown = compare(truth, truth, baseline=["a"] * 100)
    assert (shown.accuracy, shown.baseline_accuracy) == (1.0, 0.5)
    assert shown.accuracy_gain.low > 0.3
    assert shown.f1_gain.estimate == pytest.approx(1 - 1 / 3)
    assert shown.table("baseline").rows[0][:3] == ("accuracy", 1.0, 0.5)


@pytest.mark.parametrize("fault", [{"lost": 1}, {"duplicates": 1}, {"decisions": 8}])
def test_an_outcome_is_sound_only_without_loss_and_duplicates(fault):
    assert OUTCOME.sound
    assert not replace(OUTCOME, **fault).sound


def test_the_summary_says_whether_it_was_promoted():
    assert "(promoted)" in "\n".join(OUTCOME.lines("refunds"))
    assert "(not promoted)" in "\n".join(replace(OUTCOME, promoted=False).lines("refunds"))
