"""The command line as a user meets it: help, errors, exit codes, interruption, and nothing imported before it is needed."""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys

import click
import pytest

from inferloop.cli import logs, main
from inferloop.cli.verbs import SECTIONS, VERBS, Verb
from inferloop.core.errors import InvalidConfig, NotFound, Unavailable

HEAVY = ("numpy", "torch", "onnxruntime", "pydantic", "onnx", "sklearn", "aiohttp", "msgspec", "rich")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch):
    """Put a verb `try` into the table that does what the test says."""

    def install(action):
        command = click.Command("try", callback=action, params=[click.Option(["--size"], type=int)])
        monkeypatch.setitem(VERBS, "try", Verb(__name__, "for tests"))
        monkeypatch.setattr(main.Verbs, "get_command", lambda *_: command)

    return install


def raising(error):
    def action(size):
        raise error

    return action


def test_help_shows_every_verb_in_its_section(capsys):
    assert main.run(["--help"]) == 0
    page = capsys.readouterr().out
    for section, verbs in SECTIONS.items():
        assert f"\n{section}:\n" in page
        for name, verb in verbs.items():
            assert f"  {name} " in page
            assert verb.summary[:40] in page


def test_help_imports_nothing_heavy_and_takes_little_time():
    code = "import sys; from inferloop.cli.main import run; run(['--help']); print(*sys.modules, sep='\\n', file=sys.stderr)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert [name for name in HEAVY if name in done.stderr.split()] == []
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 2


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, inferloop, inferloop.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in HEAVY if name in done.stdout.split()] == []


def test_every_verb_names_a_module_with_a_command():
    import importlib

    for name, verb in VERBS.items():
        command = importlib.import_module(verb.module).command
        assert isinstance(command, click.Command), name
        assert command.help, name


def test_an_unknown_verb_is_two_lines_that_name_the_nearest(capsys):
    assert main.run(["trian"]) == 2
    assert capsys.readouterr().err == "error: no verb named 'trian'\nhint: did you mean `inferloop train`?\n"


def test_a_wrong_option_is_two_lines_that_name_the_help(verb, capsys):
    verb(lambda size: None)
    assert main.run(["try", "--size", "big"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: invalid value for '--size': 'big' is not a valid integer"
    assert hint == "hint: `inferloop try --help` shows what it takes"


def test_an_expected_error_is_two_lines_and_its_exit_code(verb, capsys):
    verb(raising(NotFound("no model named 'x'", hint="known: a, b")))
    assert main.run(["try"]) == 2
    assert capsys.readouterr().err == "error: no model named 'x'\nhint: known: a, b\n"


def test_an_error_without_a_hint_still_has_a_second_line(verb, capsys):
    verb(raising(Unavailable("port 8000 is in use")))
    assert main.run(["try"]) == 3
    assert capsys.readouterr().err.splitlines()[1].startswith("hint: ")


def test_every_problem_of_a_config_file_has_its_own_line(verb, capsys):
    verb(raising(InvalidConfig(["p.yaml: a: wrong", "p.yaml: b.c: missing"], hint="see the reference")))
    assert main.run(["try"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: p.yaml: a: wrong",
        "error: p.yaml: b.c: missing",
        "hint: see the reference",
    ]


def test_a_missing_file_names_the_file(verb, capsys):
    verb(raising(FileNotFoundError(2, "No such file or directory", "x.csv")))
    assert main.run(["try"]) == 2
    assert capsys.readouterr().err.startswith("error: x.csv: no such file or directory\nhint: ")


def test_a_full_disk_is_the_machines_fault(verb, capsys):
    verb(raising(OSError(28, "No space left on device", "ledger.db")))
    assert main.run(["try"]) == 3
    assert capsys.readouterr().err.startswith("error: ledger.db: no space left on device\nhint: ")


def test_a_defect_shows_its_traceback_only_with_debug(verb, capsys):
    verb(raising(KeyError("x")))
    assert main.run(["try"]) == 3
    quiet = capsys.readouterr().err
    assert quiet.startswith("error: internal: KeyError: 'x'\nhint: ")
    assert main.run(["--debug", "try"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_verb_exits_130_without_a_traceback(verb, capsys):
    verb(raising(KeyboardInterrupt()))
    assert main.run(["try"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_verb_may_answer_no(verb):
    verb(lambda size: click.get_current_context().exit(1))
    assert main.run(["try"]) == 1


def test_version_names_the_package(capsys):
    from importlib.metadata import version

    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"inferloop {version('inferloop')}\n"


def test_a_reader_that_leaves_early_is_no_error():
    script = f"{sys.executable} -c 'from inferloop.cli.main import main; main()' --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}
    assert done.stderr == ""


def record(**facts):
    return logging.getLogger("inferloop.test").makeRecord(
        "inferloop.test", logging.INFO, "f", 1, "model loaded", (), None, extra=facts
    )


def test_a_log_line_is_the_event_and_its_facts():
    line = logs.TextFormatter().format(record(model="refunds", load_s=0.123456789, path="a b"))
    assert line.endswith('INFO    inferloop.test model loaded model=refunds load_s=0.123457 path="a b"')


def test_a_json_log_line_is_one_object():
    content = json.loads(logs.JsonFormatter().format(record(model="refunds")))
    assert content["event"] == "model loaded"
    assert content["model"] == "refunds"
    assert content["level"] == "info"


@pytest.mark.parametrize("closed", ["| head -1", "| true", "| (sleep 1; head -1)", ">&-"])
def test_a_reader_that_leaves_is_no_failure(closed):
    command = f"set -o pipefail; {sys.executable} -m inferloop.cli.main plugins {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
