"""Reports as text and as a page."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from inferloop.core.report import Gate, Plot, Report, Table
from inferloop.core.report_html import page
from inferloop.core.report_svg import line_plot, ticks
from inferloop.core.report_text import cell, text

REPORT = Report(
    "evaluate",
    "refunds <b>7</b>",
    figures={"accuracy": 0.98125, "rows": 1540},
    facts={"model": "refunds:7", "config": {"c": [1, 10]}},
    tables=(Table("by class", ("class", "rows", "F1"), (("<script>alert(1)</script>", 20, 0.5), ("b", 3, float("nan")))),),
    plots=(
        Plot("loss", "epoch", "loss", {"train": [(0, 2.0), (1, 1.0), (2, float("nan"))], "validation": [(0, 2.1), (1, 1.4)]}),
    ),
    gates=(Gate("accuracy", ">=", 0.97, 0.98125), Gate("ece", "<=", 0.03, 0.05)),
    notes=("small & honest",),
)


class Balanced(HTMLParser):
    """Collects tags that were opened and not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_for_nothing_from_elsewhere():
    parser = Balanced()
    parser.feed(page(REPORT))
    assert parser.open == []
    assert parser.links == []
    assert not re.search(r"https?://|url\(|@import", page(REPORT))


def test_the_page_has_a_dark_form_and_escapes_what_it_shows():
    shown = page(REPORT)
    assert "prefers-color-scheme: dark" in shown
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "1 of 2 gates failed" in shown


def test_a_plot_has_axes_titles_and_one_line_a_series():
    root = ET.fromstring(line_plot(REPORT.plots[0]))
    written = {element.text for element in root.iter("text")}
    assert {"epoch", "loss", "train", "validation"} <= written
    assert len([path for path in root.iter("path") if path.get("class") == "mark" and "L" in path.get("d")]) == 2


@pytest.mark.parametrize(
    "points",
    [[], [(0, 0)], [(1, 5), (1, 5)], [(0, -1e-9), (1e9, 1e-9)], [(i, i % 7) for i in range(10_000)], [(0, float("inf"))]],
)
def test_any_points_can_be_plotted(points):
    drawn = line_plot(Plot("t", "x", "y", {"s": points}))
    ET.fromstring(drawn)
    assert len(drawn) < 60_000


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.913, 0.987], [-3, 4e6], [5, 5], [0, 0], [1e-7, 3e-7]])
def test_ticks_are_round_and_enclose_all_values(values):
    found = ticks(values)
    assert found[0] <= min(values)
    assert found[-1] >= max(values)
    assert 2 <= len(found) <= 12


def test_the_text_form_aligns_numbers_and_names_failed_gates():
    lines = text(REPORT).splitlines()
    assert "  FAILED  ece = 0.05, required <= 0.03" in lines
    row = next(line for line in lines if line.startswith("  b "))
    assert row.endswith("-")
    assert "note: small & honest" in lines


def test_cells_are_short():
    assert [cell(value) for value in (0.98125, 3, None, True, float("nan"), 1e-9, 12345.678)] == [
        "0.9812", "3", "-", "yes", "-", "1.000e-09", "12346",
    ]  # fmt: skip
    assert len(cell("x" * 200)) == 60


def test_a_report_saves_itself_as_page_or_json(tmp_path):
    REPORT.save(tmp_path / "report.html")
    REPORT.save(tmp_path / "report.json")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert '"passed": false' in (tmp_path / "report.json").read_text(encoding="utf-8")
