"""Exchanges recorded from a real Triton 2.51, replayed: status class, keys and values, or a documented deviation."""

from __future__ import annotations

from pathlib import Path

from support.conformance import DEVIATIONS, lines, outcomes, share


async def test_recorded_exchanges_are_answered_alike(shared: Path, tmp_path: Path) -> None:
    found = await outcomes(shared, tmp_path)
    assert len(found) == len(lines(shared)) == 57
    assert {outcome.name: outcome.difference for outcome in found if not outcome.met} == {}
    assert share(found) == 1.0


async def test_every_deviation_has_its_line_and_is_documented(shared: Path) -> None:
    assert set(DEVIATIONS) <= {line["name"] for line in lines(shared)}
    rules = {"DV1", "DV2", "DV3", "DV4", "DV5"}
    assert set(DEVIATIONS.values()) <= rules
    root = Path(__file__).resolve().parents[2]
    pages = [root / "docs/reference/http.md", *(root / "docs/decisions").glob("0012-*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert [rule for rule in sorted(rules) if rule not in text] == []
    assert len(pages) == 2
