"""Model configurations of other servers: what we read is what Protocol Buffers reads, and nothing makes the readers fall over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.core.target import Target
from inferloop.prediction.limits import Limits
from inferloop.prediction.repository import triton_config
from inferloop.prediction.repository.model_yaml import read_model_yaml
from inferloop.prediction.repository.text_format import parse_text
from inferloop.prediction.versions import VersionPolicy
from inferloop.serving.grpc.messages import message_class

TYPES = ["TYPE_FP32", "TYPE_INT64", "TYPE_STRING", "TYPE_BOOL", "TYPE_BF16"]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
COUNTS = st.integers(1, 1000)
TENSORS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES, "data_type": st.sampled_from(TYPES), "dims": st.lists(st.sampled_from([-1, 1, 3, 224]), max_size=4)}
    ),
    max_size=3,
    unique_by=lambda tensor: tensor["name"],
)
POLICIES = st.one_of(
    st.builds(lambda count: {"latest": {"num_versions": count}}, COUNTS),
    st.just({"all": {}}),
    st.builds(lambda numbers: {"specific": {"versions": numbers}}, st.lists(COUNTS, min_size=1, max_size=4)),
)
BATCHING = st.fixed_dictionaries(
    {
        "preferred_batch_size": st.lists(COUNTS, max_size=3),
        "max_queue_delay_microseconds": st.integers(0, 10**6),
        "priority_levels": st.just(4),
        "default_priority_level": st.integers(0, 4),
        "default_queue_policy": st.fixed_dictionaries(
            {"default_timeout_microseconds": st.integers(0, 10**7), "max_queue_size": st.integers(0, 5000)}
        ),
    }
)
CONFIGS = st.fixed_dictionaries(
    {"name": st.just("m"), "platform": st.sampled_from(["", "onnxruntime_onnx"]), "max_batch_size": st.integers(0, 64)},
    optional={
        "input": TENSORS,
        "output": TENSORS,
        "version_policy": POLICIES,
        "dynamic_batching": BATCHING,
        "instance_group": st.lists(st.fixed_dictionaries({"count": st.integers(1, 4), "kind": st.just("KIND_CPU")}), max_size=2),
        "parameters": st.dictionaries(NAMES, NAMES.map(lambda text: {"string_value": text}), max_size=3),
        "response_cache": st.builds(lambda on: {"enable": on}, st.booleans()),
        "model_transaction_policy": st.builds(lambda on: {"decoupled": on}, st.booleans()),
        "model_warmup": st.just([{"name": "w", "batch_size": 2}]),
    },
)


def message(content: dict[str, Any]) -> Any:
    return json_format.ParseDict(content, message_class("inference.ModelConfig")())


@settings(deadline=None, max_examples=150)
@given(content=CONFIGS, one_line=st.booleans(), utf8=st.booleans(), brackets=st.booleans())
def test_text_and_json_of_protocol_buffers_mean_the_same_to_us(
    content: dict[str, Any], one_line: bool, utf8: bool, brackets: bool
) -> None:
    config = message(content)
    text = text_format.MessageToString(config, as_one_line=one_line, as_utf8=utf8, pointy_brackets=brackets)
    as_json = json_format.MessageToJson(config, preserving_proto_field_name=utf8)
    read = triton_config.read_text(text, "config.pbtxt", name="m", limits=Limits())
    assert read == triton_config.read_json(as_json, "config", name="m", limits=Limits())


@settings(deadline=None, max_examples=150)
@given(content=CONFIGS)
def test_what_is_read_is_what_was_written(content: dict[str, Any]) -> None:
    read = triton_config.read_text(text_format.MessageToString(message(content)), "c", name="m", limits=Limits())
    lead = (None,) if content["max_batch_size"] else ()
    for side, specs in (("input", read.inputs), ("output", read.outputs)):
        tensors = content.get(side, [])
        assert [spec.name for spec in specs] == [tensor["name"] for tensor in tensors]
        shapes = [(*lead, *(None if size < 0 else size for size in tensor["dims"])) for tensor in tensors]
        assert [spec.shape for spec in specs] == shapes
    batching = content.get("dynamic_batching", {})
    assert read.settings.limits is not None
    assert read.settings.limits.max_batch == (content["max_batch_size"] or 64)
    assert read.settings.limits.max_delay_s == pytest.approx(batching.get("max_queue_delay_microseconds", 0) * 1e-6)
    assert read.settings.priority_levels == (4 if batching else 0)
    assert read.settings.instances == max(1, sum(group["count"] for group in content.get("instance_group", [])))
    assert read.settings.parameters == {key: value["string_value"] for key, value in content.get("parameters", {}).items()}
    assert read.settings.decoupled == content.get("model_transaction_policy", {}).get("decoupled", False)
    assert read.not_used == ()


KEYS = st.sampled_from(["input", "name", "max_batch_size", "step", "ensemble_scheduling", "zz"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner))


@settings(deadline=None)
@given(text=st.text(alphabet=st.sampled_from(list("abc_{}[]<>:;,\"'\\ \n#-0.1eEx")), max_size=60))
def test_no_text_makes_the_reader_fall_over(text: str) -> None:
    assert problem_of(lambda: parse_text(text, "c")) in (None, 400)


@settings(deadline=None)
@given(content=TREES)
def test_no_json_makes_the_reader_fall_over(content: Any) -> None:
    text = json.dumps({"ensemble_scheduling": content, "input": content})
    assert problem_of(lambda: triton_config.read_json(text, "c", name="m", limits=Limits())) in (None, 400, 501)


def problem_of(read: Callable[[], object]) -> int | None:
    """The status of the error of ours; any other goes on."""
    try:
        read()
    except InferloopError as error:
        return error.status
    return None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: 1 b: -2.5e3f c: 0x1F d: 010", {"a": [1], "b": [-2500.0], "c": [31], "d": [8]}),
        ('a: \'x\' "y" # comment\nb: "\\n\\303\\274\\""', {"a": ["xy"], "b": ['\n\u00fc"']}),
        ("a { b: [1, 2] }; a < b: 3 >, c: WORD", {"a": [{"b": [1, 2]}, {"b": [3]}], "c": ["WORD"]}),
        ("a: [ { b: 1 }, { b: 2 } ] c: [] d: -inf", {"a": [{"b": [1]}, {"b": [2]}], "c": [], "d": [float("-inf")]}),
    ],
)
def test_the_text_format_in_all_its_forms(text: str, found: dict[str, Any]) -> None:
    assert parse_text(text, "c") == found


@pytest.mark.parametrize("text", ["a", "a:", "a: }", "a {", "a: [1 2]", "{}", "a: 1 }", 'a: "x', "a b", "a" + " { a" * 50])
def test_what_is_no_text_format_is_told_with_its_line(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^c:\d+: "):
        parse_text(text, "c")


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), (10,)),
        (VersionPolicy(latest=2), (10, 9)),
        (VersionPolicy(latest=0), (10, 9, 1)),
        (VersionPolicy(specific=(1, 7, 9)), (9, 1)),
    ],
)
def test_a_policy_chooses_by_number_and_not_by_text(policy: VersionPolicy, chosen: tuple[int, ...]) -> None:
    assert policy.choose([9, 10, 1]) == chosen


def test_the_documented_keys_of_our_own_configuration_are_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "model-repository.md"
    path = tmp_path / "model.yaml"
    path.write_text(page.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0])
    read = read_model_yaml(path, "m/model.yaml", limits=Limits(), target=Target())
    assert (str(read.settings.target), read.settings.instances, read.settings.versions.latest) == ("onnxruntime:cpu:f32@2", 2, 2)
    assert (read.settings.queue_timeout_s, read.settings.cache_bytes, read.settings.warmup_rows) == (0.2, 64_000_000, (1, 32))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("batch: {maximum: 3}", "batch.maximum: is not a known key"),
        ("instances: 0\nthreads: x", "threads: must be a whole number.*\n.*instances: must be at least 1"),
        ("ensemble: [{model: a, inputs: {x: x}, outputs: {y: y}}]", "needs inputs and outputs"),
        ("target: 'no target!'", "is not ENGINE"),
    ],
)
def test_all_problems_of_our_own_configuration_are_told_with_their_path(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=says):
        read_model_yaml(path, "m/model.yaml", limits=Limits(), target=Target())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_batch_size: " + "9" * 5000, "5000 characters"),
        ('sequence_batching { control_input { name: "s" control { int32_false_true: [ 1 ] } } }', "one for yes"),
        ('sequence_batching { control_input { name: "s" control { kind: CONTROL_MOOD } } }', "not known"),
        ("sequence_batching { max_sequence_idle_microseconds: -5 }", "max_idle_s"),
        ("sequence_batching { oldest { max_candidate_sequences: -1 } }", "max_sequences"),
        ("dynamic_batching { priority_levels: 2000000000 }", "levels"),
        ("instance_group { count: 100000 }", "instances"),
    ],
)
def test_values_that_would_fell_the_server_are_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        triton_config.read_text(text, "config.pbtxt", name="m", limits=Limits())
    assert str(caught.value).count("config.pbtxt") == 1


def test_values_that_mean_nothing_here_are_named() -> None:
    text = "instance_group { kind: KIND_GPU } dynamic_batching { default_queue_policy { timeout_action: DELAY } }"
    read = triton_config.read_text(text, "c", name="m", limits=Limits())
    assert read.not_used == (
        "instance_group.kind: KIND_GPU",
        "dynamic_batching.default_queue_policy.timeout_action: DELAY",
    )


def test_a_sequence_without_a_time_is_forgotten_after_a_second() -> None:
    read = triton_config.read_text("sequence_batching { max_sequence_idle_microseconds: 0 }", "c", name="m", limits=Limits())
    assert read.settings.sequence is not None
    assert read.settings.sequence.max_idle_s == 1.0
