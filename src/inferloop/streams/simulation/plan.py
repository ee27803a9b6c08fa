"""What happens in one simulated run: which messages come, and what fails when. All of it follows from the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from inferloop.streams.loading import PipelineSpec

POISON = b"\xff poison "
_MEAN_GAP_S = 0.05
_KEYS = 4
_TEXTS = ("a", "b", "c", "d", "e", "f")


@dataclass(frozen=True, slots=True)
class Publication:
    """One message as a publisher sends it; the same number again is a repetition with the same id."""

    at: float
    source: str
    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that does not work for a while.

    Attributes:
        what: `sink`, `disk` or `model`.
        name: of the sink; empty for the others.
        how: a sink is `down`, `hangs`, is `deaf` (acts, and its confirmation is lost) or `halting` (does half of a batch); the
            disk is `full`, or `unsure` (writes, and says that it did not); the model is `away` or `overloaded`.
    """

    what: str
    name: str
    how: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happens once: a clean `stop`, a model `swap`, a clock `jump`, a `disconnect` or a `storm` of a source."""

    at: float
    what: str
    name: str = ""
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        kills: how many steps (a write, a delivery, an acknowledgment) the process does before it is killed; counted over the
            whole run, before and after each step.
        refusing: deliveries in a hundred that a sink refuses for good.
        deaf: acknowledgments in a hundred that a broker does not hear.
        end: when trouble is over; virtual seconds, like all times here.
    """

    seed: int
    publications: tuple[Publication, ...]
    troubles: tuple[Trouble, ...]
    moments: tuple[Moment, ...]
    kills: frozenset[int]
    refusing: int
    deaf: int
    end: float


def planned(spec: PipelineSpec, seed: int) -> Plan:
    """The plan of a seed for one pipeline file."""
    random = Random(seed)
    publications = _publications(spec, random)
    span = publications[-1].at + 1.0
    steps = 8 * len(publications)
    return Plan(
        seed=seed,
        publications=publications,
        troubles=tuple(_troubles(spec, random, span)),
        moments=tuple(sorted(_moments(spec, random, span), key=lambda moment: moment.at)),
        kills=frozenset(random.randint(1, steps) for _ in range(random.choice((0, 1, 1, 2, 3, 5)))),
        refusing=random.choice((0, 0, 0, 10)),
        deaf=random.choice((0, 0, 5, 30)),
        end=span * 1.5,
    )


def _publications(spec: PipelineSpec, random: Random) -> tuple[Publication, ...]:
    made: list[Publication] = []
    at = 0.0
    for number in range(random.randint(8, 40)):
        at += random.expovariate(1 / _MEAN_GAP_S)
        source = random.choice(spec.sources).name
        payload = POISON + str(number).encode() if random.random() < 0.03 else _payload(spec.kinds, random, number, at)
        made.append(Publication(at, source, number, payload))
        if random.random() < 0.05:
            made.append(Publication(at + random.expovariate(1.0), source, number, payload))
    return tuple(sorted(made, key=lambda publication: publication.at))


def _payload(kinds: Mapping[str, str], random: Random, number: int, at: float) -> bytes:
    content: dict[str, Any] = {"number": number, "key": f"k{random.randrange(_KEYS)}"}
    if random.random() < 0.9:  # else it has no time of its own
        skew_s = random.uniform(-3600, 3600) if random.random() < 0.05 else random.uniform(-0.5, 0.0)
        content["age_s"] = at + skew_s
    content["fields"] = {name: _value(kind, random) for name, kind in kinds.items() if random.random() < 0.97}
    return msgspec.json.encode(content)


def _value(kind: str, random: Random) -> Any:
    if kind == "number":
        return round(random.uniform(-100, 100), 2)
    if kind == "bool":
        return random.random() < 0.5
    if kind == "array":
        return [round(random.uniform(-1, 1), 3) for _ in range(4)]
    return random.choice(_TEXTS)


def _troubles(spec: PipelineSpec, random: Random, span: float) -> Sequence[Trouble]:
    sinks = [part.name for part in spec.sinks] + ["dead_letter"]
    kinds = [("sink", name, how) for name in sinks for how in ("down", "hangs", "deaf", "halting")]
    kinds += [("disk", "", how) for how in ("full", "full", "unsure")] + [("model", "", how) for how in ("away", "overloaded")]
    made = []
    for _ in range(random.randint(0, 6)):
        start = random.uniform(0, span)
        what, name, how = random.choice(kinds)
        made.append(Trouble(what, name, how, start, start + random.expovariate(1 / (0.2 * span))))
    return made


def _moments(spec: PipelineSpec, random: Random, span: float) -> Sequence[Moment]:
    made = []
    for what, most in (("stop", 2), ("swap", 2), ("jump", 2), ("disconnect", 3), ("storm", 2), ("edit", 1)):
        for _ in range(random.randint(0, most)):
            value = random.choice((-1, 1)) * random.expovariate(1 / 300.0) if what == "jump" else 0.0
            made.append(Moment(random.uniform(0, span), what, random.choice(spec.sources).name, value))
    return made
