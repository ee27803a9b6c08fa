import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferloop.core.bundle import MODEL, Bundle
from inferloop.core.errors import Conflict, InvalidBundle, InvalidInput, NotFound
from inferloop.registry.diff import differences
from inferloop.registry.records import Canary, Check, Desired, Rollback
from inferloop.registry.ref import ModelRef
from inferloop.registry.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as opened:
        yield opened


def test_versions_count_up_and_keep_the_content(registry: Registry, bundle: Bundle) -> None:
    first, second = registry.register(bundle), registry.register(bundle, owner="ann")
    assert (first.version, second.version) == (1, 2)
    assert first.manifest.files == bundle.manifest.files
    assert [(info.version, info.owner) for info in registry.versions("refunds")] == [(1, "shop"), (2, "ann")]
    assert registry.versions("refunds")[0].size_bytes > 20


def test_a_bundle_may_be_registered_under_another_name(registry: Registry, bundle: Bundle) -> None:
    assert registry.register(bundle, name="other").name == "other"
    assert registry.resolve("other").name == "other"


def test_a_reference_is_an_alias_a_version_a_name_or_a_path(registry: Registry, bundle: Bundle) -> None:
    for _ in range(3):
        registry.register(bundle)
    assert registry.resolve("refunds").version == 3
    registry.promote("refunds", 1, by="ann")
    registry.set_alias("refunds", "challenger", version=2, by="ann")
    assert [registry.resolve(f"refunds{ref}").version for ref in ("", "@champion", "@challenger", ":3")] == [1, 1, 2, 3]
    assert registry.resolve(str(bundle.path)).path == bundle.path
    assert registry.resolve(bundle.path).version == 0
    assert registry.version_of("refunds@challenger") == ("refunds", 2)


@pytest.mark.parametrize(
    ("ref", "kind"), [("", InvalidInput), (" ", InvalidInput), ("~nobody/x", NotFound), ("a@../..", NotFound)]
)
def test_what_names_nothing_is_the_callers_mistake(registry: Registry, ref: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        registry.resolve(ref)


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        ("nothing", "no model named 'nothing'", "known: refunds"),
        ("refunds@nobody", "has no alias 'nobody'", "known: champion"),
        ("refunds:7", "has no version 7", "known: 1, 2"),
        ("./nowhere", "no bundle at nowhere", "models list"),
    ],
)
def test_an_unknown_reference_tells_the_known_ones(registry: Registry, bundle: Bundle, ref: str, message: str, hint: str) -> None:
    registry.register(bundle, alias="champion")
    registry.register(bundle)
    with pytest.raises(NotFound, match=message) as caught:
        registry.resolve(ref)
    assert hint in caught.value.hint


@pytest.mark.parametrize("ref", ["", "a@", "a@b:1", "a:b", "@champion", "a b", "..:1"])
def test_what_is_no_reference_is_refused(ref: str) -> None:
    with pytest.raises(InvalidInput):
        ModelRef.parse(ref)


@pytest.mark.parametrize("name", ["../up", "a/b", "", "-a", "a" * 101, "a:b", "."])
def test_a_name_that_could_leave_the_directory_is_refused(registry: Registry, bundle: Bundle, name: str) -> None:
    if name:
        with pytest.raises(InvalidInput, match="not allowed"):
            registry.register(bundle, name=name)
    with pytest.raises(InvalidInput, match="not allowed"):
        registry.register(bundle, alias=name or "?")
    assert registry.models() == []


def test_promote_and_rollback_move_one_alias_and_keep_the_history(registry: Registry, bundle: Bundle) -> None:
    for _ in range(3):
        registry.register(bundle)
    for version in (1, 2, 3):
        registry.promote("refunds", version, by="ann", report_digest=f"sha256:{version}")
    assert registry.rollback("refunds", by="bob") == Rollback(3, 2)
    assert registry.rollback("refunds", by="bob") == Rollback(2, 1)
    with pytest.raises(NotFound, match="no earlier champion"):
        registry.rollback("refunds", by="bob")
    assert registry.alias("refunds", "champion") == 1
    assert [(move.kind, move.before, move.after, move.by) for move in registry.history("refunds")] == [
        ("promote", None, 1, "ann"),
        ("promote", 1, 2, "ann"),
        ("promote", 2, 3, "ann"),
        ("rollback", 3, 2, "bob"),
        ("rollback", 2, 1, "bob"),
    ]
    assert registry.history("refunds")[2].report_digest == "sha256:3"


