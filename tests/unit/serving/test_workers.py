"""The parts behind several workers: sums of metrics, the board, wishes, ports, pauses, what cannot be held."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from inferloop.core.errors import NotFound, Unavailable, Unsupported
from inferloop.prediction.catalog import NO_OVERRIDE, Changes, Override
from inferloop.prediction.settings import Isolation, ModelSettings, SequenceSettings
from inferloop.serving.holding import Holding
from inferloop.serving.workers.board import Board, fold, total
from inferloop.serving.workers.place import Place
from inferloop.serving.workers.ports import reserve
from inferloop.serving.workers.seat import Seat
from inferloop.serving.workers.sums import add_up, lasting
from inferloop.serving.workers.wishes import Book, Wish, Wishes

ONE = """# HELP a_total Things.
# TYPE a_total counter
a_total{m="x",o="ok"} 3.0
a_total{m="y y",o="ok"} 1.0
# HELP a_created Things.
# TYPE a_created gauge
a_created{m="x"} 200.0
# HELP h Seconds.
# TYPE h histogram
h_bucket{le="+Inf"} 4.0
h_sum 0.5
# HELP q Microseconds.
# TYPE q summary
q{quantile="0.5"} 10.0
q_count 4.0
# HELP g Waiting.
# TYPE g gauge
g 2.0
# HELP nv_cpu_utilization Share.
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
"""
TWO = ONE.replace("3.0", "4.0").replace("200.0", "100.0").replace('"0.5"} 10.0', '"0.5"} 30.0').replace("0.25", "0.5")


def value(text: str, key: str) -> float:
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.rpartition(" ")[0] == key)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('a_total{m="x",o="ok"}', 7.0),
        ('a_total{m="y y",o="ok"}', 2.0),
        ('a_created{m="x"}', 100.0),
        ('h_bucket{le="+Inf"}', 8.0),
        ("h_sum", 1.0),
        ('q{quantile="0.5"}', 30.0),
        ("q_count", 8.0),
        ("g", 4.0),
        ("nv_cpu_utilization", 0.5),
    ],
)
def test_counters_add_up_and_what_is_no_count_does_not(key: str, expected: float) -> None:
    assert value(add_up([ONE, TWO]), key) == expected


def test_of_a_dead_worker_only_what_grows_stays() -> None:
    kept = lasting(ONE)
    assert value(kept, "h_sum") == 0.5
    assert value(kept, "q_count") == 4.0
    assert not any(line.startswith(("g ", "nv_cpu", "a_created{", "q{")) for line in kept.splitlines())


def test_the_sum_is_what_prometheus_reads() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name: family for family in text_string_to_metric_families(add_up([ONE, TWO]))}
    assert families["a"].type == "counter"
    assert families["h"].documentation == "Seconds."


def test_a_worker_that_ends_is_counted_once_before_and_after_it_is_folded(tmp_path: Path) -> None:
    (tmp_path / "11.prom").write_text(ONE)
    (tmp_path / "12.prom").write_text(TWO)
    key = 'a_total{m="x",o="ok"}'
    assert value(total(tmp_path).decode(), key) == 7.0
    fold(tmp_path, 11)
    assert value(total(tmp_path).decode(), key) == 7.0
    (tmp_path / "11.prom").write_text(ONE)  # as a reader finds it between the two steps of folding
    assert value(total(tmp_path).decode(), key) == 7.0
    fold(tmp_path, 12)
    assert value(total(tmp_path).decode(), key) == 7.0
    fold(tmp_path, 13)  # one that died before it wrote anything


def test_the_board_shows_this_worker_as_it_is_now_and_keeps_quiet_when_its_folder_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    folder.mkdir()
    board = Board(folder, lambda: ONE.encode())
    assert value(board.text().decode(), "g") == 2.0
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    board.close()
    board.close()


class Opened(Changes):
    """A router that only remembers."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}

    async def load(self, name: str, *, override: Override = NO_OVERRIDE) -> None:
        if name == "absent" or override.config == "broken":
            raise NotFound(f"no model named {name!r}")
        self.open[name] = override.config

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        self.open.pop(name, None)


async def until_equal(first: Opened, second: Opened) -> None:
    async with asyncio.timeout(60):
        while first.open != second.open:
            await asyncio.sleep(0.005)


async def test_what_one_worker_loads_all_load_in_the_same_order_those_to_come_too(tmp_path: Path) -> None:
    routers = [Opened(), Opened(), Opened()]
    first, second, late = (Wishes(router, tmp_path, poll_s=0.01) for router in routers)
    await first.start()
    await second.start()
    changes = [first.load("a"), second.load("a", override=Override("new")), first.unload("a"), second.load("b"), first.load("a")]
    await asyncio.gather(*changes)
    await second.load("a", override=Override("last", {"1/model.onnx": b"\x00\xff"}))
    await until_equal(routers[0], routers[1])
    assert routers[0].open == {"a": "last", "b": ""}
    await late.start()
    assert routers[2].open == routers[0].open
    for wishes in (first, second, late):
        await wishes.aclose()
        await wishes.aclose()


