import threading
from collections.abc import Sequence

from inferloop.core.errors import StorageError
from inferloop.data.ledger.writer import BatchWriter


class Disk:
    """A place to write that can be held up, full, or allergic to one row."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.batches: list[int] = []
        self.refusals = 0
        self.full = False
        self.poison: int | None = None
        self.open = threading.Event()
        self.open.set()

    def write(self, rows: Sequence[int]) -> None:
        self.open.wait()
        if self.full:
            self.refusals += 1
            raise StorageError("the disk is full")
        if self.poison in rows:
            raise ValueError("cannot bind")
        self.rows.extend(rows)
        self.batches.append(len(rows))


def writer_to(disk: Disk, *, queue_rows: int = 1000, queue_bytes: int = 1 << 20, batch_rows: int = 50) -> BatchWriter[int]:
    return BatchWriter(disk.write, queue_rows=queue_rows, queue_bytes=queue_bytes, batch_rows=batch_rows, commit_s=0.005)


def test_rows_arrive_in_order_and_in_batches() -> None:
    disk = Disk()
    writer = writer_to(disk)
    for number in range(500):
        writer.put(number, 1, 1)
    assert writer.flush(5)
    writer.close(5)
    assert disk.rows == list(range(500))
    assert max(disk.batches) <= 50
    assert writer.lost == 0


def test_rows_of_many_threads_all_arrive_once() -> None:
    disk = Disk()
    writer = writer_to(disk, queue_rows=10_000)
    threads = [threading.Thread(target=lambda n=n: [writer.put(n * 1000 + i, 1, 1) for i in range(500)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close(5)
    assert sorted(disk.rows) == sorted(n * 1000 + i for n in range(4) for i in range(500))


def test_a_full_queue_loses_and_counts_without_blocking() -> None:
    disk = Disk()
    disk.open.clear()
    writer = writer_to(disk, queue_rows=10)
    for number in range(25):
        writer.put(number, 1, 1)
    assert writer.lost == 15
    disk.open.set()
    writer.close(5)
    assert disk.rows == list(range(10))


def test_the_queue_is_bounded_in_bytes_too() -> None:
    disk = Disk()
    disk.open.clear()
    writer = writer_to(disk, queue_bytes=100)
    for number in range(10):
        writer.put(number, 1, 30)
    assert writer.lost == 7
    disk.open.set()
    writer.close(5)


def test_a_full_disk_keeps_the_rows_and_writes_them_in_order_when_there_is_space() -> None:
    disk = Disk()
    disk.full = True
    writer = writer_to(disk)
    for number in range(120):
        writer.put(number, 1, 1)
    assert not writer.flush(0.2)
    assert disk.refusals > 0
    disk.full = False
    assert writer.flush(5)
    writer.close(5)
    assert disk.rows == list(range(120))
    assert writer.lost == 0


def test_one_odd_row_is_lost_alone() -> None:
    disk = Disk()
    disk.poison = 7
    writer = writer_to(disk)
    for number in range(20):
        writer.put(number, 1, 1)
    assert writer.flush(5)
    writer.put(20, 1, 1)
    writer.close(5)
    assert disk.rows == [number for number in range(21) if number != 7]
    assert writer.lost == 1


def test_closing_on_a_full_disk_ends_in_time_and_counts_what_is_lost() -> None:
    disk = Disk()
    disk.full = True
    writer = writer_to(disk)
    for number in range(30):
        writer.put(number, 1, 1)
    writer.close(0.1)
    assert writer.lost == 30
    assert writer.queued == 0


def test_a_row_after_closing_is_lost_and_counted() -> None:
    disk = Disk()
    writer = writer_to(disk)
    writer.close(5)
    writer.close(5)
    writer.put(1, 1, 1)
    assert (writer.lost, disk.rows) == (1, [])


def test_an_item_of_several_rows_counts_as_them() -> None:
    disk = Disk()
    disk.open.clear()
    writer = writer_to(disk, queue_rows=10)
    for number in range(5):
        writer.put(number, 4, 1)
    assert (writer.queued, writer.lost) == (12, 8)  # the third went beyond, the others found the queue full
    disk.open.set()
    writer.close(5)
    assert disk.rows == [0, 1, 2]
    assert writer.queued == 0


def test_a_batch_ends_with_the_item_that_fills_it() -> None:
    disk = Disk()
    disk.open.clear()
    writer = writer_to(disk, batch_rows=5)
    for number in range(20):
        writer.put(number, 3, 1)
    disk.open.set()
    writer.close(5)
    assert disk.rows == list(range(20))
    assert max(disk.batches) == 2


def test_an_odd_item_of_several_rows_is_lost_with_all_of_them() -> None:
    disk = Disk()
    disk.poison = 1
    writer = writer_to(disk)
    for number in range(3):
        writer.put(number, 4, 10)
    writer.close(5)
    assert (disk.rows, writer.lost) == ([0, 2], 4)
    assert writer.settled_bytes == 30
