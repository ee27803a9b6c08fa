"""The access log and the ids of requests."""

import json
import threading

import pytest

from inferloop.core.errors import InvalidInput
from inferloop.serving.access import Access, AccessLog, request_id
from inferloop.serving.batch_writer import BatchWriter


def line(**changes):
    return Access(1.5, "POST", "/v2/models/m/infer", 200, 0.25, 10, 20)._replace(**changes)


def test_a_request_becomes_one_json_line(tmp_path):
    log = AccessLog(str(tmp_path / "access.jsonl"))
    log.record(line(request_id="a", model="m", peer="127.0.0.1:9"))
    log.record(line(method="grpc", path="/inference.GRPCInferenceService/ModelInfer", status="OK"))
    log.close()
    first, second = map(json.loads, (tmp_path / "access.jsonl").read_text().splitlines())
    assert first["time"] == "1970-01-01T00:00:01.500Z"
    assert (first["status"], first["bytes_in"], first["bytes_out"], first["request_id"]) == (200, 10, 20, "a")
    assert (second["method"], second["status"]) == ("grpc", "OK")


def test_a_path_cannot_break_a_line_or_fill_the_disk(tmp_path):
    log = AccessLog(str(tmp_path / "access.jsonl"))
    log.record(line(path='/x"\n{"forged":1}' + "y" * 10_000))
    log.close()
    (only,) = (tmp_path / "access.jsonl").read_text().splitlines()
    assert len(json.loads(only)["path"]) == 512


def test_a_log_that_cannot_be_opened_is_refused_at_once(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be written"):
        AccessLog(str(tmp_path / "missing" / "access.jsonl"))


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "a\r\nSet-Cookie: b", "ü"])
def test_an_id_that_may_not_stand_in_a_header_is_replaced(given):
    made = request_id(given)
    assert made != given
    assert made.isalnum()


def test_an_id_of_the_client_is_kept():
    assert request_id("trace-1.a/b:c") == "trace-1.a/b:c"


def test_a_disk_that_fails_costs_lines_and_nothing_else(caplog):
    def broken(items):
        raise OSError("full")

    writer = BatchWriter(broken, name="test")
    writer.append(1)
    writer.close()
    assert writer.lost == 1
    assert "not written" in caplog.text


def test_a_slow_disk_costs_lines_and_no_memory():
    gate, written = threading.Event(), []

    def slow(items):
        gate.wait(60)
        written.extend(items)

    writer = BatchWriter(slow, name="test", max_waiting=10, every_s=60)
    for number in range(100):
        writer.append(number)
    gate.set()
    writer.close()
    assert written == list(range(10))
    assert writer.lost == 90
