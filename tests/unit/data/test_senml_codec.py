import contextlib
import json
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.senml import SenmlCodec
from inferloop.data.codecs.senml_pack import CBOR_LABELS, resolve

NOW = 1.7e9
LABELS = {name: int(number) for number, name in CBOR_LABELS.items()}


def in_json(pack: Any) -> bytes:
    return json.dumps(pack).encode()


def in_cbor(pack: Any) -> bytes:
    return cbor2.dumps([{LABELS.get(label, label): value for label, value in record.items()} for record in pack])


def decode(payload: Any, options: dict[str, Any] | None = None, encode: Any = in_json, **extra: Any) -> Sample:
    codec = SenmlCodec(SenmlCodec.Config.model_validate({"fields": {"x": "x"}, **(options or {})}))
    return codec.decode(Message(payload if isinstance(payload, bytes) else encode(payload), "s", NOW, **extra))


BURST = [
    {"bn": "urn:dev:ow:10e2073a01080063:", "bt": 1.276020076e9, "bu": "m/s2", "n": "acceleration", "v": 1.0},
    {"n": "acceleration", "t": 2, "v": 3.0},
    {"n": "acceleration", "t": 1, "v": 2.0},
    {"n": "on", "u": "/", "vb": True},
]


@pytest.mark.parametrize("encode", [in_json, in_cbor])
def test_a_pack_becomes_one_sample_with_a_signal_in_order_of_time(encode):
    options = {
        "id": ["name", "time"],
        "key": "name",
        "time": "time",
        "fields": {"signal": "acceleration", "on": {"name": "on", "type": "bool"}, "line": {"topic": 0}},
    }
    sample = decode(BURST, options, encode, topic="line4/a")
    np.testing.assert_array_equal(sample.fields["signal"], [1.0, 2.0, 3.0])
    assert (sample.fields["on"], sample.fields["line"]) == (True, "line4")
    assert (sample.id, sample.key) == ("urn:dev:ow:10e2073a01080063:|1276020076.0", "urn:dev:ow:10e2073a01080063:")
    assert sample.time == 1.276020076e9


@pytest.mark.parametrize(
    ("pack", "resolved"),
    [
        ([{"n": "urn:dev:ow:1", "u": "Cel", "v": 23.1}], [("urn:dev:ow:1", NOW, "Cel", 23.1, None)]),
        (
            [{"bn": "a:", "bv": 10, "n": "x", "v": 1}, {"n": "y", "v": -1}],
            [("a:x", NOW, "", 11, None), ("a:y", NOW, "", 9, None)],
        ),
        ([{"bn": "a", "v": 1}, {"bn": "b", "v": 2}], [("a", NOW, "", 1, None), ("b", NOW, "", 2, None)]),
        ([{"n": "a", "bs": 5, "s": 1}, {"n": "a", "v": 2}], [("a", NOW, "", None, 6), ("a", NOW, "", 2, 5)]),
        ([{"n": "a", "v": 0}, {"n": "a", "t": -5, "v": 1}], [("a", NOW, "", 0, None), ("a", NOW - 5, "", 1, None)]),
        ([{"n": "a", "bt": -10, "t": 5, "v": 0}], [("a", NOW - 5, "", 0, None)]),
        ([{"n": "a", "t": 2**28, "v": 0}], [("a", 2.0**28, "", 0, None)]),
        ([{"n": "a", "t": 2**28 - 1, "v": 0}], [("a", NOW + 2**28 - 1, "", 0, None)]),
        ([{"n": "a", "bu": "Cel", "v": 1}, {"n": "a", "u": "K", "v": 2}], [("a", NOW, "Cel", 1, None), ("a", NOW, "K", 2, None)]),
        ([{"n": "a", "vs": "", "ut": 3, "other": [1]}], [("a", NOW, "", "", None)]),
        ([{"n": "a", "vb": False}, {"n": "b", "vd": "-_8"}], [("a", NOW, "", False, None), ("b", NOW, "", b"\xfb\xff", None)]),
        ([{"bver": 10, "n": "a", "v": 1}, {"bver": 10, "n": "a", "v": 1}], [("a", NOW, "", 1, None)] * 2),
        ([{"bver": 5, "n": "a", "v": 1}], [("a", NOW, "", 1, None)]),
    ],
)
def test_bases_hold_until_they_change_and_small_times_are_relative(pack, resolved):
    records = resolve(pack, NOW).records
    assert [(record.name, record.time, record.unit, record.value, record.sum) for record in records] == resolved


