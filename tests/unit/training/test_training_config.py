"""The training file: every mistake at once, each with its path."""

import pytest

from inferloop.core.errors import InvalidConfig, NotFound
from inferloop.training.config import TrainConfig

GOOD = """
task: text-classification
name: intents
data: {path: train.csv, text: text, label: category}
text: {tuned_layers: 2}
fit: {epochs: 4}
"""


def test_a_file_is_read_and_its_data_are_relative_to_it(tmp_path):
    (tmp_path / "train.yaml").write_text(GOOD)
    config = TrainConfig.load(tmp_path / "train.yaml", seed=7)
    assert config.data.path == tmp_path / "train.csv"
    assert (config.text.tuned_layers, config.fit.epochs, config.seed) == (2, 4, 7)
    assert config.field == "text"


def test_five_mistakes_are_told_at_once(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "task: text-classification\nname: Bad Name\ndata: {path: t.csv, text: text, lable: x}\n"
        "text: {tuned_layers: 9}\nfit: {lr: fast}\nseeed: 1\n"
    )
    with pytest.raises(InvalidConfig) as error:
        TrainConfig.load(path)
    told = "\n".join(error.value.problems)
    assert len(error.value.problems) == 5
    for place in ("name:", "data.lable:", "text.tuned_layers:", "fit.lr:", "seeed:"):
        assert f"bad.yaml: {place}" in told
    assert "did you mean 'seed'" in told


def test_the_section_of_another_task_is_refused(tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text(GOOD + "image: {size: 28}\n")
    with pytest.raises(InvalidConfig, match="'image' does not belong to the task"):
        TrainConfig.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"none\.yaml"):
        TrainConfig.load(tmp_path / "none.yaml")
