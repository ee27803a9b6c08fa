"""Who takes what is sent stays; who does not is late."""

from __future__ import annotations

import pytest

from inferloop.net.uptake import Uptake


def test_a_client_that_takes_nothing_is_late_after_its_patience() -> None:
    uptake = Uptake(100.0, 1_000_000)
    assert not uptake.is_late(130.0, 1_000_000, patience_s=30, rate=1000)
    assert uptake.is_late(130.1, 1_000_000, patience_s=30, rate=1000)


@pytest.mark.parametrize(("rate", "is_late"), [(1001, False), (900, True)])
def test_the_rate_decides_about_a_client_that_reads_on(rate: int, is_late: bool) -> None:
    uptake, left = Uptake(0.0, 1_000_000), 1_000_000
    late = []
    for second in range(1, 600):
        left -= rate
        late.append(uptake.is_late(second, left, patience_s=30, rate=1000))
    assert late[-1] is is_late
    assert not any(late[:30])


def test_bytes_that_join_are_not_taken_for_bytes_that_left() -> None:
    uptake = Uptake(0.0, 1000)
    assert not uptake.is_late(1.0, 5000, patience_s=2, rate=1000)
    assert not uptake.is_late(2.5, 4000, patience_s=2, rate=1000)
    assert uptake.is_late(3.5, 9000, patience_s=2, rate=1000)
