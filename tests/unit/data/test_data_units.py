import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput
from inferloop.data.units import RateLimit, duration_s, rate, size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5ms", 0.005), ("1h30m", 5400.0), ("7d", 604800.0), ("250us", 0.00025), ("0", 0.0), (0, 0.0), (" 2 s ", 2.0)],
)
def test_durations_are_seconds(text, seconds):
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "size"), [("512B", 512), ("2GB", 2 * 10**9), ("1.5 MiB", 1_572_864), ("3kb", 3000), (0, 0)])
def test_sizes_are_bytes(text, size):
    assert size_bytes(text) == size


@pytest.mark.parametrize(("text", "limit"), [("20/1h", (20, 3600.0)), ("5/s", (5, 1.0)), ("1/250ms", (1, 0.25))])
def test_rates_are_a_count_within_seconds(text, limit):
    assert rate(text) == RateLimit(*limit)


@pytest.mark.parametrize("parse", [duration_s, size_bytes, rate])
@pytest.mark.parametrize(
    "text", ["5", 5, 2.5, "", "ms", "5 lightyears", "-5ms", "0/s", "1/0s", True, None, ["5ms"], "٥ms/s", f"{'9' * 400}MB"]
)
def test_anything_without_a_number_and_a_unit_is_refused(parse, text):
    with pytest.raises(InvalidInput, match="must be"):
        parse(text)


@given(st.text(max_size=20))
def test_no_text_breaks_a_parser(text):
    for parse in (duration_s, size_bytes, rate):
        try:
            parse(text)
        except InvalidInput:
            continue
