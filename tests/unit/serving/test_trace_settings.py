"""Trace and log settings, and which requests are traced."""

import json
import logging
from types import SimpleNamespace

import pytest

from inferloop.core.errors import EngineError, Forbidden, InvalidInput, NotFound
from inferloop.prediction.options import NO_OPTIONS
from inferloop.serving.operations.logging import LogOperations
from inferloop.serving.operations.trace import TraceOperations
from inferloop.serving.services import Services
from inferloop.serving.spans import Spans
from inferloop.serving.tracing import Tracing

DEFAULTS = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}


class Models:
    """The one question that the settings ask of a router: whether a model is open."""

    def bundle(self, ref):
        if ref not in {"echo", "other"}:
            raise NotFound(f"no model named {ref!r}")
        return SimpleNamespace(name=ref)


def operations(tracing=None):
    return TraceOperations(Services(Models(), tracing=tracing or Tracing()))


def test_settings_are_those_of_triton_until_they_are_changed():
    assert operations().get() == DEFAULTS


def test_a_model_has_the_global_settings_until_it_gets_its_own():
    trace = operations()
    trace.update("", {"trace_rate": "500"})
    assert trace.get("echo") == {**DEFAULTS, "trace_rate": "500"}
    trace.update("echo", {"trace_count": "5"})
    trace.update("", {"trace_rate": ["7"]})
    assert trace.get("echo") == {**DEFAULTS, "trace_rate": "7", "trace_count": "5"}
    assert trace.get("other") == {**DEFAULTS, "trace_rate": "7"}
    assert trace.update("echo", {"trace_count": None}) == trace.get()
    assert trace.update("", {"trace_rate": []}) == DEFAULTS


@pytest.mark.parametrize(
    "patch",
    [
        {"zz": "1"},
        {"trace_rate": "0"},
        {"trace_rate": "many"},
        {"trace_count": "-2"},
        {"trace_level": ["TENSORS"]},
        {"trace_level": ["OFF", "TIMESTAMPS"]},
        {"trace_mode": "other"},
        {"trace_mode": "opentelemetry"},
        {"trace_level": "TIMESTAMPS"},
        {"trace_rate": True},
        {"trace_rate": "5", "trace_count": "x"},
    ],
)
def test_what_is_no_setting_is_refused_and_changes_nothing(patch):
    trace = operations()
    with pytest.raises(InvalidInput):
        trace.update("", patch)
    assert trace.get() == DEFAULTS


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.json", ".hidden", "a/b", "x" * 200])
def test_a_client_cannot_choose_where_files_are_written(tmp_path, name):
    with pytest.raises(InvalidInput, match="bare file name"):
        operations(Tracing(tmp_path)).update("", {"trace_file": name})


def test_a_server_without_a_folder_writes_no_files():
    with pytest.raises(Forbidden):
        operations().update("", {"trace_file": "trace.json"})


def test_settings_of_an_unknown_model_are_not_found():
    with pytest.raises(NotFound):
        operations().update("nobody", {"trace_rate": "1"})


async def ask(model, given, **asked):
    timeline = asked["options"].timeline
    if timeline is not None:
        timeline.queue_start_ns, timeline.compute_start_ns, timeline.compute_end_ns, timeline.batch_rows = 1, 2, 3, 4
    if given == "broken":
        raise EngineError("broken")
    return SimpleNamespace(model=model, version=3)


async def test_every_nth_request_is_traced_until_the_count_is_reached(tmp_path):
    tracing = Tracing(tmp_path)
    services = Services(Models(), tracing=tracing)
    patch = {"trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "3", "trace_file": "t.json", "log_frequency": "2"}
    TraceOperations(services).update("echo", patch)
    assert services.tracer is tracing
    for number in range(10):
        await tracing.around(ask, "echo", "", f"r{number}")("echo", "x", options=NO_OPTIONS)
        await tracing.around(ask, "other")("other", "x", options=NO_OPTIONS)
        tracing.flush()
        for path in tmp_path.iterdir():
            json.loads(path.read_text())
    tracing.close()
    first, second = (json.loads((tmp_path / f"t.json.{number}").read_text()) for number in range(2))
    assert [item["request_id"] for item in first + second if "request_id" in item] == ["r1", "r3", "r5"]
    assert first[0] == {"id": 1, "model_name": "echo", "model_version": 3, "request_id": "r1"}
    names = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_END", "REQUEST_END"]
    assert [stamp["name"] for stamp in first[1]["timestamps"]] == names
    TraceOperations(services).update("echo", {"trace_level": None})
    assert services.tracer is None


async def test_a_span_continues_the_trace_of_its_caller():
    memory = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="pip install 'inferloop[otel]'"
    ).InMemorySpanExporter()
    services = Services(Models(), tracing=Tracing(spans=Spans(exporter=memory)))
    TraceOperations(services).update("", {"trace_level": "TIMESTAMPS", "trace_rate": "1", "trace_mode": "opentelemetry"})
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    await services.tracing.around(ask, "echo", parent)("echo", "x", options=NO_OPTIONS)
    with pytest.raises(EngineError):
        await services.tracing.around(ask, "echo", "no traceparent")("echo", "broken", options=NO_OPTIONS)
    services.tracing.close()
    spans = {span.name: span for span in memory.get_finished_spans()[:3]}
    request, compute = spans["inferloop.request"], spans["inferloop.compute"]
    assert f"{request.context.trace_id:x}" == "ab" * 16
    assert f"{request.parent.span_id:x}" == "cd" * 8
    assert compute.parent.span_id == request.context.span_id
    assert (compute.start_time, compute.end_time) == (2, 3)
    assert dict(request.attributes) == {"inferloop.model": "echo", "inferloop.version": "3", "inferloop.batch_rows": 4}
    failed = memory.get_finished_spans()[-1]
    assert (failed.status.is_ok, failed.status.description, failed.parent) == (False, "INTERNAL", None)


@pytest.fixture
def settings():
    logger = logging.getLogger("inferloop")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield LogOperations()
    LogOperations().update({"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0})
    logger.setLevel(before)


def test_log_settings_are_those_of_triton(settings):
    assert settings.get() == {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }


def test_a_change_takes_effect_on_the_logging_of_the_process(settings, caplog):
    log = logging.getLogger("inferloop.test")
    logging.getLogger().addHandler(caplog.handler)
    try:
        assert settings.update({"log_info": False})["log_info"] is False
        log.info("quiet")
        log.warning("heard")
        assert LogOperations().update({"log_verbose_level": 1})["log_verbose_level"] == 1
        log.debug("details")
        log.info("still quiet")
    finally:
        logging.getLogger().removeHandler(caplog.handler)
    assert {"heard", "details"} == {record.getMessage() for record in caplog.records if record.name == "inferloop.test"}


@pytest.mark.parametrize(
    "patch", [{"zz": 1}, {"log_info": 1}, {"log_verbose_level": -1}, {"log_file": "/tmp/x"}, {"log_format": "x"}]
)
def test_what_is_no_log_setting_is_refused(settings, patch):
    with pytest.raises(InvalidInput):
        settings.update(patch)
