"""The reference is complete and up to date: every verb, option, metric, error, plugin and public name is documented."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import click
import pytest

from inferloop.cli.verbs import VERBS
from inferloop.core import errors, plugins, telemetry

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated():
    return generator().pages()


def test_the_generated_pages_are_up_to_date(generated):
    stale = [name for name, text in generated.items() if (REFERENCE / name).read_text(encoding="utf-8") != text]
    assert stale == [], "`make docs` writes them anew"


def verbs_and_options():
    def walk(command, path):
        yield path, [option for param in command.params if isinstance(param, click.Option) for option in param.opts], command
        for name in command.commands if isinstance(command, click.Group) else ():
            yield from walk(command.commands[name], f"{path} {name}")

    for name, verb in VERBS.items():
        yield from walk(importlib.import_module(verb.module).command, f"inferloop {name}")


def test_every_verb_and_option_says_what_it_is_for():
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    for path, options, command in verbs_and_options():
        assert f" {path}\n" in page
        assert command.help, path
        assert all(option in page for option in options), path
        silent = [param.name for param in command.params if isinstance(param, click.Option) and not param.help]
        assert silent == [], path


def test_every_metric_is_documented():
    page = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    for metric in vars(telemetry).values():
        if isinstance(metric, telemetry.Exported):
            assert f"`{metric.name}" in page
        elif hasattr(metric, "describe") and not inspect.isclass(metric):
            assert f"`{metric.describe()[0].name}" in page


def test_every_error_is_documented():
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    names = [name for name, member in vars(errors).items() if inspect.isclass(member) and issubclass(member, Exception)]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_plugin_is_documented():
    page = (REFERENCE / "plugins.md").read_text(encoding="utf-8")
    for kind, table in plugins.TABLE.items():
        assert [name for name in table if f"### {name}\n" not in page] == [], kind


def test_every_key_of_a_model_s_configuration_is_documented_with_a_default_that_can_be_written():
    from inferloop.data.config import validate
    from inferloop.prediction.repository.model_yaml import ModelKeys

    page = (REFERENCE / "model-keys.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert {name for name, *_ in rows} >= set(ModelKeys.model_fields)
    assert [name for name, _, _, meaning in rows if not meaning] == []
    defaults = {name: default.strip("`") for name, _, default, _ in rows}
    written = {
        "cache": {"size": defaults["size"]},
        "sequence": {"max_idle": defaults["max_idle"]},
        "isolation": defaults["isolation"],
    }
    keys = validate(ModelKeys, written, "model.yaml")
    assert (keys.cache.size, keys.sequence.max_idle, keys.isolation) == (64_000_000, 60.0, "thread")


def test_every_public_name_is_documented_and_can_be_imported():
    import inferloop

    page = (REFERENCE / "python.md").read_text(encoding="utf-8")
    for name in inferloop.__all__:
        assert getattr(inferloop, name)
        assert f"`il.{name}" in page


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
