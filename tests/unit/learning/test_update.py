"""Refitting the head: what changes, what stays, and that it is the same every time."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inferloop.core.bundle import GOLDEN, HOLDOUT, REPLAY, Bundle
from inferloop.core.errors import InvalidBundle, InvalidInput, Unsupported
from inferloop.evaluation.head import LinearHead
from inferloop.evaluation.sessions import opened
from inferloop.learning.head_model import backbone_digest, read_head, with_head
from inferloop.learning.rows import EmbeddedRows
from inferloop.learning.update import UpdateConfig, refit
from support import bundles, world


@pytest.fixture
def champion(tmp_path):
    return world.bundle(tmp_path / "champion")


def abroad(champion, rows=200, *, seed=50):
    x, y = world.draw("abroad", rows, seed=seed)
    return EmbeddedRows(tuple(f"p{i}" for i in range(rows)), world.embed(champion, x), y, np.arange(rows, dtype=float))


def accuracy_of(bundle, domain, *, seed=99):
    x, y = world.draw(domain, 1000, seed=seed)
    with opened(bundle) as session:
        return float(np.mean(session.run({"x": x})["logits"].argmax(axis=1) == y))


def test_the_challenger_knows_the_new_domain_and_has_not_forgotten_the_old_one(champion, tmp_path):
    challenger = refit(champion, abroad(champion), tmp_path / "challenger").challenger
    assert accuracy_of(challenger, "abroad") > accuracy_of(champion, "abroad") + 0.10
    assert accuracy_of(challenger, "home") > accuracy_of(champion, "home") - 0.02


def test_only_the_two_head_initializers_change(champion, tmp_path):
    challenger = refit(champion, abroad(champion), tmp_path / "challenger").challenger
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(b.model_path).graph.initializer} for b in (champion, challenger)
    )
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["head.weight", "head.bias"]
    assert backbone_digest(champion) == backbone_digest(challenger)


def test_the_golden_outputs_are_those_of_the_new_model(champion, tmp_path):
    challenger = refit(champion, abroad(champion), tmp_path / "challenger").challenger
    with opened(challenger) as session:
        assert challenger.verify(session).passed
        assert not champion.verify(session).passed
    assert np.array_equal(challenger.arrays(GOLDEN)["inputs/x"], champion.arrays(GOLDEN)["inputs/x"])


def test_feedback_rows_never_enter_the_files_of_a_bundle(champion, tmp_path):
    challenger = refit(champion, abroad(champion), tmp_path / "challenger").challenger
    for name in (REPLAY, HOLDOUT):
        assert challenger.manifest.files[name] == champion.manifest.files[name]


def test_optimized_forms_of_the_old_head_are_left_behind(champion, tmp_path):
    challenger = refit(champion, abroad(champion), tmp_path / "challenger").challenger
    assert [name for name in champion.manifest.files if name.startswith("variants/")]
    assert not [name for name in challenger.manifest.files if name.startswith("variants/")]


def test_the_lineage_names_the_parent_and_the_first_ancestor(champion, tmp_path):
    first = refit(champion, abroad(champion), tmp_path / "first").challenger
    second = refit(first, abroad(champion, seed=51), tmp_path / "second").challenger
    assert first.manifest.lineage["parent"] == champion.manifest.digest
    assert second.manifest.lineage["parent"] == first.manifest.digest
    assert second.manifest.lineage["origin"] == {"data": "drawn"}


def test_the_same_rows_config_and_seed_give_the_same_digest(champion, tmp_path):
    rows = abroad(champion)
    made = [refit(champion, rows, tmp_path / f"{i}", config=UpdateConfig(seed=i // 2)).challenger for i in range(3)]
    assert made[0].manifest.digest == made[1].manifest.digest
    assert Bundle.load(made[0].path).manifest == made[0].manifest
    assert made[2].manifest.digest != made[0].manifest.digest


def test_the_temperature_is_folded_into_the_head(champion, tmp_path):
    from inferloop.evaluation.calibration import ece, softmax

    challenger = refit(champion, abroad(champion, 600), tmp_path / "challenger").challenger
    fresh = abroad(champion, 2000, seed=70)
    assert ece(softmax(read_head(challenger).logits(fresh.embedding)), fresh.label) < 0.04


def test_a_model_without_a_head_is_refused(tmp_path):
    plain = bundles.linear(tmp_path / "plain")
    rows = EmbeddedRows(("p",), np.zeros((1, 4), np.float32), np.zeros(1, np.int64), np.zeros(1))
    with pytest.raises(Unsupported, match="no head that can be refitted"):
        refit(plain, rows, tmp_path / "challenger")


def test_rows_of_another_width_are_refused(champion, tmp_path):
    rows = EmbeddedRows(("p",), np.zeros((1, 5), np.float32), np.zeros(1, np.int64), np.zeros(1))
    with pytest.raises(InvalidInput, match="width 5"):
        refit(champion, rows, tmp_path / "challenger")


def test_a_declared_head_that_is_not_the_real_one_is_found_out(champion, tmp_path):
    model = with_head(champion, LinearHead(np.zeros((world.WIDTH, 3)), np.zeros(3)))
    files = {name: champion.path / name for name in champion.manifest.files}
    broken = Bundle.write(tmp_path / "broken", champion.manifest, {**files, "model.onnx": model})
    with pytest.raises(InvalidBundle, match="is not 'embedding' @"):
        read_head(broken)