def test_rollback_after_a_new_promotion_goes_back_to_what_was_live(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle, alias="champion")
    registry.register(bundle)
    registry.register(bundle)
    registry.promote("refunds", 2, by="a")
    registry.rollback("refunds", by="a")
    registry.promote("refunds", 3, by="a")
    assert registry.rollback("refunds", by="a") == Rollback(3, 1)


def test_rollback_passes_over_removed_versions(registry: Registry, bundle: Bundle) -> None:
    for version in (1, 2, 3):
        registry.register(bundle)
        registry.promote("refunds", version, by="a")
    registry.remove("refunds", 2)
    assert registry.rollback("refunds", by="a") == Rollback(3, 1)


def test_promoting_the_champion_again_changes_nothing(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle, alias="champion")
    before = registry.generation()
    registry.promote("refunds", 1, by="ann")
    assert registry.generation() == before
    assert len(registry.history("refunds")) == 1


def test_promoting_an_unknown_version_tells_the_known_ones(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle)
    with pytest.raises(NotFound, match="no version 9") as caught:
        registry.promote("refunds", 9, by="ann")
    assert caught.value.hint == "known: 1"


def test_the_desired_state_has_champion_canary_and_shadow(registry: Registry, bundle: Bundle) -> None:
    for _ in range(3):
        registry.register(bundle)
    assert registry.desired("refunds") == Desired(None)
    registry.promote("refunds", 1, by="a")
    registry.set_canary("refunds", 2, share=0.1, by="a")
    registry.set_shadow("refunds", 3, by="a")
    assert registry.desired("refunds") == Desired(1, Canary(2, 0.1), 3)
    registry.set_shadow("refunds", None)
    assert registry.desired("refunds") == Desired(1, Canary(2, 0.1))


def test_a_damaged_version_becomes_no_champion(registry: Registry, bundle: Bundle) -> None:
    damaged = registry.register(bundle, alias="champion")
    registry.register(bundle)
    registry.promote("refunds", 2, by="ann")
    (damaged.path / MODEL).write_bytes(b"cut")
    with pytest.raises(InvalidBundle, match="does not match its digest"):
        registry.promote("refunds", 1, by="ann")
    with pytest.raises(InvalidBundle, match="does not match its digest"):
        registry.rollback("refunds", by="ann")
    assert registry.alias("refunds", "champion") == 2


def test_promoting_a_canary_ends_its_phase(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle, alias="champion")
    registry.register(bundle)
    registry.set_canary("refunds", 2, share=0.1)
    registry.promote("refunds", 2, by="a")
    assert registry.desired("refunds") == Desired(2)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_canary_share_is_above_0_and_below_1(registry: Registry, bundle: Bundle, share: float) -> None:
    registry.register(bundle)
    with pytest.raises(InvalidInput, match="canary share"):
        registry.set_canary("refunds", 1, share=share)


def test_every_change_moves_the_generation(registry: Registry, bundle: Bundle, tmp_path: Path) -> None:
    seen = [registry.generation()]
    with Registry(tmp_path / "registry") as other:
        for change in (
            lambda: other.register(bundle),
            lambda: other.promote("refunds", 1, by="a"),
            lambda: other.set_shadow("refunds", 1),
            lambda: other.set_shadow("refunds", None),
            lambda: other.set_alias("refunds", "champion", version=None, by="a"),
            lambda: other.remove("refunds", 1),
        ):
            change()
            seen.append(registry.generation())
    assert seen == sorted(set(seen))


