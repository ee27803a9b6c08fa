"""How rows are divided: at random, by label, by group, by time. All functions return one array of row numbers a part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput


def check_shares(shares: Sequence[float]) -> None:
    """Raise `InvalidInput` unless the shares are above 0 and add up to at most 1."""
    if not shares or any(not 0 < share <= 1 for share in shares) or sum(shares) > 1 + 1e-9:
        listed = ", ".join(f"{share:g}" for share in shares)
        raise InvalidInput(f"the shares of a split must be above 0 and add up to at most 1, they are ({listed})")


def random_parts(rows: int, shares: Sequence[float], generator: np.random.Generator) -> list[Array]:
    """Any row anywhere."""
    return _cut(generator.permutation(rows), shares)


def stratified_parts(labels: Sequence[str], shares: Sequence[float], generator: np.random.Generator) -> list[Array]:
    """Every label with the same shares, as closely as whole rows allow."""
    by_label = _positions(labels)
    parts: list[list[Array]] = [[] for _ in shares]
    given, wanted = np.zeros(len(shares)), np.zeros(len(shares))
    for label in sorted(by_label):
        rows = generator.permutation(np.array(by_label[label]))
        wanted += np.array(shares) * len(rows)
        counts = _whole(np.array(shares) * len(rows), wanted - given, len(rows) if sum(shares) > 1 - 1e-9 else None)
        given += counts
        for part, piece in zip(parts, np.split(rows, np.cumsum(counts))[: len(shares)], strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def grouped_parts(
    groups: Sequence[str], labels: Sequence[str], shares: Sequence[float], generator: np.random.Generator
) -> list[Array]:
    """Whole groups; where every group has one label, each label with about the same shares."""
    by_group = _positions(groups)
    label_of = {group: {labels[row] for row in rows} for group, rows in by_group.items()}
    pure = all(len(found) == 1 for found in label_of.values())
    strata: dict[str, list[str]] = defaultdict(list)
    for group in sorted(by_group):
        strata[min(label_of[group]) if pure else ""].append(group)
    parts: list[list[int]] = [[] for _ in shares]
    for stratum in sorted(strata):
        sizes = {group: len(by_group[group]) for group in strata[stratum]}
        for part, chosen in zip(parts, _share_out(sizes, shares, generator), strict=True):
            part.extend(row for group in chosen for row in by_group[group])
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]


def _share_out(sizes: dict[str, int], shares: Sequence[float], generator: np.random.Generator) -> list[list[str]]:
    """Groups in random order, each to the part that lacks most rows; no part stays without a group while another has several."""
    open_rows = np.array([*shares, max(0.0, 1 - sum(shares))]) * sum(sizes.values())
    chosen: list[list[str]] = [[] for _ in open_rows]
    for group in generator.permutation(np.array(list(sizes), dtype=object)).tolist():
        neediest = int(np.argmax(open_rows))
        open_rows[neediest] -= sizes[group]
        chosen[neediest].append(group)
    for part in chosen[: len(shares)]:
        richest = max(chosen, key=len)
        if not part and len(richest) > 1:
            smallest = min(richest, key=lambda group: sizes[group])
            richest.remove(smallest)
            part.append(smallest)
    return chosen[: len(shares)]


def timed_parts(times: Sequence[float], shares: Sequence[float]) -> list[Array]:
    """The earliest rows first; rows of the same time stay together, in the earlier part."""
    order = np.argsort(np.array(times), kind="stable")
    ordered = np.array(times)[order]
    ends = np.round(np.cumsum(shares) * len(order)).astype(int)
    for index, end in enumerate(ends.tolist()):
        ends[index] = int(np.searchsorted(ordered, ordered[end - 1], side="right")) if 0 < end < len(order) else end
    return np.split(order, ends)[: len(shares)]


def _cut(order: Array, shares: Sequence[float]) -> list[Array]:
    ends = np.round(np.cumsum(shares) * len(order)).astype(int)
    return [np.sort(part) for part in np.split(order, ends)[: len(shares)]]


def _whole(exact: Array, owed: Array, total: int | None) -> Array:
    """Whole counts near `exact`; what is left over goes to the parts that are owed most."""
    counts = np.floor(exact + 1e-9).astype(int)
    missing = (round(float(exact.sum())) if total is None else total) - int(counts.sum())
    for index in np.argsort(-(owed - counts), kind="stable")[:missing].tolist():
        counts[index] += 1
    return counts


def _positions(names: Sequence[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        found[name].append(index)
    return found
