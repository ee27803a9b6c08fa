"""Plays a demo: train, compare, go live, meet new topics, take corrections, learn, guard, promote while the stream runs."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.report import Report, Table
from inferloop.core.target import Target
from inferloop.demos.broker import LoopbackBroker
from inferloop.demos.comparison import Comparison, compare
from inferloop.demos.effect_service import EffectService
from inferloop.demos.outcome import Outcome
from inferloop.demos.publisher import Outgoing, Publisher
from inferloop.demos.screen import Screen
from inferloop.demos.script import Item, Script
from inferloop.demos.stage import Stage
from inferloop.demos.tally import Known, Tally
from inferloop.evaluation.intervals import Discordant, discordant, paired_difference
from inferloop.learning.learn import CHAMPION, LearnResult, learn
from inferloop.prediction.predictor import Predictor
from inferloop.registry.registry import Registry
from inferloop.training.train import train

_REPEAT_EVERY = 25
_UNANSWERED = 32
"""The embedded broker gives up on a message that is not acknowledged within 5 s, so the shop lets few wait."""
_TRICKLE = 5
_DRAIN_S = 180.0
_JUDGE = Target(threads=2)

Finish = Callable[[Outcome, Report], None]


@dataclass(frozen=True, slots=True)
class Update:
    """What the corrections led to.

    Attributes:
        before: accuracy of the champion on the unseen messages of the new topics, before; `after` of the champion then.
        pairs: the unseen messages on which only one of the two is right.
    """

    result: LearnResult
    before: float
    after: float
    pairs: Discordant


class Story:
    """One run of a demo. State goes under `INFERLOOP_HOME`."""

    def __init__(self, script: Script, screen: Screen, *, home: Path) -> None:
        self._script = script
        self._screen = screen
        self._home = home
        self._started = time.monotonic()
        self._sent: set[str] = set()
        self._broken = 0

    def play(self, finish: Finish, *, keep: bool) -> None:
        """Tell the whole story; blocks.

        Args:
            finish: is handed the outcome and the report at the end.
            keep: leave server and stream running after that, until interrupted.

        Raises:
            Cancelled: interrupted.
            InferloopError: something that the demo needs is not there, or broke.
        """
        self._screen.phase("the data")
        for line in self._script.source:
            self._screen.say(line)
        with Registry() as registry:
            comparison = self._train(registry)
            asyncio.run(self._live(registry, comparison, finish=finish, keep=keep))

    def _train(self, registry: Registry) -> Comparison:
        script, cast = self._script, self._script.cast
        self._screen.phase(f"train on {len(cast.train)} messages, judge on {len(cast.test)} others")
        script.write(self._home)
        result = train(script.config(self._home), registry=registry, alias=CHAMPION, observer=self._screen.progress)
        labels, truth = result.corpus.labels, [item.truth for item in cast.test]
        judged = [labels[number] for number in result.corpus.holdout.labels] == truth  # training has answered these rows already
        answers = [labels[number] for number in result.predicted] if judged else self._labels(result.bundle, cast.test)
        shown = compare(truth, answers, baseline=script.baseline(cast))
        self._screen.table(shown.table(script.baseline_name))
        self._screen.say(f"registered as {script.model}:{result.bundle.version}, alias @{CHAMPION}")
        return shown

    async def _live(self, registry: Registry, comparison: Comparison, *, finish: Finish, keep: bool) -> None:
        script, name = self._script, self._script.effects
        items = [*script.cast.test[: script.known], *script.cast.feedback, *script.cast.unseen[: script.meanwhile]]
        tally = Tally({item.id: Known(item.topic, item.shown, item.truth) for item in items})
        async with LoopbackBroker() as broker, EffectService(name[0], identity=name[1]) as service:
            path = self._home / f"{script.name}.yaml"
            path.write_text(script.pipeline(broker.url, service.url, self._home), encoding="utf-8")
            stage = Stage(registry, tally, ref=f"{script.model}@{CHAMPION}", pipeline=path)
            async with stage, Publisher(broker.url) as shop:
                await stage.alongside(broker.until_subscribed(script.topic))
                async with self._screen.live(tally, lambda: self._facts(service)):
                    update = await self._acts(registry, stage, shop)
                outcome = await self._count(comparison, update, stage=stage, service=service)
                finish(outcome, self._report(comparison, update, outcome))
                if keep:
                    self._show_addresses(stage, broker, service)
                    await stage.forever()

    async def _acts(self, registry: Registry, stage: Stage, shop: Publisher) -> Update:
        script, cast, say = self._script, self._script.cast, self._screen.say
        self._screen.phase("live: messages of the kind that it learned from")
        known = cast.test[: script.known]
        await self._send(shop, stage, known, broken=cast.broken)
        say(f"right: {stage.tally.right(item.id for item in known):.1%} of {len(known)}")

        self._screen.phase("messages of new topics arrive")
        await self._send(shop, stage, cast.feedback)
        say(f"right: {stage.tally.right(item.id for item in cast.feedback):.1%} of {len(cast.feedback)}")
        before = await asyncio.to_thread(self._judge, registry)

        self._screen.phase("people correct them; a challenger is learned while the stream runs on")
        decided = [stage.tally.decided[item.id] for item in cast.feedback if item.id in stage.tally.decided]
        say(f"feedback stored: {await stage.feed_back(decided)}")
        waiting, enough = deque(cast.unseen[: script.meanwhile]), asyncio.Event()
        trickle = asyncio.create_task(self._trickle(shop, stage, waiting, enough))
        try:
            result = await asyncio.to_thread(learn, script.model, registry=registry, ledger=stage.ledger, promote=True, by="demo")
            for note in result.report.notes[:2]:
                say(note)
            if result.promoted and result.challenger is not None:
                await stage.until_serving(result.challenger.version)
        finally:
            enough.set()
            await trickle
        await self._send(shop, stage, waiting)
        if result.promoted:
            say(f"the stream now runs version {stage.tally.version}; it never stopped")
        after = await asyncio.to_thread(self._judge, registry) if result.promoted else before
        return self._updated(result, before, after)

    async def _trickle(self, shop: Publisher, stage: Stage, waiting: deque[Item], enough: asyncio.Event) -> None:
        """Keep the stream running with a few messages at a time; leave some for what comes after."""
        while not enough.is_set() and len(waiting) > _TRICKLE:
            await self._send(shop, stage, [waiting.popleft() for _ in range(_TRICKLE)], rate=self._script.rate / 10)

    async def _send(
        self, shop: Publisher, stage: Stage, items: Sequence[Item], *, broken: Sequence[Outgoing] = (), rate: float | None = None
    ) -> None:
        """Publish, every 25th message twice, and wait until all are settled."""
        sending = [replace(item.outgoing, times=2) if n % _REPEAT_EVERY == 0 else item.outgoing for n, item in enumerate(items)]
        self._sent |= {item.id for item in items}
        self._broken += len(broken)

        def has_room() -> bool:
            stage.check()
            return shop.published - stage.tally.acknowledged < _UNANSWERED

        await shop.send([*sending, *broken], rate=rate or self._script.rate, has_room=has_room)
        await stage.settle(len(self._sent) + self._broken, limit_s=_DRAIN_S)

    def _judge(self, registry: Registry) -> list[str]:
        return self._labels(registry.resolve(f"{self._script.model}@{CHAMPION}"), self._script.cast.unseen)

    @staticmethod
    def _labels(bundle: Bundle, items: Sequence[Item]) -> list[str]:
        with Predictor.load(bundle, target=_JUDGE, source="demo") as predictor:
            return [answer.label for answer in predictor.predict([item.value for item in items])]

    def _updated(self, result: LearnResult, before: Sequence[str], after: Sequence[str]) -> Update:
        truth = np.array([item.truth for item in self._script.cast.unseen])
        first, second = np.array(before), np.array(after)
        pairs = discordant(truth, first, second)
        return Update(result, float(np.mean(first == truth)), float(np.mean(second == truth)), pairs)

    async def _count(self, comparison: Comparison, update: Update, *, stage: Stage, service: EffectService) -> Outcome:
        """Hold what was sent against the journal, and what was decided against what the other system did."""
        stored = await asyncio.to_thread(stage.journal.find, self._script.name, self._sent)
        wanted = {
            each.key for decision in stored.values() for each in decision.deliveries if each.sink == self._script.effects[0]
        }
        tally = stage.tally
        missing = len(self._sent) - len(stored) + self._broken - len(tally.rejected)
        return Outcome(
            accuracy=round(comparison.accuracy, 4),
            baseline_accuracy=round(comparison.baseline_accuracy, 4),
            messages=len(self._sent) + self._broken,
            decisions=len(stored),
            dead_letters=len(tally.rejected),
            refunds=service.counts.done,
            lost=missing + len(wanted - service.keys),
            duplicates=service.counts.duplicates,
            accuracy_before=round(update.before, 4),
            accuracy_after=round(update.after, 4),
            promoted=update.result.promoted,
            p50_ms=round(tally.percentile_ms(0.50), 1),
            p99_ms=round(tally.percentile_ms(0.99), 1),
            seconds=round(time.monotonic() - self._started, 1),
        )

    def _facts(self, service: EffectService) -> str:
        counts = service.counts
        return f"{self._script.effects[0]} {counts.done}, asked again {counts.repeats}, duplicates {counts.duplicates}"

    def _report(self, comparison: Comparison, update: Update, outcome: Outcome) -> Report:
        gain = paired_difference(update.pairs)
        guard = update.result.report
        unseen = Table(
            f"{update.pairs.rows} unseen messages of the new topics",
            ("accuracy before", "accuracy after", "gain", "95 % from", "95 % to", "p (McNemar)"),
            ((update.before, update.after, *gain, update.pairs.p_value),),
        )
        return Report(
            "demo",
            f"the demo {self._script.name}",
            figures={
                "accuracy": comparison.accuracy,
                "baseline_accuracy": comparison.baseline_accuracy,
                "accuracy_gain": comparison.accuracy_gain.estimate,
                "macro_f1": comparison.f1,
                "baseline_macro_f1": comparison.baseline_f1,
                "macro_f1_gain": comparison.f1_gain.estimate,
                "new_topics_gain": gain.estimate,
                "new_topics_p": update.pairs.p_value,
                "lost": outcome.lost,
                "duplicates": outcome.duplicates,
                "seconds": outcome.seconds,
            },
            tables=(comparison.table(self._script.baseline_name), unseen, *guard.tables),
            gates=guard.gates,
            notes=(*self._script.source, *guard.notes),
        )

    def _show_addresses(self, stage: Stage, broker: LoopbackBroker, service: EffectService) -> None:
        say, model = self._screen.say, self._script.model
        self._screen.phase("left running; Ctrl-C ends it")
        say(f"INFERLOOP_HOME={self._home}")
        say(f"broker   {broker.url}   topic {self._script.topic}")
        say(f"curl {stage.url}/v2/models/{model}")
        say(f"curl {stage.url}/metrics")
        say(f"curl {service.url}")
        say(f"curl -H 'Content-Type: text/plain' -d 'you lost my bag' {stage.url}/v2/models/{model}/infer")
