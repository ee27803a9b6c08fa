"""From feedback in a real ledger to a promoted version in a real registry, and every way in which the answer is no."""

import subprocess
import sys
import time

import numpy as np
import pytest

from inferloop.core.errors import Conflict, NotFound, Unsupported
from inferloop.data.ledger.ledger import Ledger, ledger_path
from inferloop.data.ledger.records import FeedbackRecord
from inferloop.learning.head_model import read_head
from inferloop.learning.learn import LearnConfig, learn
from inferloop.learning.readings import Readings
from inferloop.registry.registry import Registry
from support import bundles, world


@pytest.fixture
def registry(tmp_path):
    with Registry() as opened:
        opened.register(world.bundle(tmp_path / "mood"), alias="champion")
        yield opened


@pytest.fixture
def ledger():
    with Ledger(ledger_path()) as opened:
        yield opened


def feed(registry, ledger, rows, *, domain="abroad", seed=10, prefix="p", wrong=0.0, **options):
    x, y = world.draw(domain, rows, seed=seed)
    random = np.random.default_rng(seed)
    lies = random.random(rows) < wrong
    told = np.where(lies, (y + 1) % 3, y)
    truths = [world.LABELS[index] for index in told]
    return world.give_feedback(ledger, registry.resolve("mood@champion"), x, truths=truths, prefix=prefix, **options)


def test_feedback_from_a_new_domain_makes_a_better_champion(registry, ledger):
    feed(registry, ledger, 500)
    result = learn("mood", registry=registry, ledger=ledger, promote=True)
    assert result.promoted
    assert result.report.passed
    assert registry.alias("mood", "champion") == result.challenger.version == 2
    assert registry.resolve("mood@champion").manifest.lineage["parent"] == result.champion.manifest.digest
    assert result.report.figures["recent_accuracy_challenger"] > result.report.figures["recent_accuracy_champion"] + 0.1
    assert result.report.notes[0].startswith("promoted")


def test_the_history_says_who_promoted_and_by_which_report(registry, ledger):
    import hashlib

    feed(registry, ledger, 500)
    result = learn("mood", registry=registry, ledger=ledger, promote=True, by="nightly")
    move = registry.history("mood")[-1]
    assert (move.by, move.after) == ("nightly", 2)
    assert move.report_digest == "sha256:" + hashlib.sha256(result.report.to_json().encode()).hexdigest()


def test_without_being_asked_nothing_is_promoted(registry, ledger):
    feed(registry, ledger, 500)
    result = learn("mood", registry=registry, ledger=ledger)
    assert result.report.passed
    assert not result.promoted
    assert registry.alias("mood", "champion") == 1
    assert registry.alias("mood", "challenger") == 2
    assert "not asked for" in result.report.notes[0]


def test_feedback_that_only_confirms_the_champion_promotes_nothing(registry, ledger):
    feed(registry, ledger, 300, domain="home")
    result = learn("mood", registry=registry, ledger=ledger, promote=True)
    assert not result.promoted
    assert registry.alias("mood", "champion") == 1
    assert "not promoted, the champion stays" in result.report.notes[0]


def test_lies_do_not_get_past_the_hold_out(registry, ledger):
    feed(registry, ledger, 900, domain="home", wrong=0.9)
    result = learn("mood", registry=registry, ledger=ledger, promote=True)
    assert not result.promoted
    assert "holdout_difference_low" in [gate.name for gate in result.report.gates if not gate.passed]


def test_too_little_feedback_is_said_and_makes_no_challenger(registry, ledger):
    feed(registry, ledger, 10)
    result = learn("mood", registry=registry, ledger=ledger, promote=True)
    assert result.challenger is None
    assert not result.report.passed
    assert "20 are needed" in result.report.notes[0]
    assert [info.version for info in registry.versions("mood")] == [1]


def test_the_same_feedback_gives_the_same_challenger_and_registers_it_once(registry, ledger):
    feed(registry, ledger, 300)
    first, second = (learn("mood", registry=registry, ledger=ledger) for _ in range(2))
    assert first.challenger.manifest.digest == second.challenger.manifest.digest
    assert first.challenger.version == second.challenger.version


