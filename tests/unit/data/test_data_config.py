from pathlib import Path
from typing import Annotated

import pydantic
import pytest

from inferloop.core.errors import InvalidConfig, NotFound
from inferloop.data.config import Duration, Rate, Size, expand, parse_yaml, read_yaml, validate
from inferloop.data.units import RateLimit


class Field(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    path: str
    required: bool = False


class Config(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    qos: Annotated[int, pydantic.Field(ge=0, le=2)] = 0
    delay: Duration = 0.0
    size: Size = 0
    budget: Rate | None = None
    fields: dict[str, str | Field] = {}


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidConfig) as caught:
        validate(Config, parse_yaml(text, "f.yaml"), "f.yaml")
    return caught.value.problems


def test_five_mistakes_are_reported_at_once_each_with_its_path():
    assert problems("qos: 3\ndelay: 5\nsize: big\nbudgte: 1/s\nfields: {a: {path: $.a, required: 7}}\n") == (
        "f.yaml: qos: must be at most 2, it is 3",
        "f.yaml: delay: must be a duration with its unit (us, ms, s, m, h, d, w), e.g. 5ms or 1h30m, not 5",
        "f.yaml: size: must be a size with its unit (B, KB, MB, GB, KiB, MiB, GiB), e.g. 2GB, not 'big'",
        "f.yaml: fields.a.required: must be true or false, it is 7",
        "f.yaml: budgte: is not a known key; did you mean 'budget'?",
    )


def test_a_union_reports_the_form_that_the_user_meant():
    assert problems("fields: {a: {pth: $.a}}") == (
        "f.yaml: fields.a.path: is missing",
        "f.yaml: fields.a.pth: is not a known key; did you mean 'path'?",
    )


def test_a_value_of_no_form_names_all_forms_in_one_line():
    assert problems("fields: {a: 3}") == ("f.yaml: fields.a: must be text, it is 3, or must be a mapping, it is 3",)


def test_durations_sizes_and_rates_come_out_in_base_units():
    config = validate(Config, {"delay": "1h30m", "size": "1.5GiB", "budget": "20/1h"}, "f")
    assert (config.delay, config.size, config.budget) == (5400.0, 1_610_612_736, RateLimit(20, 3600.0))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("1e-3", 0.001),
        ("2026-01-01", "2026-01-01"),
        ("0x1F", 31),
        ("12:30", "12:30"),
        ("~", None),
        ("007", 7),
        ("true", True),
    ],
)
def test_scalars_read_as_people_expect(text, value):
    assert parse_yaml(f"a: {text}", "f") == {"a": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "line 2, column 1: the key 'a' comes twice"),
        ("a: [1", "line 1, column 6: expected ',' or ']'"),
        ("- 1", "must be a mapping of keys to values, it is a list"),
        ("", "must be a mapping of keys to values, it is empty"),
        ("a: &x [*x]", "recursive"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("\ta: 1", "cannot start any token"),
        ("? [a]\n: 2", "unhashable key"),
        (b"a: \xff", "is not UTF-8 at byte 3"),
        ("a: " + "[" * 900, "is not YAML|expected"),
    ],
)
def test_what_is_no_yaml_is_one_line_with_its_place(text, message):
    with pytest.raises(InvalidConfig, match=message) as caught:
        parse_yaml(text, "f.yaml")
    assert str(caught.value).startswith("f.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_not_found(tmp_path: Path):
    with pytest.raises(NotFound, match=r"no file .*x\.yaml"):
        read_yaml(tmp_path / "x.yaml")


def test_a_file_with_a_byte_order_mark_reads_as_without(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path) == {"a": 1}


def test_references_are_expanded_in_every_string(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REFUND_URL", "http://x")
    content = {"a": {"url": "${REFUND_URL}/y"}, "b": ["${NOPE:-z}", "$${REFUND_URL}", 3]}
    assert expand(content) == {"a": {"url": "http://x/y"}, "b": ["z", "${REFUND_URL}", 3]}


def test_all_unset_references_are_named_with_their_paths(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOPE", raising=False)
    with pytest.raises(InvalidConfig) as caught:
        expand({"a": {"b": "${NOPE}"}, "c": ["${secret:GONE}"]}, where="p.yaml")
    assert caught.value.problems == (
        "p.yaml: a.b: environment variable NOPE is not set",
        "p.yaml: c.0: secret GONE is not set",
    )


def test_a_secret_comes_from_its_file_and_never_shows_in_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "TOKEN").write_text("hunter2-very-secret\n")
    monkeypatch.setenv("INFERLOOP_SECRETS", str(tmp_path))
    content = expand({"delay": "${secret:TOKEN}"})
    assert content == {"delay": "hunter2-very-secret"}
    with pytest.raises(InvalidConfig) as caught:
        validate(Config, content, "f")
    assert "hunter2" not in str(caught.value)


def test_aliases_that_multiply_are_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(InvalidConfig, match="aliases stand for more than 1,000,000 values"):
        parse_yaml("\n".join(lines), "f.yaml")


def test_an_alias_of_itself_is_refused():
    with pytest.raises(InvalidConfig, match="recursive"):
        parse_yaml("a: &a [*a]", "f.yaml")


def test_a_few_aliases_are_fine():
    assert parse_yaml("a: &a [1, 2]\nb: *a", "f.yaml") == {"a": [1, 2], "b": [1, 2]}
