from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferloop.core.errors import InvalidConfig, NotFound
from inferloop.streams.pipeline import Pipeline
from support.pipelines import content, save

REFUNDS = """
pipeline: refunds
sources:
  chat: {mqtt: {url: "mqtt://127.0.0.1:1883", topics: ["shop/chat"], qos: 1, client_id: refunds, in_flight: 256}}
message:
  json:
    id: $.message_id
    key: $.customer_id
    time: $.sent_at
    fields:
      text: $.message
      order: $.order_id
      total: {path: $.order_total, type: number, required: true}
model: {ref: "dissatisfied@champion", inputs: {text: text}, batch: {max: 64, max_delay: 5ms}, max_age: 10m}
rules:                                # in order, the first that matches decides (match: all for every one)
  - {name: refund, label: dissatisfied, above: 0.9, when: "total < 100.0", once_per: order, send: [refund, audit]}
  - {name: review, below: 0.6, send: [review]}
sinks:
  refund: {webhook: {url: "${REFUND_URL}", json: {order: "=order", reason: "=label"}}}
  review: {queue: {}}                 # the built-in human review queue
  audit:  {file: {path: audit.jsonl}, required: false}
dead_letter: {file: {path: rejected.jsonl}}
tests:
  - {at: "2026-01-01T10:00:00Z", message: {message_id: m1, customer_id: c1, sent_at: "2026-01-01T09:59:58Z", message: "I am dissatisfied, give me my money back", order_id: o1, order_total: 40.0},
     scores: {dissatisfied: 0.97}, expect: {refund: {json: {order: o1, reason: dissatisfied}}, audit: 1}}
"""  # noqa: E501


OAUTH = {"token_url": "http://x/token", "client_id": "c", "client_secret": "s"}


def problems(**changes: Any) -> str:
    """The problems of the usual pipeline with other sections; None leaves one out."""
    sections = {name: value for name, value in content(**changes).items() if value is not None}
    with pytest.raises(InvalidConfig) as caught:
        Pipeline.of(sections)
    return caught.value.message


def rule(**parts: Any) -> list[dict[str, Any]]:
    return [{"name": "act", "send": ["act"], **parts}]


def mail(**parts: Any) -> dict[str, Any]:
    return {"url": "smtp://127.0.0.1", "from": "a@b.c", "to": "d@e.f", **parts}


def points(**parts: Any) -> dict[str, Any]:
    point = {"at": "=time", "score": "=score"}
    content = {"url": "http://x:8086", "database": "d", "measurement": "m", "point": point, "time": "at", **parts}
    return {name: value for name, value in content.items() if value is not None}


def test_the_pipeline_of_the_design_loads_and_passes_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUND_URL", "http://127.0.0.1:9/refunds")
    file = tmp_path / "refunds.yaml"
    file.write_text(REFUNDS)
    pipeline = Pipeline.load(file)
    (result,) = pipeline.test()
    assert result.passed, result.problems
    assert result.decisions == ("refund -> refund, audit",)
    promises = {pair.sink: str(pair.promise) for pair in pipeline.check().pairs}
    assert promises == {"refund": "effect exactly once", "review": "effect exactly once", "audit": "best effort"}


