"""The verbs that start: init, doctor, plugins."""

from __future__ import annotations

import json

import pytest

from inferloop.cli import doctor, main
from inferloop.core import plugins


def test_init_writes_files_that_are_valid(tmp_path, capsys):
    from inferloop.streams.pipeline import Pipeline
    from inferloop.training.config import TrainConfig

    assert main.run(["init", str(tmp_path / "shop")]) == 0
    assert TrainConfig.load(tmp_path / "shop" / "train.yaml").name == "intents"
    results = Pipeline.load(tmp_path / "shop" / "pipeline.yaml", offline=True).test()
    assert [result.passed for result in results] == [True]
    assert "inferloop train train.yaml" in capsys.readouterr().out


def test_init_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "train.yaml").write_text("mine")
    assert main.run(["init", str(tmp_path)]) == 2
    assert "has train.yaml already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["train.yaml"]
    assert (tmp_path / "train.yaml").read_text() == "mine"


def test_doctor_finds_this_installation_fit(capsys):
    assert main.run(["doctor", "--json"]) == 0
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["engine onnxruntime"]["found"] == "devices: cpu"
    assert findings["package numpy"]["fit"]


def test_doctor_says_what_to_mend(monkeypatch, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("INFERLOOP_HOME", str(blocked))
    assert main.run(["doctor"]) == 1
    assert "MEND home" in capsys.readouterr().out


def test_doctor_tells_missing_packages_from_missing_extras(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda _: ["no-such-core>=1", 'no-such-extra>=1 ; extra == "grpc"'])
    core, extra = list(doctor._packages())
    assert (core.fit, core.advice) == (False, "pip install no-such-core")
    assert (extra.fit, extra.advice) == (True, "pip install 'inferloop[grpc]'")


def test_plugins_lists_every_plugin_of_the_table(capsys):
    assert main.run(["plugins", "--json"]) == 0
    rows = {(row["kind"], row["name"]) for row in json.loads(capsys.readouterr().out)}
    assert {(kind, name) for kind, table in plugins.TABLE.items() for name in table} <= rows


def test_an_unknown_kind_is_refused_with_the_known_ones(capsys):
    assert main.run(["plugins", "sinkz"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: no plugin kind named 'sinkz'"
    assert "sinks" in hint


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_verb_of_this_section_has_help(option, capsys):
    for verb in ("init", "demo", "doctor", "plugins"):
        assert main.run([verb, option]) == 0
        assert f"inferloop {verb}" in capsys.readouterr().out
