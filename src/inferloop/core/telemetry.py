"""The names of all metrics, and the one place that makes them; and their text.

Counters and histograms are those of `prometheus_client`, in its default registry. What is counted for each request is an
`Exported`: its numbers are kept where they come up, see `prediction/meter.py`. Base units, few labels, never an id.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

_MODEL = ("model", "version")
SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Exported(NamedTuple):
    """A metric that is counted elsewhere, and only put into words when somebody asks.

    Attributes:
        type: `counter`, `gauge`, `histogram` or `summary`.
        name: of a counter without the `_total` that the text gets, unless `triton` is set.
        triton: one that is named exactly as NVIDIA Triton names it, counters without `_total`, so that dashboards go on working.
    """

    type: str
    name: str
    documentation: str
    labels: tuple[str, ...] = _MODEL
    triton: bool = False

    def family(self) -> Metric:
        """An empty family to add samples to."""
        return Metric(self.name, self.documentation, self.type)


REQUESTS = Exported("counter", "inferloop_requests", "Predictions asked for, by outcome.", (*_MODEL, "outcome"))
REQUEST_SECONDS = Exported("histogram", "inferloop_request_seconds", "From the door to the answer.")
QUEUE_SECONDS = Exported("histogram", "inferloop_queue_seconds", "Waiting for a batch.")
BATCH_ROWS = Exported("histogram", "inferloop_batch_rows", "Rows of one run of the engine.")
ENGINE_SECONDS = Exported("histogram", "inferloop_engine_seconds", "One run of the engine.")
ENGINE_FAILURES = Exported("counter", "inferloop_engine_failures", "Batches that the engine failed.")
SHADOW_FAILURES = Exported("counter", "inferloop_shadow_failures", "Shadow answers that failed; no caller saw them.")
SWAPS = Counter("inferloop_model_swaps", "Versions put live in place of another.", ("model",))

LEDGER_WRITTEN = Counter("inferloop_ledger_written", "Ledger rows on disk.", ("kind",))
LEDGER_LOST = Counter("inferloop_ledger_lost", "Ledger rows not written: queue full or disk failing.", ("reason",))
LEDGER_QUEUE = Gauge("inferloop_ledger_queue", "Ledger rows waiting to be written.")

MESSAGES = Counter("inferloop_messages", "Messages read from a source.", ("pipeline", "source"))
DROPPED = Counter("inferloop_messages_dropped", "Messages of a live source that were left out.", ("pipeline", "source", "reason"))
REDELIVERED = Counter("inferloop_messages_redelivered", "Messages whose decision was found in the journal.", ("pipeline",))
DECISIONS = Counter("inferloop_decisions", "Decisions, by rule or reason.", ("pipeline", "rule"))
DEAD_LETTERS = Counter("inferloop_dead_letters", "Messages that could not be decided.", ("pipeline", "reason"))
DELIVERIES = Counter("inferloop_deliveries", "Deliveries confirmed by a sink.", ("pipeline", "sink"))
DELIVERY_RETRIES = Counter("inferloop_delivery_retries", "Deliveries tried again.", ("pipeline", "sink"))
DELIVERY_SECONDS = Histogram(
    "inferloop_delivery_seconds", "From arrival to acknowledgement.", ("pipeline",), buckets=SECONDS_BUCKETS
)
RULE_SKIPPED = Counter("inferloop_rule_skipped", "Conditions that touched a missing value.", ("pipeline", "rule"))


def _triton(kind: str, name: str, documentation: str, labels: tuple[str, ...] = _MODEL) -> Exported:
    return Exported(kind, f"nv_{name}", documentation, labels, triton=True)


NV_SUCCESS = _triton("counter", "inference_request_success", "Requests that got their answer.")
NV_FAILURE = _triton("counter", "inference_request_failure", "Requests that got an error.", (*_MODEL, "reason"))
NV_COUNT = _triton("counter", "inference_count", "Rows that the engine computed; those from the cache do not count.")
NV_EXECUTIONS = _triton("counter", "inference_exec_count", "Runs of the engine.")
NV_PENDING = _triton("gauge", "inference_pending_request_count", "Requests that wait for the engine.")
NV_REQUEST_US = _triton("counter", "inference_request_duration_us", "Microseconds from the door to the answer, summed.")
NV_QUEUE_US = _triton("counter", "inference_queue_duration_us", "Microseconds that requests waited for the engine, summed.")
NV_INPUT_US = _triton(
    "counter", "inference_compute_input_duration_us", "Microseconds that batches were put together, by request."
)
NV_INFER_US = _triton("counter", "inference_compute_infer_duration_us", "Microseconds that the engine ran, by request.")
NV_OUTPUT_US = _triton(
    "counter", "inference_compute_output_duration_us", "Microseconds that batches were taken apart, by request."
)
NV_REQUEST_SUMMARY = _triton("summary", "inference_request_summary_us", "The same as quantiles of the latest 2048 requests.")
NV_QUEUE_SUMMARY = _triton("summary", "inference_queue_summary_us", "The same as quantiles of the latest 2048 requests.")
NV_INPUT_SUMMARY = _triton("summary", "inference_compute_input_summary_us", "The same as quantiles of the latest 2048 requests.")
NV_INFER_SUMMARY = _triton("summary", "inference_compute_infer_summary_us", "The same as quantiles of the latest 2048 requests.")
NV_OUTPUT_SUMMARY = _triton(
    "summary", "inference_compute_output_summary_us", "The same as quantiles of the latest 2048 requests."
)
NV_FIRST_MS = _triton("histogram", "inference_first_response_histogram_ms", "Until the first answer of a stream, milliseconds.")
NV_CACHE_HITS = _triton("counter", "cache_num_hits_per_model", "Requests answered from the cache.")
NV_CACHE_MISSES = _triton("counter", "cache_num_misses_per_model", "Requests looked up in the cache in vain.")
NV_CACHE_HIT_US = _triton("counter", "cache_hit_duration_per_model", "Microseconds of look-ups that found an answer, summed.")
NV_CACHE_MISS_US = _triton(
    "counter", "cache_miss_duration_per_model", "Microseconds of look-ups in vain, with insertion, summed."
)
NV_CPU = _triton("gauge", "cpu_utilization", "Share of this machine's processors in use since the last scrape, 0 to 1.", ())
NV_MEMORY_TOTAL = _triton("gauge", "cpu_memory_total_bytes", "Memory of this machine.", ())
NV_MEMORY_USED = _triton("gauge", "cpu_memory_used_bytes", "Memory of this machine that is in use.", ())

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_RENAMED = re.compile(rb"^# (HELP|TYPE) (nv_\w+)_total ", re.MULTILINE)


def exposition() -> bytes:
    """All metrics of this process in the text format of Prometheus. Takes milliseconds; from any thread."""
    return _RENAMED.sub(rb"# \1 \2 ", generate_latest())
