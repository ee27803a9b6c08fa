"""API keys: what is stored, what is refused, and how a running server follows its file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from inferloop.cli.keys import command
from inferloop.core.errors import Conflict, Forbidden, InvalidConfig, NewerSchema, NotFound, Unauthorized
from inferloop.serving.key_file import create, read, revoke
from inferloop.serving.keys import Keys
from inferloop.serving.rest.paths import patterns
from inferloop.serving.scopes import OPERATIONS, READS, Need, Scope, of_operation, of_rpc


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_opens_its_scopes_and_no_other(path: Path) -> None:
    secret, made = create(path, [Scope.INFER], name="shop")
    keys = Keys(path)
    assert keys.require(Need.INFER, f"Bearer {secret}") == made
    assert keys.require(Need.ANY, f"bearer {secret}".encode()) == made
    with pytest.raises(Forbidden, match="key 'shop' has no scope 'admin'"):
        keys.require(Need.ADMIN, f"Bearer {secret}")


@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer il_wrong", b"\xff\xfe", "Bearer \u2603"])
def test_what_is_no_key_is_401_with_a_hint(path: Path, sent: str | bytes | None) -> None:
    create(path, [Scope.INFER])
    with pytest.raises(Unauthorized) as caught:
        Keys(path).require(Need.ANY, sent)
    assert (caught.value.status, bool(caught.value.hint)) == (401, True)


def test_open_operations_ask_for_nothing(path: Path) -> None:
    create(path, [Scope.INFER])
    assert Keys(path).require(Need.OPEN, None) is None


def test_the_file_holds_no_key_and_is_its_owners_alone(path: Path) -> None:
    secret, _ = create(path, [Scope.ADMIN])
    assert secret not in path.read_text()
    assert secret[3:] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_revoked_key_is_refused_and_a_new_one_known_a_second_later(path: Path) -> None:
    old, key = create(path, [Scope.INFER])
    clock = Clock()
    keys = Keys(path, clock=clock)
    keys.require(Need.INFER, f"Bearer {old}")
    revoke(path, key.id)
    new, _ = create(path, [Scope.INFER])
    clock.now = 2.0
    with pytest.raises(Unauthorized):
        keys.require(Need.INFER, f"Bearer {old}")
    keys.require(Need.INFER, f"Bearer {new}")


def test_a_file_that_breaks_leaves_the_keys_as_they_were(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret, _ = create(path, [Scope.INFER])
    clock = Clock()
    keys = Keys(path, clock=clock)
    path.write_text("{")
    clock.now = 2.0
    assert keys.require(Need.INFER, f"Bearer {secret}") is not None
    assert "keys not read again" in caplog.text
    assert secret not in caplog.text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{}", InvalidConfig),
        ('{"schema": 2, "keys": []}', NewerSchema),
        ('{"schema": 1, "keys": [{"id": "a", "scopes": ["root"], "sha256": "0"}]}', InvalidConfig),
    ],
)
def test_a_file_that_is_none_is_refused_at_the_start(path: Path, text: str, error: type[Exception]) -> None:
    path.write_text(text)
    with pytest.raises(error):
        Keys(path)


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        Keys(path)
    assert "inferloop keys create" in caught.value.hint


def test_two_keys_cannot_share_a_name(path: Path) -> None:
    create(path, [Scope.INFER], name="shop")
    with pytest.raises(Conflict):
        create(path, [Scope.INFER], name="shop")
    assert len(read(path)) == 1


def test_the_verb_makes_lists_and_revokes(path: Path) -> None:
    run = CliRunner().invoke
    made = json.loads(
        run(command, ["create", "--scope", "infer,feedback", "--name", "shop", "--file", str(path), "--json"]).stdout
    )
    assert made["scopes"] == ["feedback", "infer"]
    listed = run(command, ["list", "--file", str(path)]).stdout
    assert made["id"] in listed
    assert made["key"] not in listed
    run(command, ["revoke", "shop", "--file", str(path)])
    assert read(path) == ()


def test_every_route_has_a_scope_that_somebody_chose() -> None:
    admin = {"repository_load", "repository_unload"}
    unnamed = {route.name for route in patterns().values()} - set(OPERATIONS) - READS - admin
    assert all(of_operation(name, "POST") is Need.ADMIN for name in unnamed)
    assert {of_operation(name, "POST") for name in ("infer", "feedback", "repository_load", "live")} == {
        Need.INFER,
        Need.FEEDBACK,
        Need.ADMIN,
        Need.OPEN,
    }


def test_what_nobody_named_asks_for_admin() -> None:
    assert of_operation("new", "GET") is Need.ADMIN
    assert of_rpc("/inference.GRPCInferenceService/LogSettings") is Need.ADMIN
    assert of_rpc("/inference.GRPCInferenceService/ModelInfer") is Need.INFER


def test_a_pipe_in_place_of_the_file_holds_nothing_up(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(InvalidConfig, match="not a regular file"):
        Keys(path)
