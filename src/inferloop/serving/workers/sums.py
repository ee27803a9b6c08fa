"""Adds up the metrics of several processes, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_Combine = Callable[[float, float], float]

_MACHINE = ("nv_cpu_", "python_info", "process_max_fds", "process_virtual_memory_max")
"""What is the same in every process, or about the whole machine."""


@dataclass(slots=True)
class _Family:
    """What one `# TYPE` line stands above.

    Attributes:
        samples: values by name and labels, as they stand in the text.
    """

    help: str = ""
    type: str = "untyped"
    samples: dict[str, float] = field(default_factory=dict)


def add_up(texts: Iterable[str]) -> str:
    """One text with the sums of counters, histograms and gauges; of a quantile the largest."""
    families: dict[str, _Family] = {}
    for text in texts:
        _read(text, families)
    return _text(families)


def lasting(text: str) -> str:
    """What of a text stays true when its process is gone: what only ever grows."""
    families: dict[str, _Family] = {}
    _read(text, families)
    kept = {}
    for name, family in families.items():
        if family.type in ("counter", "histogram", "summary"):
            family.samples = {key: value for key, value in family.samples.items() if _combine(name, family.type, key) is _plus}
            kept[name] = family
    return _text(kept)


def _read(text: str, families: dict[str, _Family]) -> None:
    name = ""
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = [*line.split(" ", 3), "", ""][:4]
            family = families.setdefault(name, _Family())
            if word == "HELP":
                family.help = rest
            elif word == "TYPE":
                family.type = rest
        elif line:
            key, _, value = line.rpartition(" ")
            family = families.setdefault(name, _Family())
            number = float(value)
            before = family.samples.get(key)
            family.samples[key] = number if before is None else _combine(name, family.type, key)(before, number)


def _combine(name: str, kind: str, key: str) -> _Combine:
    if name.startswith(_MACHINE) or (kind == "summary" and 'quantile="' in key):
        return max
    if name.endswith(("_created", "_start_time_seconds")):
        return min
    return _plus


def _plus(first: float, second: float) -> float:
    return first + second


def _text(families: dict[str, _Family]) -> str:
    lines = []
    for name, family in families.items():
        lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.type}"]
        lines += [f"{key} {_number(value)}" for key, value in family.samples.items()]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)
