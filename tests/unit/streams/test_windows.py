"""Windows are slices of each key's values, whatever the messages look like and whenever the process starts anew."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Message, Sample
from inferloop.streams.windows import GATHERED, LATE, Window, Windows

MESSAGE = Message(b"raw", "plant", 1000.0, topic="t")


def windows(**options: Any) -> Windows:
    return Windows(("v",), **{"length": 4, "hop": 2, **options})


def sample(value: Any, *, key: str = "a", **fields: Any) -> Sample:
    return Sample({"v": value, **fields}, key=key, source="plant", topic="t")


def fed(made: Windows, values: list[Any], *, key: str = "a") -> list[Window]:
    found: list[Window] = []
    for number, value in enumerate(values):
        outcome, whole = made.add(f"m{number}", sample(value, key=key), MESSAGE, float(number))
        assert outcome == GATHERED
        found += whole
    return found


def test_a_window_has_the_values_the_last_sample_s_fields_and_an_id_of_its_samples() -> None:
    made = windows()
    for number in range(3):
        made.add(f"m{number}", sample(number, site="north"), MESSAGE, float(number))
    _, (window,) = made.add("m3", sample(3, site="south"), MESSAGE, 3.0)
    assert window.sample.fields["v"].tolist() == [0, 1, 2, 3]
    assert (window.sample.fields["site"], window.sample.key, window.sample.time) == ("south", "a", 3.0)
    assert window.id == window.sample.id == hashlib.sha256(b"a|m0|m3|0").hexdigest()
    assert (window.origin.source, window.origin.received) == ("plant", 1000.0)


@pytest.mark.parametrize(("hop", "starts"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (4, [0, 4]), (6, [0, 6])])
def test_the_hop_is_from_beginning_to_beginning(hop: int, starts: list[int]) -> None:
    found = fed(windows(hop=hop), list(range(10)))
    assert [int(window.sample.fields["v"][0]) for window in found] == starts


def test_a_late_sample_is_left_out_and_an_equal_time_is_not() -> None:
    made = windows()
    assert made.add("m1", sample(1), MESSAGE, 5.0)[0] == GATHERED
    assert made.add("m2", sample(2), MESSAGE, 5.0)[0] == GATHERED
    assert made.add("m3", sample(3), MESSAGE, 4.9) == (LATE, [])
    assert made.add("m4", sample(4, key="b"), MESSAGE, 0.0)[0] == GATHERED


def test_a_pause_longer_than_the_gap_begins_anew() -> None:
    made = windows(gap_s=1.0)
    times = [0.0, 1.0, 2.0, 3.5, 4.0, 4.5, 5.0]
    found = [window for number, time in enumerate(times) for window in made.add(f"m{number}", sample(number), MESSAGE, time)[1]]
    assert [window.sample.fields["v"].tolist() for window in found] == [[3, 4, 5, 6]]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "'v' of the window is missing"),
        ("x", "must be numbers"),
        ([[[1]]], "must be numbers"),
        ([[1, 2]], "had 1 channels, now 2"),
    ],
)
def test_what_cannot_be_gathered_is_refused_and_changes_nothing(value: Any, told: str) -> None:
    made = windows()
    made.add("m0", sample(0), MESSAGE, 0.0)
    with pytest.raises(InvalidInput, match=told):
        made.add("bad", sample(value), MESSAGE, 1.0)
    (window,) = [w for number in range(1, 4) for w in made.add(f"m{number}", sample(number), MESSAGE, 2.0)[1]]
    assert window.sample.fields["v"].tolist() == [0, 1, 2, 3]


def test_several_fields_and_channels_stay_side_by_side() -> None:
    made = Windows(("x", "y"), length=3, hop=3)
    _, (window,) = made.add("m", Sample({"x": [[1, 2], [3, 4], [5, 6]], "y": [7, 8, 9]}), MESSAGE, 0.0)
    assert window.sample.fields["x"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert window.sample.fields["y"].tolist() == [7, 8, 9]
    with pytest.raises(InvalidInput, match="different lengths"):
        made.add("n", Sample({"x": [1], "y": [7, 8]}), MESSAGE, 1.0)


CHUNKS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.booleans()), max_size=40)


@given(CHUNKS, st.integers(1, 6), st.integers(1, 9))
def test_windows_are_slices_whatever_the_chunks_and_restarts(chunks: list[tuple[str, int, bool]], length: int, hop: int) -> None:
    stored: dict[str, bytes] = {}
    made = windows(length=length, hop=hop)
    values: dict[str, list[float]] = defaultdict(list)
    found: dict[str, list[list[float]]] = defaultdict(list)
    seen: list[str] = []
    for number, (key, count, restart) in enumerate(chunks):
        chunk = [float(len(values[key]) + index) for index in range(count)]
        values[key] += chunk
        _, whole = made.add(f"m{number}", sample(np.array(chunk), key=key), MESSAGE, float(number))
        seen += [window.id for window in whole]
        found[key] += [window.sample.fields["v"].tolist() for window in whole]
        stored |= made.take_changes()
        if restart:
            made = windows(length=length, hop=hop, stored=stored)
            due = made.take_due()
            assert {window.id for window in due} == set(seen), "each is kept until it is decided"
    for key, all_values in values.items():
        starts = range(0, len(all_values) - length + 1, hop)
        assert found[key] == [all_values[start : start + length] for start in starts]
    assert len(set(seen)) == len(seen)


def test_a_window_of_an_earlier_run_is_the_same() -> None:
    made = windows()
    (window,) = fed(made, [0.1, 0.2, 0.3, 0.4])
    (again,) = windows(stored=made.take_changes()).take_due()
    assert (again.id, again.due, again.origin) == (window.id, window.due, again.origin)
    assert again.sample.fields["v"].tobytes() == window.sample.fields["v"].tobytes()
    assert (again.sample.key, again.sample.time) == (window.sample.key, window.sample.time)
    assert again.origin.payload == window.origin.payload
