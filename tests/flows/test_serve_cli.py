"""`inferloop serve` and `inferloop predict` as a user runs them: processes, signals, exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferloop.cli import predict
from inferloop.core.errors import InvalidConfig, InvalidInput, NotFound
from inferloop.registry.registry import Registry
from support.bundles import image, linear, png, text

START_S = 60


@pytest.fixture
def models(tmp_path: Path, inferloop_home: Path) -> Path:
    """A home with the models `text` and `image`."""
    with Registry() as registry:
        for make in (text, image):
            registry.register(make(tmp_path / make.__name__), alias="champion")
    return inferloop_home


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "inferloop.cli.main", "serve", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A running server, its URL and the curl line that it printed."""
    process = start("--http-port", "0", *arguments)
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("ready: "), process.stderr.read() if process.stderr else ""
        while (curl := process.stdout.readline()).startswith("ready: "):  # gRPC
            continue
        watchdog.cancel()
        yield process, ready.split()[1], curl
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def post(url: str, body: bytes, content_type: str) -> dict[str, object]:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, object] = json.load(response)
        return answer


def test_it_serves_every_registered_model_and_ends_well_on_sigterm(models: Path) -> None:
    with served() as (process, url, curl):
        assert "/v2/models/" in curl
        answer = post(f"{url}/v2/models/text/infer", b"hello", "text/plain")
        stored = post(f"{url}/v2/models/text/feedback", json.dumps({"prediction_id": answer["id"], "label": "hot"}).encode(), "")
        assert stored["stored"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert (models / "ledger.db").exists()


def test_the_curl_line_that_it_prints_works(models: Path) -> None:
    with served("text@champion", "--no-ledger") as (_, _, curl):
        command = re.sub(r"^try: +", "", curl).strip()
        done = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(done.stdout)["model_name"] == "text"


def test_a_port_in_use_is_two_lines_and_exit_3(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("text", "--http-port", str(port))
        _, errors = process.communicate(timeout=START_S)
    assert process.returncode == 3
    lines = [line for line in errors.splitlines() if line.startswith(("error:", "hint:"))]
    assert lines == [f"error: port {port} of 127.0.0.1 is in use", "hint: stop the other process, or choose another port"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["text", "--host", "0.0.0.0"],
            "error: 0.0.0.0 can be reached from other machines",
        ),
        (["nope"], "error: no model named 'nope'"),
    ],
)
def test_what_it_cannot_serve_is_two_lines_and_exit_2(models: Path, arguments: list[str], error: str) -> None:
    process = start("--http-port", "0", *arguments)
    output, errors = process.communicate(timeout=START_S)
    assert (process.returncode, output) == (2, "")
    lines = [line for line in errors.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(lines) == 2
    assert lines[0].startswith(error)


def test_without_any_model_it_says_so(inferloop_home: Path) -> None:
    process = start("--http-port", "0")
    _, errors = process.communicate(timeout=START_S)
    assert process.returncode == 2
    assert "error: no model is registered" in errors


def run(*arguments: str, stdin: bytes | None = None) -> str:
    result = CliRunner().invoke(predict.command, list(arguments), input=stdin, catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_predict_prints_label_and_probability(models: Path, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(png())
    for output in (run("image", str(picture)), run("text@champion", "--text", "hello"), run("text", "-", stdin=b"hello")):
        label, score = output.split()
        assert label in ("cold", "warm", "hot")
        assert 0 <= float(score) <= 1


def test_predict_prints_json_for_every_input(models: Path) -> None:
    lines = [json.loads(line) for line in run("text", "--text", "a", "--text", "b", "--json").splitlines()]
    assert [line["input"] for line in lines] == ["a", "b"]
    assert sum(lines[0]["scores"].values()) == pytest.approx(1)


def test_predict_refuses_what_is_no_image_by_name(models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no image")
    with pytest.raises(InvalidInput, match="no image") as caught:
        run("image", str(broken))
    assert caught.value.exit_code == 2


def test_an_input_that_is_bad_is_named_and_spoils_no_other(models: Path, tmp_path: Path) -> None:
    for name, body in (("1.png", png()), ("2.png", png()[:40]), ("3.png", png(10)), ("4.png", b"no image")):
        (tmp_path / name).write_bytes(body)
    names = [str(tmp_path / f"{number}.png") for number in (1, 2, 3, 4, 5)]
    result = CliRunner().invoke(predict.command, ["image", *names])
    assert [line.split()[0] for line in result.stdout.splitlines()] == [names[0], names[2]]
    assert isinstance(result.exception, InvalidConfig)
    assert [problem.partition(".png")[0][-1] for problem in result.exception.problems] == ["2", "4", "5"]


def test_text_that_is_no_unicode_is_the_users_mistake(models: Path) -> None:
    with pytest.raises(InvalidInput, match="not utf-8 at byte 0"):
        run("text", "--text", "\udcff\udcfe")


def test_predict_names_what_is_missing(models: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        run("image", str(tmp_path / "absent.png"))
    with pytest.raises(NotFound, match="no model named 'nope'"):
        run("nope", "--text", "a")
    with pytest.raises(SystemExit):
        run("text")
    with pytest.raises(InvalidInput, match="declares no transforms"):
        run(str(linear(tmp_path / "linear").path), "--text", "a")


def test_stdin_is_read_as_bytes(models: Path) -> None:
    assert run("image", "-", stdin=io.BytesIO(png()).read()).split()[0] in ("cold", "warm", "hot")
