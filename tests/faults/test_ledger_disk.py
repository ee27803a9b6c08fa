"""The disk under the ledger fills up: predictions go on, losses are counted, and writing goes on when there is space."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from inferloop.core.errors import NotFound, StorageError
from inferloop.core.telemetry import LEDGER_LOST
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import FeedbackRecord, PredictionRecord


def prediction(number: int) -> PredictionRecord:
    body = os.urandom(500)
    return PredictionRecord(f"{number:032x}", time.time(), "m", 1, "k", "yes", 0.5, {"yes": 0.5}, body, "text")


def lost() -> float:
    return sum(sample.value for metric in LEDGER_LOST.collect() for sample in metric.samples if sample.name.endswith("_total"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or os.name != "posix":
        pytest.skip("no mount command here; run the tests on Linux as root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not permitted ({mounted.stderr.decode().strip()}); run the tests as root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> Path:
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"\0" * 4096)
    assert shutil.disk_usage(place).free == 0
    return ballast


def test_on_a_full_disk_appends_go_on_and_what_waited_is_written_when_there_is_space(small_disk: Path) -> None:
    with Ledger(small_disk / "ledger.db", queue_rows=200) as ledger:
        ledger.append(prediction(0))
        ledger.flush()
        ballast, lost_before = fill(small_disk), lost()
        taken = sorted(_timed_append(ledger, number) for number in range(1, 501))
        with pytest.raises(StorageError):
            ledger.flush(0.5)
        assert taken[450] < 0.1, "an append does not wait for the disk"
        assert ledger.stats().lost > 0  # the fault hit: the queue is full because the disk is
        assert lost() - lost_before == ledger.stats().lost

        ballast.unlink()
        ledger.flush(60)
        written = sum(1 for _ in ledger.predictions())
        ledger.append(prediction(1000))
        assert ledger.prediction(f"{1000:032x}").label == "yes"
        assert written + ledger.stats().lost == 501


def test_feedback_on_a_full_disk_says_so_and_is_taken_when_there_is_space(small_disk: Path) -> None:
    with Ledger(small_disk / "ledger.db") as ledger:
        ledger.append(prediction(1))
        ledger.flush()
        ballast = fill(small_disk)
        with pytest.raises(StorageError, match="full"):
            ledger.feedback_many([FeedbackRecord(f"{1:032x}", "no", "a" * 500, 1.0)] * 1000)
        assert ledger.prediction(f"{1:032x}").label == "yes"
        ballast.unlink()
        ledger.feedback(FeedbackRecord(f"{1:032x}", "maybe", "ann", 1.0))
        assert [row.truth for row in ledger.labeled("m")] == ["maybe"]


def test_a_ledger_closed_on_a_full_disk_loses_what_waits_and_counts_it(small_disk: Path) -> None:
    ledger = Ledger(small_disk / "ledger.db")
    ballast = fill(small_disk)
    for number in range(100):
        ledger.append(prediction(number))
    lost_before, started = lost(), time.monotonic()
    ledger.close()
    assert lost() - lost_before == 100
    assert time.monotonic() - started < 60
    ballast.unlink()
    with Ledger(small_disk / "ledger.db") as again, pytest.raises(NotFound):
        again.prediction(f"{1:032x}")


def test_a_ledger_file_that_may_not_grow_behaves_like_a_full_disk(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db", queue_rows=200) as ledger:
        ledger._back.limit_pages(40)
        for number in range(400):
            ledger.append(prediction(number))
            time.sleep(0.0002)
        with pytest.raises(StorageError):
            ledger.flush(0.3)
        assert ledger.stats().lost > 0
        ledger._back.limit_pages(1_000_000)
        ledger.flush(60)
        assert sum(1 for _ in ledger.predictions()) + ledger.stats().lost == 400


def _timed_append(ledger: Ledger, number: int) -> float:
    record = prediction(number)
    started = time.perf_counter()
    ledger.append(record)
    return time.perf_counter() - started
