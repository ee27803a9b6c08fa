"""A model's engine in a process of its own: its crash costs the run that it was in, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from inferloop.core import plugins
from inferloop.core.datatypes import Tensors
from inferloop.core.errors import EngineError, InferloopError, Unavailable, Unsupported
from inferloop.core.target import Target
from inferloop.prediction.isolation.isolated import CRASHES, IsolatedSession
from inferloop.prediction.live import State
from inferloop.prediction.predictor import Predictor
from inferloop.prediction.router import Router
from inferloop.prediction.settings import Isolation, ModelSettings
from inferloop.registry.registry import Registry
from support.bundles import linear, text
from support.crashing_engine import MARK, TARGET, install

APART = ModelSettings(target=TARGET, isolation=Isolation.PROCESS)
WAIT_S = 60


@pytest.fixture(autouse=True)
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(tmp_path / "site", monkeypatch)
    yield
    plugins.plugins.cache_clear()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[IsolatedSession]:
    found = IsolatedSession(linear(tmp_path / "linear"), TARGET)
    yield found
    found.close()
    until(lambda: not is_alive(found.pid))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or " Z " not in Path(f"/proc/{pid}/stat").read_text()


def regions() -> list[str]:
    """The shared memory that this process holds."""
    found = []
    for path in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").is_dir() else ():
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return [name for name in found if "memfd:inferloop" in name]


def row(value: float) -> Tensors:
    return {"x": np.array([[value, 0, 0, 0]], np.float32)}


def test_it_answers_what_the_engine_here_answers(session: IsolatedSession, tmp_path: Path) -> None:
    with Predictor.load(linear(tmp_path / "again")) as here:
        for rows in (1, 7, 5000):
            inputs = {"x": np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)}
            np.testing.assert_array_equal(session.run(inputs)["scores"], here.infer(inputs)["scores"])


def test_a_crash_is_an_error_of_that_run_and_the_next_one_is_answered(session: IsolatedSession) -> None:
    first = session.pid
    before = session.run(row(1.0))["scores"]
    with pytest.raises(EngineError, match="SIGABRT"):
        session.run(row(MARK))
    np.testing.assert_array_equal(session.run(row(1.0))["scores"], before)
    assert (session.pid != first, session.crashes, session.problem) == (True, 1, "")


def test_one_that_dies_idle_is_started_again_before_anybody_asks(session: IsolatedSession) -> None:
    first = session.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: session.pid != first)
    assert session.run(row(1.0))["scores"].shape == (1, 3)


def test_three_crashes_make_it_unavailable_for_good(session: IsolatedSession) -> None:
    for _ in range(CRASHES):
        with pytest.raises(EngineError):
            session.run(row(MARK))
    until(lambda: bool(session.problem))
    with pytest.raises(Unavailable, match=f"crashed {CRASHES} times in 60 s, last by SIGABRT"):
        session.run(row(1.0))


def test_closing_gives_process_memory_and_descriptors_back(tmp_path: Path) -> None:
    session = IsolatedSession(linear(tmp_path / "linear"), TARGET)
    session.run({"x": np.ones((200_000, 4), np.float32)})
    pid = session.pid
    assert regions() or not Path("/proc/self/fd").is_dir()
    session.close()
    session.close()
    until(lambda: not is_alive(pid))
    with pytest.raises(EngineError, match="closed"):
        session.run(row(1.0))
    del session
    until(lambda: not regions())


def test_a_session_that_is_forgotten_ends_its_process(tmp_path: Path) -> None:
    session = IsolatedSession(linear(tmp_path / "linear"), TARGET)
    pid = session.pid
    assert is_alive(pid)
    del session
    until(lambda: not is_alive(pid))


def test_the_child_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    bundle = linear(tmp_path / "linear")
    script = f"""
        from inferloop.core.bundle import Bundle
        from inferloop.core.target import Target
        from inferloop.prediction.isolation.isolated import IsolatedSession
        session = IsolatedSession(Bundle.load({str(bundle.path)!r}), Target())
        print(session.pid, flush=True)
        input()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.communicate()
    until(lambda: not is_alive(child))


def test_what_cannot_be_loaded_says_why_as_it_would_here(tmp_path: Path) -> None:
    bundle = linear(tmp_path / "linear")
    with pytest.raises(Unsupported):
        IsolatedSession(bundle, Target.parse("onnxruntime:cpu:int8"))
    (bundle.path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(EngineError):
        IsolatedSession(bundle, Target())


async def test_a_bad_request_in_a_batch_crashes_alone_and_its_neighbors_are_answered(tmp_path: Path) -> None:
    predictor = await asyncio.to_thread(Predictor.load, linear(tmp_path / "linear"), settings=APART)
    async with predictor:
        asked = [predictor.ainfer(row(value)) for value in (1.0, 2.0, MARK, 3.0, 4.0)]
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), WAIT_S)
        assert isinstance(answers[2], EngineError)
        others = [answer for place, answer in enumerate(answers) if place != 2]
        assert [type(answer).__name__ for answer in others] == ["Inference"] * 4
        alone = await predictor.ainfer(row(2.0))
        np.testing.assert_array_equal(alone.outputs["scores"], others[1].outputs["scores"])  # type: ignore[union-attr]


async def test_a_model_given_up_is_shown_with_its_reason_while_others_go_on_until_it_is_loaded_again(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        for make in (linear, text):
            registry.register(make(tmp_path / make.__name__), alias="champion")
        settings = {"linear": APART}
        async with Router(registry, settings=lambda name: settings.get(name, ModelSettings())) as router:
            await router.open(["linear", "text"])
            assert (await router.infer("linear", row(1.0))).rows == 1
            for _ in range(CRASHES):
                with pytest.raises(InferloopError):
                    await router.infer("linear", row(MARK))
            await asyncio.to_thread(until, lambda: states(router)["linear"][0] is State.UNAVAILABLE)
            assert "SIGABRT" in states(router)["linear"][1]
            assert not router.ready
            with pytest.raises(Unavailable):
                await router.infer("linear", row(1.0))
            assert states(router)["text"] == (State.READY, "")
            assert (await router.predict("text", "hello")).label
            await router.load("linear")
            assert (await router.infer("linear", row(1.0))).rows == 1
            assert states(router)["linear"] == (State.READY, "")
            assert router.ready


def states(router: Router) -> dict[str, tuple[State, str]]:
    return {state.name: (state.state, state.reason) for state in router.models()}
