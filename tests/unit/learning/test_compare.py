from dataclasses import replace

import numpy as np

from inferloop.core.bundle import HOLDOUT, Bundle
from inferloop.learning.compare import holdout_answers
from inferloop.learning.head_model import declared_head
from support import bundles, world


def with_embedding(bundle, path, embedding):
    files = {name: bundle.path / name for name in bundle.manifest.files}
    files[HOLDOUT] = bundles.npz({**bundle.arrays(HOLDOUT), "embedding": embedding})
    return Bundle.write(path, replace(bundle.manifest, files={}), files)


def test_a_stored_embedding_gives_the_answers_of_the_engine(tmp_path):
    plain = world.bundle(tmp_path / "plain")
    from inferloop.evaluation.sessions import opened, run_padded

    inputs = {"x": plain.arrays(HOLDOUT)["inputs/x"]}
    with opened(plain) as session:
        embedding = run_padded(session, inputs, [declared_head(plain).embedding])["embedding"]
    stored = with_embedding(plain, tmp_path / "stored", embedding)
    slow, fast = holdout_answers(plain, plain), holdout_answers(stored, stored)
    np.testing.assert_array_equal(slow.truth, fast.truth)
    np.testing.assert_allclose(slow.champion, fast.champion, atol=1e-6)
    np.testing.assert_allclose(slow.challenger, fast.challenger, atol=1e-6)


def test_models_with_other_backbones_are_both_run_through_the_engine(tmp_path):
    first, other = world.bundle(tmp_path / "first"), world.bundle(tmp_path / "other", seed=5)
    spoiled = with_embedding(first, tmp_path / "spoiled", np.zeros((1500, world.WIDTH), np.float32))
    np.testing.assert_allclose(holdout_answers(spoiled, other).champion, holdout_answers(first, other).champion)
    assert not np.allclose(holdout_answers(first, other).champion, holdout_answers(first, other).challenger)
