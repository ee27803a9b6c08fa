"""What must be true of a run, whatever happened: nothing lost, nothing decided or done twice, and every rule's memory whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Codec, Delivery
from inferloop.core.sample import Message, Sample
from inferloop.data.journal import StoredDelivery
from inferloop.streams.identity import content_id, message_id
from inferloop.streams.loading import DEAD_LETTER
from inferloop.streams.rules.memory import Memory
from inferloop.streams.rules.rulebook import STALE, Rulebook
from inferloop.streams.rules.scored import Scored
from inferloop.streams.scope import event_time, scope_of
from inferloop.streams.simulation.sink import Shop, reported
from inferloop.streams.simulation.source import Broker
from inferloop.streams.simulation.world import Committed, World
from inferloop.streams.windows import GATHERED, LATE, Windows


class Judge:
    """Compares what the process does with what it has on disk.

    Args:
        required: the sinks that hold up an acknowledgment.
        anonymous: messages have neither id nor position, so that nothing can be said of one message.
        windows: makes those of the file anew, empty; None if it declares none.
        expires: what waits too long in the outbox becomes a dead letter.
    """

    def __init__(
        self,
        world: World,
        codec: Codec,
        shops: Mapping[str, Shop],
        *,
        required: frozenset[str],
        anonymous: bool,
        windows: Callable[[], Windows | None],
        expires: bool,
    ) -> None:
        self._world = world
        self._codec = codec
        self._shops = shops
        self._required = required
        self._anonymous = anonymous
        self._windows = windows
        self._expires = expires
        self.samples: dict[str, Sample] = {}
        self._arrived: dict[str, float] = {}
        """When the last sample of a window arrived, by the window's id."""

    def identity(self, message: Message) -> str:
        """The id under which a message is decided; empty where a new one is made up each time."""
        try:
            sample = self._codec.decode(message)
        except InvalidInput:
            return content_id(message)
        if self._anonymous:
            return ""
        id_ = message_id(sample.id, message)
        self.samples[id_] = sample
        return id_

    def missing(self, id_: str) -> str:
        """What keeps a message from being acknowledged; empty if nothing does."""
        if not id_:
            return ""
        committed = self._world.committed.get(id_)
        if committed is None:
            return f"{id_} is not decided"
        waiting = self._world.stored
        undone = (stored.sink for stored in self._undone(committed) if (stored.sink, stored.key) not in waiting)
        return next((f"{id_} did not reach {sink}" for sink in undone), "")

    def unstored(self, sink: str, delivery: Delivery) -> str:
        """What is wrong with a delivery; empty if the journal has it."""
        committed = self._world.committed.get(delivery.message_id)
        if committed is None:
            return "delivered before it was decided"
        if sink == DEAD_LETTER and committed.decision.deliveries and delivery.payload.get("key"):
            return ""
        known = {stored.key: stored.payload for stored in committed.decision.deliveries if stored.sink == sink}
        return "" if known.get(delivery.key) == delivery.payload else "delivered something else than was decided"

    def lost(self, brokers: Sequence[Broker]) -> Iterator[str]:
        """Messages without a decision, and decisions without their effects."""
        for broker in brokers:
            if not broker.durable:
                continue
            for place, payload in enumerate(broker.kept):
                position = str(place) if broker.replayable else ""
                missing = self.missing(self.identity(Message(payload, broker.name, 0.0, position=position)))
                if missing:
                    yield f"lost: {missing}"
        yield from self._lost_windows()
        for committed in self._world.committed.values():
            yield from (f"lost: {committed.decision.message_id} never reached {s.sink}" for s in self._undone(committed))

    def _lost_windows(self) -> Iterator[str]:
        """Windows that the samples on disk make, in their order, and that were not decided; and what is no such window."""
        windows = self._windows()
        if windows is None or self._anonymous:
            return
        made: set[str] = set()
        for id_, committed in list(self._world.committed.items()):
            sample, reason = self.samples.get(id_), committed.decision.reason
            if sample is not None and reason in (GATHERED, LATE):
                message = Message(b"", sample.source, committed.received, topic=sample.topic)
                outcome, whole = windows.add(id_, sample, message, event_time(sample, committed.received))
                if outcome != reason:
                    yield f"forgot: {id_} is {reason}, not {outcome}"
                made |= {window.id for window in whole}
                self.samples |= {window.id: window.sample for window in whole}
                self._arrived |= {window.id: window.origin.received for window in whole}
        yield from (f"lost: window {id_} is not decided" for id_ in sorted(made - self._world.committed.keys()))
        for id_, committed in self._world.committed.items():
            if id_ not in self.samples and not committed.decision.reason.startswith(DEAD_LETTER):
                yield f"forgot: {id_} is neither a message nor a window of the samples on disk"

    def disordered(self) -> Iterator[str]:
        """Effects of one key at one sink that came in another order than the decisions."""
        places = {
            stored.key: n for n, stored in enumerate(d for c in self._world.committed.values() for d in c.decision.deliveries)
        }
        letters = reported(self._shops[DEAD_LETTER].effects)
        for shop in self._shops.values():
            last: dict[str, int] = {}
            for key, delivery in shop.effects.items():
                committed = self._world.committed.get(delivery.message_id)
                if committed is None or key not in places or shop.name == DEAD_LETTER or (self._expires and key in letters):
                    continue  # what expired and was not forgotten may, after a jump of the clock, be young again
                owner = committed.decision.key
                if places[key] < last.get(owner, -1):
                    yield f"out of order: {shop.name} {delivery.message_id}"
                last[owner] = max(places[key], last.get(owner, -1))

    def forgetful(self, rulebooks: Sequence[Rulebook]) -> Iterator[str]:
        """Decisions that the rules would not make, given all that was decided before."""
        memory, used_up = Memory(), set[tuple[str, str]]()

        def seen(sink: str, value: object) -> bool:
            before = (sink, str(value)) in used_up
            used_up.add((sink, str(value)))
            return before

        for id_, committed in self._world.committed.items():
            decision, sample = committed.decision, self.samples.get(id_)
            if sample is None or decision.reason in (STALE, GATHERED, LATE) or decision.reason.startswith(DEAD_LETTER):
                continue
            scored = self._world.scored.get(decision.prediction_id, Scored())
            received = self._arrived.get(id_, committed.received)
            scope = scope_of(sample, scored, identity=id_, received=received, now=decision.time)
            verdict = rulebooks[committed.rules].decide(scope, scored, memory, skipped=lambda _: None, seen=seen)
            wanted = [(effect.sink, effect.payload) for effect in verdict.effects]
            found = [(stored.sink, stored.payload) for stored in decision.deliveries]
            if (verdict.rule, verdict.reason, wanted) != (decision.rule, decision.reason, found):
                yield f"forgot: {id_} is {decision.rule or '-'} ({decision.reason}), not {verdict.rule or '-'} ({verdict.reason})"

    def _undone(self, committed: Committed) -> Iterator[StoredDelivery]:
        letters = self._shops[DEAD_LETTER].effects
        for stored in committed.decision.deliveries:
            shop = self._shops[stored.sink]
            if stored.sink not in self._required or stored.key in shop.effects:
                continue
            if (stored.key in shop.refused or self._expires) and stored.key in reported(letters):
                continue
            yield stored
