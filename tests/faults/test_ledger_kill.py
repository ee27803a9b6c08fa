"""A process is killed while it writes the ledger: feedback that was taken is there, and the file is sound."""

import signal
import subprocess
import sys
from pathlib import Path

from inferloop.data.ledger.ledger import Ledger

WRITER = """
import sys, time
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import FeedbackRecord, PredictionRecord
ledger = Ledger(sys.argv[1])
for number in range(1_000_000):
    ledger.append(PredictionRecord(f"{number:032x}", time.time(), "m", 1, input=b"x" * 100, input_kind="text"))
    if number % 10 == 0:
        ledger.feedback(FeedbackRecord(f"{number:032x}", "yes", "ann", time.time()))
        print(number, flush=True)
"""


def test_feedback_taken_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "ledger.db")], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        seen = [writer.stdout.readline() for _ in range(30)]
        writer.send_signal(signal.SIGKILL)
        seen += writer.stdout.readlines()
    taken = sum(line.endswith("\n") for line in seen)
    assert writer.returncode == -signal.SIGKILL
    assert 30 <= taken < 100_000  # the fault hit in mid-stream: the writer had a million to go
    with Ledger(tmp_path / "ledger.db") as ledger:
        labeled = [row.prediction.id for row in ledger.labeled("m")]
        assert set(labeled) >= {f"{number:032x}" for number in range(0, 10 * taken, 10)}
        assert all(record.input == b"x" * 100 for record in ledger.predictions())
