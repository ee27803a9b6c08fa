"""What paths mean."""

from __future__ import annotations

import pytest

from inferloop.core.errors import InvalidInput
from inferloop.registry.ref import check_name
from inferloop.serving.rest.paths import Paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", ("server", "", None)),
        ("/v2/health/live", ("live", "", None)),
        ("/v2/models", ("models", "", None)),
        ("/v2/models/m", ("model", "m", None)),
        ("/v2/models/m/", ("model", "m", None)),
        ("/v2/models/m/infer", ("infer", "m", None)),
        ("/v2/models/m/versions/12/infer", ("infer", "m", 12)),
        ("/v2/models/m/versions/12", ("model", "m", 12)),
        ("/v2/models/a%2Fb%40champion/ready", ("model_ready", "a/b@champion", None)),
        ("/v2/feedback", ("feedback_many", "", None)),
    ],
)
def test_a_path_names_operation_model_and_version(path: str, expected: tuple[str, str, int | None]) -> None:
    route = Paths().find(path)
    assert (route.name, route.model, route.version) == expected


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v2/models//infer", "/v2/models/m/versions/infer", "/v2/models/m/versions/x/infer",
     "/v2/models/m/versions/-1", "/v2/models/m/versions/²", "/v2/models/m/infer/more", "/v2/health", "*"],
)  # fmt: skip
def test_other_paths_mean_nothing(path: str) -> None:
    assert Paths().find(path).name == ""


def test_what_is_remembered_is_bounded() -> None:
    paths = Paths()
    for number in range(10_000):
        paths.find(f"/v2/models/{number}/infer")
    assert len(paths._found) <= 4096


@pytest.mark.parametrize(
    ("path", "name", "region"),
    [
        ("/v2/systemsharedmemory/status", "shared_memory_status", ""),
        ("/v2/systemsharedmemory/region/a%20b/status", "shared_memory_status", "a b"),
        ("/v2/systemsharedmemory/region/r/register", "shared_memory_register", "r"),
        ("/v2/systemsharedmemory/unregister", "shared_memory_unregister", ""),
        ("/v2/cudasharedmemory/region/r/unregister", "cuda_unregister", "r"),
        ("/v2/systemsharedmemory/register", "", ""),
        ("/v2/systemsharedmemory/region//status", "", ""),
        ("/v2/systemsharedmemory/region/a/b/status", "", ""),
        ("/v2/systemsharedmemory", "", ""),
    ],
)
def test_regions_have_paths_of_their_own(path: str, name: str, region: str) -> None:
    route = Paths().find(path)
    assert (route.name, route.model) == (name, region)


def test_the_statistics_of_all_stand_where_a_model_of_that_name_would() -> None:
    assert Paths().find("/v2/models/stats").name == "stats"
    with pytest.raises(InvalidInput, match="'stats' is not allowed"):
        check_name("stats")