def test_five_mistakes_are_told_at_once_each_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        REFUNDS.replace("qos: 1", "qos: 3")
        .replace("max_age: 10m", "max_age: 10")
        .replace("total < 100.0", "totl < 100.0")
        .replace("send: [review]", "send: [reviw]")
        .replace("queue: {}", "quue: {}")
    )
    with pytest.raises(InvalidConfig) as caught:
        Pipeline.load(file, offline=True)
    told = {line.split(": ")[1] for line in caught.value.problems}
    assert told == {"sources.chat.mqtt.qos", "model.max_age", "rules.0.when", "rules.1.send.0", "sinks.review.quue"}


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.yaml"):
        Pipeline.load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sources": {"a": {"directory": {"path": "x", "then": "move"}}}}, "sources.a.directory: must have `done` with"),
        ({"sources": {"a": {"directory": {"path": "x", "settle": "0s"}}}}, "sources.a.directory.settle: must be at least"),
        (
            {"sinks": {"act": {"file": {"path": "x", "rotate": {"keep": 3}}}}},
            "sinks.act.file.rotate: must have `size` or",
        ),
        ({"sinks": {"act": {"file": {"path": "x", "rotate": {"size": 5}}}}}, "sinks.act.file.rotate.size: must be a size"),
        ({"sources": {"a": {"camera": {}}}}, "sources.a.camera: must have either `url` or `device`"),
        (
            {"sources": {"a": {"camera": {"url": "rtsp://x", "device": 0}}}},
            "sources.a.camera: must have either `url` or `device`",
        ),
        ({"sources": {"a": {"camera": {"url": "ftp://x"}}}}, "sources.a.camera.url: must be rtsp://HOST"),
        ({"sources": {"a": {"camera": {"device": 0}, "rate": "5"}}}, "sources.a.rate: must be a count per time"),
        ({"sources": {"a": {"camera": {"device": 0}, "buffer": 0}}}, "sources.a.buffer: must be at least 1"),
        ({"sources": {"a": {"camera": {"device": 0}, "when_full": "drop"}}}, "sources.a.when_full: must be"),
        ({"sources": {"a": {"video": {"path": "x.mp4", "every": 0}}}}, "sources.a.video.every: must be at least 1"),
        ({"sources": {"a": {"video": {"path": "x.mp4", "speed": 0}}}}, "sources.a.video.speed: must be above 0"),
        ({"sources": {"a": {"video": {"path": "x.mp4"}, "rate": "5/s"}}}, "sources.a.rate: is for a live source"),
        ({"tests": [{"file": "nothing.png", "expect": {}}]}, "tests.0.message: cannot read nothing.png: No such file"),
        ({"tests": [{"payload_base64": "a", "expect": {}}]}, "tests.0.payload_base64: is no base64"),
        ({"tests": [{"file": "x", "message": {}, "expect": {}}]}, "tests.0: must have either `message` or `messages`"),
        ({"tests": [{"messages": [{}], "expect": {}}]}, "tests.0.messages.0: must have one of `message`, `file` and"),
        ({"pipeline": "two words"}, "pipeline: must match"),
        ({"pipeline": None}, "pipeline: is missing"),
        ({"rules": None}, "rules: is missing"),
        ({"rules": []}, "rules: must have at least"),
        ({"model": None}, "model: is missing"),
        ({"model": {"ref": "m", "batch": {"max": 0}}}, "model.batch.max: must be at least 1"),
        ({"model": {"ref": "m", "batch": {"max_delay": "5"}}}, "model.batch.max_delay: must be a duration with its unit"),
        ({"model": {"ref": "m", "inputs": {"x": "nope"}}}, "model.inputs.x: no message field named 'nope'"),
        ({"sources": {}}, "sources: must have at least 1 entry"),
        ({"sources": {"a": {"carrier-pigeon": {}}}}, "no source named 'carrier-pigeon'; known: mqtt, kafka"),
        ({"sources": {"a": {}}}, "sources.a: must name exactly one source, it names none; known: mqtt, kafka"),
        ({"sources": {"a b": {"file": {"path": "x"}}}}, "sources.a b: is no name"),
        ({"sources": {"a": {"file": {"path": "x", "folow": True}}}}, "sources.a.file.folow: is not a known key; did you mean"),
        ({"sources": {"a": {"mqtt": {"url": "tcp://x", "topics": ["t"]}}}}, "sources.a.mqtt.url: must be mqtt://HOST"),
        ({"sources": {"a": {"mqtt": {"url": "mqtt://x", "topics": ["t/#/u"]}}}}, "'t/#/u' is no topic filter"),
        ({"sources": {"a": {"mqtt": {"url": "mqtt://x", "topics": []}}}}, "sources.a.mqtt.topics"),
        ({"message": {"xml": {}}}, "no codec named 'xml'; known: json"),
        ({"message": {"json": {"fields": {"label": "$.label"}}}}, "field 'label' has the name of something built in"),
        ({"message": {"json": {"fields": {"x": {"path": "$.x", "type": "integer"}}}}}, "message.json.fields.x.type"),
        ({"sinks": {"act": {"pigeon": {}}}}, "no sink named 'pigeon'; known: webhook"),
        ({"sinks": {"act": {"webhook": {"url": "ftp://x"}}}}, "sinks.act.webhook.url: must start with http"),
        ({"sinks": {"act": {"webhook": {"url": "http://x", "json": "=id"}}}}, "sinks.act.webhook.json: must be a mapping"),
        ({"sinks": {"act": {"webhook": {"url": "http://x", "json": {"a": ["=nope"]}}}}}, "json.a.0: unknown variable 'nope'"),
        ({"sinks": {"act": {"sqlite": {"path": "x", "table": "a;b"}}}}, "sinks.act.sqlite.table: must match"),
        ({"sinks": {"act": {"queue": {}, "requird": True}}}, "sinks.act.requird: is not a known key; did you mean 'required'?"),
        ({"sinks": {"dead_letter": {"queue": {}}, "act": {"queue": {}}}}, "sinks.dead_letter: is no name"),
        ({"rules": rule(send=["nope"])}, "rules.0.send.0: no sink named 'nope'; known: act"),
        ({"rules": rule(when="nope == 1")}, "rules.0.when: unknown variable 'nope'"),
        ({"rules": rule(when="total")}, "rules.0.when: 'total' must be true or false"),
        ({"rules": rule(once_per="nope")}, "rules.0.once_per: no field named 'nope'"),
        ({"rules": rule(cooldown={"for": "1s", "by": "nope"})}, "rules.0.cooldown.by: no field named 'nope'"),
        ({"rules": rule(budget="many")}, "rules.0.budget: must be a count per time"),
        ({"rules": rule() + rule()}, "rules.1.name: 'act' is the name of another rule"),
        ({"rules": [{"send": []}]}, "rules.0.name: is missing"),
        ({"rules": rule(change={"of": "order", "above": 1})}, "rules.0.change.of: 'order' is no number; known: "),
        ({"rules": rule(change={"of": "total"})}, "rules.0.change: needs `above` or `below`"),
        ({"rules": rule(after={"rule": "act", "within": "1s"})}, "rules.0.after.rule: no other rule named 'act'"),
        ({"rules": rule(after={"rule": "nope", "within": "1s"})}, "rules.0.after.rule: no other rule named 'nope'; known: act"),
        ({"sources": {"a": {"nats": {"url": "mqtt://x", "subject": "s"}}}}, "sources.a.nats.url: must be nats://HOST"),
        (
            {"sources": {"a": {"nats": {"url": "nats://x", "subject": "s", "durable": "a.b"}}}},
            "sources.a.nats.durable: must match",
        ),
        ({"sources": {"a": {"redis": {"url": "redis://x"}}}}, "sources.a.redis.stream: is missing"),
        ({"sources": {"a": {"kafka": {"brokers": "kafka://x", "topics": ["t"]}}}}, "sources.a.kafka.brokers: must match"),
        ({"sources": {"a": {"rabbitmq": {"url": "amqp://x", "queue": "q", "exchange": "e"}}}}, "exchange needs declare: true"),
        (
            {"sources": {"a": {"websocket": {"url": "http://x"}}}},
            "sources.a.websocket.url: must be ws://HOST[:PORT] or wss://HOST",
        ),
        (
            {"sources": {"a": {"websocket": {"url": "ws://u:p@x", "token": "t"}}}},
            "sources.a.websocket: must have only one of `token`, a user in `url`",
        ),
        (
            {"sources": {"a": {"websocket": {"url": "ws://x", "headers": {"X-A": "a\r\nB: c"}}}}},
            "sources.a.websocket.headers.X-A: must match",
        ),
        ({"sources": {"a": {"websocket": {"url": "ws://x", "hello": [1]}}}}, "sources.a.websocket.hello.0: must be"),
        (
            {"sources": {"a": {"websocket": {"url": "ws://x", "heartbeat": "0s"}}}},
            "sources.a.websocket.heartbeat: must be above 0",
        ),
        ({"sources": {"a": {"http": {"port": 70_000}}}}, "sources.a.http.port: must be at most 65535"),
        ({"sinks": {"act": {"webhook": {"url": "http://x", "oauth": {}}}}}, "sinks.act.webhook.oauth.token_url: is missing"),
        (
            {"sinks": {"act": {"webhook": {"url": "http://x", "oauth": {**OAUTH, "token_url": "http://u:p@x"}}}}},
            "sinks.act.webhook.oauth.token_url: must have no user in it",
        ),
        (
            {"sinks": {"act": {"webhook": {"url": "http://x", "oauth": OAUTH, "token": "t"}}}},
            "sinks.act.webhook: must have only one of `oauth`, `token`",
        ),
        ({"sinks": {"act": {"model": {"server": "http://x", "model": "m"}}}}, "sinks.act.model.json: is missing"),
        (
            {"sinks": {"act": {"model": {"server": "grpc://x", "model": "m", "json": {"a": 1}}}}},
            "sinks.act.model.server: must be http://HOST",
        ),
        (
            {"sinks": {"act": {"model": {"server": "http://x", "model": "m", "json": {"a": "=nope"}}}}},
            "sinks.act.model.json.a: unknown variable 'nope'",
        ),
        ({"sinks": {"act": {"s3": {}}}}, "sinks.act.s3.bucket: is missing"),
        ({"sinks": {"act": {"s3": {"bucket": "b", "key": "{day}"}}}}, "sinks.act.s3.key: must have {digest} in it"),
        ({"sinks": {"act": {"s3": {"bucket": "b", "key": "{digest}/{week}"}}}}, "sinks.act.s3.key: no value named 'week'"),
        (
            {"sinks": {"act": {"s3": {"bucket": "b", "access_key": "a"}}}},
            "sinks.act.s3: needs both `access_key` and `secret_key`",
        ),
        ({"sinks": {"act": {"s3": {"bucket": "b", "endpoint": "s3://x"}}}}, "sinks.act.s3.endpoint: must be http://HOST"),
        ({"sinks": {"act": {"s3": {"bucket": "b", "max_records": 0}}}}, "sinks.act.s3.max_records: must be at least 1"),
        ({"sinks": {"act": {"influxdb": points(database=None)}}}, "sinks.act.influxdb: needs `org` and `bucket` (version 2), or"),
        (
            {"sinks": {"act": {"influxdb": points(bucket="b", org="o")}}},
            "sinks.act.influxdb: needs `org` and `bucket` (version 2), or",
        ),
        (
            {"sinks": {"act": {"influxdb": points(database=None, bucket="b")}}},
            "sinks.act.influxdb: needs both `org` and `bucket`",
        ),
        ({"sinks": {"act": {"influxdb": points(url="http://u:p@x")}}}, "sinks.act.influxdb.url: must have no user"),
        ({"sinks": {"act": {"influxdb": points(user="u")}}}, "sinks.act.influxdb: needs both `user` and `password`"),
        (
            {"sinks": {"act": {"influxdb": points(time="when")}}},
            "sinks.act.influxdb: time: `point` has no 'when'; it has at, score",
        ),
        ({"sinks": {"act": {"influxdb": points(tags=["score"])}}}, "everything is a tag or the time, a point needs a field"),
        (
            {"sinks": {"act": {"influxdb": points(measurement="#m")}}},
            "sinks.act.influxdb.measurement: is no name of a measurement",
        ),
        (
            {"sinks": {"act": {"influxdb": points(point={"at": "=time", "a\n": 1})}}},
            "sinks.act.influxdb: point: 'a\\n' is no name of a tag or field",
        ),
        (
            {"sinks": {"act": {"influxdb": points(types={"score": "int"})}}},
            "sinks.act.influxdb.types.score: must be 'float', 'integer'",
        ),
        (
            {"sinks": {"act": {"influxdb": points(precision="m")}}},
            "sinks.act.influxdb.precision: must be 'ns', 'us', 'ms' or 's'",
        ),
        ({"sinks": {"act": {"smtp": {"from": "a@b.c", "to": "d@e.f"}}}}, "sinks.act.smtp.url: is missing"),
        ({"sinks": {"act": {"smtp": mail(url="smtp://u:p@x")}}}, "sinks.act.smtp.url: must have no user in it"),
        ({"sinks": {"act": {"smtp": mail(url="http://x")}}}, "sinks.act.smtp.url: must be smtp://HOST[:PORT] or smtps://HOST"),
        ({"sinks": {"act": {"smtp": mail(user="u")}}}, "sinks.act.smtp: needs both `user` and `password`"),
        ({"sinks": {"act": {"smtp": mail(to=[])}}}, "sinks.act.smtp.to: must have at least 1"),
        ({"sinks": {"act": {"smtp": mail(to="a@b.c, d@e.f")}}}, "sinks.act.smtp.to: 'a@b.c, d@e.f' is no mail address"),
        ({"sinks": {"act": {"smtp": mail(to="a@b.c\r\nBcc: d@e.f")}}}, "is no mail address"),
        ({"sinks": {"act": {"smtp": {**mail(), "from": "nobody"}}}}, "sinks.act.smtp.from: 'nobody' is no mail address"),
        ({"sinks": {"act": {"smtp": mail(values={"a": "=nope"})}}}, "sinks.act.smtp.values.a: unknown variable 'nope'"),
        (
            {"sinks": {"act": {"smtp": mail(values={"a": "=id"}, subject="{b}")}}},
            "sinks.act.smtp: subject: no value named 'b'; known: a",
        ),
        ({"sinks": {"act": {"mqtt": {"url": "mqtt://x", "topic": "a/#"}}}}, "sinks.act.mqtt.topic: 'a/#' has a wildcard"),
        (
            {"sinks": {"act": {"mqtt": {"url": "mqtt://x", "topic": "a", "expires": "2s", "protocol": "3.1.1"}}}},
            "sinks.act.mqtt: expires needs MQTT 5",
        ),
        (
            {"sinks": {"act": {"postgres": {"url": "mysql://x/y", "table": "t"}}}},
            "sinks.act.postgres.url: must be postgresql://HOST",
        ),
        ({"sinks": {"act": {"postgres": {"url": "postgres://x/y", "table": "a;b"}}}}, "sinks.act.postgres.table: must match"),
        ({"match": "some"}, "match: must be 'first' or 'all'"),
        ({"window": {"hop": 3}}, "window: needs model.inputs"),
        ({"window": {"hop": 0}}, "window.hop: must be at least 1"),
        ({"window": {"hop": 3, "by": "nope"}}, "window.by: no field named 'nope'"),
        ({"window": {"hop": 3}, "model": {"ref": "m", "inputs": {"x": "order"}}}, "window: field 'order' is string"),
        ({"outbox": {}}, "outbox.sqlite: is missing"),
        ({"outbox": {"sqlite": {"path": "o.db"}, "max_size": "2KB"}}, "outbox.max_size: must be at least 4096"),
        ({"outbox": {"sqlite": {"path": "o.db"}, "when_full": "drop"}}, "outbox.when_full: must be 'block' or 'drop_oldest'"),
        ({"extra": 1}, "extra: is not a known key"),
        ({"sources": {"a": {"file": {"path": "x"}, "rate": "5/s"}}}, "sources.a.rate: is for a live source"),
        ({"tests": [{"message": {}, "expect": {"nope": 1}}]}, "tests.0.expect: no sink named 'nope'"),
        ({"tests": [{"expect": {}}]}, "tests.0: must have either `message` or `messages`"),
        (
            {"rules": rule(when="total < 1.0"), "tests": [{"message": {"id": "a", "device": "b", "at": 0}, "expect": {}}]},
            "tests.0.message: lacks the field 'total' that rule 'act' uses",
        ),
        ({"tests": [{"message": {"id": "a"}, "expect": {}}]}, "tests.0.message: the key is missing at $.device"),
    ],
)
def test_each_mistake_is_told_with_its_path(changes: dict[str, Any], told: str) -> None:
    assert told in problems(**changes)


