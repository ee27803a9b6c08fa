"""A router on a real registry and ledger: versions change under load, and nobody's request fails."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core.bundle import MODEL
from inferloop.core.errors import InferloopError, NotFound
from inferloop.core.sample import Sample
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.limits import Limits
from inferloop.prediction.live import ModelRole, State
from inferloop.prediction.loading import load
from inferloop.prediction.prediction import Prediction
from inferloop.prediction.router import Router
from inferloop.prediction.split import fraction, takes_canary
from inferloop.registry.registry import Registry
from support import bundles

SAMPLE = {"values": [0.1, 0.2, 0.3, 0.4]}
LABEL_OF = {1: "cold", 2: "warm", 3: "hot"}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Three versions of `m`; version N always answers with label N, so that an answer shows who gave it. 1 is the champion."""
    with Registry(tmp_path / "registry") as opened:
        for version in LABEL_OF:
            bias = [1000.0 if column == version - 1 else 0.0 for column in range(3)]
            opened.register(bundles.numbers(tmp_path / f"v{version}", name="m", bias=bias))
        opened.promote("m", 1, by="test")
        yield opened


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture
async def router(registry: Registry, ledger: Ledger) -> AsyncIterator[Router]:
    async with Router(registry, ledger=ledger, poll_s=0.01) as opened:
        await opened.open(["m@champion"])
        yield opened


async def test_a_promotion_reaches_the_running_router(router: Router, registry: Registry) -> None:
    assert (await router.predict("m@champion", SAMPLE)).version == 1
    registry.promote("m", 2, by="test")
    await until(lambda: router.bundle("m").version == 2)
    answer = await router.predict("m", SAMPLE)
    assert (answer.version, answer.label) == (2, "warm")


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
async def test_no_request_fails_while_versions_are_promoted_and_rolled_back(
    registry: Registry, ledger: Ledger, inline: bool
) -> None:
    limits = Limits(inline=inline, queue_rows=4096)
    async with Router(registry, ledger=ledger, limits=limits, poll_s=0.005) as router:
        await router.open(["m@champion"])
        traffic = Traffic(router)
        clients = [asyncio.create_task(traffic.keep_asking()) for _ in range(16)]
        for version in (2, 3, 1, 2, 3, 1):
            await asyncio.to_thread(registry.promote, "m", version, by="test")
            await until(lambda version=version: router.bundle("m").version == version)
        for expected in (3, 2, 1):
            await asyncio.to_thread(registry.rollback, "m", by="test")
            await until(lambda expected=expected: router.bundle("m").version == expected)
        traffic.stop = True
        await asyncio.gather(*clients)
    assert traffic.errors == []
    assert sum(traffic.answers.values()) == traffic.asked > 100
    assert set(traffic.answers) == {1, 2, 3}, "every version did answer"
    ledger.flush()
    assert sum(model.predictions for model in ledger.stats().models) + ledger.stats().lost == traffic.asked


async def test_a_request_in_flight_finishes_on_the_version_that_took_it(registry: Registry) -> None:
    limits = Limits(inline=False, max_delay_s=6.0)
    async with Router(registry, limits=limits, poll_s=0.005) as router:
        await router.open(["m"])
        waiting = asyncio.create_task(router.predict("m", SAMPLE))
        await until(lambda: router.predictor("m").meter.pending() == 1)
        registry.promote("m", 2, by="test")
        await until(lambda: router.bundle("m").version == 2)
        assert not waiting.done(), "the swap happened while it waited"
        assert (await waiting).version == 1
        assert (await router.predict("m", SAMPLE)).version == 2


async def test_a_broken_new_version_leaves_the_old_one_in_place(router: Router, registry: Registry) -> None:
    broken = registry.path / "bundles" / "m" / "2" / MODEL
    broken.write_bytes(broken.read_bytes()[:-7])
    registry.set_alias("m", "champion", version=2, by="test")  # `promote` would refuse what is damaged already
    await until(lambda: router.models()[0].reason != "")
    state = router.models()[0]
    assert (state.version, state.state) == (1, State.READY)
    assert MODEL in state.reason
    assert (await router.predict("m", SAMPLE)).label == "cold"
    registry.promote("m", 3, by="test")
    await until(lambda: router.bundle("m").version == 3)
    assert router.models()[0].reason == ""


async def test_a_canary_answers_its_share_of_the_keys_and_the_same_keys_every_time(router: Router, registry: Registry) -> None:
    registry.set_canary("m", 2, share=0.3, by="test")
    await until(lambda: len(router.models()) == 2)
    keys = [f"customer {number}" for number in range(400)]
    first = [(await router.predict("m", Sample(fields=SAMPLE, key=key))).version for key in keys]
    second = [(await router.predict("m", SAMPLE, key=key)).version for key in keys]
    assert first == second
    assert set(first) == {1, 2}
    assert 0.2 < first.count(2) / len(keys) < 0.4
    registry.promote("m", 2, by="test")
    await until(lambda: router.bundle("m").version == 2)
    assert [state.role for state in router.models()] == [ModelRole.MAIN]


async def test_a_broken_canary_does_not_hold_up_a_promotion(router: Router, registry: Registry) -> None:
    broken = registry.path / "bundles" / "m" / "3" / MODEL
    broken.write_bytes(b"nothing")
    registry.promote("m", 2, by="test")
    registry.set_canary("m", 3, share=0.5, by="test")
    await until(lambda: router.bundle("m").version == 2 and router.models()[0].reason != "")
    answers = [await router.predict("m", SAMPLE, key=str(key)) for key in range(20)]
    assert {answer.version for answer in answers} == {2}