def test_the_generation_is_cheap_to_poll(registry: Registry) -> None:
    started = time.thread_time()
    for _ in range(500):
        registry.generation()
    assert (time.thread_time() - started) / 500 < 200e-6


def test_a_version_in_use_is_not_removed(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle, alias="champion")
    registry.register(bundle)
    with pytest.raises(Conflict, match="refunds:1 is in use by @champion"):
        registry.remove("refunds", 1)
    registry.remove("refunds", 2)
    assert [info.version for info in registry.versions("refunds")] == [1]
    assert not (registry.path / "bundles" / "refunds" / "2").exists()


def test_the_number_of_a_removed_version_is_not_used_again(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle)
    registry.remove("refunds", 1)
    assert registry.register(bundle).version == 2


def test_a_removed_model_is_gone_with_its_aliases_and_its_history_stays(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle, alias="champion")
    registry.remove("refunds", by="ann")
    assert registry.models() == []
    assert registry.history("refunds")[-1].kind == "remove"
    with pytest.raises(NotFound):
        registry.resolve("refunds")
    registry.register(bundle, alias="champion")
    with pytest.raises(NotFound, match="no earlier champion"):
        registry.rollback("refunds", by="ann")


def test_models_are_listed_with_aliases(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle, alias="champion")
    registry.register(bundle, name="another")
    assert [(info.name, info.versions, info.latest, info.aliases) for info in registry.models()] == [
        ("another", 1, 1, {}),
        ("refunds", 1, 1, {"champion": 1}),
    ]


def test_a_damaged_file_is_told_by_verify_and_refused_by_resolve(registry: Registry, bundle: Bundle) -> None:
    registry.register(bundle)
    (registry.register(bundle).path / MODEL).write_bytes(b"other")
    assert registry.verify("refunds")[0] == Check(1)
    assert "model.onnx does not match its digest" in registry.verify("refunds")[1].problem
    with pytest.raises(InvalidBundle, match="does not match its digest"):
        registry.resolve("refunds:2")


def test_another_bundle_in_the_place_of_a_registered_one_is_refused(registry: Registry, bundle: Bundle) -> None:
    stored = registry.register(bundle)
    swapped = bundle.copy(registry.path / "swapped", description="another")
    (stored.path / "bundle.json").write_bytes((swapped.path / "bundle.json").read_bytes())
    with pytest.raises(InvalidBundle, match="not what was registered"):
        registry.resolve("refunds:1")


def test_threads_that_register_at_once_get_versions_of_their_own(registry: Registry, bundle: Bundle) -> None:
    threads = [threading.Thread(target=lambda: [registry.register(bundle) for _ in range(5)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [info.version for info in registry.versions("refunds")] == list(range(1, 16))
    assert not any(check.problem for check in registry.verify("refunds"))


def test_a_registration_that_fails_leaves_nothing(registry: Registry, bundle: Bundle) -> None:
    (bundle.path / MODEL).unlink()
    with pytest.raises(Exception, match=MODEL):
        registry.register(bundle, alias="champion")
    assert registry.models() == []
    assert not (registry.path / "bundles" / "refunds" / "1").exists()
    with pytest.raises(NotFound, match="no model"):
        registry.resolve("refunds")


def test_files_without_a_database_are_never_overwritten(registry: Registry, bundle: Bundle, tmp_path: Path) -> None:
    orphan = registry.register(bundle).path
    registry.close()
    for file in registry.path.glob("registry.db*"):
        file.unlink()
    with Registry(registry.path) as fresh:
        assert fresh.register(bundle).version == 2
    assert Bundle.load(orphan).version == 1


def test_the_difference_of_two_bundles_names_what_changed(bundle: Bundle, tmp_path: Path) -> None:
    other = bundle.copy(tmp_path / "other", description="new", evaluation={"accuracy": 0.9})
    assert [(d.path, d.before, d.after) for d in differences(bundle, other)] == [
        ("description", "", "new"),
        ("evaluation.accuracy", None, 0.9),
    ]
    assert differences(bundle, bundle) == []
