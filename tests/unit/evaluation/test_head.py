"""The head fit against scikit-learn, and its own promises."""

import time

import numpy as np
import pytest

from inferloop.core.errors import InvalidInput
from inferloop.evaluation.calibration import fit_temperature, softmax
from inferloop.evaluation.head import LinearHead, choose_c, cross_validate, fit_head


def blobs(rows=600, width=12, classes=4, *, seed=0):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(classes, width))
    y = random.integers(0, classes, rows)
    return (centers[y] + 1.5 * random.normal(size=(rows, width)) + 3.0).astype(np.float32), y


def sklearn_fit(x, y, **options):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn comes with pip install 'inferloop[sklearn]'")
    weights = options.pop("sample_weight", None)
    return linear.LogisticRegression(tol=1e-9, max_iter=5000, **options).fit(x.astype(np.float64), y, sample_weight=weights)


@pytest.mark.parametrize(("classes", "c"), [(2, 0.1), (2, 30.0), (3, 1.0), (6, 30.0)])
def test_probabilities_and_coefficients_are_those_of_scikit_learn(classes, c):
    x, y = blobs(classes=classes)
    head, reference = fit_head(x, y, classes, c=c), sklearn_fit(x, y, C=c)
    np.testing.assert_allclose(softmax(head.logits(x)), reference.predict_proba(x.astype(np.float64)), atol=1e-3)
    ours = head.weight.T if classes > 2 else (head.weight[:, 1] - head.weight[:, 0])[None]
    np.testing.assert_allclose(ours, reference.coef_, atol=1e-3)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0}])
def test_class_and_sample_weights_mean_what_scikit_learn_means(class_weight):
    x, y = blobs(classes=3)
    weights = np.random.default_rng(1).random(len(y))
    head = fit_head(x, y, 3, class_weight=class_weight, sample_weight=weights)
    if class_weight == "balanced":
        # scikit-learn balances by the sum of sample weights, we by rows: the same up to that factor.
        counts = np.bincount(y)
        reference = sklearn_fit(x, y, C=1.0, sample_weight=weights * (len(y) / (3 * counts))[y])
    else:
        reference = sklearn_fit(x, y, C=1.0, class_weight=class_weight, sample_weight=weights)
    np.testing.assert_allclose(softmax(head.logits(x)), reference.predict_proba(x.astype(np.float64)), atol=1e-3)


def test_a_warm_start_changes_the_time_and_not_the_result():
    x, y = blobs()
    cold = fit_head(x, y, 4, c=10.0)
    elsewhere = LinearHead(np.random.default_rng(2).normal(size=cold.weight.shape), np.ones(4))
    np.testing.assert_allclose(fit_head(x, y, 4, c=10.0, init=elsewhere).weight, cold.weight, atol=1e-3)
    np.testing.assert_allclose(fit_head(x, y, 4, c=10.0, init=cold, max_iterations=1).weight, cold.weight, atol=1e-3)


def test_regularization_pulls_towards_the_prior_instead_of_zero():
    x, y = blobs()
    prior = LinearHead(np.random.default_rng(2).normal(size=(12, 4)), np.zeros(4))
    centered = prior.weight - prior.weight.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(fit_head(x, y, 4, c=1e-9, prior=prior).weight, centered, atol=1e-3)
    free, pulled = fit_head(x, y, 4, c=1e6), fit_head(x, y, 4, c=1e6, prior=prior)
    np.testing.assert_allclose(softmax(free.logits(x)), softmax(pulled.logits(x)), atol=5e-3)


def test_the_same_rows_give_the_same_bits():
    x, y = blobs()
    first, second = fit_head(x, y, 4), fit_head(x, y, 4)
    assert np.array_equal(first.weight, second.weight)
    assert np.array_equal(first.bias, second.bias)


def test_a_class_without_rows_never_wins():
    x, y = blobs(classes=3)
    logits = fit_head(x, y, 5).logits(x)
    assert logits.shape == (600, 5)
    assert set(logits.argmax(axis=1)) <= {0, 1, 2}


def test_separable_rows_with_hardly_any_regularization_end():
    x = np.array([[-1.0], [1.0]] * 20)
    y = np.array([0, 1] * 20)
    head = fit_head(x, y, 2, c=1e6)
    assert np.isfinite(head.weight).all()
    assert (head.logits(x).argmax(axis=1) == y).all()


def test_features_wider_than_the_preconditioner_are_fitted_too():
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 2500))
    y = random.integers(0, 3, 80)
    assert (fit_head(x, y, 3).logits(x).argmax(axis=1) == y).all()


def test_features_of_wild_scales_still_converge():
    x, y = blobs(classes=3)
    x = x * np.geomspace(1e-3, 1e3, x.shape[1], dtype=np.float32)
    head, reference = fit_head(x, y, 3, c=1.0, tolerance=1e-6), sklearn_fit(x * 1.0, y, C=1.0, solver="newton-cg")
    np.testing.assert_allclose(softmax(head.logits(x)), reference.predict_proba(x.astype(np.float64)), atol=5e-3)


def test_cross_validation_prefers_little_regularization_where_the_signal_is_strong_and_much_where_it_is_noise():
    x, y = blobs(rows=400, width=30)
    strong = np.eye(4)[y] * 2 + np.random.default_rng(0).normal(size=(400, 4)) * 0.3
    noise = np.random.default_rng(1).integers(0, 4, 400)
    assert choose_c(strong, y, 4, grid=(0.001, 1.0)) == 1.0
    assert min((result := cross_validate(x, noise, 4, grid=(0.001, 100.0))).losses, key=result.losses.get) == 0.001


def test_cross_validation_answers_for_every_row_once_and_calibrates():
    x, y = blobs(rows=203)
    result = cross_validate(x, y, 4, grid=(1.0, 10.0), seed=5)
    assert result.logits.shape == (203, 4)
    assert np.abs(result.logits).sum(axis=1).min() > 0
    assert result.temperature == fit_temperature(result.logits, y)
    assert cross_validate(x, y, 4, grid=(1.0, 10.0), seed=5).losses == result.losses


def test_dividing_by_a_temperature_divides_the_logits():
    head = LinearHead(np.ones((2, 3)), np.arange(3.0))
    np.testing.assert_allclose(head.scaled(2.0).logits(np.ones((1, 2))), head.logits(np.ones((1, 2))) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.array([0, 1, 9])}, "labels must be"),
        ({"y": np.array([0, 1])}, "they need"),
        ({"x": np.array([[0.0], [np.nan], [1.0]])}, "not finite"),
        ({"sample_weight": np.array([1.0, -1.0, 1.0])}, "sample weights"),
        ({"c": 0.0}, "C is 0"),
        ({"init": LinearHead(np.zeros((2, 2)), np.zeros(2))}, "the given head is"),
    ],
)
def test_bad_input_is_refused_with_its_reason(change, message):
    arguments = {"x": np.array([[0.0], [1.0], [2.0]]), "y": np.array([0, 1, 0]), **change}
    with pytest.raises(InvalidInput, match=message):
        fit_head(arguments.pop("x"), arguments.pop("y"), 2, **arguments)


def test_a_thousand_rows_of_a_sentence_encoder_fit_in_less_than_a_second_of_cpu():
    random = np.random.default_rng(0)
    y = random.integers(0, 10, 1000)
    x = random.normal(size=(10, 384))[y] * 0.4 + random.normal(size=(1000, 384))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    started = time.process_time()
    fit_head(x, y, 10, c=10.0)
    assert time.process_time() - started < 2.0
