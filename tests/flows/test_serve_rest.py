"""REST from the socket to the engine and the ledger, with everything real."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from inferloop.core.bundle import Bundle
from inferloop.net.limits import HttpLimits
from inferloop.prediction.limits import Limits
from support.bundles import LABELS, image, linear, mlp, numbers, png, text
from support.serving import Running, row, serving

X = (0.5, -1.0, 2.0, 0.25)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [make(folder / make.__name__) for make in (linear, mlp, numbers, text, image)]


@pytest.fixture
async def running(tmp_path: Path, bundles: list[Bundle]) -> AsyncIterator[Running]:
    async with serving(tmp_path, *bundles, http=HttpLimits(body_bytes=100_000)) as server:
        yield server


def golden(bundle: Bundle, name: str) -> np.ndarray:
    return bundle.arrays("golden.npz")[name]


async def test_health_and_metadata_are_as_the_protocol_says(running: Running) -> None:
    assert [(await running.ask("GET", f"/v2/health/{kind}")).status for kind in ("live", "ready")] == [200, 200]
    server = (await running.ask("GET", "/v2")).json
    assert server["name"] == "inferloop"
    assert {"binary_tensor_data", "statistics"} <= set(server["extensions"])
    assert "system_shared_memory" not in server["extensions"]
    model = (await running.ask("GET", "/v2/models/linear/versions/1")).json
    assert model == {
        "name": "linear",
        "versions": ["1"],
        "platform": "onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    listed = {entry["name"]: entry for entry in (await running.ask("GET", "/v2/models")).json["models"]}
    assert (listed["text"]["state"], listed["text"]["labels"], listed["text"]["fields"]) == (
        "READY",
        list(LABELS),
        {"text": "text"},
    )


async def test_json_tensors_are_answered_as_the_golden_rows_say(running: Running) -> None:
    bundle = running.router.bundle("linear")
    inputs, expected = golden(bundle, "inputs/x"), golden(bundle, "outputs/scores")
    request = {"id": "r1", "inputs": [{"name": "x", "shape": [8, 4], "datatype": "FP32", "data": inputs.tolist()}]}
    reply = await running.infer("linear", request)
    (output,) = reply.json["outputs"]
    assert (reply.json["id"], reply.json["model_name"], reply.json["model_version"]) == ("r1", "linear", "1")
    assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [8, 3])
    np.testing.assert_allclose(np.reshape(output["data"], (8, 3)), expected, rtol=1e-5)


async def test_binary_tensors_are_answered_in_binary(running: Running) -> None:
    blob = np.array([X], "<f4").tobytes()
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    reply = await running.ask("POST", "/v2/models/linear/infer", head + blob, Inference_Header_Content_Length=str(len(head)))
    size = int(reply.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(reply.body[:size])["outputs"]
    plain = (await running.infer("linear", row(*X))).json["outputs"][0]["data"]
    assert output["parameters"] == {"binary_data_size": 12}
    np.testing.assert_allclose(np.frombuffer(reply.body[size:], "<f4"), plain, rtol=1e-6)


async def test_a_raw_tensor_is_the_body_alone(running: Running) -> None:
    blob = np.array([X], "<f4").tobytes()
    reply = await running.ask("POST", "/v2/models/linear/infer", blob, Inference_Header_Content_Length="0")
    assert reply.status == 200
    assert len(reply.body) - int(reply.headers["Inference-Header-Content-Length"]) == 12
    empty = await running.ask("POST", "/v2/models/linear/infer")
    assert (empty.status, empty.json) == (400, {"error": "input 'x' has 0 bytes, FP32[1, 4] takes 16"})


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_body_is_read(running: Running, encoding: str) -> None:
    body = json.dumps(row(*X)).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    reply = await running.ask("POST", "/v2/models/linear/infer", packed, Content_Encoding=encoding)
    assert reply.status == 200


async def test_a_bomb_is_refused(running: Running) -> None:
    reply = await running.ask("POST", "/v2/models/linear/infer", gzip.compress(b" " * 50_000_000), Content_Encoding="gzip")
    assert (reply.status, reply.json) == (413, {"error": "the body is more than 100000 bytes when decompressed"})


async def test_only_the_outputs_that_were_asked_for_come_back(running: Running) -> None:
    every = await running.infer("mlp", row(*X))
    one = await running.infer("mlp", row(*X, outputs=[{"name": "logits"}]))
    assert [output["name"] for output in every.json["outputs"]] == ["embedding", "logits"]
    assert [output["name"] for output in one.json["outputs"]] == ["logits"]
    unknown = await running.infer("mlp", row(*X, outputs=[{"name": "zz"}]))
    assert (unknown.status, unknown.json) == (400, {"error": "unexpected inference output 'zz' for model 'mlp'"})
    assert unknown.headers["Inferloop-Hint"] == "known: embedding, logits"


async def test_unknown_parameters_are_ignored(running: Running) -> None:
    assert (await running.infer("linear", row(*X, parameters={"foo": "bar", "n": 1, "f": 1.5, "b": True}))).status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v2/models/nope/infer", row(*X), 404, "Request for unknown model: 'nope' is not found"),
        ("/v2/models/linear/versions/7/infer", row(*X), 404, "model: 'linear' version 7 is not found"),
        ("/v2/models/linear/versions/x/infer", row(*X), 404, "nothing at"),
        ("/v2/models/linear/infer", {"inputs": []}, 400, r"missing required input\(s\) \['x'\]"),
        ("/v2/models/linear/infer", row(1, 2, 3), 400, r"unexpected shape for input 'x' .* Expected \[-1,4\], got \[1,3\]"),
        ("/v2/models/linear/infer", {"x": 1}, 400, "declares no transforms"),
        ("/v2/models/linear/infer", [1, 2], 400, "declares no transforms"),
    ],
)
async def test_a_wrong_request_says_what_is_wrong(running: Running, path: str, body: object, status: int, message: str) -> None:
    reply = await running.ask("POST", path, json.dumps(body).encode())
    assert reply.status == status
    assert list(reply.json) == ["error"]
    assert re.search(message, reply.json["error"])


async def test_methods_paths_and_heads(running: Running) -> None:
    wrong = await running.ask("POST", "/v2/health/live")
    assert (wrong.status, wrong.headers["Allow"], list(wrong.json)) == (405, "GET, HEAD", ["error"])
    assert (await running.ask("GET", "/v2/models/linear/infer")).status == 405
    assert (await running.ask("GET", "/")).status == 404
    assert (await running.ask("HEAD", "/v2")).status == 200
    assert (await running.ask("GET", "/v2/models/nope/ready")).status == 400


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=latin-1", ""])
async def test_text_is_answered_with_a_label(running: Running, content_type: str) -> None:
    headers = {"content_type": content_type} if content_type else {}
    reply = await running.ask("POST", "/v2/models/text/infer", b"where is my order", **headers)
    answer = reply.json
    assert reply.headers["Inferloop-Prediction-Id"] == answer["id"]
    assert (answer["model_name"], answer["model_version"]) == ("text", "1")
    assert answer["label"] in LABELS
    assert answer["score"] == max(answer["scores"].values())
    assert sum(answer["scores"].values()) == pytest.approx(1)


async def test_a_json_object_without_inputs_is_a_sample(running: Running) -> None:
    asked = b'{"text": "where is my order"}'
    plain = await running.ask("POST", "/v2/models/text/infer", b"where is my order", content_type="text/plain")
    for headers in ({}, {"content_type": "application/json"}, {"content_type": "application/x-www-form-urlencoded"}):
        reply = await running.ask("POST", "/v2/models/text/infer", asked, **headers)
        assert reply.json["scores"] == plain.json["scores"]
    number = await running.ask("POST", "/v2/models/numbers/infer", b'{"values": [1, 2, 3, 4]}')
    assert number.json["label"] in LABELS
    missing = await running.ask("POST", "/v2/models/text/infer", b'{"words": "hello"}')
    assert (missing.status, missing.json) == (400, {"error": "no field named 'words'"})


async def test_a_json_object_with_inputs_is_the_protocol_whatever_its_type(running: Running) -> None:
    reply = await running.infer("linear", row(*X), content_type="text/plain")
    assert reply.json["outputs"][0]["shape"] == [1, 3]


async def test_text_that_begins_like_json_is_text_when_it_says_so(running: Running) -> None:
    reply = await running.ask("POST", "/v2/models/text/infer", b'{ :-) "inputs" are down', content_type="text/plain")
    assert reply.json["label"] in LABELS


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded"])
async def test_an_image_is_answered_with_a_label(running: Running, content_type: str) -> None:
    reply = await running.ask("POST", "/v2/models/image/infer", png(), content_type=content_type)
    assert reply.json["label"] in LABELS


async def test_an_image_that_is_none_is_a_400(running: Running) -> None:
    reply = await running.ask("POST", "/v2/models/image/infer", b"not an image", content_type="image/png")
    assert reply.status == 400
    assert "no image" in reply.json["error"]


async def test_an_empty_body_that_says_what_it_is_is_a_sample(running: Running) -> None:
    picture = await running.ask("POST", "/v2/models/image/infer", content_type="image/png")
    assert (picture.status, picture.json["error"]) == (400, "field 'image': the input is no image: empty, 0 bytes")
    assert (await running.ask("POST", "/v2/models/text/infer", content_type="text/plain")).status == 200


async def test_feedback_reaches_the_ledger(running: Running) -> None:
    made = (await running.ask("POST", "/v2/models/text/infer", b"so late again", content_type="text/plain")).json
    body = json.dumps({"prediction_id": made["id"], "label": "hot", "by": "anna"}).encode()
    reply = await running.ask("POST", "/v2/models/text/feedback", body)
    assert (reply.status, reply.json) == (200, {"prediction_id": made["id"], "stored": 1})
    (labeled,) = await asyncio.to_thread(lambda: list(running.ledger.labeled("text")))
    assert (labeled.truth, labeled.prediction.id, labeled.prediction.input) == ("hot", made["id"], b"so late again")


async def test_feedback_on_a_tensor_request_goes_by_the_header(running: Running) -> None:
    made = await running.infer("mlp", row(*X))
    body = json.dumps({"prediction_id": made.headers["Inferloop-Prediction-Id"], "label": "cold"}).encode()
    assert (await running.ask("POST", "/v2/models/mlp/feedback", body)).status == 200


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"prediction_id": "none", "label": "hot"}, 404, "no prediction 'none'"),
        ({"prediction_id": "none", "label": "boiling"}, 400, "has no label 'boiling'"),
        ({"prediction_id": "none"}, 400, "missing required field `label`"),
        ({"prediction_id": "none", "label": "hot", "extra": 1}, 400, "unknown field `extra`"),
        ([], 400, "expected `object`"),
    ],
)
async def test_wrong_feedback_is_refused(running: Running, body: object, status: int, message: str) -> None:
    reply = await running.ask("POST", "/v2/models/text/feedback", json.dumps(body).encode())
    assert reply.status == status
    assert message.lower() in reply.json["error"].lower()


async def test_feedback_for_another_model_is_refused(running: Running) -> None:
    made = (await running.ask("POST", "/v2/models/text/infer", b"hello", content_type="text/plain")).json
    body = json.dumps({"prediction_id": made["id"], "label": "hot"}).encode()
    assert (await running.ask("POST", "/v2/models/mlp/feedback", body)).status == 404


async def test_many_truths_are_stored_and_the_rest_named(running: Running) -> None:
    made = [
        (await running.ask("POST", "/v2/models/text/infer", word, content_type="text/plain")).json["id"] for word in (b"a", b"b")
    ]
    entries = [{"prediction_id": name, "label": "hot"} for name in (made[0], "none", made[1])]
    reply = await running.ask("POST", "/v2/feedback", json.dumps(entries).encode())
    assert reply.json == {
        "stored": 2,
        "refused": [{"index": 1, "prediction_id": "none", "error": "no prediction 'none' in the ledger"}],
    }
    assert (await running.ask("POST", "/v2/feedback", json.dumps(entries[1:2]).encode())).status == 404
    assert (await running.ask("POST", "/v2/feedback", b"[]")).json == {"stored": 0, "refused": []}


async def test_metrics_count_what_was_asked(running: Running) -> None:
    await running.infer("linear", row(*X))
    reply = await running.ask("GET", "/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert b'inferloop_requests_total{model="linear",outcome="ok",version="1"}' in reply.body


async def test_stopping_says_not_ready_and_still_answers(running: Running) -> None:
    running.app.stop_accepting()
    reply = await running.ask("GET", "/v2/health/ready")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert (await running.infer("linear", row(*X))).status == 200


async def test_promoting_and_rolling_back_under_load_fails_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path, mlp(tmp_path / "first")) as running:
        other = running.registry.register(mlp(tmp_path / "second", seed=1, bias=(50.0, 0.0, 0.0)))
        seen: dict[str, int] = {}
        failed = 0
        stop = asyncio.Event()

        async def client() -> None:
            nonlocal failed
            while not stop.is_set():
                reply = await running.infer("mlp", row(*X))
                failed += reply.status != 200
                version = reply.json.get("model_version", "")
                seen[version] = seen.get(version, 0) + 1

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for version in (other.version, 1, other.version):
            before = seen.get(str(version), 0)
            await asyncio.to_thread(running.registry.promote, "mlp", version, by="test")
            async with asyncio.timeout(60):
                while seen.get(str(version), 0) < before + 20:
                    await asyncio.sleep(0.01)
        stop.set()
        await asyncio.gather(*clients)
    assert failed == 0
    assert set(seen) == {"1", "2"}


async def test_requests_of_one_turn_share_batches_and_get_their_own_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, linear(tmp_path / "made"), limits=Limits(max_batch=8)) as running:
        rows = np.random.default_rng(0).normal(size=(60, 4)).round(3)
        alone = [(await running.infer("linear", row(*values))).json["outputs"][0]["data"] for values in rows]
        together = await asyncio.gather(*(running.infer("linear", row(*values, id=str(n))) for n, values in enumerate(rows)))
        assert [reply.json["id"] for reply in together] == [str(n) for n in range(60)]
        np.testing.assert_allclose([reply.json["outputs"][0]["data"] for reply in together], alone, rtol=1e-5)
        large = await running.infer("linear", {"inputs": [{"name": "x", "shape": [9, 4], "datatype": "FP32", "data": [0] * 36}]})
        assert large.status == 400
