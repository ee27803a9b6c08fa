"""What a version did, counted from any thread and exported when it is asked for."""

import gc
import threading

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from inferloop.core import telemetry
from inferloop.core.errors import EngineError, InvalidInput, Overloaded
from inferloop.core.target import Target
from inferloop.prediction.meter import Duration, Meter
from inferloop.prediction.predictor import Predictor
from support import bundles

MS = 1_000_000


def samples(name, model):
    """The samples of one model: labels beside model and version -> value. The parser calls every counter `_total`."""
    found = {}
    for family in text_string_to_metric_families(telemetry.exposition().decode()):
        for sample in family.samples:
            if sample.name in {name, f"{name}_total"} and sample.labels.get("model") == model:
                rest = {key: value for key, value in sample.labels.items() if key not in {"model", "version"}}
                found[tuple(rest.values())] = sample.value
    return found


def test_a_meter_starts_at_zero_and_is_exported_from_then_on():
    meter = Meter("fresh", 1)
    assert meter.snapshot().success == Duration(0, 0)
    assert meter.snapshot().last_inference == 0
    assert samples("inferloop_requests_total", "fresh") == {("ok",): 0}
    assert samples("nv_inference_request_success", "fresh") == {(): 0}
    assert samples("nv_inference_request_failure", "fresh") == {(r,): 0 for r in ("REJECTED", "CANCELED", "BACKEND", "OTHER")}
    meter.close()


def test_requests_of_one_batch_share_its_time_and_count_their_rows():
    meter = Meter("batched", 1)
    for _ in range(2):
        meter.waited([0.001])
        meter.answered(0.01)
    meter.ran(0.004, rows=5, requests=2, input_s=0.001, output_s=0.002)
    found = meter.snapshot()
    assert found.success == Duration(2, 20 * MS)
    assert found.queue == Duration(2, 2 * MS)
    assert found.compute_infer == Duration(2, 8 * MS)
    assert (found.inference_count, found.execution_count) == (5, 1)
    (batch,) = found.batch_stats
    assert (batch.batch_size, batch.compute_infer) == (5, Duration(1, 4 * MS))
    assert found.last_inference > 1_600_000_000_000
    meter.close()


def test_failures_are_counted_by_outcome_and_by_the_reasons_of_triton():
    meter = Meter("failing", 1)
    for error in (Overloaded("full"), EngineError("broken"), InvalidInput("odd"), GeneratorExit()):
        meter.refused(error, 0.001)
    assert meter.snapshot().fail == Duration(4, 4 * MS)
    assert samples("nv_inference_request_failure", "failing") == {
        ("REJECTED",): 1,
        ("BACKEND",): 1,
        ("OTHER",): 1,
        ("CANCELED",): 1,
    }
    assert samples("inferloop_requests_total", "failing")[("invalid_argument",)] == 1
    meter.close()


def test_a_histogram_is_cumulative_and_a_bound_belongs_to_its_bucket():
    meter = Meter("bounds", 1)
    for seconds in (0.0005, 0.0006, 99.0):
        meter.answered(seconds)
    buckets = samples("inferloop_request_seconds_bucket", "bounds")
    assert (buckets[("0.0005",)], buckets[("0.001",)], buckets[("10.0",)], buckets[("+Inf",)]) == (1, 2, 2, 3)
    assert samples("inferloop_request_seconds_count", "bounds") == {(): 3}
    meter.close()


def test_nothing_is_lost_between_threads_and_scrapes():
    meter, threads = Meter("threads", 1), 4

    def work():
        for _ in range(5000):
            meter.waited([0.001])
            meter.ran(0.001)
            meter.answered(0.002)

    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    while any(thread.is_alive() for thread in started):
        meter.snapshot()
    found = meter.snapshot()
    assert [found.success.count, found.queue.count, found.execution_count] == [5000 * threads] * 3
    assert samples("inferloop_request_seconds_count", "threads") == {(): 5000 * threads}
    meter.close()


def test_two_versions_loaded_under_one_name_are_exported_as_one():
    first, second = Meter("twice", 1), Meter("twice", 1)
    first.answered(0.001)
    second.answered(0.001)
    second.ran(0.001, rows=3)
    assert samples("nv_inference_request_success", "twice") == {(): 2}
    assert samples("nv_inference_count", "twice") == {(): 3}
    assert samples("inferloop_requests_total", "twice") == {("ok",): 2}
    first.close()
    second.close()


def test_unloaded_versions_leave_the_exposition():
    before = len(telemetry.exposition())
    for version in range(50):
        meter = Meter("cycled", version)
        meter.answered(0.001)
        assert f'model="cycled",version="{version}"'.encode() in telemetry.exposition()
        meter.close()
        meter.close()
    assert b"cycled" not in telemetry.exposition()
    assert abs(len(telemetry.exposition()) - before) < 500


def test_a_meter_that_nobody_closed_is_not_kept_alive_by_the_exporter():
    Meter("forgotten", 1).answered(0.001)
    gc.collect()
    assert b"forgotten" not in telemetry.exposition()


def test_counters_of_triton_have_the_very_names_of_triton():
    meter = Meter("named", 1)
    text = telemetry.exposition().decode()
    assert "# TYPE nv_inference_request_success counter\n" in text
    assert 'nv_inference_request_success{model="named",version="1"} 0.0\n' in text
    assert "nv_inference_request_success_total" not in text
    assert "# TYPE inferloop_requests_total counter\n" in text
    meter.close()


def test_answers_of_a_stream_are_counted_by_their_place():
    meter = Meter("decoupled", 1)
    meter.responded(0, 0.001)
    meter.responded(2, 0.002, ok=False)
    first, second, third = meter.snapshot().response_stats
    assert (first.success, second.success, third.fail) == (Duration(1, MS), Duration(), Duration(1, 2 * MS))
    assert samples("nv_inference_first_response_histogram_ms_bucket", "decoupled")[("1.0",)] == 1
    meter.close()


def test_waiting_requests_and_the_cache_are_exported():
    meter = Meter("waiting", 1)
    meter.pending = lambda: 7
    meter.cached(0.001, hit=True)
    meter.cached(0.002, hit=False)
    assert samples("nv_inference_pending_request_count", "waiting") == {(): 7}
    assert samples("nv_cache_hit_duration_per_model", "waiting") == {(): 1000}
    assert meter.snapshot().cache_miss == Duration(1, 2 * MS)
    meter.close()


async def test_fifty_loads_and_unloads_leave_nothing_in_the_scrapes(tmp_path):
    bundle = bundles.linear(tmp_path / "bundle", name="reloaded")
    rows = {"x": np.zeros((1, 4), np.float32)}
    for round_ in range(50):
        predictor = Predictor.load(bundle, target=Target("numpy"))
        if round_ % 2:
            predictor.infer(rows)
            predictor.close()
        else:
            await predictor.ainfer(rows)
            assert samples("nv_inference_request_success", "reloaded") == {(): 1}
            await predictor.aclose()
        assert samples("nv_inference_request_success", "reloaded") == {}