async def test_the_worker_that_is_asked_says_why_a_model_does_not_load_and_the_others_go_on(tmp_path: Path) -> None:
    routers = [Opened(), Opened()]
    first, second = (Wishes(router, tmp_path, poll_s=0.01) for router in routers)
    await first.start()
    await second.start()
    with pytest.raises(NotFound, match="absent"):
        await first.load("absent")
    await first.load("a")
    await until_equal(routers[0], routers[1])
    assert routers[1].open == {"a": ""}
    await first.aclose()
    await second.aclose()


async def test_a_wish_that_fails_leaves_workers_to_come_with_what_was_wished_before(tmp_path: Path) -> None:
    first, late = Opened(), Opened()
    here = Wishes(first, tmp_path)
    await here.load("a")
    with pytest.raises(NotFound):
        await here.load("a", override=Override("broken"))
    await here.load("b")
    there = Wishes(late, tmp_path)
    await there.start()
    assert late.open == first.open == {"a": "", "b": ""}
    await there.aclose()


async def test_each_of_many_requests_to_one_worker_hears_what_came_of_its_own_wish(tmp_path: Path) -> None:
    wishes = Wishes(Opened(), tmp_path, poll_s=0.001)
    await wishes.start()
    for _ in range(5):
        outcomes = await asyncio.gather(
            *(wishes.load(name) for name in ("absent", "a", "absent", "b", "absent")), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [NotFound, type(None), NotFound, type(None), NotFound]
    await wishes.aclose()


async def test_a_wish_that_breaks_the_router_holds_up_no_later_one(tmp_path: Path) -> None:
    class Breaking(Opened):
        async def load(self, name: str, *, override: Override = NO_OVERRIDE) -> None:
            if name == "breaks":
                raise RuntimeError("a defect")
            await super().load(name, override=override)

    routers = [Breaking(), Breaking()]
    first, second = (Wishes(router, tmp_path, poll_s=0.01) for router in routers)
    await first.start()
    await second.start()
    with pytest.raises(RuntimeError, match="a defect"):
        await first.load("breaks")
    await first.load("a")
    await until_equal(*routers)
    assert routers[1].open == {"a": ""}
    await first.aclose()
    await second.aclose()


async def test_wishes_that_fail_again_and_again_leave_no_pile_of_files(tmp_path: Path) -> None:
    wishes = Wishes(Opened(), tmp_path)
    for _ in range(20):
        with pytest.raises(NotFound):
            await wishes.load("absent")
    await wishes.load("a")
    assert len(list(tmp_path.iterdir())) <= 2
    assert await asyncio.to_thread(Book(tmp_path).add, Wish("b", loaded=True)) == 22, "no number is given twice"


def test_every_wish_of_many_writers_gets_a_number_of_its_own(tmp_path: Path) -> None:
    found: list[int] = []

    def write(model: str) -> None:
        book = Book(tmp_path)
        found.extend(book.add(Wish(f"{model}{number}", loaded=True)) for number in range(20))

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(found) == list(range(1, 81))
    assert [number for number, _ in Book(tmp_path).after(70)] == list(range(71, 81))
    assert not list(tmp_path.glob("*.new"))


def test_a_reserved_port_is_listened_on_by_several_and_refused_to_strangers() -> None:
    with reserve("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        listening = []
        for _ in range(2):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(("127.0.0.1", port))
            one.listen()
            listening.append(one)
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
        with pytest.raises(Unavailable, match=f"port {port} of 127.0.0.1 is in use"):
            reserve("127.0.0.1", port)
        for one in listening:
            one.close()


def test_workers_that_die_at_once_again_and_again_are_started_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferloop.serving.workers.place.time", SimpleNamespace(monotonic=lambda: 1000.0))  # it stands still
    place = Place([sys.executable, "-S", "-c", "raise SystemExit(3)"], lambda line: Seat(0, 1, {}, str(tmp_path), line))
    pauses = []
    for _ in range(4):
        line = place.start()
        line.settimeout(60)
        assert not place.hear()
        before = place.start_at
        assert place.gone() == 3
        pauses.append(place.start_at - 1000.0)
        assert place.start_at > before
    assert pauses[0] <= 0.0
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 1.5
    assert not place.is_up


def test_a_model_that_keeps_sequences_is_refused_by_several_workers_and_says_what_to_do() -> None:
    stateful = ModelSettings(sequence=SequenceSettings())
    assert Holding(workers=1)("m", stateful) is stateful
    with pytest.raises(Unsupported, match="needs one worker, this server has 2") as caught:
        Holding(workers=2)("m", stateful)
    assert "--workers 1" in caught.value.hint


def test_isolation_can_be_asked_for_by_the_model_or_for_all() -> None:
    assert Holding()("m", ModelSettings()).isolation is Isolation.THREAD
    assert Holding(Isolation.PROCESS)("m", ModelSettings()).isolation is Isolation.PROCESS
    assert Holding()("m", ModelSettings(isolation=Isolation.PROCESS)).isolation is Isolation.PROCESS
