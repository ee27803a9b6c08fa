"""`inferloop demo digits`: images over MQTT, from training to the last line, on made-up digits."""

from __future__ import annotations

import dataclasses
import gzip
import json

import numpy as np
import pytest

from inferloop.cli import main
from inferloop.demos import digits, mnist
from inferloop.training.config import FitConfig, ImageRecipe

pytest.importorskip("torch", reason="training: pip install 'inferloop[demo]'")
pytest.importorskip("amqtt", reason="the embedded broker: pip install 'inferloop[demo]'")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The demo with 400 made-up digits, each a bright block at its own place, and a tiny network."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 40)
    images = draw.integers(0, 60, (400, 28, 28))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[2 + 8 * row : 9 + 8 * row, 1 + 7 * column : 7 + 7 * column] += 180
    with gzip.open(tmp_path / "digits.csv.gz", "wt") as stream:
        np.savetxt(stream, np.column_stack([images.reshape(400, -1), labels]), fmt="%d", delimiter=",")
    script = digits.script(mnist.load(tmp_path / "digits.csv.gz"), rate=400.0)

    def config(folder):
        whole = digits.config(folder)
        return whole.model_copy(
            update={"image": ImageRecipe(size=32, mode="L", channels=4, width=16), "fit": FitConfig(epochs=2), "threads": 1}
        )

    monkeypatch.setattr(digits, "script", lambda: dataclasses.replace(script, config=config, known=60, meanwhile=20))


def test_images_go_the_same_way_and_none_is_lost(small, capsys):
    assert main.run(["demo", "digits", "--json"]) == 0
    story = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert story["messages"] == 60 + 56 + 20 + 3
    assert story["dead_letters"] == 3
    assert story["messages"] == story["decisions"] + story["dead_letters"]
    assert (story["lost"], story["duplicates"]) == (0, 0)
