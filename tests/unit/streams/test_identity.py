from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.sample import Message
from inferloop.streams.identity import content_id, effect_key, message_id, once_key


def test_the_key_of_an_effect_is_the_documented_digest() -> None:
    assert effect_key("p", "r", "s", "m") == hashlib.sha256(b"p|r|s|m").hexdigest()
    assert once_key("p", "s", "o1") == hashlib.sha256(b"p|s|o1").hexdigest()


def test_a_message_without_id_takes_its_place_in_the_source_else_a_new_one() -> None:
    placed = Message(b"x", "s", 0.0, topic="f.jsonl", position="12:abc")
    nowhere = Message(b"x", "s", 0.0)
    assert message_id("own", placed) == "own"
    assert message_id("", placed) == "s@f.jsonl@12:abc"
    assert message_id("", nowhere) != message_id("", nowhere)


def test_an_unreadable_message_is_known_by_its_content() -> None:
    assert content_id(Message(b"x", "s", 0.0)) == content_id(Message(b"x", "s", 9.0))
    assert content_id(Message(b"x", "s", 0.0)) != content_id(Message(b"y", "s", 0.0))


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_messages_have_different_keys(one: str, other: str) -> None:
    assert (effect_key("p", "r", "s", one) == effect_key("p", "r", "s", other)) is (one == other)