def test_an_unset_variable_is_a_problem_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    assert "sinks.act.webhook.url: environment variable NOWHERE is not set" in problems(
        sinks={"act": {"webhook": {"url": "${NOWHERE}"}}}
    )


def test_a_file_without_ids_says_so_in_its_guarantee() -> None:
    message = {"json": {"fields": {"values": "$.values"}}}
    mqtt = {"mqtt": {"url": "mqtt://x", "topics": ["t"]}}
    lossy = {"mqtt": {"url": "mqtt://x", "topics": ["t"], "qos": 0}}
    sections = content(
        message=message,
        sources={"file": {"file": {"path": "x"}}, "mqtt": mqtt, "lossy": lossy},
        rules=rule(cooldown="1h", send=["act", "log"]),
        sinks={"act": {"webhook": {"url": "http://x"}}, "log": {"stdout": {}}, "unused": {"queue": {}}},
    )
    found = Pipeline.of(sections).check()
    promises = {(pair.source, pair.sink): (str(pair.promise), pair.why) for pair in found.pairs}
    assert promises["file", "act"][0] == "effect exactly once"
    assert promises["file", "log"][0] == "at least once"
    assert promises["mqtt", "act"] == (
        "at least once",
        "messages have no id and the source has no durable position: a redelivery is decided anew",
    )
    assert promises["lossy", "act"][0] == "at most once"
    assert ("file", "unused") not in promises
    assert any("message.key is not declared" in note for note in found.notes)


