"""How good one or several models are on a data set: one Report with figures, tables, plots and gates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput
from inferloop.core.report import Gate, Plot, Report, Table
from inferloop.core.target import Target
from inferloop.data.datasets.dataset import Dataset
from inferloop.evaluation.calibration import ece, reliability
from inferloop.evaluation.intervals import discordant, paired_bootstrap, paired_difference, smallest_visible, wilson
from inferloop.evaluation.metrics import accuracy, class_table, confusion_table, macro_f1
from inferloop.evaluation.scoring import Scored, score

_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)


def evaluate(
    models: Sequence[Bundle | Path | str],
    dataset: Dataset,
    gates: Sequence[str] = (),
    *,
    target: Target | None = None,
) -> Report:
    """Measure accuracy, macro-F1, calibration and latency, and compare the models row by row.

    With several models a figure of each is called `FIGURE(NAME)`, and the plain name means the first model's. A gate on a
    plain name is asked of every model.

    Args:
        models: bundles, paths or references of the registry; the first is what the others are compared with.
        dataset: labeled rows.
        gates: e.g. `accuracy>=0.97`, `ece<=0.03`, `latency_p99_ms<=20`.
        target: where they run; onnxruntime on the CPU by default.

    Raises:
        NotFound: no such model.
        InvalidInput: a gate names no figure, or data and model do not belong together.
    """
    if not models:
        raise InvalidInput("there is no model to evaluate")
    bundles = resolved(models)
    names = _names(bundles)
    labels = _union(bundles, dataset)
    scored = [score(bundle, dataset, target=target) for bundle in bundles]
    truth = np.array([labels.index(label) for label in scored[0].truth], np.int64)
    answers = [np.array([labels.index(one.labels[column]) for column in one.best], np.int64) for one in scored]
    measured = [_figures(one, truth, answer, labels) for one, answer in zip(scored, answers, strict=True)]
    figures = _all_figures(names, measured, truth)
    tables, plots = _pictures(names, scored, truth, answers, labels)
    if len(bundles) > 1:
        tables.insert(0, _comparison(names, truth, answers, classes=len(labels)))
    return Report(
        "evaluate",
        f"{', '.join(names)} on {dataset.name}",
        figures=figures,
        facts=_facts(bundles, names, dataset, target),
        tables=tuple(tables),
        plots=tuple(plots),
        gates=_gates(gates, figures, names),
        notes=tuple(_notes(bundles, scored)),
    )


def resolved(models: Sequence[Bundle | Path | str]) -> list[Bundle]:
    """Bundles of bundles, paths and references; the registry is opened only if it is needed."""
    if all(isinstance(model, Bundle) for model in models):
        return [model for model in models if isinstance(model, Bundle)]
    from inferloop.registry.registry import Registry

    with Registry() as registry:
        return [model if isinstance(model, Bundle) else registry.resolve(model) for model in models]


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Names that gates can refer to: `refunds.7`, `refunds` outside of a registry, numbered if they meet."""
    names: list[str] = []
    for bundle in bundles:
        plain = f"{bundle.name}.{bundle.version}" if bundle.version else bundle.name
        taken = names.count(plain) + sum(name.startswith(f"{plain}-") for name in names)
        names.append(f"{plain}-{taken + 1}" if taken else plain)
    return names


def _union(bundles: Sequence[Bundle], dataset: Dataset) -> list[str]:
    labels = dict.fromkeys(label for bundle in bundles for label in bundle.labels)
    return list(labels | dict.fromkeys(dataset.labels))


def _figures(scored: Scored, truth: Array, answers: Array, labels: Sequence[str]) -> dict[str, float]:
    rows = len(truth)
    low, high = wilson(int(np.sum(truth == answers)), rows)
    figures = {
        "accuracy": accuracy(truth, answers),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": macro_f1(truth, answers, len(labels)),
    }
    if scored.are_probabilities:
        figures["ece"] = ece(scored.values, _own_truth(scored))
        figures["accuracy_at_90_coverage"] = _selective(scored, truth, answers, 0.9)
    figures["latency_p50_ms"] = scored.latency.p50_ms
    figures["latency_p99_ms"] = scored.latency.p99_ms
    return figures


