"""Options with a unit say which option is wrong."""

from __future__ import annotations

import pytest

from inferloop.cli.main import run


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["serve", "--max-body", "5"], "--max-body"),
        (["serve", "--grace", "x"], "--grace"),
        (["run", "pipeline.yaml", "--drain", "4"], "--drain"),
    ],
)
def test_a_value_without_its_unit_is_two_lines_that_name_the_option(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: invalid value for '{option}': must be a ")
    assert hint.startswith("hint: ")