def test_a_failing_test_of_a_file_says_what_came_instead(tmp_path: Path) -> None:
    message = {"id": "a", "device": "b", "at": 0, "order": "o1"}
    tests = [
        {"name": "wrong", "message": message, "scores": {"hot": 0.9}, "expect": {"act": {"json": {"order": "o2"}}}},
        {"name": "unexpected", "message": message, "scores": {"hot": 0.9}, "expect": {}},
        {"name": "poison", "message": "{", "expect": {"dead_letter": 1}},
    ]
    wrong, unexpected, poison = Pipeline.load(save(tmp_path / "p.yaml", content(tests=tests))).test()
    assert wrong.problems == ('act: expected {"order":"o2"}, got {"id":"a","order":"o1","label":"hot"}',)
    assert unexpected.problems == ('act: expected 0 deliveries, got 1 delivery: {"id":"a","order":"o1","label":"hot"}',)
    assert poison.passed


def test_a_test_sets_the_clock_for_stateful_rules_and_age() -> None:
    def moment(second: int, sent: int = 0) -> dict[str, Any]:
        at = f"2026-01-01T10:00:{second:02}Z"
        body = {"id": str(second), "device": "b", "at": f"2026-01-01T10:00:{second - sent:02}Z", "values": [1]}
        return {"at": at, "message": body, "scores": {"hot": 0.9}}

    tests = [{"messages": [moment(0), moment(5), moment(20, sent=9), moment(30)], "expect": {"act": 2}}]
    sections = content(rules=rule(above=0.5, cooldown="10s"), tests=tests, model={"ref": "m", "max_age": "8s"})
    (result,) = Pipeline.of(sections).test()
    assert result.decisions == ("act -> act", "suppressed: cooldown -> nothing", "stale -> nothing", "act -> act")
    assert result.passed


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["sources", "message", "model", "rules", "sinks", "dead_letter", "tests"]), values)
def test_no_content_breaks_the_reader(key: str, value: Any) -> None:
    with contextlib.suppress(InvalidConfig):
        Pipeline.of(content(**{key: value}))


