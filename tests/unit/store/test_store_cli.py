import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inferloop.cli import ledger as ledger_verb
from inferloop.cli import models as models_verb
from inferloop.cli import promote as promote_verb
from inferloop.cli import rollback as rollback_verb
from inferloop.core.bundle import MODEL, Bundle
from inferloop.core.errors import NotFound
from inferloop.data.journal import Journal, StoredDecision, journal_path
from inferloop.data.ledger.ledger import Ledger, ledger_path
from inferloop.data.ledger.records import FeedbackRecord, PredictionRecord
from inferloop.registry.registry import Registry

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("INFERLOOP_HOME", str(tmp_path / "home"))

    def run(verb: Any, *arguments: str) -> Result:
        return CliRunner().invoke(verb.command, list(arguments))

    return run


@pytest.fixture
def two_versions(call: Call, bundle: Bundle) -> None:
    with Registry() as registry:
        registry.register(bundle, alias="champion")
        registry.register(bundle.copy(bundle.path.parent / "b", evaluation={"accuracy": 0.9}))


def cells(text: str) -> Sequence[Sequence[str]]:
    return [line.split() for line in text.splitlines()]


def test_models_list_shows_versions_and_aliases(call: Call, two_versions: None) -> None:
    header, row = cells(call(models_verb, "list").stdout)
    assert header[:4] == ["MODEL", "VERSIONS", "LATEST", "ALIASES"]
    assert row[:5] == ["refunds", "2", "2", "@champion=1", "shop"]
    assert json.loads(call(models_verb, "list", "--json").stdout)[0]["aliases"] == {"champion": 1}


def test_models_list_of_an_empty_registry_is_an_empty_table(call: Call) -> None:
    assert call(models_verb, "list", "--json").stdout == "[]\n"
    assert call(models_verb, "list").stdout.startswith("MODEL")


def test_models_show_tells_signature_and_history(call: Call, two_versions: None) -> None:
    text = call(models_verb, "show", "refunds").stdout
    assert "x: FP32[N, 4]" in text
    assert "register" in text
    facts = json.loads(call(models_verb, "show", "refunds", "--json").stdout)
    assert (len(facts["versions"]), facts["desired"]["champion"], facts["labels"]) == (2, 1, ["yes", "no"])


def test_models_show_of_an_unknown_model_is_our_error(call: Call, two_versions: None) -> None:
    assert isinstance(call(models_verb, "show", "nothing").exception, NotFound)


def test_models_diff_names_what_changed(call: Call, two_versions: None) -> None:
    assert "evaluation.accuracy" in call(models_verb, "diff", "refunds:1", "refunds:2").stdout
    assert call(models_verb, "diff", "refunds:1", "refunds:1").stdout == "no differences\n"
    (found,) = json.loads(call(models_verb, "diff", "refunds:1", "refunds:2", "--json").stdout)
    assert found == {"path": "evaluation.accuracy", "before": None, "after": 0.9}


def test_models_verify_exits_1_when_a_file_is_damaged(call: Call, two_versions: None) -> None:
    assert call(models_verb, "verify").exit_code == 0
    with Registry() as registry:
        (registry.resolve("refunds:2").path / MODEL).write_bytes(b"x")
    result = call(models_verb, "verify", "refunds", "--json")
    assert result.exit_code == 1
    assert [bool(check["problem"]) for check in json.loads(result.stdout)] == [False, True]


def test_promote_and_rollback_print_the_move(call: Call, two_versions: None, tmp_path: Path) -> None:
    (tmp_path / "guard.json").write_text("{}")
    assert call(promote_verb, "refunds:2", "--report", str(tmp_path / "guard.json")).stdout == "refunds@champion: 1 -> 2\n"
    assert call(promote_verb, "refunds:2").stdout == "refunds:2 is the champion already\n"
    assert json.loads(call(rollback_verb, "refunds", "--json").stdout) == {"model": "refunds", "before": 2, "after": 1}
    with Registry() as registry:
        assert registry.history("refunds")[1].report_digest.startswith("sha256:")


def test_promoting_with_a_report_that_is_not_there_moves_nothing(call: Call, two_versions: None) -> None:
    assert isinstance(call(promote_verb, "refunds:2", "--report", "none.json").exception, NotFound)
    with Registry() as registry:
        assert registry.alias("refunds", "champion") == 1


@pytest.fixture
def one_prediction(call: Call) -> None:
    with Ledger(ledger_path()) as ledger:
        ledger.append(PredictionRecord("p1", 1.0, "refunds", 1, key="c1", label="yes", input=b"text", input_kind="text"))
        ledger.feedback(FeedbackRecord("p1", "no", "ann", 2.0))
    with Journal(journal_path()) as journal:
        journal.write([StoredDecision("p", "m1", "c1", 1.0, "", "no_rule", "yes", 0.5, "p1")])


def test_ledger_stats_count_by_model(call: Call, one_prediction: None) -> None:
    assert cells(call(ledger_verb, "stats").stdout)[1][:4] == ["refunds", "1", "1", "1"]
    assert json.loads(call(ledger_verb, "stats", "--json").stdout)["models"][0]["labeled"] == 1


def test_ledger_export_writes_a_file(call: Call, one_prediction: None, tmp_path: Path) -> None:
    result = call(ledger_verb, "export", "-o", str(tmp_path / "out.jsonl"))
    assert result.stdout.startswith("1 predictions written to ")
    assert json.loads((tmp_path / "out.jsonl").read_text())["truth"] == "no"


def test_ledger_erase_reaches_ledger_and_journal(call: Call, one_prediction: None) -> None:
    erased = json.loads(call(ledger_verb, "erase", "--key", "c1", "--json").stdout)
    assert (erased["ledger"]["predictions"], erased["ledger"]["feedback"], erased["journal"]["decisions"]) == (1, 1, 1)
    assert "0 predictions" in call(ledger_verb, "erase", "--key", "c1").stdout
