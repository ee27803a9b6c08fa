"""A process is killed while it writes the journal: what was acknowledged is there, and a batch is there whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

from inferloop.core.errors import StorageError
from inferloop.data.journal import Journal, StoredDecision, StoredDelivery

BATCH = 32
WRITER = """
import sys
from inferloop.data.journal import Journal, StoredDecision, StoredDelivery
journal = Journal(sys.argv[1])
start = int(sys.argv[2])
for batch in range(start, 1_000_000):
    ids = [f"m{batch}-{i}" for i in range(32)]
    journal.write(
        [StoredDecision("p", id_, "k", 1.0, "r", "", "yes", 0.5, "x", (StoredDelivery("s", id_, {"n": batch}),)) for id_ in ids],
        {"count": str(batch).encode()},
        ids,
    )
    print("written", batch, flush=True)
    journal.finish("p", ids)
    print("finished", batch, flush=True)
"""


def run_and_kill(path: Path, start: int, lines: int) -> tuple[int, int]:
    """Let a child write from batch `start` and kill it in mid-stream; returns the last batches it called written and finished."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seen = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        seen += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL  # the fault hit
    seen = [line for line in seen if line.endswith("\n")]
    last = {verb: max(int(line.split()[1]) for line in seen if line.startswith(verb)) for verb in ("written", "finished")}
    assert start < last["written"] < 100_000  # in mid-stream: some batches done, most not
    return last["written"], last["finished"]


def test_every_batch_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    path, start = tmp_path / "journal.db", 0
    for lines in (21, 40, 33):
        written, finished = run_and_kill(path, start, lines)
        with Journal(path) as journal:
            (state,) = journal.state("p").values()
            stored = int(state)
            assert stored in {written, written + 1}
            ids = [f"m{batch}-{i}" for batch in range(stored + 1) for i in range(BATCH)]
            assert journal.find("p", ids).keys() == set(ids)
            assert journal.seen_once("p", ids) == set(ids)
            assert journal.find("p", [f"m{stored + 1}-{i}" for i in range(BATCH)]) == {}
            pending = {int(decision.message_id[1:].split("-")[0]) for decision in journal.pending("p")}
            assert all(batch > finished for batch in pending if batch >= start)
            for batch in pending:
                journal.finish("p", [f"m{batch}-{i}" for i in range(BATCH)])
        start = stored + 1


def test_a_write_on_a_full_disk_is_refused_whole_and_works_when_there_is_space(tmp_path: Path) -> None:
    def batch(number: int) -> list[StoredDecision]:
        return [
            StoredDecision(
                "p", f"m{number}-{i}", "k", 1.0, "r", "", "yes", 0.5, "x", (StoredDelivery("s", f"{i}", {"x": "y" * 500}),)
            )
            for i in range(BATCH)
        ]

    with Journal(tmp_path / "journal.db") as journal:
        journal._store.limit_pages(60)
        written, refusal = 0, None
        while refusal is None:
            try:
                journal.write(batch(written), {"count": str(written).encode()}, [f"k{written}"])
                written += 1
            except StorageError as error:
                refusal = error
        assert "the disk is full" in refusal.message
        assert written > 0
        assert journal.find("p", [decision.message_id for decision in batch(written)]) == {}
        assert journal.state("p") == {"count": str(written - 1).encode()}
        assert journal.seen_once("p", [f"k{written}"]) == set()
        journal._store.limit_pages(1_000_000)
        journal.write(batch(written))
        assert len(journal.find("p", [decision.message_id for decision in batch(written)])) == BATCH
