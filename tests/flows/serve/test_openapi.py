"""The OpenAPI document: the same routes as the server's tables, and a server that no generated request brings down."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from inferloop.serving.rest.openapi import document
from inferloop.serving.rest.paths import Paths, patterns
from support.bundles import linear, text
from support.serving import serving

METHODS = {"get", "head", "post", "put", "delete", "patch", "options"}
DEVICE_MEMORY = "/v2/cudasharedmemory/region/{region}/register"
EXAMPLES = os.environ.get("INFERLOOP_OPENAPI_EXAMPLES", "4")


def documented(content: dict) -> set[tuple[str, str]]:
    return {(path, method) for path, item in content["paths"].items() for method in item if method in METHODS}


def test_document_and_routing_table_name_the_same_paths_and_methods() -> None:
    routed = {(path, method.lower()) for path, route in patterns().items() for method in route.methods}
    assert documented(document()) == routed


def test_every_path_of_the_document_leads_to_its_operation() -> None:
    for template, route in patterns().items():
        found = Paths().find(template.replace("{model}", "m").replace("{version}", "7").replace("{region}", "r"))
        assert (found.name, found.methods) == (route.name, route.methods), template


async def test_every_operation_of_the_server_can_be_reached(tmp_path: Path) -> None:
    async with serving(tmp_path, linear(tmp_path / "linear")) as server:
        assert set(server.app._operations) == {route.name for route in patterns().values()}


def test_operation_ids_are_unique_and_references_lead_somewhere() -> None:
    content = document(keys=True)
    ids = [content["paths"][path][method]["operationId"] for path, method in documented(content)]
    assert len(ids) == len(set(ids))
    names = {part.split('"')[0] for part in json.dumps(content).split("#/components/schemas/")[1:]}
    assert names <= set(content["components"]["schemas"])


def test_with_keys_the_document_says_which_scope_each_operation_needs() -> None:
    paths = document(keys=True)["paths"]
    assert "`infer`" in paths["/v2/models/{model}/infer"]["post"]["description"]
    assert "security" not in paths["/v2/health/live"]["get"]


async def test_the_document_is_served_and_names_no_model(tmp_path: Path) -> None:
    async with serving(tmp_path, linear(tmp_path / "linear")) as server:
        reply = await server.ask("GET", "/openapi.json")
    assert reply.json == document()
    assert b"linear" not in reply.body


@pytest.mark.timeout(900)
async def test_generated_requests_meet_no_server_error(tmp_path: Path) -> None:
    if find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed: pip install 'inferloop[dev]'")
    async with serving(tmp_path, linear(tmp_path / "linear"), text(tmp_path / "text")) as server:
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(naming_models((await server.ask("GET", "/openapi.json")).json, ["linear", "text"])))
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", server.url]
        command += ["--checks", "not_a_server_error", "--phases", "examples,fuzzing", "--seed", "7", "--no-color"]
        command += ["--max-examples", EXAMPLES, "--generation-database", "none", "--suppress-health-check", "all"]
        command += ["--exclude-path", DEVICE_MEMORY]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()[-6000:]
        assert int(re.search(r"(\d+) generated", output.decode())[1]) >= 100  # type: ignore[index]
        assert (await server.ask("GET", "/v2/health/ready")).status == 200


async def test_the_one_path_that_is_not_offered_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, linear(tmp_path / "linear")) as server:
        body = b'{"raw_handle": {"b64": "AA=="}, "device_id": 0, "byte_size": 4}'
        assert (await server.ask("POST", DEVICE_MEMORY.replace("{region}", "r"), body)).status == 501


def naming_models(content: dict, names: list[str]) -> dict:
    """The document with models that are there, so that requests get past the door."""
    for path, item in content["paths"].items():
        for parameter in item.get("parameters", []):
            if parameter["name"] == "model" and "repository" not in path:
                parameter["schema"] = {"enum": names}
            elif parameter["name"] == "version":
                parameter["schema"] = {"enum": [1, 2]}
    return content