async def test_a_shadow_sees_everything_and_answers_nobody(router: Router, registry: Registry, ledger: Ledger) -> None:
    registry.set_shadow("m", 3, by="test")
    await until(lambda: len(router.models()) == 2)
    answers = [await router.predict("m", SAMPLE, key="k", source="rest") for _ in range(10)]
    assert {answer.version for answer in answers} == {1}
    await until(lambda: len(router._shadows) == 0)
    ledger.flush()
    shadows = [ledger.prediction(f"{answer.id}.shadow") for answer in answers]
    assert {(record.version, record.label, record.source, record.key) for record in shadows} == {(3, "hot", "shadow", "k")}


async def test_a_failing_shadow_is_noticed_by_nobody(router: Router, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.set_shadow("m", 3, by="test")
    await until(lambda: len(router.models()) == 2)
    live = router._by_ref["m@champion"].live
    assert live is not None
    assert live.shadow is not None
    live.shadow.predictor.close()
    assert (await router.predict("m", SAMPLE)).version == 1
    await until(lambda: len(router._shadows) == 0)


async def test_a_loaded_version_can_be_asked_for_and_another_cannot(router: Router, registry: Registry) -> None:
    registry.set_canary("m", 2, share=0.01, by="test")
    await until(lambda: len(router.models()) == 2)
    assert (await router.predict("m", SAMPLE, version=2)).version == 2
    assert (await router.infer("m", {"x": np.ones((2, 4), np.float32)}, version=2)).version == 2
    with pytest.raises(NotFound) as caught:
        await router.predict("m", SAMPLE, version=3)
    assert caught.value.hint == "loaded: 1, 2"


async def test_a_model_that_is_not_open_is_not_found_and_the_open_ones_are_named(router: Router) -> None:
    with pytest.raises(NotFound) as caught:
        await router.predict("n", SAMPLE)
    assert "m@champion" in caught.value.hint


@pytest.mark.parametrize("ref", ["unknown", "m@nobody", "m:9", "./nothing", "m@@"])
async def test_what_cannot_be_opened_says_so_and_leaves_nothing_open(registry: Registry, ref: str) -> None:
    async with Router(registry) as router:
        with pytest.raises(InferloopError):
            await router.open(["m", ref])
        assert router.models() == []


async def test_an_alias_a_version_and_a_path_can_be_open_together(registry: Registry, tmp_path: Path) -> None:
    registry.set_alias("m", "challenger", version=2, by="test")
    path = str(bundles.numbers(tmp_path / "loose", name="loose").path)
    async with Router(registry, poll_s=0.01) as router:
        await router.open(["m", "m@challenger", "m:3", path])
        refs = ("m", "m@challenger", "m:3", path, "loose")
        assert [(await router.predict(ref, SAMPLE)).version for ref in refs] == [1, 2, 3, 0, 0]
        assert (await router.predict("m", SAMPLE, version=3)).version == 3
        registry.set_alias("m", "challenger", version=3, by="test")
        await until(lambda: router.bundle("m@challenger").version == 3)
        assert router.ready


async def test_without_a_champion_the_latest_version_answers_a_bare_name(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.register(bundles.numbers(tmp_path / "one", name="m"))
        async with Router(registry, poll_s=0.01) as router:
            await router.open(["m"])
            assert router.bundle("m").version == 1
            registry.register(bundles.numbers(tmp_path / "two", name="m", seed=2))
            await until(lambda: router.bundle("m").version == 2)


async def test_a_model_removed_from_the_registry_goes_on_answering(router: Router, registry: Registry) -> None:
    registry.remove("m")
    await until(lambda: router.models()[0].reason != "")
    assert (await router.predict("m", SAMPLE)).version == 1


async def test_closing_answers_what_was_accepted(registry: Registry) -> None:
    router = Router(registry, limits=Limits(inline=False, max_delay_s=0.2))
    await router.open(["m"])
    accepted = [asyncio.create_task(router.predict("m", SAMPLE)) for _ in range(5)]
    await asyncio.sleep(0)
    await router.aclose()
    assert {(await answer).version for answer in accepted} == {1}
    await router.aclose()


def test_load_takes_a_reference_or_a_path(registry: Registry, tmp_path: Path) -> None:
    with load("m:2", registry=registry) as predictor:
        assert predictor.predict(SAMPLE).label == "warm"
    with load(tmp_path / "v3", target="numpy") as predictor:
        assert predictor.predict(SAMPLE).label == "hot"
    with pytest.raises(NotFound):
        load("nobody", registry=registry)


@settings(deadline=None)
@given(share=st.floats(0.05, 0.95), model=st.text(max_size=8))
def test_the_share_is_kept_within_its_tolerance(share: float, model: str) -> None:
    taken = sum(takes_canary(model, f"key {number}", share) for number in range(2000))
    assert abs(taken / 2000 - share) < 0.05  # more than four standard deviations


@settings(deadline=None)
@given(key=st.text(), model=st.text(), share=st.floats(0, 1), more=st.floats(0, 1))
def test_a_growing_share_keeps_every_key_it_had(key: str, model: str, share: float, more: float) -> None:
    assert 0 <= fraction(model, key) < 1
    assert not takes_canary(model, key, min(share, more)) or takes_canary(model, key, max(share, more))


class Traffic:
    """Clients that ask without a pause and keep the books."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.asked = 0
        self.answers = Counter[int]()
        self.errors: list[Exception] = []
        self.stop = False

    async def keep_asking(self) -> None:
        while not self.stop:
            self.asked += 1
            try:
                answer: Prediction = await self._router.predict("m", SAMPLE)
            except Exception as error:  # any error is what the test looks for
                self.errors.append(error)
                continue
            assert answer.label == LABEL_OF[answer.version], "the answer is that version's"
            self.answers[answer.version] += 1
            await asyncio.sleep(0)


async def until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)