def _all_figures(names: Sequence[str], measured: Sequence[dict[str, float]], truth: Array) -> dict[str, float]:
    figures = dict(measured[0])
    if len(names) > 1:
        for name, found in zip(names, measured, strict=True):
            figures.update({f"{figure}({name})": value for figure, value in found.items()})
    figures["majority_accuracy"] = float(np.bincount(truth).max() / len(truth))
    figures["rows"] = float(len(truth))
    return figures


def _gates(wanted: Sequence[str], figures: dict[str, float], names: Sequence[str]) -> tuple[Gate, ...]:
    gates: list[Gate] = []
    for text in wanted:
        gate = Gate.parse(text, figures)
        each = [f"{gate.name}({name})" for name in names]
        known = [name for name in each if name in figures]
        gates += [Gate(name, gate.op, gate.limit, figures[name]) for name in known] or [gate]
    return tuple(gates)


def _own_truth(scored: Scored) -> Array:
    """The truth as a column of this model; a label that it does not know is none of its columns."""
    column = {label: index for index, label in enumerate(scored.labels)}
    return np.array([column.get(label, -1) for label in scored.truth], np.int64)


def _selective(scored: Scored, truth: Array, answers: Array, coverage: float) -> float:
    """Accuracy on the share of rows that the model is surest of."""
    kept = np.argsort(-scored.values.max(axis=1), kind="stable")[: max(1, round(coverage * len(truth)))]
    return accuracy(truth[kept], answers[kept])


def _pictures(
    names: Sequence[str], scored: Sequence[Scored], truth: Array, answers: Sequence[Array], labels: Sequence[str]
) -> tuple[list[Table], list[Plot]]:
    tables: list[Table] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    selective: dict[str, list[tuple[float, float]]] = {}
    for name, one, answer in zip(names, scored, answers, strict=True):
        tables.append(class_table(truth, answer, labels, title=f"{name} by class"))
        tables.append(_titled(confusion_table(truth, answer, labels), name))
        if one.are_probabilities:
            curves[name] = reliability(one.values, _own_truth(one))
            selective[name] = [(share, _selective(one, truth, answer, share)) for share in _COVERAGES]
    if not curves:
        return tables, []
    return tables, [
        Plot("calibration", "confidence", "accuracy", {"perfect": [(0.0, 0.0), (1.0, 1.0)], **curves}),
        Plot("accuracy when the least confident are left out", "share answered", "accuracy", selective),
    ]


def _titled(table: Table, name: str) -> Table:
    return Table(f"{name}: {table.title}", table.columns, table.rows)


def _comparison(names: Sequence[str], truth: Array, answers: Sequence[Array], *, classes: int) -> Table:
    rows = []
    for name, answer in zip(names[1:], answers[1:], strict=True):
        pairs = discordant(truth, answers[0], answer)
        interval = paired_difference(pairs)
        f1 = paired_bootstrap(truth, answers[0], second=answer, metric=partial(macro_f1, classes=classes), resamples=1000)
        visible = smallest_visible(pairs.wins + pairs.losses, pairs.rows)
        rows.append((name, pairs.wins, pairs.losses, str(interval), pairs.p_value, str(f1), visible))
    columns = ("model", "wins", "losses", "accuracy difference [95 %]", "p", "macro-F1 difference [95 %]", "smallest visible")
    return Table(f"against {names[0]}, row by row", columns, tuple(rows))


def _facts(bundles: Sequence[Bundle], names: Sequence[str], dataset: Dataset, target: Target | None) -> dict[str, object]:
    return {
        "models": {name: bundle.manifest.digest for name, bundle in zip(names, bundles, strict=True)},
        "data": dataset.name,
        "data_digest": dataset.digest,
        "rows": len(dataset),
        "target": str(target or Target()),
    }


def _notes(bundles: Sequence[Bundle], scored: Sequence[Scored]) -> list[str]:
    notes = []
    for bundle, one in zip(bundles, scored, strict=True):
        unknown = sum(label not in one.labels for label in one.truth)
        if unknown:
            notes.append(f"{unknown} rows have labels that {bundle.name!r} does not know; they count as wrong")
        if not one.are_probabilities:
            notes.append(f"the scores of {bundle.name!r} are no distribution over the classes: calibration is not measured")
    notes.append("latency: one sample at a time on this machine, transforms included, network not")
    return notes
