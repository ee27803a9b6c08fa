"""Many Samples at once get what each would get alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferloop.core.errors import EngineError, InferloopError, InvalidInput, NotFound, Unavailable
from inferloop.core.sample import Sample
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.limits import Limits
from inferloop.prediction.prediction import Prediction
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from support.bundles import image, numbers, text
from support.sessions import BreakingSession

GOOD = [1.0, 2.0, 3.0, 4.0]
VALUES = st.one_of(
    st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4),
    st.sampled_from([None, [1.0], "text", [1.0, float("nan"), 0.0, 0.0], [[1, 2], [3, 4]]]),
)


def samples(values: Sequence[Any]) -> list[Sample]:
    return [Sample({"values": value}, id=f"m{n}", key=f"k{n % 3}") for n, value in enumerate(values)]


async def one_by_one(predictor: Predictor, asked: Sequence[Sample]) -> list[Prediction | InferloopError]:
    answers: list[Any] = await asyncio.gather(*map(predictor.apredict, asked), return_exceptions=True)
    return answers


async def together(predictor: Predictor, asked: Sequence[Sample]) -> list[Prediction | InferloopError]:
    return await predictor.apredict_many(asked, ids=[f"p{number}" for number in range(len(asked))])


def same(one: Prediction | InferloopError, other: Prediction | InferloopError) -> bool:
    if isinstance(one, InferloopError) or isinstance(other, InferloopError):
        return type(one) is type(other) and str(one) == str(other)
    return one.label == other.label and one.scores == pytest.approx(other.scores, abs=1e-6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, max_size=40), st.integers(1, 16))
def test_together_as_alone(tmp_path_factory: pytest.TempPathFactory, values: list[Any], most: int) -> None:
    bundle = numbers(tmp_path_factory.mktemp("numbers"))

    async def both() -> None:
        async with Predictor.load(bundle, limits=Limits(max_batch=most)) as predictor:
            asked = samples(values)
            found, wanted = await together(predictor, asked), await one_by_one(predictor, asked)
            assert len(found) == len(asked)
            assert all(map(same, found, wanted)), (found, wanted)
            assert [each.id for each in found if isinstance(each, Prediction)] == [
                f"p{number}" for number, each in enumerate(found) if isinstance(each, Prediction)
            ]

    asyncio.run(both())


async def test_texts_of_different_lengths_share_what_runs_they_can(tmp_path: Path) -> None:
    words = ["good", "a much longer text than the others", "good", "money back please"] * 3
    async with Predictor.load(text(tmp_path / "text")) as predictor:
        asked = [Sample({"text": word}) for word in words]
        found, wanted = await together(predictor, asked), await one_by_one(predictor, asked)
        assert all(map(same, found, wanted))


async def test_a_broken_image_fails_alone(tmp_path: Path) -> None:
    async with Predictor.load(image(tmp_path / "image")) as predictor:
        good = np.zeros((8, 8), np.uint8)
        found = await together(predictor, [Sample({"image": value}) for value in (good, b"no image", good)])
    assert [type(answer) for answer in found] == [Prediction, InvalidInput, Prediction]


async def test_a_row_that_breaks_the_engine_fails_alone(tmp_path: Path) -> None:
    async with Predictor.load(numbers(tmp_path / "numbers")) as predictor:
        batcher = predictor._looped.batcher()
        real = batcher._instances[0].session

        class Breaking(BreakingSession):
            signature = real.signature

            def run(self, inputs: Any) -> Any:
                if 13 in inputs["x"]:
                    raise RuntimeError("13")
                return real.run(inputs)

        batcher._instances[0].session = Breaking(lambda _: None)
        found = await together(predictor, samples([GOOD, [13.0, 0, 0, 0], GOOD]))
    assert [type(answer) for answer in found] == [Prediction, EngineError, Prediction]


async def test_the_ledger_has_each_with_its_key_and_input(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        async with Predictor.load(numbers(tmp_path / "numbers"), ledger=ledger, source="test") as predictor:
            await together(predictor, samples([GOOD, None, GOOD]))
        ledger.flush()
        found = list(ledger.predictions())
    assert [(record.id, record.key, record.source) for record in found] == [("p0", "k0", "test"), ("p2", "k2", "test")]
    assert found[0].input == b'{"values":[1.0,2.0,3.0,4.0]}'


async def test_a_router_splits_them_by_key_and_tells_each_its_error(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        for number, bias in enumerate([(0.0, 0.0, 30.0), (30.0, 0.0, 0.0)]):
            registry.register(numbers(tmp_path / f"b{number}", bias=bias), alias="champion" if not number else None)
        registry.set_canary("numbers", 2, share=0.5)
        async with Router(registry) as router:
            with pytest.raises(NotFound):
                await router.predict_many("numbers@champion", samples([GOOD]))
            await router.open(["numbers@champion"])
            asked = [Sample({"values": GOOD if number % 5 else None}, key=f"k{number}") for number in range(100)]
            found = await router.predict_many("numbers@champion", asked, source="test")
            alone = await asyncio.gather(*(router.predict("numbers@champion", s) for s in asked), return_exceptions=True)
        versions = [answer.version if isinstance(answer, Prediction) else 0 for answer in found]
        assert versions == [answer.version if isinstance(answer, Prediction) else 0 for answer in alone]
        assert set(versions) == {0, 1, 2}
        assert versions.count(0) == 20


async def test_a_closed_predictor_answers_each_with_its_error(tmp_path: Path) -> None:
    predictor = Predictor.load(numbers(tmp_path / "numbers"))
    await together(predictor, samples([GOOD]))
    await predictor.aclose()
    found = await together(predictor, samples([GOOD, GOOD]))
    assert [type(answer) for answer in found] == [Unavailable, Unavailable]
    assert found[0] is not found[1]