@pytest.mark.parametrize("codec", ["json", "cbor", "msgpack"])
def test_the_message_of_a_test_is_written_in_the_form_that_its_codec_reads(codec: str) -> None:
    sections = content(message={codec: {"id": "$.id", "fields": {"values": {"path": "$.values", "type": "array"}}}})
    act = {"file": {"path": "act.jsonl", "json": {"id": "=id"}}}
    test = {"message": {"id": "t1", "values": [1.5, 2]}, "scores": {"hot": 0.9}, "expect": {"act": {"json": {"id": "t1"}}}}
    (result,) = Pipeline.of({**sections, "sinks": {"act": act}, "tests": [test]}).test()
    assert result.passed, result.problems


def test_a_test_takes_a_file_beside_it_headers_and_the_payload_of_a_dead_letter(tmp_path: Path) -> None:
    from support.bundles import png

    (tmp_path / "a.png").write_bytes(png())
    sections = content(
        message={"image": {"id": {"header": "frame"}}},
        rules=[{"name": "act", "label": "hot", "send": ["act"]}],
        sinks={"act": {"file": {"path": "act.jsonl", "json": {"id": "=id"}}}},
        tests=[
            {"file": "a.png", "headers": {"frame": "7"}, "scores": {"hot": 0.9}, "expect": {"act": {"json": {"id": "7"}}}},
            {
                "payload_base64": base64.b64encode(png()).decode(),
                "headers": {"frame": "8"},
                "scores": {"hot": 0.9},
                "expect": {"act": {"json": {"id": "8"}}},
            },
            {"payload_base64": "AAAA", "expect": {"dead_letter": 1}},
        ],
    )
    file = save(tmp_path / "demo.yaml", sections)
    assert [result.problems for result in Pipeline.load(file).test()] == [(), (), ()]
