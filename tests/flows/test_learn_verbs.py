"""`evaluate`, `feedback` and `learn` as a user runs them."""

import csv
import json

import pytest
from click.testing import CliRunner

from inferloop.cli import evaluate, feedback, learn
from inferloop.core.errors import InferloopError, InvalidInput, NotFound
from inferloop.data.ledger.ledger import Ledger, ledger_path
from inferloop.registry.registry import Registry
from support import world


@pytest.fixture
def ids(tmp_path):
    """A registered champion with 500 predictions in the ledger, none of them labeled."""
    x, y = world.draw("abroad", 500, seed=10)
    with Registry() as registry, Ledger(ledger_path()) as ledger:
        champion = registry.register(world.bundle(tmp_path / "mood"), alias="champion")
        found = world.give_feedback(ledger, champion, x, truths=[])
    return dict(zip(found, (world.LABELS[index] for index in y), strict=True))


@pytest.fixture
def labeled(ids, tmp_path):
    path = tmp_path / "truths.csv"
    path.write_text("prediction_id,label\n" + "".join(f"{key},{label}\n" for key, label in ids.items()))
    assert run(feedback, "--csv", str(path)).output == "500 written, 0 refused\n"
    return ids


def run(verb, *arguments):
    return CliRunner().invoke(verb.command, list(arguments))


def table(path, rows=200, *, domain="home"):
    x, y = world.draw(domain, rows, seed=3)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["f1", "f2", "f3", "f4", "label"])
        writer.writerows([*point, world.LABELS[index]] for point, index in zip(x.tolist(), y, strict=True))
    return str(path)


def test_feedback_then_learn_then_a_new_champion(labeled, tmp_path):
    page = tmp_path / "guard.html"
    done = run(learn, "mood", "--promote", "--json", "--report", str(page))
    report = json.loads(done.stdout)
    assert done.exit_code == 0
    assert report["figures"]["promoted"] == 1
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    with Registry() as registry:
        assert registry.alias("mood", "champion") == 2


def test_learn_says_no_with_exit_code_one_and_the_reason(ids):
    done = run(learn, "mood", "--promote")
    assert done.exit_code == 1
    assert "note: not promoted, nothing was learned: 0 labeled rows can be fitted, 20 are needed" in done.output


def test_learn_of_an_unknown_model_names_it():
    with pytest.raises(NotFound, match="nobody"):
        run_raising(learn, "nobody")


def test_one_truth_is_given_by_id(ids):
    key = next(iter(ids))
    assert run(feedback, key, "glad").output == "written\n"
    with Ledger(ledger_path()) as ledger:
        assert [row.truth for row in ledger.labeled("mood")] == ["glad"]


def test_feedback_for_an_unknown_prediction_is_refused(ids):
    with pytest.raises(NotFound, match="nobody"):
        run_raising(feedback, "nobody", "glad")


def test_lines_that_cannot_be_kept_are_named_with_exit_code_one(ids, tmp_path):
    path = tmp_path / "truths.csv"
    path.write_text(f"prediction_id,label\nnobody,glad\n{next(iter(ids))},glad\n")
    done = run(feedback, "--csv", str(path), "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["written"] == 1
    assert json.loads(done.stdout)["refused"][0]["line"] == 2


def test_feedback_asks_for_either_an_id_or_a_file():
    assert run(feedback).exit_code == 2
    assert run(feedback, "p0").exit_code == 2


def test_evaluate_prints_figures_and_fails_by_its_gates(ids, tmp_path):
    data = table(tmp_path / "data.csv")
    passed = run(evaluate, "mood@champion", "--data", data, "--column", "numbers=f1,f2,f3,f4", "--gate", "accuracy>=0.9")
    assert passed.exit_code == 0, passed.output
    assert "passed  accuracy = " in passed.output
    failed = run(evaluate, "mood@champion", "--data", data, "--column", "values=f*", "--gate", "rows>=100000", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["gates"][0]["passed"] is False


def test_evaluate_reads_a_description_of_the_data(ids, tmp_path):
    table(tmp_path / "data.csv")
    spec = tmp_path / "data.yaml"
    spec.write_text(f"path: {tmp_path / 'data.csv'}\nfields: {{values: {{kind: number, columns: [f1, f2, f3, f4]}}}}\n")
    assert run(evaluate, "mood:1", "--data", str(spec)).exit_code == 0


def test_evaluate_refuses_a_column_without_a_meaning(ids, tmp_path):
    with pytest.raises(InvalidInput, match="is not KEY=COLUMN"):
        run_raising(evaluate, "mood", "--data", table(tmp_path / "data.csv"), "--column", "text")


def run_raising(verb, *arguments):
    done = run(verb, *arguments)
    assert isinstance(done.exception, InferloopError), done.output
    raise done.exception