@pytest.mark.parametrize(
    ("pack", "says"),
    [
        ([], "must be a list of records, it is an empty list"),
        ({"n": "a", "v": 1}, "must be a list of records, it is an object"),
        ([1], "record 0 of the pack must be an object, it is a number"),
        ([{"n": "a", "v": 1, "bver": 11}], "the pack has version 11, versions up to 10 are read"),
        ([{"n": "a", "v": 1}, {"n": "a", "v": 1, "bver": 9}], "record 1 of the pack: bver must be the same"),
        ([{"n": "a", "v": 1, "bver": 1.5}], "bver must be a whole number"),
        ([{"n": "a", "v": 1, "secret_": 1}], "must be understood"),
        ([{"n": "a", "v": 1}, {"n": "a"}], "record 1 of the pack has neither a value nor a sum"),
        ([{"n": "a", "bv": 1}], "has neither a value nor a sum"),
        ([{"v": 1}], "has no name"),
        ([{"bn": "", "n": "", "v": 1}], "has no name"),
        ([{"n": ":a", "v": 1}], "has an ill-formed name"),
        ([{"n": "a b", "v": 1}], "has an ill-formed name"),
        ([{"n": "a\n", "v": 1}], "has an ill-formed name"),
        ([{"n": "ä", "v": 1}], "has an ill-formed name"),
        ([{"n": 1, "v": 1}], "n must be text, it is a number"),
        ([{"n": "a", "v": "1"}], "v must be a number, it is text"),
        ([{"n": "a", "v": True}], "v must be a number, it is true or false"),
        ([{"n": "a", "vb": 1}], "vb must be true or false, it is a number"),
        ([{"n": "a", "vs": 1}], "vs must be text, it is a number"),
        ([{"n": "a", "vd": "%%%"}], "vd must be base64url"),
        ([{"n": "a", "vd": "a"}], "vd must be base64url"),
        ([{"n": "a", "vd": 1}], "vd must be base64url or bytes, it is a number"),
        ([{"n": "a", "v": 1, "vs": "a"}], r"has 2 values \(v, vs\), one is allowed"),
        ([{"n": "a", "v": 1, "t": 1.7e12}], "its time is out of range"),
        ([{"n": "a", "v": 1, "t": "now"}], "t must be a number, it is text"),
    ],
)
def test_a_pack_that_breaks_the_rules_says_which_record_and_why(pack, says):
    with pytest.raises(InvalidInput, match=says):
        decode(in_json(pack))


def test_a_field_takes_records_by_whole_name_by_its_end_or_by_the_name_without_base():
    pack = [{"bn": "dev1", "n": "temp", "v": 1}, {"n": "/water.temp", "v": 2}, {"n": "/a/level", "v": 3}]
    fields = {"whole": "dev1temp", "local": "temp", "end": "level", "path": "a/level", "none": "evel", "listed": "missing"}
    sample = decode(pack, {"fields": fields})
    np.testing.assert_array_equal(sample.fields.pop("local"), [1.0, 2.0])
    assert sample.fields == {"whole": 1.0, "end": 3.0, "path": 3.0}


def test_values_keep_their_kind_and_one_record_may_be_an_array():
    pack = [{"bn": "d:", "n": "s", "vs": "on"}, {"n": "d", "vd": "_9g"}, {"n": "x", "v": 1}, {"n": "e", "s": 7}]
    fields = {"s": "s", "d": {"name": "d", "type": "bytes"}, "x": {"name": "x", "type": "array"}, "e": "e"}
    sample = decode(pack, {"fields": fields})
    np.testing.assert_array_equal(sample.fields.pop("x"), [1.0])
    assert sample.fields == {"s": "on", "d": b"\xff\xd8", "e": 7.0}


@pytest.mark.parametrize(
    ("field", "pack", "says"),
    [
        ({"name": "x", "required": True}, [{"n": "y", "v": 1}], "field 'f' is missing at records named 'x'"),
        ({"name": "x"}, [{"n": "x", "v": 1}, {"n": "x", "vs": "a"}], "field 'f' has 2 records, and not all of them are numbers"),
        ({"name": "x", "type": "number"}, [{"n": "x", "v": 1}, {"n": "x", "v": 2}], "field 'f' must be a number, it is an array"),
        ({"name": "x", "unit": "Cel"}, [{"n": "x", "u": "K", "v": 1}], "must have the unit 'Cel'"),
    ],
)
def test_records_that_do_not_fit_a_field_are_refused(field, pack, says):
    with pytest.raises(InvalidInput, match=says):
        decode(pack, {"fields": {"f": field}})


def test_identity_needs_a_name_that_the_records_share():
    two = [{"n": "a", "v": 1}, {"n": "b", "v": 1}]
    with pytest.raises(InvalidInput, match=r"the id is missing at name \(the records share no base name"):
        decode(two, {"id": "name"})
    assert decode(two, {"id": "record"}).id == "a"
    assert decode([two[0]], {"key": "name"}).key == "a"
    assert decode(two, {"key": {"header": "k"}, "time": {"header": "t"}}, headers={"k": "7", "t": "5"}).time == 5.0


LABEL = st.sampled_from([*LABELS, "x_", "other"])
JSON = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["a", "", "é"])
)


@pytest.mark.parametrize("encode", [in_json, in_cbor])
@given(pack=st.lists(st.dictionaries(LABEL, JSON, max_size=5), max_size=4))
def test_any_records_give_a_sample_or_invalid_input(encode, pack):
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode(pack, {"id": ["record", "time"], "fields": {"x": "a"}}, encode), Sample)


@given(noise=st.binary(max_size=30), start=st.sampled_from([b"", b"[", b"\x81", b'[{"n":"x","v":', b"\x81\xa2\x00\x61x\x02"]))
def test_any_bytes_give_a_sample_or_invalid_input(noise, start):
    with contextlib.suppress(InvalidInput):
        assert isinstance(decode(start + noise), Sample)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), order=st.randoms())
def test_a_signal_does_not_depend_on_the_order_of_its_records(values, order):
    pack = [{"n": "dev:x", "t": NOW + index, "v": value} for index, value in enumerate(values)]
    order.shuffle(pack)
    np.testing.assert_array_equal(decode(pack).fields["x"], values)