def test_every_look_at_the_hold_out_is_counted_durably(registry, ledger):
    feed(registry, ledger, 300)
    seen = [learn("mood", registry=registry, ledger=ledger).report.figures["gate_readings"] for _ in range(3)]
    assert seen == [0, 1, 2]
    gate_set = registry.resolve("mood@champion").manifest.files["reference/holdout.npz"]
    with Readings(registry.path / "readings.db") as readings:
        assert readings.count(gate_set) == 3


def test_learning_twice_builds_on_the_promoted_version(registry, ledger):
    feed(registry, ledger, 400)
    learn("mood", registry=registry, ledger=ledger, promote=True)
    feed(registry, ledger, 200, seed=11, prefix="q")
    again = learn("mood", registry=registry, ledger=ledger, promote=True)
    assert again.champion.version == 2
    assert again.report.facts["rows_to_fit"] + again.report.facts["rows_to_judge"] == 600


def test_rows_without_an_embedding_are_computed_from_their_input(registry, ledger):
    feed(registry, ledger, 500, keep_embedding=False)
    assert learn("mood", registry=registry, ledger=ledger, promote=True).promoted


def test_what_was_erased_from_the_ledger_is_not_learned_from(registry, ledger):
    feed(registry, ledger, 400)
    before = learn("mood", registry=registry, ledger=ledger)
    ledger.erase("customer-3")
    after = learn("mood", registry=registry, ledger=ledger)
    count = [r.report.facts["rows_to_fit"] + r.report.facts["rows_to_judge"] for r in (before, after)]
    assert count == [400, 392]


def test_a_label_that_the_model_does_not_know_is_reported(registry, ledger):
    ids = feed(registry, ledger, 100)
    ledger.feedback(FeedbackRecord(ids[0], "furious", "tester", time.time()))
    report = learn("mood", registry=registry, ledger=ledger).report
    assert "1 labeled rows left out: label 'furious' is not one of the model's" in report.notes


def test_another_champion_promoted_meanwhile_is_not_overwritten(registry, ledger, tmp_path):
    feed(registry, ledger, 500)

    class Overtaken(Registry):
        def register(self, bundle, **options):
            stored = super().register(bundle, **options)
            other = super().register(world.bundle(tmp_path / "other", seed=9))
            self.promote("mood", other.version, by="someone else")
            return stored

    with Overtaken() as overtaken, pytest.raises(Conflict, match="no longer the champion"):
        learn("mood", registry=overtaken, ledger=ledger, promote=True)
    assert registry.alias("mood", "champion") == 3


def test_an_unknown_model_and_one_without_a_head_are_refused(registry, ledger, tmp_path):
    with pytest.raises(NotFound):
        learn("nobody", registry=registry, ledger=ledger)
    registry.register(bundles.linear(tmp_path / "linear"), alias="champion")
    with pytest.raises(Unsupported, match="no head"):
        learn("linear", registry=registry, ledger=ledger)


def test_a_challenger_of_the_promoted_version_still_answers_through_the_engine(registry, ledger):
    from inferloop.evaluation.sessions import opened

    feed(registry, ledger, 400)
    challenger = learn("mood", registry=registry, ledger=ledger, config=LearnConfig(judge_share=0.3)).challenger
    x, _ = world.draw("abroad", 20, seed=77)
    with opened(challenger) as session:
        outputs = session.run({"x": x})
    np.testing.assert_allclose(read_head(challenger).logits(outputs["embedding"]), outputs["logits"], atol=1e-4)


def test_learning_imports_no_training_framework(registry, ledger):
    feed(registry, ledger, 200)
    script = (
        "import sys\n"
        "from inferloop.data.ledger.ledger import Ledger, ledger_path\n"
        "from inferloop.learning.learn import learn\n"
        "from inferloop.registry.registry import Registry\n"
        "with Registry() as registry, Ledger(ledger_path()) as ledger:\n"
        "    assert learn('mood', registry=registry, ledger=ledger).challenger is not None\n"
        "print(sorted({'torch', 'sklearn', 'scipy', 'onnxscript', 'tensorflow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
